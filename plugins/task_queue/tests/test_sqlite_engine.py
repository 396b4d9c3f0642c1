"""What is particular to the SQLite engine: group commit, the file, and what the disk does to it."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import McpdError, Principal
from mcpd_task_queue.errors import StoreBroken, StoreError, StoreFull, StoreUnusable
from mcpd_task_queue.metrics import Reading
from mcpd_task_queue.records import Change, Filter, NewTask, Whose
from mcpd_task_queue.sqlite import SQLiteTaskStore, connection, schema
from mcpd_task_queue.sqlite.changes import claim
from mcpd_task_queue.sqlite.connection import connect_reader, connect_writer, in_words
from mcpd_task_queue.sqlite.transaction import Transaction
from mcpd_task_queue.sqlite.transitions import Leases

New = Callable[..., NewTask]
OpenStore = Callable[..., SQLiteTaskStore]


class Held:
    """Holds the writer inside a commit of its own, so that what comes next has to queue."""

    def __init__(self, store: SQLiteTaskStore) -> None:
        self._go = threading.Event()
        inside = threading.Event()

        def operation(_: Transaction) -> None:
            inside.set()
            assert self._go.wait(10)

        self._future = store._writer.do(operation)
        assert inside.wait(10)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        self._go.set()
        self._future.result(10)


# --- group commit -------------------------------------------------------------------------------


def test_changes_that_arrive_during_a_commit_share_the_next_one(
    store: SQLiteTaskStore, new: New
) -> None:
    commits = store._writer.commits
    with Held(store):
        futures = [store.submit([new()]) for _ in range(100)]
        assert not any(future.done() for future in futures)
    assert all(future.result(10)[0].outcome == "created" for future in futures)
    assert store._writer.commits - commits == 2


def test_an_answer_comes_only_after_the_commit(
    store: SQLiteTaskStore, new: New, tmp_path: Path
) -> None:
    """Another connection, which sees committed changes only, has the task at that very moment."""
    seen = []

    def look(future: Future[Any]) -> None:
        reader = sqlite3.connect(tmp_path / "tasks.db")
        (task_id,) = (submitted.task_id for submitted in future.result())
        seen.append(reader.execute("SELECT id FROM task").fetchall() == [(task_id,)])
        reader.close()

    with Held(store):
        future = store.submit([new()])
        future.add_done_callback(look)
    future.result(10)
    store.close().result(10)
    assert seen == [True]


def test_a_bad_operation_is_undone_alone(store: SQLiteTaskStore, new: New) -> None:
    def bad(tx: Transaction) -> None:
        tx.execute("DELETE FROM task")
        tx.note("x", "ready", None, whose=Whose("local", "1", "default"))
        raise ZeroDivisionError("a defect")

    with Held(store):
        before = store.submit([new()])
        failed = store._writer.do(bad)
        wrong = store._writer.do(lambda tx: tx.execute("SELECT missing"))
        after = store.submit([new()])
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    with pytest.raises(StoreError, match="no such column"):
        wrong.result(10)
    assert before.result(10)[0].state == after.result(10)[0].state == "ready"
    assert store.health().counts["ready"] == 2


def test_a_group_is_run_again_one_by_one_only_when_one_of_it_fails(
    store: SQLiteTaskStore, new: New
) -> None:
    runs = []

    def watched(tx: Transaction) -> int:
        runs.append(len(tx.changes))
        return len(runs)

    def bad(_: Transaction) -> None:
        raise ZeroDivisionError("a defect")

    with Held(store):
        before, once = store.submit([new()]), store._writer.do(watched)
    assert once.result(10) == 1
    with Held(store):
        first, again = store.submit([new()]), store._writer.do(watched)
        failed, last = store._writer.do(bad), store.submit([new()])
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    assert again.result(10) == 3
    # Nothing of the run before is left: neither its changes nor its tasks nor its turns.
    assert runs == [1, 1, 1]
    ids = [future.result(10)[0].task_id for future in (before, first, last)]
    assert [task.id for task in store.claim("owner", 9, 60.0).result(10)] == ids
    assert store.health().counts["running"] == 3


def test_a_start_that_is_undone_is_not_measured(store: SQLiteTaskStore, new: New) -> None:
    def start_in_vain(tx: Transaction) -> None:
        claim(tx, Leases(), "owner", 9, 60.0, None)
        raise ZeroDivisionError("a defect")

    def waits() -> float:
        found = {metric.name: metric for metric in store.metrics()}
        reading = found["mcpd_tasks_wait_seconds"].values[()]
        assert isinstance(reading, Reading)
        return reading.count

    store.submit([new()]).result(10)
    with Held(store):
        failed = store._writer.do(start_in_vain)
        other = store.submit([new()])
    other.result(10)
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    assert waits() == 0
    assert len(store.claim("owner", 9, 60.0).result(10)) == 2
    assert waits() == 2


def test_what_was_given_up_before_its_turn_is_not_done(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    with Held(store):
        given_up = store.submit([new()])
        assert given_up.cancel()
    assert store.find(me, Filter()).result(10).tasks == ()


def test_a_query_that_is_given_up_is_not_run(store: SQLiteTaskStore, me: Principal) -> None:
    go = threading.Event()
    first = store._reader.do(lambda _: go.wait(10))
    given_up = store.stats(me)
    assert given_up.cancel()
    go.set()
    assert first.result(10)


def test_a_query_that_fails_is_reported_and_the_next_one_works(
    store: SQLiteTaskStore, me: Principal
) -> None:
    with pytest.raises(StoreError, match="no such table: missing while reading"):
        store._reader.do(lambda c: c.execute("SELECT * FROM missing")).result(10)
    with pytest.raises(ZeroDivisionError):
        store._reader.do(lambda _: 1 / 0).result(10)
    assert store.stats(me).result(10) == []


def test_the_reader_cannot_change_anything(store: SQLiteTaskStore) -> None:
    with pytest.raises(StoreError, match="readonly"):
        store._reader.do(lambda c: c.execute("DELETE FROM task")).result(10)


def test_a_listener_that_raises_harms_nobody(
    store: SQLiteTaskStore, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(_: Sequence[Change]) -> None:
        raise ZeroDivisionError

    store.listen(listener)
    assert store.submit([new()]).result(10)[0].outcome == "created"
    assert "a listener of the task store raised" in caplog.text


def test_closing_finishes_what_was_asked_for(open_store: OpenStore, new: New) -> None:
    store = open_store()
    with Held(store):
        pending = [store.submit([new()]) for _ in range(10)]
        closing = store.close()
    closing.result(10)
    assert all(future.result(0)[0].outcome == "created" for future in pending)
    assert open_store().health().counts["ready"] == 10


# --- the cost of a claim ------------------------------------------------------------------------


def test_neither_backlog_nor_history_is_scanned(store: SQLiteTaskStore) -> None:
    """The plan of each frequent statement uses the index that was made for it."""

    def plan(statement: str) -> str:
        rows = store._reader.do(
            lambda c: c.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        ).result(10)
        return "; ".join(row[3] for row in rows)

    due = plan("SELECT 1 FROM task WHERE state = 'scheduled' AND run_at <= 1 ORDER BY run_at")
    assert "task_due" in due
    leased = plan("SELECT 1 FROM task WHERE state = 'running' AND lease_until < 1")
    assert "task_leased" in leased
    old = plan(
        "SELECT 1 FROM task WHERE state = 'dead' AND finished_at IS NOT NULL AND finished_at < 1"
        " ORDER BY finished_at"
    )
    assert "SEARCH task USING" in old
    assert "INDEX task_settled (state=? AND finished_at" in old
    assert "TEMP B-TREE" not in old
    blob = plan("SELECT blob FROM payload WHERE blob IN ('a', 'b')")
    assert "SEARCH payload USING COVERING INDEX payload_blob (blob=?)" in blob
    assert "task_due" in plan("SELECT min(run_at) FROM task WHERE state = 'scheduled'")


# --- the file -----------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_only_and_is_synced_before_every_answer(
    open_store: OpenStore, tmp_path: Path
) -> None:
    store = open_store("deep/er/tasks.db")
    assert stat.S_IMODE((tmp_path / "deep" / "er").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "deep" / "er" / "tasks.db").stat().st_mode) == 0o600

    def pragma(name: str) -> Any:
        return store._writer.do(lambda tx: tx.execute(f"PRAGMA {name}").fetchone()[0]).result(10)

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)


def test_less_durability_has_to_be_asked_for(open_store: OpenStore) -> None:
    store = open_store(durability="normal")
    (synchronous,) = store._writer.do(
        lambda tx: tx.execute("PRAGMA synchronous").fetchone()
    ).result()
    assert synchronous == 1


def test_after_closing_the_one_file_is_everything(
    open_store: OpenStore, new: New, tmp_path: Path
) -> None:
    store = open_store()
    store.submit([new()]).result(10)
    store.close().result(10)
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "tasks.db", copy)
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT count(*) FROM task").fetchone() == (1,)
    connection.close()


def test_a_second_opener_is_refused_and_told_who_has_it(open_store: OpenStore) -> None:
    store = open_store()
    with pytest.raises(StoreUnusable, match=rf"in use by another process \(pid {os.getpid()}\)"):
        open_store()
    store.close().result(10)
    open_store()


def test_a_newer_format_is_refused(open_store: OpenStore, tmp_path: Path) -> None:
    open_store().close().result(10)
    connection = sqlite3.connect(tmp_path / "tasks.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnusable, match=r"newer mcpd-task-queue \(its format is 99"):
        open_store()


def test_a_foreign_database_is_left_alone(open_store: OpenStore, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "tasks.db")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreUnusable, match="not a task store"):
        open_store()


def test_what_is_no_database_is_refused(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "tasks.db").write_bytes(b"something else entirely" * 1_000)
    with pytest.raises(StoreUnusable, match="not a database"):
        open_store()


def test_a_folder_that_cannot_be_made_is_named(open_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match=r"file/tasks\.db cannot be opened: Not a directory"):
        open_store("file/tasks.db")


def test_a_sqlite_that_is_too_old_is_named(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(StoreUnusable, match=r"needs 3\.37\.0 or newer"):
        open_store()


def test_an_older_format_is_migrated_step_by_step(open_store: OpenStore, tmp_path: Path) -> None:
    open_store().close().result(10)
    path = tmp_path / "tasks.db"
    connection = connect_writer(path, "full")
    later = (*schema.MIGRATIONS, ("ALTER TABLE task ADD COLUMN extra TEXT",))
    instance = schema.migrate(connection, path, later)
    assert schema.migrate(connection, path, later) == instance
    assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)
    connection.execute("SELECT extra FROM task")
    connection.close()


def test_a_migration_that_fails_leaves_the_version_before_it(
    open_store: OpenStore, tmp_path: Path
) -> None:
    open_store().close().result(10)
    path = tmp_path / "tasks.db"
    connection = connect_writer(path, "full")
    broken = (*schema.MIGRATIONS, ("ALTER TABLE task ADD COLUMN extra TEXT", "NONSENSE"))
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, path, broken)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        connection.execute("SELECT extra FROM task")
    connection.close()
    open_store()


def test_a_connection_for_reading_never_moves_the_log(store: SQLiteTaskStore) -> None:
    connection = connect_reader(store.path)
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    assert connection.execute("PRAGMA query_only").fetchone() == (1,)
    connection.close()


# --- a disk that is full, or worse --------------------------------------------------------------


def test_a_full_store_refuses_cleanly_and_goes_on_when_there_is_room(
    open_store: OpenStore, new: New, me: Principal
) -> None:
    """SQLite's own limit on the size of the file raises the very error of a full disk."""
    store = open_store()

    def limit(pages: int) -> None:
        store._writer.do(lambda tx: tx.execute(f"PRAGMA max_page_count = {pages}")).result(10)

    (kept,) = store.submit([new()]).result(10)
    limit(40)
    acknowledged = [kept.task_id]
    big = new(arguments={"blob": "x" * 50_000})
    for _ in range(20):
        try:
            acknowledged.append(store.submit([big]).result(10)[0].task_id)
        except StoreFull as error:
            full = error
            break
    else:
        pytest.fail("the store never filled up")
    assert isinstance(full, McpdError)
    assert str(store.path) in full.message
    assert "database or disk is full" in full.message
    assert not store.health().ok
    assert "is full" in store.health().detail
    # A task that waits can still be looked at, and what needs no room still works.
    assert len(store.find(me, Filter()).result(10).tasks) == len(acknowledged)
    limit(1_000_000)
    acknowledged.append(store.submit([big]).result(10)[0].task_id)
    assert store.health().ok
    found = [task.id for task in store.find(me, Filter()).result(10).tasks]
    assert found == acknowledged[::-1]


