"""What follows a failed attempt: `Backoff`, the `RetryPolicy` of a task, and what is kept of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

#: A power beyond which no wait that could be meant is left; with the largest multiplier it is still
#: a number.
_LARGEST_POWER = 30
LARGEST_MULTIPLIER = 100.0


class Backoff(NamedTuple):
    """Seconds to wait before the next attempt: exponential, capped, with jitter.

    With the usual jitter half of the wait is random ("equal jitter", as in "Exponential Backoff And
    Jitter" of the AWS Architecture Blog), so that tasks that failed together do not come back
    together, and none comes back at once.

    :ivar first: the longest wait after the first failure.
    :ivar cap: the longest wait at all.
    :ivar random: returns a number from 0 to 1.
    :ivar multiplier: by which each further wait is longer.
    :ivar jitter: the part of each wait, 0 to 1, that is random.
    """

    first: float
    cap: float
    random: Callable[[], float] = random.random
    multiplier: float = 2.0
    jitter: float = 0.5

    def after(self, failures: int) -> float:
        """Return the wait after the given number of failures, which is at least 1."""
        power = min(failures - 1, _LARGEST_POWER)
        longest = min(self.cap, self.first * self.multiplier**power)
        return longest * (1.0 - self.jitter * self.random())


@dataclass(frozen=True)
class RetryPolicy:
    """How the attempts at one task follow each other; how many there are is its own budget.

    :ivar first: seconds, the longest wait before the second attempt; ``None`` leaves it to the
        settings.
    :ivar longest: seconds, the longest wait before any attempt; ``None`` likewise.
    :ivar multiplier: by which each further wait is longer, 1 to 100.
    :ivar jitter: the part of each wait, 0 to 1, that is random.
    :ivar never_on: codes of errors after which no attempt is made any more.
    :raises ValueError: when one of them is not within its bounds.
    """

    first: float | None = None
    longest: float | None = None
    multiplier: float = 2.0
    jitter: float = 0.5
    never_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("first", "longest"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}, which is no time to wait.")
        if not 1 <= self.multiplier <= LARGEST_MULTIPLIER:
            raise ValueError(f"multiplier is {self.multiplier}; it can be 1 to 100.")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter}; it can be 0 to 1.")

    def backoff(self, usual: Backoff) -> Backoff:
        """Return its waits.

        :param usual: what it leaves open is as in this one.
        """
        return usual._replace(
            first=usual.first if self.first is None else self.first,
            cap=usual.cap if self.longest is None else self.longest,
            multiplier=self.multiplier,
            jitter=self.jitter,
        )

    def rules_out(self, error: Mapping[str, Any]) -> bool:
        """Whether no attempt is to follow one that failed so."""
        return error.get("code") in self.never_on

    def as_json(self) -> dict[str, Any]:
        """Return it as data for JSON, without what goes without saying."""
        usual = RetryPolicy()
        return {name: value for name, value in asdict(self).items() if value != vars(usual)[name]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RetryPolicy:
        """Read what `as_json` returned; what a later version may have added is left out."""
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in data.items() if name in known}
        given["never_on"] = tuple(given.get("never_on", ()))
        return cls(**given)


class FailedAttempt(NamedTuple):
    """A start of a task that came to no success. Times are seconds since the epoch.

    :ivar n: which start of the task it was, the first being 1. They are counted over its whole
        life, those included that were given back, which are no attempts and leave gaps.
    :ivar worker: who started it.
    :ivar outcome: ``failed``, ``interrupted`` (cut off, its effect unknown) or ``cancelled``.
    :ivar error: how it failed, or what cut it off.
    """

    n: int
    started_at: float
    ended_at: float
    worker: str
    outcome: Literal["failed", "interrupted", "cancelled"]
    error: Mapping[str, Any]
