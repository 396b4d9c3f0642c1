"""The registered workers, and which tasks each of them takes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from mcpd_core import Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import Worker

from .lanes import OPEN
from .order import Range
from .transaction import Transaction

_COLUMNS = (
    "name, principal_kind, principal_id, principal_name, queues, capabilities, slots, registered_at"
)

_OF = "principal_kind = ? AND principal_id = ? AND queue = ?"
#: The ready tasks of a queue; those of one tool; those with one tag, in one lane.
_IN_QUEUE = f"FROM task INDEXED BY task_of_queue WHERE {_OF} AND state = 'ready'"
_BY_TOOL = f"{_IN_QUEUE} AND tool = ?"
_TAGGED = f"FROM ready_tag WHERE {_OF} AND tag = ?"
_BY_TAG = f"{_TAGGED} AND lane = ?"
#: The tools of which a queue has ready tasks, one look-up for each.
_TOOLS = (
    "WITH RECURSIVE found (tool) AS ("
    f" SELECT min(tool) {_IN_QUEUE}"
    f" UNION ALL SELECT (SELECT min(tool) {_IN_QUEUE} AND tool > found.tool)"
    " FROM found WHERE found.tool IS NOT NULL"
    ") SELECT tool FROM found WHERE tool IS NOT NULL"
)
#: The lanes that have ready tasks with a tag of a queue, likewise.
_LANES = (
    "WITH RECURSIVE found (lane) AS ("
    f" SELECT min(lane) {_TAGGED}"
    f" UNION ALL SELECT (SELECT min(lane) {_TAGGED} AND lane > found.lane)"
    " FROM found WHERE found.lane IS NOT NULL"
    ") SELECT lane FROM found WHERE lane IS NOT NULL"
)


def register(tx: Transaction, worker: Worker, most_slots: int) -> Worker:
    """Keep a worker, in place of one of the same name.

    :raises TaskRefused: when all workers together would have too many slots.
    """
    who = (worker.principal.kind, worker.principal.id, worker.name)
    (others,) = tx.execute(
        "SELECT coalesce(sum(slots), 0) FROM worker WHERE (principal_kind, principal_id, name)"
        " <> (?, ?, ?)",
        who,
    ).fetchone()
    if others + worker.slots > most_slots:
        raise TaskRefused(
            f"The worker {worker.name!r} cannot have {worker.slots} slots: registered workers may "
            f"have {most_slots} together, and {others} are taken.",
            hint="Ask for fewer, unregister another worker, or have the owner of this server raise "
            "`registered_slots` of [task_queue].",
        )
    found = tx.execute(
        "SELECT registered_at FROM worker WHERE principal_kind = ? AND principal_id = ?"
        " AND name = ?",
        who,
    ).fetchone()
    at = tx.now if found is None else found[0]
    tx.execute(
        f"INSERT OR REPLACE INTO worker ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            worker.name,
            worker.principal.kind,
            worker.principal.id,
            worker.principal.name,
            json.dumps(worker.queues),
            json.dumps(worker.capabilities),
            worker.slots,
            at,
        ),
    )
    return Worker(
        worker.name, worker.principal, worker.queues, worker.capabilities, worker.slots, at
    )


def unregister(tx: Transaction, principal: Principal, name: str) -> Worker | None:
    """Forget a worker."""
    rows = tx.execute(
        "DELETE FROM worker WHERE principal_kind = ? AND principal_id = ? AND name = ?"
        f" RETURNING {_COLUMNS}",
        (principal.kind, principal.id, name),
    ).fetchall()
    return _worker(rows[0]) if rows else None


def read(connection: sqlite3.Connection) -> list[Worker]:
    """Return the workers of everybody."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM worker ORDER BY registered_at, name")
    return [_worker(row) for row in rows]


def _worker(row: tuple[Any, ...]) -> Worker:
    name, kind, id_, principal_name, queues, capabilities, slots, at = row
    principal = Principal(kind, id_, principal_name)
    return Worker(
        name, principal, tuple(json.loads(queues)), tuple(json.loads(capabilities)), slots, at
    )


def ranges(tx: Transaction, worker: Worker) -> Iterator[Range]:
    """Say where the ready tasks are that a worker takes.

    What it costs depends on what the worker names, and not on what waits: each pair of a queue and
    a tool, or a tag, is one range of an index.
    """
    for queue in worker.queues:
        of = (worker.principal.kind, worker.principal.id, queue)
        tools = worker.capabilities or [tool for (tool,) in tx.execute(_TOOLS, of * 2)]
        for tool in tools:
            yield Range(tx.ledger.lanes.of(queue, tool), _BY_TOOL, (*of, tool))
        for tag in worker.capabilities:
            lanes = [OPEN]
            if tx.ledger.lanes.limited:
                lanes = [lane for (lane,) in tx.execute(_LANES, (*of, tag) * 2)]
            for lane in lanes:
                yield Range(lane, _BY_TAG, (*of, tag, lane))
