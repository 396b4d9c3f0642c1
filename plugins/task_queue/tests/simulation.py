"""`Simulation`: one history of a made-up world, decided by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from mcpd_core import CallResult, Principal
from mcpd_task_queue import policy
from mcpd_task_queue.errors import StoreFull
from mcpd_task_queue.records import (
    SETTLED,
    Filter,
    NewTask,
    Recorded,
    Renewal,
    Submitted,
    Task,
    Worker,
)
from mcpd_task_queue.retrying import Backoff
from mcpd_task_queue.store import Order

from .simulation_kit import LEASE, START, WAITING, Memory, Witness, World

ME, OTHER = Principal("local", "1", "me"), Principal("local", "2", "other")
QUEUES = ("default", "other")


@dataclass(frozen=True)
class Claim:
    """A start that some owner remembers, rightly or not."""

    task: Task
    owner: str

    @property
    def key(self) -> tuple[str, int]:
        return self.task.id, self.task.fence

    @property
    def result(self) -> str:
        return f"{self.task.id}/{self.task.fence}"


class Simulation:
    """Producers, owners and people who use one store, each of whom may die or be late at any time.

    :param disk: what `simulated_disk` gave; it is wiped first.
    :ivar trace: what was done, for people.
    """

    def __init__(self, disk: Memory, seed: int) -> None:
        disk.wipe()
        self._chance = random.Random(seed)
        self.world = World(disk)
        self.witness = Witness(self.world)
        self.trace: list[tuple[Any, ...]] = []
        #: Every start that an owner got to know of; old ones are what late owners come back with.
        self._claims: list[Claim] = []
        self._keys: dict[tuple[Principal, str], tuple[str, int]] = {}
        self._epoch = 0
        self._orders: list[Order] = []
        #: What was started for them, and who has yet to see it.
        self._arrived: list[tuple[list[Task], str]] = []
        self._set_forward = 0.0
        self._backoff = Backoff(2.0, 60.0, self._chance.random)
        self._open()

    def run(self, steps: int) -> None:
        """Let things happen, then let everything come to an end.

        :raises Wrong: when something happened that must never happen.
        """
        actions: list[Callable[[], None]] = [
            *[self._submit] * 5,
            self._submit_with_a_key,
            self._submit_recurring,
            *[self._claim] * 6,
            *[self._order] * 2,
            self._withdraw,
            *[self._finish] * 8,
            *[self._renew] * 3,
            *[self._wait] * 4,
            *[self._sweep] * 3,
            *[self._cancel] * 2,
            *[self._ask_a_person] * 2,
            self._prioritise,
            self._pause,
            self._clear,
            self._set_the_clock,
            *[self._together] * 2,
            self._die,
        ]
        for _ in range(steps):
            self._chance.choice(actions)()
            self.witness.check()
        self._finish_everything()

    @contextmanager
    def _doing(self, *what: str) -> Iterator[None]:
        # Whatever is done may have tasks started for those who wait for some.
        self.witness.doing = frozenset(what) | ({"claim"} if self._orders else set())
        # Some commits fail; whoever asked is told that nothing was changed.
        self.world.disk.full = self._chance.random() < 0.08
        self.trace.append((*what, self.world.steady, "full" if self.world.disk.full else ""))
        try:
            yield
        except StoreFull:
            self.trace.append(("refused",))
        finally:
            self._look_at_arrivals()
            self.world.disk.full = False
            self.witness.doing = frozenset()

    def _open(self) -> None:
        self._epoch += 1
        self._orders.clear()  # they die with the process
        self.world.open()
        self.world.store.listen(self.witness.hear)

    def _task_id(self) -> str | None:
        return self._chance.choice(list(self.witness.tasks)) if self.witness.tasks else None

    def _principal_of(self, task_id: str) -> Principal:
        ((id_,),) = self.world.ask("SELECT principal_id FROM task WHERE id = ?", task_id)
        return ME if id_ == ME.id else OTHER

    # --- producers --------------------------------------------------------------------------------

    def _new(self) -> NewTask:
        chance = self._chance
        delivery: Any = "at_most_once" if chance.random() < 0.3 else "at_least_once"
        return NewTask(
            "tool",
            {},
            chance.choice((ME, ME, OTHER)),
            queue=chance.choice(QUEUES),
            priority=chance.randrange(3),
            delay=chance.choice((0.0, 0.0, 0.0, 5.0, 30.0)),
            delivery=delivery,
            repeatable=chance.random() < 0.6,
            max_attempts=chance.randint(1, 3),
            fairness_key=chance.choice(("", "a", "b")),
            tags=chance.choice(((), (), ("gpu",))),
            deadline=chance.choice((None, None, None, 60.0)),
        )

    def _acknowledge(self, answers: list[Submitted]) -> None:
        for answer in answers:
            if answer.outcome == "created":
                self.witness.acknowledged.add(answer.task_id)

    def _submit(self) -> None:
        batch = [self._new() for _ in range(self._chance.choice((1, 1, 2, 5)))]
        with self._doing("submit"):
            self._acknowledge(self.world.store.submit(batch).result())

    def _submit_with_a_key(self) -> None:
        """Submit what may have been submitted before, its answer lost."""
        who, key = self._chance.choice((ME, OTHER)), self._chance.choice("ab")
        value = self._chance.randrange(2)
        new = NewTask("tool", {"value": value}, who, idempotency_key=key)
        with self._doing("submit"):
            (answer,) = self.world.store.submit([new]).result()
            known = self._keys.get((who, key))
            if known is None or known[0] in self.witness.purged:
                self.witness.must(answer.outcome == "created", "a key of nobody", answer.task_id)
                self._keys[who, key] = (answer.task_id, value)
                self._acknowledge([answer])
            else:
                expected = "existing" if known[1] == value else "rejected"
                right = (answer.outcome, answer.task_id) == (expected, known[0])
                self.witness.must(right, f"a key of {known} made another task", answer.task_id)

    def _submit_recurring(self) -> None:
        new = NewTask("tool", {}, ME, cron="* * * * *", repeatable=True)
        with self._doing("submit"):
            self._acknowledge(self.world.store.submit([new]).result())

    # --- owners -----------------------------------------------------------------------------------

    def _owner(self) -> str:
        return f"{self._epoch}:{self._chance.randrange(3)}"

    def _claim(self) -> None:
        owner = self._owner()
        limit = self._chance.randint(1, 3)
        who = None
        if self._chance.random() < 0.3:
            queues = self._chance.choice((QUEUES[:1], QUEUES))
            who = Worker("w", ME, queues, self._chance.choice(((), ("gpu",))))
        with self._doing("claim"):
            self._began(self.world.store.claim(owner, limit, LEASE, who).result(), owner)

    def _order(self) -> None:
        """Leave an order, or want more by one that stands."""
        owner = self._owner()
        if self._orders and self._chance.random() < 0.5:
            order = self._chance.choice(self._orders)
        else:
            who = Worker("w", ME, QUEUES, ("gpu",)) if self._chance.random() < 0.3 else None
            # Why nothing could be started is what others are told at the same time.
            order = self.world.store.order(
                owner,
                LEASE,
                who,
                lambda tasks: self._arrived.append((list(tasks), owner)),
                lambda _: None,
            )
            self._orders.append(order)
        with self._doing("order"):
            order.want(self._chance.randrange(3))

    def _look_at_arrivals(self) -> None:
        """Take note of what was started, behind what was recorded in the same commits."""
        arrived, self._arrived = self._arrived, []
        for tasks, owner in arrived:
            self._began(tasks, owner)

    def _withdraw(self) -> None:
        if self._orders:
            order = self._orders.pop(self._chance.randrange(len(self._orders)))
            with self._doing("withdraw"):
                order.withdraw().result()

    def _began(self, tasks: list[Task], owner: str) -> None:
        for task in tasks:
            self.witness.started(task)
        if self._chance.random() < 0.9:  # else the answer is lost, and nobody works on them
            self._claims += [Claim(task, owner) for task in tasks]

    def _some_claim(self) -> Claim | None:
        """Choose a start, a recent one more often; its owner may have lost the task long ago."""
        if not self._claims:
            return None
        recent = self._claims[-6:] if self._chance.random() < 0.8 else self._claims
        return self._chance.choice(recent)

    def _finish(self) -> None:
        claim = self._some_claim()
        if claim is None:
            return
        with self._doing("finish"):
            ask, granting = self._outcome_of(claim)
            self._recorded(claim, granting, ask().result())

    def _outcome_of(self, claim: Claim) -> tuple[Callable[[], Future[Recorded]], bool]:
        """Choose how an attempt ended; also says whether that alone may have it started again."""
        store, task = self.world.store, claim.task
        kind = self._chance.random()
        if kind < 0.5:
            return lambda: store.complete(*claim.key, CallResult(claim.result)), False
        if kind < 0.75:
            error: dict[str, Any] = {"message": "no", "retryable": self._chance.random() < 0.8}
            verdict, wanted = policy.verdict_on(
                error, attempts=task.attempts, max_attempts=task.max_attempts
            )
            retry_in = self._backoff.after(task.attempts) if wanted is None else wanted
            return lambda: store.fail(*claim.key, error, verdict, retry_in), verdict == "retry"
        if kind < 0.9:
            wait = self._chance.choice((0.0, 3.0))
            return lambda: store.release(*claim.key, "busy", wait), True
        counts = self._chance.random() < 0.5
        return lambda: store.interrupt(*claim.key, "cut off", count_attempt=counts), True

    def _recorded(self, claim: Claim, granting: bool, answer: Recorded) -> None:
        id_, fence = claim.key
        known = self.witness.tasks.get(id_)
        if not answer.accepted:
            return
        self.witness.must(known is not None, "an outcome of a task that is gone", id_)
        assert known is not None
        self.witness.must(known.fence == fence, f"the late outcome of {fence} was taken", id_)
        if answer.state == "succeeded":
            known.result = claim.result
        if granting and answer.state in WAITING:
            self._granted(id_)

    def _granted(self, id_: str) -> None:
        """A task waits again, for a good reason; one that must not be repeated never does."""
        known = self.witness.tasks[id_]
        self.witness.granted(id_)
        if known.at_most_once:
            released = self.world.ask("SELECT releases FROM task WHERE id = ?", id_) != [(0,)]
            self.witness.must(released, "to be started again at most once", id_)

    def _renew(self) -> None:
        claim = self._some_claim()
        if claim is None:
            return
        with self._doing("renew"):
            (answer,) = self.world.store.renew([Renewal(*claim.key)], LEASE).result()
            known = self.witness.tasks.get(claim.task.id)
            if answer.accepted:
                right = known is not None and known.fence == claim.task.fence
                self.witness.must(right, "a lease that was lost was renewed", claim.task.id)
                assert known is not None
                known.until = self.world.steady + LEASE

    # --- time and death ---------------------------------------------------------------------------

    def _wait(self, seconds: float = 0.0) -> None:
        seconds = seconds or self._chance.choice((1.0, 4.0, LEASE + 1, 70.0, RETENTION_AND_MORE))
        self.trace.append(("wait", seconds))
        self.world.wall += seconds
        self.world.steady += seconds

    def _set_the_clock(self) -> None:
        seconds = self._chance.choice((-3_600.0, 3_600.0))
        self.trace.append(("set the clock", seconds))
        self._set_forward += max(0.0, seconds)
        self.world.wall += seconds

    def _sweep(self) -> None:
        expired = self._running(lambda known: known.until < self.world.steady)
        firing = {
            schedule
            for schedule, latest in self.world.ask(
                "SELECT s.id, l.state FROM task s LEFT JOIN task l ON l.id = s.latest_id"
                " WHERE s.cron IS NOT NULL AND s.state = 'scheduled' AND s.run_at <= ?",
                self.world.wall,
            )
            if latest not in WAITING
        }
        before = self.witness.tasks.keys() | set()
        with self._doing("sweep"):
            self.world.store.sweep().result()
            self._look_at_arrivals()
            self._interrupted(expired)
            self.witness.check()
            made = [
                schedule
                for id_, schedule in self.world.ask(
                    "SELECT id, schedule_id FROM task WHERE schedule_id IS NOT NULL"
                )
                if id_ not in before
            ]
            self.witness.must(sorted(made) == sorted(firing), "a firing was lost, or doubled")
            self.witness.swept()

    def _running(self, which: Callable[[Any], bool] = bool) -> dict[str, int]:
        """Return the starts that tasks have had, of those that run."""
        tasks = self.witness.tasks.items()
        return {
            id_: known.starts for id_, known in tasks if known.state == "running" and which(known)
        }

    def _interrupted(self, before: Mapping[str, int]) -> None:
        """Take note of tasks that wait again, or have been started again since."""
        for id_, starts in before.items():
            known = self.witness.tasks[id_]
            if known.state in WAITING or known.starts > starts:
                self._granted(id_)

    def _die(self) -> None:
        """The process of the store dies between two commits; the next one takes over."""
        self._open()
        left = self._running()
        with self._doing("recover"):
            self.world.store.recover(self._owner()).result()
            self._interrupted(left)
        left = self._running()
        if left:
            # The disk was full; the dispatcher tries again until it is not.
            with self._doing("recover"):
                self.world.disk.full = False
                self.world.store.recover(self._owner()).result()
                self._interrupted(left)
                self.witness.must(not self._running(), "left running by the dead, and not taken")

    def _together(self) -> None:
        """Several ask at the same instant and share a commit; the process may die around it."""
        writer = self.world.writer
        futures: list[tuple[Future[Any], Callable[[Any], None]]] = []
        with self._doing("submit", "claim", "finish"):
            writer.held = True
            store = self.world.store
            for _ in range(self._chance.randint(2, 4)):
                owner = self._owner()
                kind = self._chance.choice(("submit", "claim", "finish", "finish"))
                claim = self._some_claim()
                if kind == "submit":
                    futures.append((store.submit([self._new()]), self._acknowledge))
                elif kind == "claim":
                    began = partial(self._began, owner=owner)
                    futures.append((store.claim(owner, 2, LEASE), began))
                elif claim is not None:
                    ask, granting = self._outcome_of(claim)
                    futures.append((ask(), partial(self._recorded, claim, granting)))
            fate = self._chance.random()
            if fate < 0.15:
                self.trace.append(("dies before the commit",))
                writer.held = False
                self._open()
            else:
                writer.let_go()
                for future, tell in futures:
                    if future.exception() is None:
                        tell(future.result())
        if fate < 0.3:
            self._die()

    # --- people -----------------------------------------------------------------------------------

    def _cancel(self) -> None:
        id_ = self._task_id()
        if id_ is None:
            return
        with self._doing("cancel"):
            answer = self.world.store.cancel(self._principal_of(id_), id_).result()
            assert answer is not None
            if answer.outcome != "settled":
                self.witness.tasks[id_].cancelled = True

    def _ask_a_person(self) -> None:
        settled = [id_ for id_, known in self.witness.tasks.items() if known.state in SETTLED]
        if not settled:
            return
        id_ = self._chance.choice(settled)
        resolve = self._chance.random() < 0.5
        before = self.witness.tasks[id_].ends
        # Whatever the store makes of it, this is what it was asked for.
        self.witness.tasks[id_].ends = 0
        with self._doing("resolve" if resolve else "retry"):
            who = self._principal_of(id_)
            if resolve:
                what: Any = self._chance.choice(("succeeded", "failed", "retry"))
                answer = self.world.store.resolve(who, id_, what, "I looked").result()
            else:
                answer = self.world.store.retry(who, id_).result()
            assert answer is not None
            if answer.done and answer.state not in SETTLED:
                self.witness.granted(id_, anew=True)
                return
        if self.witness.tasks[id_].ends == 0:
            self.witness.tasks[id_].ends = before

    def _prioritise(self) -> None:
        id_ = self._task_id()
        if id_ is not None:
            with self._doing("prioritise"):
                who = self._principal_of(id_)
                self.world.store.prioritise(who, id_, self._chance.randrange(3)).result()

    def _pause(self) -> None:
        who, queue = self._chance.choice((ME, OTHER)), self._chance.choice(QUEUES)
        with self._doing("pause"):
            if self._chance.random() < 0.5:
                self.world.store.pause(who, queue, "why not").result()
            else:
                self.world.store.resume(who, queue).result()

    def _clear(self) -> None:
        if self._chance.random() < 0.3:
            with self._doing("clear"):
                self.world.store.clear(ME, self._chance.choice(QUEUES)).result()

    # --- the end ----------------------------------------------------------------------------------

    def _finish_everything(self) -> None:
        """Let a new process, on a disk that has room, do what is left."""
        self.trace.append(("the end",))
        self._chance = _Unlucky()
        # What is to run at a time of day waits for it, also when the clock was wrong at its submit.
        self.world.wall = max(self.world.wall, START + self.world.steady) + self._set_forward
        self._die()
        for who in (ME, OTHER):
            for queue in QUEUES:
                with self._doing("pause"):
                    self.world.store.resume(who, queue).result()
        for task in self.world.store.find(ME, Filter(recurring=True), limit=1_000).result().tasks:
            with self._doing("cancel"):
                self.world.store.cancel(ME, task.id).result()
        for _ in range(40):
            self._wait(120.0)
            self._sweep()
            with self._doing("claim"):
                tasks = self.world.store.claim(self._owner(), 100, LEASE).result()
            for task in tasks:
                self.witness.started(task)
                claim = Claim(task, "")
                with self._doing("finish"):
                    done = self.world.store.complete(*claim.key, CallResult(claim.result))
                    self._recorded(claim, False, done.result())
            self.witness.check()
            if not self.world.ask(
                "SELECT 1 FROM task WHERE state IN ('scheduled', 'ready', 'paused', 'running')"
            ):
                break
        self.witness.settled()


#: A wait after which what had ended before it is purged.
RETENTION_AND_MORE = 5_001.0


class _Unlucky(random.Random):
    """Lets nothing happen that depends on chance."""

    def __init__(self) -> None:
        super().__init__(0)

    def random(self) -> float:
        return 0.999
