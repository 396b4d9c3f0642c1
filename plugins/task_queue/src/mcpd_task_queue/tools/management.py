"""Tools that change one task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mcpd_core import Context, tool
from mcpd_task_queue.models import CancelledTask, ChangedTask, PrioritisedTask

from .arguments import Priority, TaskId, service


@tool(
    title="Cancel a task",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=True,
    open_world=False,
)
async def cancel_task(task_id: TaskId, ctx: Context) -> CancelledTask:
    """Cancel a task, whether it waits or runs.

    A running tool is interrupted and cleans up; what it had done by then stays done. Once this has
    answered 'cancelled' or 'cancelling', the task is not going to succeed, unless retry_task has it
    tried anew. Cancelling a recurring task ends it; tasks that it has made already stay.
    """
    cancelled = await (await service(ctx)).cancel(ctx.principal, task_id)
    return {"task_id": task_id, "outcome": cancelled.outcome, "state": cancelled.state}


@tool(
    title="Retry a task",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=False,
    open_world=True,
)
async def retry_task(
    task_id: TaskId,
    ctx: Context,
    max_attempts: Annotated[
        int | None,
        Field(ge=1, le=100, description="Its new budget; by default as many as it had at first."),
    ] = None,
) -> ChangedTask:
    """Have a task tried anew that failed, is dead, was cancelled or is uncertain.

    It keeps its id and its history and gets a new budget of attempts; a recurring task goes on
    from its next time. Retrying an uncertain task may do its work twice: find out first.
    """
    changed = await (await service(ctx)).retry(ctx.principal, task_id, max_attempts)
    return {"task_id": task_id, "state": changed.state}


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
