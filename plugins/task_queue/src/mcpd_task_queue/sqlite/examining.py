"""What `mcpd doctor` looks at in the file of the tasks, and what to do about what is wrong."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mcpd_core import Finding, file_system_of

from .holders import holders_of
from .schema import APPLICATION_ID, MIGRATIONS

CHECK = "task_queue"
#: Seconds that reading all of the file may take: meanwhile its log cannot be emptied.
LONGEST_CHECK = 20.0
#: Bytes from which on a log is worth a word.
LARGE_LOG = 64 * 1024 * 1024


def examine(
    connection: sqlite3.Connection, path: Path, limit: float = LONGEST_CHECK
) -> Iterator[Finding]:
    """Look at a database that is open for reading, whoever else may work with it.

    :param limit: seconds that it may take.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        yield Finding(
            CHECK,
            "error",
            f"{path} is an SQLite database, but not a task store.",
            f"Move it away: mv {path} {path}.other",
        )
        return
    if version > len(MIGRATIONS):
        yield Finding(
            CHECK,
            "error",
            f"{path} was written by a newer mcpd-task-queue (its format is {version}; this version "
            f"knows formats up to {len(MIGRATIONS)}).",
            "Upgrade it: pip install --upgrade mcpd-task-queue",
        )
        return
    yield _soundness(connection, path, limit)
    yield from examine_surroundings(path)


def _soundness(connection: sqlite3.Connection, path: Path, limit: float) -> Finding:
    deadline = time.monotonic() + limit
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 1_000)
    # Until SQLite 3.41 most of the check is a single instruction, during which nobody is asked.
    timer = threading.Timer(limit, connection.interrupt)
    timer.start()
    size = f"{os.path.getsize(path) / (1 << 20):,.1f} MiB"
    try:
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)").fetchall()]
    except sqlite3.OperationalError as error:
        if str(error) != "interrupted":
            raise
        return Finding(
            CHECK,
            "note",
            f"{path} ({size}) was not looked at to the end, since that takes more than "
            f"{limit:g} s.",
            f'When mcpd is stopped: sqlite3 {path} "PRAGMA quick_check"',
        )
    finally:
        timer.cancel()
        timer.join()
        connection.set_progress_handler(None, 0)
    if problems == ["ok"]:
        return Finding(CHECK, "ok", f"{path} ({size}) is sound.")
    return damaged(path, "; ".join(problems))


def damaged(path: Path, how: str) -> Finding:
    """Tell that a database is damaged, and the two ways out of it."""
    folder = path.parent
    return Finding(
        CHECK,
        "error",
        f"{path} is damaged: {' '.join(how.split())[:300]}.",
        f"Stop mcpd and keep what is there: mv {folder} {folder}.damaged. Then put a backup in its "
        f"place: cp -a BACKUP {folder}. Without a backup, save what can be read: "
        f"{sys.executable} -m mcpd_task_queue.salvage {folder}.damaged {folder}. "
        "Then start mcpd, and look for a disk that fails.",
    )


def examine_surroundings(path: Path) -> Iterator[Finding]:
    """Look at what the file is surrounded by, without opening it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            CHECK,
            "warning",
            f"Other users may open {path} (mode {mode:04o}).",
            f"chmod 600 {path}",
        )
    found = file_system_of(path)
    if found.network:
        yield Finding(CHECK, "error", on_network(path, found.kind), _ELSEWHERE)
    try:
        log = os.path.getsize(f"{path}-wal")
    except OSError:
        log = 0
    if log > LARGE_LOG:
        holders = holders_of(path) or []
        who = " and ".join(map(str, holders))
        because = f", because {who} keeps a transaction open" if who else ""
        yield Finding(
            CHECK,
            "warning",
            f"The log {path}-wal has {log / (1 << 20):,.0f} MiB{because}.",
            f"End it: kill {' '.join(str(holder.pid) for holder in holders)}"
            if holders
            else "It is emptied when the daemon is idle, or when it is started and stopped.",
        )
    free, needed = shutil.disk_usage(path.parent).free, path.stat().st_size + log
    if free < needed:
        yield Finding(
            CHECK,
            "note",
            f"{free / (1 << 20):,.0f} MiB are free beside {path}, which has "
            f"{needed / (1 << 20):,.0f} MiB: there is no room for a backup on that disk.",
            "Make backups on another disk.",
        )


_ELSEWHERE = "Choose a directory on a local disk with --data-dir or MCPD_DATA_DIR."


def on_network(path: Path, kind: str) -> str:
    """Say why a task store cannot be on a network file system."""
    return (
        f"{path} is on a network file system ({kind}), where locks and shared memory cannot be "
        "relied on: two daemons could own it, and tasks could be lost."
    )
