"""The embedded engine keeps the promises of the `TaskStore` protocol, and says why it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.capabilities import Capabilities
from mcpd_task_queue.errors import StoreClosed, TaskRefused
from mcpd_task_queue.records import BackedUp, Filter, NewTask, Recorded, Submitted, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.testing import Clock, New, OpenStore, TaskStoreConformance
from mcpd_task_queue.testing.capable import Capable


class TestTheEmbeddedEngine(TaskStoreConformance):
    """The fixture ``open_store`` of this folder opens it."""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"a": "x" * 2_000}, "The arguments take 2,008 bytes as JSON; a task may have 1,024"),
        ({"a": float("nan")}, "arguments cannot be stored as JSON"),
        ({"a": {1, 2}}, "arguments cannot be stored as JSON"),
        ({"a": "\ud800"}, "arguments cannot be stored as JSON"),
    ],
)
def test_arguments_that_cannot_be_stored_are_named(
    open_store: Callable[..., SQLiteTaskStore], new: New, arguments: Any, complaint: str
) -> None:
    with pytest.raises(TaskRefused, match=complaint):
        open_store(largest_arguments=1_024).submit([new(arguments=arguments)])


def test_refusals_say_why(store: SQLiteTaskStore, me: Principal) -> None:
    with pytest.raises(TaskRefused, match="result cannot be stored as JSON"):
        store.complete("task", 1, CallResult("", {"x": object()}))
    with pytest.raises(TaskRefused, match="'x' is not a cursor"):
        store.find(me, Filter(), cursor="x")
    store.register(Worker("w", me, ("a",), (), 4), 5).result()
    with pytest.raises(TaskRefused, match="may have 5 together, and 4 are taken"):
        store.register(Worker("v", me, ("a",), (), 2), 5).result()
    store.close().result()
    with pytest.raises(StoreClosed, match="is closed"):
        store.stats(me).result()


class Frugal(SQLiteTaskStore):
    """An engine that can do less, and says so: a queue that is first in, first out."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(
            super().capabilities,
            engine="frugal",
            delivery=("at_least_once",),
            priority=False,
            delay=False,
            recurring=False,
            result_limit=2_048,
            backup=False,
        )

    def backup(self, path: Path) -> Future[BackedUp]:
        raise TaskRefused("This engine makes no backups.")

    def check(self, task: NewTask) -> None:
        if lacking := self.capabilities.lacking(task):
            raise TaskRefused(f"This engine has no {lacking}.")
        super().check(task)

    def submit(self, batch: Sequence[NewTask]) -> Future[list[Submitted]]:
        for task in batch:
            self.check(task)
        return super().submit(batch)

    def complete(self, task_id: str, fence: int, result: CallResult) -> Future[Recorded]:
        if len(result.text) > 2_048:
            raise TaskRefused("The result is too large.")
        return super().complete(task_id, fence, result)


class TestAnEngineThatCanDoLess(Capable):
    """It is held to its own word."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, clock: Clock) -> Iterator[OpenStore]:
        opened = []

        def open_(name: str = "tasks.db", **options: Any) -> Frugal:
            store = Frugal(
                tmp_path / name,
                clock=lambda: clock.wall,
                monotonic=lambda: clock.steady,
                **options,
            )
            opened.append(store)
            return store

        yield open_
        for store in opened:
            store.close().result(10)

    @pytest.mark.parametrize(
        ("asked", "lacking"),
        [
            ({"delay": 1}, "delay"),
            ({"run_at": 1.0}, "delay"),
            ({"priority": 3}, "priority"),
            ({"cron": "* * * * *"}, "recurring"),
            ({"delivery": "at_most_once"}, "at_most_once"),
        ],
    )
    def test_what_it_cannot_do_is_skipped_by_name(
        self, new: New, asked: dict[str, Any], lacking: str
    ) -> None:
        with pytest.raises(pytest.skip.Exception, match=f"frugal says that it has no {lacking}"):
            new(**asked)


@pytest.mark.parametrize(
    "wrong",
    [{"delivery": ()}, {"payload_limit": 0}, {"dedup_window": -1.0}, {"delay": False}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_record_that_cannot_be_true_is_refused(
    store: SQLiteTaskStore, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "delay" not in wrong else "recur"):
        replace(store.capabilities, **wrong)


@pytest.mark.parametrize(("durability", "fsync"), [("full", "commit"), ("normal", "interval")])
def test_the_embedded_engine_says_what_its_answers_survive(
    open_store: OpenStore, durability: str, fsync: str
) -> None:
    store = open_store(durability=durability)
    assert isinstance(store, SQLiteTaskStore)
    assert store.capabilities.fsync == fsync
    levels = store._writer.do(lambda tx: tx.execute("PRAGMA synchronous").fetchall())
    ((level,),) = levels.result(10)
    assert level == {"full": 2, "normal": 1}[durability]
