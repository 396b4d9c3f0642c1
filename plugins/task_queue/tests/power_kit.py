"""What a power cut may leave of the files of a database, and a history of the store to be cut off.

The model is that of SQLite's own tests (https://www.sqlite.org/atomiccommit.html): what a file held
when it was last synced is there; of what was written since, any sectors may be, in any order; a
name that was made or removed may be as before until the file, or its directory, was synced.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from mcpd_core import CallResult, Principal, Progress
from mcpd_task_queue import blobs, syncing
from mcpd_task_queue.records import LogLine, NewTask, Note, Renewal, Reported, Task, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore

from .vfs_kit import Operation, Watcher

SECTOR = 512
ME = Principal("local", "1000", "ada")

#: ``killed``: the process died, the system went on. ``synced``: nothing is left that was not
#: synced. ``prefix``: of each file the first of its later writes. ``torn``: any sectors of them.
Cut = Literal["killed", "synced", "prefix", "torn"]


class _File:
    """One file: what is safe, and what happened to it since."""

    def __init__(self, content: bytes) -> None:
        self.safe = bytearray(content)
        self.pending: list[Operation] = []

    def sync(self) -> None:
        for operation in self.pending:
            _apply(self.safe, operation)
        self.pending.clear()

    def left(self, cut: Cut, chance: random.Random) -> bytes:
        content = bytearray(self.safe)
        if cut == "killed":
            survived = self.pending
        elif cut == "synced":
            survived = []
        else:
            survived = self.pending[: chance.randint(0, len(self.pending))]
            if cut == "torn":
                survived = [
                    sector
                    for operation in self.pending
                    for sector in _sectors(operation)
                    if chance.random() < 0.7
                ]
                if chance.random() < 0.5:
                    chance.shuffle(survived)
        for operation in survived:
            _apply(content, operation)
        return bytes(content)


def _apply(content: bytearray, operation: Operation) -> None:
    if operation.kind == "truncate":
        del content[operation.offset :]
        return
    end = operation.offset + len(operation.data)
    content.extend(bytes(max(0, end - len(content))))
    content[operation.offset : end] = operation.data


def _sectors(operation: Operation) -> Iterator[Operation]:
    """Cut a write at the borders of sectors."""
    if operation.kind == "truncate":
        yield operation
        return
    start, end = operation.offset, operation.offset + len(operation.data)
    while start < end:
        border = min(end, (start // SECTOR + 1) * SECTOR)
        part = operation.data[start - operation.offset : border - operation.offset]
        yield operation._replace(offset=start, data=part)
        start = border


class Disk:
    """The files as they would be found, at one point of a log of operations.

    :param files: those that were there, safely, at its beginning.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._safe: dict[str, _File] = {path: _File(data) for path, data in files.items()}
        self._now = dict(self._safe)
        #: Folders that were made, and whether that is safe.
        self._folders: dict[str, bool] = {}

    def apply(self, operation: Operation) -> None:
        """Let one more operation happen."""
        path = operation.path
        if operation.kind == "open":
            if path not in self._now:
                self._now[path] = _File(b"")
                if operation.lasting:  # the store itself made it, and synced the directory
                    self._safe[path] = self._now[path]
        elif operation.kind == "delete":
            self._now.pop(path, None)
            if operation.lasting:
                self._safe.pop(path, None)
        elif operation.kind == "folder":
            self._folders.setdefault(path, False)
        elif operation.kind == "flush":
            self._now[path].sync()
        elif operation.kind == "rename":
            self._now[operation.to] = self._now.pop(path)
        elif operation.kind == "names":
            self._sync_names(path)
        elif operation.kind == "sync":
            self._now[path].sync()
            if self._safe.get(path) is not self._now[path]:
                # With the first sync of a new file SQLite syncs its directory, all names in it.
                self._sync_names(os.path.dirname(path))
        else:
            self._now[path].pending.append(operation)

    def _sync_names(self, folder: str) -> None:
        for made in self._folders:
            self._folders[made] |= os.path.dirname(made) == folder
        for path in {*self._safe, *self._now}:
            if os.path.dirname(path) == folder:
                self._safe.pop(path, None)
                if path in self._now:
                    self._safe[path] = self._now[path]

    def _is_safe(self, path: str) -> bool:
        """Whether none of the folders of a file may be gone."""
        return all(safe for made, safe in self._folders.items() if path.startswith(f"{made}/"))

    def left(self, cut: Cut, chance: random.Random) -> dict[str, bytes]:
        """Return the files that a cut right now leaves."""
        names = self._now
        if cut == "synced" or (cut != "killed" and chance.random() < 0.5):
            names = {path: file for path, file in self._safe.items() if self._is_safe(path)}
        return {path: file.left(cut, chance) for path, file in names.items()}


