"""A database that an earlier version of the plugin made becomes one of this version, with all that
is in it. The tables of the first version are written down here as they were."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.records import Filter, NewTask, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore, schema

OpenStore = Callable[..., SQLiteTaskStore]
ME = Principal("local", "1000", "ada")

DIGEST = "450326c0c42f4347ac8d95aa40c620bdb337bc4ac27b0653d69a054f643c5580"

VERSION_1 = (
    """
    CREATE TABLE task (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        tool TEXT NOT NULL,
        state TEXT NOT NULL,
        principal_kind TEXT NOT NULL,
        principal_id TEXT NOT NULL,
        principal_name TEXT NOT NULL,
        client TEXT NOT NULL,
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        delivery TEXT NOT NULL,
        repeatable INTEGER NOT NULL,
        timeout REAL,
        max_attempts INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        fence INTEGER NOT NULL DEFAULT 0,
        tags TEXT NOT NULL,
        idempotency_key TEXT,
        digest BLOB NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        run_at REAL,
        started_at REAL,
        finished_at REAL,
        progress_done REAL,
        progress_total REAL,
        progress_message TEXT,
        cancelling INTEGER NOT NULL DEFAULT 0,
        releases INTEGER NOT NULL DEFAULT 0,
        owner TEXT,
        lease_until REAL,
        events INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    "CREATE INDEX task_ready ON task (priority DESC, seq) WHERE state = 'ready'",
    "CREATE INDEX task_due ON task (run_at) WHERE state = 'scheduled'",
    "CREATE INDEX task_leased ON task (lease_until) WHERE state = 'running'",
    "CREATE INDEX task_settled ON task (finished_at) WHERE finished_at IS NOT NULL",
    "CREATE INDEX task_of ON task (principal_kind, principal_id)",
    "CREATE INDEX task_counted ON task (principal_kind, principal_id, queue, state)",
    """
    CREATE UNIQUE INDEX task_key ON task (principal_kind, principal_id, idempotency_key)
        WHERE idempotency_key IS NOT NULL
    """,
    """
    CREATE TABLE payload (
        seq INTEGER PRIMARY KEY,
        arguments TEXT NOT NULL,
        result TEXT,
        error TEXT
    ) STRICT
    """,
    """
    CREATE TABLE event (
        seq INTEGER NOT NULL,
        n INTEGER NOT NULL,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (seq, n)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of version 1 with a ready, a scheduled, a running and a succeeded task."""
    path = tmp_path / "tasks.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in VERSION_1:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('instance', 'the-same-as-ever')")
    connection.execute("PRAGMA application_id = 0x6D635451")
    connection.execute("PRAGMA user_version = 1")
    tasks: list[tuple[str, str, dict[str, Any]]] = [
        ("a" * 32, "ready", {"idempotency_key": "k"}),
        ("b" * 32, "scheduled", {"run_at": 1_700_000_010.0}),
        ("c" * 32, "running", {"owner": "dead:1", "lease_until": 1.0, "repeatable": 1}),
        ("d" * 32, "succeeded", {"finished_at": 1_700_000_000.0, "attempts": 1}),
    ]
    for seq, (id_, state, extra) in enumerate(tasks, start=1):
        columns: dict[str, Any] = {
            "seq": seq,
            "id": id_,
            "tool": "add",
            "state": state,
            "principal_kind": "local",
            "principal_id": "1000",
            "principal_name": "ada",
            "client": "c",
            "queue": "default",
            "priority": seq,
            "delivery": "at_least_once",
            "repeatable": 0,
            "max_attempts": 3,
            "tags": json.dumps(["old"]),
            # Of the tool and the arguments, as the first version made it.
            "digest": bytes.fromhex(DIGEST),
            "created_at": 1_600_000_000.0,
            "updated_at": 1_600_000_000.0,
            **extra,
        }
        marks = ", ".join("?" * len(columns))
        connection.execute(
            f"INSERT INTO task ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values())
        )
        result = '{"text":"3","structured":null}' if state == "succeeded" else None
        connection.execute("INSERT INTO payload VALUES (?, '{\"a\":1}', ?, NULL)", (seq, result))
    connection.commit()
    connection.close()
    return path


def test_what_the_first_version_kept_is_there_and_goes_on(old: Path, open_store: OpenStore) -> None:
    store = open_store()
    assert store.instance == "the-same-as-ever"
    assert store.recover("new:1").result().readied == 1
    tasks = store.find(ME, Filter(tag="old")).result().tasks
    assert [(task.id[0], task.state, task.cron, task.worker) for task in tasks] == [
        ("d", "succeeded", None, None),
        ("c", "ready", None, None),
        ("b", "scheduled", None, None),
        ("a", "ready", None, None),
    ]
    done = store.get(ME, "d" * 32, payload=True).result()
    assert done is not None
    assert done.task.result == CallResult("3")
    claimed = store.claim("new:1", 5, 30).result()
    assert [task.id[0] for task in claimed] == ["a", "c"]
    assert claimed[0].arguments == {"a": 1}


