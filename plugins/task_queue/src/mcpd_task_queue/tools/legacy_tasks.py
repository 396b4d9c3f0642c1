"""The tools of an older server, by the names, arguments and answers that it had.

They can be called, and clients are not told of them. What they have no counterpart for is accepted,
has no effect, and is named under ``ignored`` in the answer. That server had one queue: ``default``.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from pydantic import Field

from mcpd_core import CallResult, Context
from mcpd_task_queue import legacy
from mcpd_task_queue.answers import iso
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.legacy import LegacyStatus
from mcpd_task_queue.queue import TaskQueue
from mcpd_task_queue.records import Filter

from .arguments import LONGEST_TIMEOUT, Name, service
from .legacy_shared import QUEUE, Free, Id, Reason, given, legacy_tool
from .requests import new_task
from .submission import submit


async def _find(ctx: Context, task_id: str) -> tuple[TaskQueue, str]:
    queue = await service(ctx)
    return queue, await queue.named(ctx.principal, task_id)


@legacy_tool("task_id")
async def task_submit(
    task_id: Id,
    task_type: Annotated[str, Field(max_length=64)],
    payload: dict[str, Any],
    ctx: Context,
    priority: float = legacy.DEFAULT_PRIORITY,
    tags: Annotated[list[Name] | None, Field(max_length=16)] = None,
    timeout: Annotated[int | None, Field(gt=0, le=LONGEST_TIMEOUT)] = None,
    retry_policy: dict[str, Any] | None = None,
    metadata: Free = None,
) -> CallResult:
    """Older form of submit_task: `task_type` is the tool, `payload` its arguments."""
    ignored = given(metadata=metadata)
    attempts = legacy.attempts_in(retry_policy, ignored, "retry_policy")
    task = await new_task(
        ctx,
        task_type,
        payload,
        tags,
        queue=QUEUE,
        priority=legacy.priority_from(priority),
        timeout=timeout,
        max_attempts=attempts or 3,
        idempotency_key=task_id,
    )
    submitted = await submit(ctx, task)
    snapshot = await (await service(ctx)).status(ctx.principal, submitted.task_id, events=0)
    return legacy.success(
        ignored,
        task_id=task_id,
        status=legacy.status_of(snapshot.task.state),
        queue_position=legacy.position(snapshot),
        estimated_start_time=None,
        assigned_worker=snapshot.task.worker,
    )


@legacy_tool("task_id", read_only=True, destructive=False, idempotent=True, open_world=False)
async def task_status(
    task_id: Id, ctx: Context, include_logs: bool = False, include_metrics: bool = False
) -> CallResult:
    """Older form of get_task_status."""
    queue, found = await _find(ctx, task_id)
    snapshot = await queue.status(ctx.principal, found)
    task = snapshot.task
    reported = queue.progress(found) or task.progress
    percent = None
    if reported is not None and reported.progress.total:
        percent = 100 * reported.progress.done / reported.progress.total
    return legacy.success(
        [],
        task_id=task_id,
        status=legacy.status_of(task.state),
        progress=100.0 if task.state == "succeeded" else percent,
        worker_id=task.worker,
        start_time=iso(task.started_at),
        end_time=iso(task.finished_at),
        queue_position=legacy.position(snapshot),
        logs=_history(snapshot.events) if include_logs else None,
        metrics={
            "attempts": task.attempts,
            "max_attempts": task.max_attempts,
            "execution_time": legacy.seconds(task),
        }
        if include_metrics
        else None,
    )


def _history(events: Any) -> list[str]:
    return [f"{iso(event.at)} {event.kind} {event.detail}".rstrip() for event in events]


@legacy_tool("task_id", idempotent=True, open_world=False)
async def task_cancel(
    task_id: Id, ctx: Context, reason: Reason = None, force: bool = False
) -> CallResult:
    """Older form of cancel_task."""
    queue, found = await _find(ctx, task_id)
    cancelled = await queue.cancel(ctx.principal, found, 0.0 if force else None)
    if cancelled.outcome == "settled" and cancelled.state != "cancelled":
        raise TaskRefused(
            f"The task {task_id!r} had ended: it is {legacy.status_of(cancelled.state)}."
        )
    running = cancelled.outcome == "cancelling"
    return legacy.success(
        given(reason=reason),
        task_id=task_id,
        status="running" if running else "cancelled",
        cancelled_at=None if running else iso(time.time()),
        cleanup_required=running,
    )


@legacy_tool(read_only=True, destructive=False, idempotent=True, open_world=False)
async def task_list(
    ctx: Context,
    status_filter: LegacyStatus | None = None,
    worker_filter: Annotated[str | None, Field(max_length=64)] = None,
    tag_filter: list[Name] | None = None,
    priority_min: float | None = None,
    limit: Annotated[int, Field(ge=1, le=1000)] = 100,
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0,
) -> CallResult:
    """Older form of list_tasks."""
    wanted = Filter(
        queue=QUEUE,
        states=legacy.STATES[status_filter] if status_filter else (),
        tags=tuple(tag_filter or ()),
        worker=worker_filter,
        least_priority=None if priority_min is None else legacy.steps_from(priority_min),
    )
    queue = await service(ctx)
    page = await queue.find(ctx.principal, wanted, limit=limit, offset=offset)
    return legacy.success(
        [],
        tasks=[legacy.listed(task) for task in page.tasks],
        total_count=await queue.count(ctx.principal, wanted),
        returned_count=len(page.tasks),
        has_more=page.cursor is not None,
    )


@legacy_tool("task_id", destructive=False, idempotent=True, open_world=False)
async def task_priority(
    task_id: Id, new_priority: float, ctx: Context, requeue: bool = True
) -> CallResult:
    """Older form of set_task_priority."""
    queue, found = await _find(ctx, task_id)
    changed = await queue.prioritise(ctx.principal, found, legacy.priority_from(new_priority))
    snapshot = await queue.status(ctx.principal, found, events=0)
    return legacy.success(
        given(requeue=not requeue),
        task_id=task_id,
        old_priority=legacy.priority_to(changed.before),
        new_priority=legacy.priority_to(snapshot.task.priority),
        new_queue_position=legacy.position(snapshot),
    )


@legacy_tool("task_id", read_only=True, destructive=False, idempotent=True, open_world=False)
async def task_result(
    task_id: Id, ctx: Context, include_output: bool = True, include_logs: bool = False
) -> CallResult:
    """Older form of get_task_result; it does not wait."""
    queue, found = await _find(ctx, task_id)
    task = (await queue.result(ctx.principal, found, largest=ctx.max_result_bytes)).task
    if task.large is not None:
        raise TaskRefused(
            f"The result of the task {task_id!r} takes {task.large.size:,} bytes, which do not fit "
            "into an answer.",
            hint="get_task_result gives it in parts.",
        )
    output: Any = None
    if task.result is not None:
        output = task.result.text if task.result.structured is None else task.result.structured
    payload = {
        "task_id": task_id,
        "status": legacy.status_of(task.state),
        "result": output,
        "output": output if include_output else None,
        "logs": None,
        "execution_time": legacy.seconds(task),
    }
    if include_logs:
        events = (await queue.status(ctx.principal, found)).events
        payload["logs"] = _history(events)
    if legacy.status_of(task.state) == "failed":
        payload["error"] = dict(task.error) if task.error else {"message": task.reason}
    return legacy.success([], **payload)


@legacy_tool("task_id")
async def task_retry(
    task_id: Id, ctx: Context, retry_config: dict[str, Any] | None = None
) -> CallResult:
    """Older form of retry_task; the task keeps its id."""
    ignored: list[str] = []
    attempts = legacy.attempts_in(retry_config, ignored, "retry_config")
    queue, found = await _find(ctx, task_id)
    await queue.retry(ctx.principal, found, attempts)
    snapshot = await queue.status(ctx.principal, found, events=200)
    return legacy.success(
        ignored,
        task_id=task_id,
        retry_task_id=task_id,
        retry_count=sum(event.kind == "retried" for event in snapshot.events),
        queue_position=legacy.position(snapshot),
    )
