"""What the tools answer: the shapes from which their output schemas are made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from .records import Delivery, TaskState

Time = Annotated[str, Field(description="ISO 8601, UTC.")]


class SubmittedTask(TypedDict):
    """What became of a submit."""

    task_id: Annotated[str, Field(description="Pass it to the other task tools.")]
    state: TaskState
    outcome: Annotated[
        Literal["created", "existing"],
        Field(
            description="'created', or 'existing' when the idempotency key had a task already.",
        ),
    ]
    queue: Annotated[str, Field(description="The queue that it is in.")]
    spilled_from: Annotated[
        str | None, Field(description="The queue that it was for, if that was full.")
    ]


class ProgressReport(TypedDict):
    """How far a running task is."""

    done: float
    total: float | None
    message: str
    at: Annotated[Time, Field(description="When the tool reported it.")]


class LogEntry(TypedDict):
    """One line that a running tool has logged."""

    at: Time
    level: str
    message: Annotated[str, Field(description="Shortened, if it was long.")]
    attempt: Annotated[int, Field(description="That logged it, counted from 1.")]


class Event(TypedDict):
    """One step in the life of a task."""

    at: Time
    kind: Annotated[str, Field(description="What happened, for example 'started'.")]
    state: Annotated[TaskState, Field(description="The state after it.")]
    attempt: Annotated[int, Field(description="Counted from 1; 0 before the first.")]
    detail: str


class FailedAttemptReport(TypedDict):
    """A start of a task that came to no success."""

    attempt: Annotated[
        int,
        Field(
            description="Which start it was over the whole life of the task, the first being 1; "
            "starts that were given back are left out."
        ),
    ]
    started_at: Time
    ended_at: Time
    worker: str
    outcome: Annotated[
        Literal["failed", "interrupted", "cancelled"],
        Field(description="'interrupted': it was cut off, and what it did is not known."),
    ]
    error: dict[str, Any]


class TaskSummary(TypedDict):
    """One task, in short."""

    task_id: str
    tool: str
    queue: str
    state: TaskState
    priority: int
    tags: list[str]
    attempts: Annotated[int, Field(description="How often it was started.")]
    max_attempts: int
    created_at: Time
    updated_at: Time
    cron: Annotated[
        str | None,
        Field(
            description="If it recurs: its cron fields. It never runs itself, it is made into a "
            "new task each time. cancel_task ends that."
        ),
    ]
    timezone: Annotated[str | None, Field(description="Of the cron fields.")]
    schedule_id: Annotated[
        str | None, Field(description="The recurring task by which this one was made.")
    ]
    reason: Annotated[
        str, Field(description="Why it is in its state, or how it failed last; often empty.")
    ]


class Cancelling(TypedDict):
    """A task that was asked to stop, and runs still."""

    since: Time
    why: Annotated[str, Field(description="What keeps it running, and what will end it.")]


class TaskStatus(TaskSummary):
    """Everything about a task but its arguments and its result."""

    why: Annotated[str, Field(description="Why it waits, or why it is in its state, in words.")]
    position: Annotated[
        int | None,
        Field(description="Its place among the tasks that wait for a worker, the next one is 1."),
    ]
    delivery: Delivery
    progress: ProgressReport | None
    due_at: Annotated[Time | None, Field(description="When it becomes ready, or recurs.")]
    started_at: Annotated[Time | None, Field(description="Start of the latest attempt.")]
    finished_at: Time | None
    deadline_at: Annotated[
        Time | None, Field(description="After this it is not started, or tried again.")
    ]
    cancelling: Annotated[
        Cancelling | None, Field(description="If it is asked to stop and has not stopped yet.")
    ]
    worker: Annotated[str | None, Field(description="Who started it last.")]
    failed_attempts: Annotated[
        list[FailedAttemptReport],
        Field(description="Without success, oldest first; of many the first 3 and the latest 20."),
    ]
    events: Annotated[list[Event], Field(description="The latest ones, oldest first.")]
    logs: Annotated[
        list[LogEntry], Field(description="The last lines that the tool logged, oldest first.")
    ]
    logged: Annotated[
        int,
        Field(description="How many it has logged in all; only the last ones are kept."),
    ]


class LargeAnswer(TypedDict):
    """A result that is too large for an answer."""

    size: Annotated[
        int, Field(description="How many characters its JSON text has; they are as many bytes.")
    ]
    mime_type: str
    sha256: Annotated[str, Field(description="Of that text.")]
    how: Annotated[str, Field(description="How to get it.")]


class PartOfResult(TypedDict):
    """A part of the JSON text of a result."""

    text: str
    offset: Annotated[int, Field(description="Where it begins, in characters.")]
    next_offset: Annotated[
        int | None, Field(description="Pass it as `offset` for the next part; null at the end.")
    ]
    size: Annotated[int, Field(description="How many characters the whole text has.")]
    sha256: Annotated[str, Field(description="Of the whole text.")]


class TaskResult(TypedDict):
    """The result of a task, or how far it is."""

    task_id: str
    tool: str
    state: TaskState
    ready: Annotated[
        bool,
        Field(description="Whether the task has ended; when false, ask again with a wait."),
    ]
    text: NotRequired[
        Annotated[str, Field(description="What the tool answered, when that was plain text.")]
    ]
    structured: NotRequired[
        Annotated[dict[str, Any], Field(description="What the tool answered, when that was data.")]
    ]
    content: NotRequired[
        Annotated[
            list[dict[str, Any]],
            Field(description="What it answered besides, as content blocks: images, for example."),
        ]
    ]
    large: NotRequired[
        Annotated[LargeAnswer, Field(description="In place of a result that is too large.")]
    ]
    part: NotRequired[
        Annotated[PartOfResult, Field(description="What `offset` asked for, and no more.")]
    ]
    error: NotRequired[Annotated[dict[str, Any], Field(description="How the last attempt failed.")]]
    failed_attempts: NotRequired[
        Annotated[
            list[FailedAttemptReport],
            Field(description="If it did not succeed: how each attempt ended, oldest first."),
        ]
    ]
    why: Annotated[str, Field(description="Why there is no result, in words; else empty.")]


class TaskPage(TypedDict):
    """Part of a list of tasks, newest first."""

    tasks: list[TaskSummary]
    next_cursor: Annotated[
        str | None, Field(description="Pass it as `cursor` for the next part; null at the end.")
    ]


class CancelledTask(TypedDict):
    """What became of a request to cancel."""

    task_id: str
    outcome: Annotated[
        Literal["cancelled", "cancelling", "settled"],
        Field(
            description="'cancelled': it will not run. 'cancelling': it was running, has been "
            "interrupted, and becomes 'cancelled' when it has cleaned up. 'settled': too late, it "
            "had ended already."
        ),
    ]
    state: TaskState


class Counts(TypedDict):
    """How many tasks are in which state."""

    scheduled: int
    ready: int
    paused: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    dead: int
    uncertain: int


class Load(TypedDict):
    """How full a queue is with everybody's tasks, and what its bounds and limits are."""

    waiting_tasks: int
    most_tasks: int | None
    waiting_bytes: Annotated[int, Field(description="Of their arguments.")]
    most_bytes: int | None
    overflow: Annotated[
        Literal["reject", "block", "spill"],
        Field(description="What becomes of a task for which there is no room."),
    ]
    spill_to: str | None
    running: Annotated[int | None, Field(description="Null when it has no limit.")]
    concurrency: Annotated[int | None, Field(description="How many may run at the same time.")]
    rate: Annotated[float | None, Field(description="How many start per `per` seconds.")]
    per: float | None
    burst: int | None


