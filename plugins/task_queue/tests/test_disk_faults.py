"""A disk that is full, or that fails, at every single operation of a change.

The faults are injected below SQLite (`vfs_kit`), so that what is tested is what SQLite really makes
of them. Oracle: what was acknowledged is there, what was refused is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import StoreBroken, StoreFull, StoreUnusable
from mcpd_task_queue.limits import Limit, Limits
from mcpd_task_queue.records import Filter, NewTask, Renewal
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.sqlite.transaction import Transaction
from mcpd_task_queue.testing import Clock

from .vfs_kit import (
    SQLITE_FULL,
    SQLITE_IOERR_FSYNC,
    SQLITE_IOERR_TRUNCATE,
    SQLITE_IOERR_WRITE,
    UNAVAILABLE,
    Fail,
    Operation,
    Watcher,
    interposed,
)

New = Callable[..., NewTask]
Open = Callable[..., SQLiteTaskStore]

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE or "it can be interposed")


class Switch(Watcher):
    """Passes everything on to the fault of the moment."""

    def __init__(self) -> None:
        self.fault = Watcher()

    def before(self, operation: Operation) -> int | tuple[int, int]:
        return self.fault.before(operation)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Switch]:
    with interposed(tmp_path, Switch()) as switch:
        yield switch


@pytest.fixture
def open_(tmp_path: Path, clock: Clock, disk: Switch) -> Iterator[Open]:
    opened: list[SQLiteTaskStore] = []

    def open_(**options: Any) -> SQLiteTaskStore:
        store = SQLiteTaskStore(
            tmp_path / "tasks.db",
            clock=lambda: clock.wall,
            monotonic=lambda: clock.steady,
            **options,
        )
        opened.append(store)
        return store

    yield open_
    disk.fault = Watcher()
    for store in opened:
        store.close().result(10)


def ids(store: SQLiteTaskStore, me: Principal) -> list[str]:
    """Return the tasks of a store, oldest first."""
    return [task.id for task in store.find(me, Filter(), limit=1_000).result(10).tasks][::-1]


def counting(kind: str) -> Fail:
    """Return a fault that never happens, and counts how often it could have."""
    return Fail(kind, 0, times=0)


def test_the_layer_sees_what_is_written_and_synced(disk: Switch, open_: Open, new: New) -> None:
    store = open_()
    disk.fault = writes = counting("write")
    store.submit([new()]).result(10)
    assert writes.seen > 2
    disk.fault = syncs = counting("sync")
    store.submit([new()]).result(10)
    assert syncs.seen == 1, "one commit is one fsync"


@pytest.mark.parametrize("written", [None, 1], ids=["nothing written", "cut short"])
def test_a_disk_that_is_full_at_any_write_of_a_submit_refuses_it_and_goes_on_when_there_is_room(
    disk: Switch, open_: Open, new: New, me: Principal, written: int | None
) -> None:
    store = open_()
    acknowledged = [store.submit([new()]).result(10)[0].task_id]
    disk.fault = counted = counting("write")
    acknowledged.append(store.submit([new()]).result(10)[0].task_id)
    assert counted.seen > 5
    for number in range(counted.seen):
        disk.fault = fault = Fail("write", SQLITE_FULL, first=number, written=written)
        with pytest.raises(StoreFull, match="is full"):
            store.submit([new()]).result(10)
        assert len(fault.failed) >= 1
        assert not store.health().ok
        # A full disk keeps nobody from looking.
        assert ids(store, me) == acknowledged
        fault.mend()
        acknowledged.append(store.submit([new()]).result(10)[0].task_id)
        assert store.health().ok
    assert ids(store, me) == acknowledged
    store.close().result(10)
    assert ids(open_(), me) == acknowledged


def test_a_full_disk_refuses_everybody_whose_change_was_in_the_same_commit(
    disk: Switch, open_: Open, new: New, me: Principal
) -> None:
    store = open_()
    begun: Future[None] = Future()
    held: Future[None] = Future()

    def hold(_: Transaction) -> None:
        begun.set_result(None)
        held.result(10)

    holding = store._writer.do(hold)
    begun.result(10)
    waiting = [store.submit([new(arguments={"n": n})]) for n in range(50)]
    disk.fault = fault = Fail("write", SQLITE_FULL)
    held.set_result(None)
    holding.result(10)
    for future in waiting:
        with pytest.raises(StoreFull):
            future.result(10)
    assert fault.failed
    assert ids(store, me) == []
    assert store.health().counts["ready"] == 0
    fault.mend()
    (submitted,) = store.submit([new()]).result(10)
    assert ids(store, me) == [submitted.task_id]


def test_what_a_full_disk_kept_from_being_recorded_can_be_recorded_later(
    disk: Switch, open_: Open, new: New, me: Principal
) -> None:
    store = open_()
    store.submit([new()]).result(10)
    (task,) = store.claim("owner:1", 1, 30).result(10)
    disk.fault = fault = Fail("write", SQLITE_FULL)
    with pytest.raises(StoreFull):
        store.complete(task.id, task.fence, CallResult("done")).result(10)
    snapshot = store.get(me, task.id).result(10)
    assert snapshot is not None
    assert snapshot.task.state == "running"
    fault.mend()
    assert store.complete(task.id, task.fence, CallResult("done")).result(10).accepted
    assert not store.complete(task.id, task.fence, CallResult("done")).result(10).accepted


def test_a_change_that_a_full_disk_refused_leaves_the_lease_as_it_was(
    disk: Switch, open_: Open, new: New, clock: Clock
) -> None:
    """What is kept in memory beside the tables is undone with them, or setting the clock back
    would make a lease immortal."""
    store = open_()
    store.submit([new(repeatable=True)]).result(10)
    (task,) = store.claim("owner:1", 1, 30).result(10)
    disk.fault = fault = Fail("write", SQLITE_FULL)
    for refused in (
        store.complete(task.id, task.fence, CallResult("done")),
        store.renew([Renewal(task.id, task.fence)], 3_000),
    ):
        with pytest.raises(StoreFull):
            refused.result(10)
    fault.mend()
    clock.set_wall(-3_600)
    clock.advance(29)
    assert store.sweep().result(10).readied == 0
    clock.advance(2)
    assert store.sweep().result(10).readied == 1


def test_a_sweep_that_a_full_disk_refused_does_not_forget_that_a_rate_has_opened(
    disk: Switch, open_: Open, new: New, clock: Clock
) -> None:
    """Or what the rate held back would wait until something else happens."""
    store = open_(limits=Limits(queues={"slow": Limit(rate=1, per=60)}))
    store.submit([new(queue="slow", repeatable=True) for _ in range(2)]).result(10)
    (_,) = store.claim("owner:1", 5, 30).result(10)
    assert store.next_due().result(10) == pytest.approx(60)
    clock.advance(61)
    disk.fault = fault = Fail("write", SQLITE_FULL)
    # It has something to write, too: the lease of the one that runs has run out.
    with pytest.raises(StoreFull):
        store.sweep().result(10)
    fault.mend()
    assert store.next_due().result(10) == 0
    assert store.sweep().result(10).readied == 1
    assert store.next_due().result(10) is None


@pytest.mark.parametrize(
    ("kind", "error"), [("write", SQLITE_IOERR_WRITE), ("sync", SQLITE_IOERR_FSYNC)]
)
def test_after_an_io_error_at_any_point_of_a_submit_nothing_is_accepted_written_or_synced_again(
    disk: Switch, open_: Open, new: New, me: Principal, kind: str, error: int
) -> None:
    """A second fsync may report success for pages that the first one's failure threw away."""
    store = open_()
    disk.fault = counted = counting(kind)
    acknowledged = [store.submit([new()]).result(10)[0].task_id]
    store.close().result(10)
    assert counted.seen >= 1
    for number in range(0, counted.seen, 1 if kind == "sync" else 5):
        disk.fault = Watcher()
        store = open_()
        # Of the change whose fsync failed nobody can know; what was refused after it is not there.
        found = ids(store, me)
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) <= len(acknowledged) + (kind == "sync")
        acknowledged = [*found, store.submit([new()]).result(10)[0].task_id]
        # Once only: what comes later would succeed, and must not be relied on.
        disk.fault = fault = Fail(kind, error, first=number, times=1)
        for _ in range(counted.seen):
            try:
                acknowledged.append(store.submit([new()]).result(10)[0].task_id)
            except StoreBroken:
                break
        else:
            pytest.fail("the fault never came")
        assert len(fault.failed) == 1
        for _ in range(3):
            with pytest.raises(StoreBroken):
                store.submit([new()]).result(10)
        with pytest.raises(StoreBroken):
            store.sweep().result(10)
        assert "accepts no changes any more" in store.health().detail
        # It can still be looked at, and that closing it moves nothing is part of the promise.
        assert ids(store, me) == acknowledged
        store.close().result(10)
        assert [o for o in fault.later if o.kind != "open"] == []


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("write", SQLITE_FULL),
        ("write", SQLITE_IOERR_WRITE),
        ("sync", SQLITE_IOERR_FSYNC),
        ("truncate", SQLITE_IOERR_TRUNCATE),
    ],
)
def test_a_failure_while_the_log_is_moved_at_the_end_loses_nothing(
    disk: Switch, open_: Open, new: New, me: Principal, kind: str, error: int
) -> None:
    number, more = 0, True
    acknowledged: list[str] = []
    while more:
        disk.fault = Watcher()
        store = open_()
        assert ids(store, me) == acknowledged
        acknowledged += [s.task_id for s in store.submit([new()] * 3).result(10)]
        disk.fault = fault = Fail(kind, error, first=number)
        store.close().result(10)
        more = bool(fault.failed)
        number += 3
    disk.fault = Watcher()
    assert ids(open_(), me) == acknowledged
    assert number > 0


@pytest.mark.parametrize(
    ("kind", "error"),
    [("write", SQLITE_FULL), ("write", SQLITE_IOERR_WRITE), ("sync", SQLITE_IOERR_FSYNC)],
)
def test_a_store_that_cannot_be_made_for_want_of_a_disk_says_so_and_can_be_made_later(
    disk: Switch, open_: Open, new: New, me: Principal, kind: str, error: int
) -> None:
    for number in (0, 1, 2, 3, 10):
        disk.fault = fault = Fail(kind, error, first=number)
        try:
            open_().close().result(10)
        except StoreUnusable as unusable:
            assert "tasks.db" in unusable.message
            assert fault.failed
    disk.fault = Watcher()
    store = open_()
    (submitted,) = store.submit([new()]).result(10)
    assert ids(store, me) == [submitted.task_id]
