"""What the tools of the older server share: the queue, the arguments, the shape of a failure."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field

from mcpd_core import CallResult, McpdError
from mcpd_task_queue import legacy

#: That server had one queue, without a name.
QUEUE = "default"

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]
Free = Annotated[dict[str, Any] | None, Field(description="No counterpart here: ignored.")]
Reason = Annotated[str | None, Field(max_length=400)]
Tool = TypeVar("Tool", bound=Callable[..., Awaitable[CallResult]])


def answering(*subject: str) -> Callable[[Tool], Tool]:
    """Have a tool answer failures in the old shape, with the ids that it was given."""

    def wrap(function: Tool) -> Tool:
        @functools.wraps(function)
        async def wrapped(**arguments: Any) -> CallResult:
            try:
                return await function(**arguments)
            except McpdError as error:
                return legacy.failure(error, {name: arguments[name] for name in subject})

        return cast(Tool, wrapped)

    return wrap


def given(**arguments: Any) -> list[str]:
    """Return the names of those arguments that were given a value."""
    return [name for name, value in arguments.items() if value]
