"""What the queue counts and measures, and the text in which Prometheus reads it.

Nothing is sent anywhere: whoever wants to know asks. Names, units and the kinds of metrics are
those of https://prometheus.io/docs/practices/naming, the text is the exposition format 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Labels: TypeAlias = "tuple[tuple[str, str], ...]"

#: Upper bounds in seconds: waits and runs are as short as a millisecond and as long as days.
SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1_800.0, 10_800.0, 86_400.0)
#: Upper bounds of the number of operations that share a commit.
OPERATIONS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Distribution:
    """How many observations fell into which range. One thread observes, any may read.

    The bounds are fixed, because Prometheus adds up the ranges of many scrapes and servers.

    :param bounds: upper bounds, each included, ascending.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation; a clock that was set back makes none less than 0."""
        value = max(0.0, value)
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> Reading:
        """Return what was observed so far."""
        counts = list(self._counts)
        total = 0
        ranges = []
        for bound, count in zip((*self._bounds, math.inf), counts, strict=True):
            total += count
            ranges.append((bound, total))
        return Reading(tuple(ranges), total, self._sum)


@dataclass(frozen=True)
class Reading:
    """What a `Distribution` has observed.

    :ivar ranges: upper bounds, the last one infinite, with how many observations were not above.
    """

    ranges: tuple[tuple[float, int], ...]
    count: int
    sum: float


class Metric(NamedTuple):
    """One metric with its values.

    :ivar text: what it is, in a line.
    :ivar values: by their labels; a single value has none.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    values: Mapping[Labels, float | Reading]

    @classmethod
    def single(
        cls,
        name: str,
        kind: Literal["counter", "gauge", "histogram"],
        text: str,
        value: float | Reading,
    ) -> Metric:
        """Make one that has no labels."""
        return cls(name, kind, text, {(): value})

    @classmethod
    def labelled(
        cls,
        name: str,
        kind: Literal["counter", "gauge"],
        text: str,
        label: str,
        values: Mapping[Any, float],
    ) -> Metric:
        """Make one that has a value for each of some words."""
        return cls(name, kind, text, {((label, word),): value for word, value in values.items()})


class Meter:
    """Counts what becomes of tasks here, since the start. Used on the thread of the dispatcher.

    :ivar attempts: how many attempts ended how.
    """

    def __init__(self) -> None:
        self.attempts = dict.fromkeys(
            ("succeeded", "retried", "failed", "dead", "cancelled", "uncertain", "released"), 0
        )
        self.lease_losses = 0
        self._run = Distribution(SECONDS)

    def ran(self, seconds: float) -> None:
        """Note the end of an attempt."""
        self._run.observe(seconds)

    def metrics(self) -> Iterator[Metric]:
        """Return what was counted."""
        yield Metric.single(
            "mcpd_tasks_run_seconds",
            "histogram",
            "From the start of an attempt to its end.",
            self._run.read(),
        )
        yield Metric.labelled(
            "mcpd_tasks_attempts_total",
            "counter",
            "Attempts that ended, by what became of the task.",
            "outcome",
            self.attempts,
        )
        yield Metric.single(
            "mcpd_tasks_retries_total",
            "counter",
            "Attempts that failed and are followed by another.",
            self.attempts["retried"],
        )
        yield Metric.single(
            "mcpd_tasks_lease_losses_total",
            "counter",
            "Attempts that lost their task to another one.",
            self.lease_losses,
        )


def render(metrics: Iterable[Metric]) -> str:
    """Write metrics as Prometheus reads them."""
    lines = []
    for metric in metrics:
        text = metric.text.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"# HELP {metric.name} {text}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.values.items():
            if isinstance(value, Reading):
                for bound, count in value.ranges:
                    upper = (*labels, ("le", _number(bound)))
                    lines.append(f"{metric.name}_bucket{_written(upper)} {count}")
                lines.append(f"{metric.name}_sum{_written(labels)} {_number(value.sum)}")
                lines.append(f"{metric.name}_count{_written(labels)} {value.count}")
            else:
                lines.append(f"{metric.name}{_written(labels)} {_number(value)}")
    return "\n".join(lines) + "\n"


def to_json(metrics: Iterable[Metric]) -> dict[str, Any]:
    """Return metrics as `get_queue_stats` answers them: by name, a value, or one for each word."""
    answer: dict[str, Any] = {}
    for metric in metrics:
        if set(metric.values) == {()}:
            answer[metric.name] = _plain(metric.values[()])
        else:
            answer[metric.name] = {
                labels[0][1]: _plain(value) for labels, value in metric.values.items()
            }
    return answer


def _plain(value: float | Reading) -> Any:
    if not isinstance(value, Reading):
        return value
    return {
        "count": value.count,
        "sum": round(value.sum, 6),
        "buckets": {_number(bound): count for bound, count in value.ranges},
    }


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _written(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = (
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for name, value in labels
    )
    return "{" + ",".join(pairs) + "}"
