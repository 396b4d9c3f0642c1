"""What the host counts of its calls: what runs, how long it takes, how it ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ..errors import CallRefused
from ..histogram import Histogram
from ..spec import CallResult, Offer

#: Codes of failures that are told apart for one tool, and what the others are counted as.
MOST_CODES = 50
OTHER = "other"


class OfferStatistics:
    """What was counted of one tool, resource or prompt.

    As a context manager it counts a call from its look-up to its answer. It keeps nothing of the
    single call, so that any number of calls may be inside.

    :ivar in_flight: calls that were accepted and not answered.
    :ivar running: of these, those whose code runs; the others wait for a permit or for the code to
        be imported.
    :ivar calls: calls whose code has run to its end, however that was.
    :ivar errors: of these, those that failed, by the code of the failure; ``cancelled`` among them.
    :ivar refused: calls whose code did not start, by the code of the refusal.
    :ivar durations: seconds for which the code ran.
    :ivar longest: the longest of these.
    """

    __slots__ = (
        "calls",
        "durations",
        "errors",
        "in_flight",
        "kind",
        "longest",
        "name",
        "plugin",
        "refused",
        "running",
        "spec",
    )

    def __init__(self, spec: Offer) -> None:
        self.spec = spec
        self.kind, _, name = spec.label.partition(" ")
        self.name = spec.name if self.kind == "tool" else name.strip("'\"")
        self.plugin = spec.plugin
        self.in_flight = 0
        self.running = 0
        self.calls = 0
        self.longest = 0.0
        self.errors: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.durations = Histogram()

    def __enter__(self) -> None:
        self.in_flight += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.in_flight -= 1
        if isinstance(error, CallRefused):
            _count(self.refused, error.code)

    def started(self) -> None:
        """Count a call whose code starts."""
        self.running += 1

    def ended(self, result: CallResult | None, seconds: float) -> None:
        """Count a call whose code has ended.

        :param result: its answer; ``None`` when it was cancelled.
        :param seconds: for which it ran.
        """
        self.running -= 1
        self.calls += 1
        self.durations.add(seconds)
        if seconds > self.longest:
            self.longest = seconds
        if result is None:
            _count(self.errors, "cancelled")
        elif result.error is not None:
            _count(self.errors, str(result.error.get("code", "tool_failed")))

    def to_json(self) -> dict[str, Any]:
        """Return what was counted, as JSON data; durations in seconds."""
        return {
            "kind": self.kind,
            "name": self.name,
            "plugin": self.plugin,
            "in_flight": self.in_flight,
            "running": self.running,
            "calls": self.calls,
            "errors": dict(self.errors),
            "refused": dict(self.refused),
            "p50": self.durations.quantile(0.5),
            "p99": self.durations.quantile(0.99),
            "longest": self.longest,
            "durations": {str(bucket): n for bucket, n in sorted(self.durations.counts.items())},
        }


def _count(codes: Counter[str], code: str) -> None:
    """Count a code: a tool may make them up as it goes, and not each may be kept."""
    codes[code if code in codes or len(codes) < MOST_CODES else OTHER] += 1


class Statistics:
    """The counts of one host, from its start. Used on the host's thread."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._offers: dict[str, OfferStatistics] = {}

    def __iter__(self) -> Iterator[OfferStatistics]:
        return iter(self._offers.values())

    @property
    def uptime(self) -> float:
        """Seconds since the host was started."""
        return time.monotonic() - self._started

    def of(self, spec: Offer) -> OfferStatistics:
        """Return what is counted of a tool, a resource or a prompt."""
        label = spec.label
        found = self._offers.get(label)
        if found is None or found.plugin != spec.plugin:
            # Another plugin may offer the name by now. What it counts begins anew.
            found = self._offers[label] = OfferStatistics(spec)
        return found
