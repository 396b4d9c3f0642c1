"""Promises of a task store: limits on how many tasks run and how often they start."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.limits import Limit, Limits
from mcpd_task_queue.records import Change, Hold, Task, Worker
from mcpd_task_queue.store import TaskStore

from .suite import OTHER, Clock, New, OpenStore, StoreSuite, claim, look, submit

TWO_AT_ONCE = Limits(queues={"gpu": Limit(concurrency=2)})


def finish(store: TaskStore, task: Task) -> None:
    """Complete a running task."""
    assert store.complete(task.id, task.fence, CallResult("")).result().accepted


class Limiting(StoreSuite):
    """Limits of queues and of tools; they hold for the tasks of all principals together."""

    # --- how many run -----------------------------------------------------------------------------

    def test_no_more_run_than_the_queue_lets(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store(limits=TWO_AT_ONCE)
        tasks = [new(queue="gpu"), new(queue="gpu", principal=OTHER), new(queue="gpu")]
        ids = submit(store, *tasks, new())
        first, second, free = claim(store, 9)
        assert {first.queue, second.queue, free.queue} == {"gpu", "default"}
        assert claim(store, 9) == []
        (waits,) = set(ids) - {first.id, second.id, free.id}
        held = look(store, me, waits) if waits != ids[1] else look(store, OTHER, waits)
        assert held.holds == (Hold("queue", "gpu", running=2, most=2),)
        heard: list[Change] = []
        store.listen(heard.extend)
        finish(store, free)
        finish(store, first)
        assert [change.opens for change in heard] == [False, True]
        assert [task.id for task in claim(store, 9)] == [waits]

    @pytest.mark.parametrize("end", ["fail", "retry", "release", "interrupt", "recover", "expire"])
    def test_however_a_task_ends_to_run_it_makes_room(
        self, open_store: OpenStore, new: New, clock: Clock, end: str
    ) -> None:
        store = open_store(limits=Limits(queues={"gpu": Limit(concurrency=1)}))
        submit(store, new(queue="gpu"), new(queue="gpu"))
        (task,) = claim(store, 9, lease=10)
        verdict: Any = "retry" if end == "retry" else "failed"
        if end in ("fail", "retry"):
            store.fail(task.id, task.fence, {"message": "no"}, verdict, 99).result()
        elif end == "release":
            store.release(task.id, task.fence, "busy", 99).result()
        elif end == "interrupt":
            store.interrupt(task.id, task.fence, "cut", count_attempt=True).result()
        elif end == "recover":
            store.recover("owner:2").result()
        else:
            clock.advance(11)
            store.sweep().result()
        assert len(claim(store, 9)) == 1
        assert claim(store, 9) == []

    def test_a_tool_has_its_limit_in_whichever_queue(self, open_store: OpenStore, new: New) -> None:
        limits = Limits({"gpu": Limit(concurrency=3)}, {"fetch": Limit(concurrency=1)})
        store = open_store(limits=limits)
        for queue in ("gpu", "other"):
            submit(store, *[new(tool, queue=queue) for tool in ("fetch", "fetch", "add", "add")])
        started = claim(store, 99)
        assert [task.tool for task in started].count("fetch") == 1
        assert [(task.tool, task.queue) for task in started].count(("add", "other")) == 2
        assert [task.queue for task in started].count("gpu") <= 3
        finish(store, next(task for task in started if task.tool == "fetch"))
        assert [task.tool for task in claim(store, 99)].count("fetch") == 1

    def test_what_ran_when_the_process_died_is_counted_until_it_is_taken_over(
        self, open_store: OpenStore, new: New
    ) -> None:
        store = open_store(limits=TWO_AT_ONCE)
        submit(store, *[new(queue="gpu", repeatable=True) for _ in range(3)])
        claim(store, 9)
        store.close().result()
        store = open_store(limits=TWO_AT_ONCE)
        assert claim(store, 9) == []
        store.recover("owner:2").result()
        assert len(claim(store, 9)) == 2

    def test_limits_may_change_from_one_start_to_the_next(
        self, open_store: OpenStore, new: New
    ) -> None:
        store = open_store()
        submit(store, *[new(queue="gpu", tags=("t",)) for _ in range(9)])
        store.close().result()
        store = open_store(limits=TWO_AT_ONCE)
        assert len(claim(store, 9)) == 2
        store.close().result()
        store = open_store(limits=Limits(tools={"add": Limit(concurrency=5)}))
        assert len(claim(store, 9)) == 3
        store.close().result()
        assert len(claim(open_store(), 9)) == 4

    def test_registered_workers_keep_to_the_limits(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        limits = Limits({"gpu": Limit(concurrency=2)}, {"x": Limit(concurrency=1)})
        store = open_store(limits=limits)
        submit(store, *[new("x", queue=queue) for queue in ("gpu", "gpu", "default", "default")])
        submit(store, *[new("y", queue=queue, tags=("x",)) for queue in ("gpu", "gpu", "default")])
        picky = Worker("w", me, ("gpu", "default"), ("x",))
        started = claim(store, 9, picky)
        assert [task.tool for task in started].count("x") == 1
        assert [task.queue for task in started].count("gpu") == 2
        assert claim(store, 9, Worker("v", me, ("gpu",))) == []

    def test_a_lane_that_was_held_back_goes_on_where_it_was(
        self, open_store: OpenStore, new: New
    ) -> None:
        """Turns are those of the lane: nobody has to catch up with what went by meanwhile."""
        store = open_store(limits=Limits({"gpu": Limit(concurrency=1)}))
        submit(store, *[new(queue="gpu", fairness_key="a") for _ in range(9)])
        (running,) = claim(store)
        submit(store, *[new(fairness_key="a") for _ in range(30)])
        claim(store, 20)
        submit(store, new(queue="gpu", fairness_key="b"))
        finish(store, running)
        (second,) = claim(store)
        assert (second.queue, second.fairness_key) == ("gpu", "a")
        finish(store, second)
        assert [(task.queue, task.fairness_key) for task in claim(store)] == [("gpu", "b")]

    def test_the_place_of_a_task_does_not_count_what_is_held_back(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store(limits=Limits({"gpu": Limit(concurrency=1)}))
        *_, last = submit(store, *[new(queue="gpu") for _ in range(9)])
        claim(store)
        (free,) = submit(store, new())
        assert (look(store, me, free).ahead, look(store, me, free).holds) == (0, ())
        assert look(store, me, last).ahead == 7

    # --- how often they start ---------------------------------------------------------------------

    def test_a_rate_spaces_starts_out(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(limits=Limits(tools={"fetch": Limit(rate=2, per=60)}))
        ids = submit(store, *[new("fetch") for _ in range(3)])
        assert [task.id for task in claim(store, 9)] == ids[:1]
        assert store.next_due().result() == pytest.approx(30)
        (hold,) = look(store, me, ids[1]).holds
        assert (hold.kind, hold.name, hold.running) == ("tool", "fetch", None)
        assert hold.opens_in == pytest.approx(30)
        clock.advance(29)
        assert claim(store, 9) == []
        clock.advance(1)
        assert store.next_due().result() == 0
        store.sweep().result()
        assert store.next_due().result() is None, "who is told once need not be told again"
        assert [task.id for task in claim(store, 9)] == ids[1:2]
        assert store.next_due().result() == pytest.approx(30)

    def test_a_burst_is_let_through_after_a_quiet_time(
        self, open_store: OpenStore, new: New, clock: Clock
    ) -> None:
        store = open_store(limits=Limits(queues={"q": Limit(rate=1, per=10, burst=3)}))
        submit(store, *[new(queue="q") for _ in range(20)])
        assert len(claim(store, 9)) == 3
        clock.advance(10)
        assert len(claim(store, 9)) == 1
        clock.advance(25)
        assert len(claim(store, 9)) == 2
        clock.advance(1_000)
        assert len(claim(store, 9)) == 3

    def test_what_comes_too_late_to_be_started_uses_up_no_start(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(limits=Limits(queues={"q": Limit(rate=1, per=100)}))
        late, good = submit(store, new(queue="q", deadline=5.0), new(queue="q"))
        clock.advance(6)
        # No sweep has come by: the claim itself finds that it is too late for the first one.
        assert [task.id for task in claim(store, 9)] == [good]
        assert look(store, me, late).task.state == "dead"
        (third,) = submit(store, new(queue="q"))
        assert claim(store, 9) == []
        clock.advance(100)
        assert [task.id for task in claim(store, 9)] == [third]

    def test_a_rate_is_kept_over_a_restart(
        self, open_store: OpenStore, new: New, clock: Clock
    ) -> None:
        limits = Limits(queues={"q": Limit(rate=1, per=100)})
        store = open_store(limits=limits)
        submit(store, new(queue="q"), new(queue="q"))
        claim(store)
        clock.advance(40)
        store.close().result()
        store = open_store(limits=limits)
        assert claim(store, 9) == []
        assert store.next_due().result() == pytest.approx(60)

    @pytest.mark.parametrize("jump", [-3_600.0, 3_600.0])
    @pytest.mark.parametrize("restarted", [False, True])
    def test_setting_the_clock_neither_shuts_a_rate_for_long_nor_opens_it_wide(
        self, open_store: OpenStore, new: New, clock: Clock, jump: float, restarted: bool
    ) -> None:
        limits = Limits(queues={"q": Limit(rate=1, per=10, burst=2)})
        store = open_store(limits=limits)
        submit(store, *[new(queue="q") for _ in range(9)])
        assert len(claim(store, 9)) == 2
        clock.set_wall(jump)
        if restarted:
            store.close().result()
            store = open_store(limits=limits)
            # At most one burst more than there should be, and at most one burst's time shut.
            assert len(claim(store, 9)) == (2 if jump > 0 else 0)
            clock.advance(20)
            assert 1 <= len(claim(store, 9)) <= 2
        else:
            assert claim(store, 9) == []
            clock.advance(10)
            assert len(claim(store, 9)) == 1
