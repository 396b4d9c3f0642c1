"""The store against a simple model: whatever is asked in whatever order, they agree.

The model is a dict of tasks. Besides agreeing, no history may ever show a task that vanished, one
with two final states, or one with two recorded outcomes.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from mcpd_core import CallResult, Principal
from mcpd_task_queue.limits import Bound, Limit, Limits
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
LIMITED = "other"


def _places(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return connection.execute("SELECT id, seq FROM task").fetchall()


class Order:
    """In which order the store should start tasks: the rules once more, without any index."""

    def __init__(self, ageing: float, limit: Limit | None) -> None:
        self.ageing = ageing
        #: What limits the queue `LIMITED`, which is a lane of its own then.
        self.limit = limit
        self.expected = 0.0
        self.now = 0.0
        #: By lane and priority, the turn served last; by flow, how many wait and the last turn
        #: given.
        self.served: dict[tuple[str, int], int] = {}
        self.flows: dict[tuple[str, int, Principal, str], tuple[int, int]] = {}

    def load(self, ready: Sequence[Model]) -> None:
        self.served.clear()
        self.flows.clear()
        for model in ready:
            count, last = self.flows.get(model.flow, (0, model.turn))
            self.flows[model.flow] = (count + 1, max(last, model.turn))
            served = self.served.get(model.where, model.turn - 1)
            self.served[model.where] = min(served, model.turn - 1)

    def join(self, model: Model, *, goes_first: bool) -> None:
        if not any(flow[:2] == model.where for flow in self.flows):
            # A lane that was empty starts where the farthest one is.
            self.served[model.where] = max(
                (turn for (_, level), turn in self.served.items() if level == model.priority),
                default=0,
            )
        served = self.served[model.where]
        count, last = self.flows.get(model.flow, (0, served))
        model.turn = min(model.turn, served) if goes_first else max(served, last) + 1
        self.flows[model.flow] = (count + 1, max(last, model.turn))

    def leave(self, model: Model) -> None:
        count, last = self.flows.pop(model.flow)
        if count > 1:
            self.flows[model.flow] = (count - 1, last)

    def opens_at(self) -> float:
        assert self.limit is not None
        return self.expected - (self.limit.burst - 1) * self.limit.interval

    def room(self, running: int) -> float:
        """Say how many tasks of the limited queue may start."""
        if self.limit is None:
            return math.inf
        if self.limit.concurrency is not None:
            return self.limit.concurrency - running
        room, expected = 0, self.expected
        while expected - (self.limit.burst - 1) * self.limit.interval <= self.now + 0.001:
            room += 1
            expected = max(expected, self.now) + self.limit.interval
        return room

    def best(self, ready: Sequence[Model], limit: int, running: int) -> list[Model]:
        """Of the first task of each priority, take the one that is best, again and again."""
        waiting, chosen = list(ready), list[Model]()
        room = self.room(running)
        while len(chosen) < limit:
            if sum(model.queue == LIMITED for model in chosen) >= room:
                waiting = [model for model in waiting if model.queue != LIMITED]
            if not waiting:
                break
            heads: dict[int, Model] = {}
            for model in sorted(waiting, key=lambda m: (m.turn, m.ready_at, m.seq)):
                heads.setdefault(model.priority, model)
            first = min(heads.values(), key=self.rank)
            waiting.remove(first)
            chosen.append(first)
        return chosen

    def rank(self, model: Model) -> tuple[float, int]:
        if not self.ageing:
            return 0.0, -model.priority
        return model.ready_at - model.priority * self.ageing, -model.priority

    def taken(self, model: Model, lowest: int | None) -> None:
        """Take note that it was its turn; ``lowest`` is the earliest one passed over, if any."""
        turn = model.turn if lowest is None or lowest >= model.turn else lowest - 1
        self.served[model.where] = max(self.served.get(model.where, 0), turn)

    def started(self, model: Model) -> None:
        """Take note of a start, which one that is too late has not."""
        if self.limit is not None and model.queue == LIMITED:
            self.expected = max(self.expected, self.now) + self.limit.interval


@dataclass
class Model:
    """What the store should know about one task."""

    seq: int
    principal: Principal
    priority: int
    repeatable: bool
    at_most_once: bool
    max_attempts: int
    order: Order
    state: str = "scheduled"
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
    key: str = ""
    turn: int = 0
    ready_at: float = 0.0
    deadline: float | None = None
    expires_at: float | None = None

    @property
    def where(self) -> tuple[str, int]:
        lane = LIMITED if self.order.limit is not None and self.queue == LIMITED else ""
        return lane, self.priority

    @property
    def flow(self) -> tuple[str, int, Principal, str]:
        return *self.where, self.principal, self.key

    def to(self, state: str) -> None:
        if self.state == "ready":
            self.order.leave(self)
        self.state = state

    def wake(self, *, goes_first: bool = False) -> None:
        if (self.principal, self.queue) in self.paused:
            self.to("paused")
            return
        self.to("ready")
        self.order.join(self, goes_first=goes_first)
        self.ready_at = self.order.now

    def prioritise(self, priority: int) -> None:
        if self.state == "ready" and priority != self.priority:
            self.order.leave(self)
            self.priority = priority
            self.order.join(self, goes_first=False)
        self.priority = priority

    def cut_off(self, attempts: int) -> None:
        if self.cancelling:
            self.settle("cancelled")
        elif self.at_most_once or not self.repeatable:
            self.to("uncertain")
        elif attempts >= self.max_attempts:
            self.settle("dead")
        else:
            self.wake()
            self.attempts = attempts
        self.released = False

    def expired(self, wall: float) -> bool:
        return self.expires_at is not None and self.expires_at <= wall

    def settle(self, state: str) -> None:
        assert self.state not in FINAL, "a second final state"
        self.to(state)


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

    @initialize(
        ageing=st.sampled_from([0.0, 10.0, 300.0]),
        limit=st.sampled_from(
            [None, None, Limit(concurrency=1), Limit(concurrency=2), Limit(rate=2, per=12, burst=2)]
        ),
        bound=st.sampled_from([Bound(), Bound(3), Bound(3, overflow="spill", spill_to="default")]),
    )
    def begin(self, ageing: float, limit: Limit | None, bound: Bound) -> None:
        self.bound = bound
        self.order = Order(ageing, limit)
        self.open()

    def open(self) -> None:
        self.epoch += 1
        ready = self.ready()
        self.order.load(ready)
        # The store's own clock: the machine's as of the start, and never back.
        self.offset = max([self.wall, *(model.ready_at for model in ready)]) - self.steady
        self.tick(0)
        if (limit := self.order.limit) is not None:
            # However the clock was set while the store was closed.
            latest = self.order.now + limit.burst * limit.interval
            self.order.expected = min(self.order.expected, latest)
        self.store = SQLiteTaskStore(
            self.folder / "tasks.db",
            durability="normal",
            ageing=self.order.ageing,
            limits=Limits(
                {} if self.order.limit is None else {LIMITED: self.order.limit},
                bounds={LIMITED: self.bound},
            ),
            clock=lambda: self.wall,
            monotonic=lambda: self.steady,
        )

    def teardown(self) -> None:
        self.store.close().result()
        shutil.rmtree(self.folder)

    def tick(self, seconds: float) -> None:
        self.steady += seconds
        self.order.now = self.steady + self.offset

    def ready(self) -> list[Model]:
        return [model for model in self.tasks.values() if model.state == "ready"]

    def running(self) -> int:
        """Return how many tasks of the limited queue run."""
        return sum(m.state == "running" and m.queue == LIMITED for m in self.tasks.values())

    def waiting(self) -> list[Model]:
        return [m for m in self.tasks.values() if m.state in ("scheduled", "ready", "paused")]

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
        key=st.sampled_from(["", "", "k"]),
        deadline=st.sampled_from([None, None, 15.0]),
    )
    def submit(
        self,
        count: int,
        principal: Principal,
        delay: float,
        cron: str | None,
        key: str,
        **options: Any,
    ) -> Any:
        at_most_once = options.pop("at_most_once")
        delivery: Any = "at_most_once" if at_most_once else "at_least_once"
        new = NewTask(
            "t",
            {},
            principal,
            delay=delay,
            delivery=delivery,
            cron=cron,
            fairness_key=key or None,
            **options,
        )
        made = self.store.submit([new] * count).result()
        if at_most_once:
            options["max_attempts"] = 1
        queue = options.pop("queue")
        for submitted in made:
            taker = self.taker(queue)
            if taker is None:
                assert submitted.outcome == "full"
                continue
            assert submitted.outcome == "created"
            assert (submitted.queue, submitted.spilled_from is None) == (taker, taker == queue)
            model = self.tasks[submitted.task_id] = Model(
                seq=len(self.tasks),
                principal=principal,
                at_most_once=at_most_once,
                order=self.order,
                queue=taker,
                key=key,
                run_at=self.next_minute() if cron else self.wall + delay,
                cron=cron is not None,
                paused=self.paused,
                **options,
            )
            if model.deadline is not None and not cron:
                model.expires_at = self.wall + delay + model.deadline
            if not cron and not delay:
                model.wake()
            assert submitted.state == model.state
            due = model.run_at if model.state == "scheduled" else None
            assert submitted.run_at == due
        return multiple(*(submitted.task_id for submitted in made if submitted.task_id))

    def load_of(self, queue: str) -> int:
        states = ("scheduled", "ready", "paused")
        return sum(m.queue == queue and m.state in states for m in self.tasks.values())

    def taker(self, queue: str) -> str | None:
        """Return the queue that takes a new task."""
        most = self.bound.most_tasks
        if queue != LIMITED or most is None or self.load_of(queue) < most:
            return queue
        return self.bound.spill_to if self.bound.overflow == "spill" else None

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
                len(self.tasks), principal, 0, False, False, 3, self.order, paused=self.paused
            )
            model.wake()
            return submitted.task_id
        assert submitted.outcome == ("existing" if known[1] == value else "rejected")
        assert submitted.task_id == known[0]
        assert submitted.state == self.tasks[known[0]].state
        return multiple()

    @rule(target=claims, limit=st.integers(1, 4))
    def claim(self, limit: int) -> Any:
        claimed = self.store.claim(self.owner, limit, LEASE).result()
        claims = self.started(claimed, lambda model: True, limit)
        rated = self.order.limit is not None and self.order.limit.rate is not None
        if rated and len(claimed) < limit and self.ready():
            # Nothing but the rate keeps those that are left, and nobody need ask again before.
            told, opens_at = self.store.next_due().result(), self.order.opens_at()
            assert told is not None
            assert told <= opens_at - self.order.now + 0.001
        return claims

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

        def takes(model: Model) -> bool:
            suits = model.queue in queues and capabilities != ("other",)
            return suits and model.principal == principal

        claimed = self.store.claim(self.owner, limit, LEASE, worker).result()
        assert {task.worker for task in claimed} <= {"w"}
        return self.started(claimed, takes, limit)

    def started(self, claimed: Sequence[Task], takes: Callable[[Model], bool], limit: int) -> Any:
        """Start in the model what the store should have, and bury what has no time left."""
        expected: list[Model] = []
        while len(expected) < limit:
            mine = [model for model in self.ready() if takes(model)]
            chosen = self.order.best(mine, limit - len(expected), self.running())
            for model in chosen:
                model.to("running")
            for model in chosen:
                passed = [m.turn for m in self.ready() if m.where == model.where]
                self.order.taken(model, min(passed, default=None))
                model.fence += 1
                if model.expired(self.wall):
                    model.settle("dead")
                else:
                    self.order.started(model)
            alive = [model for model in chosen if model.state == "running"]
            expected += alive
            if len(alive) == len(chosen):
                break
        assert [self.tasks[task.id].seq for task in claimed] == [model.seq for model in expected]
        for task, model in zip(claimed, expected, strict=True):
            model.owner = self.owner
            model.attempts += 1
            model.starts += 1
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
            elif verdict == "retry" and (model.at_most_once or model.expired(self.wall + retry_in)):
                model.settle("dead")
            elif verdict == "retry":
                model.to("scheduled")
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
                model.to("scheduled")
                if not retry_in:
                    model.wake(goes_first=True)
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
        if model.deadline is not None and not model.cron:
            model.expires_at = self.wall + model.deadline
        if model.cron:
            model.to("scheduled")
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
            model.prioritise(priority)

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
            model.to("paused")
        assert answer.tasks == len(stopped)
        assert answer.running == len(self.of(principal, queue, "running"))

    @rule(principal=st.sampled_from([ME, OTHER]), queue=st.sampled_from(QUEUES))
    def resume(self, principal: Principal, queue: str) -> None:
        answer = self.store.resume(principal, queue).result()
        assert answer.changed == ((principal, queue) in self.paused)
        self.paused.discard((principal, queue))
        waiting = self.of(principal, queue, "paused")
        for model in waiting:
            model.wake()
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
        self.tick(seconds)

    @rule(seconds=st.sampled_from([-3_600.0, 3_600.0]))
    def set_the_clock(self, seconds: float) -> None:
        self.wall += seconds

    @rule()
    def sweep(self) -> None:
        self.store.sweep().result()
        for model in self.waiting():
            if model.expired(self.wall):
                model.settle("dead")
        due = [m for m in self.tasks.values() if m.state == "scheduled" and m.run_at <= self.wall]
        due.sort(key=lambda model: (model.run_at, model.seq))
        ids = list(self.tasks)
        firing = {ids[model.seq] for model in due if model.cron}
        # One whose predecessor still waits stands back; it did so before the sweep.
        waiting = {
            id_
            for id_ in firing
            if (latest := self.tasks[id_].latest)
            and self.tasks[latest].state in ("scheduled", "ready", "paused")
        }
        made = {task.schedule_id: task for task in self.fresh()}
        for model in due:
            if not model.cron:
                model.wake()
                continue
            model.run_at = self.next_minute()
            task = made.pop(ids[model.seq], None)
            most = self.bound.most_tasks
            if model.queue == LIMITED and most is not None and self.load_of(LIMITED) >= most:
                assert task is None, "a firing for a full queue"
                firing.discard(ids[model.seq])
                waiting.discard(ids[model.seq])
                continue
            if task is None:
                continue
            assert task.schedule_id is not None
            assert task.schedule_id in firing - waiting, "a firing that was not due, or doubled"
            firing.remove(task.schedule_id)
            model.latest = task.id
            child = self.tasks[task.id] = Model(
                seq=len(self.tasks),
                principal=model.principal,
                priority=model.priority,
                repeatable=model.repeatable,
                at_most_once=model.at_most_once,
                max_attempts=model.max_attempts,
                order=self.order,
                queue=model.queue,
                schedule=task.schedule_id,
                paused=self.paused,
                key=model.key,
                deadline=model.deadline,
            )
            if model.deadline is not None:
                child.expires_at = self.wall + model.deadline
            child.wake()
        assert firing == waiting, "a firing was lost"
        assert not made, "a firing that was not due"
        for model in self.tasks.values():
            if (
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
        for model in self.tasks.values():
            if model.state == "scheduled" and model.released:
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
        due += [m.expires_at - self.wall for m in self.waiting() if m.expires_at is not None]
        told = self.store.next_due().result()
        expected = max(0.0, min(due)) if due else None
        if self.order.limit is None or self.order.limit.rate is None:
            assert told == expected
        else:
            # The rate may let a task start before that.
            assert told == expected or (told is not None and (expected is None or told < expected))

    @invariant()
    def what_waits_in_each_queue_is_counted(self) -> None:
        for principal in (ME, OTHER):
            for stats in self.store.stats(principal).result():
                assert stats.load is not None
                assert stats.load.tasks == self.load_of(stats.queue)
                assert stats.load.running in (None, self.running())

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
