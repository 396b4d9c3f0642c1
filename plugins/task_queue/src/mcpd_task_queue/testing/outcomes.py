"""Promises of a task store: what comes of an attempt: outcomes, interruptions, leases."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import (
    Recorded,
    Renewal,
    Swept,
)
from mcpd_task_queue.store import TaskStore

from .suite import Clock, New, OpenStore, StoreSuite, claim, kinds, look, submit

FATES = [
    # repeatable, delivery, max_attempts -> state
    (True, "at_least_once", 2, "ready"),
    (True, "at_least_once", 1, "dead"),
    (False, "at_least_once", 2, "uncertain"),
    (False, "at_least_once", 1, "uncertain"),
    (True, "at_most_once", 2, "uncertain"),
]


class Outcomes(StoreSuite):
    """What comes of an attempt: outcomes, interruptions, leases."""

    # --- outcomes ---------------------------------------------------------------------------------

    def test_a_success_keeps_its_result(self, store: TaskStore, new: New, me: Principal) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        result = CallResult("text \ud800", {"n": 1, "deep": [{"x": None}]})
        assert store.complete(task_id, task.fence, result).result() == Recorded(True, "succeeded")
        snapshot = look(store, me, task_id)
        assert snapshot.task.result == result
        assert snapshot.task.finished_at is not None
        assert kinds(snapshot) == ["submitted", "started", "succeeded"]

    def test_a_result_that_is_not_json_is_refused_at_once(self, store: TaskStore, new: New) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        with pytest.raises(TaskRefused):
            store.complete(task_id, task.fence, CallResult("", {"x": object()}))
        assert store.health().counts["running"] == 1

    def test_a_failed_attempt_is_scheduled_again_and_its_error_is_kept(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        error = {"code": "boom", "message": "the disk was full"}
        recorded = store.fail(task_id, task.fence, error, "retry", 10.0).result()
        assert recorded == Recorded(True, "scheduled")
        stored = look(store, me, task_id).task
        assert (stored.reason, stored.error, stored.attempts) == ("the disk was full", error, 1)
        clock.advance(10)
        assert store.sweep().result().readied == 1
        (again,) = claim(store)
        assert (again.id, again.attempts, again.fence) == (task_id, 2, 2)
        store.complete(task_id, again.fence, CallResult("ok")).result()
        assert look(store, me, task_id).task.error is None

    def test_what_is_delivered_at_most_once_is_not_tried_again_whatever_the_verdict(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new(delivery="at_most_once"))
        (task,) = claim(store)
        recorded = store.fail(task.id, task.fence, {"message": "no"}, "retry").result()
        assert recorded == Recorded(True, "dead")
        assert "at most once" in look(store, me, task_id).task.reason
        store.sweep().result()
        assert claim(store) == []

    @pytest.mark.parametrize("verdict", ["failed", "dead"])
    def test_a_final_failure_ends_the_task(
        self, store: TaskStore, new: New, me: Principal, verdict: Any
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        recorded = store.fail(task_id, task.fence, {"message": "no"}, verdict).result()
        assert recorded == Recorded(True, verdict)
        stored = look(store, me, task_id).task
        assert (stored.state, stored.reason) == (verdict, "no")

    @pytest.mark.parametrize(
        "error",
        [
            {"code": "big", "message": "m" * 100_000},
            {"code": "odd", "message": "m", "data": {"x": object()}},
        ],
    )
    def test_of_an_error_that_cannot_be_kept_whole_the_essence_is_kept(
        self, store: TaskStore, new: New, me: Principal, error: Any
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        store.fail(task_id, task.fence, error, "failed").result()
        stored = look(store, me, task_id).task
        assert stored.error is not None
        assert stored.error["code"] == error["code"]
        assert 0 < len(stored.error["message"]) <= 8_192
        assert len(stored.reason) <= 500

    def test_a_release_costs_no_attempt_and_says_why(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(max_attempts=1))
        for releases in (1, 2):
            (task,) = claim(store)
            assert task.attempts == 1
            answer = store.release(task_id, task.fence, "tool add is not offered", 5.0).result()
            assert answer == Recorded(True, "scheduled")
            stored = look(store, me, task_id).task
            assert (stored.attempts, stored.releases) == (0, releases)
            assert stored.reason == "tool add is not offered"
            clock.advance(5)
            store.sweep().result()
        (task,) = claim(store)
        assert store.release(task_id, task.fence, "closing").result() == Recorded(True, "ready")

    def test_an_outcome_with_an_old_fence_is_refused(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(repeatable=True))
        (old,) = store.claim("old:1", 1, 10).result()
        clock.advance(11)
        assert store.sweep().result().readied == 1
        late = CallResult("late")
        assert store.complete(task_id, old.fence, late).result() == Recorded(False, "ready")
        (current,) = store.claim("new:1", 1, 10).result()
        for answer in (
            store.complete(task_id, old.fence, late),
            store.fail(task_id, old.fence, {"message": "late"}, "failed"),
            store.release(task_id, old.fence, "late"),
            store.interrupt(task_id, old.fence, "late", count_attempt=True),
        ):
            assert answer.result() == Recorded(False, "running")
        assert store.renew([Renewal(task_id, old.fence)], 10).result() == [
            Recorded(False, "running")
        ]
        store.complete(task_id, current.fence, CallResult("in time")).result()
        assert store.complete(task_id, current.fence, late).result() == Recorded(False, "succeeded")
        result = look(store, me, task_id).task.result
        assert result is not None
        assert result.text == "in time"

    def test_an_outcome_of_no_task_is_refused(self, store: TaskStore) -> None:
        assert store.complete("nothing", 1, CallResult("")).result() == Recorded(False, None)

    # --- interruptions ----------------------------------------------------------------------------

    @pytest.mark.parametrize(("repeatable", "delivery", "max_attempts", "state"), FATES)
    def test_what_a_dead_process_left_running_is_decided_by_what_is_safe(
        self,
        open_store: OpenStore,
        new: New,
        me: Principal,
        repeatable: bool,
        delivery: Any,
        max_attempts: int,
        state: str,
    ) -> None:
        store = open_store()
        task = new(repeatable=repeatable, delivery=delivery, max_attempts=max_attempts)
        (task_id,) = submit(store, task)
        store.claim("first:1", 1, 30).result()
        store.close().result()
        store = open_store()
        store.recover("first:2").result()
        snapshot = look(store, me, task_id)
        assert snapshot.task.state == state
        assert snapshot.task.reason.startswith("the process that ran it died")
        assert snapshot.task.attempts == 1
        assert kinds(snapshot)[-1] == "interrupted"
        assert len(claim(store)) == (1 if state == "ready" else 0)

    def test_recovery_leaves_the_owners_own_tasks_alone(self, store: TaskStore, new: New) -> None:
        submit(store, new())
        store.claim("me:1", 1, 30).result()
        assert store.recover("me:1").result() == Swept()

    def test_after_a_restart_what_waited_for_the_host_is_tried_at_once(
        self, store: TaskStore, new: New
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        store.release(task_id, task.fence, "tool add is not offered at present", 60.0).result()
        assert store.recover("me:2").result() == Swept(readied=1)
        assert [task.id for task in claim(store)] == [task_id]

    def test_an_orderly_interruption_counts_no_attempt(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new(repeatable=True, max_attempts=1))
        (task,) = claim(store)
        answer = store.interrupt(task_id, task.fence, "stopped", count_attempt=False).result()
        assert answer == Recorded(True, "ready")
        assert look(store, me, task_id).task.attempts == 0

    def test_a_lease_that_is_renewed_does_not_run_out(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store, lease=10)
        for _ in range(3):
            clock.advance(8)
            renewal = Renewal(task_id, task.fence)
            assert store.renew([renewal], 10).result() == [Recorded(True, "running")]
            assert store.sweep().result() == Swept()
        clock.advance(11)
        assert store.sweep().result() == Swept(parked=1)

    def test_a_lease_that_ran_out_unnoticed_can_still_be_renewed(
        self, store: TaskStore, new: New, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store, lease=10)
        clock.advance(100)
        assert store.renew([Renewal(task_id, task.fence)], 10).result()[0].accepted
        assert store.sweep().result() == Swept()

    @pytest.mark.parametrize("hours", [1, -1])
    def test_setting_the_clock_neither_ends_nor_immortalises_leases(
        self, store: TaskStore, new: New, clock: Clock, hours: int
    ) -> None:
        submit(store, new())
        claim(store, lease=10)
        clock.set_wall(hours * 3_600)
        assert store.sweep().result() == Swept()
        clock.advance(11)
        assert store.sweep().result() == Swept(parked=1)

    def test_a_lease_of_another_process_runs_out_by_the_wall_clock(
        self, open_store: OpenStore, new: New, clock: Clock
    ) -> None:
        store = open_store()
        submit(store, new(repeatable=True))
        claim(store, lease=10)
        store.close().result()
        store = open_store()
        assert store.sweep().result() == Swept()
        clock.advance(11)
        assert store.sweep().result() == Swept(readied=1)
