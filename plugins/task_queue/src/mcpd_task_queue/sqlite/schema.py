"""The tables, and how a database of an older version becomes one of this version."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mcpd_task_queue.errors import StoreUnusable

#: Marks the file as a task store (``PRAGMA application_id``); spells "mcTQ".
APPLICATION_ID = 0x6D635451

#: The tags of a task, one row for each; none where they cannot be read, or every statement would
#: fail that meets the task.
_TAGS = "json_each(CASE WHEN json_valid({0}.tags) THEN {0}.tags ELSE '[]' END)"
_TAGS_OF_TASK = _TAGS.format("task")

# Every state has the index that its one question needs, and no more: what is claimed next, what is
# due next, whose lease has run out, what is old enough to go. Finished tasks are in none of the
# first three, so that neither a long backlog nor a long history makes a claim slower.
#
# Arguments and results, which may be large, have a table of their own: a row is rewritten whole
# each time its state changes.
_VERSION_1 = (
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

# Recurring tasks, pauses and workers. The index that counted a principal's tasks by queue and state
# now also has them in the order in which a worker of that principal takes them.
_VERSION_2 = (
    "ALTER TABLE task ADD COLUMN worker TEXT",
    "ALTER TABLE task ADD COLUMN cron TEXT",
    "ALTER TABLE task ADD COLUMN timezone TEXT",
    "ALTER TABLE task ADD COLUMN schedule_id TEXT",
    "ALTER TABLE task ADD COLUMN latest_id TEXT",
    "DROP INDEX task_counted",
    """
    CREATE INDEX task_counted
        ON task (principal_kind, principal_id, queue, state, priority DESC, seq)
    """,
    """
    CREATE TABLE pause (
        principal_kind TEXT NOT NULL,
        principal_id TEXT NOT NULL,
        queue TEXT NOT NULL,
        since REAL NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (principal_kind, principal_id, queue)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE worker (
        principal_kind TEXT NOT NULL,
        principal_id TEXT NOT NULL,
        name TEXT NOT NULL,
        principal_name TEXT NOT NULL,
        queues TEXT NOT NULL,
        capabilities TEXT NOT NULL,
        slots INTEGER NOT NULL,
        registered_at REAL NOT NULL,
        PRIMARY KEY (principal_kind, principal_id, name)
    ) STRICT, WITHOUT ROWID
    """,
)

# What a worker with capabilities takes, in the order in which it does: ready tasks by tool, and by
# each of their tags. Tasks without tags, and tasks that wait for a time or have ended, are not in
# the latter. A trigger keeps it, since several statements move tasks; new tasks are added by
# `transitions.add_tags`, because a trigger on them makes every insert half as slow again.
_VERSION_3 = (
    """
    CREATE INDEX task_ready_tool
        ON task (principal_kind, principal_id, queue, tool, priority DESC, seq)
        WHERE state = 'ready'
    """,
    """
    CREATE TABLE ready_tag (
        principal_kind TEXT NOT NULL,
        principal_id TEXT NOT NULL,
        queue TEXT NOT NULL,
        tag TEXT NOT NULL,
        priority INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (principal_kind, principal_id, queue, tag, priority DESC, seq)
    ) STRICT, WITHOUT ROWID
    """,
    f"""
    INSERT OR IGNORE INTO ready_tag
        SELECT principal_kind, principal_id, queue, value, priority, seq
            FROM task, {_TAGS_OF_TASK} WHERE state = 'ready'
    """,
    """
    CREATE TRIGGER task_moved AFTER UPDATE OF state, priority ON task
        WHEN new.tags <> '[]' AND (old.state = 'ready' OR new.state = 'ready')
        BEGIN
            DELETE FROM ready_tag
                WHERE principal_kind = old.principal_kind AND principal_id = old.principal_id
                    AND queue = old.queue AND tag IN (SELECT value FROM json_each(old.tags))
                    AND priority = old.priority AND seq = old.seq;
            INSERT OR IGNORE INTO ready_tag
                SELECT new.principal_kind, new.principal_id, new.queue, value, new.priority, new.seq
                    FROM json_each(new.tags) WHERE new.state = 'ready';
        END
    """,
)

# The order in which ready tasks are started: `turns` has the idea of `turn`, `order` that of
# `ready_at`. `lane` keeps apart what a limit may hold back, so that nobody has to look past it.
# What counted tasks no longer has their order, because what a worker without capabilities takes is
# found tool by tool. Tasks from before keep their order, one turn after the other for each client.
_VERSION_4 = (
    "ALTER TABLE task ADD COLUMN fairness_key TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE task ADD COLUMN lane TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE task ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE task ADD COLUMN ready_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE task ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
    "DROP TRIGGER task_moved",
    "DROP TABLE ready_tag",
    "DROP INDEX task_ready",
    "DROP INDEX task_ready_tool",
    "DROP INDEX task_counted",
    """
    CREATE TABLE rate (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        expected REAL NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID
    """,
    "UPDATE task SET fairness_key = client",
    """
    UPDATE task SET size = length(CAST(payload.arguments AS BLOB))
        FROM payload WHERE payload.seq = task.seq
    """,
    """
    UPDATE task SET turn = numbered.turn, ready_at = created_at FROM (
        SELECT seq, row_number() OVER (
            PARTITION BY priority, principal_kind, principal_id, client ORDER BY seq
        ) AS turn FROM task WHERE state = 'ready'
    ) AS numbered WHERE numbered.seq = task.seq
    """,
    "CREATE INDEX task_counted ON task (principal_kind, principal_id, queue, state)",
    """
    CREATE INDEX task_ready ON task (lane, priority DESC, turn, ready_at) WHERE state = 'ready'
    """,
    """
    CREATE INDEX task_ready_tool
        ON task (principal_kind, principal_id, queue, tool, priority DESC, turn, ready_at)
        WHERE state = 'ready'
    """,
    """
    CREATE TABLE ready_tag (
        principal_kind TEXT NOT NULL,
        principal_id TEXT NOT NULL,
        queue TEXT NOT NULL,
        tag TEXT NOT NULL,
        lane TEXT NOT NULL,
        priority INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        ready_at REAL NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (
            principal_kind, principal_id, queue, tag, lane, priority DESC, turn, ready_at, seq
        )
    ) STRICT, WITHOUT ROWID
    """,
    f"""
    INSERT OR IGNORE INTO ready_tag
        SELECT principal_kind, principal_id, queue, value, lane, priority, turn, ready_at, seq
            FROM task, {_TAGS_OF_TASK} WHERE state = 'ready'
    """,
    """
    CREATE TRIGGER task_moved AFTER UPDATE OF state, lane, priority, turn, ready_at ON task
        WHEN new.tags <> '[]' AND (old.state = 'ready' OR new.state = 'ready')
        BEGIN
            DELETE FROM ready_tag
                WHERE principal_kind = old.principal_kind AND principal_id = old.principal_id
                    AND queue = old.queue AND tag IN (SELECT value FROM json_each(old.tags))
                    AND lane = old.lane AND priority = old.priority AND turn = old.turn
                    AND ready_at = old.ready_at AND seq = old.seq;
            INSERT OR IGNORE INTO ready_tag
                SELECT new.principal_kind, new.principal_id, new.queue, value, new.lane,
                        new.priority, new.turn, new.ready_at, new.seq
                    FROM json_each(new.tags) WHERE new.state = 'ready';
        END
    """,
)

# Large results, which are files beside the database: the name of the file, and how many bytes it
# has. The index says whether anything still refers to a file. Log lines of tools. What has ended is
# found by its state as well, since how long it is kept depends on that.
_VERSION_5 = (
    "ALTER TABLE payload ADD COLUMN blob TEXT",
    "ALTER TABLE payload ADD COLUMN blob_size INTEGER",
    "CREATE INDEX payload_blob ON payload (blob) WHERE blob IS NOT NULL",
    "ALTER TABLE task ADD COLUMN progress_at REAL",
    """
    CREATE TABLE log_line (
        seq INTEGER NOT NULL,
        n INTEGER NOT NULL,
        at REAL NOT NULL,
        attempt INTEGER NOT NULL,
        level TEXT NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (seq, n)
    ) STRICT, WITHOUT ROWID
    """,
    "DROP INDEX task_settled",
    "CREATE INDEX task_settled ON task (state, finished_at) WHERE finished_at IS NOT NULL",
)

# How attempts follow each other, and what came of those without success. Nothing is written here
# for a task that succeeds at once. Few tasks have a deadline, so that few are in its index.
_VERSION_6 = (
    "ALTER TABLE task ADD COLUMN retry TEXT",
    "ALTER TABLE task ADD COLUMN deadline REAL",
    "ALTER TABLE task ADD COLUMN expires_at REAL",
    "ALTER TABLE task ADD COLUMN cancelled_at REAL",
    """
    CREATE INDEX task_expiring ON task (expires_at)
        WHERE expires_at IS NOT NULL AND state IN ('scheduled', 'ready', 'paused')
    """,
    """
    CREATE TABLE attempt (
        seq INTEGER NOT NULL,
        n INTEGER NOT NULL,
        started_at REAL NOT NULL,
        ended_at REAL NOT NULL,
        worker TEXT NOT NULL,
        outcome TEXT NOT NULL,
        error TEXT NOT NULL,
        PRIMARY KEY (seq, n)
    ) STRICT, WITHOUT ROWID
    """,
)

# A task whose tags cannot be read made every statement fail that moved it, along with others.
_VERSION_7 = (
    "DROP TRIGGER task_moved",
    f"""
    CREATE TRIGGER task_moved AFTER UPDATE OF state, lane, priority, turn, ready_at ON task
        WHEN new.tags <> '[]' AND (old.state = 'ready' OR new.state = 'ready')
        BEGIN
            DELETE FROM ready_tag
                WHERE principal_kind = old.principal_kind AND principal_id = old.principal_id
                    AND queue = old.queue
                    AND tag IN (SELECT value FROM {_TAGS.format("old")})
                    AND lane = old.lane AND priority = old.priority AND turn = old.turn
                    AND ready_at = old.ready_at AND seq = old.seq;
            INSERT OR IGNORE INTO ready_tag
                SELECT new.principal_kind, new.principal_id, new.queue, value, new.lane,
                        new.priority, new.turn, new.ready_at, new.seq
                    FROM {_TAGS.format("new")}
                    WHERE new.state = 'ready';
        END
    """,
)

# What counts the tasks of a queue by state also has its ready ones, tool by tool, in the order in
# which a worker takes them: one index less for every submit and every start to write. What is
# paused is found in the order of its submit, however much a principal has.
_VERSION_8 = (
    "DROP INDEX task_counted",
    "DROP INDEX task_ready_tool",
    """
    CREATE INDEX task_of_queue ON task
        (principal_kind, principal_id, queue, state, tool, priority DESC, turn, ready_at)
    """,
    "CREATE INDEX task_paused ON task (principal_kind, principal_id, queue) WHERE state = 'paused'",
)

#: One entry per version; a database of version n has had the first n applied.
MIGRATIONS: tuple[Sequence[str], ...] = (
    _VERSION_1,
    _VERSION_2,
    _VERSION_3,
    _VERSION_4,
    _VERSION_5,
    _VERSION_6,
    _VERSION_7,
    _VERSION_8,
)

#: STRICT tables; RETURNING came a little earlier.
OLDEST_SQLITE = (3, 37, 0)


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
) -> str:
    """Bring a database to the newest version, one transaction per step.

    :param connection: in autocommit mode.
    :returns: the identity of the store.
    :raises StoreUnusable: when the file is not a task store or a newer version made it.
    """
    application = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    if application != APPLICATION_ID and (application or version or _has_tables(connection)):
        raise StoreUnusable(
            f"{path} is an SQLite database, but not a task store.",
            hint="Move it away, or use another data directory.",
        )
    if version > len(migrations):
        raise StoreUnusable(
            f"{path} was written by a newer mcpd-task-queue (its format is {version}; this version "
            f"knows formats up to {len(migrations)}).",
            hint="Upgrade mcpd-task-queue; it does not go back to an older format.",
        )
    for number, statements in enumerate(migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            if number == 1:
                connection.execute(
                    "INSERT INTO meta VALUES ('instance', ?)", (secrets.token_hex(8),)
                )
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            # Whatever went wrong, a half-made version must not stay; the error goes on its way.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    row = connection.execute("SELECT value FROM meta WHERE name = 'instance'").fetchone()
    return str(row[0])


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None
