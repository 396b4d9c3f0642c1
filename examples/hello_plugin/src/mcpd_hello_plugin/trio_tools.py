"""The tools of the plugin ``hello-trio``."""

from __future__ import annotations

from typing import Annotated

import trio
from pydantic import Field

from mcpd_core import CallRefused, Context, ToolError, tool


@tool(category="hello", read_only=True, idempotent=True, open_world=False)
async def hello_race(
    seconds: Annotated[
        list[Annotated[float, Field(ge=0, le=60)]],
        Field(description="How long each runner takes.", min_length=1, max_length=100),
    ],
    ctx: Context,
) -> list[int]:
    """Let runners race and answer their numbers in the order they finished in."""
    finished: list[int] = []

    async def run(number: int, duration: float) -> None:
        await trio.sleep(duration)
        finished.append(number)
        ctx.progress(len(finished), len(seconds), f"runner {number} is in")

    # Code of a trio plugin may use all of trio.
    async with trio.open_nursery() as nursery:
        for number, duration in enumerate(seconds):
            nursery.start_soon(run, number, duration)
    return finished


@tool(category="hello", read_only=True, idempotent=True, open_world=False)
async def hello_greet_all(
    names: Annotated[list[str], Field(description="Whom to greet.", min_length=1)],
    ctx: Context,
) -> list[str]:
    """Greet several people at once, with the tool hello_greet of the plugin hello."""
    greetings = [""] * len(names)
    failures: list[str] = []

    async def greet(index: int) -> None:
        # That tool is written for asyncio; the call crosses over, and is checked like any call.
        try:
            result = await ctx.call("hello_greet", {"name": names[index]})
        except CallRefused as refused:
            failures.append(f"{names[index]!r}: {refused}")
            return
        if result.is_error:
            failures.append(f"{names[index]!r}: {result.text}")
        greetings[index] = result.text

    async with trio.open_nursery() as nursery:
        for index in range(len(names)):
            nursery.start_soon(greet, index)
    if failures:
        raise ToolError("Not everybody could be greeted. " + " ".join(sorted(failures)))
    return greetings
