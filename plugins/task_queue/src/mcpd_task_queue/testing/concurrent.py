"""Promises of a task store: many callers at once, and the order in which they are answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from mcpd_core import CallResult, Principal
from mcpd_task_queue.records import Change, Filter
from mcpd_task_queue.store import TaskStore

from .suite import New, OpenStore, StoreSuite, claim, look, submit

T = TypeVar("T")

#: Threads that ask at the same moment.
CALLERS = 8


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Make calls from as many threads, none before all of them are ready to."""
    ready = threading.Barrier(len(calls))

    def make(call: Callable[[], T]) -> T:
        ready.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))


class Concurrent(StoreSuite):
    """Many callers at once, and the order in which they are answered."""

    def test_of_many_submits_with_one_key_at_once_a_single_one_makes_the_task(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        def submit_some() -> list[tuple[str, str]]:
            asked = [store.submit([new(idempotency_key="k")]) for _ in range(7)]
            return [(s.outcome, s.task_id) for future in asked for s in future.result()]

        answers = [answer for some in at_once(*[submit_some] * CALLERS) for answer in some]
        assert sorted(outcome for outcome, _ in answers) == ["created"] + ["existing"] * (
            7 * CALLERS - 1
        )
        assert len({task_id for _, task_id in answers}) == 1
        assert store.count(me, Filter()).result() == 1

    def test_no_task_is_claimed_twice_and_none_is_left_out(
        self, store: TaskStore, new: New
    ) -> None:
        ids = submit(store, *[new() for _ in range(60)])

        def claim_all() -> list[str]:
            owner = f"owner:{threading.get_ident()}"
            mine: list[str] = []
            while tasks := store.claim(owner, 3, 30).result():
                mine += [task.id for task in tasks]
            return mine

        claimed = [id_ for mine in at_once(*[claim_all] * CALLERS) for id_ in mine]
        assert sorted(claimed) == sorted(ids)

    def test_of_many_outcomes_at_once_a_single_one_is_recorded(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new(repeatable=True))
        (task,) = claim(store)
        outcomes: list[Callable[[], Any]] = []
        for _ in range(CALLERS // 4):
            outcomes += [
                lambda: store.complete(task_id, task.fence, CallResult("done")),
                lambda: store.fail(task_id, task.fence, {"message": "no"}, "failed"),
                lambda: store.interrupt(task_id, task.fence, "cut", count_attempt=False),
                lambda: store.release(task_id, task.fence, "not started"),
            ]
        recorded = [future.result() for future in at_once(*outcomes)]
        (accepted,) = [answer for answer in recorded if answer.accepted]
        assert look(store, me, task_id).task.state == accepted.state
        assert {answer.state for answer in recorded} == {accepted.state}

    def test_a_cancelling_and_a_success_at_once_agree(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        for _ in range(10):
            (task_id,) = submit(store, new())
            (task,) = claim(store)
            calls: list[Callable[[], Future[Any]]] = [
                lambda: store.cancel(me, task_id),  # noqa: B023 - called before the next round
                lambda: store.complete(task_id, task.fence, CallResult("")),  # noqa: B023
            ]
            cancelled, recorded = (future.result() for future in at_once(*calls))
            assert recorded.accepted
            state = look(store, me, task_id).task.state
            assert state == recorded.state
            assert state == ("cancelled" if cancelled.outcome == "cancelling" else "succeeded")

    def test_a_change_is_announced_before_it_is_answered_and_not_by_the_caller(
        self, store: TaskStore, new: New
    ) -> None:
        heard: list[str] = []
        threads: set[int] = set()

        def listener(changes: Sequence[Change]) -> None:
            threads.add(threading.get_ident())
            heard.extend(change.task_id for change in changes)

        store.listen(listener)
        for _ in range(20):
            future = store.submit([new()])
            assert future.result()[0].task_id in heard
        assert threading.get_ident() not in threads

    def test_a_listener_that_raises_loses_no_answer(self, store: TaskStore, new: New) -> None:
        def broken(_: Sequence[Change]) -> None:
            raise ZeroDivisionError("a defect")

        store.listen(broken)
        assert len(submit(store, new(), new())) == 2
        assert store.health().ok

    def test_an_answer_can_be_relied_on_by_every_look_up_that_follows(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        for n in range(1, 21):
            (task_id,) = submit(store, new(idempotency_key=str(n)))
            assert store.count(me, Filter()).result() == n
            assert store.find(me, Filter(), limit=1).result().tasks[0].id == task_id
            assert store.find_key(me, str(n)).result() == task_id
            assert store.health().counts["ready"] == n

    def test_what_was_asked_for_before_the_closing_is_done(
        self, open_store: OpenStore, new: New
    ) -> None:
        store = open_store()
        asked = [store.submit([new()]) for _ in range(50)]
        closing = store.close()
        wait([closing], 10)
        assert all(future.done() for future in asked)
        ids = [future.result()[0].task_id for future in asked]
        assert [task.id for task in claim(open_store(), 60)] == ids

    def test_nothing_asked_for_is_nothing_done(self, store: TaskStore) -> None:
        assert store.submit([]).result() == []
        assert store.renew([], 10).result() == []
        assert store.claim("owner:1", 0, 10).result() == []

    def test_two_stores_are_not_the_same(self, open_store: OpenStore) -> None:
        first = open_store("first.db")
        assert first.instance
        assert open_store("second.db").instance != first.instance
