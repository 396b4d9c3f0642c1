"""Short histories of the whole service in a made-up world, each decided by a seed.

The dispatcher, its slots and all that is above the store run as they are, in trio; only the clock
is made up (it jumps whenever nobody has anything to do), the order in which trio takes its tasks is
that of the seed, and the store lives in memory (`simulation_kit`). Processes die in the middle and
others take over, servers stop, tools take their time, fail, or are refused; people cancel, pause
and come with workers. That the checks can fail is tested too.

``MCPD_SIMULATIONS`` sets how many histories there are, ``MCPD_SIMULATION_SEED`` the first seed.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
import trio
import trio.testing

from mcpd_core import Busy, CallResult, HostClosed, Principal, ServiceHost
from mcpd_task_queue.bridge import Bridge
from mcpd_task_queue.dispatcher import Dispatcher
from mcpd_task_queue.errors import StoreClosed, TaskRefused, UnknownWorker
from mcpd_task_queue.limits import Limit, Limits
from mcpd_task_queue.queue import TaskQueue
from mcpd_task_queue.recording import Recorder
from mcpd_task_queue.records import SETTLED, Filter, NewTask, Task, Worker
from mcpd_task_queue.service import serving
from mcpd_task_queue.settings import TaskQueueSettings
from mcpd_task_queue.slots import Slots
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.store import Deliver, NotStarted, Order

from .simulation_kit import START, Memory, World, Wrong, simulated_disk

HISTORIES = max(30, int(os.environ.get("MCPD_SIMULATIONS", "300")) // 10)
FIRST = int(os.environ.get("MCPD_SIMULATION_SEED", "0"))
ME = Principal("local", "1000", "ada")
WORKERS = 3
#: Seconds within which all that is left is done, once nothing goes wrong any more.
LONGEST = 3_000.0

pytestmark = pytest.mark.timeout(60 + HISTORIES)


@dataclass
class Ledger:
    """What happened, as those saw it who asked and those who were called."""

    acknowledged: set[str] = field(default_factory=set)
    once: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    starts: Counter[str] = field(default_factory=Counter)
    said: dict[str, set[str]] = field(default_factory=dict)


class Life:
    """One process: a host whose tools are made up, and the service in it."""

    def __init__(self, history: History, limits: Limits) -> None:
        self._history = history
        self._chance = history.chance
        self._ledger = history.ledger
        self.running: Counter[str] = Counter()
        self.in_queue: Counter[str] = Counter()
        self.crew: Iterable[Slots] = ()
        self.closing = False
        self.dead = False
        self._at_close: list[Callable[[], None]] = []
        history.world.limits = limits
        history.world.open()
        self.store: SQLiteTaskStore = history.world.store
        order = self.store.order

        def watched(
            owner: str, lease: float, worker: Worker | None, deliver: Deliver, failed: NotStarted
        ) -> Order:
            def delivered(tasks: Sequence[Task]) -> None:
                history.must(not (tasks and self.closing), "started while it stopped")
                deliver(tasks)

            return order(owner, lease, worker, delivered, failed)

        vars(self.store)["order"] = watched
        self.bridge = Bridge()
        host = SimpleNamespace(
            call=self._call,
            tool=lambda name: None,
            log=logging.getLogger("mcpd_task_queue.simulated"),
            followed=False,
            resource_changed=lambda uri, **_: None,
            on_closing=self._on_closing,
        )
        self.host = cast(ServiceHost, host)

    def _on_closing(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._at_close.append(callback)
        return lambda: None

    def stop(self) -> None:
        """Have the server begin to stop."""
        self.closing = True
        for callback in self._at_close:
            callback()

    def die(self) -> None:
        """Let nothing more of this process reach the disk."""
        self.dead = True
        self.store._writer._closed = Future()
        self.store._reader._closed = Future()

    async def _call(self, tool: str, arguments: Mapping[str, Any], **options: Any) -> CallResult:
        id_ = str(arguments["name"])
        if self.closing:
            raise HostClosed("The server is shutting down.")
        if self._chance.random() < 0.05:
            raise Busy("There is no permit.", retry_after=1.0)
        self._ledger.starts[id_] += 1
        self.running[id_] += 1
        self.in_queue[str(arguments["queue"])] += 1
        try:
            self._history.must(self.running[id_] == 1, f"{id_} runs twice at a time")
            self._history.must(self.in_queue["gpu"] <= 1, "more than the queue lets run")
            for slots in self.crew:
                self._history.must(slots.busy <= slots.capacity, "more run than there are slots")
            if self._chance.random() < 0.3:
                options["on_log"]("info", "a line")
            await trio.sleep(self._chance.choice((0.0, 0.01, 1.0, 7.0, 40.0)))
            if self._chance.random() < 0.2:
                error = {"code": "tool_failed", "message": "no", "retryable": True}
                return CallResult("no", error=error)
            said = f"{id_} {self._ledger.starts[id_]}"
            self._ledger.said.setdefault(id_, set()).add(said)
            return CallResult(said)
        finally:
            self.running[id_] -= 1
            self.in_queue[str(arguments["queue"])] -= 1


class TimedWorld(World):
    """A world whose clocks are trio's; between two lives they stand still."""

    limits = Limits()

    def open(self) -> None:
        self.store = SQLiteTaskStore(
            Path("/nowhere/tasks.db"),
            limits=self.limits,
            clock=lambda: START + self.steady,
            monotonic=lambda: self.steady,
        )

    @property
    def steady(self) -> float:
        try:
            return trio.current_time()
        except RuntimeError:
            return 0.0

    @steady.setter
    def steady(self, _: float) -> None: ...


