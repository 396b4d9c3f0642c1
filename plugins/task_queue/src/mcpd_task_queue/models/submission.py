"""What became of tasks that were submitted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from mcpd_task_queue.records import TaskState

from .shared import Time


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
