"""Attempts without success, and the deadline over all attempts at a task."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Literal, cast

from mcpd_task_queue.policy import after_interruption
from mcpd_task_queue.records import TaskState
from mcpd_task_queue.retrying import FailedAttempt

from .rows import LARGEST_PAST_ERROR, error_text, failed_attempt_from, shorten
from .transaction import Transaction
from .transitions import Leases, Row, cancel_now, move, select

#: Of many attempts without success, this many first and this many latest ones are kept, and shown.
FIRST_KEPT, LATEST_KEPT = 3, 100
FIRST_SHOWN, LATEST_SHOWN = 3, 20

#: The code of the error of a task whose deadline passed before any attempt failed.
EXPIRED = "expired"
#: As in the index of those that have a deadline.
_WAITS = "state IN ('scheduled', 'ready', 'paused')"


def keep(
    tx: Transaction, row: Row, outcome: Literal["failed", "interrupted", "cancelled"], error: str
) -> None:
    """Write down how the attempt of a running task ended.

    :param error: as JSON.
    """
    if len(error) > LARGEST_PAST_ERROR:
        error = error_text(json.loads(error), LARGEST_PAST_ERROR)
    # Of a task that an older version started, not everything is known.
    started_at = tx.now if row.started_at is None else row.started_at
    tx.execute(
        "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row.seq, row.fence, started_at, tx.now, row.worker or "", outcome, error),
    )
    if row.fence > FIRST_KEPT + LATEST_KEPT:
        # Of those that are neither among the first nor among the latest there is one at most.
        tx.execute(
            "DELETE FROM attempt WHERE seq = ?"
            " AND n > (SELECT n FROM attempt WHERE seq = ? ORDER BY n LIMIT 1 OFFSET ?)"
            " AND n <= (SELECT n FROM attempt WHERE seq = ? ORDER BY n DESC LIMIT 1 OFFSET ?)",
            (row.seq, row.seq, FIRST_KEPT - 1, row.seq, LATEST_KEPT),
        )


def cut_off(tx: Transaction, leases: Leases, row: Row, cause: str, attempts: int) -> TaskState:
    """Do with a task whose attempt was cut off what the policy says.

    :param cause: what cut it off, as the first half of a sentence.
    :param attempts: those that count.
    :returns: the state of the task now.
    """
    leases.end(tx.undo, row.seq)
    error = error_text({"code": "interrupted", "message": cause})
    keep(tx, row, "cancelled" if row.cancelling else "interrupted", error)
    fate = after_interruption(
        cause=cause,
        tool=row.tool,
        delivery=cast(Any, row.delivery),
        repeatable=bool(row.repeatable),
        cancelling=bool(row.cancelling),
        attempts=attempts,
        max_attempts=row.max_attempts,
    )
    if fate.state == "cancelled":
        cancel_now(tx, row, fate.reason)
        return "cancelled"
    # One that is parked or buried keeps the attempt on its account: it did begin.
    kept = attempts if fate.state == "ready" else row.attempts
    reason = shorten(fate.reason)
    return move(
        tx, row, fate.state, "interrupted", reason, reason=reason, attempts=kept, releases=0
    )


def shown(connection: sqlite3.Connection, seq: int) -> tuple[FailedAttempt, ...]:
    """Read the first and the latest attempts of a task without success, oldest first."""
    query = "SELECT n, started_at, ended_at, worker, outcome, error FROM attempt WHERE seq = ?"
    latest = connection.execute(f"{query} ORDER BY n DESC LIMIT ?", (seq, LATEST_SHOWN)).fetchall()
    found: Sequence[Any] = latest[::-1]
    if len(latest) == LATEST_SHOWN:
        first = connection.execute(
            f"{query} AND n < ? ORDER BY n LIMIT ?", (seq, found[0][0], FIRST_SHOWN)
        ).fetchall()
        found = [*first, *found]
    return tuple(failed_attempt_from(row) for row in found)


def until(now: float, due: float | None, deadline: float | None) -> float | None:
    """Return when the time of a task is over that is due now, or at some later time."""
    if deadline is None:
        return None
    return deadline + (now if due is None else max(now, due))


def no_time_for_another(row: Row, at: float) -> bool:
    """Whether an attempt at some time would come after the deadline."""
    return row.expires_at is not None and at >= row.expires_at


def expire(tx: Transaction, limit: int) -> int:
    """Bury tasks that wait and whose deadline has passed.

    :returns: how many, at most as many as was said.
    """
    rows = select(tx, f"expires_at <= ? AND {_WAITS} ORDER BY expires_at LIMIT {limit}", (tx.now,))
    for row in rows:
        bury_expired(tx, row)
    return len(rows)


def bury_expired(tx: Transaction, row: Row, **columns: Any) -> None:
    """End a task whose deadline has passed, and that does not run."""
    reason = f"its deadline passed: all attempts together had {row.deadline:g} s"
    if row.reason:
        reason += f"; it waited because {row.reason}" if row.releases else f"; {row.reason}"
    error = error_text({"code": EXPIRED, "message": reason})
    tx.execute("UPDATE payload SET error = coalesce(error, ?) WHERE seq = ?", (error, row.seq))
    move(tx, row, "dead", "expired", reason, reason=shorten(reason), **columns)


def next_expiry(connection: sqlite3.Connection) -> float | None:
    """Return the time at which the first of the tasks that wait expires."""
    (at,) = connection.execute(
        f"SELECT min(expires_at) FROM task WHERE expires_at IS NOT NULL AND {_WAITS}"
    ).fetchone()
    return None if at is None else float(at)
