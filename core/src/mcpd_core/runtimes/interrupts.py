"""Keeps what Ctrl-C raises out of trio's scheduler.

Signals belong to the host. Where the host takes them through its loop (`add_signal_handler`) they
arrive between two callbacks anyway. A handler that Python runs by itself, such as the one that
raises `KeyboardInterrupt`, runs between any two bytecodes: inside trio's scheduler it would destroy
the run, inside a tool of trio it would pass for that tool's own exception, and between taking a
callback from the loop's queue and doing what it is for it would leave somebody waiting for ever.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

#: The modules whose work must be done to its end, with all that they call.
_WHOLE = (f"{__package__}.trio_fused", f"{__package__}.trio_guest", "trio.")
#: The modules that must not be cut short themselves. Tools that they call may be.
_OWN = (f"{__package__}.", "asyncio.")


class InterruptShield:
    """Delays the host's handler of SIGINT while trio's code, or what drives it, would be cut short.

    It also keeps trio from installing a handler of its own, which it does where it finds Python's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._previous: Callable[[int, FrameType | None], Any] | None = None

    def raise_shield(self) -> None:
        """Stand before the handler; nothing is done outside of the main thread, where none runs."""
        if threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            self._previous = handler
            # A bound method is a new object each time, and `lower` must know it again.
            self._own = self._handle
            signal.signal(signal.SIGINT, self._own)

    def lower(self) -> None:
        """Put the handler back, unless the host has installed another one meanwhile."""
        previous = self._previous
        # The garbage collector, in whose hands a forgotten run ends, may be in another thread.
        if previous is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is self._own:
            signal.signal(signal.SIGINT, previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        assert self._previous is not None
        if self._loop.is_running() and _must_go_on(frame):
            # As a callback of the loop, so that what it raises leaves the loop as it would have;
            # in the way that also wakes a loop that waits for I/O.
            self._loop.call_soon_threadsafe(self._previous, number, None)
        else:
            self._previous(number, frame)


def _must_go_on(frame: FrameType | None) -> bool:
    """Tell whether the code that a signal has interrupted must first be done with its work."""
    innermost = True
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_WHOLE) or (innermost and module.startswith(_OWN)):
            return True
        innermost, frame = False, frame.f_back
    return False