class Recorder(Watcher):
    """Writes down what SQLite did to the files, and what had been acknowledged by then.

    :ivar marks: after each step: how many operations had happened, and what the store held.
    """

    def __init__(self, database: Path) -> None:
        self.log: list[Operation] = []
        self.marks: list[tuple[int, str]] = []
        self._database = database

    def after(self, operation: Operation) -> None:
        self.log.append(operation)

    def mark(self) -> None:
        """Note that everything so far has been acknowledged."""
        self.marks.append((len(self.log), contents(self._database)))

    def allowed(self, index: int) -> set[str]:
        """Return what may be found after a cut behind so many operations: what was acknowledged
        last, or that and the one step that was under way."""
        last = max((n for n, (at, _) in enumerate(self.marks) if at <= index), default=None)
        assert last is not None, "nothing had been acknowledged yet"
        return {held for _, held in self.marks[last : last + 2]}


def contents(database: Path) -> str:
    """Check a database and return a digest of all that is in it.

    :raises AssertionError: when it is damaged.
    """
    connection = sqlite3.connect(f"{database.as_uri()}?vfs=unix", uri=True)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        digest = hashlib.sha256()
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")
        for (name,) in names.fetchall():
            rows = connection.execute(f"SELECT * FROM {name}").fetchall()
            digest.update(repr((name, sorted(rows, key=repr))).encode())
        return digest.hexdigest()
    finally:
        connection.close()


@contextmanager
def watching_blobs(folder: Path, watcher: Watcher) -> Iterator[None]:
    """Have a watcher told what the store of large results does to the files of a folder.

    What is written into a file counts from its flush on: before that nothing of it is promised.
    """
    paths: dict[int, str] = {}
    real = {name: getattr(Path, name) for name in ("mkdir", "rename", "unlink")}

    def open_(path: Path, flags: int, mode: int) -> int:
        descriptor = os.open(path, flags, mode)
        paths[descriptor] = str(path)
        watcher.after(Operation("open", str(path)))
        return descriptor

    def fsync(descriptor: int) -> None:
        os.fsync(descriptor)
        path = paths[descriptor]
        watcher.after(Operation("write", path, data=Path(path).read_bytes()))
        watcher.after(Operation("flush", path))

    def sync(path: Path) -> None:
        syncing.sync(path)
        watcher.after(Operation("names", str(path)))

    def noting(name: str, kind: Literal["folder", "rename", "delete"]) -> Callable[..., Any]:
        def call(path: Path, *args: Any, **options: Any) -> Any:
            answer = real[name](path, *args, **options)
            if str(path).startswith(str(folder)):
                to = str(args[0]) if kind == "rename" else ""
                watcher.after(Operation(kind, str(path), to=to))
            return answer

        return call

    shim = SimpleNamespace(**{**vars(os), "open": open_, "fsync": fsync})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blobs, "os", shim)
        patch.setattr(blobs, "sync", sync)
        patch.setattr(Path, "mkdir", noting("mkdir", "folder"))
        patch.setattr(Path, "rename", noting("rename", "rename"))
        patch.setattr(Path, "unlink", noting("unlink", "delete"))
        yield


class Ticking:
    """A clock that only moves when it is told to.

    :ivar now: for both clocks of a store.
    """

    def __init__(self) -> None:
        self.now = 1_700_000_000.0


