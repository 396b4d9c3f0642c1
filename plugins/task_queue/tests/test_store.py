"""The embedded engine keeps the promises of the `TaskStore` protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcpd_core import CallResult, Principal, Progress
from mcpd_task_queue.errors import StoreClosed, TaskRefused
from mcpd_task_queue.records import (
    Cancelled,
    Change,
    Filter,
    NewTask,
    QueueStats,
    Recorded,
    Renewal,
    Snapshot,
    Swept,
    Task,
)
from mcpd_task_queue.sqlite import SQLiteTaskStore

New = Callable[..., NewTask]


def submit(store: SQLiteTaskStore, *tasks: NewTask) -> list[str]:
    return [submitted.task_id for submitted in store.submit(tasks).result()]


def claim(store: SQLiteTaskStore, limit: int = 1, lease: float = 30.0) -> list[Task]:
    return store.claim("worker:1", limit, lease).result()


def look(store: SQLiteTaskStore, principal: Principal, task_id: str) -> Snapshot:
    snapshot = store.get(principal, task_id, payload=True, events=100).result()
    assert snapshot is not None
    return snapshot


def kinds(snapshot: Snapshot) -> list[str]:
    return [event.kind for event in snapshot.events]


# --- submitting ---------------------------------------------------------------------------------


def test_a_submitted_task_is_ready_and_has_everything_it_was_given(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    task = new(
        "resize",
        arguments={"size": [1, 2], "name": "Zoë"},
        client="session-7",
        queue="images",
        priority=5,
        timeout=2.5,
        max_attempts=4,
        repeatable=True,
        idempotency_key="k",
        tags=("a", "b"),
    )
    (submitted,) = store.submit([task]).result()
    assert (submitted.outcome, submitted.state) == ("created", "ready")
    assert len(submitted.task_id) == 32
    stored = look(store, me, submitted.task_id).task
    for name in vars(task).keys() - {"delay"}:
        assert getattr(stored, name) == getattr(task, name), name
    assert (stored.attempts, stored.fence, stored.result, stored.error) == (0, 0, None, None)


def test_task_ids_cannot_be_guessed_from_each_other(store: SQLiteTaskStore, new: New) -> None:
    ids = submit(store, *[new() for _ in range(50)])
    assert len({id_[:8] for id_ in ids}) == 50


def test_a_delayed_task_is_scheduled_until_a_sweep_finds_it_due(
    store: SQLiteTaskStore, new: New, me: Principal, clock: Any
) -> None:
    (task_id,) = submit(store, new(delay=40))
    assert store.next_due().result() == pytest.approx(40)
    assert claim(store) == []
    clock.advance(39)
    assert store.sweep().result() == Swept()
    clock.advance(2)
    assert store.next_due().result() == 0
    assert store.sweep().result() == Swept(readied=1)
    assert store.next_due().result() is None
    snapshot = look(store, me, task_id)
    assert (snapshot.task.state, snapshot.task.run_at) == ("ready", None)
    assert kinds(snapshot) == ["submitted", "due"]


@pytest.mark.parametrize("state", ["ready", "running", "succeeded"])
def test_a_second_submit_with_the_same_key_makes_no_second_task(
    store: SQLiteTaskStore, new: New, state: str
) -> None:
    (first,) = submit(store, new(idempotency_key="k"))
    for task in claim(store) if state != "ready" else []:
        if state == "succeeded":
            store.complete(first, task.fence, CallResult("done")).result()
    (again,) = store.submit([new(idempotency_key="k", priority=9)]).result()
    assert (again.outcome, again.task_id, again.state) == ("existing", first, state)
    assert sum(store.health().counts.values()) == 1


def test_a_key_that_was_used_for_other_work_is_rejected(store: SQLiteTaskStore, new: New) -> None:
    (first,) = submit(store, new(idempotency_key="k"))
    for other in (new("add", arguments={"a": 2}), new("subtract")):
        (answer,) = store.submit([NewTask(**{**vars(other), "idempotency_key": "k"})]).result()
        assert (answer.outcome, answer.task_id) == ("rejected", first)
    assert sum(store.health().counts.values()) == 1


def test_a_key_belongs_to_one_principal(store: SQLiteTaskStore, new: New) -> None:
    other = Principal("local", "1001")
    tasks = [new(idempotency_key="k"), new(idempotency_key="k", principal=other)]
    assert [s.outcome for s in store.submit(tasks).result()] == ["created", "created"]


def test_the_order_of_an_objects_members_does_not_make_other_arguments(
    store: SQLiteTaskStore, new: New
) -> None:
    submit(store, new(idempotency_key="k", arguments={"a": 1, "b": 2}))
    (again,) = store.submit([new(idempotency_key="k", arguments={"b": 2, "a": 1})]).result()
    assert again.outcome == "existing"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"a": "x" * 2_000}, "The arguments take 2,008 bytes as JSON; a task may have 1,024"),
        ({"a": float("nan")}, "cannot be stored as JSON"),
        ({"a": {1, 2}}, "cannot be stored as JSON"),
        ({"a": "\ud800"}, "cannot be stored as JSON"),
    ],
)
def test_arguments_that_cannot_be_stored_change_nothing(
    open_store: Callable[..., SQLiteTaskStore], new: New, arguments: Any, complaint: str
) -> None:
    store = open_store(largest_arguments=1_024)
    with pytest.raises(TaskRefused, match=complaint):
        store.submit([new(), new(arguments=arguments)])
    assert sum(store.health().counts.values()) == 0


# --- claiming -----------------------------------------------------------------------------------


def test_tasks_are_claimed_by_priority_and_then_in_order_of_submit(
    store: SQLiteTaskStore, new: New
) -> None:
    a, b, c, d = submit(store, new(priority=0), new(priority=5), new(priority=0), new(priority=5))
    assert [task.id for task in claim(store, 3)] == [b, d, a]
    assert [task.id for task in claim(store, 3)] == [c]
    assert claim(store, 3) == []


def test_a_claim_counts_an_attempt_and_raises_the_fence(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    (task_id,) = submit(store, new(arguments={"a": [1]}))
    (task,) = claim(store)
    assert (task.state, task.attempts, task.fence) == ("running", 1, 1)
    assert task.arguments == {"a": [1]}
    assert look(store, me, task_id).task.started_at == task.started_at is not None


def test_the_place_of_a_ready_task_counts_what_is_claimed_before_it(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    other = Principal("local", "1001")
    last, first, second = submit(
        store, new(priority=-1), new(priority=1, principal=other), new(priority=0)
    )
    assert look(store, me, last).ahead == 2
    assert look(store, me, second).ahead == 1
    assert look(store, other, first).ahead == 0
    claim(store)
    assert look(store, me, second).ahead == 0
    assert look(store, other, first).ahead is None


# --- outcomes -----------------------------------------------------------------------------------


def test_a_success_keeps_its_result(store: SQLiteTaskStore, new: New, me: Principal) -> None:
    (task_id,) = submit(store, new())
    (task,) = claim(store)
    result = CallResult("text \ud800", {"n": 1, "deep": [{"x": None}]})
    assert store.complete(task_id, task.fence, result).result() == Recorded(True, "succeeded")
    snapshot = look(store, me, task_id)
    assert snapshot.task.result == result
    assert snapshot.task.finished_at is not None
    assert kinds(snapshot) == ["submitted", "started", "succeeded"]


def test_a_result_that_is_not_json_is_refused_at_once(store: SQLiteTaskStore, new: New) -> None:
    (task_id,) = submit(store, new())
    (task,) = claim(store)
    with pytest.raises(TaskRefused, match="result cannot be stored as JSON"):
        store.complete(task_id, task.fence, CallResult("", {"x": object()}))
    assert store.health().counts["running"] == 1


def test_a_failed_attempt_is_scheduled_again_and_its_error_is_kept(
    store: SQLiteTaskStore, new: New, me: Principal, clock: Any
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


@pytest.mark.parametrize("verdict", ["failed", "dead"])
def test_a_final_failure_ends_the_task(
    store: SQLiteTaskStore, new: New, me: Principal, verdict: Any
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
    store: SQLiteTaskStore, new: New, me: Principal, error: Any
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
    store: SQLiteTaskStore, new: New, me: Principal, clock: Any
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
    store: SQLiteTaskStore, new: New, me: Principal, clock: Any
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
    assert store.renew([Renewal(task_id, old.fence)], 10).result() == [Recorded(False, "running")]
    store.complete(task_id, current.fence, CallResult("in time")).result()
    assert store.complete(task_id, current.fence, late).result() == Recorded(False, "succeeded")
    result = look(store, me, task_id).task.result
    assert result is not None
    assert result.text == "in time"


def test_an_outcome_of_no_task_is_refused(store: SQLiteTaskStore) -> None:
    assert store.complete("nothing", 1, CallResult("")).result() == Recorded(False, None)


# --- interruptions ------------------------------------------------------------------------------

FATES = [
    # repeatable, delivery, max_attempts -> state
    (True, "at_least_once", 2, "ready"),
    (True, "at_least_once", 1, "dead"),
    (False, "at_least_once", 2, "uncertain"),
    (False, "at_least_once", 1, "uncertain"),
    (True, "at_most_once", 2, "uncertain"),
]


@pytest.mark.parametrize(("repeatable", "delivery", "max_attempts", "state"), FATES)
def test_what_a_dead_process_left_running_is_decided_by_what_is_safe(
    open_store: Callable[..., SQLiteTaskStore],
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


def test_recovery_leaves_the_owners_own_tasks_alone(store: SQLiteTaskStore, new: New) -> None:
    submit(store, new())
    store.claim("me:1", 1, 30).result()
    assert store.recover("me:1").result() == Swept()


def test_after_a_restart_what_waited_for_the_host_is_tried_at_once(
    store: SQLiteTaskStore, new: New
) -> None:
    (task_id,) = submit(store, new())
    (task,) = claim(store)
    store.release(task_id, task.fence, "tool add is not offered at present", 60.0).result()
    assert store.recover("me:2").result() == Swept(readied=1)
    assert [task.id for task in claim(store)] == [task_id]


def test_an_orderly_interruption_counts_no_attempt(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    (task_id,) = submit(store, new(repeatable=True, max_attempts=1))
    (task,) = claim(store)
    answer = store.interrupt(task_id, task.fence, "stopped", count_attempt=False).result()
    assert answer == Recorded(True, "ready")
    assert look(store, me, task_id).task.attempts == 0


def test_a_lease_that_is_renewed_does_not_run_out(
    store: SQLiteTaskStore, new: New, me: Principal, clock: Any
) -> None:
    (task_id,) = submit(store, new())
    (task,) = claim(store, lease=10)
    for done in range(1, 4):
        clock.advance(8)
        renewal = Renewal(task_id, task.fence, Progress(done, 3, "step"))
        assert store.renew([renewal], 10).result() == [Recorded(True, "running")]
        assert store.sweep().result() == Swept()
        assert look(store, me, task_id).task.progress == Progress(done, 3, "step")
    clock.advance(11)
    assert store.sweep().result() == Swept(parked=1)


def test_a_lease_that_ran_out_unnoticed_can_still_be_renewed(
    store: SQLiteTaskStore, new: New, clock: Any
) -> None:
    (task_id,) = submit(store, new())
    (task,) = claim(store, lease=10)
    clock.advance(100)
    assert store.renew([Renewal(task_id, task.fence)], 10).result()[0].accepted
    assert store.sweep().result() == Swept()


@pytest.mark.parametrize("hours", [1, -1])
def test_setting_the_clock_neither_ends_nor_immortalises_leases(
    store: SQLiteTaskStore, new: New, clock: Any, hours: int
) -> None:
    submit(store, new())
    claim(store, lease=10)
    clock.set_wall(hours * 3_600)
    assert store.sweep().result() == Swept()
    clock.advance(11)
    assert store.sweep().result() == Swept(parked=1)


def test_a_lease_of_another_process_runs_out_by_the_wall_clock(
    open_store: Callable[..., SQLiteTaskStore], new: New, clock: Any
) -> None:
    store = open_store()
    submit(store, new(repeatable=True))
    claim(store, lease=10)
    store.close().result()
    store = open_store()
    assert store.sweep().result() == Swept()
    clock.advance(11)
    assert store.sweep().result() == Swept(readied=1)


# --- cancelling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 60])
def test_a_waiting_task_is_cancelled_at_once(
    store: SQLiteTaskStore, new: New, me: Principal, delay: float, clock: Any
) -> None:
    (task_id,) = submit(store, new(delay=delay))
    assert store.cancel(me, task_id).result() == Cancelled("cancelled", "cancelled")
    assert store.cancel(me, task_id).result() == Cancelled("settled", "cancelled")
    clock.advance(61)
    assert store.sweep().result() == Swept()
    assert claim(store) == []


def test_a_running_task_that_is_to_be_cancelled_never_succeeds(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    ids = submit(store, *[new() for _ in range(4)])
    tasks = claim(store, 4)
    for task_id in ids:
        for _ in range(2):
            assert store.cancel(me, task_id).result() == Cancelled("cancelling", "running")
    assert look(store, me, ids[0]).task.cancelling
    a, b, c, d = ((task.id, task.fence) for task in tasks)
    for answer in (
        store.complete(*a, CallResult("finished all the same")),
        store.fail(*b, {"message": "failed all the same"}, "retry"),
        store.release(*c, "not started at all"),
        store.interrupt(*d, "it was interrupted", count_attempt=True),
    ):
        assert answer.result() == Recorded(True, "cancelled")
    for task_id in ids:
        snapshot = look(store, me, task_id)
        assert (snapshot.task.state, snapshot.task.result) == ("cancelled", None)
        assert kinds(snapshot) == ["submitted", "started", "cancel_requested", "cancelled"]


def test_a_task_that_was_being_cancelled_when_its_process_died_is_cancelled(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    (task_id,) = submit(store, new(repeatable=True))
    claim(store)
    store.cancel(me, task_id).result()
    assert store.recover("worker:2").result() == Swept(cancelled=1)
    assert look(store, me, task_id).task.state == "cancelled"


def test_an_uncertain_task_is_not_cancelled(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    (task_id,) = submit(store, new())
    claim(store)
    store.recover("worker:2").result()
    assert store.cancel(me, task_id).result() == Cancelled("settled", "uncertain")


# --- looking ------------------------------------------------------------------------------------


def test_nobody_sees_or_cancels_the_tasks_of_another(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    (task_id,) = submit(store, new())
    for other in (Principal("local", "1001"), Principal("peer", "1000")):
        assert store.get(other, task_id).result() is None
        assert store.cancel(other, task_id).result() is None
        assert store.find(other, Filter()).result().tasks == ()
        assert store.stats(other).result() == []
    assert look(store, me, task_id).task.state == "ready"


def test_a_list_goes_from_new_to_old_in_pages(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    ids = submit(store, *[new() for _ in range(5)])
    cursor, seen = None, []
    for size in (2, 2, 1):
        page = store.find(me, Filter(), cursor=cursor, limit=2).result()
        assert len(page.tasks) == size
        seen += [task.id for task in page.tasks]
        cursor = page.cursor
        submit(store, new())  # what comes in between shifts nothing
    assert (seen, cursor) == (ids[::-1], None)


def test_a_list_can_be_narrowed(store: SQLiteTaskStore, new: New, me: Principal) -> None:
    a, b, c = submit(
        store,
        new("one", queue="x", tags=("red", "green")),
        new("two", queue="x", tags=("redder",)),
        new("one", queue="y", delay=5),
    )

    def found(**wanted: Any) -> list[str]:
        return [task.id for task in store.find(me, Filter(**wanted)).result().tasks]

    assert found(tool="one") == [c, a]
    assert found(queue="x") == [b, a]
    assert found(state="scheduled") == [c]
    assert found(tag="red") == [a]
    assert found(tag="red", tool="two") == []


@pytest.mark.parametrize("cursor", ["", "-1", "1_0", " 7", "x", "1" * 30, "\u0661"])
def test_what_is_not_a_cursor_is_refused(
    store: SQLiteTaskStore, me: Principal, cursor: str
) -> None:
    with pytest.raises(TaskRefused, match="is not a cursor"):
        store.find(me, Filter(), cursor=cursor)


def test_statistics_count_by_queue_and_state(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    submit(store, new(queue="b"), new(queue="a", delay=9), new(queue="a", delay=9))
    claim(store)
    assert store.stats(me).result() == [
        QueueStats("a", {"scheduled": 2}),
        QueueStats("b", {"running": 1}),
    ]


def test_of_a_long_life_the_first_and_the_latest_events_are_kept(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    (task_id,) = submit(store, new())
    for n in range(150):
        (task,) = claim(store)
        store.release(task_id, task.fence, f"release {n}").result()
    snapshot = store.get(me, task_id, events=1_000).result()
    assert snapshot is not None
    assert len(snapshot.events) == 200
    assert snapshot.events[0].kind == "submitted"
    assert snapshot.events[-1].detail == "release 149"


# --- keeping and closing ------------------------------------------------------------------------


def test_finished_tasks_are_purged_after_their_retention_and_uncertain_ones_never(
    open_store: Callable[..., SQLiteTaskStore], new: New, me: Principal, clock: Any
) -> None:
    store = open_store(retention=100)
    done, parked, waiting = submit(store, new(), new(), new(delay=1_000, idempotency_key="w"))
    first, _ = claim(store, 2, lease=10)
    assert first.id == done
    store.complete(done, first.fence, CallResult("")).result()
    clock.advance(60)
    assert store.sweep().result() == Swept(parked=1)
    clock.advance(60)
    assert store.sweep().result() == Swept(purged=1)
    assert store.get(me, done).result() is None
    assert look(store, me, parked).task.state == "uncertain"
    assert look(store, me, waiting).task.state == "scheduled"
    assert {s: n for s, n in store.health().counts.items() if n} == {"scheduled": 1, "uncertain": 1}


def test_a_sweep_does_a_bounded_amount_and_says_that_there_is_more(
    store: SQLiteTaskStore, new: New, clock: Any
) -> None:
    submit(store, *[new(delay=1) for _ in range(1_200)])
    clock.advance(2)
    assert store.sweep().result() == Swept(readied=1_000, more=True)
    assert store.sweep().result() == Swept(readied=200)


def test_changes_are_announced_once_they_are_committed(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    heard: list[Change] = []
    store.listen(heard.extend)
    (task_id,) = submit(store, new())
    claim(store)
    store.cancel(me, task_id).result()
    assert heard == [
        Change(task_id, None, "ready"),
        Change(task_id, "ready", "running"),
        Change(task_id, "running", "running", cancelling=True),
    ]
    store.listen(None)
    submit(store, new())
    assert len(heard) == 3


def test_everything_is_found_again_after_closing(
    open_store: Callable[..., SQLiteTaskStore], new: New, me: Principal
) -> None:
    store = open_store()
    instance = store.instance
    ids = submit(store, *[new() for _ in range(3)])
    closing = store.close()
    assert store.close() is closing
    closing.result()
    with pytest.raises(StoreClosed, match="is closed"):
        store.submit([new()]).result()
    with pytest.raises(StoreClosed):
        store.stats(me).result()
    store = open_store()
    assert store.instance == instance
    assert store.health().counts["ready"] == 3
    assert [task.id for task in claim(store, 5)] == ids
