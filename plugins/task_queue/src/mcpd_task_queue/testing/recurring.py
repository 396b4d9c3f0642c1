"""Promises of a task store: recurring tasks, registered workers, and lists of either."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import (
    Activity,
    Change,
    Changed,
    Filter,
    Task,
    Worker,
)
from mcpd_task_queue.store import TaskStore

from .suite import OTHER, Clock, New, OpenStore, StoreSuite, claim, ended, kinds, look, submit


def children(store: TaskStore, principal: Principal, schedule: str) -> list[Task]:
    page = store.find(principal, Filter(schedule_id=schedule)).result()
    return list(page.tasks[::-1])


class Recurring(StoreSuite):
    """Recurring tasks, registered workers, and lists of either."""

    # --- recurring tasks --------------------------------------------------------------------------

    def test_each_firing_becomes_one_task_like_the_one_that_recurs(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        made = new(
            cron="* * * * *", queue="q", priority=3, timeout=9, max_attempts=2, tags=("a",),
            repeatable=True, client="c", idempotency_key="k",
        )  # fmt: skip
        (submitted,) = store.submit([made]).result()
        assert (submitted.state, submitted.run_at) == ("scheduled", 1_700_000_040.0)
        assert claim(store) == []
        made_last = ""
        for n in range(1, 4):
            clock.advance(60)
            assert store.sweep().result().readied == 1
            assert store.sweep().result().readied == 0
            (task,) = claim(store, 9)
            assert task.arguments == made.arguments
            for name in ("tool", "queue", "priority", "timeout", "max_attempts", "tags", "client"):
                assert getattr(task, name) == getattr(made, name), name
            assert (task.repeatable, task.cron, task.idempotency_key) == (True, None, None)
            assert (task.schedule_id, task.attempts) == (submitted.task_id, 1)
            store.complete(task.id, task.fence, CallResult("")).result()
            assert [t.id for t in children(store, me, submitted.task_id)][n - 1 :] == [task.id]
            made_last = task.id
        snapshot = look(store, me, submitted.task_id)
        assert snapshot.task.run_at == 1_700_000_040.0 + 180
        assert kinds(snapshot) == ["submitted", "fired", "fired", "fired"]
        assert snapshot.events[-1].detail == f"made {made_last}"
        recurring = store.find(me, Filter(recurring=True)).result().tasks
        assert [t.id for t in recurring] == [submitted.task_id]
        assert store.count(me, Filter(recurring=False)).result() == 3

    @pytest.mark.parametrize("zones", [(None, "UTC"), ("UTC", None), ("UTC", "UTC")])
    def test_a_recurring_task_without_a_zone_is_the_same_work_as_one_in_utc(
        self, store: TaskStore, new: New, zones: tuple[str | None, str | None]
    ) -> None:
        first, again = (
            store.submit([new(cron="* * * * *", timezone=zone, idempotency_key="k")]).result()[0]
            for zone in zones
        )
        assert (again.outcome, again.task_id) == ("existing", first.task_id)
        elsewhere = new(cron="* * * * *", timezone="Europe/Berlin", idempotency_key="k")
        assert store.submit([elsewhere]).result()[0].outcome == "rejected"

    def test_firings_that_were_missed_make_one_task(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store()
        (schedule,) = submit(store, new(cron="* * * * *"))
        store.close().result(10)
        clock.advance(3_600)
        store = open_store()
        assert store.next_due().result() == 0
        assert store.sweep().result().readied == 1
        assert store.sweep().result().readied == 0
        assert len(children(store, me, schedule)) == 1
        assert store.next_due().result() == 40

    def test_no_task_is_made_while_the_one_before_waits(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (schedule,) = submit(store, new(cron="* * * * *"))
        for _ in range(3):
            clock.advance(60)
            store.sweep().result()
        (only,) = children(store, me, schedule)
        snapshot = look(store, me, schedule)
        assert kinds(snapshot) == ["submitted", "fired", "skipped", "skipped"]
        assert snapshot.events[-1].detail == f"{only.id} still waits"
        # One that runs does not hold the next one up.
        store.claim("owner:1", 1, 300.0).result()
        clock.advance(60)
        store.sweep().result()
        assert [task.state for task in children(store, me, schedule)] == ["running", "ready"]

    def test_a_clock_that_is_set_back_repeats_no_firing(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (schedule,) = submit(store, new(cron="* * * * *"))
        clock.advance(60)
        store.sweep().result()
        claim(store)
        clock.set_wall(-3_600)
        store.sweep().result()
        assert len(children(store, me, schedule)) == 1
        clock.set_wall(3_660)
        store.sweep().result()
        assert len(children(store, me, schedule)) == 2

    def test_a_recurring_task_is_cancelled_and_goes_on_when_it_is_tried_anew(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (schedule,) = submit(store, new(cron="0 * * * *"))
        cancelled = store.cancel(me, schedule).result()
        assert cancelled is not None
        assert cancelled.outcome == "cancelled"
        clock.advance(7_200)
        assert store.sweep().result().readied == 0
        assert store.retry(me, schedule).result() == Changed(True, "scheduled")
        assert store.sweep().result().readied == 0
        assert 0 < (store.next_due().result() or 0) <= 3_600

    def test_a_firing_in_a_paused_queue_waits_with_it(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (schedule,) = submit(store, new(cron="* * * * *"))
        store.pause(me, "default", "").result()
        for _ in range(3):
            clock.advance(60)
            store.sweep().result()
        assert [task.state for task in children(store, me, schedule)] == ["paused"]

    def test_a_schedule_is_other_work_than_a_task_and_than_another_schedule(
        self, store: TaskStore, new: New
    ) -> None:
        key = {"idempotency_key": "k"}
        batch = [
            new(cron="0 * * * *", **key),
            new(cron="0 * * * *", **key),
            new(cron="1 * * * *", **key),
            new(**key),
        ]
        outcomes = [submitted.outcome for submitted in store.submit(batch).result()]
        assert outcomes == ["created", "existing", "rejected", "rejected"]

    def test_cron_fields_that_are_none_are_refused_at_once(
        self, store: TaskStore, new: New
    ) -> None:
        with pytest.raises(TaskRefused, match="five cron fields"):
            store.submit([new(), new(cron="whenever")])
        assert sum(store.health().counts.values()) == 0

    def test_a_task_can_be_for_a_moment(self, store: TaskStore, new: New, clock: Clock) -> None:
        late, early = store.submit(
            [new(run_at=clock.wall + 7), new(run_at=clock.wall - 7)]
        ).result()
        assert (late.state, late.run_at) == ("scheduled", clock.wall + 7)
        assert (early.state, early.run_at) == ("ready", None)

    # --- workers ----------------------------------------------------------------------------------

    def test_a_worker_takes_what_it_serves_best_first(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        a, b, c, d, e = submit(
            store,
            new("render", queue="gpu"),
            new("render", queue="gpu", priority=5),
            new("add", queue="gpu", tags=("cuda", "x")),
            new("add", queue="gpu", priority=9),
            new("add"),
        )
        submit(store, new("render", queue="gpu", principal=OTHER))
        picky = Worker("w", me, ("gpu", "other"), ("render", "cuda"))
        assert [task.id for task in claim(store, 2, picky)] == [b, a]
        assert [(task.id, task.worker) for task in claim(store, 9, picky)] == [(c, "w")]
        assert [task.id for task in claim(store, 9, Worker("v", me, ("gpu", "default")))] == [d, e]
        (left,) = claim(store, 9)
        assert (left.principal, left.worker) == (OTHER, "built-in")
        assert store.tally(me).result() == {"w": {"running": 3}, "v": {"running": 2}}

    def test_a_worker_finds_what_it_takes_behind_whatever_it_does_not(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        submit(store, *[new("other", priority=9, tags=("t",)) for _ in range(1_500)])
        tagged, named = submit(store, new("other", tags=("mine",)), new("mine"))
        worker = Worker("w", me, ("default",), ("mine",))
        assert [task.id for task in claim(store, 9, worker)] == [tagged, named]

    def test_what_has_become_ready_is_announced_with_what_workers_choose_it_by(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        heard: list[Change] = []
        store.listen(heard.extend)
        (task,) = submit(store, new("render", queue="gpu", tags=("cuda",), delay=1))
        clock.advance(1)
        store.sweep().result()
        (started,) = claim(store)
        store.release(task, started.fence, "busy").result()
        store.pause(me, "gpu", "").result()
        store.resume(me, "gpu").result()
        ready = [change for change in heard if change.after == "ready"]
        assert len(ready) == 3
        for change in ready:
            assert change.offered in (None, (me.kind, me.id, "gpu", ("render", "cuda")))

    def test_a_worker_takes_nothing_of_a_paused_queue(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        submit(store, new())
        store.pause(me, "default", "").result()
        assert claim(store, 1, Worker("w", me, ("default",))) == []

    def test_workers_are_kept_changed_and_forgotten(
        self, open_store: OpenStore, me: Principal, clock: Clock
    ) -> None:
        store = open_store()
        kept = store.register(Worker("w", me, ("a", "b"), ("x",), 2), 5).result()
        assert kept == Worker("w", me, ("a", "b"), ("x",), 2, clock.wall)
        clock.advance(1)
        store.register(Worker("w", OTHER, ("a",), (), 1), 5).result()
        changed = store.register(Worker("w", me, ("c",), (), 4), 5).result()
        assert (changed.registered_at, changed.slots) == (kept.registered_at, 4)
        with pytest.raises(TaskRefused):
            store.register(Worker("v", me, ("c",), (), 1), 5).result()
        store.close().result(10)
        store = open_store()
        assert [w.principal.id for w in store.workers().result()] == [me.id, OTHER.id]
        assert store.unregister(me, "w").result() == changed
        assert store.unregister(me, "w").result() is None
        assert [w.principal for w in store.workers().result()] == [OTHER]

    # --- looking ----------------------------------------------------------------------------------

    def test_lists_narrow_by_everything(self, store: TaskStore, new: New, me: Principal) -> None:
        one = ended(store, new(tags=("a", "b")), "succeeded")
        two, three = submit(store, new(priority=5, tags=("a",)), new(delay=9))

        def ids(**wanted: Any) -> list[str]:
            page = store.find(me, Filter(**wanted)).result().tasks
            assert store.count(me, Filter(**wanted)).result() == len(page)
            return [task.id for task in page]

        assert ids(states=("ready", "scheduled")) == [three, two]
        assert ids(tags=("a", "b")) == [one]
        assert ids(tags=("a",), tag="b") == [one]
        assert ids(worker="built-in") == [one]
        assert ids(least_priority=1) == [two]
        page = store.find(me, Filter(), limit=1, offset=1).result()
        assert ([task.id for task in page.tasks], page.cursor is not None) == ([two], True)
        assert store.find_key(me, "none").result() is None

    def test_activity_is_of_those_that_were_started_and_ended_of_late(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        assert store.activity(me, 60).result() == Activity(0, None, None)
        (task_id, waiting) = submit(store, new(), new())
        clock.advance(4)
        (task,) = claim(store)
        clock.advance(2)
        store.complete(task_id, task.fence, CallResult("")).result()
        store.cancel(me, waiting).result()
        assert store.activity(me, 60).result() == Activity(1, 4.0, 2.0)
        assert store.activity(OTHER, 60).result().ended == 0
        clock.advance(61)
        assert store.activity(me, 60).result().ended == 0
