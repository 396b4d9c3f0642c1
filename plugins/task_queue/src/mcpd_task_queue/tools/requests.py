"""From what a client asks for to a task that can be stored."""

from __future__ import annotations

from typing import Any, cast

from pydantic import ConfigDict, ValidationError, ValidatorFunctionWrapHandler
from typing_extensions import NotRequired, TypedDict

from mcpd_core import CallRefused, Context, InvalidArguments
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.retrying import RetryPolicy

from .arguments import (
    Arguments,
    Deadline,
    Delay,
    DeliveryChoice,
    FairnessKey,
    IdempotencyKey,
    MaxAttempts,
    Priority,
    Retry,
    RetryChoice,
    Tags,
    TaskQueueName,
    Timeout,
    ToolName,
)

#: Of what is wrong with one of several tasks, this much is answered.
_MOST_PROBLEMS = 20


class TaskRequest(TypedDict):
    """One of several tasks; the fields are those of submit_task."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    tool: ToolName
    arguments: NotRequired[Arguments]
    queue: NotRequired[TaskQueueName]
    priority: NotRequired[Priority]
    delay: NotRequired[Delay]
    timeout: NotRequired[Timeout]
    max_attempts: NotRequired[MaxAttempts]
    retry: NotRequired[RetryChoice]
    deadline: NotRequired[Deadline]
    delivery: NotRequired[DeliveryChoice]
    idempotency_key: NotRequired[IdempotencyKey]
    fairness_key: NotRequired[FairnessKey]
    tags: NotRequired[Tags]


def or_misfit(item: Any, check: ValidatorFunctionWrapHandler) -> TaskRequest | InvalidArguments:
    """Check one of several tasks; return what is wrong with it rather than raise it."""
    try:
        return cast(TaskRequest, check(item))
    except ValidationError as error:
        problems = [
            {"argument": ".".join(map(str, found["loc"]))[:80], "problem": found["msg"]}
            for found in error.errors(include_url=False, include_context=False, include_input=False)
        ][:_MOST_PROBLEMS]
        listed = "; ".join(
            f"{p['argument']}: {p['problem']}" if p["argument"] else p["problem"] for p in problems
        )
        return InvalidArguments(
            f"The task is not well formed: {listed}.",
            hint=f"A task has {', '.join(TaskRequest.__annotations__)}.",
            data={"problems": problems},
        )


async def new_task(
    ctx: Context,
    tool: str,
    arguments: dict[str, Any] | None,
    tags: list[str] | None,
    retry: Retry | None = None,
    **options: Any,
) -> NewTask:
    """Make a task of a request, if its tool and arguments can be called.

    :raises CallRefused: as the call itself would be refused.
    """
    given = arguments or {}
    spec = await ctx.check(tool, given)
    return NewTask(
        tool=spec.name,
        arguments=given,
        principal=ctx.principal,
        client=ctx.client,
        repeatable=spec.annotations.safe_to_repeat,
        tags=tuple(tags or ()),
        retry=None if retry is None else RetryPolicy.from_json(retry),
        **options,
    )


async def new_task_or_reason(
    ctx: Context, request: TaskRequest | InvalidArguments
) -> NewTask | CallRefused:
    """Make a task of one of several requests, or return why it is none."""
    if isinstance(request, InvalidArguments):
        return request
    options: dict[str, Any] = dict(request)
    tool, arguments = options.pop("tool"), options.pop("arguments", None)
    try:
        return await new_task(ctx, tool, arguments, options.pop("tags", None), **options)
    except CallRefused as refused:
        return refused