def life(open_store: Callable[[], SQLiteTaskStore], clock: Ticking) -> Iterator[str]:
    """Do, one transaction after the other, all that a store can do.

    :returns: the names of the steps, each when it has been acknowledged.
    """
    store = open_store()
    yield "opened"
    # The log is moved often, so that there is something to be cut off in the middle.
    store._writer.do(lambda tx: tx.execute("PRAGMA wal_autocheckpoint = 24").fetchall()).result()
    (first,) = store.submit([_task(priority=9)]).result()
    yield "submitted"
    store.submit([_task(idempotency_key="k", tags=("gpu",)), _task(queue="other")]).result()
    store.submit([_task(idempotency_key="k", tags=("gpu",))]).result()
    yield "submitted with a key, twice"
    batch = [_task(arguments={"n": n, "blob": "x" * 900}) for n in range(12)]
    some = [s.task_id for s in store.submit(batch).result()]
    yield "submitted a batch"
    go = threading.Event()
    inside = threading.Event()

    def hold(_: object) -> None:
        inside.set()
        assert go.wait(10)

    held = store._writer.do(hold)
    assert inside.wait(10)
    waiting = [store.submit([_task(arguments={"n": n})]) for n in range(20)]
    go.set()
    held.result()
    for future in waiting:
        future.result()
    yield "submitted by many in one commit"
    store.submit([_task(cron="* * * * *", queue="time"), _task(delay=30.0, queue="time")]).result()
    yield "scheduled"
    (task,) = store.claim("owner:1", 1, 10.0).result()
    assert task.id == first.task_id
    yield "claimed"
    store.renew([Renewal(task.id, task.fence)], 10.0).result()
    yield "renewed"
    progress = Reported(Progress(1, 2, "half"), 1.0)
    line = LogLine(1.0, "info", "half way")
    store.note([Note(task.id, task.fence, progress, (line,))]).result()
    yield "noted"
    assert store.complete(task.id, task.fence, CallResult("y" * 9_000)).result().accepted
    yield "completed"
    tasks = store.claim("owner:1", 6, 10.0).result()
    yield "claimed several"
    store.fail(tasks[0].id, tasks[0].fence, {"message": "no"}, "retry", 5.0).result()
    yield "failed, to be tried again"
    store.fail(tasks[1].id, tasks[1].fence, {"message": "no"}, "dead").result()
    yield "dead"
    store.retry(ME, tasks[1].id).result()
    yield "retried"
    store.release(tasks[2].id, tasks[2].fence, "busy", 5.0).result()
    yield "released"
    store.interrupt(tasks[3].id, tasks[3].fence, "it was cut off", count_attempt=True).result()
    yield "parked"
    store.resolve(ME, tasks[3].id, "succeeded", "I looked").result()
    yield "resolved"
    store.cancel(ME, some[-1]).result()
    yield "cancelled"
    store.cancel(ME, tasks[4].id).result()
    yield "asked to cancel"
    store.complete(tasks[4].id, tasks[4].fence, CallResult("late")).result()
    yield "cancelled while it ran"
    store.prioritise(ME, some[-2], 5).result()
    yield "prioritised"
    store.pause(ME, "default", "why not").result()
    yield "paused"
    store.resume(ME, "default").result()
    yield "resumed"
    store.register(Worker("w", ME, ("default",), ("gpu",), 2), 9).result()
    yield "registered"
    clock.now += 61.0
    store.sweep().result()
    yield "swept: due, fired, expired"
    store.close().result()
    yield "closed"
    clock.now += 10.0
    store = open_store()
    yield "opened again"
    store.claim("owner:2", 2, 10.0).result()
    yield "claimed before a crash"
    store.recover("owner:3").result()
    yield "recovered"
    store.clear(ME, "default", recurring=True).result()
    yield "cleared"
    clock.now += 8 * 86_400.0
    store.sweep().result()
    yield "purged"
    given: list[Task] = []
    worker = Worker("v", ME, ("own",))
    order = store.order("owner:3", 10.0, worker, given.extend, lambda _: None)
    order.want(1)
    pair = [_task(arguments={"n": n}, queue="own") for n in range(2)]
    ids = [s.task_id for s in store.submit(pair).result()]
    assert [task.id for task in given] == ids[:1]
    yield "submitted and started in one commit"
    order.want(1)
    assert store.complete(ids[0], given[0].fence, CallResult("z")).result().accepted
    order.withdraw().result()
    assert [task.id for task in given] == ids
    yield "completed, and the next started"
    store.close().result()
    yield "closed again"


def large_life(open_store: Callable[[], SQLiteTaskStore], clock: Ticking) -> Iterator[str]:
    """Have results stored that are files, alone and alike, in vain and again, and removed.

    :returns: the names of the steps, each when it has been acknowledged.
    """
    store = open_store()
    yield "opened"
    store.submit([_task() for _ in range(6)]).result()
    yield "submitted"
    tasks = store.claim("owner:1", 6, 10.0).result()
    yield "claimed"
    for n, letter in enumerate("aab"):
        result = CallResult(letter * 3_000)
        assert store.complete(tasks[n].id, tasks[n].fence, result).result().accepted
        yield f"completed with a large {letter}"
    late = store.complete(tasks[3].id, tasks[3].fence - 1, CallResult("c" * 3_000)).result()
    assert not late.accepted
    yield "completed in vain"
    go = threading.Event()
    held = store._writer.do(lambda _: go.wait(10))
    both = [
        store.complete(tasks[n].id, tasks[n].fence, CallResult(letter * 3_000))
        for n, letter in ((3, "c"), (4, "d"))
    ]
    while store._writer._queue.qsize() < 2:
        time.sleep(0.001)
    go.set()
    assert held.result()
    assert all(each.result().accepted for each in both)
    yield "completed two in one commit"
    clock.now += 8 * 86_400.0
    assert store.sweep().result().purged == 5
    yield "purged"
    store.close().result()
    store = open_store()
    yield "opened again"
    store.submit([_task()]).result()
    yield "submitted again"
    store.recover("owner:2").result()
    yield "recovered"
    (task, *_) = store.claim("owner:2", 6, 10.0).result()
    yield "claimed again"
    assert store.complete(task.id, task.fence, CallResult("a" * 3_000)).result().accepted
    yield "completed with what had been removed"
    store.close().result()
    yield "closed"


def references(database: Path) -> list[str]:
    """Return the names of the files that the tasks of a database refer to."""
    connection = sqlite3.connect(f"{database.as_uri()}?vfs=unix", uri=True)
    try:
        found = connection.execute("SELECT blob FROM payload WHERE blob IS NOT NULL").fetchall()
    except sqlite3.OperationalError as error:
        # The tables were not all made yet.
        assert "no such" in str(error)
        return []
    finally:
        connection.close()
    return [name for (name,) in found]


def _task(**options: object) -> NewTask:
    arguments = options.pop("arguments", {"a": 1})
    return NewTask("add", arguments, ME, **options)  # type: ignore[arg-type]