def test_a_commit_that_fails_acknowledges_none_of_its_operations(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    def give_up(tx: Transaction) -> None:
        # As SQLite does by itself when it runs out of room in the middle of a statement.
        tx.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    heard: list[Any] = []
    store.listen(heard.extend)
    with Held(store):
        futures: list[Future[Any]] = [
            store.submit([new()]),
            store._writer.do(give_up),
            store.submit([new()]),
        ]
    for future in futures:
        with pytest.raises(StoreFull, match="while committing a change; nothing was changed"):
            future.result(10)
    assert heard == []
    assert store.find(me, Filter()).result(10).tasks == ()
    assert store.health().counts["ready"] == 0
    assert store.submit([new()]).result(10)[0].outcome == "created"


def test_after_a_failed_write_nothing_is_accepted_until_the_store_is_opened_anew(
    open_store: OpenStore, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    store.submit([new()]).result(10)

    def fail(_: Transaction) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StoreBroken, match="accepts no changes any more"):
        store._writer.do(fail).result(10)
    with pytest.raises(StoreBroken):
        store.submit([new()]).result(10)
    assert not store.health().ok
    store.close().result(10)
    store = open_store()
    assert store.health().counts["ready"] == 1
    assert store.submit([new()]).result(10)[0].outcome == "created"


def test_an_io_error_on_a_full_disk_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert isinstance(in_words(tmp_path / "x.db", error, "testing"), StoreFull)

    def fails(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(shutil, "disk_usage", fails)
    assert isinstance(in_words(tmp_path / "x.db", error, "testing"), StoreBroken)


def test_a_value_that_is_no_json_does_not_stop_the_store(store: SQLiteTaskStore, new: New) -> None:
    bad = store._writer.do(lambda tx: tx.execute("SELECT value FROM json_each('[oh')").fetchall())
    with pytest.raises(StoreError, match="malformed JSON") as caught:
        bad.result(10)
    assert not isinstance(caught.value, StoreBroken)
    assert store.submit([new()]).result(10)[0].outcome == "created"
    damage = sqlite3.DatabaseError("database disk image is malformed")
    assert isinstance(in_words(store.path, damage, "testing"), StoreBroken)


def test_names_that_are_there_already_are_made_safe_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(connection, "sync", synced.append)
    folder = tmp_path / "task_queue"
    folder.mkdir()
    (folder / "tasks.db").touch()
    connection.create(folder / "tasks.db")
    assert synced == [folder, tmp_path]

    def refuse(path: Path) -> None:
        if path == tmp_path:
            raise PermissionError

    monkeypatch.setattr(connection, "sync", refuse)
    connection.create(folder / "tasks.db")


def test_closing_a_file_that_cannot_be_written_any_more_is_only_logged(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    connection = store._writer._connection
    store._writer.do(lambda _: None).result(10)

    class Failing:
        def execute(self, _: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        def close(self) -> None:
            connection.close()

    store._writer._connection = Failing()  # type: ignore[assignment]
    store._writer.log._connection = Failing()  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING):
        store.close().result(10)
    assert "while closing" in caplog.text
    open_store()


FILL_A_SMALL_DISK = """
import sys
from pathlib import Path
from mcpd_core import Principal
from mcpd_task_queue.errors import StoreFull
from mcpd_task_queue.metrics import Reading
from mcpd_task_queue.records import Change, Filter, NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore

me = Principal("local", "0")
folder = Path(sys.argv[1])
store = SQLiteTaskStore(folder / "tasks.db")
ballast = folder / "ballast"
ballast.write_bytes(b"x" * 200_000)
task = NewTask("t", {"blob": "x" * 20_000}, me)
acknowledged = []
for _ in range(200):
    try:
        acknowledged.append(store.submit([task]).result()[0].task_id)
    except StoreFull as error:
        print("full:", error.message)
        break
else:
    raise SystemExit("never full")
ballast.unlink()
acknowledged.append(store.submit([task]).result()[0].task_id)
assert store.health().ok
found = []
cursor = None
while True:
    page = store.find(me, Filter(), cursor=cursor, limit=200).result()
    found += [t.id for t in page.tasks]
    cursor = page.cursor
    if cursor is None:
        break
assert found == acknowledged[::-1], (len(found), len(acknowledged))
store.close().result()
again = SQLiteTaskStore(folder / "tasks.db")
assert again.health().counts["ready"] == len(acknowledged)
again.close().result()
print("kept:", len(acknowledged))
"""


def _can_mount() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="mounting a small disk needs root and namespaces")
def test_a_disk_without_room_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Real ENOSPC, from a file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "fill.py"
    script.write_text(FILL_A_SMALL_DISK)
    command = f"mount -t tmpfs -o size=1m none {disk} && exec {sys.executable} {script} {disk}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert "is full" in done.stdout
    assert "kept:" in done.stdout


# --- the death of the process -------------------------------------------------------------------

PRODUCE = """
import sys, threading
from pathlib import Path
from mcpd_core import CallResult, Principal
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore

me = Principal("local", "0")
store = SQLiteTaskStore(Path(sys.argv[1]))
store.recover(sys.argv[2])
lock = threading.Lock()

def say(*words):
    with lock:
        sys.stdout.write(" ".join(words) + "\\n")
        sys.stdout.flush()

def produce():
    while True:
        say("submitted", store.submit([NewTask("t", {}, me, repeatable=True)]).result()[0].task_id)

def work():
    while True:
        for task in store.claim(sys.argv[2], 3, 60).result():
            done = store.complete(task.id, task.fence, CallResult(str(task.fence))).result()
            say("completed" if done.accepted else "refused", task.id)

threads = [threading.Thread(target=f, daemon=True) for f in (produce, produce, work)]
for thread in threads:
    thread.start()
say("up", str(__import__("os").getpid()))
threads[0].join()
"""


def test_a_killed_process_loses_nothing_that_it_acknowledged(
    open_store: OpenStore, tmp_path: Path, clock: Any
) -> None:
    script = tmp_path / "produce.py"
    script.write_text(PRODUCE)
    submitted: set[str] = set()
    completed: list[str] = []
    pids = set()
    for life in range(6):
        child = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "tasks.db"), f"life:{life}"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stdout is not None
        first = child.stdout.readline().split()
        while first[0] != "up":
            (submitted.add if first[0] == "submitted" else completed.append)(first[1])
            first = child.stdout.readline().split()
        pids.add(int(first[1]))
        time.sleep(0.02 + 0.03 * life)  # only to die at various points
        child.kill()
        # What was written before the kill is still in the pipe; a torn last line says nothing.
        for line in child.stdout.read().splitlines(keepends=True):
            word, _, task_id = line.partition(" ")
            if task_id.endswith("\n") and len(task_id) == 33:
                if word == "submitted":
                    submitted.add(task_id.strip())
                elif word == "completed":
                    completed.append(task_id.strip())
        child.stdout.close()
        assert child.wait(10) == -9
    assert len(pids) == 6
    assert len(completed) == len(set(completed)), "a task was completed twice"
    store = open_store()
    integrity = store._reader.do(lambda c: c.execute("PRAGMA integrity_check").fetchall())
    assert integrity.result(10) == [("ok",)]
    rows = store._reader.do(lambda c: dict(c.execute("SELECT id, state FROM task"))).result(10)
    assert submitted <= rows.keys()
    assert len(submitted) > 50
    assert all(rows[task_id] == "succeeded" for task_id in completed)
