"""Promises of a task store: attempts without success, and the deadline over all attempts."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.records import Changed, Recorded, Swept
from mcpd_task_queue.retrying import FailedAttempt, RetryPolicy
from mcpd_task_queue.store import TaskStore

from .suite import OTHER, Clock, New, OpenStore, StoreSuite, claim, ended, kinds, look, submit


def fail_again(store: TaskStore, clock: Clock, task_id: str, message: str) -> int:
    """Start a task that is ready and let it fail so that it is ready again; return its fence."""
    (task,) = claim(store)
    assert task.id == task_id
    store.fail(task_id, task.fence, {"message": message}, "retry", 1.0).result()
    clock.advance(1)
    assert store.sweep().result().readied == 1
    return task.fence


class Retrying(StoreSuite):
    """Attempts without success, and the deadline over all attempts."""

    # --- what is kept of attempts -----------------------------------------------------------------

    def test_a_dead_task_has_the_error_of_each_attempt(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(max_attempts=3, repeatable=True))
        start = clock.wall
        fail_again(store, clock, task_id, "first")
        (second,) = claim(store)
        store.interrupt(task_id, second.fence, "cut", count_attempt=True).result()
        (third,) = claim(store)
        clock.advance(5)
        last = {"code": "boom", "message": "third", "data": {"n": 3}}
        assert store.fail(task_id, third.fence, last, "dead").result() == Recorded(True, "dead")
        snapshot = look(store, me, task_id)
        assert snapshot.task.error == last
        assert snapshot.failures == (
            FailedAttempt(1, start, start, "built-in", "failed", {"message": "first"}),
            FailedAttempt(
                2,
                start + 1,
                start + 1,
                "built-in",
                "interrupted",
                {"code": "interrupted", "message": "cut"},
            ),
            FailedAttempt(3, start + 1, start + 6, "built-in", "failed", last),
        )

    def test_what_a_dead_process_left_running_is_among_the_attempts(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store()
        (task_id,) = submit(store, new())
        claim(store)
        store.close().result()
        store = open_store()
        store.recover("owner:2").result()
        (failure,) = look(store, me, task_id).failures
        assert (failure.outcome, failure.error["message"]) == (
            "interrupted",
            "the process that ran it died",
        )

    def test_success_and_a_start_that_was_given_back_leave_nothing(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        store.release(task_id, task.fence, "busy").result()
        (task,) = claim(store)
        store.complete(task_id, task.fence, CallResult("done")).result()
        assert look(store, me, task_id).failures == ()

    def test_a_cancelled_attempt_says_what_the_tool_did_all_the_same(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        finished, failed = submit(store, new(), new())
        for task, ending in zip(claim(store, 2), ("complete", "fail"), strict=True):
            store.cancel(me, task.id).result()
            if ending == "complete":
                store.complete(task.id, task.fence, CallResult("done")).result()
            else:
                store.fail(task.id, task.fence, {"message": "no"}, "retry").result()
        outcomes = [look(store, me, id_).failures[0] for id_ in (finished, failed)]
        assert [failure.outcome for failure in outcomes] == ["cancelled", "cancelled"]
        assert outcomes[0].error["code"] == "cancelled"
        assert outcomes[1].error == {"message": "no"}

    def test_of_many_attempts_the_first_and_the_latest_are_shown(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(max_attempts=1_000))
        for n in range(1, 131):
            assert fail_again(store, clock, task_id, f"error {n}") == n
        shown = look(store, me, task_id).failures
        assert [failure.n for failure in shown] == [1, 2, 3, *range(111, 131)]
        assert shown[-1].error == {"message": "error 130"}

    def test_attempts_stay_when_a_task_is_tried_anew_and_go_with_it(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(retention=100)
        (task_id,) = submit(store, new(max_attempts=1))
        (task,) = claim(store)
        store.fail(task_id, task.fence, {"message": "before"}, "dead").result()
        store.retry(me, task_id).result()
        assert [f.error["message"] for f in look(store, me, task_id).failures] == ["before"]
        (task,) = claim(store)
        store.complete(task_id, task.fence, CallResult("done")).result()
        clock.advance(101)
        assert store.sweep().result() == Swept(purged=1)
        assert store.get(me, task_id, failures=True).result() is None

    # --- the policy -------------------------------------------------------------------------------

    def test_a_policy_is_kept_with_the_task(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        policy = RetryPolicy(1.5, 60.0, 3.0, 0.0, ("quota", "auth"))
        ids = submit(store, new(retry=policy), new(retry=RetryPolicy()), new())
        for task, kept in zip(claim(store, 3), (policy, RetryPolicy(), None), strict=True):
            assert task.retry == kept
            assert look(store, me, task.id).task.retry == kept
        assert len(ids) == 3

    # --- the deadline over all attempts -----------------------------------------------------------

    def test_a_task_that_waits_dies_at_its_deadline_and_the_store_knows_when(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(deadline=60))
        assert look(store, me, task_id).task.expires_at == clock.wall + 60
        assert store.next_due().result() == pytest.approx(60)
        clock.advance(59)
        assert store.sweep().result() == Swept()
        clock.advance(1)
        assert store.next_due().result() == 0
        assert store.sweep().result() == Swept(buried=1)
        assert store.next_due().result() is None
        snapshot = look(store, me, task_id)
        assert (snapshot.task.state, snapshot.task.attempts) == ("dead", 0)
        assert snapshot.task.reason == "its deadline passed: all attempts together had 60 s"
        assert snapshot.task.error is not None
        assert snapshot.task.error["code"] == "expired"
        assert kinds(snapshot) == ["submitted", "expired"]

    def test_nothing_is_started_after_its_deadline_although_nobody_has_swept(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        late, alive, later = submit(store, new(deadline=10), new(), new(deadline=10))
        clock.advance(10)
        assert [task.id for task in claim(store, 1)] == [alive]
        assert claim(store, 5) == []
        for id_ in (late, later):
            task = look(store, me, id_).task
            assert (task.state, task.attempts) == ("dead", 0)
        assert {s: n for s, n in store.health().counts.items() if n} == {"running": 1, "dead": 2}

    def test_the_time_of_a_delayed_task_starts_when_it_is_due(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(delay=100, deadline=10))
        clock.advance(105)
        assert store.sweep().result() == Swept(readied=1)
        (task,) = claim(store)
        assert (task.id, task.expires_at) == (task_id, clock.wall + 5)

    @pytest.mark.parametrize(("retry_in", "state"), [(19.0, "scheduled"), (20.0, "dead")])
    def test_no_attempt_is_planned_past_the_deadline(
        self, store: TaskStore, new: New, me: Principal, clock: Clock, retry_in: float, state: Any
    ) -> None:
        (task_id,) = submit(store, new(deadline=30))
        (task,) = claim(store)
        clock.advance(10)
        answer = store.fail(task_id, task.fence, {"message": "no"}, "retry", retry_in).result()
        assert answer == Recorded(True, state)
        if state == "dead":
            reason = look(store, me, task_id).task.reason
            assert reason == "no; its deadline of 30 s leaves no time for another attempt"

    def test_what_runs_may_finish_after_its_deadline(
        self, store: TaskStore, new: New, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(deadline=10))
        (task,) = claim(store)
        clock.advance(20)
        assert store.next_due().result() is None
        assert store.sweep().result() == Swept()
        answer = store.complete(task_id, task.fence, CallResult("late, and done")).result()
        assert answer == Recorded(True, "succeeded")

    def test_a_task_that_waits_in_a_paused_queue_dies_at_its_deadline_too(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(deadline=10))
        store.pause(me, "default", "").result()
        clock.advance(10)
        assert store.sweep().result() == Swept(buried=1)
        assert store.retry(me, task_id).result() == Changed(True, "paused")
        assert look(store, me, task_id).task.expires_at == clock.wall + 10

    def test_each_task_of_a_schedule_has_the_deadline_for_itself(
        self, store: TaskStore, new: New, clock: Clock
    ) -> None:
        (schedule,) = submit(store, new(cron="* * * * *", deadline=30))
        clock.advance(60)
        assert store.sweep().result() == Swept(readied=1)
        (task,) = claim(store)
        assert (task.schedule_id, task.expires_at) == (schedule, clock.wall + 30)
        clock.advance(3_600)
        assert store.sweep().result().buried == 0, "the schedule itself has none"

    @pytest.mark.parametrize(("hours", "buried"), [(1, 1), (-1, 0)])
    def test_a_deadline_is_kept_by_the_clock_on_the_wall(
        self, store: TaskStore, new: New, clock: Clock, hours: int, buried: int
    ) -> None:
        submit(store, new(deadline=60))
        clock.set_wall(hours * 3_600)
        assert store.sweep().result() == Swept(buried=buried)
        clock.advance(61)
        assert store.sweep().result() == Swept(), "it moved with the clock"

    # --- trying anew ------------------------------------------------------------------------------

    def test_several_are_tried_anew_each_with_its_outcome(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        dead = ended(store, new(deadline=60), "dead")
        uncertain = ended(store, new(), "uncertain")
        done = ended(store, new(), "succeeded")
        anothers = ended(store, new(principal=OTHER), "dead")
        ids = [dead, done, anothers, uncertain, dead, "f" * 32]
        assert store.retry_many(me, ids, 7).result() == [
            Changed(True, "ready"),
            Changed(False, "succeeded"),
            None,
            Changed(True, "ready"),
            Changed(False, "ready"),
            None,
        ]
        assert [look(store, me, id_).task.max_attempts for id_ in (dead, uncertain)] == [7, 7]
        assert look(store, OTHER, anothers).task.state == "dead"

    # --- many at once -----------------------------------------------------------------------------

    def test_thousands_that_a_dead_process_left_are_taken_over_a_part_at_a_time(
        self, open_store: OpenStore, new: New
    ) -> None:
        store = open_store()
        submit(store, *[new(repeatable=True) for _ in range(1_200)])
        claim(store, 1_200)
        store.close().result()
        store = open_store()
        assert store.recover("owner:2").result() == Swept(readied=1_000, more=True)
        assert store.recover("owner:2").result() == Swept(readied=200)
        assert store.recover("owner:2").result() == Swept()
        assert store.health().counts["ready"] == 1_200

    def test_a_task_that_takes_its_process_down_each_time_is_stopped(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store()
        poison, good = submit(store, new(repeatable=True, max_attempts=3), new(priority=-1))
        for start in range(1, 4):
            (task,) = store.claim(f"owner:{start}", 1, 30).result()
            assert (task.id, task.attempts) == (poison, start)
            store.close().result()
            store = open_store()
            store.recover(f"owner:{start + 1}").result()
        snapshot = look(store, me, poison)
        assert snapshot.task.state == "dead"
        assert [failure.outcome for failure in snapshot.failures] == ["interrupted"] * 3
        assert [task.id for task in claim(store)] == [good]
