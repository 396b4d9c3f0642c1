"""The registered workers, and which tasks each of them takes."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from mcpd_core import Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import Worker

from .worker import Transaction

_COLUMNS = (
    "name, principal_kind, principal_id, principal_name, queues, capabilities, slots, registered_at"
)

_OF = "principal_kind = ? AND principal_id = ? AND queue = ?"
_BEST = "ORDER BY priority DESC, seq LIMIT ?"
#: The best ready tasks of a queue; those of one tool; those with one tag.
_ANY = (
    "SELECT -priority, seq FROM task INDEXED BY task_counted"
    f" WHERE {_OF} AND state = 'ready' {_BEST}"
)
_BY_TOOL = (
    "SELECT -priority, seq FROM task INDEXED BY task_ready_tool"
    f" WHERE {_OF} AND tool = ? AND state = 'ready' {_BEST}"
)
_BY_TAG = f"SELECT -priority, seq FROM ready_tag WHERE {_OF} AND tag = ? {_BEST}"


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
    """Return the places of the best ready tasks that a worker takes, best first.

    What it costs depends on what the worker names, and not on what waits: each pair of a queue and
    a capability is one range of an index, of which ``limit`` entries are read at most.
    """
    found: set[tuple[int, int]] = set()
    for queue in worker.queues:
        of = (worker.principal.kind, worker.principal.id, queue)
        if not worker.capabilities:
            found.update(tx.execute(_ANY, (*of, limit)))
        for word in worker.capabilities:
            found.update(tx.execute(_BY_TOOL, (*of, word, limit)))
            found.update(tx.execute(_BY_TAG, (*of, word, limit)))
    return [seq for _, seq in sorted(found)[:limit]]
