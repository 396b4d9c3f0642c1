"""`Backups`: copies of the store that are made while it is in use.

The copy is made by the writer itself, a few pages at a time between its commits. SQLite passes on
to the copy what the same connection changes meanwhile, so that it neither starts over, as a copy
through another connection does with each commit, nor holds a read transaction, behind which the
write-ahead log would grow (https://www.sqlite.org/backup.html). Measured with 200,000 tasks
(118 MB) and a submitter that never rests: 1.5 s in steps of half a megabyte, the log staying as it
is; ``VACUUM INTO`` takes 1.2 s, and the log grows by 60 MB; steps on another connection do not end.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

from mcpd_task_queue.blobs import blob_path, is_name
from mcpd_task_queue.errors import BackupFailed
from mcpd_task_queue.layout import BLOBS, DATABASE
from mcpd_task_queue.records import BackedUp
from mcpd_task_queue.syncing import sync

from .threads import in_thread
from .writer import Writer

log = logging.getLogger(__name__)

#: Pages that are copied before the writer looks for other work; it takes half a millisecond.
STEP = 128


class Backups:
    """Makes backups of one store, one at a time.

    :param database: of the store.
    :param writer: whose connection is copied.
    :param keep_blobs: entered for as long as nothing beside the database may be removed.
    """

    def __init__(
        self,
        database: Path,
        writer: Writer,
        keep_blobs: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._database = database
        self._writer = writer
        self._keep_blobs = keep_blobs
        self._busy = threading.Lock()

    def make(self, path: Path) -> Future[BackedUp]:
        """Make a backup (see `TaskStore.backup`)."""
        if not self._busy.acquire(blocking=False):
            future: Future[BackedUp] = Future()
            future.set_exception(
                BackupFailed("A backup is being made already.", hint="Wait for it to end.")
            )
            return future
        return in_thread("mcpd-task-store-backup", lambda: self._run(path))

    def _run(self, path: Path) -> BackedUp:
        try:
            return self._make(path)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BackupFailed(
                f"The backup {path} was not made: {reason}.",
                hint="Choose a folder that can be written, on a disk with enough room.",
            ) from error
        finally:
            self._busy.release()

    def _make(self, path: Path) -> BackedUp:
        started = time.monotonic()
        self._check(path)
        # Beside its place, so that it can be put there in one step.
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        unfinished.mkdir(mode=0o700)
        try:
            copy = unfinished / DATABASE
            os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            # What the copy refers to may be purged before it is taken along.
            with self._keep_blobs():
                self._copy(copy)
                tasks, blobs = _verified(copy)
                taken = self._take_blobs(blobs, unfinished)
            sync(copy)
            for folder, _, _ in os.walk(unfinished):
                sync(Path(folder))
            self._check(path)
            unfinished.rename(path)
            sync(path.parent)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        size = (path / DATABASE).stat().st_size
        return BackedUp(path, size, tasks, taken, time.monotonic() - started)

    def _check(self, path: Path) -> None:
        if os.path.lexists(path):
            raise BackupFailed(
                f"No backup was made: {path} exists already.",
                hint="Choose a folder that does not exist; nothing is overwritten.",
            )
        if not path.parent.is_dir():
            raise BackupFailed(
                f"No backup was made: {path.parent} is no folder.", hint="Make it first."
            )
        if self._database.parent.resolve() in (
            path.parent.resolve(),
            *path.parent.resolve().parents,
        ):
            raise BackupFailed(
                f"No backup was made: {path} is in the folder of the store itself.",
                hint="Choose a folder elsewhere, best on another disk.",
            )

    def _copy(self, copy: Path) -> None:
        target = sqlite3.connect(copy, isolation_level=None, check_same_thread=False)
        try:
            # A copy that is not finished is thrown away; its one fsync comes at the end.
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")

            def in_steps(source: sqlite3.Connection) -> None:
                source.backup(target, pages=STEP, progress=lambda *_: self._writer.serve())

            self._writer.between(in_steps).result()
        finally:
            target.close()

    def _take_blobs(self, names: Iterable[str], into: Path) -> int:
        """Take along what the copy refers to; returns how many files that are."""
        taken = 0
        for name in names:
            file = blob_path(self._database.parent / BLOBS, name)
            target = blob_path(into / BLOBS, name)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                # One file under two names will do: what is named by its content never changes.
                os.link(file, target)
            except FileNotFoundError:
                # The store has lost it. That is no reason to have no copy of all the others.
                log.warning("The result %s is missing, in the store and so in its backup.", file)
                continue
            except OSError:
                shutil.copyfile(file, target)
                target.chmod(0o600)
                sync(target)
            taken += 1
        return taken


def _verified(copy: Path) -> tuple[int, list[str]]:
    """Return how many tasks a copy has, and the files that it refers to, once it is known to be
    sound.

    :raises BackupFailed: when it is not.
    """
    # Nobody else knows of the file: `immutable` spares it the files of a log beside it.
    connection = sqlite3.connect(f"{copy.absolute().as_uri()}?immutable=1", uri=True)
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise BackupFailed(
                f"The backup was not made: its copy is damaged ({verdict}).",
                hint="Run `mcpd doctor`: the store itself may be damaged.",
            )
        (tasks,) = connection.execute("SELECT count(*) FROM task").fetchone()
        blobs = connection.execute("SELECT DISTINCT blob FROM payload WHERE blob IS NOT NULL")
        return int(tasks), [name for (name,) in blobs if is_name(name)]
    finally:
        connection.close()
