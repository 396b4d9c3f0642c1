"""The tools of the task queue. They run in trio, beside the service they talk to."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import Field

from mcpd_core import Context, tool

from . import answers
from .errors import TaskRefused
from .models import CancelledTask, Stats, SubmittedTask, TaskPage, TaskResult, TaskStatus
from .records import Delivery, Filter, NewTask, TaskState
from .service import TaskQueue

#: Longest `wait` of `get_task_result`, and the longest timeout of one attempt, in seconds.
LONGEST_WAIT = 600
LONGEST_TIMEOUT = 7 * 86_400
#: A result that is waited for up to the very deadline of the call would be lost with it.
MARGIN = 1.0

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,64}$")]
TaskId = Annotated[
    str, Field(min_length=1, max_length=64, description="As submit_task answered it.")
]


async def _queue(ctx: Context) -> TaskQueue:
    return cast(TaskQueue, await ctx.service("task_queue"))


@tool(
    title="Submit a task",
    category="task_queue",
    read_only=False,
    # As bad as the worst tool that it can call.
    destructive=True,
    idempotent=False,
    open_world=True,
    tags=("durable", "queue", "background"),
)
async def submit_task(
    tool: Annotated[str, Field(max_length=64, description="Name of the tool to call.")],
    ctx: Context,
    arguments: Annotated[
        dict[str, Any] | None,
        Field(description="Arguments of that tool; checked now, against its schema."),
    ] = None,
    queue: Annotated[
        Name, Field(description="A name to group tasks by, for lists and statistics.")
    ] = "default",
    priority: Annotated[
        int,
        Field(ge=-1000, le=1000, description="Higher runs first; equal ones in order of submit."),
    ] = 0,
    delay: Annotated[
        float, Field(ge=0, le=366 * 86_400, description="Seconds before it may start.")
    ] = 0.0,
    timeout: Annotated[
        float | None,
        Field(
            gt=0,
            le=LONGEST_TIMEOUT,
            description="Seconds that one attempt may take; by default what the tool allows.",
        ),
    ] = None,
    max_attempts: Annotated[
        int,
        Field(ge=1, le=100, description="How often it may be started, if attempts fail."),
    ] = 3,
    delivery: Annotated[
        Delivery,
        Field(
            description="'at_least_once' may start it again after a crash (only if the tool is "
            "idempotent or read-only; else the task becomes 'uncertain'). 'at_most_once' starts it "
            "a single time, whatever happens."
        ),
    ] = "at_least_once",
    idempotency_key: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            pattern=r"^[\x20-\x7e]+$",
            description="Submitting again with the key of an existing task, and the same tool and "
            "arguments, makes no new task and answers the existing one.",
        ),
    ] = None,
    tags: Annotated[
        list[Name] | None, Field(max_length=16, description="Words to list tasks by.")
    ] = None,
) -> SubmittedTask:
    """Have a tool called in the background, durably.

    Use it for work that takes long, that should start later, or that must not be lost: the answer
    comes once the task is on disk, and from then on it survives crashes and restarts of the server.
    The tool and its arguments are checked now; nothing is stored if they do not fit. Failed
    attempts are repeated with growing waits. Follow the task with get_task_status, fetch its answer
    with get_task_result, stop it with cancel_task.
    """
    given = arguments or {}
    spec = await ctx.check(tool, given)
    submitted = await (await _queue(ctx)).submit(
        NewTask(
            tool=spec.name,
            arguments=given,
            principal=ctx.principal,
            client=ctx.client,
            queue=queue,
            priority=priority,
            delay=delay,
            timeout=timeout,
            max_attempts=max_attempts,
            delivery=delivery,
            repeatable=spec.annotations.safe_to_repeat,
            idempotency_key=idempotency_key,
            tags=tuple(tags or ()),
        )
    )
    if submitted.outcome == "rejected":
        raise TaskRefused(
            f"The idempotency key {idempotency_key!r} belongs to the task {submitted.task_id}, "
            "which has another tool or other arguments; nothing was submitted.",
            hint="Use a new key for new work.",
        )
    return {
        "task_id": submitted.task_id,
        "state": submitted.state,
        "outcome": submitted.outcome,
    }


@tool(
    title="Get the status of a task",
    category="task_queue",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def get_task_status(task_id: TaskId, ctx: Context) -> TaskStatus:
    """Tell how a task is: its state and why, its place in the queue, attempts, progress, events.

    States: 'scheduled' waits for a time, 'ready' for a free worker, 'running'; 'succeeded';
    'failed' (trying again is of no use), 'dead' (all attempts failed), 'cancelled'; 'uncertain'
    (interrupted, and repeating it might do the work twice: a person has to look).
    """
    queue = await _queue(ctx)
    snapshot = await queue.status(ctx.principal, task_id)
    return answers.status(snapshot, queue.progress(task_id), queue.workers)


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
) -> TaskResult:
    """Fetch what a task's tool answered, waiting for it if asked to.

    When the task has not ended after the wait, 'ready' is false and the state says how far it is.
    A failed task is no error of this tool: 'error' has the failure. Results are kept for a while
    (a week, unless the server's owner chose otherwise) and can be fetched as often as needed.
    """
    queue = await _queue(ctx)
    remaining = ctx.remaining()
    if remaining is not None:
        wait = min(wait, max(0.0, remaining - MARGIN))
    if wait > 0:
        async with ctx.waiting():
            snapshot = await queue.result(ctx.principal, task_id, wait=wait)
    else:
        snapshot = await queue.result(ctx.principal, task_id)
    return answers.result(snapshot, queue.workers)


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
    cursor: Annotated[
        str | None, Field(description="`next_cursor` of the previous answer, to go on from there.")
    ] = None,
    limit: Annotated[int, Field(ge=1, le=200, description="How many at most.")] = 50,
) -> TaskPage:
    """List your tasks, newest first. All filters given must fit."""
    page = await (await _queue(ctx)).find(
        ctx.principal, Filter(state, queue, tool, tag), cursor=cursor, limit=limit
    )
    return {"tasks": [answers.summary(task) for task in page.tasks], "next_cursor": page.cursor}


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
    answered 'cancelled' or 'cancelling', the task is never going to succeed.
    """
    cancelled = await (await _queue(ctx)).cancel(ctx.principal, task_id)
    return {"task_id": task_id, "outcome": cancelled.outcome, "state": cancelled.state}


@tool(
    title="Get queue statistics",
    category="task_queue",
    read_only=True,
    destructive=False,
    idempotent=True,
    open_world=False,
)
async def get_queue_stats(ctx: Context) -> Stats:
    """Tell how many of your tasks are in which state, per queue, and how busy the workers are."""
    queue = await _queue(ctx)
    return answers.stats(await queue.stats(ctx.principal), queue.load(), queue.health())
