"""Promises of a task store: bounds on how much waits in a queue."""

from __future__ import annotations

import pytest

from mcpd_core import Principal
from mcpd_task_queue.limits import Bound, Limits
from mcpd_task_queue.records import Full, QueueLoad, Submitted
from mcpd_task_queue.store import TaskStore

from .suite import OTHER, Clock, New, OpenStore, StoreSuite, claim, ended, kinds, look, submit

TWO = Limits(bounds={"q": Bound(most_tasks=2)})


def load(store: TaskStore, principal: Principal, queue: str = "q") -> QueueLoad:
    """Return how full a queue is."""
    found = {stats.queue: stats.load for stats in store.stats(principal).result()}[queue]
    assert found is not None
    return found


class Bounding(StoreSuite):
    """Bounds of queues; they hold for the tasks of all principals together."""

    def test_a_full_queue_takes_nothing_more_and_says_why(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store(limits=TWO)
        submit(store, new(queue="q", principal=OTHER), new(queue="q", delay=60))
        before = store.health().counts
        (answer,) = store.submit([new(queue="q", arguments={"a": 1})]).result()
        full = answer.full
        assert full is not None
        assert (full.queue, full.limit, full.most, full.tasks) == ("q", "tasks", 2, 2)
        assert (full.overflow, full.ever, full.wanted > 0) == ("reject", True, True)
        assert answer == Submitted("full", "", None, queue="q", full=full)
        assert store.health().counts == before
        (elsewhere,) = store.submit([new()]).result()
        assert (elsewhere.outcome, elsewhere.queue) == ("created", "default")

    def test_of_a_batch_those_are_stored_for_which_there_is_room(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store(limits=TWO)
        batch = [new(queue=queue) for queue in ("q", "q", "q", "default", "q")]
        outcomes = [answer.outcome for answer in store.submit(batch).result()]
        assert outcomes == ["created", "created", "full", "created", "full"]
        assert load(store, me).tasks == 2

    def test_the_arguments_of_what_waits_are_bounded_too(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store(limits=Limits(bounds={"q": Bound(most_bytes=100)}))
        big = new(queue="q", arguments={"a": "ä" * 30})
        first, second = store.submit([big, big]).result()
        assert (first.outcome, second.outcome) == ("created", "full")
        assert second.full is not None
        assert (second.full.limit, second.full.most) == ("bytes", 100)
        assert 60 < second.full.bytes == second.full.wanted <= 100
        assert load(store, me) == QueueLoad(1, second.full.bytes, Bound(most_bytes=100))
        assert submit(store, new(queue="q", arguments={}))
        (never,) = store.submit([new(queue="q", arguments={"a": "x" * 101})]).result()
        assert never.full is not None
        assert not never.full.ever

    def test_each_queue_has_the_common_bound_unless_it_has_its_own(
        self, open_store: OpenStore, new: New
    ) -> None:
        store = open_store(limits=TWO._replace(bound=Bound(most_tasks=1)))
        batch = [new(queue=queue) for queue in ("a", "a", "b", "q", "q", "q")]
        outcomes = [answer.outcome for answer in store.submit(batch).result()]
        assert outcomes == ["created", "full", "created", "created", "created", "full"]

    @pytest.mark.parametrize("way", ["claim", "cancel", "clear", "prioritise", "pause"])
    def test_what_leaves_a_queue_makes_room_and_what_stays_does_not(
        self, open_store: OpenStore, new: New, me: Principal, way: str
    ) -> None:
        store = open_store(limits=TWO)
        first, _ = submit(store, new(queue="q"), new(queue="q"))
        if way == "claim":
            claim(store)
        elif way == "cancel":
            store.cancel(me, first).result()
        elif way == "clear":
            store.clear(me, "q").result()
        elif way == "pause":
            store.pause(me, "q", "").result()
        else:
            store.prioritise(me, first, 5).result()
        left = {"claim": 1, "cancel": 1, "clear": 0}.get(way, 2)
        assert load(store, me).tasks == left
        answers = store.submit([new(queue="q") for _ in range(3)]).result()
        assert [answer.outcome for answer in answers].count("created") == 2 - left

    def test_only_submits_are_held_back(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(limits=TWO)
        cancelled = ended(store, new(queue="q"), "cancelled")
        submit(store, new(queue="q", repeatable=True), new(queue="q", repeatable=True))
        retried, interrupted = claim(store, 2)
        submit(store, new(queue="q"), new(queue="q", delay=5))
        store.fail(retried.id, retried.fence, {"message": "no"}, "retry", 5).result()
        store.interrupt(interrupted.id, interrupted.fence, "cut", count_attempt=True).result()
        store.retry(me, cancelled).result()
        assert load(store, me).tasks == 5
        clock.advance(5)
        assert store.sweep().result().readied == 2
        assert len(claim(store, 9)) == 5
        assert load(store, me).tasks == 0

    def test_what_waits_is_known_exactly_after_a_restart(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store()
        ended(store, new(queue="q"), "dead")
        store.pause(me, "q", "").result()
        submit(store, new(queue="q"), new(queue="q"), new(queue="q", principal=OTHER))
        submit(store, new(queue="q", delay=9), new(queue="q", cron="* * * * *"))
        claim(store)
        before = load(store, me)
        assert before.tasks == 4
        store.close().result()
        assert load(open_store(), me) == before

    def test_an_idempotency_key_is_answered_however_full_the_queue_is(
        self, open_store: OpenStore, new: New
    ) -> None:
        store = open_store(limits=TWO)
        tasks = [new(queue="q", idempotency_key=key) for key in "ab"]
        first, _ = submit(store, *tasks)
        (again,) = store.submit(tasks[:1]).result()
        assert (again.outcome, again.task_id, again.queue) == ("existing", first, "q")

    # --- spilling ---------------------------------------------------------------------------------

    def test_what_has_no_room_spills_into_another_queue(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        bounds = {"q": Bound(1, overflow="spill", spill_to="r"), "r": Bound(1)}
        store = open_store(limits=Limits(bounds=bounds))
        stays, spills, refused = store.submit([new(queue="q") for _ in range(3)]).result()
        assert (stays.queue, stays.spilled_from) == ("q", None)
        assert (spills.outcome, spills.queue, spills.spilled_from) == ("created", "r", "q")
        snapshot = look(store, me, spills.task_id)
        assert snapshot.task.queue == "r"
        assert "q" in snapshot.events[0].detail
        full = refused.full
        assert full == Full("q", "tasks", 1, 1, full.bytes if full else 0, 7, "spill", "r")
        assert [load(store, me, queue).tasks for queue in "qr"] == [1, 1]

    def test_a_spilled_task_is_paused_and_started_with_its_new_queue(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        bounds = {"q": Bound(1, overflow="spill", spill_to="r")}
        store = open_store(limits=Limits(bounds=bounds))
        store.pause(me, "r", "").result()
        first, second = store.submit([new(queue="q"), new(queue="q")]).result()
        assert (first.state, second.state) == ("ready", "paused")

    # --- recurring --------------------------------------------------------------------------------

    def test_a_firing_for_a_full_queue_is_skipped_and_says_so(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(limits=TWO)
        schedule, blocker = submit(store, new(queue="q", cron="* * * * *"), new(queue="q"))
        clock.advance(60)
        store.sweep().result()
        snapshot = look(store, me, schedule)
        assert kinds(snapshot) == ["submitted", "skipped"]
        assert "full" in snapshot.events[-1].detail
        assert snapshot.task.run_at is not None
        assert snapshot.task.run_at > clock.wall
        store.cancel(me, blocker).result()
        clock.advance(60)
        store.sweep().result()
        assert kinds(look(store, me, schedule))[-1] == "fired"
