"""What people do to single tasks, as against workers. Each works inside the transaction."""

from __future__ import annotations

from typing import Any

from mcpd_core import Principal
from mcpd_task_queue.records import (
    RETRYABLE,
    SETTLED,
    Cancelled,
    Changed,
)
from mcpd_task_queue.store import Resolution

from .failures import until
from .rows import error_text, shorten
from .schedules import first_time
from .transaction import Transaction
from .transitions import Row, cancel_now, move, select

_OF = "principal_kind = ? AND principal_id = ?"


def _row(tx: Transaction, principal: Principal, task_id: str) -> Row | None:
    rows = select(tx, f"id = ? AND {_OF}", (task_id, principal.kind, principal.id))
    return rows[0] if rows else None


def cancel(tx: Transaction, principal: Principal, task_id: str) -> Cancelled | None:
    """Cancel a task that waits, or note that one that runs is to be cancelled."""
    row = _row(tx, principal, task_id)
    if row is None:
        return None
    if row.state in SETTLED:
        return Cancelled("settled", row.state)
    if row.state == "running":
        if not row.cancelling:
            move(tx, row, "running", "cancel_requested", cancelling=1, cancelled_at=tx.now)
        return Cancelled("cancelling", "running")
    cancel_now(tx, row, "")
    return Cancelled("cancelled", "cancelled")


def retry(
    tx: Transaction, principal: Principal, task_id: str, max_attempts: int | None
) -> Changed | None:
    """Have a task tried anew; a recurring one goes on from its next time."""
    row = _row(tx, principal, task_id)
    if row is None or row.state not in RETRYABLE:
        return None if row is None else Changed(False, row.state)
    return _again(tx, row, "retried", "a person had it tried anew", max_attempts)


def _again(
    tx: Transaction, row: Row, kind: str, reason: str, max_attempts: int | None = None
) -> Changed:
    columns: dict[str, Any] = {
        "attempts": 0,
        "releases": 0,
        "finished_at": None,
        "run_at": None,
        "reason": shorten(reason),
    }
    if row.cron is None:
        columns["expires_at"] = until(tx.now, None, row.deadline)
    if max_attempts is not None and row.delivery != "at_most_once":
        columns["max_attempts"] = max_attempts
    if row.cron is not None:
        columns["run_at"] = first_time(tx, row.cron, row.timezone)
    tx.execute("UPDATE payload SET error = NULL WHERE seq = ?", (row.seq,))
    state = move(tx, row, "ready" if row.cron is None else "scheduled", kind, reason, **columns)
    return Changed(True, state)


def resolve(
    tx: Transaction, principal: Principal, task_id: str, resolution: Resolution, note: str
) -> Changed | None:
    """Record what a person found out about an uncertain task."""
    row = _row(tx, principal, task_id)
    if row is None or row.state != "uncertain":
        return None if row is None else Changed(False, row.state)
    said = f"a person says: {note}" if note else "a person says so"
    if resolution == "retry":
        return _again(tx, row, "resolved", said)
    if resolution == "failed":
        error = error_text({"code": "resolved", "message": said, "retryable": False})
        tx.execute("UPDATE payload SET error = ? WHERE seq = ?", (error, row.seq))
    else:
        tx.execute("UPDATE payload SET error = NULL WHERE seq = ?", (row.seq,))
    return Changed(True, move(tx, row, resolution, "resolved", said, reason=shorten(said)))


def prioritise(
    tx: Transaction, principal: Principal, task_id: str, priority: int
) -> Changed | None:
    """Give a task another priority; a running one for its further attempts."""
    row = _row(tx, principal, task_id)
    if row is None or row.state in SETTLED:
        return None if row is None else Changed(False, row.state, row.priority)
    if row.priority != priority:
        detail = f"from {row.priority} to {priority}"
        move(tx, row, row.state, "prioritised", detail, priority=priority)
    return Changed(True, row.state, row.priority)
