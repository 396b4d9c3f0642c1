"""How tasks look while a terminal follows them. Imported by nothing else, because of rich."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mcpd_core.commandline import clean
from mcpd_task_queue.records import SETTLED

from .asking import SHORT
from .overview import ORDER, Overview
from .words import age, moment, progress, tries

#: Steps of a task's history that are shown.
STEPS = 6

_COLOURS = {
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "dead": "red",
    "uncertain": "yellow",
}
_HEADINGS = ("task", "state", "tool", "queue", "tries", "since", "why")
#: The columns that go first where the terminal is narrow, by their place.
_DISPENSABLE = (3, 4, 0)
#: Between two columns; and the least that is left for the last one, which is cut off.
_GAP, _LEAST = 2, 12


def follow(states: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Draw a task until it has ended; its end stays on the screen.

    :returns: the task as it ended.
    """
    task: dict[str, Any] = {}
    with Live(console=_console(), auto_refresh=False) as live:
        for task in states:
            live.update(one(task, time.time()), refresh=True)
    return task


def draw_all(overview: Overview, tick: float, interrupted: Sequence[int]) -> None:
    """Draw the tasks until the user has seen enough.

    :param tick: seconds after which they are drawn anew although nothing has happened.
    :param interrupted: is no longer empty once the user has.
    """
    screen = _console()
    with Live(console=screen, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while not interrupted:
            overview.update()
            while not interrupted:
                shown = everything(overview, screen.width, screen.height, time.time())
                live.update(shown, refresh=True)
                if overview.wait(tick):
                    break


def one(task: Mapping[str, Any], now: float) -> RenderableType:
    """Draw one task.

    :param now: seconds since the epoch.
    """
    state = task["state"]
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(task["task_id"][:SHORT], "bold")
    head.append(f"  {_flat(task['tool'])}  ")
    head.append(state, _COLOURS.get(state, ""))
    if task["started_at"] and state in ("running", *SETTLED):
        head.append(f"  {age(task['started_at'], moment(task['finished_at']) or now)}")
    if task["attempts"] > 1:
        head.append(f"  attempt {tries(task)}")
    lines: list[RenderableType] = [head]
    if state == "running":
        lines += _progress(task["progress"])
    elif task["why"]:
        lines.append(_line(task["why"]))
    for event in task["events"][-STEPS:]:
        detail = f"  {event['detail']}" if event["detail"] else ""
        lines.append(_line(f"  {age(event['at'], now):>7} ago  {event['kind']}{detail}", "dim"))
    return Group(*lines)


def everything(overview: Overview, width: int, height: int, now: float) -> RenderableType:
    """Draw the counts, and as many tasks as there is room for.

    :param width: of the terminal, in characters.
    :param height: of the terminal, in lines.
    :param now: seconds since the epoch.
    """
    busy, workers = overview.load
    counts = "   ".join(f"{count} {state}" for state, count in overview.counts.items() if count)
    head = [
        _line(f"mcpd tasks   {busy} of {workers} workers busy", "bold"),
        _line(counts or "There is no task."),
        Text(),
    ]
    if not len(overview):
        return Group(*head)
    # The headings and, perhaps, the line that says what is left out.
    room = max(1, height - len(head) - 1)
    room = room if len(overview) <= room else max(1, room - 1)
    left_out = len(overview) - room
    foot = [_line(f"... and {left_out} more", "dim")] if left_out > 0 else []
    return Group(*head, _table(overview.rows(room), width, now), *foot)


def _progress(report: Mapping[str, Any] | None) -> list[RenderableType]:
    if report is None:
        return []
    said = _line(progress(report))
    if not report["total"] or report["total"] < 0:
        return [said]
    bar = Table.grid(padding=(0, 1))
    done = min(max(0.0, report["done"]), report["total"])
    bar.add_row(ProgressBar(total=report["total"], completed=done, width=30), said)
    return [bar]


def _table(rows: list[dict[str, Any]], width: int, now: float) -> Table:
    cells = [
        (
            task["task_id"][:SHORT],
            task["state"],
            _flat(task["tool"]),
            _flat(task["queue"]),
            tries(task),
            age(task["updated_at"], now),
            _flat(task["reason"]),
        )
        for task in rows
    ]
    sizes = [max(map(cell_len, column)) for column in zip(_HEADINGS, *cells, strict=True)]
    kept = list(range(len(_HEADINGS) - 1))
    for place in _DISPENSABLE:
        if sum(sizes[each] + _GAP for each in kept) > width - _LEAST:
            kept.remove(place)
    left = width - sum(sizes[each] + _GAP for each in kept)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for place in kept:
        table.add_column(_HEADINGS[place], no_wrap=True, overflow="ellipsis")
    if left >= len(_HEADINGS[-1]):
        kept.append(len(_HEADINGS) - 1)
        table.add_column(_HEADINGS[-1], no_wrap=True, overflow="ellipsis", max_width=left)
    for row, task in zip(cells, rows, strict=True):
        # Text, because a plain string would be read as rich's markup.
        texts = [Text(row[place]) for place in kept]
        texts[kept.index(1)].stylize(_COLOURS.get(task["state"], ""))
        table.add_row(*texts, style="" if task["state"] in ORDER else "dim")
    return table


def _flat(text: str) -> str:
    return clean(text).replace("\t", " ").replace("\n", " ")


def _line(text: str, style: str = "") -> Text:
    """Return one line, to be cut off where the terminal ends."""
    return Text(_flat(text), style=style, no_wrap=True, overflow="ellipsis")


def _console() -> Console:
    return Console(highlight=False)