def test_keys_of_before_still_belong_to_their_tasks(old: Path, open_store: OpenStore) -> None:
    store = open_store()
    again, other = store.submit(
        [
            NewTask("add", {"a": 1}, ME, idempotency_key="k"),
            NewTask("add", {"a": 1}, ME, idempotency_key="k", cron="* * * * *"),
        ]
    ).result()
    assert (again.outcome, again.task_id[0]) == ("existing", "a")
    assert other.outcome == "rejected"


def test_what_is_new_works_in_an_old_database(old: Path, open_store: OpenStore, clock: Any) -> None:
    store = open_store()
    assert store.pause(ME, "default", "").result().tasks == 1
    assert store.register(Worker("w", ME, ("default",)), 10).result().slots == 5
    (made,) = store.submit([NewTask("add", {}, ME, cron="* * * * *", queue="q")]).result()
    clock.advance(60)
    # The delayed one, the one whose worker is gone, and the firing.
    assert store.sweep().result().readied == 3
    (child,) = store.find(ME, Filter(schedule_id=made.task_id)).result().tasks
    assert (child.state, child.tool) == ("ready", "add")


def test_a_worker_finds_what_waited_in_an_old_database(old: Path, open_store: OpenStore) -> None:
    store = open_store()
    worker = Worker("w", ME, ("default",), ("old",))
    assert [task.id[0] for task in store.claim("new:1", 9, 30, worker).result()] == ["a"]


def test_a_migrated_database_is_like_a_new_one(old: Path, open_store: OpenStore) -> None:
    def tables(path: Path) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(path)
        try:
            assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return connection.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
            ).fetchall()
        finally:
            connection.close()

    for name in ("tasks.db", "new.db"):
        open_store(name).close().result(10)
    assert tables(old) == tables(old.with_name("new.db"))


# --- every state, from every format ---------------------------------------------------------------

#: When what is stored was stored, and ended, and when what is scheduled is due (see `Clock`).
THEN, ENDED, DUE = 1_600_000_000.0, 1_699_999_990.0, 1_700_000_010.0
RESULT = '{"text":"3","structured":{"sum":3}}'
ERROR = '{"code":"tool_failed","message":"No."}'

#: By name: the state, further columns, and what is in its payload; all that format 1 knows.
ROWS: dict[str, tuple[str, dict[str, Any], tuple[str | None, str | None]]] = {
    "ready": ("ready", {}, (None, None)),
    "failed once": ("ready", {"attempts": 1, "fence": 1, "reason": "No."}, (None, ERROR)),
    "delayed": ("scheduled", {"run_at": DUE}, (None, None)),
    "to be retried": ("scheduled", {"run_at": DUE, "attempts": 1, "fence": 1}, (None, ERROR)),
    "given back": ("scheduled", {"run_at": DUE + 9e6, "releases": 2, "fence": 2}, (None, None)),
    "running": ("running", {"repeatable": 1}, (None, None)),
    "running once": ("running", {"delivery": "at_most_once", "max_attempts": 1}, (None, None)),
    "being cancelled": ("running", {"cancelling": 1}, (None, None)),
    "succeeded": ("succeeded", {"finished_at": ENDED, "attempts": 1}, (RESULT, None)),
    "failed": ("failed", {"finished_at": ENDED, "attempts": 1}, (None, ERROR)),
    "cancelled": ("cancelled", {"finished_at": ENDED}, (None, None)),
    "dead": ("dead", {"finished_at": ENDED, "attempts": 3}, (None, ERROR)),
    "uncertain": ("uncertain", {"attempts": 1}, (None, None)),
}
#: What came with format 2.
LATER_ROWS: dict[str, tuple[str, dict[str, Any], tuple[str | None, str | None]]] = {
    "paused": ("paused", {"queue": "held"}, (None, None)),
    "recurring": (
        "scheduled",
        {"run_at": DUE, "cron": "* * * * *", "timezone": "UTC", "queue": "again"},
        (None, None),
    ),
    "of a worker": ("running", {"repeatable": 1, "worker": "w"}, (None, None)),
}


