"""The checks of ``mcpd doctor``: asked of the daemon if one runs, else made here."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mcpd_core import Ask, DaemonError, Finding

from .layout import database_in
from .sqlite import examining

CHECK = examining.CHECK


def examine(data_dir: Path, ask: Ask | None) -> Iterator[Finding]:
    """Look at the tasks of a data directory, and change nothing.

    :param ask: asks the daemon that works with them; ``None`` when none runs.
    """
    path = database_in(data_dir)
    if ask is not None:
        try:
            answer = ask("task_queue/check", {})
        except DaemonError as error:
            yield Finding(
                CHECK,
                "warning",
                f"The daemon could not say how its tasks are kept: {error.message}",
                error.hint or "Look into its log; it may not serve the task queue.",
            )
            return
        yield from (Finding(**finding) for finding in answer["findings"])
    elif not path.exists():
        yield Finding(CHECK, "ok", f"No task has been stored yet; {path} is made by mcpd serve.")
    elif (pid := _user(path)) is not None:
        yield Finding(
            CHECK,
            "warning",
            f"Process {pid} uses {path}, and does not answer as a daemon.",
            f"If it stays so, end it: kill {pid}",
        )
    else:
        yield from _without_daemon(path)


def _user(path: Path) -> str | None:
    """Return the process that has the store open (see `connection.StoreLock`)."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
    else:
        return None
    finally:
        os.close(lock)


def _without_daemon(path: Path) -> Iterator[Finding]:
    log = Path(f"{path}-wal")
    # A log that was left behind has to be read as well, which takes a file beside it; without one,
    # nothing needs to be made beside the database.
    how = "mode=ro" if log.exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as connection:
            found = list(examining.examine(connection, path))
    except sqlite3.DatabaseError as error:
        found = [examining.damaged(path, str(error))]
    if how == "immutable=1" and log.exists():
        # Somebody writes it now, and reading it so meant nothing.
        found = [
            Finding(CHECK, "note", f"A daemon has just begun to use {path}.", "Run this again.")
        ]
    yield from found
