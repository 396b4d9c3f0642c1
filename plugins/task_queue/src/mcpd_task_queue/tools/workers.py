"""Tools about workers: slots of this daemon that only take certain tasks of yours."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mcpd_core import Context, tool
from mcpd_task_queue import answers
from mcpd_task_queue.errors import TaskRefused, UnknownWorker
from mcpd_task_queue.models.workers import RegisteredWorker, UnregisteredWorker, Workers
from mcpd_task_queue.records import BUILT_IN, Worker

from .arguments import Name, service, within

WorkerId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,64}$", description="A name of your choice.")
]
#: What `unregister_worker` waits for at most, in seconds.
LONGEST_GRACE = 600


@tool(
    title="Register a worker",
    category="task_queue",
    read_only=False,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def register_worker(
    worker_id: WorkerId,
    ctx: Context,
    queues: Annotated[
        list[Name] | None,
        Field(min_length=1, max_length=16, description="Those it serves; by default 'default'."),
    ] = None,
    capabilities: Annotated[
        list[Name] | None,
        Field(
            max_length=16,
            description="It takes tasks with one of these as tool or tag; by default any.",
        ),
    ] = None,
    max_concurrent_tasks: Annotated[
        int, Field(ge=1, le=1_000, description="How many it runs at the same time.")
    ] = 5,
) -> RegisteredWorker:
    """Set slots of this server apart for certain tasks of yours, besides the built-in worker.

    A worker is part of this server, not a process of your own: nothing connects to it, and it
    cannot be on another machine. It survives restarts. Registering one again changes it. The
    built-in worker goes on taking any task.
    """
    if worker_id == BUILT_IN:
        raise TaskRefused(
            f"{BUILT_IN!r} is the worker that is always there.", hint="Choose a name."
        )
    kept = await (await service(ctx)).staff.register(
        Worker(
            worker_id,
            ctx.principal,
            tuple(dict.fromkeys(queues or ["default"])),
            tuple(dict.fromkeys(capabilities or ())),
            max_concurrent_tasks,
        )
    )
    return {
        "worker_id": kept.name,
        "queues": list(kept.queues),
        "capabilities": list(kept.capabilities),
        "max_concurrent_tasks": kept.slots,
        "registered_at": answers.iso(kept.registered_at),
    }


@tool(
    title="Unregister a worker",
    category="task_queue",
    timeout=LONGEST_GRACE + 10,
    read_only=False,
    destructive=True,
    idempotent=True,
    open_world=False,
)
async def unregister_worker(
    worker_id: WorkerId,
    ctx: Context,
    grace: Annotated[
        float | None,
        Field(
            ge=0,
            le=LONGEST_GRACE,
            description="Seconds to wait for what it runs, before that is interrupted; by default "
            "it may finish, and this does not wait.",
        ),
    ] = None,
) -> UnregisteredWorker:
    """Remove one of your workers; it takes no further task, others take what it left."""
    queue = await service(ctx)
    async with ctx.waiting():
        wait = None if grace is None else within(ctx, grace)
        running, interrupted = await queue.staff.unregister(ctx.principal, worker_id, wait)
    return {
        "worker_id": worker_id,
        "finished": 0 if grace is None else running - interrupted,
        "still_running": running if grace is None else 0,
        "interrupted": interrupted,
    }


@tool(
    title="Get the status of workers",
    category="task_queue",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def get_worker_status(
    ctx: Context,
    worker_id: Annotated[
        str | None, Field(max_length=64, description="Only this one; by default all.")
    ] = None,
) -> Workers:
    """Tell what the built-in worker and your registered ones are doing, and have done."""
    workers = await (await service(ctx)).staff.of(ctx.principal)
    if worker_id is not None:
        workers = [worker for worker in workers if worker.name == worker_id]
        if not workers:
            raise UnknownWorker(worker_id)
    return {"workers": [answers.worker(worker) for worker in workers]}
