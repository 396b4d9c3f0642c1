"""A library in a thread of its own, for tools that the host's loop must not wait for.

Calls cross in batches: each side has a `Mailbox`, and a side that has been woken is not woken again
before it has looked. A crossing costs a change of threads in each direction, which is what the
libraries in the host's thread spare; what it buys is that code which blocks stalls its own thread
only.

Nothing can interrupt a thread. One whose loop has not turned for as long as the patience, while
somebody waits for a clean-up in it, is left behind with a warning that says where it hangs.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from ..errors import CallCancelled, ToolUnavailable
from .asyncio_loop import capture
from .base import Completion, Expired, Gate, Outcome, name_of, supervise
from .far_sides import FAR_SIDES, FarEvent, FarSide
from .mailbox import Mailbox
from .standstill import Standstill
from .threads import no_thread

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ThreadBridge:
    """A run of trio, or a loop of asyncio, in a daemon thread until `aclose`.

    :param library: ``trio`` or ``asyncio``.
    :param patience: seconds that the thread may hang while a cancelled function is waited for.
    :param label: what the thread is for; part of its name.
    """

    rung = "thread"

    def __init__(self, library: str, *, patience: float, label: str = "tools") -> None:
        self.name = library
        self._patience = patience
        self._label = label
        self._side: FarSide
        self._to_far: Mailbox
        self._to_host: Mailbox
        self._thread: threading.Thread | None = None
        self._ready: asyncio.Future[None]
        self._ended: asyncio.Future[None]
        self._started = self._refuses = self._hangs = False
        self._crossings: set[_Crossing[Any]] = set()
        self._errands: set[_Errand[Any]] = set()
        # What follows is touched in the thread only.
        self._live: set[_Crossing[Any]] = set()
        self._closing = False

    @property
    def usable(self) -> bool:
        """Whether functions can be run in it, now or after `start`."""
        return not self._refuses

    @property
    def running(self) -> bool:
        """Whether functions can be run in it now."""
        return self._started and not self._refuses

    @property
    def ended(self) -> bool:
        """Whether its thread was started and has ended, or is not waited for any more."""
        return self._thread is not None and self._ended.done()

    # --- on the host's loop -----------------------------------------------------------------------

    async def start(self) -> None:
        """Start the thread; awaited once, on the host's loop.

        The library is imported there. Import it beforehand where it could fail.

        :raises ToolUnavailable: when the thread cannot be started, or has been closed before.
        """
        if self._refuses:
            raise self._unavailable()
        loop = asyncio.get_running_loop()
        self._side = FAR_SIDES[self.name](type(loop))
        self._to_host = Mailbox(loop.call_soon_threadsafe)
        self._ready, self._ended = loop.create_future(), loop.create_future()
        # A daemon: a tool that never returns must not keep the process alive.
        thread = threading.Thread(
            target=self._main, name=f"mcpd-{self._label}-{self.name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise no_thread(error) from error
        self._thread = thread
        await asyncio.shield(self._ready)

    async def run(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """See `Runtime.run`.

        :raises ToolUnavailable: when the thread has not been started, is being closed, or was left
            behind.
        """
        if not self.running:
            raise self._unavailable()
        crossing = _Crossing(self, function)
        self._crossings.add(crossing)
        self._tell(crossing.start)
        try:
            expired = await supervise(
                crossing.done,
                crossing.cancel,
                deadline=deadline,
                name=partial(name_of, function),
            )
        except asyncio.CancelledError:
            # Nobody is told of it any more, and its traceback leads back here.
            crossing.outcome.error = None
            raise
        finally:
            crossing.forget()
            self._crossings.discard(crossing)
            if self._refuses and not self._crossings:
                self._tell(self._close)
        if crossing.outcome.cancelled:
            if expired:
                raise Expired
            if self._refuses:
                raise CallCancelled(f"The call was cancelled: the thread of {self._label} closed.")
            raise CallCancelled("The call was cancelled from within.")
        return crossing.outcome.unwrap()

    def gate(self) -> Gate:
        """See `Runtime.gate`."""
        return _FarGate(self, self._side.event())

    async def aclose(self) -> None:
        """See `Runtime.aclose`. A thread that hangs is left behind after the patience."""
        self._refuses = True
        if self._thread is None:
            return
        # There is no way into the thread before.
        await asyncio.wait([self._ready])
        if self._ended.done():
            return
        self._tell(self._close)
        watch = Standstill(self._tell, self._patience, self._abandon)
        try:
            # Shielded: others may wait for it, too.
            await asyncio.shield(self._ended)
        finally:
            watch.close()
        if not self._hangs:
            # It has said that it ends, and has nothing else to do.
            self._thread.join()

    def _unavailable(self) -> ToolUnavailable:
        return ToolUnavailable(
            f"The {self.name} thread of {self._label} is not running.",
            hint="Call again, which starts another, unless the server is shutting down.",
        )

    def _tell(self, call: Callable[[], object]) -> None:
        """Have a function called in the thread, if it has not ended."""
        try:
            self._to_far.post(call)
        except RuntimeError:
            _log.debug("The thread of %s has ended.", self._label)

    def _watch(self, crossing: _Crossing[Any]) -> Standstill:
        return Standstill(self._tell, self._patience, partial(self._leave, crossing))

    def _leave(self, crossing: _Crossing[Any]) -> None:
        """Give up a function whose clean-up cannot be waited for, and let the thread end once its
        other functions have, so that later calls do not queue behind it."""
        self._warn([crossing])
        self._refuses = True
        crossing.done.settle()

    def _abandon(self) -> None:
        self._hangs = True
        self._warn(self._crossings)
        self._end()

    def _warn(self, crossings: Iterable[_Crossing[Any]]) -> None:
        assert self._thread is not None
        names = ", ".join(sorted(name_of(crossing.function) for crossing in crossings))
        frame = sys._current_frames().get(self._thread.ident or 0)
        where = "it" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        _log.warning(
            "%s did not stop within %g s of being cancelled: the thread of %s hangs in %s, "
            "and runs on.",
            names or "What a tool has left running",
            self._patience,
            self._label,
            where,
        )

    def _end(self) -> None:
        self._refuses = True
        for crossing in list(self._crossings):
            crossing.done.settle()
        # Whoever would cancel these has gone with the thread, or hangs.
        for errand in self._errands:
            errand.cancel_task()
        if not self._ended.done():
            self._ended.set_result(None)
        if not self._ready.done():
            self._ready.set_exception(
                ToolUnavailable(f"The {self.name} thread of {self._label} could not be started.")
            )

    # --- in the thread ----------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            self._side.main(self._on_ready)
        except BaseException:  # noqa: BLE001 - the end of the thread: whatever it was is reported
            _log.exception("The %s thread of %s ended with an error.", self.name, self._label)
        self._tell_host(self._end)

    def _on_ready(self, mailbox: Mailbox) -> None:
        self._to_far = mailbox
        self._tell_host(self._on_start)

    def _on_start(self) -> None:
        self._started = True
        self._ready.set_result(None)

    def _tell_host(self, call: Callable[[], object]) -> bool:
        """Have a function called on the host's thread.

        :returns: whether there is still a loop there.
        """
        try:
            self._to_host.post(call)
        except RuntimeError:
            # It was closed without a word. Nobody waits for anything here any more.
            _log.debug("The host's loop was closed before the thread of %s.", self._label)
            return False
        return True

    def _close(self) -> None:
        self._closing = True
        for crossing in list(self._live):
            crossing.ask()
        self._side.stop()

    async def run_here(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """Run a function for a caller in this thread; see `FarSide.run_here`."""
        return await self._side.run_here(function, deadline=deadline)

    async def run_in_host(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a function on the host's loop; awaited in the thread."""
        errand = _Errand(self, function)
        raise_cancelled = await self._side.wait_for(errand.start, errand.cancel)
        if errand.outcome.cancelled:
            if raise_cancelled is not None:
                raise_cancelled()
            raise CallCancelled("The call was cancelled from within.")
        return errand.outcome.unwrap()


