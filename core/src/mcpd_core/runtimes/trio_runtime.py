"""The promises of the trio runtime, whichever driver moves trio on.

Code on the host's side may use whatever of trio needs no current task, because both libraries share
the thread and the host's code only runs between two steps of trio: it starts tasks, sets events,
cancels scopes and reschedules tasks directly.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CallCancelled, ToolUnavailable
from .base import Expired, Gate, name_of, supervise
from .trio_berths import Berths
from .trio_crossings import Crossing, Visit
from .trio_drivers import Choice, Driver, choose

if TYPE_CHECKING:
    import trio
    import trio.lowlevel

T = TypeVar("T")

_log = logging.getLogger(__name__)


class TrioRuntime:
    """One trio run beside the host's loop, from `start` to `aclose`; it can be started again.

    :param choice: the driver; see `mcpd_core.runtimes.trio_drivers`.
    :param eager: whether a call may run trio at once instead of in the loop's next turn.
    """

    name = "trio"
    _loop: asyncio.AbstractEventLoop

    def __init__(self, choice: Choice = "auto", *, eager: bool = True) -> None:
        self._choice: Choice = choice
        self._eager = eager
        self._crossings: set[Crossing[Any]] = set()
        #: What tasks of trio wait for on the host's loop.
        self._visits: set[Visit[Any]] = set()
        #: Where calls go; ``None`` while there is no run that takes any.
        self._berths: Berths | None = None
        self._running = False
        self._ended: asyncio.Future[None] | None = None
        self.driver: Driver | None = None

    @property
    def rung(self) -> str:
        """The driver that was chosen, ``fused`` or ``guest``; ``none`` before the start."""
        return "none" if self.driver is None else self.driver.rung

    @property
    def running(self) -> bool:
        """Whether the run was started and has not ended."""
        return self._running

    async def start(self) -> None:
        """Start the trio run; awaited on the host's loop.

        trio is imported here. Import it beforehand, in a thread, where the loop must not wait.

        :raises ToolUnavailable: when the driver that was asked for cannot be used here, or a run is
            under way.
        """
        import trio

        loop = asyncio.get_running_loop()
        if self._ended is not None and not self._ended.done() and not self._loop.is_closed():
            raise ToolUnavailable("The trio runtime has been started and has not ended.")
        if _trio_runs_here():
            raise ToolUnavailable(
                "Another run of trio has begun in the server's thread and has not ended.",
                hint="Let one server in a thread run tools of trio, and close it before its loop.",
            )
        driver = choose(self._choice, loop, eager=self._eager)
        self._trio = trio
        self._loop = loop
        ended: asyncio.Future[None] = loop.create_future()
        ready: asyncio.Future[None] = loop.create_future()
        closing = trio.Event()
        died: BaseException | None = None

        async def main() -> None:
            nonlocal died
            try:
                async with trio.open_nursery() as nursery:
                    berths = Berths(trio, nursery)
                    await berths.open_one()
                    if not closing.is_set():
                        self._berths, self._running = berths, True
                    if not ready.done():
                        ready.set_result(None)
                    await closing.wait()
                    nursery.cancel_scope.cancel()
            except BaseException as error:  # noqa: BLE001 - the boundary: nobody awaits the run
                died = error

        def on_end(error: BaseException | None) -> None:
            self._finish(error or died, expected=closing.is_set())
            if loop.is_closed():
                # Nobody waits any more, and another loop may start a run.
                self._ended = None
                return
            for future in (ready, ended):
                if not future.done():
                    future.set_result(None)

        watch = _watch(weakref.ref(self), ended)
        await watch.__anext__()
        try:
            driver.start(main, on_end)
        except BaseException:
            ended.cancel()
            raise
        self.driver, self._ended, self._closing, self._watch = driver, ended, closing, watch
        try:
            await ready
        except asyncio.CancelledError:
            # Whoever is told that it was cancelled will not close what it started.
            self._closing.set()
            raise
        if not self._running:
            raise ToolUnavailable("The trio runtime was closed while it started.")

    def _finish(self, error: BaseException | None, *, expected: bool) -> None:
        """Let nobody wait for a run that has ended."""
        self._berths = None
        self._running = False
        if error is not None or not expected:
            _log.error(
                "The trio runtime ended by itself; it is started again for the next call.",
                exc_info=error,
            )
        crossings, self._crossings = self._crossings, set()
        # Their tasks of trio are gone, and with them whoever would cancel these.
        visits, self._visits = self._visits, set()
        if self._loop.is_closed():
            return
        for crossing in crossings:
            if expected:
                crossing.settle()
            else:
                crossing.fail(_ended())
        for visit in visits:
            visit.task.cancel()

    async def run(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """See `Runtime.run`.

        :raises ToolUnavailable: when the run has not been started or has ended.
        """
        berths, driver = self._berths, self.driver
        if berths is None or driver is None:
            raise ToolUnavailable("The trio runtime is not running.")
        berth = berths.take()
        crossing = Crossing(self._loop, self._trio, function, berth)
        if berth is None:
            berths.open_for(crossing, name_of(function))
        else:
            driver.spawn(berth.nursery, crossing, name_of(function))
        # Most calls of tools that wait for nothing have ended here.
        expired = not crossing.ended and await self._supervise(crossing, deadline)
        if crossing.error is not None:
            raise crossing.take_error()
        if crossing.cancelled:
            if expired:
                raise Expired
            raise CallCancelled("The call was cancelled because the trio runtime was closed.")
        return crossing.value

    async def _supervise(self, crossing: Crossing[Any], deadline: float | None) -> bool:
        """Wait for a call that goes on after its first step; tell whether its deadline passed."""
        self._crossings.add(crossing)
        try:
            if not self._running:
                # The very step that the call was started in has ended the run.
                crossing.fail(_ended())
            return await supervise(
                crossing, crossing.cancel, deadline=deadline, name=crossing.describe
            )
        except asyncio.CancelledError:
            # Nobody is told of it any more, and its traceback leads back here.
            crossing.error = None
            raise
        finally:
            self._crossings.discard(crossing)

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
        """Run a function on the host's loop, in a task of its own; awaited in trio."""
        lowlevel = self._trio.lowlevel
        visit: Visit[T] = Visit(partial(self._return, lowlevel.current_task()))
        task = visit.start(self._loop, function)
        self._visits.add(visit)
        raise_cancel: Callable[[], Any] | None = None

        def abort(raise_cancelled: Callable[[], Any]) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = raise_cancelled
            task.cancel()
            # Wait on: the visit lets this task go on when it has cleaned up.
            failed: trio.lowlevel.Abort = lowlevel.Abort.FAILED
            return failed

        await lowlevel.wait_task_rescheduled(abort)
        if visit.cancelled:
            if raise_cancel is not None:
                raise_cancel()
            raise CallCancelled("The call was cancelled from within.")
        return visit.outcome.unwrap()

    def _return(self, waiting: trio.lowlevel.Task, visit: Visit[Any]) -> None:
        # When the run has ended without its tasks there is none left to go on.
        if visit in self._visits and self.driver is not None and not self._loop.is_closed():
            self._visits.discard(visit)
            self.driver.reschedule(waiting)

    def gate(self) -> Gate:
        """See `Runtime.gate`."""
        return _TrioGate(self)

    async def aclose(self) -> None:
        """See `Runtime.aclose`."""
        if self._ended is not None:
            await self._close(self._ended)
            await self._watch.aclose()

    async def _close(self, ended: asyncio.Future[None]) -> None:
        self._berths = None
        self._closing.set()
        # For as long as clean-up takes: abandoning a run would leave the thread unable to run trio.
        await asyncio.shield(ended)


class _TrioGate:
    def __init__(self, runtime: TrioRuntime) -> None:
        self._runtime = runtime
        self._driver = runtime.driver
        self._event = runtime._trio.Event()

    def open(self) -> None:
        # What waited in a run that died is gone; a later run must not hear of it.
        if self._runtime.running and self._runtime.driver is self._driver:
            self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


async def _watch(
    reference: weakref.ref[TrioRuntime], ended: asyncio.Future[None]
) -> AsyncGenerator[None, None]:
    """Close the run of a runtime when the host's loop ends without having done so.

    `asyncio.run` closes the asynchronous generators of its loop last of all.

    :param ended: is done when the run is over.
    """
    try:
        yield
    finally:
        runtime = reference()
        if runtime is not None and not ended.done():
            _log.warning("The host's loop ends while the trio runtime runs; it is closed now.")
            await runtime._close(ended)


def _trio_runs_here() -> bool:
    import trio

    try:
        trio.lowlevel.current_root_task()
    except RuntimeError:
        return False
    return True


def _ended() -> ToolUnavailable:
    return ToolUnavailable("The trio runtime ended by itself while the call ran in it.")
