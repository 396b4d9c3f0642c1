"""What the owner of a server limits: how many tasks run, how often they start, how many wait."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

#: Seconds by which a start may be early, for the rounding of floating point numbers.
_EARLY = 1e-6


class Limit(NamedTuple):
    """How tasks of one queue, or of one tool, are started; those of all principals together.

    The rate is kept by the generic cell rate algorithm (ATM Forum, Traffic Management Specification
    4.0, 1996, section 4.4.2; as virtual scheduling in ITU-T I.371): all that has to be remembered
    is when the next start is expected if they come evenly.

    :ivar concurrency: how many may run at the same time; ``None`` for any number.
    :ivar rate: how many may start per ``per`` seconds; ``None`` for any number.
    :ivar burst: how many of them may start at once when none did for a while. In any ``w`` seconds,
        at most ``burst + w * rate / per`` are started.
    """

    concurrency: int | None = None
    rate: float | None = None
    per: float = 1.0
    burst: int = 1

    @property
    def interval(self) -> float:
        """Seconds between two starts at the full rate; 0 without one."""
        return 0.0 if self.rate is None else self.per / self.rate

    @property
    def _tolerance(self) -> float:
        return (self.burst - 1) * self.interval

    def opens_at(self, expected: float) -> float:
        """Return when a task may start next as far as the rate goes.

        :param expected: when the next start is expected, as `after_start` returned it.
        """
        return -math.inf if self.rate is None else expected - self._tolerance

    def room(self, running: int, expected: float, now: float) -> float:
        """Return how many tasks may start now."""
        room = math.inf
        if self.concurrency is not None:
            room = max(0, self.concurrency - running)
        if self.rate is not None:
            early = now + self._tolerance - max(expected, now) + _EARLY
            room = min(room, max(0, math.floor(early / self.interval) + 1))
        return room

    def after_start(self, expected: float, now: float) -> float:
        """Return when the next start is expected after one now."""
        return max(expected, now) + self.interval

    def latest(self, now: float) -> float:
        """Return the latest time at which a start can be expected; what is later is an error."""
        return now + self.burst * self.interval


#: What becomes of a task for which its queue has no room. ``reject``: the submitter is told.
#: ``block``: the submitter waits for room for a while. ``spill``: it goes to another queue.
Overflow = Literal["reject", "block", "spill"]


class Bound(NamedTuple):
    """How much may wait in a queue, of all principals together; ``None`` for any amount.

    :ivar most_tasks: tasks that are ``scheduled``, ``ready`` or ``paused``.
    :ivar most_bytes: of JSON, of their arguments.
    :ivar spill_to: the queue that takes what has no room, when ``overflow`` is ``spill``.
    """

    most_tasks: int | None = None
    most_bytes: int | None = None
    overflow: Overflow = "reject"
    spill_to: str | None = None


class Limits(NamedTuple):
    """All that is limited.

    :ivar queues: by name of the queue, whosever it is.
    :ivar tools: by name of the tool.
    :ivar bound: of each queue that has none of its own.
    :ivar bounds: by name of the queue.
    """

    queues: Mapping[str, Limit] = MappingProxyType({})
    tools: Mapping[str, Limit] = MappingProxyType({})
    bound: Bound = Bound()
    bounds: Mapping[str, Bound] = MappingProxyType({})

    def bound_of(self, queue: str) -> Bound:
        """Return how much may wait in a queue."""
        return self.bounds.get(queue, self.bound)
