"""What submitters and workers do to tasks. Each works inside the open transaction it is given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal

from mcpd_task_queue.keeping import Blob
from mcpd_task_queue.records import (
    BUILT_IN,
    NewTask,
    Note,
    Recorded,
    Renewal,
    Submitted,
    Task,
    TaskState,
    Whose,
    Worker,
)
from mcpd_task_queue.store import Verdict

from . import noting
from .failures import bury_expired, cut_off, keep, no_time_for_another, until
from .order import Ready, best, everything, lowest
from .rows import (
    COLUMNS,
    EVENTS,
    EXPIRES_AT,
    FAIRNESS_KEY,
    ID,
    LANE,
    PRINCIPAL_ID,
    PRINCIPAL_KIND,
    PRIORITY,
    QUEUE,
    READY_AT,
    SEQ,
    SIZE,
    TURN,
    error_text,
    retry_text,
    shorten,
    task_from,
)
from .schedules import first_time
from .transaction import Transaction
from .transitions import (
    Leases,
    Row,
    add_event,
    add_tags,
    cancel_now,
    move,
    offer,
    ready_or_paused,
    select,
    succeed,
)
from .turns import Flow
from .workers import ranges


def submit(
    tx: Transaction, batch: Sequence[NewTask], encoded: Sequence[tuple[str, Sequence[bytes]]]
) -> list[Submitted]:
    """Insert the tasks for which there is room.

    :param encoded: the JSON of each one's arguments, and its digests.
    """
    return [_submit(tx, new, *extra) for new, extra in zip(batch, encoded, strict=True)]


def _submit(tx: Transaction, new: NewTask, arguments: str, digests: Sequence[bytes]) -> Submitted:
    who = new.principal
    if new.idempotency_key is not None:
        found = tx.execute(
            "SELECT id, state, digest, run_at, queue FROM task WHERE principal_kind = ?"
            " AND principal_id = ? AND idempotency_key = ?",
            (who.kind, who.id, new.idempotency_key),
        ).fetchone()
        if found is not None:
            outcome: Literal["existing", "rejected"]
            outcome = "existing" if found[2] in digests else "rejected"
            return Submitted(outcome, found[0], found[1], found[3], found[4])
    tx.expect_room()
    size = len(arguments.encode())
    queue, full = tx.ledger.loads.room_for(new.queue, size)
    if full is not None:
        return Submitted("full", "", None, queue=queue, full=full)
    spilled_from = None if queue == new.queue else new.queue
    task_id = tx.ledger.ids.new(tx.now)
    run_at = new.run_at if new.run_at is not None else tx.now + new.delay
    reason = "submitted with a delay"
    if new.cron is not None:
        run_at = first_time(tx, new.cron, new.timezone)
        reason = "made into a task each time"
    state: TaskState = "scheduled"
    if run_at <= tx.now:
        state = ready_or_paused(tx, who.kind, who.id, queue)
    waits = state == "scheduled"
    expires_at = None if new.cron else until(tx.now, run_at, new.deadline)
    fairness_key = new.client if new.fairness_key is None else new.fairness_key
    columns: dict[str, Any] = {
        "id": task_id,
        "tool": new.tool,
        "state": state,
        "principal_kind": who.kind,
        "principal_id": who.id,
        "principal_name": who.name,
        "client": new.client,
        "queue": queue,
        "priority": new.priority,
        "delivery": new.delivery,
        "repeatable": new.repeatable,
        "timeout": new.timeout,
        "max_attempts": 1 if new.delivery == "at_most_once" else new.max_attempts,
        "tags": json.dumps(new.tags) if new.tags else "[]",
        "idempotency_key": new.idempotency_key,
        "digest": digests[0],
        "reason": reason if waits else "",
        "created_at": tx.now,
        "updated_at": tx.now,
        "run_at": run_at if waits else None,
        "cron": new.cron,
        "timezone": new.timezone,
        "fairness_key": fairness_key,
        "size": size,
        "retry": retry_text(new.retry),
        "deadline": new.deadline,
        "expires_at": expires_at,
        "events": 1,
    }
    if state == "ready":
        columns["lane"] = lane = tx.ledger.lanes.of(queue, new.tool)
        flow = Flow(lane, new.priority, who.kind, who.id, fairness_key)
        columns["turn"] = tx.ledger.turns.join(tx.connection, tx.undo, flow)
        columns["ready_at"] = tx.steady
    seq = tx.execute(_insert(tuple(columns)), tuple(columns.values())).lastrowid
    assert seq is not None
    tx.execute("INSERT INTO payload (seq, arguments) VALUES (?, ?)", (seq, arguments))
    detail = f"spilled from {spilled_from}, which was full" if spilled_from else ""
    add_event(tx, seq, 1, "submitted", state, 0, detail)
    tx.ledger.loads.add(tx.undo, queue, size)
    if new.tags and state == "ready":
        add_tags(tx, seq)
    offered = offer(state, who.kind, who.id, queue, new.tool, columns["tags"])
    whose = Whose(who.kind, who.id, queue)
    timed = expires_at is not None
    tx.note(task_id, None, state, whose=whose, offered=offered, timed=timed)
    return Submitted("created", task_id, state, columns["run_at"], queue, spilled_from)


@cache
def _insert(columns: tuple[str, ...]) -> str:
    """Return the statement that adds a task; there are two of them."""
    return f"INSERT INTO task ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def claim(
    tx: Transaction, leases: Leases, owner: str, limit: int, lease: float, worker: Worker | None
) -> list[Task]:
    """Start the best ready tasks. What it costs does not depend on how many there are."""
    tasks: list[Task] = []
    within = everything(tx) if worker is None else list(ranges(tx, worker))
    while chosen := best(tx, within, limit - len(tasks)):
        started = _start(tx, leases, chosen, owner, lease, worker)
        tasks += started
        if len(started) == len(chosen):
            break
        # Some had no time left, or could not be read; others may wait behind them.
    if tx.ledger.lanes.limited:
        for lane in {lane for lane, *_ in within}:
            tx.ledger.lanes.wait_for(tx.undo, lane, tx.steady)
    return tasks


def _start(
    tx: Transaction,
    leases: Leases,
    chosen: Sequence[Ready],
    owner: str,
    lease: float,
    worker: Worker | None,
) -> list[Task]:
    """Start tasks; return those that could be."""
    place = {ready.seq: n for n, ready in enumerate(chosen)}
    rows = tx.execute(
        "UPDATE task SET state = 'running', owner = ?, lease_until = ?, fence = fence + 1,"
        " attempts = attempts + 1, started_at = ?, updated_at = ?, reason = '', run_at = NULL,"
        " progress_done = NULL, progress_total = NULL, progress_message = NULL, progress_at = NULL,"
        f" events = events + 1, worker = ? WHERE seq IN ({', '.join('?' * len(place))})"
        f" AND +state = 'ready' RETURNING {COLUMNS}",
        (
            owner,
            tx.now + lease,
            tx.now,
            tx.now,
            BUILT_IN if worker is None else worker.name,
            *place,
        ),
    ).fetchall()
    if len(rows) < len(place):
        _forget_tags(tx, place.keys() - {row[SEQ] for row in rows})
    # RETURNING promises no order.
    rows.sort(key=lambda row: place[row[SEQ]])
    tasks = []
    arguments = _arguments(tx, [row[SEQ] for row in rows])
    for row in rows:
        seq = row[SEQ]
        whose = Whose(row[PRINCIPAL_KIND], row[PRINCIPAL_ID], row[QUEUE])
        tx.note(row[ID], "ready", "running", whose=whose)
        _taken(tx, row, worker)
        if row[EXPIRES_AT] is not None and row[EXPIRES_AT] <= tx.now:
            (late,) = select(tx, "seq = ?", (seq,))
            bury_expired(tx, late, attempts=late.attempts - 1)
            continue
        try:
            task = task_from(row, arguments=arguments[seq], strict=True)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            # The others of the batch are none the worse for it.
            _bury_unreadable(tx, seq, error)
            continue
        add_event(tx, seq, row[EVENTS], "started", "running", task.attempts, f"by {owner}")
        leases.grant(tx.undo, seq, tx.monotonic + lease)
        tx.ledger.lanes.start(tx.connection, tx.undo, row[LANE], tx.steady)
        tx.waits.append(tx.steady - row[READY_AT])
        tasks.append(task)
    return tasks


def _arguments(tx: Transaction, seqs: Sequence[int]) -> dict[int, str]:
    """Read the JSON of what tasks are to be called with, as far as it is there."""
    places = ", ".join("?" * len(seqs))
    found = tx.execute(f"SELECT seq, arguments FROM payload WHERE seq IN ({places})", seqs)
    return dict(found.fetchall())


def _forget_tags(tx: Transaction, seqs: Iterable[int]) -> None:
    """Find tasks by their tags no more that are not ready: damage to the tags hid what to forget.

    It reads all that are found by tags; but there is no damage, almost always.
    """
    tx.executemany("DELETE FROM ready_tag WHERE seq = ?", [(seq,) for seq in seqs])


def _bury_unreadable(tx: Transaction, seq: int, error: Exception) -> None:
    (row,) = select(tx, "seq = ?", (seq,))
    reason = shorten(f"what is stored of it cannot be read: {type(error).__name__}: {error}")
    text = error_text({"code": "unreadable", "message": reason, "retryable": False})
    tx.execute("UPDATE payload SET error = ? WHERE seq = ?", (text, seq))
    move(tx, row, "dead", "dead", reason, reason=reason, attempts=row.attempts - 1)


def _taken(tx: Transaction, row: Sequence[Any], worker: Worker | None) -> None:
    turns = tx.ledger.turns
    tx.ledger.loads.remove(tx.undo, row[QUEUE], row[SIZE])
    tx.ledger.lanes.take(tx.undo, row[LANE])
    lane, priority, turn = row[LANE], row[PRIORITY], row[TURN]
    turns.leave(
        tx.undo, Flow(lane, priority, row[PRINCIPAL_KIND], row[PRINCIPAL_ID], row[FAIRNESS_KEY])
    )
    if worker is not None:
        # It may have passed tasks over whose turn was earlier.
        waiting = lowest(tx, lane, priority)
        turn = turn if waiting is None or waiting >= turn else waiting - 1
    turns.served(tx.undo, lane, priority, turn)


def renew(
    tx: Transaction, leases: Leases, renewals: Iterable[Renewal], lease: float
) -> list[Recorded]:
    """Prolong the leases of attempts that still own their tasks."""
    answers = []
    for renewal in renewals:
        row, answer = _owned(tx, renewal.task_id, renewal.fence)
        if row is not None:
            tx.execute("UPDATE task SET lease_until = ? WHERE seq = ?", (tx.now + lease, row.seq))
            leases.grant(tx.undo, row.seq, tx.monotonic + lease)
        answers.append(answer)
    return answers


def note(tx: Transaction, notes: Iterable[Note], most: int) -> list[Recorded]:
    """Store what attempts have said that still own their tasks.

    :param most: log lines that are kept of a task.
    """
    answers = []
    for said in notes:
        row, answer = _owned(tx, said.task_id, said.fence)
        if row is not None:
            noting.keep(tx, row, said, most)
        answers.append(answer)
    return answers


def _owned(tx: Transaction, task_id: str, fence: int) -> tuple[Row | None, Recorded]:
    """Find the task if the attempt with this fence still owns it; else say how the task is."""
    rows = select(tx, "id = ?", (task_id,))
    if not rows:
        return None, Recorded(False, None)
    (row,) = rows
    if row.state != "running" or row.fence != fence:
        return None, Recorded(False, row.state)
    return row, Recorded(True, row.state)


def complete(
    tx: Transaction, leases: Leases, task_id: str, fence: int, result: str | Blob
) -> Recorded:
    """Record a success, with the JSON of the result, unless the task was to be cancelled."""
    seq = succeed(tx, task_id, fence)
    if seq is None:
        row, answer = _owned(tx, task_id, fence)
        if row is None:
            return answer
        leases.end(tx.undo, row.seq)
        late = "the tool had finished when the cancelling reached it"
        keep(tx, row, "cancelled", error_text({"code": "cancelled", "message": late}))
        return cancel_now(tx, row, late)
    leases.end(tx.undo, seq)
    if isinstance(result, Blob):
        tx.execute(
            "UPDATE payload SET blob = ?, blob_size = ?, error = NULL WHERE seq = ?",
            (*result, seq),
        )
    else:
        tx.execute("UPDATE payload SET result = ?, error = NULL WHERE seq = ?", (result, seq))
    return Recorded(True, "succeeded")


def fail(
    tx: Transaction,
    leases: Leases,
    task_id: str,
    fence: int,
    message: str,
    error: str,
    verdict: Verdict,
    retry_in: float,
) -> Recorded:
    """Record a failed attempt, with the JSON of the error, unless the task was to be cancelled."""
    row, answer = _owned(tx, task_id, fence)
    if row is None:
        return answer
    leases.end(tx.undo, row.seq)
    tx.execute("UPDATE payload SET error = ? WHERE seq = ?", (error, row.seq))
    keep(tx, row, "cancelled" if row.cancelling else "failed", error)
    if row.cancelling:
        return cancel_now(tx, row, message)
    if verdict == "retry" and row.delivery == "at_most_once":
        verdict = "dead"
        message += "; it is started at most once"
    if verdict == "retry" and no_time_for_another(row, tx.now + retry_in):
        verdict = "dead"
        message += f"; its deadline of {row.deadline:g} s leaves no time for another attempt"
    state: TaskState = "scheduled" if verdict == "retry" else verdict
    move(
        tx,
        row,
        state,
        verdict if verdict != "retry" else "will_retry",
        message,
        reason=shorten(message),
        run_at=tx.now + retry_in,
        releases=0,
    )
    return Recorded(True, state)


def release(
    tx: Transaction, leases: Leases, task_id: str, fence: int, reason: str, retry_in: float
) -> Recorded:
    """Give a task back that was not started."""
    row, answer = _owned(tx, task_id, fence)
    if row is None:
        return answer
    leases.end(tx.undo, row.seq)
    if row.cancelling:
        return cancel_now(tx, row, "")
    state = move(
        tx,
        row,
        "scheduled" if retry_in > 0 else "ready",
        "released",
        reason,
        goes_first=True,
        reason=shorten(reason),
        run_at=tx.now + retry_in if retry_in > 0 else None,
        attempts=row.attempts - 1,
        releases=row.releases + 1,
    )
    return Recorded(True, state)


def interrupt(
    tx: Transaction, leases: Leases, task_id: str, fence: int, reason: str, count_attempt: bool
) -> Recorded:
    """Record that an attempt was cut off."""
    row, answer = _owned(tx, task_id, fence)
    if row is None:
        return answer
    state = cut_off(tx, leases, row, reason, row.attempts - (0 if count_attempt else 1))
    return Recorded(True, state)
