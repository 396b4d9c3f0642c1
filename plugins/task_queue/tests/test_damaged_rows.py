"""A task of which something stored cannot be read costs nobody anything but itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import Principal
from mcpd_task_queue.limits import Limit, Limits
from mcpd_task_queue.records import Filter, NewTask, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore

New = Callable[..., NewTask]
OpenStore = Callable[..., SQLiteTaskStore]

#: What may be damaged: the statement that does it, and what it is damaged with.
DAMAGES = {
    "tags": ("UPDATE task SET tags = ? WHERE id = ?", "[oh"),
    "tags that are no list": ("UPDATE task SET tags = ? WHERE id = ?", "{}"),
    "arguments": (
        "UPDATE payload SET arguments = ? WHERE seq = (SELECT seq FROM task WHERE id = ?)",
        '{"a":',
    ),
    "the retry policy": ("UPDATE task SET retry = ? WHERE id = ?", '{"multiplier": "two"}'),
}


@pytest.fixture(params=DAMAGES, ids=lambda name: str(name).replace(" ", "_"))
def damage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], None]:
    """Damages a task in a store that is closed."""
    statement, value = DAMAGES[request.param]

    def do(task_id: str) -> None:
        with closing(sqlite3.connect(tmp_path / "tasks.db", isolation_level=None)) as connection:
            (trigger,) = connection.execute(
                "SELECT sql FROM sqlite_schema WHERE name = 'task_moved'"
            ).fetchone()
            # As a failing disk would: no trigger takes note of it.
            connection.execute("DROP TRIGGER task_moved")
            assert connection.execute(statement, (value, task_id)).rowcount == 1
            connection.execute(trigger)

    return do


def prepare(
    open_store: OpenStore, new: New, damage: Callable[[str], None], **options: Any
) -> tuple[SQLiteTaskStore, str, list[str]]:
    """Open a store in which the second of three tasks is damaged; it and the others."""
    store = open_store()
    made = store.submit([new(tags=("t", "u")) for _ in range(3)]).result(10)
    first, bad, last = (submitted.task_id for submitted in made)
    store.close().result(10)
    damage(bad)
    return open_store(**options), bad, [first, last]


def test_a_claim_starts_all_the_others_and_says_of_the_one_what_is_wrong(
    open_store: OpenStore, new: New, me: Principal, damage: Callable[[str], None]
) -> None:
    store, bad, others = prepare(open_store, new, damage)
    assert [task.id for task in store.claim("o", 9, 30).result(10)] == others
    found = store.get(me, bad, payload=True, events=9).result(10)
    assert found is not None
    assert (found.task.state, found.task.attempts) == ("dead", 0)
    assert found.task.error is not None
    assert found.task.error["code"] == "unreadable"
    assert "what is stored of it cannot be read" in found.task.reason
    assert store.health().ok


def test_it_is_listed_with_the_others_and_can_be_cancelled(
    open_store: OpenStore, new: New, me: Principal, damage: Callable[[str], None]
) -> None:
    store, bad, others = prepare(open_store, new, damage)
    assert {task.id for task in store.find(me, Filter()).result(10).tasks} == {bad, *others}
    assert len(store.export(me, Filter()).result(10).snapshots) == 3
    assert store.pause(me, "default", "").result(10).tasks == 3
    assert store.resume(me, "default").result(10).tasks == 3
    assert store.prioritise(me, bad, 7).result(10) is not None
    cancelled = store.cancel(me, bad).result(10)
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    assert [task.id for task in store.claim("o", 9, 30).result(10)] == others


def test_a_worker_that_goes_by_tags_takes_the_others(
    open_store: OpenStore, new: New, me: Principal, damage: Callable[[str], None]
) -> None:
    store, _, others = prepare(open_store, new, damage)
    worker = Worker("w", me, ("default",), ("t",))
    assert [task.id for task in store.claim("o", 9, 30, worker).result(10)] == others


def test_a_start_with_other_limits_moves_it_with_the_others(
    open_store: OpenStore, new: New, damage: Callable[[str], None]
) -> None:
    limits = Limits(queues={"default": Limit(concurrency=5)})
    store, _, others = prepare(open_store, new, damage, limits=limits)
    assert [task.id for task in store.claim("o", 9, 30).result(10)] == others
