"""Queues: how full they are, what holds their tasks back, and what was done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mcpd_task_queue.limits import Bound, Limit, Overflow

from .tasks import TaskState


class Full(NamedTuple):
    """Why a queue had no room for a task; the counts are of everybody's tasks.

    :ivar queue: the one that the task is for; with ``spilled_to`` that one was full as well.
    :ivar limit: which of its bounds the task would exceed, and ``most``, its value.
    :ivar tasks: how many wait in it, and ``bytes``, what their arguments take.
    :ivar wanted: bytes that the arguments of the task take.
    :ivar overflow: what the queue does with what has no room.
    """

    queue: str
    limit: Literal["tasks", "bytes"]
    most: int
    tasks: int
    bytes: int
    wanted: int
    overflow: Overflow
    spilled_to: str | None = None

    @property
    def ever(self) -> bool:
        """Whether the task would fit once enough of the others are gone."""
        return self.most >= (1 if self.limit == "tasks" else self.wanted)


class QueueLoad(NamedTuple):
    """How full a queue is, with the tasks of all principals that name it.

    :ivar tasks: how many wait, and ``bytes``, what their arguments take.
    :ivar running: how many run; ``None`` when it has no limit.
    """

    tasks: int
    bytes: int
    bound: Bound
    running: int | None = None
    limit: Limit | None = None


@dataclass(frozen=True)
class QueueStats:
    """How many tasks of one queue are in which state.

    :ivar load: what everybody's tasks make of it.
    """

    queue: str
    counts: Mapping[TaskState, int]
    load: QueueLoad | None = field(default=None, compare=False)


class Hold(NamedTuple):
    """A limit that keeps a ready task from being started.

    :ivar kind: what the limit is of, and its ``name``.
    :ivar running: how many tasks it lets run, and ``most``; ``None`` when a rate holds the task.
    :ivar opens_in: seconds until the rate lets a task start.
    """

    kind: Literal["queue", "tool"]
    name: str
    running: int | None = None
    most: int | None = None
    opens_in: float | None = None


class Pause(NamedTuple):
    """A queue of one principal of which nothing is started."""

    queue: str
    since: float
    reason: str


class QueueChanged(NamedTuple):
    """What a store did with a queue of one principal.

    :ivar changed: ``False`` when it had been paused, or going, already.
    :ivar tasks: how many tasks changed their state with it.
    :ivar waiting: how many tasks wait in it now.
    :ivar running: how many of its tasks run now.
    :ivar pause: its pause, if it is paused now.
    """

    changed: bool
    tasks: int
    waiting: int
    running: int
    pause: Pause | None = None
