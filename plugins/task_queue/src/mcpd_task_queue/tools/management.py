"""Tools that change one task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from typing_extensions import NotRequired, TypedDict

from mcpd_core import Context, tool
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.models.management import (
    CancelledTask,
    ChangedTask,
    PrioritisedTask,
    RetriedTasks,
    RetryOutcome,
)
from mcpd_task_queue.records import Changed, Filter

from .arguments import Name, Priority, TaskId, ToolName, service

#: Tasks that one call names at most, and that one call with a filter has tried anew.
MOST_IDS = 500
MOST_MATCHING = 10_000


@tool(
    title="Cancel a task",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=True,
    open_world=False,
)
async def cancel_task(
    task_id: TaskId,
    ctx: Context,
    grace: Annotated[
        float | None,
        Field(
            ge=0,
            le=3_600,
            description="Seconds to clean up before a tool in a process of its own is killed; by "
            "default what the settings say. It counts for the first request.",
        ),
    ] = None,
) -> CancelledTask:
    """Cancel a task, whether it waits or runs.

    A running tool is interrupted and cleans up; what it had done by then stays done. A tool in a
    process that does not stop is killed; one in a thread or on a loop cannot be: get_task_status
    says why it still runs. Once this has
    answered 'cancelled' or 'cancelling', the task is not going to succeed, unless retry_task has it
    tried anew. Cancelling a recurring task ends it; tasks that it has made already stay.
    """
    cancelled = await (await service(ctx)).cancel(ctx.principal, task_id, grace)
    return {"task_id": task_id, "outcome": cancelled.outcome, "state": cancelled.state}


class Matching(TypedDict):
    """Which tasks are to be tried anew."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    state: NotRequired[
        Annotated[
            Literal["dead", "failed", "cancelled", "uncertain"],
            Field(description="By default 'dead'."),
        ]
    ]
    queue: NotRequired[Name]
    tool: NotRequired[ToolName]
    tag: NotRequired[Name]


@tool(
    title="Retry tasks",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=False,
    open_world=True,
)
async def retry_task(
    ctx: Context,
    task_id: Annotated[
        str | None, Field(min_length=1, max_length=64, description="One task.")
    ] = None,
    task_ids: Annotated[
        list[TaskId] | None,
        Field(min_length=1, max_length=MOST_IDS, description="Several, in one transaction."),
    ] = None,
    matching: Annotated[
        Matching | None, Field(description="All that fit, {} being all that are dead.")
    ] = None,
    confirm: Annotated[
        bool, Field(description="Goes with `matching`: without it they are only counted.")
    ] = False,
    max_attempts: Annotated[
        int | None,
        Field(ge=1, le=100, description="Its new budget; by default as many as it had at first."),
    ] = None,
) -> RetriedTasks:
    """Have tasks tried anew that failed, are dead, were cancelled or are uncertain.

    Give one of `task_id`, `task_ids` and `matching`. A task keeps its id and its history and gets a
    new budget of attempts, and all of its deadline; a recurring task goes on from its next time.
    Retrying an uncertain task may do its work twice: find out first.
    """
    if sum(given is not None for given in (task_id, task_ids, matching)) != 1:
        raise TaskRefused(
            "Tasks are named by one of `task_id`, `task_ids` and `matching`.",
            hint="Give exactly one.",
        )
    queue = await service(ctx)
    if task_id is not None:
        changed = await queue.retry(ctx.principal, task_id, max_attempts)
        return {"retried": 1, "task_id": task_id, "state": changed.state}
    if task_ids is not None:
        answers = await queue.retry_many(ctx.principal, task_ids, max_attempts)
        outcomes = [_outcome(id_, answer) for id_, answer in zip(task_ids, answers, strict=True)]
        retried = sum(outcome["outcome"] == "retried" for outcome in outcomes)
        return {"retried": retried, "tasks": outcomes}
    assert matching is not None
    wanted = Filter(
        matching.get("state", "dead"),
        matching.get("queue"),
        matching.get("tool"),
        matching.get("tag"),
    )
    if not confirm:
        count = await queue.count(ctx.principal, wanted)
        raise TaskRefused(
            f"{count} of your tasks are {wanted.state} and match; nothing was changed.",
            hint="Pass confirm=true to have them tried anew.",
        )
    retried, more = await queue.retry_all(ctx.principal, wanted, max_attempts, MOST_MATCHING)
    return {"retried": retried, "more": more}


def _outcome(task_id: str, changed: Changed | None) -> RetryOutcome:
    if changed is None:
        return {"task_id": task_id, "outcome": "unknown"}
    return {
        "task_id": task_id,
        "outcome": "retried" if changed.done else "unchanged",
        "state": changed.state,
    }


@tool(
    title="Resolve an uncertain task",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=False,
    open_world=True,
)
async def resolve_task(
    task_id: TaskId,
    outcome: Annotated[
        Literal["succeeded", "failed", "retry"],
        Field(description="What is true of it; 'retry': it did nothing, start it again."),
    ],
    ctx: Context,
    note: Annotated[
        str, Field(max_length=400, description="How it was found out; kept with the task.")
    ] = "",
) -> ChangedTask:
    """Record what became of a task that is uncertain, after looking whether it did its work.

    A task is uncertain when its attempt was cut off and repeating it might do the work twice. Only
    somebody who looks at what the tool was to change can tell.
    """
    changed = await (await service(ctx)).resolve(ctx.principal, task_id, outcome, note)
    return {"task_id": task_id, "state": changed.state}


@tool(
    title="Set the priority of a task",
    category="task_queue",
    read_only=False,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def set_task_priority(task_id: TaskId, priority: Priority, ctx: Context) -> PrioritisedTask:
    """Give a task another priority.

    One that waits moves to its new place at once; for one that runs it counts if it is tried again,
    for a recurring one from its next time on.
    """
    queue = await service(ctx)
    changed = await queue.prioritise(ctx.principal, task_id, priority)
    snapshot = await queue.status(ctx.principal, task_id, events=0)
    return {
        "task_id": task_id,
        "state": snapshot.task.state,
        "old_priority": changed.before,
        "new_priority": priority,
        "position": None if snapshot.ahead is None else snapshot.ahead + 1,
    }
