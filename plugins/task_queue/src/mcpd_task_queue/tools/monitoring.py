"""Tools that look at tasks, and change nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mcpd_core import Context, tool
from mcpd_task_queue import answers
from mcpd_task_queue.models.results import TaskResult
from mcpd_task_queue.models.statistics import Stats
from mcpd_task_queue.models.tasks import TaskPage, TaskStatus
from mcpd_task_queue.records import Filter, TaskState

from .arguments import LONGEST_WAIT, Name, TaskId, service, within

#: What "of late" means in the statistics, in seconds.
LATELY = 3_600.0
#: How many times as many bytes the stored JSON of a result has, at most, as it has in an answer.
_SHRINKS = 3
#: Bytes of an answer besides the part of a result that it has; of those, each character may take
#: two. A part has some characters however little fits.
_AROUND_PART, _LEAST_PART = 1_500, 64


@tool(
    title="Get the status of a task",
    category="task_queue",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def get_task_status(
    task_id: TaskId,
    ctx: Context,
    log_lines: Annotated[
        int,
        Field(ge=0, le=1_000, description="How many of the last lines that its tool logged."),
    ] = 20,
) -> TaskStatus:
    """Tell how a task is: its state and why, its place in the queue, attempts, progress, events,
    and what its tool logged.

    States: 'scheduled' waits for a time, 'ready' for a free worker, 'paused' for its queue to be
    resumed, 'running'; 'succeeded'; 'failed' (trying again is of no use), 'dead' (all attempts
    failed), 'cancelled'; 'uncertain' (interrupted, and repeating it might do the work twice: a
    person has to look, then resolve_task).
    """
    queue = await service(ctx)
    snapshot = await queue.status(ctx.principal, task_id, logs=log_lines)
    holding = queue.why_it_still_runs(snapshot.task)
    return answers.status(snapshot, queue.progress(task_id), queue.workers, holding)


@tool(
    title="Get the result of a task",
    category="task_queue",
    timeout=LONGEST_WAIT + 10,
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def get_task_result(
    task_id: TaskId,
    ctx: Context,
    wait: Annotated[
        float,
        Field(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the task to end."),
    ] = 0.0,
    offset: Annotated[
        int | None,
        Field(ge=0, description="Fetch a part of the result's JSON text, from this character on."),
    ] = None,
    length: Annotated[
        int | None,
        Field(ge=1, description="How many characters of it; by default as many as fit."),
    ] = None,
) -> TaskResult:
    """Fetch what a task's tool answered, waiting for it if asked to.

    When the task has not ended after the wait, 'ready' is false and the state says how far it is.
    A failed task is no error of this tool: 'error' has the failure. A result that does not fit into
    an answer is described by 'large', and fetched in parts. Results are kept for a while (a week,
    unless the server's owner chose otherwise) and can be fetched as often as needed.
    """
    queue = await service(ctx)
    wait = within(ctx, wait)
    limit = ctx.max_result_bytes
    # One that is too large by far is not read at all.
    largest = _SHRINKS * limit if offset is None else 0
    if wait > 0:
        async with ctx.waiting():
            snapshot = await queue.result(ctx.principal, task_id, wait=wait, largest=largest)
    else:
        snapshot = await queue.result(ctx.principal, task_id, largest=largest)
    if offset is not None:
        most = max(_LEAST_PART, (limit - _AROUND_PART) // 2)
        part = await queue.result_part(ctx.principal, task_id, offset, min(length or most, most))
        return answers.result(snapshot, queue.workers, limit, part)
    answer = answers.result(snapshot, queue.workers, limit)
    if snapshot.task.result is not None and answers.too_large(answer, limit):
        snapshot = await queue.result(ctx.principal, task_id, largest=0)
        answer = answers.result(snapshot, queue.workers, limit)
    return answer


@tool(
    title="List tasks",
    category="task_queue",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def list_tasks(
    ctx: Context,
    state: Annotated[TaskState | None, Field(description="Only tasks in this state.")] = None,
    queue: Annotated[Name | None, Field(description="Only tasks of this queue.")] = None,
    tool: Annotated[
        str | None, Field(max_length=64, description="Only tasks that call this tool.")
    ] = None,
    tag: Annotated[Name | None, Field(description="Only tasks with this tag.")] = None,
    recurring: Annotated[
        bool | None,
        Field(description="True: only recurring ones, that is, schedules. False: none of them."),
    ] = None,
    schedule_id: Annotated[
        str | None, Field(max_length=64, description="Only tasks made by this recurring one.")
    ] = None,
    id_prefix: Annotated[
        str | None,
        Field(pattern=r"^[0-9a-f]{1,64}$", description="Only tasks whose id begins so."),
    ] = None,
    cursor: Annotated[
        str | None, Field(description="`next_cursor` of the previous answer, to go on from there.")
    ] = None,
    limit: Annotated[int, Field(ge=1, le=200, description="How many at most.")] = 50,
) -> TaskPage:
    """List your tasks and schedules, newest first. All filters given must fit."""
    wanted = Filter(
        state,
        queue,
        tool,
        tag,
        recurring=recurring,
        schedule_id=schedule_id,
        id_prefix=id_prefix,
    )
    page = await (await service(ctx)).find(ctx.principal, wanted, cursor=cursor, limit=limit)
    return {"tasks": [answers.summary(task) for task in page.tasks], "next_cursor": page.cursor}


@tool(
    title="Get queue statistics",
    category="task_queue",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def get_queue_stats(ctx: Context) -> Stats:
    """Tell how many of your tasks are in which state, per queue, how busy the workers are, and what
    the engine that keeps the tasks can do.
    """
    return await statistics(ctx)


async def statistics(ctx: Context) -> Stats:
    """Describe the queues of the caller."""
    queue = await service(ctx)
    queues = await queue.stats(ctx.principal)
    return answers.stats(
        queues,
        queue.load(),
        queue.condition(answers.together(queues)),
        await queue.pauses(ctx.principal),
        await queue.activity(ctx.principal, LATELY),
        queue.engine,
        queue.metrics() if ctx.principal.kind == "local" else None,
    )
