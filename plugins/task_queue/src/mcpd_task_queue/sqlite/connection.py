"""Opening the file: the lock, the permissions, the settings of a connection, errors in words."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Literal

from mcpd_task_queue.errors import StoreBroken, StoreError, StoreFull, StoreUnusable
from mcpd_task_queue.syncing import sync

from .schema import OLDEST_SQLITE

#: ``full`` survives a power cut; ``normal`` survives the death of the process only.
Durability = Literal["full", "normal"]

#: A file system with less room than this is full, whatever the error says: SQLite reports a log
#: that cannot grow as an I/O error.
NO_ROOM = 64 * 1024


class StoreLock:
    """The right to be the one process that uses a store, held until released or until death.

    Two processes that write and checkpoint at the same instant can damage the file with every
    SQLite from 3.7.0 to 3.51.2 (the "WAL-reset" bug), and a second task queue would take the first
    one's running tasks for orphans.

    :raises StoreUnusable: when another process has it.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + ".lock")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise StoreUnusable(
                f"{database} is in use by another process (pid {holder or 'unknown'}).",
                hint="Tasks are reached through the mcpd that serves this data directory.",
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the right up. The file stays: removing it would let two processes lock two files."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def create(path: Path) -> None:
    """Make the file and its folder, for the user's eyes only, and make their names durable.

    :raises OSError: when that is not possible.
    """
    missing = []
    folder = path.parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        sync(folder.parent)
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # Also when they were there: who made them may have died before their names were on the disk.
    sync(path.parent)
    with suppress(PermissionError):  # a folder above may be somebody else's
        sync(path.parent.parent)


def connect_writer(path: Path, durability: Durability) -> sqlite3.Connection:
    """Open the one connection that writes, and that alone moves the log into the database.

    :raises StoreUnusable: when SQLite is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreUnusable(
            f"This Python has SQLite {sqlite3.sqlite_version}; the task queue needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))} or newer.",
            hint="Use a Python that is linked with a newer SQLite.",
        )
    return _connect(
        path,
        "journal_mode = WAL",
        f"synchronous = {durability.upper()}",
        # After a burst the log shrinks back to this many bytes.
        f"journal_size_limit = {16 * 1024 * 1024}",
    )


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that only reads: it neither changes anything nor moves the log."""
    return _connect(path, "query_only = ON", "wal_autocheckpoint = 0", mode="ro")


def _connect(path: Path, *pragmas: str, mode: Literal["ro", "rw"] = "rw") -> sqlite3.Connection:
    # Opened on one thread and used on another, never on two at once.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=10.0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        for pragma in (*pragmas, "cache_size = -16384", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def in_words(path: Path, error: sqlite3.Error, doing: str) -> StoreError:
    """Say what an SQLite error means for the store: full (may pass) or broken (does not)."""
    # Error codes came with Python 3.11; the messages are SQLite's own and do not change.
    text = str(error)
    if "is full" in text or ("disk I/O" in text and _room(path) < NO_ROOM):
        return StoreFull(
            f"The task store {path} is full: {text} while {doing}; nothing was changed.",
            hint="Make room on its disk, then try again.",
        )
    # JSON that is malformed is one value, and no damage to the file.
    damaged = "malformed" in text and "JSON" not in text
    if "disk I/O" in text or damaged or "not a database" in text:
        return StoreBroken(
            f"The task store {path} failed: {text} while {doing}; it accepts no changes any more.",
            hint="Check the disk, then restart mcpd: it replays what was acknowledged.",
        )
    return StoreError(f"The task store {path} failed: {text} while {doing}; nothing was changed.")


def _room(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return NO_ROOM
