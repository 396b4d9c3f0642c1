"""From the threads of a store into trio."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

import trio

from mcpd_core import McpdError

from .errors import StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")


def defect(error: BaseException) -> StoreError:
    """Say of what a store did not mean to raise what it is."""
    return StoreError(
        f"The task store has a defect ({type(error).__name__}: {error}).",
        hint="Report it with what the log says.",
    )


class Signal:
    """A wake-up that is remembered until somebody waits for it."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()


class Bridge:
    """Brings what happens on other threads to the trio thread that made the bridge.

    What happens close together crosses together: a commit that answers a hundred callers wakes the
    trio thread once.

    :param call_soon: has a function called on that thread, from any; trio's own way when ``None``,
        which wakes a task of trio first.
    """

    def __init__(self, call_soon: Callable[[Callable[[], object]], object] | None = None) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._call_soon = call_soon or self._token.run_sync_soon
        self._lock = threading.Lock()
        self._posted: list[Callable[[], Any]] = []

    def post(self, function: Callable[[], Any]) -> None:
        """Have a function called on the trio thread soon, in the order of posting.

        May be called from any thread. After the end of the trio run nothing is called any more:
        nobody is left who could care.
        """
        with self._lock:
            self._posted.append(function)
            if len(self._posted) > 1:
                return  # the crossing that the first one ordered takes this one along
        try:
            self._call_soon(self._cross)
        except trio.RunFinishedError:
            pass

    def _cross(self) -> None:
        with self._lock:
            posted, self._posted = self._posted, []
        if not self._in_time():
            return
        for function in posted:
            try:
                function()
            except Exception:
                # Others cross with it, and trio would take the whole process down.
                log.exception("what the task store has told was not taken note of")

    def _in_time(self) -> bool:
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False  # no run of trio is left on this thread

    async def wait(self, future: Future[T]) -> T:
        """Wait for a future and return its result.

        Cancelling the wait does not cancel what the future stands for: a change that has reached
        the store may become durable all the same.
        """
        if future.done():
            await trio.lowlevel.checkpoint()
        else:
            task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

            def wake() -> None:
                if task is not None:
                    trio.lowlevel.reschedule(task)

            def abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
                nonlocal task
                task = None
                return trio.lowlevel.Abort.SUCCEEDED

            # What `trio.Event` does, which for one waiter costs three times as much.
            future.add_done_callback(lambda _: self.post(wake))
            await trio.lowlevel.wait_task_rescheduled(abort)
        return future.result()

    async def answer(self, future: Future[T]) -> T:
        """Wait for an answer of the store, for those who must go on whatever it is.

        :raises McpdError: as the store does; a `StoreError` for what it did not mean to raise.
        :raises concurrent.futures.CancelledError: when it was not asked after all.
        """
        try:
            return await self.wait(future)
        except (McpdError, CancelledError):
            raise
        except Exception as error:
            log.exception("The task store has a defect.")
            raise defect(error) from error
