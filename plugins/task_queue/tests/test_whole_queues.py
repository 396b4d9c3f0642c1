"""Pausing, resuming and clearing a queue with many tasks, a few of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from mcpd_core import Principal
from mcpd_task_queue.errors import StoreClosed, TaskRefused
from mcpd_task_queue.records import Filter, NewTask, QueueChanged
from mcpd_task_queue.sqlite import SQLiteTaskStore, whole

from .test_sqlite_engine import Held

New = Callable[..., NewTask]
OpenStore = Callable[..., SQLiteTaskStore]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "PART", 3)


def fill(store: SQLiteTaskStore, new: New, number: int = 10, **options: Any) -> list[str]:
    made = store.submit([new(**options) for _ in range(number)]).result(10)
    return [submitted.task_id for submitted in made]


def states(store: SQLiteTaskStore) -> dict[str, int]:
    return {state: count for state, count in store.health().counts.items() if count}


@pytest.mark.parametrize("change", ["pause", "resume", "clear"])
def test_others_are_served_between_the_parts(
    store: SQLiteTaskStore, new: New, me: Principal, change: str
) -> None:
    fill(store, new)
    if change == "resume":
        store.pause(me, "default", "").result(10)
    order: list[str] = []

    def note(name: str) -> Callable[[Future[Any]], None]:
        return lambda _: order.append(name)

    commits = store._writer.commits
    with Held(store):
        doing = {
            "pause": lambda: store.pause(me, "default", "later"),
            "resume": lambda: store.resume(me, "default"),
            "clear": lambda: store.clear(me, "default"),
        }[change]()
        doing.add_done_callback(note(change))
        submitting = store.submit([new(queue="other")])
        submitting.add_done_callback(note("submit"))
    done = doing.result(10)
    assert (done.changed, done.tasks) == (True, 10)
    assert order == ["submit", change]
    # The one that held the writer, and ten tasks by three.
    assert store._writer.commits - commits == 1 + 4
    assert store._writer.commits > commits


def test_until_a_pause_is_answered_tasks_may_start_and_none_does_afterwards(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    fill(store, new)
    with Held(store):
        pausing = store.pause(me, "default", "")
        claiming = store.claim("o", 4, 30)
    started = claiming.result(10)
    assert len(started) == 4
    assert pausing.result(10).tasks == 6
    assert store.claim("o", 4, 30).result(10) == []
    (late,) = fill(store, new, 1)
    found = store.get(me, late).result(10)
    assert found is not None
    assert found.task.state == "paused"


def test_what_is_submitted_during_a_resume_starts_after_what_was_there(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    before = fill(store, new)
    store.pause(me, "default", "").result(10)
    with Held(store):
        resuming = store.resume(me, "default")
        submitting = store.submit([new()])
    (late,) = submitting.result(10)
    assert late.state == "paused"
    assert resuming.result(10) == QueueChanged(True, 11, 11, 0, None)
    started = store.claim("o", 20, 30).result(10)
    assert [task.id for task in started] == [*before, late.task_id]


def test_what_is_submitted_during_a_clear_stays(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    fill(store, new)
    with Held(store):
        clearing = store.clear(me, "default")
        submitting = store.submit([new() for _ in range(5)])
    submitting.result(10)
    assert (clearing.result(10).tasks, clearing.result(10).waiting) == (10, 5)
    assert states(store) == {"cancelled": 10, "ready": 5}


@pytest.mark.parametrize("later", ["pause", "resume"])
def test_of_a_pause_and_a_resume_at_the_same_time_the_later_one_wins(
    store: SQLiteTaskStore, new: New, me: Principal, later: str
) -> None:
    fill(store, new, 20)
    if later == "pause":
        store.pause(me, "default", "").result(10)
    with Held(store):
        if later == "resume":
            first, second = store.pause(me, "default", ""), store.resume(me, "default")
        else:
            first, second = store.resume(me, "default"), store.pause(me, "default", "again")
    assert (first.result(10).pause is None) or first.result(10).tasks < 20
    paused = second.result(10).pause is not None
    assert paused == (later == "pause")
    assert states(store) == {"paused" if paused else "ready": 20}
    assert len(store.pauses(me).result(10)) == paused
    assert store._queues._turning == {}


def test_nobody_pauses_ever_more_queues(
    store: SQLiteTaskStore, me: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "MOST_PAUSES", 2)
    for queue in ("a", "b", "a"):
        store.pause(me, queue, "").result(10)
    with pytest.raises(TaskRefused, match="'c' was not paused: you have 2 paused queues"):
        store.pause(me, "c", "").result(10)
    assert store.pause(Principal("local", "1001", "bob"), "c", "").result(10).pause is not None
    store.resume(me, "a").result(10)
    assert store.pause(me, "c", "").result(10).pause is not None
    assert store._queues._turning == {}


def test_two_pauses_at_the_same_time_both_come_to_an_end(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    fill(store, new, 20)
    with Held(store):
        both = store.pause(me, "default", "one"), store.pause(me, "default", "two")
    assert sum(each.result(10).tasks for each in both) == 20
    assert states(store) == {"paused": 20}
    (pause,) = store.pauses(me).result(10)
    assert pause.reason == "two"


@pytest.mark.parametrize("change", ["pause", "resume"])
def test_one_that_ends_with_the_process_is_settled_at_the_next_start(
    open_store: OpenStore, new: New, me: Principal, change: str
) -> None:
    store = open_store()
    fill(store, new)
    if change == "resume":
        store.pause(me, "default", "later").result(10)
    with Held(store):
        doing = store.pause(me, "default", "") if change == "pause" else store.resume(me, "default")
        closing = store.close()
    with pytest.raises(StoreClosed):
        doing.result(10)
    closing.result(10)
    store = open_store()
    assert states(store).keys() == {"ready", "paused"}, "it was in the middle"
    while store.recover("o").result(10).more:
        pass
    assert states(store) == {"paused": 10}
    assert store.resume(me, "default").result(10).tasks == 10
    assert len(store.claim("o", 20, 30).result(10)) == 10


def test_a_part_that_shares_a_commit_with_what_fails_is_counted_once(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    def bad(_: object) -> None:
        raise ZeroDivisionError("a defect")

    fill(store, new)
    with Held(store):
        pausing = store.pause(me, "default", "")
        failed = store._writer.do(bad)
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    assert pausing.result(10).tasks == 10
    assert store.count(me, Filter(state="paused")).result(10) == 10
