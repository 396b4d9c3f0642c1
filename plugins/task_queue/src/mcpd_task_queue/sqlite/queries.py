"""The look-ups. Each is limited to one principal, and reads inside one short transaction."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Sequence
from typing import Any

from mcpd_core import Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import (
    Activity,
    Filter,
    Hold,
    LargeResult,
    Page,
    Pause,
    QueueStats,
    ResultPart,
    Snapshot,
    TaskState,
)

from . import noting
from .failures import next_expiry, shown
from .lanes import Room
from .ledger import Ledger
from .order import Ready, ahead_of, occupied
from .rows import COLUMNS, LANE, PRIORITY, READY_AT, SEQ, TURN, event_from, task_from


def get(
    connection: sqlite3.Connection,
    principal: Principal,
    task_id: str,
    payload: bool,
    events: int,
    failures: bool,
    ledger: Ledger,
    steady: float,
    largest: int | None,
    logs: int,
) -> Snapshot | None:
    """Read one task, its place among the ready ones, its latest events, its failures and the last
    of its log lines.

    :param largest: bytes of the largest result that is read, when ``payload`` is; one that is a
        file is not read here, whatever its size.
    """
    row = connection.execute(
        f"SELECT {COLUMNS} FROM task WHERE id = ? AND principal_kind = ? AND principal_id = ?",
        (task_id, principal.kind, principal.id),
    ).fetchone()
    if row is None:
        return None
    seq = row[SEQ]
    arguments = result = error = large = None
    if payload:
        arguments, result, error, blob, size = connection.execute(
            "SELECT arguments, result, error, blob, blob_size FROM payload WHERE seq = ?", (seq,)
        ).fetchone()
        if blob is not None:
            large = LargeResult(size, blob)
        elif result is not None and largest is not None and len(result) > largest:
            large, result = _measured(result), None
    latest = connection.execute(
        "SELECT at, kind, state, attempt, detail FROM event WHERE seq = ? ORDER BY n DESC LIMIT ?",
        (seq, events),
    ).fetchall()
    task = task_from(row, arguments=arguments, result=result, error=error, large=large)
    ahead = None
    holds: list[Hold] = []
    if task.state == "ready":
        holds = ledger.lanes.holds(task.queue, task.tool, steady)
        lanes = [row[LANE]]
        if ledger.lanes.limited and not holds:
            room = Room(ledger.lanes, steady)
            lanes = [name for name in occupied(connection) if room.left(name) >= 1]
        ahead = ahead_of(connection, _ready(row), ledger.ageing, lanes)
    (pause,) = pauses(connection, principal, task.queue) or (None,)
    lines, logged = noting.read(connection, seq, logs) if logs else ((), 0)
    return Snapshot(
        task,
        ahead,
        tuple(event_from(event) for event in reversed(latest)),
        pause,
        shown(connection, seq) if failures else (),
        tuple(holds),
        lines,
        logged,
    )


def _ready(row: tuple[Any, ...]) -> Ready:
    return Ready(row[PRIORITY], row[TURN], row[READY_AT], row[SEQ], row[LANE])


def _measured(result: str) -> LargeResult:
    return LargeResult(len(result), hashlib.sha256(result.encode()).hexdigest())


def read_result(
    connection: sqlite3.Connection, principal: Principal, task_id: str, offset: int, length: int
) -> ResultPart | None:
    """Read a part of a result; of one that is a file, only which one it is: the part is empty."""
    row = connection.execute(
        "SELECT result, blob, blob_size FROM task JOIN payload USING (seq)"
        " WHERE id = ? AND principal_kind = ? AND principal_id = ?",
        (task_id, principal.kind, principal.id),
    ).fetchone()
    if row is None:
        return None
    result, blob, size = row
    if blob is not None:
        return ResultPart("", offset, LargeResult(size, blob))
    if result is None:
        return None
    return ResultPart(result[offset : offset + length], offset, _measured(result))


def blobs_in_use(connection: sqlite3.Connection, names: Sequence[str]) -> set[str]:
    """Return those of some files that a task refers to."""
    marks = ", ".join("?" * len(names))
    rows = connection.execute(f"SELECT blob FROM payload WHERE blob IN ({marks})", tuple(names))
    return {name for (name,) in rows}


def find_key(connection: sqlite3.Connection, principal: Principal, key: str) -> str | None:
    """Return the id of the task with that idempotency key."""
    row = connection.execute(
        "SELECT id FROM task WHERE principal_kind = ? AND principal_id = ? AND idempotency_key = ?",
        (principal.kind, principal.id, key),
    ).fetchone()
    return None if row is None else str(row[0])


def place_of(cursor: str | None, otherwise: int = 2**63 - 1) -> int:
    """Return the place in the list that a cursor stands for.

    :param otherwise: where the list begins.
    :raises TaskRefused: when it is not one that a page had.
    """
    if cursor is None:
        return otherwise
    # Not int(): it takes spaces, underscores and signs as well.
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise TaskRefused(
            f"{cursor[:80]!r} is not a cursor.",
            hint="Pass next_cursor of the previous answer, or none to start over.",
        )
    return int(cursor)


def find(
    connection: sqlite3.Connection,
    principal: Principal,
    wanted: Filter,
    before: int,
    limit: int,
    offset: int,
) -> Page:
    """Read a page of tasks, newest first, those submitted before the given place."""
    conditions, parameters = conditions_of(principal, wanted)
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM task {_path(wanted)} WHERE {conditions} AND seq < ?"
        " ORDER BY seq DESC LIMIT ? OFFSET ?",
        (*parameters, before, limit + 1, offset),
    ).fetchall()
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(tuple(task_from(row) for row in rows), str(rows[-1][SEQ]) if more else None)


def count(connection: sqlite3.Connection, principal: Principal, wanted: Filter) -> int:
    """Count the tasks that `find` would read."""
    conditions, parameters = conditions_of(principal, wanted)
    (found,) = connection.execute(
        f"SELECT count(*) FROM task {_path(wanted)} WHERE {conditions}", parameters
    ).fetchone()
    return int(found)


def _path(wanted: Filter) -> str:
    """Say which index to go by: a task's id is found without reading all of the principal's."""
    return f"INDEXED BY {'sqlite_autoindex_task_1' if wanted.id_prefix else 'task_of'}"


def conditions_of(principal: Principal | None, wanted: Filter) -> tuple[str, list[Any]]:
    """Write a filter as an SQL condition with its parameters.

    :param principal: whose tasks; everybody's when ``None``.
    """
    conditions, parameters = ["1"], list[Any]()
    if principal is not None:
        conditions = ["principal_kind = ?", "principal_id = ?"]
        parameters = [principal.kind, principal.id]
    for column in ("state", "queue", "tool", "worker", "schedule_id"):
        value = getattr(wanted, column)
        if value is not None:
            conditions.append(f"{column} = ?")
            parameters.append(value)
    if wanted.states:
        conditions.append(f"state IN ({', '.join('?' * len(wanted.states))})")
        parameters += wanted.states
    if wanted.id_prefix is not None:
        # A range of the index of ids, in which "g" comes behind every digit.
        conditions.append("id >= ? AND id < ?")
        parameters += [wanted.id_prefix, wanted.id_prefix + "g"]
    if wanted.least_priority is not None:
        conditions.append("priority >= ?")
        parameters.append(wanted.least_priority)
    if wanted.recurring is not None:
        conditions.append("cron IS NOT NULL" if wanted.recurring else "cron IS NULL")
    for tag in (*wanted.tags, *((wanted.tag,) if wanted.tag is not None else ())):
        # Tags have no character that JSON would escape, so the quoted tag is found as it stands.
        conditions.append("instr(tags, ?) > 0")
        parameters.append(f'"{tag}"')
    return " AND ".join(conditions), parameters


def activity(connection: sqlite3.Connection, principal: Principal, since: float) -> Activity:
    """Average over the tasks that were started and have ended since then."""
    return Activity(
        *connection.execute(
            "SELECT count(*), avg(started_at - created_at), avg(finished_at - started_at)"
            " FROM task INDEXED BY task_settled"
            " WHERE state IN ('succeeded', 'failed', 'cancelled', 'dead')"
            " AND finished_at >= ? AND started_at IS NOT NULL"
            " AND principal_kind = ? AND principal_id = ?",
            (since, principal.kind, principal.id),
        ).fetchone()
    )


def pauses(
    connection: sqlite3.Connection, principal: Principal, queue: str | None = None
) -> list[Pause]:
    """Return the principal's paused queues, or the pause of one of them."""
    rows = connection.execute(
        "SELECT queue, since, reason FROM pause WHERE principal_kind = ? AND principal_id = ?"
        + ("" if queue is None else " AND queue = ?")
        + " ORDER BY queue",
        (principal.kind, principal.id, *(() if queue is None else (queue,))),
    )
    return [Pause(*row) for row in rows]


