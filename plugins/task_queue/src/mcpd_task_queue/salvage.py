"""Save what can be read of a damaged task store into a new one.

    python -m mcpd_task_queue.salvage DATA/task_queue.damaged DATA/task_queue

It is what `mcpd doctor` advises when there is no backup. SQLite's own means, ``.recover``, is
missing from many builds of its shell. Rows are read in ranges that are halved wherever SQLite meets
damage, down to the single row that cannot be read.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from .errors import StoreUnusable
from .layout import BLOBS, DATABASE
from .sqlite.connection import connect_writer, create
from .sqlite.schema import migrate

_LOST = "its arguments could not be read from the damaged store"


def salvage(damaged: Path, folder: Path) -> dict[str, int]:
    """Make a new store of what can be read of a damaged one.

    :param damaged: the folder of the damaged store; nothing in it is changed.
    :param folder: of the new store, which must not exist.
    :returns: how many rows were saved, by table.
    :raises StoreUnusable: when the new folder exists, or nothing at all can be read.
    """
    old, new = damaged / DATABASE, folder / DATABASE
    if folder.exists():
        raise StoreUnusable(f"{folder} exists already.", hint="Move it away first.")
    create(new)
    try:
        with closing(_open(old)) as source, closing(connect_writer(new, "full")) as target:
            migrate(target, new)
            saved = {table: _copy(source, target, table) for table in _tables(target)}
            _bury_what_lost_its_arguments(target)
    except sqlite3.DatabaseError as error:
        shutil.rmtree(folder)
        raise StoreUnusable(f"Nothing can be read of {old}: {error}.") from error
    if (damaged / BLOBS).is_dir():
        shutil.copytree(damaged / BLOBS, folder / BLOBS)
    return saved


def _open(path: Path) -> sqlite3.Connection:
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
    # Text that was damaged is saved as far as it is text.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def _tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    return sorted(name for (name,) in rows)


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> int:
    """Copy the rows of a table that can be read; returns their number."""
    there = _columns(source, table)
    columns = [name for name in _columns(target, table) if name in there]
    if not columns:
        return 0  # an older format did not have it
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    select = f"SELECT {names} FROM {table}"
    rows = _by_number(source, select) if columns[0] == "seq" else _from_both_ends(source, select)
    saved = 0
    target.execute("BEGIN IMMEDIATE")
    for row in rows:
        try:
            statement = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})"
            saved += target.execute(statement, row).rowcount
        except sqlite3.IntegrityError:
            continue  # damage that can be read and makes no sense
    target.execute("COMMIT")
    return saved


def _by_number(source: sqlite3.Connection, select: str) -> Iterator[Sequence[object]]:
    """Read the rows of a table that is sorted by ``seq``, around what is damaged."""
    ranges = [(0, _highest(source))]
    while ranges:
        low, high = ranges.pop()
        try:
            rows = source.execute(f"{select} WHERE seq BETWEEN ? AND ?", (low, high)).fetchall()
        except sqlite3.DatabaseError:
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]
        else:
            yield from rows


def _highest(source: sqlite3.Connection) -> int:
    """Return a number that is at least that of the newest task."""
    for table in ("task", "payload", "event"):
        try:
            (highest,) = source.execute(f"SELECT max(seq) FROM {table}").fetchone()
        except sqlite3.DatabaseError:
            continue
        if highest is not None:
            return int(highest)
    return 1 << 20


def _from_both_ends(source: sqlite3.Connection, select: str) -> Iterator[Sequence[object]]:
    """Read a small table from its first row, and from its last, up to what is damaged."""
    for order in ("", " ORDER BY 1 DESC"):
        try:
            yield from source.execute(select + order)
            return
        except sqlite3.DatabaseError:
            continue


def _bury_what_lost_its_arguments(target: sqlite3.Connection) -> None:
    """End the tasks that cannot be run any more, rather than run them with other arguments."""
    target.execute("BEGIN IMMEDIATE")
    target.execute(
        "UPDATE task SET state = 'dead', reason = ?, finished_at = ?, run_at = NULL"
        " WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'dead')"
        " AND seq NOT IN (SELECT seq FROM payload)",
        (_LOST, time.time()),
    )
    target.execute(
        "INSERT INTO payload (seq, arguments)"
        " SELECT seq, '{}' FROM task WHERE seq NOT IN (SELECT seq FROM payload)"
    )
    target.execute("COMMIT")


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    try:
        saved = salvage(*map(Path, arguments))
    except (StoreUnusable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{saved['task']} tasks were saved; mcpd doctor looks at them.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
