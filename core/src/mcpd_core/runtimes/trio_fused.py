"""trio beside the host's loop, in the same thread and without a thread of its own.

trio waits for I/O on an epoll descriptor, and an epoll descriptor can itself be watched: the host's
loop has it among its readers, and steps trio when it is readable. trio's next deadline is one timer
of the host, and a task of trio that code on the host's side makes runnable is one `call_soon`. No
system call, no lock and no change of threads is spent on going from one library to the other.

A step may also be run at once, inside the call that made it necessary ("eager"): a tool that does
not wait for anything then answers without any turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import time
import weakref
from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING

from . import trio_private
from .interrupts import InterruptShield

if TYPE_CHECKING:
    import trio
    import trio.lowlevel

    from .trio_drivers import Work
    from .trio_private import Events, Steps

#: How many steps one turn of the host's loop runs eagerly. What is eager does not yield, so that
#: the other tasks of the loop would wait for a caller that calls and calls.
EAGER_STEPS = 8

#: How many calls are not run eagerly, at most, after one that did not end in its first step.
_MOST_CAUTION = 31

#: Seconds below which no timer is set. uvloop counts in milliseconds, and from the beginning of the
#: turn; a shorter timer would fire early, again and again.
_SHORTEST = 0.001

#: Seconds from which on it does not matter how far away the next deadline is, as long as there is a
#: timer at all. trio asks for a day at most, also when it has no deadline.
_DISTANT = 86400


class _Nothing(tuple):  # type: ignore[type-arg]
    """No I/O, without the claim that trio has waited in vain until its time was over."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


_NOTHING = _Nothing()


