"""Medians, spreads and ratios, and the tables that show them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What one quantity came to in the rounds of one run.

    :ivar samples: one value per round, in the order of the rounds.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def over(self, base: Figure) -> Figure:
        """Divide by another figure round by round.

        Neighbouring measurements share what else the machine was doing, so that the ratios of one
        round each vary less than the ratio of two medians would.
        """
        return Figure(
            tuple(own / other for own, other in zip(self.samples, base.samples, strict=False))
        )

    def __str__(self) -> str:
        """Show the median and, in brackets, the quartiles on either side of it."""
        if len(self.samples) == 1:
            return number(self.samples[0])
        low, middle, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return f"{number(middle)} ({number(low)}-{number(high)})"


def number(value: float) -> str:
    """Show a number with about three significant digits."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def quantile(samples: Sequence[float], fraction: float) -> float:
    """Return the smallest sample that at least this fraction of the samples does not exceed."""
    ranked = sorted(samples)
    rank = -int(-fraction * len(ranked) // 1)  # rounded up
    return ranked[min(max(rank, 1), len(ranked)) - 1]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in Markdown, with columns that also line up in a terminal."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    laid_out = []
    for line in [lines[0], rule, *lines[1:]]:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        laid_out.append(f"| {' | '.join(cells)} |")
    return "\n".join(laid_out)


@dataclass(frozen=True)
class Aim:
    """What a ratio or a time is meant to reach.

    :ivar text: the promise, in words.
    :ivar figure: what was measured; ``None`` when this run could not measure it.
    :ivar bound: the value to reach.
    :ivar at_least: whether more is better.
    """

    text: str
    figure: Figure | None
    bound: float
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        seen = self.figure.median
        return "met" if (seen >= self.bound if self.at_least else seen <= self.bound) else "MISSED"

    def row(self) -> list[str]:
        sign = ">=" if self.at_least else "<="
        seen = "-" if self.figure is None else str(self.figure)
        return [self.text, f"{sign} {self.bound:g}", seen, self.verdict]


def aims_table(aims: Sequence[Aim]) -> str:
    """Lay out promises beside what was measured."""
    return table(("aim", "bound", "seen", "verdict"), [aim.row() for aim in aims])
