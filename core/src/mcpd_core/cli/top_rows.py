"""What ``mcpd top`` makes of the daemon's answers: rows, in an order, with rates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..histogram import Histogram

#: Seconds that rates and percentiles look back.
WINDOW = 60.0


@dataclass(frozen=True)
class Row:
    """One tool, resource or prompt.

    :ivar waiting: calls that wait for a permit, or for the code to be imported.
    :ivar rate: calls that ended, per second of the last minute; ``None`` at first.
    :ivar p50: seconds; ``None`` when there was no call.
    :ivar blocked: how often it has blocked the loop.
    """

    name: str
    plugin: str
    runtime: str
    running: int
    waiting: int
    calls: int
    rate: float | None
    p50: float | None
    p99: float | None
    errors: int
    refused: int
    blocked: int


_KEYS: dict[str, Callable[[Row], float]] = {
    "in-flight": lambda row: row.running + row.waiting,
    "rate": lambda row: row.rate or 0.0,
    "calls": lambda row: row.calls,
    "p50": lambda row: row.p50 or 0.0,
    "p99": lambda row: row.p99 or 0.0,
    "errors": lambda row: row.errors + row.refused,
    "blocked": lambda row: row.blocked,
}
#: By what rows can be sorted: the greatest first, names by the alphabet.
SORTS = (*_KEYS, "name")


class History:
    """The daemon's answers of the last minute."""

    def __init__(self) -> None:
        self._answers: deque[tuple[float, dict[str, Any]]] = deque()

    @property
    def latest(self) -> dict[str, Any]:
        """The last answer."""
        return self._answers[-1][1]

    def add(self, at: float, overview: dict[str, Any]) -> None:
        """Note an answer.

        :param at: monotonic time, in seconds.
        """
        self._answers.append((at, overview))
        # The oldest one that is kept is as old as the window, or as old as there is.
        while len(self._answers) > 1 and self._answers[1][0] <= at - WINDOW:
            self._answers.popleft()

    def rows(self, sort: str) -> list[Row]:
        """Return what was called, in an order.

        :param sort: one of `SORTS`.
        """
        (since, first), (now, last) = self._answers[0], self._answers[-1]
        before = {_key(offer): offer for offer in first["offers"]}
        rows = [_row(offer, before.get(_key(offer)), now - since) for offer in last["offers"]]
        if sort == "name":
            return sorted(rows, key=lambda row: row.name)
        key = _KEYS[sort]
        return sorted(rows, key=lambda row: (-key(row), -(row.rate or 0.0), row.name))

    def rate(self) -> float | None:
        """Return how many calls ended per second of the last minute."""
        rates = [row.rate for row in self.rows("name")]
        return sum(rate for rate in rates if rate is not None) if len(self._answers) > 1 else None


def _key(offer: dict[str, Any]) -> tuple[str, str, str]:
    return offer["kind"], offer["name"], offer["plugin"]


def _row(offer: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> Row:
    durations = _durations(offer)
    calls = offer["calls"]
    earlier = 0
    if before is not None and before["calls"] <= calls:
        earlier = before["calls"]
        recent = durations.since(_durations(before))
        durations = recent if recent.total else durations
    blocked = offer["blocked"]
    return Row(
        name=offer["name"],
        plugin=offer["plugin"],
        runtime=offer["runtime"],
        running=offer["running"],
        waiting=max(0, offer["in_flight"] - offer["running"]),
        calls=calls,
        rate=(calls - earlier) / seconds if seconds > 0 else None,
        p50=durations.quantile(0.5),
        p99=durations.quantile(0.99),
        errors=sum(offer["errors"].values()),
        refused=sum(offer["refused"].values()),
        blocked=blocked["offences"] if blocked else 0,
    )


def _durations(offer: dict[str, Any]) -> Histogram:
    return Histogram({int(bucket): count for bucket, count in offer["durations"].items()})
