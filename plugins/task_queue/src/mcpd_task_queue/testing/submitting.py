"""Promises of a task store: submitting and claiming."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import (
    Swept,
)
from mcpd_task_queue.store import TaskStore

from .suite import Clock, New, OpenStore, StoreSuite, claim, ended, kinds, look, submit


class Submitting(StoreSuite):
    """Submitting and claiming."""

    # --- submitting -------------------------------------------------------------------------------

    def test_a_submitted_task_is_ready_and_has_everything_it_was_given(
        self, store: TaskStore, new: New, me: Principal
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
            fairness_key="for ada",
        )
        (submitted,) = store.submit([task]).result()
        assert (submitted.outcome, submitted.state) == ("created", "ready")
        assert len(submitted.task_id) == 32
        stored = look(store, me, submitted.task_id).task
        for name in set(task._fields) - {"delay"}:
            assert getattr(stored, name) == getattr(task, name), name
        assert (stored.attempts, stored.fence, stored.result, stored.error) == (0, 0, None, None)

    def test_task_ids_cannot_be_guessed_from_each_other(self, store: TaskStore, new: New) -> None:
        ids = submit(store, *[new() for _ in range(50)])
        assert len({id_[:12] for id_ in ids}) == 50

    def test_a_delayed_task_is_scheduled_until_a_sweep_finds_it_due(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
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
        self, store: TaskStore, new: New, state: str
    ) -> None:
        (first,) = submit(store, new(idempotency_key="k"))
        for task in claim(store) if state != "ready" else []:
            if state == "succeeded":
                store.complete(first, task.fence, CallResult("done")).result()
        (again,) = store.submit([new(idempotency_key="k", priority=9)]).result()
        assert (again.outcome, again.task_id, again.state) == ("existing", first, state)
        assert sum(store.health().counts.values()) == 1

    @pytest.mark.parametrize("state", ["failed", "dead", "cancelled", "uncertain"])
    def test_a_key_stays_taken_however_its_task_ended_until_the_task_is_purged(
        self, open_store: OpenStore, new: New, clock: Clock, state: str
    ) -> None:
        store = open_store(retention=100)
        first = ended(store, new(idempotency_key="k"), state)
        (again,) = store.submit([new(idempotency_key="k")]).result()
        assert (again.outcome, again.task_id, again.state) == ("existing", first, state)
        (other,) = store.submit([new(idempotency_key="k", arguments={"a": 2})]).result()
        assert (other.outcome, other.task_id) == ("rejected", first)
        clock.advance(101)
        purged = store.sweep().result().purged
        assert purged == (0 if state == "uncertain" else 1)
        (later,) = store.submit([new(idempotency_key="k")]).result()
        assert later.outcome == ("created" if purged else "existing")

    def test_a_key_that_was_used_for_other_work_is_rejected(
        self, store: TaskStore, new: New
    ) -> None:
        (first,) = submit(store, new(idempotency_key="k"))
        for other in (new("add", arguments={"a": 2}), new("subtract")):
            (answer,) = store.submit([other._replace(idempotency_key="k")]).result()
            assert (answer.outcome, answer.task_id) == ("rejected", first)
        assert sum(store.health().counts.values()) == 1

    def test_a_key_belongs_to_one_principal(self, store: TaskStore, new: New) -> None:
        other = Principal("local", "1001")
        tasks = [new(idempotency_key="k"), new(idempotency_key="k", principal=other)]
        assert [s.outcome for s in store.submit(tasks).result()] == ["created", "created"]

    def test_the_order_of_an_objects_members_does_not_make_other_arguments(
        self, store: TaskStore, new: New
    ) -> None:
        submit(store, new(idempotency_key="k", arguments={"a": 1, "b": 2}))
        (again,) = store.submit([new(idempotency_key="k", arguments={"b": 2, "a": 1})]).result()
        assert again.outcome == "existing"

    @pytest.mark.parametrize(
        "arguments", [{"a": "x" * 2_000}, {"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud800"}]
    )
    def test_arguments_that_cannot_be_stored_change_nothing(
        self, open_store: OpenStore, new: New, arguments: Any
    ) -> None:
        store = open_store(largest_arguments=1_024)
        with pytest.raises(TaskRefused):
            store.submit([new(), new(arguments=arguments)])
        assert sum(store.health().counts.values()) == 0

    # --- claiming ---------------------------------------------------------------------------------

    def test_tasks_are_claimed_by_priority_and_then_in_order_of_submit(
        self, store: TaskStore, new: New
    ) -> None:
        a, b, c, d = submit(
            store, new(priority=0), new(priority=5), new(priority=0), new(priority=5)
        )
        assert [task.id for task in claim(store, 3)] == [b, d, a]
        assert [task.id for task in claim(store, 3)] == [c]
        assert claim(store, 3) == []

    def test_a_claim_counts_an_attempt_and_raises_the_fence(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new(arguments={"a": [1]}))
        (task,) = claim(store)
        assert (task.state, task.attempts, task.fence) == ("running", 1, 1)
        assert task.arguments == {"a": [1]}
        assert look(store, me, task_id).task.started_at == task.started_at is not None

    def test_the_place_of_a_ready_task_counts_what_is_claimed_before_it(
        self, store: TaskStore, new: New, me: Principal
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
