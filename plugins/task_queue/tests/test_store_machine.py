"""The store against a simple model: whatever is asked in whatever order, they agree.

The model is a dict of tasks. Besides agreeing, no history may ever show a task that vanished, one
with two final states, or one with two recorded outcomes.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from mcpd_core import CallResult, Principal
from mcpd_task_queue.records import (
    FINAL,
    RETRYABLE,
    SETTLED,
    Filter,
    NewTask,
    Renewal,
    Task,
    Worker,
)
from mcpd_task_queue.sqlite import SQLiteTaskStore

ME = Principal("local", "1", "me")
OTHER = Principal("local", "2", "other")
LEASE = 10.0
QUEUES = ("default", "other")


def _places(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return connection.execute("SELECT id, seq FROM task").fetchall()


@dataclass
class Model:
    """What the store should know about one task."""

    seq: int
    principal: Principal
    priority: int
    repeatable: bool
    at_most_once: bool
    max_attempts: int
    state: str
    run_at: float = 0.0
    queue: str = "default"
    cron: bool = False
    schedule: str = ""
    latest: str = ""
    attempts: int = 0
    fence: int = 0
    owner: str = ""
    lease_until: float = 0.0
    cancelling: bool = False
    released: bool = False
    outcomes: int = 0
    starts: int = 0
    paused: set[tuple[Principal, str]] = field(default_factory=set)

    def wake(self) -> None:
        self.state = "paused" if (self.principal, self.queue) in self.paused else "ready"

    def cut_off(self, attempts: int) -> None:
        if self.cancelling:
            self.settle("cancelled")
        elif self.at_most_once or not self.repeatable:
            self.state = "uncertain"
        elif attempts >= self.max_attempts:
            self.settle("dead")
        else:
            self.wake()
            self.attempts = attempts
        self.released = False

    def settle(self, state: str) -> None:
        assert self.state not in FINAL, "a second final state"
        self.state = state


class StoreMachine(RuleBasedStateMachine):
    """Asks the store and the model the same things."""

    ids = Bundle("ids")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mcpd-machine-"))
        self.wall = 1_000_000.0
        self.steady = 0.0
        self.epoch = 0
        self.tasks: dict[str, Model] = {}
        self.paused: set[tuple[Principal, str]] = set()
        self.keys: dict[tuple[Principal, str], tuple[str, int]] = {}
        self.open()

    def open(self) -> None:
        self.epoch += 1
        self.store = SQLiteTaskStore(
            self.folder / "tasks.db",
            durability="normal",
            clock=lambda: self.wall,
            monotonic=lambda: self.steady,
        )

    def teardown(self) -> None:
        self.store.close().result()
        shutil.rmtree(self.folder)

    @property
    def owner(self) -> str:
        return f"owner:{self.epoch}"

    # --- submitting and claiming ------------------------------------------------------------------

    @rule(
        target=ids,
        count=st.integers(1, 3),
        priority=st.integers(-1, 1),
        delay=st.sampled_from([0.0, 0.0, 5.0, 20.0]),
        repeatable=st.booleans(),
        at_most_once=st.booleans(),
        max_attempts=st.integers(1, 3),
        principal=st.sampled_from([ME, ME, OTHER]),
        queue=st.sampled_from(QUEUES),
        cron=st.sampled_from([None, None, None, "* * * * *"]),
    )
    def submit(
        self, count: int, principal: Principal, delay: float, cron: str | None, **options: Any
    ) -> Any:
        at_most_once = options.pop("at_most_once")
        delivery: Any = "at_most_once" if at_most_once else "at_least_once"
        new = NewTask("t", {}, principal, delay=delay, delivery=delivery, cron=cron, **options)
        made = self.store.submit([new] * count).result()
        if at_most_once:
            options["max_attempts"] = 1
        for submitted in made:
            assert submitted.outcome == "created"
            model = self.tasks[submitted.task_id] = Model(
                seq=len(self.tasks),
                principal=principal,
                at_most_once=at_most_once,
                state="scheduled",
                run_at=self.next_minute() if cron else self.wall + delay,
                cron=cron is not None,
                paused=self.paused,
                **options,
            )
            if not cron and not delay:
                model.wake()
            assert submitted.state == model.state
            due = model.run_at if model.state == "scheduled" else None
            assert submitted.run_at == due
        return multiple(*(submitted.task_id for submitted in made))

    @rule(
        target=ids,
        key=st.sampled_from(["a", "b"]),
        value=st.integers(0, 1),
        principal=st.sampled_from([ME, OTHER]),
    )
    def submit_with_a_key(self, key: str, value: int, principal: Principal) -> Any:
        new = NewTask("t", {"value": value}, principal, idempotency_key=key)
        (submitted,) = self.store.submit([new]).result()
        known = self.keys.get((principal, key))
        if known is None:
            assert submitted.outcome == "created"
            self.keys[principal, key] = (submitted.task_id, value)
            model = self.tasks[submitted.task_id] = Model(
                len(self.tasks), principal, 0, False, False, 3, "ready", paused=self.paused
            )
            model.wake()
            return submitted.task_id
        assert submitted.outcome == ("existing" if known[1] == value else "rejected")
        assert submitted.task_id == known[0]
        assert submitted.state == self.tasks[known[0]].state
        return multiple()

    @rule(target=claims, limit=st.integers(1, 4))
    def claim(self, limit: int) -> Any:
        ready = [(-m.priority, m.seq, id_) for id_, m in self.tasks.items() if m.state == "ready"]
        expected = [id_ for _, _, id_ in sorted(ready)[:limit]]
        return self.started(self.store.claim(self.owner, limit, LEASE).result(), expected)

    @rule(
        target=claims,
        limit=st.integers(1, 4),
        principal=st.sampled_from([ME, OTHER]),
        queues=st.sampled_from([QUEUES[:1], QUEUES[1:], QUEUES]),
        capabilities=st.sampled_from([(), ("t",), ("other",)]),
    )
    def claim_for_a_worker(
        self,
        limit: int,
        principal: Principal,
        queues: tuple[str, ...],
        capabilities: tuple[str, ...],
    ) -> Any:
        worker = Worker("w", principal, queues, capabilities)
        ready = [
            (-m.priority, m.seq, id_)
            for id_, m in self.tasks.items()
            if m.state == "ready"
            and m.principal == principal
            and m.queue in queues
            and capabilities != ("other",)
        ]
        expected = [id_ for _, _, id_ in sorted(ready)[:limit]]
        claimed = self.store.claim(self.owner, limit, LEASE, worker).result()
        assert {task.worker for task in claimed} <= {"w"}
        return self.started(claimed, expected)

    def started(self, claimed: Sequence[Task], expected: list[str]) -> Any:
        assert [task.id for task in claimed] == expected
        for task in claimed:
            model = self.tasks[task.id]
            model.state = "running"
            model.owner = self.owner
            model.attempts += 1
            model.starts += 1
            model.fence += 1
            model.lease_until = self.steady + LEASE
            assert (task.attempts, task.fence) == (model.attempts, model.fence)
        return multiple(*((task.id, task.fence) for task in claimed))

    # --- outcomes, some of them late --------------------------------------------------------------

    def owned(self, claim: tuple[str, int]) -> Model | None:
        model = self.tasks[claim[0]]
        return model if model.state == "running" and model.fence == claim[1] else None

    def check(self, recorded: Any, claim: tuple[str, int], before: Model | None) -> None:
        assert recorded.accepted == (before is not None)
        assert recorded.state == self.tasks[claim[0]].state

    @rule(claim=claims)
    def complete(self, claim: tuple[str, int]) -> None:
        recorded = self.store.complete(*claim, CallResult(str(claim[1]))).result()
        model = self.owned(claim)
        if model is not None:
            if model.cancelling:
                model.settle("cancelled")
            else:
                model.settle("succeeded")
                model.outcomes += 1
                assert model.outcomes == 1
        self.check(recorded, claim, model)

    @rule(
        claim=claims,
        verdict=st.sampled_from(["retry", "failed", "dead"]),
        retry_in=st.sampled_from([0.0, 7.0]),
    )
    def fail(self, claim: tuple[str, int], verdict: Any, retry_in: float) -> None:
        recorded = self.store.fail(*claim, {"message": "no"}, verdict, retry_in).result()
        model = self.owned(claim)
        if model is not None:
            if model.cancelling:
                model.settle("cancelled")
            elif verdict == "retry":
                model.state = "scheduled"
                model.run_at = self.wall + retry_in
                model.released = False
            else:
                model.settle(verdict)
        self.check(recorded, claim, model)

    @rule(claim=claims, retry_in=st.sampled_from([0.0, 7.0]))
    def release(self, claim: tuple[str, int], retry_in: float) -> None:
        recorded = self.store.release(*claim, "busy", retry_in).result()
        model = self.owned(claim)
        if model is not None:
            if model.cancelling:
                model.settle("cancelled")
            else:
                model.state = "scheduled"
                if not retry_in:
                    model.wake()
                model.run_at = self.wall + retry_in
                model.attempts -= 1
                model.starts -= 1
                model.released = True
        self.check(recorded, claim, model)

    @rule(claim=claims, count_attempt=st.booleans())
    def interrupt(self, claim: tuple[str, int], count_attempt: bool) -> None:
        recorded = self.store.interrupt(*claim, "cut", count_attempt=count_attempt).result()
        model = self.owned(claim)
        if model is not None:
            model.cut_off(model.attempts - (not count_attempt))
        self.check(recorded, claim, model)

    @rule(claim=claims)
    def renew(self, claim: tuple[str, int]) -> None:
        (answer,) = self.store.renew([Renewal(*claim)], LEASE).result()
        model = self.owned(claim)
        if model is not None:
            model.lease_until = self.steady + LEASE
        self.check(answer, claim, model)

    @rule(task_id=ids, principal=st.sampled_from([ME, OTHER]))
    def cancel(self, task_id: str, principal: Principal) -> None:
        answer = self.store.cancel(principal, task_id).result()
        model = self.tasks[task_id]
        if model.principal != principal:
            assert answer is None
            return
        assert answer is not None
        if model.state in SETTLED:
            assert answer.outcome == "settled"
        elif model.state == "running":
            assert answer.outcome == "cancelling"
            model.cancelling = True
        else:
            assert answer.outcome == "cancelled"
            model.settle("cancelled")
        assert answer.state == model.state

    # --- what people do ---------------------------------------------------------------------------

    @rule(task_id=ids, budget=st.sampled_from([None, 2]))
    def retry(self, task_id: str, budget: int | None) -> None:
        model = self.tasks[task_id]
        answer = self.store.retry(model.principal, task_id, budget).result()
        assert answer is not None
        assert answer.done == (model.state in RETRYABLE)
        if answer.done:
            self.again(model)
            if budget and not model.at_most_once:
                model.max_attempts = budget
        assert answer.state == model.state

    def again(self, model: Model) -> None:
        model.attempts = 0
        model.starts = 0
        model.cancelling = False
        model.released = False
        if model.cron:
            model.state = "scheduled"
            model.run_at = self.next_minute()
        else:
            model.wake()

    @rule(task_id=ids, resolution=st.sampled_from(["succeeded", "failed", "retry"]))
    def resolve(self, task_id: str, resolution: Any) -> None:
        model = self.tasks[task_id]
        answer = self.store.resolve(model.principal, task_id, resolution, "seen").result()
        assert answer is not None
        assert answer.done == (model.state == "uncertain")
        if answer.done and resolution == "retry":
            self.again(model)
        elif answer.done:
            model.settle(resolution)
        assert answer.state == model.state

    @rule(task_id=ids, priority=st.integers(-1, 1))
    def prioritise(self, task_id: str, priority: int) -> None:
        model = self.tasks[task_id]
        answer = self.store.prioritise(model.principal, task_id, priority).result()
        assert answer is not None
        assert (answer.before, answer.done) == (model.priority, model.state not in SETTLED)
        if answer.done:
            model.priority = priority

    def of(self, principal: Principal, queue: str, *states: str) -> list[Model]:
        return [
            m
            for m in self.tasks.values()
            if (m.principal, m.queue) == (principal, queue) and m.state in states
        ]

    @rule(principal=st.sampled_from([ME, OTHER]), queue=st.sampled_from(QUEUES))
    def pause(self, principal: Principal, queue: str) -> None:
        answer = self.store.pause(principal, queue, "why not").result()
        assert answer.changed == ((principal, queue) not in self.paused)
        self.paused.add((principal, queue))
        stopped = self.of(principal, queue, "ready")
        for model in stopped:
            model.state = "paused"
        assert answer.tasks == len(stopped)
        assert answer.running == len(self.of(principal, queue, "running"))

    @rule(principal=st.sampled_from([ME, OTHER]), queue=st.sampled_from(QUEUES))
    def resume(self, principal: Principal, queue: str) -> None:
        answer = self.store.resume(principal, queue).result()
        assert answer.changed == ((principal, queue) in self.paused)
        self.paused.discard((principal, queue))
        waiting = self.of(principal, queue, "paused")
        for model in waiting:
            model.state = "ready"
        assert answer.tasks == len(waiting)

    @rule(
        principal=st.sampled_from([ME, OTHER]),
        queue=st.sampled_from(QUEUES),
        recurring=st.booleans(),
    )
    def clear(self, principal: Principal, queue: str, recurring: bool) -> None:
        answer = self.store.clear(principal, queue, recurring=recurring).result()
        waiting = [
            m
            for m in self.of(principal, queue, "scheduled", "ready", "paused")
            if recurring or not m.cron
        ]
        for model in waiting:
            model.settle("cancelled")
        assert answer.tasks == len(waiting)

    # --- time and death ---------------------------------------------------------------------------

    def next_minute(self) -> float:
        return (self.wall // 60 + 1) * 60

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    @rule(seconds=st.sampled_from([-3_600.0, 3_600.0]))
    def set_the_clock(self, seconds: float) -> None:
        self.wall += seconds

    @rule()
    def sweep(self) -> None:
        self.store.sweep().result()
        firing: set[str] = set()
        for id_, model in self.tasks.items():
            if model.state == "scheduled" and model.cron and model.run_at <= self.wall:
                model.run_at = self.next_minute()
                firing.add(id_)
        # One whose predecessor still waits stands back; it did so before the sweep.
        waiting = {
            id_
            for id_ in firing
            if (latest := self.tasks[id_].latest)
            and self.tasks[latest].state in ("scheduled", "ready", "paused")
        }
        for task in self.fresh():
            assert task.schedule_id is not None
            assert task.schedule_id in firing - waiting, "a firing that was not due, or doubled"
            firing.remove(task.schedule_id)
            schedule = self.tasks[task.schedule_id]
            schedule.latest = task.id
            made = self.tasks[task.id] = Model(
                seq=len(self.tasks),
                principal=schedule.principal,
                priority=schedule.priority,
                repeatable=schedule.repeatable,
                at_most_once=schedule.at_most_once,
                max_attempts=schedule.max_attempts,
                state="ready",
                queue=schedule.queue,
                schedule=task.schedule_id,
                paused=self.paused,
            )
            made.wake()
        assert firing == waiting, "a firing was lost"
        for model in self.tasks.values():
            if model.state == "scheduled" and not model.cron and model.run_at <= self.wall:
                model.wake()
            elif (
                model.state == "running"
                and model.owner == self.owner
                and model.lease_until < self.steady
            ):
                model.cut_off(model.attempts)

    def fresh(self) -> list[Task]:
        """Return the tasks that the model has not seen, in the order in which they were made."""
        found = []
        for principal in (ME, OTHER):
            page = self.store.find(principal, Filter(), limit=10_000).result()
            found += [task for task in reversed(page.tasks) if task.id not in self.tasks]
        seqs = dict(self.store._reader.do(_places).result())
        return sorted(found, key=lambda task: seqs[task.id])

    @rule()
    def restart(self) -> None:
        self.store.close().result()
        self.open()
        self.store.recover(self.owner).result()
        for model in self.tasks.values():
            if model.state == "running":
                model.cut_off(model.attempts)
            elif model.state == "scheduled" and model.released:
                model.wake()

    # --- what must always hold --------------------------------------------------------------------

    @invariant()
    def nothing_vanishes_and_every_state_is_the_models(self) -> None:
        for principal in (ME, OTHER):
            found = self.store.find(principal, Filter(), limit=10_000).result().tasks
            mine = {id_: m for id_, m in self.tasks.items() if m.principal == principal}
            assert {t.id: (t.state, t.attempts, t.fence, t.priority) for t in found} == {
                id_: (m.state, m.attempts, m.fence, m.priority) for id_, m in mine.items()
            }
            assert [t.id for t in found] == list(mine)[::-1]

    @invariant()
    def counts_and_due_times_are_true(self) -> None:
        counts: dict[str, int] = dict.fromkeys(self.store.health().counts, 0)
        for model in self.tasks.values():
            counts[model.state] += 1
        assert self.store.health().counts == counts
        due = [m.run_at - self.wall for m in self.tasks.values() if m.state == "scheduled"]
        assert self.store.next_due().result() == (max(0.0, min(due)) if due else None)

    @invariant()
    def at_most_once_means_one_start(self) -> None:
        for model in self.tasks.values():
            # A release says that it did not start.
            assert model.starts <= (1 if model.at_most_once else 10_000)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
pytestmark = pytest.mark.timeout(120)