class _Crossing(Generic[T]):
    """One function on its way from the host's loop into the thread and back."""

    def __init__(self, bridge: ThreadBridge, function: Callable[[], Awaitable[T]]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.done = Completion(asyncio.get_running_loop())
        self.outcome: Outcome[T] = Outcome(cancelled=True)
        self._bridge = bridge
        self._cancelled = False
        self._asked = False
        self._watch: Standstill | None = None
        self._stop: Callable[[], object] | None = None

    def cancel(self) -> None:
        self._cancelled = True
        self._bridge._tell(self.ask)
        self._watch = self._bridge._watch(self)

    def forget(self) -> None:
        """Note that nobody waits any more."""
        if self._watch is not None:
            self._watch.close()

    # In the thread:

    def start(self) -> None:
        if self._cancelled or self._bridge._closing:
            self._bridge._tell_host(self.done.settle)
        else:
            self._bridge._live.add(self)
            self._bridge._side.spawn(self)

    def entered(self, stop: Callable[[], object]) -> None:
        """Note how the function, which is about to run, is cancelled."""
        self._stop = stop
        if self._asked:
            stop()

    def ask(self) -> None:
        """Cancel the function, once: a second request would cut its clean-up short."""
        if not self._asked:
            self._asked = True
            if self._stop is not None:
                self._stop()

    def left(self, outcome: Outcome[T]) -> None:
        """Hand over how the function has ended."""
        self._bridge._live.discard(self)
        self._stop = None
        self.outcome = outcome
        if not self._bridge._tell_host(self.done.settle):
            self._bridge._close()


class _Errand(Generic[T]):
    """One function on its way from the thread to the host's loop and back. Made in the thread."""

    def __init__(self, bridge: ThreadBridge, function: Callable[[], Awaitable[T]]) -> None:
        self.outcome: Outcome[T] = Outcome(cancelled=True)
        self._bridge = bridge
        self._function = function
        self._context = contextvars.copy_context()
        self._cancelled = False
        self._task: asyncio.Task[Outcome[T]] | None = None
        self._wake: Callable[[], object]

    def start(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        if not self._bridge._tell_host(self._run):
            raise CallCancelled("The host has gone.")

    def cancel(self) -> None:
        self._cancelled = True
        self._bridge._tell_host(self.cancel_task)

    # On the host's loop:

    def _run(self) -> None:
        if self._cancelled:
            self._bridge._tell(self._wake)
            return
        loop = asyncio.get_running_loop()
        self._task = self._context.run(loop.create_task, capture(self._function))
        self._bridge._errands.add(self)
        self._task.add_done_callback(self._finish)

    def cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[Outcome[T]]) -> None:
        self._bridge._errands.discard(self)
        if not task.cancelled():
            self.outcome = task.result()
        self._bridge._tell(self._wake)


class _FarGate:
    def __init__(self, bridge: ThreadBridge, event: FarEvent) -> None:
        self._bridge = bridge
        self._event = event

    def open(self) -> None:
        self._bridge._tell(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()