def tally(connection: sqlite3.Connection, principal: Principal) -> dict[str, dict[TaskState, int]]:
    """Count the principal's tasks by worker and state."""
    counted: dict[str, dict[TaskState, int]] = {}
    for worker, state, number in connection.execute(
        "SELECT worker, state, count(*) FROM task WHERE principal_kind = ? AND principal_id = ?"
        " AND worker IS NOT NULL GROUP BY worker, state",
        (principal.kind, principal.id),
    ):
        counted.setdefault(worker, {})[state] = number
    return counted


def stats(connection: sqlite3.Connection, principal: Principal, ledger: Ledger) -> list[QueueStats]:
    """Count the principal's tasks by queue and state, from an index that has it all."""
    queues: dict[str, dict[TaskState, int]] = {}
    for queue, state, count in connection.execute(
        "SELECT queue, state, count(*) FROM task INDEXED BY task_of_queue"
        " WHERE principal_kind = ? AND principal_id = ? GROUP BY queue, state",
        (principal.kind, principal.id),
    ):
        queues.setdefault(queue, {})[state] = count
    return [QueueStats(queue, counts, ledger.of(queue)) for queue, counts in sorted(queues.items())]


def next_due(connection: sqlite3.Connection, now: float, opening: float) -> float | None:
    """Return the seconds until the first scheduled task is due, a deadline passes or a lane opens.

    :param opening: seconds until a lane opens; infinite when none does.
    """
    (run_at,) = connection.execute(
        "SELECT min(run_at) FROM task WHERE state = 'scheduled'"
    ).fetchone()
    times = [at - now for at in (run_at, next_expiry(connection)) if at is not None]
    soonest = min(*times, opening, math.inf)
    return None if soonest == math.inf else max(0.0, soonest)


def counts(connection: sqlite3.Connection) -> dict[TaskState, int]:
    """Count all tasks by state."""
    return dict(connection.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall())
