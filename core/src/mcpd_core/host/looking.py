"""What another thread can see of the host's thread: whose code runs in it, and which line.

Code of either library runs in tasks, and a task has a context, which whatever it starts inherits. A
context variable therefore tells whose code a task runs, at no cost for what the code awaits. Read
from another thread, none of this is consistent for longer than a few instructions; what is seen
is only used when a second look agrees.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..spec import Call
from .stalls import Look

if sys.platform == "linux":
    import resource


class Watched:
    """One call whose code runs, or waits, in the host's thread.

    :ivar active: whether its code has not returned. What it has left running is not watched.
    """

    __slots__ = ("active", "call")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.active = True


#: Whose code runs in the current context, for the watchdog alone.
current: contextvars.ContextVar[Watched | None] = contextvars.ContextVar(
    "mcpd_watched", default=None
)


@dataclass(frozen=True)
class Place:
    """A line of code.

    :ivar inner: the line, of somebody else's code, that was called from there and runs.
    """

    file: str
    line: int
    function: str
    inner: Place | None = None

    def __str__(self) -> str:
        text = f"{self.file}:{self.line} in {self.function}"
        return f"{text} (which is in {self.inner})" if self.inner else text


class Looker:
    """Looks at one thread. Used in another one, within `timing_collections`.

    :param thread: its identity.
    :param loop: the loop that runs in it.
    :param trio_task: tells which task of trio runs in it.
    """

    def __init__(
        self, thread: int, loop: asyncio.AbstractEventLoop, trio_task: Callable[[], Any]
    ) -> None:
        self._thread = thread
        self._loop = loop
        self._trio_task = trio_task
        # Not on every system: without it, a stall in one piece of C code goes unseen.
        clock_of = getattr(time, "pthread_getcpuclockid", None)
        self._clock = None if clock_of is None else clock_of(thread)
        self._collecting = 0.0
        self._collects_since: float | None = None
        self._kept = 0.0
        self._switches = _switches()

    def look(self, beats: int, due: float | None) -> Look[Watched]:
        """Return what is seen now.

        :param beats: how often the loop has shown that it turns.
        :param due: when the loop is or was to tick next, if it does.
        """
        self._count_waits()
        suspect, place = None, None
        frame = sys._current_frames().get(self._thread)
        if frame is not None:
            suspect = self._occupant()
            if suspect is not None:
                place = place_of(frame, suspect.call)
                # The thread may have gone on meanwhile.
                if self._occupant() is not suspect:
                    suspect = place = None
        # It would keep alive what the code works on.
        del frame
        now = time.monotonic()
        since = self._collects_since
        return Look(
            at=now,
            cpu=None if self._clock is None else time.clock_gettime(self._clock),
            process=time.process_time(),
            kept=self._kept,
            collecting=self._collecting + (0.0 if since is None else now - since),
            beats=beats,
            due=due,
            suspect=suspect,
            place=place,
        )

    def _count_waits(self) -> None:
        """Add up for how long this thread has waited for the interpreter's lock.

        A thread that waits for it wakes up once per switch interval, to ask for it anew. That is a
        voluntary switch of context, and apart from its sleep a look has no other. A thread that the
        system does not run, because the machine is busy, makes none.
        """
        before, self._switches = self._switches, _switches()
        waits = self._switches - before - 1
        self._kept += max(0, waits) * sys.getswitchinterval()

    def _occupant(self) -> Watched | None:
        """Return whose code runs, if that is a call that is watched."""
        # A step of trio may run within a task of asyncio, and never the other way round.
        task = self._trio_task()
        context = _asyncio_context(self._loop) if task is None else task.context
        if context is None:
            return None
        watched: Watched | None = context.get(current)
        return watched if watched is not None and watched.active else None

    @contextmanager
    def timing_collections(self) -> Iterator[None]:
        """Note, within the block, how long the thread collects garbage."""
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._collects_since = time.monotonic()
        elif self._collects_since is not None:
            self._collecting += time.monotonic() - self._collects_since
            self._collects_since = None


def _switches() -> int:
    """Return how often this thread has given up the processor by itself; 0 where nobody counts."""
    if sys.platform != "linux":
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def place_of(frame: FrameType, call: Call) -> Place | None:
    """Return the line of a call's own code that runs, and what it has called.

    :param frame: the innermost one.
    """
    package = call.spec.entry.partition(":")[0].partition(".")[0]
    if frame.f_code is Looker._on_collection.__code__ and frame.f_back is not None:
        frame = frame.f_back
    inner = _line(frame)
    walked: FrameType | None = frame
    while walked is not None:
        name = walked.f_globals.get("__name__")
        if isinstance(name, str) and name.partition(".")[0] == package:
            place = _line(walked)
            return (
                place if walked is frame else Place(place.file, place.line, place.function, inner)
            )
        walked = walked.f_back
    return inner


def _line(frame: FrameType) -> Place:
    code = frame.f_code
    # Between two lines there is none.
    return Place(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_name)


def _asyncio_context(loop: asyncio.AbstractEventLoop) -> contextvars.Context | None:
    task: Any = asyncio.current_task(loop)
    if task is None:
        return None
    if sys.version_info >= (3, 12):
        context: contextvars.Context = task.get_context()
        return context
    # The task has it, and before Python 3.12 tells nobody but the garbage collector.
    held = gc.get_referents(task)
    return next((item for item in held if isinstance(item, contextvars.Context)), None)
