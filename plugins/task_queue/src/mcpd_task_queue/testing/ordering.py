"""Promises of a task store: the order in which tasks are started."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.records import Task, Worker
from mcpd_task_queue.store import TaskStore

from .suite import OTHER, Clock, New, OpenStore, StoreSuite, claim, look, submit


def keys(tasks: Sequence[Task]) -> str:
    """Return the fairness keys of some tasks, in their order."""
    return "".join(task.fairness_key for task in tasks)


class Ordering(StoreSuite):
    """Turns inside a priority, and ageing between priorities."""

    # --- turns ------------------------------------------------------------------------------------

    def test_clients_have_their_turns_however_many_tasks_each_has(
        self, store: TaskStore, new: New
    ) -> None:
        submit(store, *[new(fairness_key=key) for key in "aaaabbc"])
        assert keys(claim(store, 9)) == "abcabaa"

    def test_one_task_of_a_client_is_second_behind_a_thousand_of_another(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        submit(store, *[new(client="a") for _ in range(1_000)])
        (one,) = submit(store, new(client="b"))
        assert look(store, me, one).ahead == 1
        assert [task.client for task in claim(store, 3)] == ["a", "b", "a"]
        (another,) = submit(store, new(client="b"))
        assert look(store, me, another).ahead == 1, "wherever the other one is in its tasks"

    def test_the_key_of_a_task_is_its_client_unless_it_has_one(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        mine, named, others = submit(
            store,
            new(client="a"),
            new(client="a", fairness_key="project"),
            new(client="a", principal=OTHER),
        )
        assert look(store, me, mine).task.fairness_key == "a"
        assert look(store, me, named).task.fairness_key == "project"
        submit(store, new(client="a"))
        assert {task.id for task in claim(store, 3)} == {mine, named, others}

    def test_who_was_away_has_saved_nothing_up(self, store: TaskStore, new: New) -> None:
        submit(store, *[new(fairness_key="a") for _ in range(50)])
        claim(store, 40)
        submit(store, *[new(fairness_key="b") for _ in range(10)])
        assert keys(claim(store, 6)) == "ababab"

    def test_new_clients_one_after_the_other_starve_nobody(
        self, store: TaskStore, new: New
    ) -> None:
        submit(store, *[new(client="old") for _ in range(3)])
        started = []
        for n in range(12):
            submit(store, new(client=f"new {n}"))
            started += claim(store)
        assert [task.client for task in started].count("old") == 3

    def test_what_was_cancelled_is_not_held_against_its_client(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        ids = submit(store, *[new(fairness_key="a") for _ in range(50)])
        submit(store, *[new(fairness_key="b") for _ in range(50)])
        for task_id in ids:
            store.cancel(me, task_id).result()
        submit(store, *[new(fairness_key="a") for _ in range(2)])
        assert keys(claim(store, 4)) == "baba"

    @pytest.mark.parametrize("way", ["due", "retried", "resumed", "recovered", "prioritised"])
    def test_whatever_makes_a_task_ready_gives_it_a_turn(
        self, store: TaskStore, new: New, me: Principal, clock: Clock, way: str
    ) -> None:
        special = new(
            fairness_key="b",
            queue="q",
            repeatable=True,
            delay=5 if way == "due" else 0,
            priority=9 if way in ("recovered", "retried", "prioritised") else 0,
        )
        (task_id,) = submit(store, special)
        if way in ("recovered", "retried"):
            claim(store)
        submit(store, *[new(fairness_key="a") for _ in range(20)])
        if way == "due":
            clock.advance(5)
            store.sweep().result()
        elif way == "retried":
            store.interrupt(task_id, 1, "cut", count_attempt=True).result()
            assert look(store, me, task_id).task.state == "ready"
        elif way == "recovered":
            store.recover("owner:2").result()
        elif way == "resumed":
            store.pause(me, "q", "").result()
            store.resume(me, "q").result()
        store.prioritise(me, task_id, 0).result()
        assert "b" in keys(claim(store, 2))

    def test_a_firing_has_the_turn_of_its_schedule_s_key(
        self, store: TaskStore, new: New, clock: Clock
    ) -> None:
        submit(store, new(cron="* * * * *", fairness_key="b"))
        submit(store, *[new(fairness_key="a") for _ in range(9)])
        clock.advance(60)
        store.sweep().result()
        assert keys(claim(store, 3)) == "aba"

    def test_a_task_that_is_given_back_is_next(self, store: TaskStore, new: New) -> None:
        submit(store, *[new(fairness_key=key) for key in "abab"])
        (first,) = claim(store)
        store.release(first.id, first.fence, "not started").result()
        again = claim(store, 4)
        assert (again[0].id, keys(again)) == (first.id, "abab")

    def test_the_order_survives_a_restart(self, open_store: OpenStore, new: New) -> None:
        store = open_store()
        submit(store, *[new(fairness_key=key) for key in "aaaaaabb"])
        assert keys(claim(store, 3)) == "aba"
        store.close().result()
        store = open_store()
        submit(store, *[new(fairness_key=key) for key in "cb"])
        assert keys(claim(store, 9)) == "bcabaaa"

    def test_a_worker_that_takes_later_ones_moves_nobody_s_turn(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        submit(store, *[new(fairness_key="a") for _ in range(9)])
        submit(store, new(fairness_key="a", tags=("special",)))
        worker = Worker("w", me, ("default",), ("special",))
        assert [task.tags for task in claim(store, 9, worker)] == [("special",)]
        submit(store, new(fairness_key="b"))
        assert keys(claim(store, 3)) == "aba"

    def test_a_worker_takes_turns_like_everybody(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        submit(store, *[new("x", queue="p", fairness_key="a") for _ in range(4)])
        submit(store, *[new("y", queue="q", fairness_key="b", tags=("x",)) for _ in range(2)])
        submit(store, new("y", queue="q", fairness_key="c"), new("x", queue="q", priority=1))
        picky = Worker("w", me, ("p", "q"), ("x",))
        assert [t.priority for t in claim(store, 1, picky)] == [1]
        assert keys(claim(store, 3, picky)) == "aba"
        assert keys(claim(store, 9, Worker("v", me, ("p", "q")))) == "cbaa"

    # --- ageing -----------------------------------------------------------------------------------

    def test_waiting_makes_up_for_a_lower_priority(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(ageing=100)
        (low,) = submit(store, new())
        clock.advance(150)
        (one, three) = submit(store, new(priority=1), new(priority=3))
        assert [look(store, me, id_).ahead for id_ in (low, one, three)] == [1, 2, 0]
        assert [task.id for task in claim(store, 3)] == [three, low, one]

    def test_a_higher_priority_has_the_edge_when_waiting_is_just_enough(
        self, open_store: OpenStore, new: New, clock: Clock
    ) -> None:
        store = open_store(ageing=100)
        (low,) = submit(store, new())
        clock.advance(100)
        (high,) = submit(store, new(priority=1))
        assert [task.id for task in claim(store, 2)] == [high, low]

    def test_a_constant_stream_of_higher_priority_holds_a_task_up_for_so_long_only(
        self, open_store: OpenStore, new: New, clock: Clock
    ) -> None:
        store = open_store(ageing=60)
        (low,) = submit(store, new(priority=0))
        waited = 0
        submit(store, new(priority=5))
        while claim(store)[0].id != low:
            submit(store, new(priority=5))
            clock.advance(10)
            waited += 10
        assert 5 * 60 < waited <= 5 * 60 + 20

    def test_without_ageing_priority_is_strict(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(ageing=0)
        (low,) = submit(store, new(priority=0))
        clock.advance(1e9)
        (high,) = submit(store, new(priority=1))
        assert [look(store, me, id_).ahead for id_ in (low, high)] == [1, 0]
        assert [task.id for task in claim(store, 2)] == [high, low]

    def test_a_task_waits_since_it_became_ready(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(ageing=60)
        (delayed,) = submit(store, new(delay=1_000))
        clock.advance(1_000)
        store.sweep().result()
        clock.advance(50)
        (high,) = submit(store, new(priority=1))
        assert look(store, me, delayed).ahead == 1
        clock.advance(20)
        store.prioritise(me, delayed, -1).result()
        store.prioritise(me, delayed, 0).result()
        (later,) = submit(store, new(priority=1))
        assert [task.id for task in claim(store, 3)] == [high, delayed, later]

    @pytest.mark.parametrize("jump", [-3_600.0, 3_600.0])
    def test_setting_the_clock_makes_nobody_wait_longer_or_shorter(
        self, open_store: OpenStore, new: New, clock: Clock, jump: float
    ) -> None:
        store = open_store(ageing=60)
        (low,) = submit(store, new(priority=0))
        clock.set_wall(jump)
        clock.advance(59)
        (high,) = submit(store, new(priority=1))
        assert [task.id for task in claim(store)] == [high]
        clock.advance(2)
        submit(store, new(priority=1))
        assert [task.id for task in claim(store)] == [low]

    def test_nor_does_a_clock_that_was_set_back_between_two_starts(
        self, open_store: OpenStore, new: New, clock: Clock
    ) -> None:
        store = open_store(ageing=60)
        (low,) = submit(store, new(priority=0))
        store.close().result()
        clock.set_wall(-3_600)
        store = open_store(ageing=60)
        clock.advance(61)
        submit(store, new(priority=1))
        (first,) = claim(store)
        assert first.id == low
        assert store.complete(low, first.fence, CallResult("")).result().accepted
