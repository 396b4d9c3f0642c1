"""What became of a task that was to be changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from mcpd_task_queue.records import TaskState


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