class History:
    """A few lives of the service, one after the other."""

    def __init__(self, disk: Memory, seed: int) -> None:
        disk.wipe()
        self.chance = random.Random(seed)
        self.world = TimedWorld(disk)
        self.ledger = Ledger()
        self.wrong: list[str] = []
        self._ids: dict[str, str] = {}
        self._made = 0
        self._dying = False

    def must(self, holds: bool, complaint: str) -> None:
        # Raised later: a call that raises is an attempt that failed.
        if not holds:
            self.wrong.append(complaint)

    async def run(self) -> None:
        limits = Limits(queues={"gpu": Limit(concurrency=1)})
        for _ in range(self.chance.randint(1, 3)):
            await self._live(Life(self, limits))
        await self._live(Life(self, limits), last=True)
        self._judge()

    async def _live(self, life: Life, *, last: bool = False) -> None:
        self._dying = False
        settings = TaskQueueSettings(workers=WORKERS, lease=30.0, first_retry=0.5)
        # A process that dies takes all of its tasks with it, whatever they were doing.
        with trio.CancelScope() as process:
            try:
                async with (
                    serving(life.store, life.host, life.bridge, settings) as queue,
                    trio.open_nursery() as people,
                ):
                    life.crew = queue._dispatcher.crew
                    for _ in range(0 if last else self.chance.randint(5, 25)):
                        await self._something(queue, people)
                    if last:
                        await self._all_ended(queue)
                    elif self.chance.random() < 0.5:
                        self._dying = True
                        life.die()
                        process.cancel()
                    else:
                        life.stop()
                        await trio.sleep(self.chance.choice((0.0, 5.0)))
                    people.cancel_scope.cancel()
            except StoreClosed:
                assert life.dead

    async def _something(self, queue: TaskQueue, people: trio.Nursery) -> None:
        doing: Callable[..., Awaitable[None]] = self.chance.choice(
            (self._submit, self._submit, self._submit, self._cancel, self._pause, self._work)
        )
        people.start_soon(self._do, doing, queue)
        await trio.sleep(self.chance.choice((0.0, 0.0, 0.005, 0.5, 5.0)))

    async def _do(self, doing: Callable[..., Awaitable[None]], queue: TaskQueue) -> None:
        try:
            await doing(queue)
        except StoreClosed:
            self.must(self._dying, "the store of a process that lives is closed")

    async def _submit(self, queue: TaskQueue) -> None:
        batch = []
        for _ in range(self.chance.choice((1, 1, 4))):
            self._made += 1
            where = self.chance.choice(("default", "gpu"))
            once = self.chance.random() < 0.2
            batch.append(
                NewTask(
                    "tool",
                    {"name": f"t{self._made}", "queue": where},
                    ME,
                    queue=where,
                    priority=self.chance.randrange(3),
                    delay=self.chance.choice((0.0, 0.0, 3.0)),
                    delivery="at_most_once" if once else "at_least_once",
                    repeatable=self.chance.random() < 0.7,
                )
            )
        answers = await queue.submit_all(batch)
        for task, answer in zip(batch, answers, strict=True):
            assert not isinstance(answer, TaskRefused)
            name = str(task.arguments["name"])
            self._ids[name] = answer.task_id
            self.ledger.acknowledged.add(name)
            if task.delivery == "at_most_once":
                self.ledger.once.add(name)

    async def _cancel(self, queue: TaskQueue) -> None:
        if self._ids:
            name = self.chance.choice(sorted(self._ids))
            answer = await queue.cancel(ME, self._ids[name])
            if answer.outcome != "settled":
                self.ledger.cancelled.add(name)

    async def _pause(self, queue: TaskQueue) -> None:
        where = self.chance.choice(("default", "gpu"))
        await queue.pause(ME, where, "")
        await trio.sleep(self.chance.choice((0.0, 1.0, 10.0)))
        await queue.resume(ME, where)

    async def _work(self, queue: TaskQueue) -> None:
        """A worker comes, and goes again."""
        try:
            await queue.staff.register(Worker("w", ME, ("gpu", "default"), (), 2))
            await trio.sleep(self.chance.choice((0.5, 10.0)))
            await queue.staff.unregister(ME, "w", self.chance.choice((None, 1.0)))
        except UnknownWorker:
            pass  # another one of that name went first

    async def _all_ended(self, queue: TaskQueue) -> None:
        for where in ("default", "gpu"):
            await queue.resume(ME, where)
        with trio.move_on_after(LONGEST) as patience:
            for name in sorted(self._ids):
                await queue.result(ME, self._ids[name], wait=LONGEST)
        self.must(not patience.cancelled_caught, "something never ended")

    def _judge(self) -> None:
        found = {task.id: task for task in self._everything()}
        for name in self.ledger.acknowledged:
            task = found.get(self._ids[name])
            self.must(task is not None, f"{name} was acknowledged, and is gone")
            if task is None:
                continue
            self.must(task.state in SETTLED, f"{name} is {task.state} at the end")
            if name in self.ledger.once:
                self.must(self.ledger.starts[name] <= 1, f"{name} was started again")
            if name in self.ledger.cancelled:
                self.must(task.state != "succeeded", f"{name} succeeded all the same")
            if task.state == "succeeded":
                result = task.result.text if task.result is not None else ""
                said = self.ledger.said.get(name, set())
                self.must(result in said, f"{name} has a result that nobody gave")
        if self.wrong:
            raise Wrong("; ".join(self.wrong[:5]))

    def _everything(self) -> list[Any]:
        store = self.world.store
        store._writer._closed = store._reader._closed = None
        tasks = store.find(ME, Filter(), limit=10_000).result().tasks
        looked = [store.get(ME, task.id, payload=True).result() for task in tasks]
        return [snapshot.task for snapshot in looked if snapshot is not None]


