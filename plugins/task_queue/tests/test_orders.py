"""Standing orders of the SQLite engine: what shares a commit, and what a failure leaves of it.

What every engine promises of them is in `mcpd_task_queue.testing.standing`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import StoreBroken, StoreFull
from mcpd_task_queue.limits import Limit, Limits
from mcpd_task_queue.records import NewTask, Task
from mcpd_task_queue.sqlite import SQLiteTaskStore, changes
from mcpd_task_queue.sqlite.transaction import Transaction
from mcpd_task_queue.store import Order

New = Callable[..., NewTask]
OpenStore = Callable[..., SQLiteTaskStore]


class Waiting:
    """Somebody who waits for tasks of a store."""

    def __init__(self, store: SQLiteTaskStore, wanted: int) -> None:
        self.tasks: list[Task] = []
        self.errors: list[BaseException] = []
        self.order: Order = store.order(
            "owner:2", 30.0, None, self.tasks.extend, self.errors.append
        )
        self.order.want(wanted)
        store.renew([], 30.0).result(10)

    @property
    def ids(self) -> list[str]:
        return [task.id for task in self.tasks]


def ids_of(submitted: Future[Any]) -> list[str]:
    return [answer.task_id for answer in submitted.result(10)]


def test_a_submit_and_its_start_are_one_commit(store: SQLiteTaskStore, new: New) -> None:
    waiting = Waiting(store, 4)
    commits = store._writer.commits
    for _ in range(4):
        store.submit([new()]).result(10)
    assert len(waiting.tasks) == 4
    assert store._writer.commits - commits == 4


def test_an_outcome_and_the_next_start_are_one_commit(store: SQLiteTaskStore, new: New) -> None:
    waiting = Waiting(store, 1)
    ids = ids_of(store.submit([new() for _ in range(4)]))
    gate = threading.Event()
    for n in range(3):
        commits = store._writer.commits
        gate.clear()
        store._writer.between(lambda _: gate.wait(10))
        recorded = store.complete(ids[n], waiting.tasks[n].fence, CallResult(""))
        waiting.order.want(1)
        gate.set()
        assert recorded.result(10).accepted
        assert waiting.ids == ids[: n + 2]
        assert store._writer.commits - commits == 1


def test_more_is_wanted_at_no_cost_where_nothing_was_left_behind(
    store: SQLiteTaskStore, new: New
) -> None:
    waiting = Waiting(store, 4)
    store.submit([new()]).result(10)
    commits = store._writer.commits
    waiting.order.want(1)
    store._writer.between(lambda _: None).result(10)
    assert store._writer.commits == commits


def test_a_start_is_delivered_only_after_the_commit(
    store: SQLiteTaskStore, new: New, tmp_path: Path
) -> None:
    """Another connection, which sees committed changes only, has the start at that very moment."""
    seen: list[Any] = []

    def deliver(tasks: Sequence[Task]) -> None:
        reader = sqlite3.connect(tmp_path / "tasks.db")
        for task in tasks:
            row = "SELECT state, fence FROM task WHERE id = ?"
            seen.append(reader.execute(row, (task.id,)).fetchone() == ("running", task.fence))
        reader.close()

    store.order("owner:2", 30.0, None, deliver, seen.append).want(1)
    store.submit([new()]).result(10)
    store.close().result(10)
    assert seen[0] is True


def test_a_commit_that_fails_takes_its_starts_back(
    open_store: OpenStore, new: New, me: Principal
) -> None:
    store = open_store(limits=Limits(queues={"gpu": Limit(concurrency=1)}))
    waiting = Waiting(store, 2)

    def give_up(tx: Transaction) -> None:
        tx.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    fill = store._writer._orders.fill

    def fill_and_fail(tx: Transaction) -> Any:
        found = fill(tx)
        assert [len(tasks) for _, tasks in found] == [1]
        give_up(tx)

    store._writer._orders.fill = fill_and_fail  # type: ignore[method-assign]
    with pytest.raises(StoreFull):
        store.submit([new(queue="gpu")]).result(10)
    store._writer._orders.fill = fill  # type: ignore[method-assign]
    assert waiting.tasks == []
    assert [type(error) for error in waiting.errors] == [StoreFull]
    # Its slot, its limit and its turn are as if nothing had been tried.
    started = ids_of(store.submit([new(queue="gpu"), new()]))
    assert waiting.ids == started
    assert store.health().counts["running"] == 2


def test_a_start_that_fails_does_not_take_the_submit_with_it(
    store: SQLiteTaskStore, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Waiting(store, 1)

    def fail(*_: Any) -> list[Task]:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as broken:
        broken.setattr(changes, "claim", fail)
        (task_id,) = ids_of(store.submit([new()]))
    assert store.health().counts["ready"] == 1
    assert [type(error) for error in waiting.errors] == [ZeroDivisionError]
    assert waiting.tasks == []
    waiting.order.want(0)
    store.renew([], 30.0).result(10)
    assert waiting.ids == [task_id]


def test_a_broken_store_says_so_to_those_who_wait(store: SQLiteTaskStore) -> None:
    waiting = Waiting(store, 1)

    def fail(_: Transaction) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StoreBroken):
        store._writer.do(fail).result(10)
    assert [type(error) for error in waiting.errors] == [StoreBroken]
    waiting.order.withdraw().result(10)


def test_somebody_who_raises_harms_nobody(
    store: SQLiteTaskStore, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    def deliver(_: Sequence[Task]) -> None:
        raise ZeroDivisionError

    store.order("owner:2", 30.0, None, deliver, deliver).want(1)  # type: ignore[arg-type]
    assert store.submit([new()]).result(10)[0].outcome == "created"
    assert "whoever ordered tasks of the task store raised" in caplog.text
