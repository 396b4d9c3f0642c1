"""The two libraries that a `ThreadBridge` can drive in its thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .asyncio_loop import AsyncioRuntime, capture
from .base import Expired, Outcome, name_of, supervise
from .mailbox import Mailbox
from .mistakes import explain
from .trio_berths import Berth, Berths
from .trio_crossings import without_cancellation

if TYPE_CHECKING:
    import trio

T = TypeVar("T")

#: Raises the cancellation of the task that was cancelled while it waited.
RaiseCancelled = Callable[[], Any]


class FarEvent(Protocol):
    """An event of a library, to be set and waited for in its loop."""

    def set(self) -> object: ...

    async def wait(self) -> object: ...


class FarCall(Protocol):
    """A function that is to be run in the thread, with what its runner has to tell."""

    function: Callable[[], Awaitable[Any]]
    context: Context

    def entered(self, stop: Callable[[], object]) -> None: ...

    def left(self, outcome: Outcome[Any]) -> None: ...


class FarSide(Protocol):
    """A library's part of a bridge; except for `event`, it is used in the thread only."""

    def main(self, on_ready: Callable[[Mailbox], None]) -> None:
        """Run a loop of the library in this thread until `stop`, and until all calls have ended.

        :param on_ready: is given the way into the loop as soon as it turns.
        """
        ...

    def spawn(self, call: FarCall) -> None:
        """Run a function in a task and in its context."""
        ...

    def stop(self) -> None:
        """Let `main` end when no call is left."""
        ...

    def event(self) -> FarEvent:
        """Return an event that is not set; any thread may ask for one."""
        ...

    async def run_here(self, function: Callable[[], Awaitable[T]], *, deadline: float | None) -> T:
        """Run a function for a caller in this loop: a plain await, unless it has a deadline.

        :param deadline: `time.monotonic` time at which it is cancelled.
        :raises Expired: when the deadline passed.
        """
        ...

    async def wait_for(
        self, start: Callable[[Callable[[], object]], None], cancel: Callable[[], None]
    ) -> RaiseCancelled | None:
        """Wait for something that goes on elsewhere; to its end, even when cancelled.

        :param start: starts it, and is given what must be called in this loop at its end.
        :param cancel: asks it to stop; called at most once, when the waiting task is cancelled.
        :returns: when the waiting task was cancelled, what raises that, if it has not been raised.
        """
        ...


class TrioSide:
    """A trio run."""

    def __init__(self, host: type[asyncio.AbstractEventLoop]) -> None:
        self._berths: Berths
        self._guests: set[_TrioGuest] = set()

    def main(self, on_ready: Callable[[Mailbox], None]) -> None:
        import trio

        self._trio = trio

        async def run() -> None:
            self._stopped = trio.Event()
            async with trio.open_nursery() as nursery:
                self._berths = Berths(trio, nursery)
                await self._berths.open_one()
                on_ready(Mailbox(trio.lowlevel.current_trio_token().run_sync_soon))
                await self._stopped.wait()
                while self._guests:
                    self._left = trio.Event()
                    await self._left.wait()
                # What tools have left running ends with the thread.
                nursery.cancel_scope.cancel()

        self._left = trio.Event()
        trio.run(run)

    def spawn(self, call: FarCall) -> None:
        call.context.run(self._spawn, call)

    def _spawn(self, call: FarCall) -> None:
        berth = self._berths.take()
        guest = _TrioGuest(call, berth, self._trio.Cancelled, self._leave)
        self._guests.add(guest)
        name = name_of(call.function)
        if berth is None:
            self._berths.open_for(guest, name)
        else:
            berth.nursery.start_soon(guest.run, name=name)

    def _leave(self, guest: _TrioGuest) -> None:
        self._guests.discard(guest)
        self._left.set()

    def stop(self) -> None:
        self._stopped.set()

    def event(self) -> FarEvent:
        return self._trio.Event()

    async def run_here(self, function: Callable[[], Awaitable[T]], *, deadline: float | None) -> T:
        if deadline is None:
            return await function()
        with self._trio.move_on_after(max(0.0, deadline - time.monotonic())):
            return await function()
        raise Expired

    async def wait_for(
        self, start: Callable[[Callable[[], object]], None], cancel: Callable[[], None]
    ) -> RaiseCancelled | None:
        lowlevel = self._trio.lowlevel
        raise_cancelled: RaiseCancelled | None = None

        def abort(raise_it: RaiseCancelled) -> trio.lowlevel.Abort:
            nonlocal raise_cancelled
            raise_cancelled = raise_it
            cancel()
            # Wait on: what was started wakes this task when it has cleaned up.
            failed: trio.lowlevel.Abort = lowlevel.Abort.FAILED
            return failed

        start(partial(lowlevel.reschedule, lowlevel.current_task()))
        await lowlevel.wait_task_rescheduled(abort)
        return raise_cancelled