class FusedDriver:
    """See `mcpd_core.runtimes.trio_drivers.Driver`.

    The loop owns the steps of the run, through the reader that it calls with them: when the loop is
    closed before the run has ended they are dropped, trio notices and gives the thread free.
    """

    rung = "fused"

    def __init__(self, loop: asyncio.AbstractEventLoop, *, eager: bool = True) -> None:
        self._loop = loop
        self._left = self._allowance = EAGER_STEPS if eager else 0
        self._shield = InterruptShield(loop)
        # Callbacks keep the context they were made in, and with it whatever the caller held there.
        self._context = contextvars.Context()
        #: How many of the next calls are not run eagerly, and how many were the last time.
        self._doubt = self._caution = 0
        #: Whether a step is under way, or a turn of the loop will run one.
        self._awake = True
        self._queued = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        #: When the time that trio asked to wait for is over.
        self._due = 0.0
        self._stepping = False

    def start(
        self,
        main: Callable[[], Awaitable[None]],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        """See `Driver.start`."""
        import trio.lowlevel
        from sniffio import thread_local

        self._reschedule = trio.lowlevel.reschedule
        self._library = thread_local
        self._on_end = on_end
        self._shield.raise_shield()
        try:
            self._context.run(self._begin, main)
        except BaseException:
            self._shield.lower()
            raise

    def _begin(self, main: Callable[[], Awaitable[None]]) -> None:
        run, steps = trio_private.begin(main, self._wake)
        self._hooks = sys.get_asyncgen_hooks()
        self._queue = run.queue
        self._poll = run.poll
        # A descriptor of our own for the same epoll: trio closes its one in the last step, and
        # another thread may get the number before the reader is removed.
        self._descriptor = os.dup(run.descriptor)
        self._steps: Callable[[], Steps | None] = weakref.ref(steps, self._dropped)
        self._loop.add_reader(self._descriptor, self._on_readable, steps)
        self._turn()

    # --- the turns of the loop in which a step is run ---------------------------------------------

    def _wake(self) -> None:
        """Have a step run in the next turn; trio calls this when it has been given work."""
        if not self._awake:
            self._awake = True
            self._turn()

    def _turn(self) -> None:
        if not self._queued:
            self._queued = True
            self._loop.call_soon(self._on_turn, context=self._context)

    def _on_turn(self) -> None:
        self._queued = False
        # Not when a reader, a timer or an eager step has done the work in the meantime.
        if self._awake and not self._stepping:
            self._step(() if self._queue else self._poll(0) or self._no_events())

    def _on_readable(self, _: Steps) -> None:
        if not self._stepping:
            events = self._poll(0)
            if events:
                self._step(events)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, inf
        if not self._stepping:
            self._step(self._poll(0) or self._no_events())

    def _no_events(self) -> Events:
        # The difference matters to whoever waits until all tasks are blocked.
        return () if time.monotonic() >= self._due else _NOTHING

    # --- what the host makes runnable -------------------------------------------------------------

    def spawn(self, nursery: trio.Nursery, work: Work, name: object) -> None:
        """See `Driver.spawn`."""
        eager = self._may_hurry()
        try:
            nursery.start_soon(work.run, name=name)
        finally:
            if eager:
                self._hurry()
        if eager:
            self._learn(work.ended)

    def reschedule(self, task: trio.lowlevel.Task) -> None:
        """See `Driver.reschedule`."""
        eager = self._may_hurry()
        try:
            self._reschedule(task)
        finally:
            if eager:
                self._hurry()
                # Whatever else comes back in this turn shares a step.
                self._left = 0

    def _may_hurry(self) -> bool:
        if not self._left or self._queue or self._stepping:
            return False
        if self._doubt:
            self._doubt -= 1
            return False
        if self._left == self._allowance:
            self._loop.call_soon(self._replenish, context=self._context)
        self._left -= 1
        # What becomes runnable now needs no turn of the loop: `_hurry` follows, whatever happens.
        self._awake = True
        return True

    def _replenish(self) -> None:
        self._left = self._allowance

    def _learn(self, ended: bool) -> None:
        """Hurry less when calls do not end in their first step: many such calls are served better
        by one step for all of them. A count of the calls in flight would not tell, because there
        are services among them, which stay."""
        if ended:
            self._caution = 0
        else:
            self._left = 0
            self._doubt = self._caution = min(2 * self._caution + 1, _MOST_CAUTION)

    def _hurry(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            self._step(())
            return
        # Code in trio must not be taken for a part of the asyncio task that happened to step it.
        # These two are what asyncio documents for other implementations of tasks.
        asyncio.tasks._leave_task(self._loop, task)
        try:
            self._step(())
        finally:
            asyncio.tasks._enter_task(self._loop, task)

    # --- the step ---------------------------------------------------------------------------------

    def _step(self, events: Events) -> None:
        steps = self._steps()
        if steps is None:
            return
        # The loop sets its own each time that it is run, which may be more than once.
        if sys.get_asyncgen_hooks() != self._hooks:
            sys.set_asyncgen_hooks(*self._hooks)
        library = self._library
        self._stepping = self._awake = True
        previous, library.name = library.name, "trio"
        timeout = error = None
        try:
            timeout = steps.send(events)
        except StopIteration:
            pass
        except BaseException as raised:  # noqa: BLE001 - handed on: the run has ended with it
            error = raised
        finally:
            library.name = previous
            self._stepping = False
        if timeout is None:
            self._end(error)
            return
        if timeout <= 0:
            self._due = 0.0
            self._turn()
            return
        self._awake = False
        if timeout >= _DISTANT and self._timer is not None:
            self._due = inf
            return
        # A timer that is early is left alone: it finds nothing due and sets the right one.
        self._due = due = time.monotonic() + timeout
        if due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._loop.call_later(
                max(timeout, _SHORTEST), self._on_timer, context=self._context
            )

    def _end(self, error: BaseException | None) -> None:
        self._loop.remove_reader(self._descriptor)
        self._release()
        self._on_end(error)

    def _dropped(self, _: object) -> None:
        """The loop was closed while trio ran: the steps are gone, and trio has warned of it."""
        if self._descriptor >= 0:
            self._release()
            self._on_end(RuntimeError("The host's loop was closed before the trio runtime was."))

    def _release(self) -> None:
        # A turn that the loop still owes us finds nothing to do.
        self._awake = False
        os.close(self._descriptor)
        self._descriptor = -1
        if self._timer is not None:
            self._timer.cancel()
        self._shield.lower()
