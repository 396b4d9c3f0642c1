"""The resources: queues and tasks as JSON, to be read and followed. Each sees its caller's only."""

from __future__ import annotations

import json
from typing import Any

from mcpd_core import Context, ResourceNotFound, resource
from mcpd_task_queue import answers
from mcpd_task_queue.announcing import QUEUE, QUEUES, TASK
from mcpd_task_queue.errors import UnknownTask
from mcpd_task_queue.models.statistics import Stats
from mcpd_task_queue.records import SETTLED, Filter, TaskState

from .arguments import service
from .monitoring import statistics

#: What `get_task_result` tells of the end of a task.
OUTCOME = ("text", "structured", "content", "large", "error")
#: Tasks that the resource of a queue names.
LATEST = 50


async def known_queues(value: str, ctx: Context) -> list[str]:
    """Suggest names of queues."""
    queues = await (await service(ctx)).stats(ctx.principal)
    return [queue.queue for queue in queues if queue.queue.startswith(value)]


async def known_tasks(value: str, ctx: Context) -> list[str]:
    """Suggest ids of tasks, the newest first."""
    if value.strip("0123456789abcdef"):
        return []
    wanted = Filter(id_prefix=value or None)
    page = await (await service(ctx)).find(ctx.principal, wanted, limit=100)
    return [task.id for task in page.tasks]


@resource(QUEUES, name="queues", title="Task queues")
async def all_queues(ctx: Context) -> Stats:
    """How many of your tasks are in which state, by queue, and how busy the workers are."""
    return await statistics(ctx)


@resource(QUEUE, name="queue", title="A task queue", complete={"queue": known_queues})
async def one_queue(queue: str, ctx: Context) -> dict[str, Any]:
    """One of your queues: its counts by state, its pause, and its newest tasks."""
    tasks = await service(ctx)
    found = [one for one in await tasks.stats(ctx.principal) if one.queue == queue]
    paused = [one for one in await tasks.pauses(ctx.principal) if one.queue == queue]
    if not found and not paused:
        raise ResourceNotFound(
            f"You have no queue {queue[:80]!r}.", hint=f"{QUEUES} names your queues."
        )
    counts: dict[TaskState, int] = dict(found[0].counts) if found else {}
    page = await tasks.find(ctx.principal, Filter(queue=queue), limit=LATEST)
    return {
        "queue": queue,
        "counts": answers.counts_of(counts),
        "paused": answers.pause(paused[0]) if paused else None,
        "tasks": [answers.summary(task) for task in page.tasks],
    }


@resource(TASK, name="task", title="A task", complete={"task_id": known_tasks})
async def one_task(task_id: str, ctx: Context) -> dict[str, Any]:
    """One of your tasks: its state and why, progress, arguments, result or error, events."""
    tasks = await service(ctx)
    try:
        # Arguments and result share the answer with everything else.
        share = ctx.max_result_bytes // 4
        snapshot = await tasks.everything(ctx.principal, task_id, share)
    except UnknownTask as unknown:
        raise ResourceNotFound(unknown.message, hint=unknown.hint) from None
    arguments = dict(snapshot.task.arguments or {})
    told: dict[str, Any] = {
        **answers.status(snapshot, tasks.progress(task_id), tasks.workers),
        "arguments": arguments if len(json.dumps(arguments)) <= share else None,
    }
    if snapshot.task.state in SETTLED:
        outcome = answers.result(snapshot, tasks.workers, share)
        told |= {key: value for key, value in outcome.items() if key in OUTCOME}
    return told
