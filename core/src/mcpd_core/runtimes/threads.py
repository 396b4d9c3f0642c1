"""Worker threads for ``def`` tools."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from ..errors import CallCancelled
from .base import Expired, Outcome, name_of, supervise

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ThreadRuntime:
    """A pool of daemon threads that grows to its limit and is awaited from the host's loop.

    Nothing can interrupt a thread. A cancelled function is told so through its own means (see
    `Context.check_cancelled`) and is waited for; one that does not listen within the patience is
    left behind with a warning, and keeps its thread until it returns.

    :param limit: the greatest number of threads.
    :param patience: seconds to wait for a cancelled function.
    """

    name = "thread"
    rung = "pool"

    def __init__(self, limit: int, patience: float) -> None:
        self._limit = limit
        self._patience = patience
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    async def run(
        self,
        function: Callable[[], T],
        *,
        deadline: float | None = None,
        on_cancel: Callable[[], None] = lambda: None,
    ) -> T:
        """Run a function in a worker thread; awaited on the host's loop.

        :param deadline: `time.monotonic` time at which ``on_cancel`` is called.
        :param on_cancel: tells the function to stop; called on the host's thread.
        :raises Expired: when the deadline passed, whether or not the function has returned.
        """
        job: _Job[T] = _Job(function)
        self._busy += 1
        if self._busy > self._threads < self._limit:
            self._threads += 1
            # Daemon threads: a function that never returns must not keep the process alive.
            threading.Thread(
                target=self._work, name=f"mcpd-tool-{self._threads}", daemon=True
            ).start()
        self._jobs.put(job)

        def cancel() -> None:
            job.cancelled = True
            on_cancel()

        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_return(_: object) -> None:
            self._busy -= 1
            if not done.done():
                done.set_result(None)

        job.returned.add_done_callback(on_return)
        try:
            expired = await supervise(done, cancel, deadline=deadline, patience=self._patience)
        finally:
            if not job.returned.done():
                _log.warning(
                    "%s did not stop within %g s of being cancelled; its thread runs on.",
                    name_of(function),
                    self._patience,
                )
        if not job.returned.done():
            raise Expired
        if expired and (job.outcome.cancelled or isinstance(job.outcome.error, CallCancelled)):
            raise Expired
        return job.outcome.unwrap()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            # An idle thread must not keep the last call's arguments alive.
            del job

    async def aclose(self) -> None:
        """Let idle threads end; one that is still in a function ends after it."""
        for _ in range(self._threads):
            self._jobs.put(None)


class _Job(Generic[T]):
    """One function on its way through a worker thread."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self.returned: asyncio.Future[None] = self._loop.create_future()
        self.cancelled = False
        self.outcome: Outcome[T] = Outcome(cancelled=True)

    def run(self) -> None:
        if not self.cancelled:
            try:
                self.outcome = Outcome(value=self._context.run(self._function))
            except BaseException as error:  # noqa: BLE001 - the boundary: handed to the caller
                self.outcome = Outcome(error=error)
        try:
            self._loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            # The loop was closed while the function ran on; nobody waits any more.
            _log.debug("%s returned after the host had closed.", name_of(self._function))

    def _settle(self) -> None:
        self.returned.set_result(None)
