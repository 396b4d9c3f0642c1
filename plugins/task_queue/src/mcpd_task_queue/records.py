"""What a task is: frozen records that stores, workers and tools pass around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from mcpd_core import CallResult, Principal, Progress

from .limits import Bound, Limit, Overflow
from .retrying import FailedAttempt, RetryPolicy

#: ``scheduled`` waits for a time, ``ready`` for a worker, ``paused`` for its queue to be resumed.
#: ``succeeded``, ``failed`` (no use trying again), ``cancelled`` and ``dead`` (every allowed
#: attempt failed, or its deadline passed) are final. ``uncertain`` was interrupted at a point where
#: repeating it might do the work twice: it waits for a person.
TaskState = Literal[
    "scheduled",
    "ready",
    "paused",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "dead",
    "uncertain",
]
#: ``at_least_once`` may start a task again after an interruption, ``at_most_once`` never does.
Delivery = Literal["at_least_once", "at_most_once"]

#: The name of the worker that takes any task of anybody; nobody can register it.
BUILT_IN = "built-in"

STATES: tuple[TaskState, ...] = get_args(TaskState)
#: A task in one of these never changes again, unless a person has it retried.
FINAL: frozenset[TaskState] = frozenset({"succeeded", "failed", "cancelled", "dead"})
#: A task in one of these has not been started, or is to be started again.
WAITING: frozenset[TaskState] = frozenset({"scheduled", "ready", "paused"})
#: A person may have a task in one of these tried anew.
RETRYABLE: frozenset[TaskState] = frozenset({"failed", "cancelled", "dead", "uncertain"})
#: A task in one of these is not going to run by itself: nobody need wait for it.
SETTLED: frozenset[TaskState] = FINAL | {"uncertain"}


@dataclass(frozen=True)
class NewTask:
    """A tool call to be made later.

    :ivar arguments: JSON-compatible.
    :ivar principal: on whose behalf it runs, and who alone can see it.
    :ivar client: which connection submitted it.
    :ivar priority: higher runs first; see `store.TaskStore.claim` for the order.
    :ivar delay: seconds before it may start.
    :ivar run_at: seconds since the epoch before which it may not start; goes before ``delay``.
    :ivar cron: five fields that say when it is to be made into a task, again and again. A task
        with them never runs itself: it stays ``scheduled`` until it is cancelled.
    :ivar timezone: of the cron fields, as the IANA names it.
    :ivar timeout: seconds one attempt may take; ``None`` leaves it to the tool and the host.
    :ivar max_attempts: how often it may be started; 1 for ``at_most_once``, whatever this says.
    :ivar retry: how attempts follow each other; ``None`` leaves it to the settings.
    :ivar deadline: seconds that all attempts together have, from when it is first due; of a
        recurring task, each task that it is made into.
    :ivar repeatable: whether an interrupted call may be made again without asking anybody.
    :ivar idempotency_key: a second submit with the key of an existing task makes no new one.
    :ivar fairness_key: tasks of one priority are started round robin, one of each key of each
        principal; ``None`` stands for the client.
    """

    tool: str
    arguments: Mapping[str, Any]
    principal: Principal
    client: str = ""
    queue: str = "default"
    priority: int = 0
    delay: float = 0.0
    timeout: float | None = None
    max_attempts: int = 3
    delivery: Delivery = "at_least_once"
    repeatable: bool = False
    idempotency_key: str | None = None
    tags: tuple[str, ...] = ()
    run_at: float | None = None
    cron: str | None = None
    timezone: str | None = None
    fairness_key: str | None = None
    retry: RetryPolicy | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class Full:
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


@dataclass(frozen=True)
class Submitted:
    """What became of one `NewTask`.

    :ivar outcome: ``created``; ``existing`` when the idempotency key belongs to a task with the
        same tool and arguments; ``rejected`` when it belongs to one with others; ``full`` when its
        queue has no room.
    :ivar task_id: of the new task, or of the one that has the key; empty when it is ``full``.
    :ivar state: of that task, now; ``None`` when it is ``full``.
    :ivar run_at: when that task is due, while it is ``scheduled``.
    :ivar queue: that the task is in.
    :ivar spilled_from: the queue that it was for, if that had no room.
    :ivar full: why there is no room.
    """

    outcome: Literal["created", "existing", "rejected", "full"]
    task_id: str
    state: TaskState | None
    run_at: float | None = None
    queue: str = ""
    spilled_from: str | None = None
    full: Full | None = None


@dataclass(frozen=True)
class Task:
    """One task as it is stored. Times are seconds since the epoch.

    :ivar reason: why it is in its state, in words; empty when that goes without saying.
    :ivar attempts: how often it was started.
    :ivar fence: grows with each start; a completion must name the fence of the start it is for.
    :ivar run_at: when it is due, while ``scheduled``.
    :ivar cancelling: it is running, and is to be cancelled.
    :ivar cancelled_at: when it was asked to be cancelled, while it is running.
    :ivar worker: who started it last; ``None`` before the first start.
    :ivar cron: the fields of a recurring task, which never runs itself.
    :ivar schedule_id: the recurring task that this one was made by.
    :ivar deadline: seconds that all attempts together have; ``None`` without a limit.
    :ivar expires_at: when they are over; after that it is not started.
    :ivar arguments: ``None`` when they were not asked for.
    :ivar result: what the tool answered, when it was asked for and the task has succeeded.
    :ivar large: the result, when it was asked for and is larger than was asked for.
    :ivar error: how the last attempt failed, when it was asked for.
    """

    id: str
    tool: str
    state: TaskState
    principal: Principal
    client: str
    queue: str
    priority: int
    delivery: Delivery
    repeatable: bool
    timeout: float | None
    max_attempts: int
    attempts: int
    fence: int
    tags: tuple[str, ...]
    idempotency_key: str | None
    reason: str
    created_at: float
    updated_at: float
    run_at: float | None
    started_at: float | None
    finished_at: float | None
    progress: Reported | None
    cancelling: bool
    releases: int = 0
    worker: str | None = None
    cron: str | None = None
    timezone: str | None = None
    schedule_id: str | None = None
    fairness_key: str = ""
    retry: RetryPolicy | None = None
    deadline: float | None = None
    expires_at: float | None = None
    cancelled_at: float | None = None
    arguments: Mapping[str, Any] | None = None
    result: CallResult | None = None
    error: Mapping[str, Any] | None = None
    large: LargeResult | None = None


@dataclass(frozen=True)
class LargeResult:
    """A result that is left where it is; `TaskStore.read_result` gives parts of it.

    It is the JSON text of an object in ASCII: its ``structured``, or else its ``text``, is what the
    tool answered, and ``content`` are the further blocks of the answer, if there are any.

    :ivar size: characters of that text, which are as many bytes.
    :ivar sha256: of that text, in hexadecimal digits.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class ResultPart:
    """A part of the JSON text of a result.

    :ivar offset: where it begins, in characters.
    :ivar whole: what it is a part of.
    """

    text: str
    offset: int
    whole: LargeResult


