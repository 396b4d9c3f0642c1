"""How a task gets from one state into another. Claims apart, which move many at once, this is the
one place that writes states and events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from mcpd_task_queue.records import FINAL, WAITING, Offered, Recorded, TaskState, Whose

from .rows import shorten
from .transaction import Transaction
from .turns import Flow
from .undo import UndoLog

#: Of a task with a longer life, this many first and this many latest events are kept.
FIRST_EVENTS, LATEST_EVENTS = 20, 180


class Leases:
    """When the leases that this process granted run out, on a clock that nobody can set.

    The file has wall-clock times, for leases of other processes; setting the clock must neither
    expire nor immortalise our own. Used on the writer's thread only.
    """

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def grant(self, undo: UndoLog, seq: int, until: float) -> None:
        undo.put(self._until, seq, until)

    def end(self, undo: UndoLog, seq: int) -> None:
        if seq in self._until:
            undo.drop(self._until, seq)

    def ours(self, seq: int) -> bool:
        return seq in self._until

    def expired(self, monotonic: float) -> list[int]:
        return [seq for seq, until in self._until.items() if until < monotonic]


class Row(NamedTuple):
    """What a decision about one task needs to know."""

    seq: int
    id: str
    state: TaskState
    tool: str
    fence: int
    delivery: str
    repeatable: int
    cancelling: int
    attempts: int
    max_attempts: int
    releases: int
    events: int
    priority: int
    principal_kind: str
    principal_id: str
    queue: str
    cron: str | None
    timezone: str | None
    run_at: float | None
    tags: str
    fairness_key: str
    lane: str
    turn: int
    ready_at: float
    size: int
    reason: str
    started_at: float | None
    worker: str | None
    deadline: float | None
    expires_at: float | None


_COLUMNS = ", ".join(Row._fields)


def select(
    tx: Transaction, where: str, parameters: Sequence[Any], *, index: str | None = None
) -> list[Row]:
    """Find tasks by an SQL condition.

    :param index: by which, where SQLite might choose one that has more to read.
    """
    source = "task" if index is None else f"task INDEXED BY {index}"
    rows = tx.execute(f"SELECT {_COLUMNS} FROM {source} WHERE {where}", parameters).fetchall()
    return [Row(*row) for row in rows]


def move(
    tx: Transaction,
    row: Row,
    state: TaskState,
    kind: str,
    detail: str = "",
    *,
    goes_first: bool = False,
    **columns: Any,
) -> TaskState:
    """Bring a task into a state (perhaps the one it is in), and write the event down.

    :param goes_first: it has made no use of its turn; if it is ready again, it is next.
    :returns: the state; ``paused`` where it would be ``ready`` if its queue went on.
    """
    if state == "ready":
        state = ready_or_paused(tx, row.principal_kind, row.principal_id, row.queue)
    if row.state == "ready":
        leave(tx, row)
    if state == "ready":
        columns |= place(tx, row, columns.get("priority", row.priority), goes_first)
    columns["state"] = state
    columns["updated_at"] = tx.now
    columns["events"] = row.events + 1
    if (row.state in WAITING) != (state in WAITING):
        loads = tx.ledger.loads
        count = loads.add if state in WAITING else loads.remove
        count(tx.undo, row.queue, row.size)
    opens = False
    if row.state == "running" and state != "running":
        opens = tx.ledger.lanes.stop(tx.undo, row.queue, row.tool)
        columns["owner"] = columns["lease_until"] = None
    if state in FINAL:
        columns["finished_at"] = tx.now
        columns["run_at"] = None
    attempts = columns.get("attempts", row.attempts)
    tx.execute(_update(tuple(columns)), (*columns.values(), row.seq))
    add_event(tx, row.seq, row.events + 1, kind, state, attempts, detail)
    who = (row.principal_kind, row.principal_id)
    tx.note(
        row.id,
        row.state,
        state,
        whose=Whose(*who, row.queue),
        cancelling=bool(columns.get("cancelling")),
        offered=offer(state, *who, row.queue, row.tool, row.tags),
        timed=state in WAITING and columns.get("expires_at", row.expires_at) is not None,
        opens=opens,
    )
    return state


def succeed(tx: Transaction, task_id: str, fence: int) -> int | None:
    """End a task as succeeded if the attempt with this fence still owns it and may.

    It does what `move` would do, in one statement instead of two: this is how almost every task
    ends.

    :returns: its number; ``None`` when it is not that attempt's, or is to be cancelled.
    """
    rows = tx.execute(_SUCCEED, (tx.now, tx.now, task_id, fence)).fetchall()
    if not rows:
        return None
    seq, attempts, events, kind, id_, queue, tool = rows[0]
    opens = tx.ledger.lanes.stop(tx.undo, queue, tool)
    add_event(tx, seq, events, "succeeded", "succeeded", attempts, "")
    whose = Whose(kind, id_, queue)
    tx.note(task_id, "running", "succeeded", whose=whose, opens=opens)
    return int(seq)


_SUCCEED = (
    "UPDATE task SET state = 'succeeded', reason = '', releases = 0, updated_at = ?,"
    " finished_at = ?, run_at = NULL, owner = NULL, lease_until = NULL, events = events + 1"
    " WHERE id = ? AND fence = ? AND state = 'running' AND cancelling = 0"
    " RETURNING seq, attempts, events, principal_kind, principal_id, queue, tool"
)


@cache
def _update(columns: tuple[str, ...]) -> str:
    """Return the statement that sets columns; there are a dozen of them."""
    return f"UPDATE task SET {', '.join(f'{name} = ?' for name in columns)} WHERE seq = ?"


def leave(tx: Transaction, row: Row) -> None:
    """Take note that a task is not ready any more, though it is not started."""
    flow = Flow(row.lane, row.priority, row.principal_kind, row.principal_id, row.fairness_key)
    tx.ledger.turns.leave(tx.undo, flow)


def place(tx: Transaction, row: Row, priority: int, goes_first: bool = False) -> dict[str, Any]:
    """Return the columns by which a task that becomes ready is found when it is its turn."""
    lane = tx.ledger.lanes.of(row.queue, row.tool)
    flow = Flow(lane, priority, row.principal_kind, row.principal_id, row.fairness_key)
    before = row.turn if goes_first else None
    return {
        "lane": flow.lane,
        "turn": tx.ledger.turns.join(tx.connection, tx.undo, flow, before),
        # Another priority is no other wait.
        "ready_at": row.ready_at if row.state == "ready" else tx.steady,
    }


def offer(
    state: TaskState, kind: str, id_: str, queue: str, tool: str, tags: str
) -> Offered | None:
    """Return what workers choose a task by, if it waits for one.

    :param tags: as JSON.
    """
    if state != "ready":
        return None
    # Most have none, and reading that takes as long as storing a row.
    if tags == "[]":
        return Offered(kind, id_, queue, (tool,))
    try:
        words = (tool, *json.loads(tags))
    except (ValueError, TypeError):
        # Found to be unreadable when it is claimed. A sweep must not fail for one of thousands.
        words = (tool,)
    return Offered(kind, id_, queue, words)


def ready_or_paused(tx: Transaction, kind: str, id_: str, queue: str) -> TaskState:
    """Return the state of a task that nothing but perhaps a pause keeps from running."""
    return "paused" if Whose(kind, id_, queue) in tx.ledger.paused else "ready"


def add_tags(tx: Transaction, seq: int) -> None:
    """Let workers find a new task that is ready by its tags."""
    tx.execute(
        "INSERT OR IGNORE INTO ready_tag"
        " SELECT principal_kind, principal_id, queue, value, lane, priority, turn, ready_at, seq"
        " FROM task, json_each(task.tags) WHERE seq = ?",
        (seq,),
    )


def add_event(
    tx: Transaction, seq: int, n: int, kind: str, state: TaskState, attempt: int, detail: str
) -> None:
    """Write down what happened to a task; of a long life the middle is dropped."""
    tx.execute(
        "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)",
        (seq, n, tx.now, kind, state, attempt, shorten(detail)),
    )
    if n > FIRST_EVENTS + LATEST_EVENTS:
        tx.execute("DELETE FROM event WHERE seq = ? AND n = ?", (seq, n - LATEST_EVENTS))


def cancel_now(tx: Transaction, row: Row, detail: str) -> Recorded:
    """End a task as cancelled."""
    move(tx, row, "cancelled", "cancelled", detail, reason=shorten(detail), cancelling=0)
    return Recorded(True, "cancelled")
