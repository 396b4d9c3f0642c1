"""What commands print: data on stdout, messages on stderr, ornaments only on a terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

# Descriptions and results were written by others: a terminal must not obey them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


#: Characters between two columns of a table, and the least that is left of one that is cut off.
_GAP, _LEAST = 3, 8


def clean(text: str) -> str:
    """Return text without the characters that steer a terminal; line ends and tabs stay."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def write(text: str) -> None:
    """Write a line of data, or several, to stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def write_json(data: Any) -> None:
    """Write JSON to stdout: indented on a terminal, one line elsewhere."""
    indent = 2 if sys.stdout.isatty() else None
    write(json.dumps(data, indent=indent, ensure_ascii=not _speaks_unicode()))


def note(text: str) -> None:
    """Write a message to stderr."""
    sys.stderr.write(clean(text) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, one_line: bool = False) -> None:
    """Write a table: drawn with rich on a terminal, separated by tabs elsewhere.

    :param columns: the headings; shown on a terminal only, so that a pipe carries nothing but data.
    :param one_line: whether a row takes one line of the terminal, and the last column is cut off
        for it; otherwise cells are folded and nothing is cut off.
    """
    cleaned = [[_one_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cleaned:
            write("\t".join(row))
        return
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns[: -1 if one_line else None]:
        # Folded where the terminal is narrow: nothing is cut off.
        drawn.add_column(column, overflow="fold", no_wrap=one_line or column is columns[0])
    if one_line:
        sizes = [max(map(cell_len, cells)) for cells in zip(columns, *cleaned, strict=True)]
        room = console.width - sum(size + _GAP for size in sizes[:-1])
        drawn.add_column(
            columns[-1], no_wrap=True, overflow="ellipsis", max_width=max(_LEAST, room)
        )
    for row in cleaned:
        # Text, because a plain string would be read as rich's markup.
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


def first_line(text: str) -> str:
    """Return the first line of a description, for a listing."""
    return text.strip().partition("\n")[0]


def _one_line(text: str) -> str:
    return clean(text).replace("\t", " ").replace("\n", " ")


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
