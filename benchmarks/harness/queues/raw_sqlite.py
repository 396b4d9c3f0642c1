"""The least that a durable submit can cost: an INSERT and a COMMIT with an fsync, on one thread.

Variants: ``row``, one row into the table of mcpd's tasks, with its columns and indexes; ``rows``,
every row that mcpd writes for a task; ``bare``, one row into a table of a few columns.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any

from mcpd_core import Principal
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore

from .contestant import PAYLOAD, Queue, main

_BARE = (
    """
    CREATE TABLE task (
        id INTEGER PRIMARY KEY, queue TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0,
        prio INTEGER NOT NULL DEFAULT 0, run_at REAL, payload BLOB, lease_until REAL, worker TEXT,
        fence INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, idem TEXT,
        result BLOB, created REAL, finished REAL)
    """,
    "CREATE INDEX ix_ready ON task (queue, prio DESC, id) WHERE state = 0",
    "CREATE INDEX ix_delay ON task (run_at) WHERE state = 1",
    "CREATE INDEX ix_lease ON task (lease_until) WHERE state = 2",
    "CREATE UNIQUE INDEX ix_idem ON task (queue, idem) WHERE idem IS NOT NULL",
)

Row = dict[str, Any]


class RawSQLite(Queue):
    """One connection with ``synchronous = FULL`` in WAL mode; one caller."""

    def submit(self, count: int, callers: int) -> float:
        if callers != 1:
            raise ValueError("raw SQLite has one caller")
        database = Path(self.where) / "raw.db"
        model = {} if self.variant == "bare" else _model(database)
        connection = sqlite3.connect(database, isolation_level=None, cached_statements=256)
        execute = connection.execute
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -16384"):
            execute(f"PRAGMA {pragma}")
        arguments = json.dumps(PAYLOAD)
        if not model:
            for statement in _BARE:
                execute(statement)
            model = {"task": {"queue": "q", "payload": arguments, "created": time.time()}}
        elif self.variant == "row":
            # The arguments have a table of their own; without them the row would be a small one.
            model = {"task": {**model["task"], "reason": arguments}}
        inserts = {table: _insert(table, row) for table, row in model.items()}
        begun = time.perf_counter()
        for seq in range(10, 10 + count):
            execute("BEGIN IMMEDIATE")
            for table, row in model.items():
                if "seq" in row:
                    row["seq"] = seq
                if table == "task" and "id" in row:
                    row["id"] = secrets.token_hex(16)
                execute(inserts[table], tuple(row.values()))
            execute("COMMIT")
        return time.perf_counter() - begun

    def drain(self, count: int, workers: int) -> float:
        raise NotImplementedError("raw SQLite is only submitted to")

    def start(self, count: int, workers: int) -> list[float]:
        raise NotImplementedError("raw SQLite is only submitted to")


def _model(database: Path) -> dict[str, Row]:
    """Have mcpd make the tables; return what it writes into each for one task."""
    store = SQLiteTaskStore(database)
    store.submit([NewTask("nothing", PAYLOAD, Principal("local", "0"))]).result()
    store.close().result()
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    tables = ("task", "payload", "event")
    model = {
        table: dict(connection.execute(f"SELECT * FROM {table}").fetchone()) for table in tables
    }
    connection.close()
    return model


def _insert(table: str, row: Row) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"


if __name__ == "__main__":
    main(RawSQLite)