class _TrioGuest:
    """One call in trio, in a berth of its own: what it leaves behind there harms no other.

    :param cancelled: trio's cancellation, which never leaves the thread.
    :param leave: called at the end.
    """

    def __init__(
        self,
        call: FarCall,
        berth: Berth | None,
        cancelled: type[BaseException],
        leave: Callable[[_TrioGuest], None],
    ) -> None:
        self.berth = berth
        self._call = call
        self._cancelled = cancelled
        self._leave = leave
        self._asked = False

    async def run(self) -> None:
        assert self.berth is not None
        self._call.entered(self._cancel)
        self._call.left(await self._outcome())
        if not self._asked:
            self.berth.leave()
        self._leave(self)

    async def _outcome(self) -> Outcome[Any]:
        try:
            # What was cancelled before its first step never starts.
            if not self._asked:
                return Outcome(value=await self._call.function())
        except BaseException as error:  # noqa: BLE001 - the boundary: handed to the caller
            # Elsewhere: the traceback leads to this frame, whose variables must not lead back.
            return self._failed(error)
        return Outcome(cancelled=True)

    def _failed(self, error: BaseException) -> Outcome[Any]:
        failure = without_cancellation(error, self._cancelled)
        if failure is None:
            return Outcome(cancelled=True)
        return Outcome(error=explain(error, "trio") if failure is error else failure)

    def _cancel(self) -> None:
        assert self.berth is not None
        self._asked = True
        self.berth.cancel()


class AsyncioSide:
    """A loop of asyncio, of the same kind as the host's."""

    def __init__(self, host: type[asyncio.AbstractEventLoop]) -> None:
        self._kind = host
        self._runtime = AsyncioRuntime()
        self._tasks: set[asyncio.Task[Any]] = set()

    def main(self, on_ready: Callable[[Mailbox], None]) -> None:
        self._loop = loop = self._kind()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._run(on_ready))
            loop.run_until_complete(_end_strays())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _run(self, on_ready: Callable[[Mailbox], None]) -> None:
        self._stopped = asyncio.Event()
        on_ready(Mailbox(self._loop.call_soon_threadsafe))
        await self._stopped.wait()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def spawn(self, call: FarCall) -> None:
        task = call.context.run(self._loop.create_task, capture(call.function))
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, call))
        call.entered(task.cancel)

    def _end(self, call: FarCall, task: asyncio.Task[Outcome[Any]]) -> None:
        self._tasks.discard(task)
        call.left(Outcome(cancelled=True) if task.cancelled() else task.result())

    def stop(self) -> None:
        self._stopped.set()

    def event(self) -> FarEvent:
        return asyncio.Event()

    async def run_here(self, function: Callable[[], Awaitable[T]], *, deadline: float | None) -> T:
        return await self._runtime.run_here(function, deadline=deadline)

    async def wait_for(
        self, start: Callable[[Callable[[], object]], None], cancel: Callable[[], None]
    ) -> RaiseCancelled | None:
        done: asyncio.Future[None] = self._loop.create_future()
        start(partial(done.set_result, None))
        await supervise(done, cancel, deadline=None, name="What was asked of the host")
        return None


async def _end_strays() -> None:
    """Cancel the tasks that tools have left running, and wait for them."""
    strays = asyncio.all_tasks() - {asyncio.current_task()}
    for task in strays:
        task.cancel()
    # What they raise is their own affair: nobody has waited for them.
    await asyncio.gather(*strays, return_exceptions=True)


FAR_SIDES: Mapping[str, Callable[[type[asyncio.AbstractEventLoop]], FarSide]] = {
    "asyncio": AsyncioSide,
    "trio": TrioSide,
}
