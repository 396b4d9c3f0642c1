"""Looking tasks up: what is asked for, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mcpd_task_queue.retrying import FailedAttempt

from .queues import Hold, Pause
from .tasks import LargeResult, Task, TaskState


class Filter(NamedTuple):
    """Which tasks to list; ``None`` means any.

    :ivar states: those in any of these; empty means any.
    :ivar tags: those with all of these.
    :ivar id_prefix: those whose id begins so.
    :ivar recurring: only those that are, or are not, made into tasks again and again.
    """

    state: TaskState | None = None
    queue: str | None = None
    tool: str | None = None
    tag: str | None = None
    states: tuple[TaskState, ...] = ()
    tags: tuple[str, ...] = ()
    worker: str | None = None
    least_priority: int | None = None
    recurring: bool | None = None
    schedule_id: str | None = None
    id_prefix: str | None = None


class Page(NamedTuple):
    """Part of a list of tasks, newest first.

    :ivar cursor: asks for the next part; ``None`` when there is no more.
    """

    tasks: tuple[Task, ...]
    cursor: str | None


class TaskEvent(NamedTuple):
    """One step in the life of a task.

    :ivar kind: what happened, for example ``started``.
    :ivar state: the state after it.
    :ivar attempt: the attempt it belongs to, counted from 1; 0 before the first.
    :ivar detail: more about it, shortened if need be.
    """

    at: float
    kind: str
    state: TaskState
    attempt: int
    detail: str = ""


class LogLine(NamedTuple):
    """A line that a tool has logged.

    :ivar attempt: that logged it, counted from 1.
    """

    at: float
    level: str
    message: str
    attempt: int = 0


class Snapshot(NamedTuple):
    """One task with what surrounds it.

    :ivar ahead: how many ready tasks, of anybody, are going to be started before it; ``None``
        unless it is ready itself.
    :ivar events: oldest first; the middle of a long life is left out.
    :ivar pause: of its queue, if that is paused.
    :ivar failures: the attempts without success, oldest first; the middle of many is left out.
    :ivar holds: limits that keep it from being started although a worker may be free.
    :ivar logs: the last lines that its tool logged, oldest first.
    :ivar logged: how many lines it has logged in all, when any were asked for.
    """

    task: Task
    ahead: int | None = None
    events: tuple[TaskEvent, ...] = ()
    pause: Pause | None = None
    failures: tuple[FailedAttempt, ...] = ()
    holds: tuple[Hold, ...] = ()
    logs: tuple[LogLine, ...] = ()
    logged: int = 0


class ResultPart(NamedTuple):
    """A part of the JSON text of a result.

    :ivar offset: where it begins, in characters.
    :ivar whole: what it is a part of.
    """

    text: str
    offset: int
    whole: LargeResult


class Exported(NamedTuple):
    """Tasks with everything that is stored about them, in the order of their submission.

    :ivar cursor: asks for the next ones; ``None`` when there are no more.
    :ivar problems: why a task's result could not be read, by the task's id.
    """

    snapshots: tuple[Snapshot, ...]
    cursor: str | None
    problems: Mapping[str, str] = MappingProxyType({})


class Activity(NamedTuple):
    """What a principal's tasks of late were like. Times are in seconds; ``None`` without any.

    :ivar ended: how many tasks ended that had been started.
    :ivar wait: from submit to the start of the last attempt, on average.
    :ivar run: the last attempt, on average.
    """

    ended: int
    wait: float | None
    run: float | None
