"""The write-ahead log stays small, or it is said why it does not, and who has to let go."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import LookUpTooSlow, StoreBroken, StoreFull
from mcpd_task_queue.records import Filter, NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore, log
from mcpd_task_queue.sqlite.connection import connect_reader
from mcpd_task_queue.sqlite.holders import holders_of, readers_among
from mcpd_task_queue.sqlite.reader import Reader

New = Callable[..., NewTask]
OpenStore = Callable[..., SQLiteTaskStore]

MiB = 1 << 20
#: Another program, which reads and then forgets to end its transaction.
FORGETFUL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM task").fetchall()
print("reading", flush=True)
sys.stdin.read()
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who holds a lock")


@contextmanager
def forgetful(store: SQLiteTaskStore) -> Iterator[int]:
    """Run the other program; yields its process id."""
    with subprocess.Popen(
        [sys.executable, "-c", FORGETFUL, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        try:
            yield process.pid
        finally:
            process.kill()


def fill(store: SQLiteTaskStore, new: New, megabytes: int) -> None:
    """Submit tasks whose arguments amount to so much, in commits of a quarter of a megabyte."""
    for _ in range(megabytes * 4):
        store.submit([new(arguments={"a": "x" * 65_000}) for _ in range(4)]).result(20)


def size_of_log(store: SQLiteTaskStore) -> int:
    return os.path.getsize(f"{store.path}-wal")


def tasks_without_the_log(store: SQLiteTaskStore, folder: Path) -> int:
    """Count the tasks in a copy of the database file alone."""
    copy = shutil.copy(store.path, folder / "copy.db")
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as connection:
        (tasks,) = connection.execute("SELECT count(*) FROM task").fetchone()
    return int(tasks)


def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens on another thread."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def at_rest(store: SQLiteTaskStore) -> bool:
    return store._writer.log.wait is None


# --- nobody pins it -----------------------------------------------------------------------------


def test_it_stays_small_however_much_is_written(open_store: OpenStore, new: New) -> None:
    store = open_store(largest_log=32 * MiB)
    fill(store, new, 24)
    assert size_of_log(store) <= 8 * MiB
    assert store.health().detail == ""


def test_a_burst_that_makes_it_large_at_once_is_no_reason_to_refuse_anything(
    open_store: OpenStore, new: New
) -> None:
    store = open_store(largest_log=4 * MiB)
    for _ in range(3):
        store.submit([new(arguments={"a": "x" * 500_000}) for _ in range(20)]).result(20)
    assert (store.health().ok, store.health().detail) == (True, "")


def test_it_is_moved_when_nothing_is_done_and_then_nobody_looks_again(
    open_store: OpenStore, new: New, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(log, "IDLE", 0.01)
    store = open_store()
    fill(store, new, 1)
    until(lambda: at_rest(store))
    assert tasks_without_the_log(store, tmp_path) == 16
    # With nothing to wake it, its thread sleeps until it is asked for something.
    assert store._writer._rest() is None
    fill(store, new, 1)
    until(lambda: at_rest(store))
    assert tasks_without_the_log(store, tmp_path) == 32


def test_at_rest_its_file_is_kept_to_be_written_anew_unless_it_is_large(
    open_store: OpenStore, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "IDLE", 0.01)
    store = open_store()
    fill(store, new, 1)
    until(lambda: at_rest(store))
    size = size_of_log(store)
    assert 0 < size <= log.KEPT
    store.submit([new()]).result(10)
    assert size_of_log(store) == size
    store.submit([new(arguments={"a": "x" * 500_000}) for _ in range(20)]).result(20)
    assert size_of_log(store) > log.KEPT
    until(lambda: at_rest(store))
    assert size_of_log(store) == 0


def test_a_disk_that_fails_while_it_is_emptied_breaks_the_store(
    open_store: OpenStore, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()

    def fail(_: log.Log, kept: int) -> bool:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(log, "IDLE", 0.01)
    with monkeypatch.context() as failing:
        failing.setattr(log.Log, "empty", fail)
        store.submit([new()]).result(10)
        until(lambda: not store.health().ok)
    assert "while emptying its log" in store.health().detail
    # Nobody can tell what reached the disk, so that is not tried again either.
    assert store._writer._rest() is None
    with pytest.raises(StoreBroken):
        store.submit([new()]).result(10)
    with pytest.raises(StoreBroken):
        store._writer.between(lambda connection: None).result(10)


# --- somebody does ------------------------------------------------------------------------------


@linux
def test_whoever_pins_it_is_named_while_the_work_goes_on(
    open_store: OpenStore, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(largest_log=32 * MiB)
    store.submit([new()]).result(10)
    with forgetful(store) as pid:
        fill(store, new, 12)
        assert size_of_log(store) > 8 * MiB
        health = store.health()
        assert health.ok
        assert health.detail.startswith("The log tasks.db-wal has ")
        assert f"because process {pid} (python" in health.detail
        assert caplog.text.count("keeps a transaction of tasks.db open") == 1, "not again and again"
    fill(store, new, 4)
    until(lambda: store.health().detail == "")


@linux
def test_beyond_its_limit_new_tasks_are_refused_and_what_runs_is_still_recorded(
    open_store: OpenStore, new: New, me: Principal
) -> None:
    store = open_store(largest_log=8 * MiB)
    first = store.submit([new(idempotency_key="k")]).result(10)[0].task_id
    (task,) = store.claim("owner:1", 1, 30).result(10)
    with forgetful(store) as pid:
        with pytest.raises(StoreFull) as caught:
            fill(store, new, 16)
        assert 8 * MiB < size_of_log(store) <= 9 * MiB
        assert "takes no new tasks: the log tasks.db-wal has " in caught.value.message
        assert caught.value.hint.endswith(f"kill {pid}")
        assert str(pid) in store.health().detail
        assert not store.health().ok
        # Neither what has ended nor what is there already needs to be asked for twice.
        assert store.complete(first, task.fence, CallResult("done")).result(10).accepted
        again = store.submit([new(idempotency_key="k")]).result(10)[0]
        assert (again.outcome, again.task_id) == ("existing", first)
        waiting = store.count(me, Filter(state="ready")).result(10)
        with pytest.raises(StoreFull):
            store.submit([new()]).result(10)
        assert store.count(me, Filter(state="ready")).result(10) == waiting
    # Once it has let go, nothing has to be restarted.
    assert store.submit([new()]).result(10)[0].outcome == "created"
    assert size_of_log(store) <= MiB
    assert (store.health().ok, store.health().detail) == (True, "")


@linux
def test_beyond_its_reserve_nothing_is_stored_until_there_is_room_again(
    open_store: OpenStore, new: New, me: Principal
) -> None:
    store = open_store(largest_log=4 * MiB)
    store.submit([new() for _ in range(40)]).result(10)
    tasks = store.claim("owner:1", 40, 30).result(10)
    with forgetful(store):
        with pytest.raises(StoreFull):
            fill(store, new, 8)
        recorded: list[str] = []

        def record_all() -> None:
            for task in tasks:
                result = CallResult("x" * 200_000)
                assert store.complete(task.id, task.fence, result).result(10).accepted
                recorded.append(task.id)

        with pytest.raises(StoreFull, match="takes no changes"):
            record_all()
        assert 0 < len(recorded) < 40
        assert size_of_log(store) <= 6 * MiB
    late = tasks[len(recorded)]
    assert store.complete(late.id, late.fence, CallResult("late")).result(10).accepted
    ended = store.count(me, Filter(state="succeeded")).result(10)
    assert ended == len(recorded) + 1


@linux
def test_a_log_that_was_pinned_is_moved_once_it_can_be_without_another_commit(
    open_store: OpenStore, new: New, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(log, "IDLE", 0.01)
    monkeypatch.setattr(log, "LONGEST_IDLE", 0.05)
    store = open_store()
    store.submit([new()]).result(10)
    with forgetful(store):
        fill(store, new, 1)
        until(lambda: store._writer.log.wait == 0.05)
        assert size_of_log(store) > MiB
        assert tasks_without_the_log(store, tmp_path) < 17
    until(lambda: at_rest(store))
    assert tasks_without_the_log(store, tmp_path) == 17


@linux
def test_a_store_is_closed_and_opened_whoever_pins_it(open_store: OpenStore, new: New) -> None:
    store = open_store()
    ids = [s.task_id for s in store.submit([new(), new()]).result(10)]
    with forgetful(store):
        store.close().result(10)
    assert [task.id for task in open_store().claim("owner:2", 5, 30).result(10)] == ids


@linux
def test_our_own_reader_is_waited_for_and_nobody_is_accused(
    open_store: OpenStore, new: New
) -> None:
    store = open_store(largest_log=4 * MiB)
    go, inside = threading.Event(), threading.Event()

    def slow(connection: object) -> bool:
        store._reader._connection.execute("SELECT count(*) FROM task").fetchall()
        inside.set()
        return go.wait(20)

    reading = store._reader.do(slow)
    assert inside.wait(10)
    for _ in range(4):
        store.submit([new(arguments={"a": "x" * 300_000}) for _ in range(4)]).result(20)
    assert size_of_log(store) > 4 * MiB
    assert (store.health().ok, store.health().detail) == (True, "")
    go.set()
    assert reading.result(10)


def test_a_look_up_that_takes_too_long_is_given_up(store: SQLiteTaskStore) -> None:
    reader = Reader(store.path, connect_reader(store.path), "slow", limit=0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(LookUpTooSlow, match="given up after 0.05 s"):
        reader.do(lambda connection: connection.execute(endless).fetchall()).result(20)
    # It holds no transaction, and goes on.
    assert not reader._connection.in_transaction
    answer = reader.do(lambda connection: connection.execute("SELECT 1").fetchall())
    assert answer.result(10) == [(1,)]
    reader.close().result(10)


# --- who holds a lock ---------------------------------------------------------------------------

LOCKS = """\
1: POSIX  ADVISORY  READ  100 08:01:42 124 124
2: POSIX  ADVISORY  READ  100 08:01:42 128 128
3: POSIX  ADVISORY  READ  101 00:1f:42 120 127
4: POSIX  ADVISORY  READ  102 08:01:42 128 128
5: POSIX  ADVISORY  WRITE 103 08:01:42 120 120
6: POSIX  ADVISORY  READ  104 08:01:43 124 124
6: -> POSIX  ADVISORY  READ  105 08:01:42 124 124
7: FLOCK  ADVISORY  READ  106 08:01:42 0 EOF
8: POSIX  ADVISORY  READ  107 08:01:42 0 EOF
9: OFDLCK ADVISORY  READ  -1 08:01:42 124 124
10: POSIX  ADVISORY  READ  100 08:01:42 125 125
"""


def test_readers_are_those_with_a_mark_in_the_shared_memory() -> None:
    assert readers_among(LOCKS.splitlines(), 42) == [100, 101, 107]


@linux
def test_readers_are_told_by_their_names_and_ourselves_never(
    store: SQLiteTaskStore, new: New
) -> None:
    store.submit([new()]).result(10)
    assert holders_of(store.path) == []
    with forgetful(store) as pid:
        found = holders_of(store.path)
        assert found is not None
        (holder,) = found
        assert holder.pid == pid
        assert str(holder).startswith(f"process {pid} (python")


def test_nobody_is_known_where_there_is_no_log(tmp_path: Path) -> None:
    assert holders_of(tmp_path / "tasks.db") is None
