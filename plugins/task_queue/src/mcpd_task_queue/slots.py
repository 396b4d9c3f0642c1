"""Who may run how many tasks at the same time: the built-in worker and the registered ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from .records import Offered, TaskState, Worker


@dataclass(eq=False)
class Slots:
    """The slots of one worker.

    :ivar worker: ``None`` for the built-in one, which takes any task.
    :ivar backlog: whether the last look may have left tasks behind that it takes.
    :ivar idle: set for as long as none is taken.
    :ivar landed: set for as long as no claim for them is on its way from the store.
    """

    worker: Worker | None
    capacity: int
    busy: int = 0
    backlog: bool = True
    idle: trio.Event = field(default_factory=trio.Event)
    landed: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.idle.set()
        self.landed.set()

    @property
    def free(self) -> int:
        """How many are not taken; none after the number was lowered below what is taken."""
        return max(0, self.capacity - self.busy)

    def take(self) -> None:
        """Take one for a task."""
        if not self.busy:
            self.idle = trio.Event()
        self.busy += 1

    @contextmanager
    def claiming(self) -> Iterator[int]:
        """Hold for as long as a claim is on its way; gives the number of slots to claim for."""
        wanted = self.free
        self.backlog = False
        self.landed = trio.Event()
        try:
            yield wanted
        finally:
            self.landed.set()

    def takes(self, offered: Offered) -> bool:
        """Whether a ready task of a queue that these slots serve is one that they take."""
        capabilities = () if self.worker is None else self.worker.capabilities
        return not capabilities or not set(capabilities).isdisjoint(offered.words)

    def give_back(self) -> bool:
        """Give one back; returns whether there may be a task for it."""
        self.busy -= 1
        if not self.busy:
            self.idle.set()
        return self.backlog


@dataclass(frozen=True)
class Employed:
    """A worker, as one principal sees it.

    :ivar worker: ``None`` for the built-in one.
    :ivar busy: how many tasks it runs, anybody's.
    :ivar counts: the principal's tasks that it started last, by state.
    :ivar tasks: ids of the principal's tasks that it runs.
    """

    name: str
    worker: Worker | None
    slots: int
    busy: int
    counts: Mapping[TaskState, int]
    tasks: tuple[str, ...]


class Crew:
    """All slots of a daemon.

    :param capacity: how many the built-in worker has.
    """

    def __init__(self, capacity: int) -> None:
        self.built_in = Slots(None, capacity)
        self._registered: dict[tuple[str, str, str], Slots] = {}
        #: Those that serve a queue of a principal.
        self._serving: dict[tuple[str, str, str], list[Slots]] = {}

    def __iter__(self) -> Iterator[Slots]:
        # Registered workers first: what they take leaves the built-in one free for everybody.
        yield from self._registered.values()
        yield self.built_in

    @property
    def capacity(self) -> int:
        """How many tasks can run at the same time."""
        return sum(slots.capacity for slots in self)

    @property
    def busy(self) -> int:
        """How many tasks run."""
        return sum(slots.busy for slots in self)

    def next_free(self) -> Slots | None:
        """Return slots that are free and may have something to do."""
        return next((slots for slots in self if slots.free and slots.backlog), None)

    def expect(self, offered: Offered | None) -> None:
        """Take note that a task has become ready.

        :param offered: what workers choose it by; ``None`` when that is not known.
        """
        self.built_in.backlog = True
        if offered is None:
            for slots in self._registered.values():
                slots.backlog = True
            return
        for slots in self._serving.get(offered[:3], ()):
            if slots.takes(offered):
                slots.backlog = True

    def engage(self, worker: Worker) -> None:
        """Add a worker, or change what it takes and how much; what it runs goes on."""
        slots = self._registered.setdefault(_key(worker), Slots(worker, worker.slots))
        slots.worker = worker
        slots.capacity = worker.slots
        slots.backlog = True
        self._index()

    def dismiss(self, worker: Worker) -> Slots:
        """Remove a worker; returns its slots, of which no further one is taken."""
        slots = self._registered.pop(_key(worker), None) or Slots(worker, 0)
        slots.capacity = 0
        self._index()
        return slots

    def _index(self) -> None:
        self._serving.clear()
        for slots in self._registered.values():
            assert slots.worker is not None
            who = slots.worker.principal
            for queue in dict.fromkeys(slots.worker.queues):
                self._serving.setdefault((who.kind, who.id, queue), []).append(slots)

    def of(self, worker: Worker) -> Slots:
        """Return the slots of a worker; empty ones when it is not engaged."""
        return self._registered.get(_key(worker)) or Slots(worker, 0)


def _key(worker: Worker) -> tuple[str, str, str]:
    return worker.principal.kind, worker.principal.id, worker.name
