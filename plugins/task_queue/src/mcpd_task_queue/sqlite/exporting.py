"""Reading everything about many tasks, a page at a time.

A page is one short read transaction, so that an export, however slow its reader is, keeps the log
from being moved no longer than any other look-up. What is submitted meanwhile comes at the end;
what is purged meanwhile is left out.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from mcpd_core import Principal
from mcpd_task_queue.records import Exported, Filter, LargeResult, Snapshot

from . import noting
from .failures import shown
from .queries import conditions_of
from .rows import COLUMNS, SEQ, event_from, task_from

#: Tasks of one page at most.
PAGE = 200
#: Places that are looked at for one page at most, so that a filter that nothing fits is answered
#: as soon as any other: with an empty page that is not the last one.
SPAN = 20_000
#: Log lines of a task: as many as there are.
ALL = -1


def read(
    connection: sqlite3.Connection,
    principal: Principal | None,
    wanted: Filter,
    after: int,
    size: int,
) -> Exported:
    """Read a page of tasks, in the order of their submission.

    :param principal: whose; everybody's when ``None``.
    :param after: the place behind which it begins.
    :param size: bytes of arguments and results, of all of them together; the first one may have
        more.
    """
    conditions, parameters = conditions_of(principal, wanted)
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM task WHERE seq > ? AND seq <= ? AND {conditions}"
        " ORDER BY seq LIMIT ?",
        (after, after + SPAN, *parameters, PAGE),
    ).fetchall()
    snapshots: list[Snapshot] = []
    reached = after
    for row in rows:
        snapshot, took = _everything(connection, row)
        if snapshots and took > size:
            break
        snapshots.append(snapshot)
        size -= took
        reached = row[SEQ]
    else:
        if len(rows) < PAGE:
            reached = after + SPAN
    (end,) = connection.execute("SELECT coalesce(max(seq), 0) FROM task").fetchone()
    return Exported(tuple(snapshots), str(reached) if reached < end else None)


def _everything(connection: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[Snapshot, int]:
    """Read one task; returns also the bytes of its arguments and its result."""
    seq = row[SEQ]
    arguments, result, error, blob, size = connection.execute(
        "SELECT arguments, result, error, blob, blob_size FROM payload WHERE seq = ?", (seq,)
    ).fetchone()
    events = connection.execute(
        "SELECT at, kind, state, attempt, detail FROM event WHERE seq = ? ORDER BY n", (seq,)
    ).fetchall()
    large = None if blob is None else LargeResult(size, blob)
    task = task_from(row, arguments=arguments, result=result, error=error, large=large)
    took = len(arguments) + (size or len(result or ""))
    lines, logged = noting.read(connection, seq, ALL)
    snapshot = Snapshot(
        task,
        events=tuple(map(event_from, events)),
        failures=shown(connection, seq),
        logs=lines,
        logged=logged,
    )
    return snapshot, took
