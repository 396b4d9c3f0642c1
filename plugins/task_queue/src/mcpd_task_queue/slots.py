"""Who may run how many tasks at the same time: the built-in worker and the registered ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from .records import TaskState, Worker
from .store import Order


@dataclass(eq=False)
class Slots:
    """The slots of one worker.

    :ivar worker: ``None`` for the built-in one, which takes any task.
    :ivar busy: how many are taken, each by a task.
    :ivar order: by which the store has tasks for the others, and ``wanted``, for how many of them.
    :ivar leaving: whether the order is being withdrawn.
    :ivar idle: set for as long as none is taken.
    :ivar landed: set for as long as there is no order by which tasks could be on their way.
    """

    worker: Worker | None
    capacity: int
    busy: int = 0
    order: Order | None = None
    wanted: int = 0
    leaving: bool = False
    idle: trio.Event = field(default_factory=trio.Event)
    landed: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.idle.set()
        self.landed.set()

    @property
    def free(self) -> int:
        """How many are neither taken nor waited for; none after the number was lowered below."""
        return max(0, self.capacity - self.busy - self.wanted)

    def take(self) -> None:
        """Take one for a task that the store has started for it."""
        if not self.busy:
            self.idle = trio.Event()
        self.busy += 1
        self.wanted -= 1

    def give_back(self) -> None:
        """Give one back."""
        self.busy -= 1
        if not self.busy:
            self.idle.set()

    def ordered(self, order: Order) -> None:
        """Take note of an order by which tasks may arrive from now on."""
        self.order = order
        self.landed = trio.Event()

    def withdrawn(self) -> None:
        """Take note that nothing more arrives."""
        self.order = None
        self.wanted = 0
        self.leaving = False
        self.landed.set()


class Employed(NamedTuple):
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

    def __iter__(self) -> Iterator[Slots]:
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

    def engage(self, worker: Worker) -> Slots:
        """Add a worker, or change what it takes and how much; what it runs goes on."""
        slots = self._registered.setdefault(_key(worker), Slots(worker, worker.slots))
        slots.worker = worker
        slots.capacity = worker.slots
        return slots

    def dismiss(self, worker: Worker) -> Slots:
        """Remove a worker; returns its slots, of which no further one is taken."""
        slots = self._registered.pop(_key(worker), None) or Slots(worker, 0)
        slots.capacity = 0
        return slots

    def of(self, worker: Worker) -> Slots:
        """Return the slots of a worker; empty ones when it is not engaged."""
        return self._registered.get(_key(worker)) or Slots(worker, 0)


def _key(worker: Worker) -> tuple[str, str, str]:
    return worker.principal.kind, worker.principal.id, worker.name
