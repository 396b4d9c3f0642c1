"""trio beside the host's loop, in the same thread, through trio's public guest mode.

In guest mode trio's scheduler runs as callbacks of the host's loop, and a helper thread waits for
its I/O (https://trio.readthedocs.io/en/stable/reference-lowlevel.html, "Using guest mode"). Both
libraries therefore share one thread, and plain method calls between them are safe.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import CallCancelled, ToolUnavailable
from .asyncio_loop import capture
from .base import Expired, Gate, Outcome, name_of, supervise

if TYPE_CHECKING:
    import outcome
    import trio
    import trio.lowlevel

T = TypeVar("T")

_log = logging.getLogger(__name__)


class TrioRuntime:
    """One trio run, driven by the host's loop until `aclose`."""

    name = "trio"
    rung = "guest"

    def __init__(self) -> None:
        self._crossings: set[_Crossing[Any]] = set()
        self._nursery: trio.Nursery | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the run was started and has not ended."""
        return self._nursery is not None

    async def start(self) -> None:
        """Start the trio run; awaited once, on the host's loop.

        trio is imported here. Import it beforehand, in a thread, where the loop must not wait.
        """
        import trio

        self._trio = trio
        self._loop = loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        ready: asyncio.Future[None] = loop.create_future()

        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            self._closing = trio.Event()
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if not ready.done():
                    ready.set_result(None)
                await self._closing.wait()
                nursery.cancel_scope.cancel()

        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=loop.call_soon,
            done_callback=self._on_end,
            # Signals belong to the host; trio must not take its wake-up descriptor.
            host_uses_signal_set_wakeup_fd=True,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        await ready

    def _on_end(self, end: outcome.Outcome[Any]) -> None:
        self._nursery = None
        assert self._ended is not None
        self._ended.set_result(None)
        try:
            end.unwrap()
        except BaseException:  # noqa: BLE001 - the boundary: nobody awaits the run itself
            _log.exception("The trio runtime ended with an error; its tools are unavailable.")
        for crossing in list(self._crossings):
            crossing.settle(Outcome(cancelled=True))

    async def run(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """See `Runtime.run`.

        :raises ToolUnavailable: when the run has not been started or has ended.
        """
        if self._nursery is None:
            raise ToolUnavailable("The trio runtime is not running.")
        crossing = _Crossing(self, function)
        self._crossings.add(crossing)
        self._token.run_sync_soon(crossing.start)
        try:
            expired = await supervise(
                crossing.done, crossing.cancel, deadline=deadline, name=name_of(function)
            )
        finally:
            self._crossings.discard(crossing)
        if crossing.outcome.cancelled:
            if expired:
                raise Expired
            raise CallCancelled("The call was cancelled because the trio runtime was closed.")
        return crossing.outcome.unwrap()

    async def run_here(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """Run a function for a caller that runs in trio already: a plain await.

        :param deadline: `time.monotonic` time at which it is cancelled.
        :raises Expired: when the deadline passed.
        """
        if deadline is None:
            return await function()
        with self._trio.move_on_after(max(0.0, deadline - time.monotonic())):
            return await function()
        raise Expired

    async def run_in_host(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a function on the host's loop; awaited in trio."""
        lowlevel = self._trio.lowlevel
        waiting = lowlevel.current_task()
        task = contextvars.copy_context().run(self._loop.create_task, capture(function))
        task.add_done_callback(lambda _: self._token.run_sync_soon(lowlevel.reschedule, waiting))
        raise_cancel: Callable[[], Any] | None = None

        def abort(raise_cancelled: Callable[[], Any]) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = raise_cancelled
            task.cancel()
            # Wait on: the task reschedules this one when it has cleaned up.
            failed: trio.lowlevel.Abort = lowlevel.Abort.FAILED
            return failed

        await lowlevel.wait_task_rescheduled(abort)
        if task.cancelled():
            if raise_cancel is not None:
                raise_cancel()
            raise CallCancelled("The call was cancelled from within.")
        return task.result().unwrap()

    def gate(self) -> Gate:
        """See `Runtime.gate`."""
        return _TrioGate(self)

    async def aclose(self) -> None:
        """See `Runtime.aclose`."""
        if self._ended is None or self._ended.done():
            return
        self._token.run_sync_soon(self._closing.set)
        # For as long as clean-up takes: abandoning a guest run would leave the thread unable to
        # run trio again.
        await asyncio.shield(self._ended)


class _TrioGate:
    def __init__(self, runtime: TrioRuntime) -> None:
        self._runtime = runtime
        self._event = runtime._trio.Event()

    def open(self) -> None:
        if self._runtime.running:
            self._runtime._token.run_sync_soon(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()


class _Crossing(Generic[T]):
    """One function on its way from the host into trio and back."""

    def __init__(self, runtime: TrioRuntime, function: Callable[[], Awaitable[T]]) -> None:
        self._runtime = runtime
        self._function = function
        self._context = contextvars.copy_context()
        self._scope: trio.CancelScope | None = None
        self._cancelled = False
        self.done: asyncio.Future[None] = runtime._loop.create_future()
        self.outcome: Outcome[T] = Outcome()

    def start(self) -> None:
        nursery = self._runtime._nursery
        if nursery is None or self._cancelled:
            self.settle(Outcome(cancelled=True))
        else:
            self._context.run(partial(nursery.start_soon, self._run, name=self._function))

    def cancel(self) -> None:
        self._cancelled = True
        # Not directly: outside one of its ticks trio cannot be told that a task is to wake up.
        self._runtime._token.run_sync_soon(self._cancel_scope)

    def _cancel_scope(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self) -> None:
        trio = self._runtime._trio
        outcome: Outcome[T] = Outcome(cancelled=True)
        try:
            with trio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                outcome = Outcome(value=await self._function())
        except trio.Cancelled:
            # The whole runtime is closing.
            raise
        except BaseException as error:  # noqa: BLE001 - the boundary: handed to the caller
            outcome = Outcome(error=error)
        finally:
            self.settle(outcome)

    def settle(self, outcome: Outcome[T]) -> None:
        # Not `outcome` alone decides: a caller that was cancelled in the very iteration in which
        # the function ended still waits for `done`.
        if not self.done.done():
            self.outcome = outcome
            self.done.set_result(None)