@pytest.fixture(params=[1, 2, 3])
def every(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """A database of an early format with rows in every state; the ids by name."""
    version: int = request.param
    path = tmp_path / "tasks.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in VERSION_1:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('instance', 'the-same-as-ever')")
    connection.execute("PRAGMA application_id = 0x6D635451")
    connection.execute("PRAGMA user_version = 1")
    schema.migrate(connection, path, schema.MIGRATIONS[:version])
    ids = {}
    rows = ROWS | (LATER_ROWS if version > 1 else {})
    for seq, (name, (state, extra, payload)) in enumerate(rows.items(), start=1):
        ids[name] = f"{seq:032x}"
        columns: dict[str, Any] = {
            "seq": seq,
            "id": ids[name],
            "tool": "add",
            "state": state,
            "principal_kind": ME.kind,
            "principal_id": ME.id,
            "principal_name": ME.name,
            "client": f"client{seq % 2}",
            "queue": "default",
            "priority": 0,
            "delivery": "at_least_once",
            "repeatable": 0,
            "max_attempts": 3,
            "tags": json.dumps(["old"] if seq % 2 else []),
            "digest": bytes.fromhex(DIGEST),
            "created_at": THEN,
            "updated_at": THEN,
            "events": 1,
            **extra,
        }
        if state == "running":
            columns |= {"owner": "dead:1", "lease_until": 1.0, "attempts": 1, "fence": 1}
            columns["started_at"] = THEN
        marks = ", ".join("?" * len(columns))
        connection.execute(
            f"INSERT INTO task ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values())
        )
        connection.execute("INSERT INTO payload VALUES (?, '{\"a\":1}', ?, ?)", (seq, *payload))
        connection.execute(
            "INSERT INTO event VALUES (?, 1, ?, 'submitted', 'ready', 0, '')", (seq, THEN)
        )
    if version > 1:
        connection.execute(
            "INSERT INTO pause VALUES (?, ?, 'held', ?, 'later')", (ME.kind, ME.id, THEN)
        )
    if version > 2:
        connection.execute(
            "INSERT INTO ready_tag SELECT principal_kind, principal_id, queue, value, priority, seq"
            " FROM task, json_each(task.tags) WHERE state = 'ready'"
        )
    connection.close()
    return ids


def look(store: SQLiteTaskStore, task_id: str) -> Any:
    snapshot = store.get(ME, task_id, payload=True, events=9, failures=True).result(10)
    assert snapshot is not None
    return snapshot.task


def test_every_row_of_an_old_database_is_as_it_was(
    every: dict[str, str], open_store: OpenStore
) -> None:
    store = open_store()
    for name, task_id in every.items():
        state, extra, (result, error) = (ROWS | LATER_ROWS)[name]
        task = look(store, task_id)
        assert task.state == state, name
        assert task.queue == extra.get("queue", "default")
        assert task.arguments == {"a": 1}
        assert task.result == (None if result is None else CallResult("3", {"sum": 3}))
        assert (task.error or {}).get("code") == (None if error is None else "tool_failed")
        assert (task.fairness_key, task.run_at) == (task.client, extra.get("run_at"))
        assert (task.cron, task.worker) == (extra.get("cron"), extra.get("worker"))
    health = store.health()
    assert health.ok
    assert sum(health.counts.values()) == len(every)


def test_every_row_of_an_old_database_goes_on(
    every: dict[str, str], open_store: OpenStore, clock: Any
) -> None:
    store = open_store()
    while store.recover("new:1").result(10).more:
        pass

    def states() -> dict[str, str]:
        return {name: look(store, task_id).state for name, task_id in every.items()}

    waiting = {"delayed": "scheduled", "to be retried": "scheduled"}
    settled = {name: name for name in ("succeeded", "failed", "cancelled", "dead", "uncertain")}
    recovered = {
        "ready": "ready",
        "failed once": "ready",
        "given back": "ready",
        "running": "ready",
        "running once": "uncertain",
        "being cancelled": "cancelled",
        **waiting,
        **settled,
    }
    if "paused" in every:
        recovered |= {"paused": "paused", "recurring": "scheduled", "of a worker": "ready"}
    assert states() == recovered
    clock.advance(DUE - clock.wall + 60)
    store.sweep().result(10)
    if "paused" in every:
        assert store.resume(ME, "held").result(10).tasks == 1
        assert look(store, every["recurring"]).state == "scheduled"
    for name in ("failed", "cancelled", "dead", "uncertain"):
        changed = store.retry(ME, every[name]).result(10)
        assert changed is not None
        assert (changed.done, changed.state) == (True, "ready"), name
    cancelled = store.cancel(ME, every["ready"]).result(10)
    assert cancelled is not None
    assert cancelled.outcome == "cancelled"
    for turn in range(2):
        started = store.claim("new:1", 99, 30).result(10)
        for task in started:
            assert store.complete(task.id, task.fence, CallResult("4")).result(10).accepted
        assert bool(started) == (turn == 0)
    done = states()
    assert done.pop("ready") == "cancelled"
    assert done.pop("running once") == "uncertain"
    assert done.pop("being cancelled") == "cancelled"
    assert done.pop("recurring", "scheduled") == "scheduled"
    assert set(done.values()) == {"succeeded"}
    if "recurring" in every:
        (fired,) = store.find(ME, Filter(schedule_id=every["recurring"])).result(10).tasks
        assert fired.state == "succeeded"


def test_every_row_of_an_old_database_is_purged_in_time(
    every: dict[str, str], open_store: OpenStore, clock: Any
) -> None:
    store = open_store(retention=60.0)
    assert store.sweep().result(10).purged == 0
    clock.advance(51)
    assert store.sweep().result(10).purged == 4
    left = {task.id for task in store.find(ME, Filter(), limit=50).result(10).tasks}
    gone = {name for name, task_id in every.items() if task_id not in left}
    assert gone == {"succeeded", "failed", "cancelled", "dead"}
