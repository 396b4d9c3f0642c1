"""Tools that make tasks."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, WrapValidator

from mcpd_core import Context, InvalidArguments, McpdError, tool
from mcpd_task_queue import cron as cron_times
from mcpd_task_queue.answers import iso
from mcpd_task_queue.errors import NoPeers, TaskRefused
from mcpd_task_queue.models.submission import (
    ItemOutcome,
    ScheduledTask,
    SubmittedTask,
    SubmittedTasks,
)
from mcpd_task_queue.records import NewTask, Submitted

from .arguments import (
    Arguments,
    Deadline,
    Delay,
    DeliveryChoice,
    FairnessKey,
    IdempotencyKey,
    MaxAttempts,
    Priority,
    RetryChoice,
    Tags,
    TaskQueueName,
    Timeout,
    ToolName,
    WaitForRoom,
    for_room,
    service,
)
from .requests import TaskRequest, new_task, new_task_or_reason, or_misfit

#: Tasks that one call submits at most.
MOST_TASKS = 500
#: How far ahead a task may be scheduled, in seconds.
FARTHEST = 10 * 366 * 86_400
#: How many of its next times the answer to a recurring schedule has.
NEXT_TIMES = 3


def key_taken(key: str | None, submitted: Submitted) -> TaskRefused:
    """Return what to say when an idempotency key belongs to other work."""
    return TaskRefused(
        f"The idempotency key {key!r} belongs to the task {submitted.task_id}, "
        "which has another tool or other arguments; nothing was submitted.",
        hint="Use a new key for new work.",
    )


async def submit(ctx: Context, task: NewTask, wait: float | None = None) -> Submitted:
    """Store one task.

    :param wait: seconds to wait for room, if its queue has submitters wait.
    :raises QueueFull: when there is no room for it.
    :raises TaskRefused: also when its idempotency key belongs to other work.
    """
    queue = await service(ctx)
    submitted = await queue.submit(task, wait=for_room(ctx, wait), waiting=ctx.waiting)
    if submitted.outcome == "rejected":
        raise key_taken(task.idempotency_key, submitted)
    return submitted


def _answer(submitted: Submitted) -> SubmittedTask:
    assert submitted.outcome in ("created", "existing")
    assert submitted.state is not None
    return {
        "task_id": submitted.task_id,
        "state": submitted.state,
        "outcome": submitted.outcome,
        "queue": submitted.queue,
        "spilled_from": submitted.spilled_from,
    }


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
    tool: ToolName,
    ctx: Context,
    arguments: Arguments = None,
    queue: TaskQueueName = "default",
    priority: Priority = 0,
    delay: Delay = 0.0,
    timeout: Timeout = None,
    max_attempts: MaxAttempts = 3,
    retry: RetryChoice = None,
    deadline: Deadline = None,
    delivery: DeliveryChoice = "at_least_once",
    idempotency_key: IdempotencyKey = None,
    fairness_key: FairnessKey = None,
    tags: Tags = None,
    wait: WaitForRoom = None,
) -> SubmittedTask:
    """Have a tool called in the background, durably.

    Use it for work that takes long, that should start later, or that must not be lost: the answer
    comes once the task is on disk, and from then on it survives crashes and restarts of the server.
    The tool and its arguments are checked now; nothing is stored if they do not fit. Failed
    attempts are repeated with growing waits. Follow the task with get_task_status, fetch its answer
    with get_task_result, stop it with cancel_task.
    """
    task = await new_task(
        ctx,
        tool,
        arguments,
        tags,
        queue=queue,
        priority=priority,
        delay=delay,
        timeout=timeout,
        max_attempts=max_attempts,
        retry=retry,
        deadline=deadline,
        delivery=delivery,
        idempotency_key=idempotency_key,
        fairness_key=fairness_key,
    )
    return _answer(await submit(ctx, task, wait))


@tool(
    title="Submit several tasks",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=False,
    open_world=True,
    tags=("durable", "queue", "background", "batch"),
)
async def submit_tasks(
    tasks: Annotated[
        list[Annotated[TaskRequest, WrapValidator(or_misfit)]],
        Field(min_length=1, max_length=MOST_TASKS, description="Each as submit_task takes it."),
    ],
    ctx: Context,
    wait: WaitForRoom = None,
) -> SubmittedTasks:
    """Have several tools called in the background, durably, with one commit.

    Each task is accepted or rejected on its own: one that is not well formed, whose tool is
    unknown, whose arguments do not fit or whose idempotency key belongs to other work is
    'rejected', with the reason, and the others are stored. All that are accepted are on disk,
    together, when the answer comes.
    """
    requests: Sequence[TaskRequest | InvalidArguments] = tasks
    outcomes: list[NewTask | McpdError] = []
    for request in requests:
        outcomes.append(await new_task_or_reason(ctx, request))
    good = [outcome for outcome in outcomes if isinstance(outcome, NewTask)]
    queue = await service(ctx)
    waits = for_room(ctx, wait)
    stored = iter(await queue.submit_all(good, wait=waits, waiting=ctx.waiting))
    answers: list[ItemOutcome] = []
    for index, outcome in enumerate(outcomes):
        became = next(stored) if isinstance(outcome, NewTask) else outcome
        if isinstance(became, Submitted) and became.outcome == "rejected":
            assert isinstance(outcome, NewTask)
            became = key_taken(outcome.idempotency_key, became)
        answers.append(_item(index, became))
    counts = Counter(answer["outcome"] for answer in answers)
    return {
        "created": counts["created"],
        "existing": counts["existing"],
        "rejected": counts["rejected"],
        "tasks": answers,
    }


def _item(index: int, became: Submitted | McpdError) -> ItemOutcome:
    if isinstance(became, McpdError):
        details = {**became.data, "code": became.code, "message": became.message}
        if became.hint:
            details["hint"] = became.hint
        # The others may be stored by now: what one was given must not keep the answer from them.
        text = json.dumps(details, ensure_ascii=False, default=str).encode(errors="replace")
        return {"index": index, "outcome": "rejected", "error": json.loads(text)}
    answer = _answer(became)
    return {
        "index": index,
        "outcome": answer["outcome"],
        "task_id": answer["task_id"],
        "state": answer["state"],
        "queue": answer["queue"],
        "spilled_from": answer["spilled_from"],
    }


@tool(
    title="Schedule a task",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=False,
    open_world=True,
    tags=("durable", "queue", "background", "cron", "later", "recurring"),
)
async def schedule_task(
    tool: ToolName,
    ctx: Context,
    at: Annotated[
        AwareDatetime | None,
        Field(description="ISO 8601 with a zone, such as '2027-03-01T09:00:00+01:00'."),
    ] = None,
    delay: Annotated[
        float | None, Field(ge=0, le=366 * 86_400, description="Seconds from now.")
    ] = None,
    cron: Annotated[
        str | None,
        Field(
            max_length=200,
            description="Again and again: minute hour day-of-month month day-of-week, such as "
            "'30 7 * * MON-FRI'.",
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        Field(max_length=64, description="Of `cron`, such as 'Europe/Berlin'; UTC by default."),
    ] = None,
    arguments: Arguments = None,
    queue: TaskQueueName = "default",
    priority: Priority = 0,
    timeout: Timeout = None,
    max_attempts: MaxAttempts = 3,
    retry: RetryChoice = None,
    deadline: Deadline = None,
    delivery: DeliveryChoice = "at_least_once",
    idempotency_key: IdempotencyKey = None,
    fairness_key: FairnessKey = None,
    tags: Tags = None,
    wait: WaitForRoom = None,
) -> ScheduledTask:
    """Have a tool called later, or again and again, durably. Give one of `at`, `delay` and `cron`.

    What is due while the server does not run is done when it runs again; a time in the past is due
    at once. With `cron`, each firing becomes a task of its own, exactly once; firings that were
    missed make one task together, and none is made while the one before still waits. Where clocks
    are put forward, a time that the day does not have is made up for right after; where they are
    put back, a fixed time comes once. list_tasks shows recurring schedules, cancel_task ends one.
    """
    if sum(given is not None for given in (at, delay, cron)) != 1:
        raise TaskRefused(
            "A task is scheduled by one of `at`, `delay` and `cron`.", hint="Give exactly one."
        )
    if timezone is not None and cron is None:
        raise TaskRefused("A `timezone` goes with `cron`.", hint="`at` carries its own zone.")
    if at is not None and at.timestamp() > time.time() + FARTHEST:
        # As it was given: in UTC it may be later than a date can be.
        raise TaskRefused(
            f"{at.isoformat()} is more than ten years ahead.", hint="Is the year right?"
        )
    run_at = None if at is None else at.timestamp()
    task = await new_task(
        ctx,
        tool,
        arguments,
        tags,
        queue=queue,
        priority=priority,
        delay=delay or 0.0,
        run_at=run_at,
        cron=cron,
        timezone=timezone,
        timeout=timeout,
        max_attempts=max_attempts,
        retry=retry,
        deadline=deadline,
        delivery=delivery,
        idempotency_key=idempotency_key,
        fairness_key=fairness_key,
    )
    submitted = await submit(ctx, task, wait)
    due, following = submitted.run_at, []
    if cron is not None and due is not None:
        times = cron_times.times(cron, timezone, due)
        following = [iso(due), *(iso(seconds) for seconds in islice(times, NEXT_TIMES - 1))]
    return {
        **_answer(submitted),
        "recurring": cron is not None,
        "due_at": iso(due),
        "next_times": following,
    }


@tool(
    title="Submit a task to a peer",
    category="task_queue",
    read_only=False,
    destructive=True,
    idempotent=False,
    open_world=True,
    tags=("peer", "p2p"),
)
async def submit_task_to_peer(
    peer_id: Annotated[str, Field(min_length=1, max_length=200, description="Whom to ask.")],
    tool: ToolName,
    arguments: Annotated[
        dict[str, Any] | None, Field(description="Arguments of that tool, at the peer.")
    ] = None,
    priority: Priority = 0,
    timeout: Timeout = None,
    max_attempts: MaxAttempts = 3,
    delivery: DeliveryChoice = "at_least_once",
    idempotency_key: IdempotencyKey = None,
    tags: Tags = None,
) -> SubmittedTask:
    """Have a tool called on another machine of the peer network, durably.

    It needs a peer network. None is installed on this server, so this always fails, and stores
    nothing; submit_task runs a tool on this machine.
    """
    raise NoPeers(peer_id)
