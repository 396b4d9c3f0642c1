"""What is the embedded engine's own about recurring tasks and registered workers."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import Principal
from mcpd_task_queue.records import Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore, workers
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


def test_a_worker_looks_so_far_into_a_queue_and_leaves_the_rest_to_the_built_in_one(
    store: SQLiteTaskStore, new: New, me: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FARTHEST", 3)
    *_, last = submit(store, *[new("other") for _ in range(3)], new("mine"))
    worker = Worker("w", me, ("default",), ("mine",))
    assert claim(store, 1, worker) == []
    claim(store, 1)
    assert [task.id for task in claim(store, 1, worker)] == [last]
