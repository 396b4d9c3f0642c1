"""Promises of a task store: standing orders."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import StoreClosed
from mcpd_task_queue.limits import Limit, Limits
from mcpd_task_queue.records import Change, Task, Worker
from mcpd_task_queue.store import TaskStore

from .suite import OTHER, Clock, New, OpenStore, StoreSuite, claim, look, submit


class Waiting:
    """Somebody with a standing order.

    :ivar tasks: what was delivered.
    """

    def __init__(self, store: TaskStore, wanted: int, worker: Worker | None = None) -> None:
        self.tasks: list[Task] = []
        self.errors: list[BaseException] = []
        self.order = store.order("owner:2", 30.0, worker, self._deliver, self.errors.append)
        self.order.want(wanted)
        # Operations are done in their order: from here on the store knows of it.
        store.renew([], 30.0).result()

    def _deliver(self, tasks: Sequence[Task]) -> None:
        self.tasks += tasks

    @property
    def ids(self) -> list[str]:
        return [task.id for task in self.tasks]


class Standing(StoreSuite):
    """Tasks that are started as soon as they can be, for those who wait for them."""

    def test_a_task_is_started_by_the_time_that_its_submit_is_acknowledged(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        waiting = Waiting(store, 2)
        (task_id,) = submit(store, new(arguments={"a": 7}))
        (task,) = waiting.tasks
        assert (task.id, task.state, task.attempts, task.arguments) == (
            task_id,
            "running",
            1,
            {"a": 7},
        )
        assert look(store, me, task_id).task.state == "running"
        assert store.complete(task.id, task.fence, CallResult("done")).result().accepted

    def test_what_waited_before_the_order_is_started_as_well(
        self, store: TaskStore, new: New
    ) -> None:
        first, second, third = submit(store, new(), new(), new(priority=1))
        waiting = Waiting(store, 2)
        assert waiting.ids == [third, first]
        waiting.order.want(2)
        store.renew([], 30.0).result()
        assert waiting.ids == [third, first, second]

    def test_no_more_is_started_than_is_wanted_and_the_best_of_it(
        self, store: TaskStore, new: New
    ) -> None:
        waiting = Waiting(store, 2)
        low, high, middle = submit(store, new(), new(priority=2), new(priority=1))
        assert waiting.ids == [high, middle]
        assert [task.id for task in claim(store, 9)] == [low]

    def test_recording_an_outcome_makes_room_for_the_next_task(
        self, store: TaskStore, new: New
    ) -> None:
        waiting = Waiting(store, 1)
        first, second = submit(store, new(), new())
        assert waiting.ids == [first]
        recorded = store.complete(first, waiting.tasks[0].fence, CallResult(""))
        waiting.order.want(1)
        assert recorded.result().accepted
        store.renew([], 30.0).result()
        assert waiting.ids == [first, second]

    @pytest.mark.parametrize("way", ["retried", "resumed", "due", "released"])
    def test_whatever_makes_a_task_ready_starts_it(
        self, store: TaskStore, new: New, me: Principal, clock: Clock, way: str
    ) -> None:
        if way == "resumed":
            store.pause(me, "default", "").result()
        (task_id,) = submit(store, new(delay=5.0 if way == "due" else 0.0))
        fence = 0
        if way in ("retried", "released"):
            (task,) = claim(store)
            fence = task.fence
            if way == "retried":
                store.fail(task_id, fence, {"message": "no"}, "failed").result()
        waiting = Waiting(store, 1)
        assert waiting.ids == []
        if way == "resumed":
            store.resume(me, "default").result()
        elif way == "due":
            clock.advance(6)
            store.sweep().result()
        elif way == "retried":
            store.retry(me, task_id).result()
        else:
            store.release(task_id, fence, "busy").result()
        assert waiting.ids == [task_id]

    def test_a_limit_holds_for_orders_and_starts_the_next_when_it_opens(
        self, open_store: OpenStore, new: New
    ) -> None:
        store = open_store(limits=Limits(queues={"gpu": Limit(concurrency=1)}))
        waiting = Waiting(store, 5)
        first, second, free = submit(store, new(queue="gpu"), new(queue="gpu"), new())
        assert sorted(waiting.ids) == sorted([first, free])
        fence = next(task.fence for task in waiting.tasks if task.id == first)
        store.complete(first, fence, CallResult("")).result()
        assert waiting.ids[2:] == [second]

    def test_a_rate_holds_for_orders_and_a_sweep_starts_the_next(
        self, open_store: OpenStore, new: New, clock: Clock
    ) -> None:
        store = open_store(limits=Limits(queues={"gpu": Limit(rate=0.1)}))
        waiting = Waiting(store, 5)
        first, second = submit(store, new(queue="gpu"), new(queue="gpu"))
        assert waiting.ids == [first]
        due = store.next_due().result()
        assert due is not None
        clock.advance(due + 0.1)
        store.sweep().result()
        assert waiting.ids == [first, second]

    def test_a_worker_is_given_what_it_takes_and_before_the_built_in_one(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        anybody = Waiting(store, 9)
        picky = Waiting(store, 9, Worker("w", me, ("default",), ("add", "gpu")))
        by_tool, by_tag, elsewhere, others, another = submit(
            store,
            new("add"),
            new("mul", tags=("gpu",)),
            new("add", queue="other"),
            new("add", principal=OTHER),
            new("mul"),
        )
        assert sorted(picky.ids) == sorted([by_tool, by_tag])
        assert {task.worker for task in picky.tasks} == {"w"}
        assert sorted(anybody.ids) == sorted([elsewhere, others, another])

    def test_when_an_order_is_withdrawn_all_of_it_has_arrived_and_nothing_more_does(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        waiting = Waiting(store, 9)
        before = store.submit([new(), new()])
        withdrawn = waiting.order.withdraw()
        after = store.submit([new()])
        withdrawn.result()
        arrived = waiting.ids
        submitted = [answer.task_id for answer in (*before.result(), *after.result())]
        left = [id_ for id_ in submitted if look(store, me, id_).task.state == "ready"]
        assert sorted([*arrived, *left]) == sorted(submitted)
        assert submitted[2] in left
        submit(store, new())
        assert waiting.ids == arrived

    def test_a_start_is_announced_behind_what_made_the_task_ready_and_before_its_delivery(
        self, store: TaskStore, new: New
    ) -> None:
        heard: list[Change] = []
        known: list[int] = []
        store.listen(heard.extend)
        errors: list[BaseException] = []
        order = store.order(
            "owner:2", 30.0, None, lambda _: known.append(len(heard)), errors.append
        )
        order.want(1)
        submit(store, new())
        assert [(change.before, change.after) for change in heard] == [
            (None, "ready"),
            ("ready", "running"),
        ]
        assert known[-1] == 2

    def test_what_starts_by_an_order_is_subject_to_its_deadline_and_its_attempts(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        waiting = Waiting(store, 1)
        (task_id,) = submit(store, new(delivery="at_most_once"))
        (task,) = waiting.tasks
        store.interrupt(task_id, task.fence, "cut", count_attempt=True).result()
        assert look(store, me, task_id).task.state == "uncertain"
        waiting.order.want(1)
        store.renew([], 30.0).result()
        assert waiting.ids == [task_id]

    def test_an_order_from_a_store_that_is_closed_says_so(self, store: TaskStore, new: New) -> None:
        waiting = Waiting(store, 1)
        store.close().result()
        assert [type(error) for error in waiting.errors] == [StoreClosed]
        waiting.order.want(1)
        assert [type(error) for error in waiting.errors] == [StoreClosed] * 2
        assert waiting.ids == []
