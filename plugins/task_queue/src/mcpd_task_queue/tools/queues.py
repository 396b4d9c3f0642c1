"""Tools that change all of a queue. A queue is its principal's: others may have one of its name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mcpd_core import Context, tool
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.models.queues import ClearedQueue, QueueState
from mcpd_task_queue.records import QueueChanged

from .arguments import Queue, service


@tool(
    title="Pause a queue",
    category="task_queue",
    read_only=False,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def pause_queue(
    ctx: Context,
    queue: Queue = "default",
    reason: Annotated[
        str, Field(max_length=400, description="Shown to whoever asks why its tasks wait.")
    ] = "",
) -> QueueState:
    """Start nothing more of one of your queues until it is resumed; restarts do not end the pause.

    What runs goes on. Tasks can still be submitted; they are 'paused' until resume_queue.
    """
    changed = await (await service(ctx)).pause(ctx.principal, queue, reason)
    return _state(queue, changed)


@tool(
    title="Resume a queue",
    category="task_queue",
    read_only=False,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def resume_queue(ctx: Context, queue: Queue = "default") -> QueueState:
    """End the pause of one of your queues; its tasks wait for their turn again."""
    return _state(queue, await (await service(ctx)).resume(ctx.principal, queue))


def _state(queue: str, changed: QueueChanged) -> QueueState:
    return {
        "queue": queue,
        "paused": changed.pause is not None,
        "changed": changed.changed,
        "waiting": changed.waiting,
        "running": changed.running,
    }


@tool(
    title="Clear a queue",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=True,
    open_world=False,
)
async def clear_queue(
    ctx: Context,
    queue: Queue = "default",
    confirm: Annotated[bool, Field(description="Must be true: say that you mean it.")] = False,
    recurring: Annotated[
        bool, Field(description="Also end the recurring tasks of the queue.")
    ] = False,
) -> ClearedQueue:
    """Cancel all tasks that wait in one of your queues.

    What runs goes on, and what has ended is kept. Of many tasks some may be started before it is
    their turn, and what is submitted meanwhile stays. Each cancelled task can be had back with
    retry_task.
    """
    if not confirm:
        raise TaskRefused(
            f"The queue {queue!r} was not cleared: `confirm` is not true.",
            hint="Call again with confirm=true if all that waits in it is to be cancelled.",
        )
    cleared = await (await service(ctx)).clear(ctx.principal, queue, recurring=recurring)
    return {
        "queue": queue,
        "cancelled": cleared.tasks,
        "waiting": cleared.waiting,
        "running": cleared.running,
    }
