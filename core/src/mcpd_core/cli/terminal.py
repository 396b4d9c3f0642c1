"""A terminal that a command draws on until it is told to end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Exit status of a program that was told to end.
TERMINATED = 128 + signal.SIGTERM
#: Terminals that only write on; rich would show nothing on them before the end.
_DUMB = ("dumb", "unknown")


def can_be_redrawn() -> bool:
    """Whether standard output is a terminal on which what was written can be replaced."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in _DUMB


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """End the block on Ctrl-C, which is how one leaves; and leave it properly on SIGTERM.

    :returns: the signals that have come. What is raised for one is lost where it arrives in a
        finaliser, or in another callback of the interpreter's; so look there as well.
    """
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGTERM in came:
        raise SystemExit(TERMINATED)
