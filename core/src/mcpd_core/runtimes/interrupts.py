"""Keeps what Ctrl-C raises out of trio's scheduler.

Signals belong to the host. Where the host takes them through its loop (`add_signal_handler`) they
arrive between two callbacks anyway. A handler that Python runs by itself, such as the one that
raises `KeyboardInterrupt`, runs between any two bytecodes: inside trio's scheduler it would destroy
the run, and inside a tool it would pass for that tool's own exception.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class InterruptShield:
    """Delays the host's handler of SIGINT for as long as trio's code runs in the host's thread.

    It also keeps trio from installing a handler of its own, which it does where it finds Python's.

    :param ticking: tells whether trio's code is running now.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ticking: Callable[[], bool]) -> None:
        self._loop = loop
        self._ticking = ticking
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
            self._previous = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        assert self._previous is not None
        if self._ticking():
            # As a callback of the loop, so that what it raises leaves the loop as it would have.
            self._loop.call_soon(self._previous, number, None)
        else:
            self._previous(number, frame)
