"""Deadlines in a timing wheel: nearly all of them are cancelled, so that must cost next to nothing.

A call's deadline is a minute away and the call takes a millisecond. Instead of a timer per call,
the deadlines of each ten milliseconds share a bucket, and the loop has one timer, for the first
bucket that is not empty. A deadline is met up to one tick late and never early. This is scheme 6 of
Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), with a dictionary for the array,
so that no tick passes while nothing is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import ceil, inf
from time import monotonic
from weakref import WeakKeyDictionary, ref

#: Seconds that one bucket spans.
TICK = 0.01
#: Seconds below which a deadline has a timer of its own, because a tick would be much of it.
SHORT = 0.1
#: Buckets that may be empty before they are looked for and dropped.
_SPARE = 64


class Alarm:
    """A function that is called at a deadline, unless it is cancelled before."""

    __slots__ = ("_bucket", "function")

    def __init__(self, function: Callable[[], None], bucket: set[Alarm]) -> None:
        self.function = function
        self._bucket = bucket
        bucket.add(self)

    def cancel(self) -> None:
        """Do not call the function; nothing happens when it has been called."""
        self._bucket.discard(self)


class Wheel:
    """The alarms by the tick in which they are due. Knows neither clock nor loop.

    :param tick: seconds that one bucket spans.
    :ivar order: the numbers of the buckets, empty ones included, as a heap.
    """

    def __init__(self, tick: float = TICK) -> None:
        self._tick = tick
        self._buckets: dict[int, set[Alarm]] = {}
        self.order: list[int] = []
        self._limit = _SPARE

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, deadline: float, function: Callable[[], None]) -> Alarm:
        """Have a function called at a deadline, which is a finite time."""
        number = ceil(deadline / self._tick)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._add_bucket(number)
        return Alarm(function, bucket)

    def _add_bucket(self, number: int) -> set[Alarm]:
        if len(self._buckets) >= self._limit:
            self._prune()
        bucket = self._buckets[number] = set()
        heappush(self.order, number)
        return bucket

    def pop(self, now: float) -> Alarm | None:
        """Remove and return an alarm that is due, those of the earliest tick first.

        :returns: ``None`` when no alarm is due.
        """
        when = self.next()
        if when is not None and when <= now:
            return self._buckets[self.order[0]].pop()
        return None

    def next(self) -> float | None:
        """Return when the next alarm is due; ``None`` when there is none."""
        while self.order:
            if self._buckets[self.order[0]]:
                return self.order[0] * self._tick
            del self._buckets[heappop(self.order)]
        return None

    def _prune(self) -> None:
        """Drop the empty buckets; not before there are as many new ones as are left now."""
        self._buckets = {number: bucket for number, bucket in self._buckets.items() if bucket}
        self.order = list(self._buckets)
        heapify(self.order)
        self._limit = _SPARE + 2 * len(self.order)


class Deadlines:
    """Calls functions at deadlines, on one loop. Used on that loop's thread."""

    __slots__ = ("__weakref__", "_rings", "_timer", "_wheel", "loop")

    def __init__(self) -> None:
        self.loop = ref(asyncio.get_running_loop())
        self._wheel = Wheel()
        self._timer: asyncio.TimerHandle | None = None
        #: For which bucket the timer is set.
        self._rings: float = inf

    def at(self, deadline: float, function: Callable[[], None]) -> Alarm | asyncio.TimerHandle:
        """Have a function called at a deadline; ``cancel`` what is returned to prevent it.

        :param deadline: `time.monotonic` time; when it has passed, the function is called soon.
        """
        left = deadline - monotonic()
        if left < SHORT:
            return asyncio.get_running_loop().call_later(max(0.0, left), function)
        if left == inf:
            return Alarm(function, set())
        alarm = self._wheel.add(deadline, function)
        if self._wheel.order[0] < self._rings:
            self._set()
        return alarm

    def _set(self) -> None:
        """Set the timer for the first alarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._wheel.next()
        self._rings = inf
        if when is not None:
            self._rings = self._wheel.order[0]
            # At least what uvloop, which counts in whole milliseconds, does not round to nothing.
            delay = max(0.001, when - monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        now = monotonic()
        try:
            while (alarm := self._wheel.pop(now)) is not None:
                alarm.function()
        finally:
            self._set()


# A timer refers to its loop, so what is kept here must not keep a timer. Whatever has an alarm set
# is kept by the loop, through the timer.
_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[Deadlines]] = WeakKeyDictionary()
#: Those that were asked for last, which they are nearly always.
_latest: Callable[[], Deadlines | None] = lambda: None  # noqa: E731 - like a dead reference


def deadlines() -> Deadlines:
    """Return those of the running loop."""
    global _latest
    loop = asyncio.get_running_loop()
    found = _latest()
    if found is not None and found.loop() is loop:
        return found
    known = _of_loop.get(loop)
    found = None if known is None else known()
    if found is None:
        found = Deadlines()
        _of_loop[loop] = ref(found)
    _latest = ref(found)
    return found