@dataclass(frozen=True)
class TaskEvent:
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


@dataclass(frozen=True)
class Hold:
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


@dataclass(frozen=True)
class Snapshot:
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


@dataclass(frozen=True)
class Exported:
    """Tasks with everything that is stored about them, in the order of their submission.

    :ivar cursor: asks for the next ones; ``None`` when there are no more.
    :ivar problems: why a task's result could not be read, by the task's id.
    """

    snapshots: tuple[Snapshot, ...]
    cursor: str | None
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Filter:
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


@dataclass(frozen=True)
class Page:
    """Part of a list of tasks, newest first.

    :ivar cursor: asks for the next part; ``None`` when there is no more.
    """

    tasks: tuple[Task, ...]
    cursor: str | None


@dataclass(frozen=True)
class QueueLoad:
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


@dataclass(frozen=True)
class Activity:
    """What a principal's tasks of late were like. Times are in seconds; ``None`` without any.

    :ivar ended: how many tasks ended that had been started.
    :ivar wait: from submit to the start of the last attempt, on average.
    :ivar run: the last attempt, on average.
    """

    ended: int
    wait: float | None
    run: float | None


@dataclass(frozen=True)
class Pause:
    """A queue of one principal of which nothing is started."""

    queue: str
    since: float
    reason: str


@dataclass(frozen=True)
class QueueChanged:
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


@dataclass(frozen=True)
class Worker:
    """Slots of this daemon that only take certain tasks of one principal.

    :ivar name: unique among the principal's workers.
    :ivar queues: those that it serves.
    :ivar capabilities: it takes tasks whose tool, or one of whose tags, is among these; all tasks
        when empty.
    :ivar slots: how many tasks it runs at the same time.
    :ivar registered_at: seconds since the epoch; 0 until the store has it.
    """

    name: str
    principal: Principal
    queues: tuple[str, ...]
    capabilities: tuple[str, ...] = ()
    slots: int = 5
    registered_at: float = 0.0