@pytest.fixture
def disk(caplog: pytest.LogCaptureFixture) -> Iterator[Memory]:
    caplog.set_level(logging.CRITICAL)
    with simulated_disk() as disk:
        yield disk


def simulate(disk: Memory, seed: int) -> History:
    history = History(disk, seed)
    # As Hypothesis makes trio decide alike each time; nothing public does.
    with (
        mock.patch.object(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(trio._core._run, "_r", random.Random(seed)),
    ):
        # By which the waits between attempts are spread.
        before = random.getstate()
        random.seed(seed)
        try:
            clock = trio.testing.MockClock(autojump_threshold=0)
            trio.run(history.run, clock=clock)
        except BaseException as wrong:
            raise Wrong(
                f"{wrong!r}\nTo see it again: MCPD_SIMULATIONS=1 MCPD_SIMULATION_SEED={seed} "
                f"pytest {__file__}"
            ) from wrong
        finally:
            random.setstate(before)
    return history


def test_whatever_happens_each_task_is_run_as_it_was_promised(disk: Memory) -> None:
    starts = 0
    for seed in range(FIRST, FIRST + HISTORIES):
        starts += simulate(disk, seed).ledger.starts.total()
    assert starts > 5 * HISTORIES


def test_a_seed_decides_everything(disk: Memory) -> None:
    ledgers = [simulate(disk, seed).ledger for seed in (5, 6, 7, 5, 6, 7)]
    assert ledgers[:3] == ledgers[3:]
    assert ledgers[0] != ledgers[1]


async def _record_nothing(*_: object) -> None:
    await trio.lowlevel.checkpoint()


DEFECTS: dict[str, tuple[type, str, Any]] = {
    "takes more than there are slots": (Slots, "free", property(lambda slots: 6)),
    "does not record how attempts end": (Recorder, "record", _record_nothing),
    "forgets that the server stops": (Dispatcher, "drain", lambda dispatcher: None),
}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda name: str(name).replace(" ", "_"))
def test_the_checks_find_defects(disk: Memory, defect: str) -> None:
    def find() -> None:
        for seed in range(50):
            simulate(disk, seed)

    with mock.patch.object(*DEFECTS[defect]), pytest.raises(Wrong):
        find()