class QueueCounts(TypedDict):
    """The tasks of one queue."""

    queue: str
    counts: Annotated[Counts, Field(description="Your tasks.")]
    load: Annotated[
        Load | None, Field(description="With the tasks of all who have a queue of that name.")
    ]


class PausedQueue(TypedDict):
    """A queue of which nothing is started."""

    queue: str
    since: Time
    reason: str


class Lately(TypedDict):
    """What tasks of late were like."""

    ended: Annotated[int, Field(description="How many ended that had been started.")]
    average_wait: Annotated[
        float | None, Field(description="Seconds from submit to the start of the last attempt.")
    ]
    average_run: Annotated[float | None, Field(description="Seconds that the last attempt took.")]


class Engine(TypedDict):
    """What the engine that keeps the tasks can do."""

    engine: str
    delivery: list[Delivery]
    fsync: Annotated[
        Literal["commit", "interval", "never"],
        Field(
            description="What an acknowledged task survives. 'commit': a power cut. 'interval': "
            "the death of the server; a power cut may take the last seconds. 'never': neither."
        ),
    ]
    priority: bool
    delay: bool
    recurring: bool
    dedup_window: Annotated[
        float | None,
        Field(
            description="Seconds for which an idempotency key is known; null: for as long as its "
            "task is kept."
        ),
    ]
    payload_limit: Annotated[
        int | None, Field(description="Bytes of JSON that a task's arguments may take.")
    ]
    result_limit: Annotated[
        int | None, Field(description="Bytes of JSON that a task's result may take.")
    ]
    transactional_graph_advance: Annotated[
        bool,
        Field(
            description="Whether completing a task and releasing those that depend on it is one "
            "transaction."
        ),
    ]
    backup: Annotated[bool, Field(description="Whether it can be copied while it is in use.")]


class Stats(TypedDict):
    """The state of the task queue, as far as it concerns the caller."""

    workers: Annotated[int, Field(description="How many tasks can run at the same time.")]
    busy: Annotated[int, Field(description="How many run now, anybody's.")]
    healthy: bool
    detail: str
    counts: Annotated[Counts, Field(description="Your tasks, of all queues together.")]
    queues: Annotated[list[QueueCounts], Field(description="Your tasks, by queue.")]
    paused: Annotated[list[PausedQueue], Field(description="Your paused queues.")]
    last_hour: Annotated[Lately, Field(description="Your tasks that ended in the last hour.")]
    engine: Engine
    metrics: Annotated[
        dict[str, Any] | None,
        Field(
            description="For the owner of the server, of everybody's tasks since its start, in "
            "seconds and bytes. Null for others."
        ),
    ]


