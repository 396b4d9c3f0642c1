"""trio beside the host's loop, in the same thread, through trio's public guest mode.

In guest mode trio's scheduler runs as callbacks of the host's loop, and a helper thread waits for
its I/O (https://trio.readthedocs.io/en/stable/reference-lowlevel.html, "Using guest mode"). It
works wherever trio does; what crosses while trio is idle has to wake the helper first.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .interrupts import InterruptShield

if TYPE_CHECKING:
    import outcome
    import trio
    import trio.lowlevel

    from .trio_drivers import Work


class GuestDriver:
    """See `mcpd_core.runtimes.trio_drivers.Driver`."""

    rung = "guest"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._shield = InterruptShield(loop)

    def start(
        self,
        main: Callable[[], Awaitable[None]],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        """See `Driver.start`."""
        self._on_end = on_end
        self._shield.raise_shield()
        try:
            # Nothing of the caller's context goes into the tasks of the run.
            contextvars.Context().run(self._begin, main)
        except BaseException:
            self._shield.lower()
            raise

    def _begin(self, main: Callable[[], Awaitable[None]]) -> None:
        import trio.lowlevel

        self._reschedule = trio.lowlevel.reschedule
        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=self._soon_from_a_thread,
            run_sync_soon_not_threadsafe=self._soon,
            done_callback=self._end,
            # Signals belong to the host; trio must not take its wake-up descriptor.
            host_uses_signal_set_wakeup_fd=True,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        self._hooks = sys.get_asyncgen_hooks()

    def _soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon(self._tick, function)

    def _soon_from_a_thread(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(self._tick, function)

    def _tick(self, function: Callable[[], object]) -> None:
        # The loop sets its own each time that it is run, which may be more than once.
        if sys.get_asyncgen_hooks() != self._hooks:
            sys.set_asyncgen_hooks(*self._hooks)
        function()

    def _end(self, end: outcome.Outcome[Any]) -> None:
        self._shield.lower()
        self._on_end(getattr(end, "error", None))

    def spawn(self, nursery: trio.Nursery, work: Work, name: object) -> None:
        """See `Driver.spawn`."""
        nursery.start_soon(work.run, name=name)

    def reschedule(self, task: trio.lowlevel.Task) -> None:
        """See `Driver.reschedule`."""
        self._reschedule(task)
