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


class ProgressReport(TypedDict):
    """How far a running task is."""

    done: float
    total: float | None
    message: str


class Event(TypedDict):
    """One step in the life of a task."""

    at: Time
    kind: Annotated[str, Field(description="What happened, for example 'started'.")]
    state: Annotated[TaskState, Field(description="The state after it.")]
    attempt: Annotated[int, Field(description="Counted from 1; 0 before the first.")]
    detail: str


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


class TaskStatus(TaskSummary):
    """Everything about a task but its arguments and its result."""

    why: Annotated[str, Field(description="Why it waits, or why it is in its state, in words.")]
    position: Annotated[
        int | None,
        Field(description="Its place among the tasks that wait for a worker, the next one is 1."),
    ]
    delivery: Delivery
    progress: ProgressReport | None
    due_at: Annotated[Time | None, Field(description="When it becomes ready, if scheduled.")]
    started_at: Annotated[Time | None, Field(description="Start of the latest attempt.")]
    finished_at: Time | None
    events: Annotated[list[Event], Field(description="The latest ones, oldest first.")]


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
    error: NotRequired[Annotated[dict[str, Any], Field(description="How the last attempt failed.")]]
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
    running: int
    succeeded: int
    failed: int
    cancelled: int
    dead: int
    uncertain: int


class QueueCounts(TypedDict):
    """The tasks of one queue."""

    queue: str
    counts: Counts


class Stats(TypedDict):
    """The state of the task queue, as far as it concerns the caller."""

    workers: Annotated[int, Field(description="How many tasks can run at the same time.")]
    busy: Annotated[int, Field(description="How many run now, anybody's.")]
    healthy: bool
    detail: str
    counts: Annotated[Counts, Field(description="Your tasks, of all queues together.")]
    queues: Annotated[list[QueueCounts], Field(description="Your tasks, by queue.")]
