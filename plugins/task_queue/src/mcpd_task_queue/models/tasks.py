"""A task, and how far it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from mcpd_task_queue.records import Delivery, TaskState

from .shared import Time


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


class TaskPage(TypedDict):
    """Part of a list of tasks, newest first."""

    tasks: list[TaskSummary]
    next_cursor: Annotated[
        str | None, Field(description="Pass it as `cursor` for the next part; null at the end.")
    ]
