"""Recurring tasks: rows that never run themselves, but are made into a task each time they are due.

Making the task and setting the next time is one change, so that no firing is lost or doubled,
whatever dies. Firings that were missed while nothing ran, or while the clock was put forward, make
one task together; a firing whose predecessor still waits makes none, because that one stands for
both.
"""

from __future__ import annotations

from mcpd_task_queue import cron
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import TaskState, Whose

from .rows import shorten
from .transaction import Transaction
from .transitions import Row, add_event, add_tags, move, offer, place, ready_or_paused

#: What a task inherits from the recurring task that it is made by.
_INHERITED = (
    "tool, principal_kind, principal_id, principal_name, client, queue, priority, delivery,"
    " repeatable, timeout, max_attempts, retry, deadline, tags, digest, fairness_key, size"
)


def first_time(tx: Transaction, expression: str, zone: str | None) -> float:
    """Return when a recurring task is due next.

    :raises TaskRefused: when it never is.
    """
    due = cron.next_after(expression, zone, tx.now)
    if due is None:
        raise TaskRefused(f"The cron fields {expression!r} never come true.")
    return due


def fire(tx: Transaction, row: Row) -> TaskState:
    """Make a recurring task that is due into a task, and set its next time.

    :returns: the state of the new task, or of the recurring one when none was made.
    """
    assert row.cron is not None
    try:
        following = first_time(tx, row.cron, row.timezone)
    except TaskRefused as refused:
        # The time zone has gone from this machine, for example; the others go on.
        reason = shorten(refused.message)
        return move(tx, row, "failed", "failed", reason, reason=reason)
    waiting = tx.execute(
        "SELECT id FROM task WHERE id = (SELECT latest_id FROM task WHERE seq = ?)"
        " AND state IN ('scheduled', 'ready', 'paused')",
        (row.seq,),
    ).fetchone()
    if waiting is not None:
        return move(tx, row, "scheduled", "skipped", f"{waiting[0]} still waits", run_at=following)
    full = tx.ledger.loads.refusal(row.queue, row.size)
    if full is not None:
        kind = f"{full.tasks} of {full.most} tasks" if full.limit == "tasks" else "too many bytes"
        detail = f"the queue {row.queue!r} is full: {kind} wait"
        return move(tx, row, "scheduled", "skipped", detail, run_at=following)
    task_id = tx.ledger.ids.new(tx.now)
    state = ready_or_paused(tx, row.principal_kind, row.principal_id, row.queue)
    columns = {
        "id": task_id,
        "state": state,
        "created_at": tx.now,
        "updated_at": tx.now,
        "events": 1,
        "schedule_id": row.id,
        "expires_at": None if row.deadline is None else tx.now + row.deadline,
    }
    if state == "ready":
        columns |= place(tx, row, row.priority)
    seq = tx.execute(
        f"INSERT INTO task ({', '.join(columns)}, {_INHERITED})"
        f" SELECT {', '.join('?' * len(columns))}, {_INHERITED} FROM task WHERE seq = ?",
        (*columns.values(), row.seq),
    ).lastrowid
    assert seq is not None
    tx.execute(
        "INSERT INTO payload (seq, arguments) SELECT ?, arguments FROM payload WHERE seq = ?",
        (seq, row.seq),
    )
    add_event(tx, seq, 1, "submitted", state, 0, f"by the schedule {row.id}")
    tx.ledger.loads.add(tx.undo, row.queue, row.size)
    if state == "ready":
        add_tags(tx, seq)
    who = (row.principal_kind, row.principal_id)
    offered = offer(state, *who, row.queue, row.tool, row.tags)
    whose, timed = Whose(*who, row.queue), row.deadline is not None
    tx.note(task_id, None, state, whose=whose, offered=offered, timed=timed)
    move(tx, row, "scheduled", "fired", f"made {task_id}", run_at=following, latest_id=task_id)
    return state