class ItemOutcome(TypedDict):
    """What became of one of several tasks."""

    index: Annotated[int, Field(description="Its place among the tasks given, the first being 0.")]
    outcome: Annotated[
        Literal["created", "existing", "rejected"],
        Field(description="'rejected': nothing was stored for it; `error` says why."),
    ]
    task_id: NotRequired[str]
    state: NotRequired[TaskState]
    queue: NotRequired[str]
    spilled_from: NotRequired[str | None]
    error: NotRequired[dict[str, Any]]


class SubmittedTasks(TypedDict):
    """What became of several tasks, in the order in which they were given."""

    created: int
    existing: int
    rejected: int
    tasks: list[ItemOutcome]


class ScheduledTask(SubmittedTask):
    """What became of a schedule."""

    recurring: bool
    due_at: Annotated[Time | None, Field(description="Null when it is due already.")]
    next_times: Annotated[
        list[Time], Field(description="If it recurs, the next times; look whether you meant them.")
    ]


class ChangedTask(TypedDict):
    """A task after a change."""

    task_id: str
    state: TaskState


class RetryOutcome(TypedDict):
    """What became of one of several tasks that were to be tried anew."""

    task_id: str
    outcome: Annotated[
        Literal["retried", "unchanged", "unknown"],
        Field(description="'unchanged': its state forbids it. 'unknown': you have no such task."),
    ]
    state: NotRequired[TaskState]


class RetriedTasks(TypedDict):
    """What became of tasks that were to be tried anew."""

    retried: Annotated[int, Field(description="How many are.")]
    task_id: NotRequired[Annotated[str, Field(description="If `task_id` was given.")]]
    state: NotRequired[Annotated[TaskState, Field(description="If `task_id` was given.")]]
    tasks: NotRequired[Annotated[list[RetryOutcome], Field(description="If `task_ids` was given.")]]
    more: NotRequired[
        Annotated[bool, Field(description="If `matching` was given: ask again for the rest.")]
    ]


class PrioritisedTask(ChangedTask):
    """A task whose priority was changed."""

    old_priority: int
    new_priority: int
    position: Annotated[
        int | None,
        Field(description="Its place among the tasks that wait for a worker, the next one is 1."),
    ]


class QueueState(TypedDict):
    """A queue after it was paused or resumed."""

    queue: str
    paused: bool
    changed: Annotated[bool, Field(description="False: it was so already.")]
    waiting: Annotated[int, Field(description="How many of your tasks wait in it.")]
    running: Annotated[int, Field(description="How many of its tasks go on running.")]


class ClearedQueue(TypedDict):
    """A queue after it was cleared."""

    queue: str
    cancelled: Annotated[int, Field(description="How many waiting tasks were cancelled.")]
    waiting: Annotated[int, Field(description="What was left: recurring tasks.")]
    running: Annotated[int, Field(description="How many of its tasks go on running.")]


class WorkerReport(TypedDict):
    """One worker of this daemon."""

    worker_id: str
    kind: Annotated[
        Literal["built-in", "registered"],
        Field(description="'built-in': takes any task. 'registered': takes some of yours."),
    ]
    state: Annotated[
        Literal["idle", "active", "busy"],
        Field(description="'idle': runs nothing. 'busy': has no free slot. 'active': between."),
    ]
    queues: Annotated[list[str] | None, Field(description="Those it serves; null: all of them.")]
    capabilities: Annotated[
        list[str],
        Field(description="It takes tasks with one of these as tool or tag; empty: any."),
    ]
    max_concurrent_tasks: int
    running: Annotated[int, Field(description="How many tasks it runs now, anybody's.")]
    tasks: Annotated[list[str], Field(description="Ids of those of them that are yours.")]
    counts: Annotated[
        Counts, Field(description="Your tasks that it started last, as far as they are kept.")
    ]
    registered_at: Time | None


class Workers(TypedDict):
    """The workers of this daemon that take your tasks."""

    workers: list[WorkerReport]


class RegisteredWorker(TypedDict):
    """A worker that was registered."""

    worker_id: str
    queues: list[str]
    capabilities: list[str]
    max_concurrent_tasks: int
    registered_at: Time


class UnregisteredWorker(TypedDict):
    """A worker that is no more."""

    worker_id: str
    finished: Annotated[int, Field(description="Tasks that it ran, and that ended meanwhile.")]
    still_running: Annotated[int, Field(description="Tasks that it is going to finish.")]
    interrupted: Annotated[
        int,
        Field(description="Tasks that were interrupted, to be run again or to become 'uncertain'."),
    ]
