"""What is the embedded engine's own about recurring tasks, whole queues and registered workers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from mcpd_core import Principal
from mcpd_task_queue.records import QueueChanged, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore, workers
from mcpd_task_queue.sqlite.order import best
from mcpd_task_queue.sqlite.transaction import Transaction
from mcpd_task_queue.testing import New
from mcpd_task_queue.testing.suite import claim, look, submit


def test_a_recurring_task_whose_zone_has_gone_fails_alone(
    store: SQLiteTaskStore, new: New, me: Principal, clock: Any
) -> None:
    gone, fine = submit(store, new(cron="* * * * *", timezone="Europe/Berlin"), new(delay=5))
    store._writer.do(
        lambda tx: tx.execute("UPDATE task SET timezone = 'Gone/Away' WHERE id = ?", (gone,))
    ).result()
    clock.advance(60)
    assert store.sweep().result().readied == 1
    assert look(store, me, fine).task.state == "ready"
    task = look(store, me, gone).task
    assert (task.state, task.reason) == ("failed", "'Gone/Away' is no time zone.")


@pytest.mark.parametrize(
    ("mine", "capability"), [(("mine", ()), "mine"), (("other", ("t", "mine")), "mine")]
)
def test_what_a_worker_looks_at_does_not_grow_with_what_it_does_not_take(
    store: SQLiteTaskStore, new: New, me: Principal, mine: tuple[str, Any], capability: str
) -> None:
    worker = Worker("w", me, ("default", "spare"), (capability,))

    def steps() -> int:
        """Let the worker look for its best tasks; returns what SQLite had to do for it."""

        def look_for(tx: Transaction) -> int:
            counted = 0

            def count() -> int:
                nonlocal counted
                counted += 1
                return 0

            store._writer._connection.set_progress_handler(count, 1)
            try:
                assert len(best(tx, list(workers.ranges(tx, worker)), 2)) == 1
            finally:
                store._writer._connection.set_progress_handler(None, 0)
            return counted

        return store._writer.do(look_for).result()

    tool, tags = mine
    submit(store, new(tool, tags=tags))
    alone = steps()
    submit(store, *[new("other", tags=("t",), priority=5) for _ in range(2_000)])
    assert steps() <= alone + 10
    assert [task.tags for task in claim(store, 5, worker)] == [tags]


@pytest.mark.parametrize("change", ["pause", "resume", "clear"])
def test_what_is_done_to_a_whole_queue_does_not_grow_with_what_has_ended(
    store: SQLiteTaskStore, new: New, me: Principal, change: str
) -> None:
    changes: dict[str, Callable[[], Future[QueueChanged]]] = {
        "pause": lambda: store.pause(me, "default", ""),
        "resume": lambda: store.resume(me, "default"),
        "clear": lambda: store.clear(me, "default"),
    }
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def watch(handler: Callable[[], int] | None) -> None:
        connection = store._writer._connection
        store._writer.do(lambda _: connection.set_progress_handler(handler, 1)).result()

    def steps() -> int:
        """Make all changes of twenty tasks; returns what SQLite had to do for the one."""
        nonlocal counted
        submit(store, *[new() for _ in range(20)])
        counted = 0
        for name, make in changes.items():
            watch(count if name == change else None)
            assert make().result().tasks == 20
        watch(None)
        return counted

    alone = steps()
    submit(store, *[new() for _ in range(2_000)])
    store.clear(me, "default").result()
    assert alone > 0
    assert steps() <= alone * 1.1


def test_a_task_is_found_by_its_tags_exactly_while_it_is_ready(
    store: SQLiteTaskStore, new: New, me: Principal, clock: Any
) -> None:
    def tagged() -> list[tuple[str, int]]:
        query = "SELECT tag, priority FROM ready_tag ORDER BY tag, priority"
        return store._writer.do(lambda tx: tx.execute(query).fetchall()).result()

    (task,) = submit(store, new(tags=("a", "b")))
    assert tagged() == [("a", 0), ("b", 0)]
    store.prioritise(me, task, 3).result()
    assert tagged() == [("a", 3), ("b", 3)]
    store.pause(me, "default", "").result()
    assert tagged() == []
    store.resume(me, "default").result()
    assert tagged() == [("a", 3), ("b", 3)]
    (started,) = claim(store)
    assert tagged() == []
    store.release(task, started.fence, "busy").result()
    assert tagged() == [("a", 3), ("b", 3)]
    store.cancel(me, task).result()
    submit(store, new(delay=5, tags=("c",)), new(cron="* * * * *", tags=("d",)))
    assert tagged() == []
    clock.advance(60)
    store.sweep().result()
    assert tagged() == [("c", 0), ("d", 0)]
