"""`run_tools`: several calls in one request."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from mcpd_core import Answer, Context, ToolCall, ToolError, tool

from .reports import Measured, Report, fit, least_bytes, measured

#: Calls in one request.
MOST_CALLS = 100
#: Seconds for all of them.
LONGEST = 600.0


class Item(BaseModel):
    """One call."""

    model_config = ConfigDict(extra="forbid")

    tool: Annotated[str, Field(min_length=1, max_length=64, description="Name of the tool.")]
    arguments: Annotated[dict[str, Any], Field(description="Its arguments.")] = {}
    timeout: Annotated[
        float | None,
        Field(
            gt=0,
            description="Seconds it may take, waiting included. By default what the tool says.",
        ),
    ] = None


class Reports(BaseModel):
    """What became of the calls, in the order in which they were given."""

    results: list[Report]
    succeeded: Annotated[int, Field(description="How many of them have the status 'ok'.")]


@tool(
    title="Run several tools",
    category="catalog",
    timeout=LONGEST,
    # It does whatever the tools do that it is given.
    destructive=True,
    open_world=True,
    tags=("batch", "parallel"),
)
async def run_tools(
    calls: Annotated[
        list[Item],
        Field(min_length=1, max_length=MOST_CALLS, description="What to call, in this order."),
    ],
    ctx: Context,
    parallel: Annotated[
        StrictBool | Annotated[int, Field(ge=1)],
        Field(
            description="true: as many at once as the server allows. false: one after the other. "
            "A number: at most so many at once."
        ),
    ] = True,
    stop_on_error: Annotated[
        bool,
        Field(
            description="Whether to cancel what runs, and to start nothing more, after the first "
            "call that does not succeed."
        ),
    ] = False,
) -> Reports:
    """Call several tools in one request and get all their results, in the order of the calls.

    Use it for calls that do not need each other's results. Each result has a status: 'ok';
    'failed' (the tool reported an error); 'refused' (it did not start, see the error);
    'cancelled' (it was stopped while it ran); 'not_started' (the batch ended before its turn).
    run_tools cannot run itself.
    """
    if ctx.tool in ctx.callers:
        raise ToolError(
            f"{ctx.tool} was called from within {ctx.tool}, which it refuses at any depth.",
            hint="Put all the calls into one request: they run at the same time anyway.",
            retryable=False,
        )
    if least_bytes(item.tool for item in calls) > ctx.max_result_bytes:
        raise ToolError(
            f"What becomes of {len(calls)} calls does not fit into the {ctx.max_result_bytes} "
            "bytes that an answer may have. None was made.",
            hint="Ask for fewer calls at a time.",
            retryable=False,
        )
    told: dict[int, Measured] = {}

    def tell(index: int, answer: Answer) -> None:
        tool = calls[index].tool
        told[index] = measured(tool, answer)
        ctx.progress(len(told), len(calls), f"{tool}: {told[index].report['status']}")

    answers = await ctx.call_many(
        [ToolCall(item.tool, item.arguments, item.timeout) for item in calls],
        # A bool is an int: True would be a limit of one.
        limit=None if parallel is True else int(parallel) or 1,
        mode="first_error" if stop_on_error else "collect",
        timeout=_time_for_calls(ctx.remaining()),
        on_answer=tell,
    )
    for index, answer in enumerate(answers):
        if index not in told:
            told[index] = measured(calls[index].tool, answer)
    results = fit([told[index] for index in range(len(calls))], ctx.max_result_bytes)
    return Reports(results=results, succeeded=sum(each["status"] == "ok" for each in results))


def _time_for_calls(remaining: float | None) -> float | None:
    """Leave some time for cleaning up and for the answer: at its own deadline the tool would be
    cancelled, and what its calls have answered would be lost."""
    return None if remaining is None else remaining - min(1.0, remaining / 10)
