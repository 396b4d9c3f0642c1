"""Promises of a task store: what people do to tasks and queues."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.records import (
    Change,
    Changed,
    Pause,
    QueueChanged,
)
from mcpd_task_queue.store import TaskStore

from .suite import OTHER, Clock, New, OpenStore, StoreSuite, claim, ended, kinds, look, submit


class Managing(StoreSuite):
    """Trying anew, resolving, priorities, pauses, clearing."""

    # --- trying anew ------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", ["failed", "dead", "cancelled", "uncertain"])
    def test_a_task_is_tried_anew_with_a_new_budget_and_its_old_history(
        self, store: TaskStore, new: New, me: Principal, state: str
    ) -> None:
        task_id = ended(store, new(max_attempts=2), state)
        assert store.retry(me, task_id, 7).result() == Changed(True, "ready")
        snapshot = look(store, me, task_id)
        task = snapshot.task
        assert (task.attempts, task.max_attempts, task.finished_at) == (0, 7, None)
        assert task.error is None, "what is said of a task that waits is not how it ended before"
        assert kinds(snapshot)[-2:] == [state if state != "uncertain" else "interrupted", "retried"]
        (again,) = claim(store)
        assert (again.id, again.attempts) == (task_id, 1)
        assert store.complete(task_id, again.fence, CallResult("done")).result().accepted
        assert look(store, me, task_id).task.error is None

    def test_a_task_that_was_tried_anew_refuses_the_outcome_of_before(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new())
        (first,) = claim(store)
        store.interrupt(task_id, first.fence, "cut", count_attempt=True).result()
        store.retry(me, task_id).result()
        claim(store)
        assert not store.complete(task_id, first.fence, CallResult("late")).result().accepted

    @pytest.mark.parametrize("state", ["succeeded", "running"])
    def test_nothing_else_is_tried_anew(
        self, store: TaskStore, new: New, me: Principal, state: Any
    ) -> None:
        task_id = ended(store, new(), state)
        assert store.retry(me, task_id).result() == Changed(False, state)
        assert "retried" not in kinds(look(store, me, task_id))

    def test_at_most_once_stays_one_attempt_each_time_a_person_says_so(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        task_id = ended(store, new(delivery="at_most_once"), "uncertain")
        store.retry(me, task_id, 5).result()
        assert look(store, me, task_id).task.max_attempts == 1

    @pytest.mark.parametrize(
        "ask",
        [
            lambda store, who, id_: store.retry(who, id_),
            lambda store, who, id_: store.resolve(who, id_, "failed", ""),
            lambda store, who, id_: store.prioritise(who, id_, 1),
        ],
    )
    def test_anothers_task_is_as_unknown_as_none(
        self, store: TaskStore, new: New, me: Principal, ask: Any
    ) -> None:
        task_id = ended(store, new(), "uncertain")
        assert ask(store, OTHER, task_id).result() is None
        assert ask(store, me, "f" * 32).result() is None
        assert kinds(look(store, me, task_id)) == ["submitted", "started", "interrupted"]

    # --- what a person found out ------------------------------------------------------------------

    def test_an_uncertain_task_is_resolved_with_a_note(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        ids = [ended(store, new(), "uncertain") for _ in range(3)]
        done, failed, retried = ids
        assert store.resolve(me, done, "succeeded", "it is there").result() == Changed(
            True, "succeeded"
        )
        assert store.resolve(me, failed, "failed", "").result() == Changed(True, "failed")
        assert store.resolve(me, retried, "retry", "nothing there").result() == Changed(
            True, "ready"
        )
        snapshot = look(store, me, done)
        assert snapshot.task.reason == "a person says: it is there"
        assert snapshot.task.finished_at is not None
        assert kinds(snapshot)[-1] == "resolved"
        error = look(store, me, failed).task.error
        assert error == {"code": "resolved", "message": "a person says so", "retryable": False}
        assert [task.id for task in claim(store, 5)] == [retried]
        assert store.resolve(me, done, "failed", "no").result() == Changed(False, "succeeded")

    # --- priorities -------------------------------------------------------------------------------

    def test_a_new_priority_moves_a_waiting_task(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        first, second, third = submit(store, new(), new(), new(priority=-5))
        assert store.prioritise(me, third, 9).result() == Changed(True, "ready", -5)
        assert store.prioritise(me, second, 0).result() == Changed(True, "ready", 0)
        assert look(store, me, third).ahead == 0
        assert kinds(look(store, me, second)) == ["submitted"], "nothing was changed"
        assert [task.id for task in claim(store, 3)] == [third, first, second]
        assert store.prioritise(me, third, 1).result() == Changed(True, "running", 9)
        done = ended(store, new(), "cancelled")
        assert store.prioritise(me, done, 4).result() == Changed(False, "cancelled", 0)

    # --- pauses -----------------------------------------------------------------------------------

    def test_nothing_of_a_paused_queue_is_started_until_it_is_resumed(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store()
        (running,) = submit(store, new(queue="q"))
        claim(store)
        waiting, later = submit(store, new(queue="q"), new(queue="q", delay=5))
        other, anothers = submit(store, new(), new(queue="q", principal=OTHER))
        pause = Pause("q", clock.wall, "mending")
        assert store.pause(me, "q", "mending").result() == QueueChanged(True, 1, 2, 1, pause)
        assert store.pauses(me).result() == [pause]
        assert store.pauses(OTHER).result() == []
        (submitted,) = store.submit([new(queue="q")]).result()
        assert submitted.state == "paused"
        assert {task.id for task in claim(store, 9)} == {other, anothers}
        clock.advance(6)
        assert store.sweep().result().readied == 1
        assert look(store, me, later).task.state == "paused"
        assert look(store, me, later).pause == pause
        store.close().result(10)

        store = open_store()
        assert claim(store, 9) == []
        assert store.health().counts["paused"] == 3
        clock.advance(1)
        again = store.pause(me, "q", "still mending").result()
        assert again == QueueChanged(False, 0, 3, 1, Pause("q", pause.since, "still mending"))
        assert store.resume(me, "q").result() == QueueChanged(True, 3, 3, 1)
        assert store.resume(me, "q").result() == QueueChanged(False, 0, 3, 1)
        assert [task.id for task in claim(store, 9)] == [waiting, later, submitted.task_id]
        assert look(store, me, running).task.state == "running"

    def test_a_task_that_comes_back_into_a_paused_queue_is_paused(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        ids = submit(store, *[new(repeatable=True) for _ in range(3)])
        started = claim(store, 3)
        store.pause(me, "default", "").result()
        released = store.release(ids[0], started[0].fence, "busy").result()
        cut = store.interrupt(ids[1], started[1].fence, "cut", count_attempt=False).result()
        store.fail(ids[2], started[2].fence, {"message": "no"}, "dead").result()
        assert (released.state, cut.state) == ("paused", "paused")
        assert store.retry(me, ids[2]).result() == Changed(True, "paused")
        assert store.cancel(me, ids[0]).result() is not None
        assert store.resume(me, "default").result().tasks == 2

    def test_a_resumed_queue_is_announced(self, store: TaskStore, new: New, me: Principal) -> None:
        store.pause(me, "default", "").result()
        (task_id,) = submit(store, new())
        heard: list[Change] = []
        store.listen(heard.extend)
        store.resume(me, "default").result()
        assert [(c.task_id, c.before, c.after) for c in heard] == [(task_id, "paused", "ready")]

    # --- clearing ---------------------------------------------------------------------------------

    def test_a_queue_is_cleared_of_all_that_waits_and_of_nothing_else(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        running = ended(store, new(), "running")
        done = ended(store, new(queue="x"), "succeeded")
        ready, scheduled, recurring = submit(store, new(), new(delay=9), new(cron="0 * * * *"))
        others = submit(store, new(queue="x"), new(principal=OTHER))
        assert store.clear(me, "default").result() == QueueChanged(True, 2, 1, 1)
        states = {id_: look(store, me, id_).task.state for id_ in (running, done, ready, scheduled)}
        assert list(states.values()) == ["running", "succeeded", "cancelled", "cancelled"]
        assert look(store, me, recurring).task.state == "scheduled"
        assert look(store, me, ready).task.reason == "the queue was cleared"
        assert {task.id for task in claim(store, 9)} == set(others)
        assert store.clear(me, "default", recurring=True).result() == QueueChanged(True, 1, 0, 1)
        assert store.next_due().result() is None