@dataclass(frozen=True)
class Changed:
    """What a store did with what a person asked of one task.

    :ivar done: ``False`` when the task was in a state that does not allow it: nothing was changed.
    :ivar state: of the task now.
    :ivar before: the priority it had.
    """

    done: bool
    state: TaskState
    before: int = 0


@dataclass(frozen=True)
class Recorded:
    """What a store did with the outcome of an attempt.

    :ivar accepted: ``False`` when the attempt no longer owned the task (its lease was lost, or the
        task had ended): nothing was changed.
    :ivar state: of the task now; ``None`` when there is no such task. It is ``cancelled`` whatever
        the outcome was, when cancelling had been asked for.
    """

    accepted: bool
    state: TaskState | None


@dataclass(frozen=True)
class Cancelled:
    """What a store did with a request to cancel.

    :ivar outcome: ``cancelled`` (it was waiting), ``cancelling`` (it is running and will be
        interrupted), ``settled`` (too late: it had ended or is ``uncertain``).
    """

    outcome: Literal["cancelled", "cancelling", "settled"]
    state: TaskState


@dataclass(frozen=True)
class Renewal:
    """A request to keep a running task."""

    task_id: str
    fence: int


class Reported(NamedTuple):
    """Progress of a task, and when it was reported."""

    progress: Progress
    at: float


@dataclass(frozen=True)
class LogLine:
    """A line that a tool has logged.

    :ivar attempt: that logged it, counted from 1.
    """

    at: float
    level: str
    message: str
    attempt: int = 0


@dataclass(frozen=True)
class Note:
    """What a running attempt has said since it was last asked.

    :ivar progress: the latest; ``None`` when there was none.
    :ivar lines: the last log lines, oldest first.
    :ivar dropped: how many further lines there were before those.
    """

    task_id: str
    fence: int
    progress: Reported | None = None
    lines: tuple[LogLine, ...] = ()
    dropped: int = 0


@dataclass(frozen=True)
class Swept:
    """What a sweep or a recovery did.

    :ivar readied: tasks that were due or that are to be run again.
    :ivar parked: tasks that became ``uncertain``.
    :ivar buried: tasks that became ``dead``.
    :ivar cancelled: tasks whose cancelling an interruption completed.
    :ivar purged: tasks that were kept long enough.
    :ivar more: there was more to do than one sweep does.
    """

    readied: int = 0
    parked: int = 0
    buried: int = 0
    cancelled: int = 0
    purged: int = 0
    more: bool = False


class Offered(NamedTuple):
    """What registered workers choose a task by.

    :ivar words: its tool and its tags.
    """

    principal_kind: str
    principal_id: str
    queue: str
    words: tuple[str, ...]


class Whose(NamedTuple):
    """Whose a task is, and in which of the principal's queues."""

    principal_kind: str
    principal_id: str
    queue: str


@dataclass(frozen=True)
class Change:
    """A committed change of one task, for those who wait for it.

    :ivar before: ``None`` when the task is new.
    :ivar after: ``None`` when it was purged.
    :ivar cancelling: it is running and somebody asked to cancel it.
    :ivar offered: of one that has become ``ready``, so that only workers that take it are woken; an
        engine that leaves it out wakes all of them.
    :ivar whose: whose the task is: nobody else may be told of it. Of a change without it nobody is.
    :ivar timed: it waits, and not for longer than its deadline: `TaskStore.next_due` may be sooner.
    :ivar opens: it runs no more, and a limit that was used up by it lets another one start.
    """

    task_id: str
    before: TaskState | None
    after: TaskState | None
    cancelling: bool = False
    offered: Offered | None = field(default=None, compare=False)
    whose: Whose | None = field(default=None, compare=False)
    timed: bool = field(default=False, compare=False)
    opens: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class BackedUp:
    """A backup that was made.

    :ivar path: the folder that it is in.
    :ivar bytes: of the copied tasks; what is kept beside them comes on top.
    :ivar tasks: how many it has.
    :ivar blobs: how many large results it has.
    :ivar seconds: how long it took.
    """

    path: Path
    bytes: int
    tasks: int
    blobs: int
    seconds: float


@dataclass(frozen=True)
class StoreHealth:
    """How a store is, from memory.

    :ivar ok: whether the last change was committed.
    :ivar detail: the last failure, when not; else what may become one, if anything.
    :ivar counts: tasks per state, of all principals.
    """

    ok: bool
    detail: str
    counts: Mapping[TaskState, int] = field(default_factory=dict)
