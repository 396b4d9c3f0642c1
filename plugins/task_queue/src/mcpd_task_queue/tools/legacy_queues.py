"""The tools of an older server about its queue and its workers; see `legacy_tasks`."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import Field

from mcpd_core import CallResult, Context
from mcpd_task_queue import legacy
from mcpd_task_queue.answers import iso
from mcpd_task_queue.answers import worker as worker_report
from mcpd_task_queue.errors import TaskRefused, UnknownWorker
from mcpd_task_queue.legacy import LegacyStatus
from mcpd_task_queue.records import BUILT_IN, Worker

from .arguments import Name, service, within
from .legacy_shared import QUEUE, Free, Reason, given, legacy_tool
from .monitoring import LATELY

#: What `worker_unregister` waits for at most, in seconds.
LONGEST_GRACE = 600


@legacy_tool(read_only=True, destructive=False, idempotent=True, open_world=False)
async def queue_stats(
    ctx: Context, include_worker_stats: bool = False, include_historical: bool = False
) -> CallResult:
    """Older form of get_queue_stats; the averages and the throughput are of the last hour."""
    queue = await service(ctx)
    counts = dict.fromkeys(legacy.STATUSES, 0)
    for one in await queue.stats(ctx.principal):
        if one.queue == QUEUE:
            for state, count in one.counts.items():
                counts[legacy.status_of(state)] += count
    activity = await queue.activity(ctx.principal, LATELY)
    workers = await queue.staff.of(ctx.principal) if include_worker_stats else ()
    return legacy.success(
        given(include_historical=include_historical),
        queued_count=counts["queued"],
        running_count=counts["running"],
        completed_count=counts["completed"],
        failed_count=counts["failed"],
        average_wait_time=activity.wait,
        average_execution_time=activity.run,
        throughput=activity.ended / (LATELY / 60),
        worker_stats=[dict(worker_report(worker)) for worker in workers] or None,
        historical=None,
    )


@legacy_tool(destructive=False, idempotent=True, open_world=False)
async def queue_pause(ctx: Context, reason: Reason = None) -> CallResult:
    """Older form of pause_queue."""
    paused = await (await service(ctx)).pause(ctx.principal, QUEUE, reason or "")
    # It may have been resumed by the time that all of it was paused.
    since = time.time() if paused.pause is None else paused.pause.since
    return legacy.success(
        [],
        status="active" if paused.pause is None else "paused",
        paused_at=iso(since),
        queued_tasks=paused.waiting,
        running_tasks=paused.running,
    )


@legacy_tool(destructive=False, idempotent=True, open_world=False)
async def queue_resume(ctx: Context, reorder_by_priority: bool = True) -> CallResult:
    """Older form of resume_queue; tasks are always in order of priority."""
    resumed = await (await service(ctx)).resume(ctx.principal, QUEUE)
    return legacy.success(
        given(reorder_by_priority=not reorder_by_priority),
        status="active",
        resumed_at=iso(time.time()),
        queued_tasks=resumed.waiting,
        reordered=True,
    )


@legacy_tool(idempotent=True, open_world=False)
async def queue_clear(
    ctx: Context, status_filter: LegacyStatus | None = None, confirm: bool = False
) -> CallResult:
    """Older form of clear_queue; what has ended is kept, and what runs goes on."""
    if not confirm:
        raise TaskRefused(
            "The queue was not cleared: `confirm` is not true.",
            hint="Call again with confirm=true.",
        )
    if status_filter not in (None, "queued"):
        raise TaskRefused(
            f"Tasks that are {status_filter} cannot be cleared; the queue was left as it is.",
            hint="task_cancel stops one that runs; those that ended are removed after a while.",
        )
    cleared = await (await service(ctx)).clear(ctx.principal, QUEUE)
    return legacy.success(
        [],
        cleared_count=cleared.tasks,
        remaining_count=cleared.waiting + cleared.running,
        cleared_at=iso(time.time()),
    )


@legacy_tool("worker_id", destructive=False, idempotent=True, open_world=False)
async def worker_register(
    worker_id: Name,
    capabilities: Annotated[list[Name], Field(max_length=16)],
    ctx: Context,
    max_concurrent_tasks: Annotated[int, Field(ge=1, le=1000)] = 5,
    resource_limits: Free = None,
    metadata: Free = None,
) -> CallResult:
    """Older form of register_worker; it serves the queue `default`."""
    if worker_id == BUILT_IN:
        raise TaskRefused(f"{BUILT_IN!r} is the worker that is always there.")
    kept = await (await service(ctx)).staff.register(
        Worker(
            worker_id,
            ctx.principal,
            (QUEUE,),
            tuple(dict.fromkeys(capabilities)),
            max_concurrent_tasks,
        )
    )
    return legacy.success(
        given(resource_limits=resource_limits, metadata=metadata),
        worker_id=worker_id,
        status="active",
        registered_at=iso(kept.registered_at),
        assigned_peers=[],
    )


@legacy_tool("worker_id", timeout=LONGEST_GRACE + 10, idempotent=True, open_world=False)
async def worker_unregister(
    worker_id: Name,
    ctx: Context,
    graceful: bool = True,
    timeout: Annotated[int, Field(ge=0, le=LONGEST_GRACE)] = 300,
) -> CallResult:
    """Older form of unregister_worker; gracefully, it waits and then interrupts what is left."""
    queue = await service(ctx)
    async with ctx.waiting():
        grace = within(ctx, timeout) if graceful else 0.0
        running, interrupted = await queue.staff.unregister(ctx.principal, worker_id, grace)
    return legacy.success(
        [],
        worker_id=worker_id,
        status="unregistered",
        unregistered_at=iso(time.time()),
        completed_tasks=running - interrupted,
        abandoned_tasks=interrupted,
    )


@legacy_tool("worker_id", read_only=True, destructive=False, idempotent=True, open_world=False)
async def worker_status(
    worker_id: Name, ctx: Context, include_tasks: bool = False, include_metrics: bool = False
) -> CallResult:
    """Older form of get_worker_status."""
    workers = await (await service(ctx)).staff.of(ctx.principal)
    found = next((worker for worker in workers if worker.name == worker_id), None)
    if found is None:
        raise UnknownWorker(worker_id)
    report = worker_report(found)
    counts = report["counts"]
    failed = counts["failed"] + counts["dead"] + counts["uncertain"]
    return legacy.success(
        [],
        worker_id=worker_id,
        status=report["state"],
        running_tasks=report["running"],
        completed_tasks=counts["succeeded"],
        failed_tasks=failed,
        tasks=report["tasks"] if include_tasks else None,
        metrics={"max_concurrent_tasks": found.slots, "free": max(0, found.slots - found.busy)}
        if include_metrics
        else None,
    )
