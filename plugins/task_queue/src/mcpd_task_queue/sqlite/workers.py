"""The registered workers, and which tasks each of them takes."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from mcpd_core import Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import Worker

from .worker import Transaction

#: How far into a queue a worker with capabilities looks for tasks that it takes. What it does not
#: reach is left to the built-in worker.
FARTHEST = 1_000

_COLUMNS = (
    "name, principal_kind, principal_id, principal_name, queues, capabilities, slots, registered_at"
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


def suitable(tx: Transaction, worker: Worker, limit: int) -> list[int]:
    """Return the places of the best ready tasks that a worker takes, best first."""
    ready = (
        "SELECT {columns} FROM task INDEXED BY task_counted WHERE principal_kind = ?"
        " AND principal_id = ? AND queue = ? AND state = 'ready' ORDER BY priority DESC, seq"
        " LIMIT ?"
    )
    query, reach = ready.format(columns="priority, seq"), limit
    extra: tuple[object, ...] = ()
    if worker.capabilities:
        marks = ", ".join("?" * len(worker.capabilities))
        query = (
            f"SELECT priority, seq FROM ({ready.format(columns='priority, seq, tool, tags')})"
            f" WHERE tool IN ({marks}) OR EXISTS"
            f" (SELECT 1 FROM json_each(tags) WHERE value IN ({marks}))"
            " ORDER BY priority DESC, seq LIMIT ?"
        )
        extra, reach = (*worker.capabilities, *worker.capabilities, limit), FARTHEST
    found: list[tuple[int, int]] = []
    for queue in worker.queues:
        parameters = (worker.principal.kind, worker.principal.id, queue, reach, *extra)
        found += [(-priority, seq) for priority, seq in tx.execute(query, parameters)]
    return [seq for _, seq in sorted(found)[:limit]]
