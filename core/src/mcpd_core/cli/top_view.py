"""How ``mcpd top`` looks. Nothing else of the command line imports this, because of rich."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..text import one_line
from .top_rows import History, Row

#: Characters without which a name says nothing.
_LEAST_NAME = 16
#: Between two columns.
_GAP = 2


@dataclass(frozen=True)
class _Column:
    """One column of the table.

    :ivar rank: the columns of the highest rank go first where the terminal is narrow.
    :ivar alarming: whether anything but zero is to be seen at once.
    """

    title: str
    cell: Callable[[Row], str]
    rank: int
    justify: Literal["left", "right"] = "right"
    alarming: bool = False


_COLUMNS = (
    _Column("tool", lambda row: row.name, 0, "left"),
    _Column("plugin", lambda row: row.plugin, 7, "left"),
    _Column("runtime", lambda row: row.runtime, 5, "left"),
    _Column("run", lambda row: _count(row.running), 0),
    _Column("wait", lambda row: _count(row.waiting), 1),
    _Column("calls/s", lambda row: _rate(row.rate), 2),
    _Column("calls", lambda row: _count(row.calls), 6),
    _Column("p50", lambda row: duration(row.p50), 3),
    _Column("p99", lambda row: duration(row.p99), 1),
    _Column("errors", lambda row: _count(row.errors), 1, alarming=True),
    _Column("refused", lambda row: _count(row.refused), 4, alarming=True),
    _Column("blocked", lambda row: _count(row.blocked), 4, alarming=True),
)


def console() -> Console:
    """Return the terminal, or what stands for it."""
    return Console(highlight=False)


def view(history: History, sort: str, *, width: int, height: int | None) -> RenderableType:
    """Return what is to be seen.

    :param width: of the terminal, in characters.
    :param height: of the terminal, in lines; ``None`` shows every row.
    """
    head = _head(history, width)
    rows = history.rows(sort)
    if not rows:
        return Group(*head, Text("Nothing has been called yet.", style="dim"))
    room = len(rows)
    if height is not None:
        # The headings and, perhaps, the line that says what is left out.
        room = max(1, height - len(head) - 1)
        room = room if len(rows) <= room else max(1, room - 1)
    left_out = len(rows) - room
    foot = [Text(f"... and {left_out} more", style="dim")] if left_out > 0 else []
    return Group(*head, _table(rows[:room], width), *foot)


def _head(history: History, width: int) -> list[Text]:
    seen = history.latest
    rate = history.rate()
    lines = [
        "   ".join(
            [
                f"mcpd {seen['version']}, process {seen['pid']}",
                f"up {uptime(seen['uptime'])}",
                f"{seen['in_flight']} in flight",
                *([] if rate is None else [f"{_rate(rate)} calls/s"]),
                f"{seen['tools']} tools",
            ]
        ),
        "   ".join(
            f"{name}s: {permits['running']} of {permits['limit']} run, {permits['waiting']} wait"
            for name, permits in seen["admission"].items()
        ),
        "   ".join(_runtime(place, seen["loop"]) for place in seen["runtimes"]),
        "",
    ]
    # Not wrapped: the number of lines is counted on.
    return [
        Text(line, style="bold" if number == 0 else "", no_wrap=True, overflow="ellipsis")
        for number, line in enumerate(lines)
    ]


def _runtime(place: dict[str, Any], loop: str) -> str:
    how = loop if place["name"] == "asyncio" else place["rung"]
    return f"{place['name']} ({how}): {place['running']}"


def _table(rows: list[Row], width: int) -> Table:
    columns = fitting(rows, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column, size in columns:
        table.add_column(
            column.title, justify=column.justify, no_wrap=True, overflow="ellipsis", width=size
        )
    for row in rows:
        table.add_row(
            *(_text(column, row) for column, _ in columns), style="" if _active(row) else "dim"
        )
    return table


def fitting(rows: list[Row], width: int) -> list[tuple[_Column, int]]:
    """Return the columns for which there is room, the most telling ones at least, and how wide
    each is to be."""
    columns = [
        (column, max(len(column.title), *(len(one_line(column.cell(row))) for row in rows)))
        for column in _COLUMNS
    ]
    _, longest = columns[0]
    while True:
        # Names take what is left: everything else is worth nothing when it is cut off.
        left = width - sum(size + _GAP for _, size in columns[1:])
        least = max(columns, key=lambda item: item[0].rank)
        if left >= min(longest, _LEAST_NAME) or not least[0].rank:
            return [(columns[0][0], max(1, min(longest, left))), *columns[1:]]
        columns.remove(least)


def _text(column: _Column, row: Row) -> Text:
    # Text, because a plain string would be read as rich's markup.
    text = one_line(column.cell(row))
    return Text(text, style="red" if column.alarming and text != "0" else "")


def _active(row: Row) -> bool:
    return bool(row.running or row.waiting or row.rate)


def duration(seconds: float | None) -> str:
    """Write a duration with three digits that count."""
    if seconds is None:
        return "-"
    for unit, scale in (("us", 1e-6), ("ms", 1e-3)):
        value = seconds / scale
        if value < 999.5:
            return f"{_three(value)} {unit}"
    return f"{_three(seconds)} s"


def uptime(seconds: float) -> str:
    """Write a long duration as days, hours, minutes and seconds."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{f'{days}d ' if days else ''}{hour}:{minute:02}:{second:02}"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}" if rate < 99.95 else _count(round(rate))


def _count(number: int) -> str:
    if number < 100_000:
        return str(number)
    return f"{number // 1000}k" if number < 100_000_000 else f"{number // 1_000_000}M"
