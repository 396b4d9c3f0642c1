"""What the tools of the older server share: the queue, the arguments, the shape of a failure."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field

from mcpd_core import CallResult, McpdError, tool
from mcpd_task_queue import legacy

#: That server had one queue, without a name.
QUEUE = "default"

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]
Free = Annotated[dict[str, Any] | None, Field(description="No counterpart here: ignored.")]
Reason = Annotated[str | None, Field(max_length=400)]
Tool = TypeVar("Tool", bound=Callable[..., Awaitable[CallResult]])

#: Characters of an id that is no id which a failure repeats.
_LONGEST_ID = 200


def legacy_tool(*subject: str, **options: Any) -> Callable[[Tool], Tool]:
    """Mark a tool of the older server, of which clients are not told.

    It answers failures in the old shape, arguments that do not fit among them.

    :param subject: the arguments that say what it is about; a failure repeats them.
    :param options: those of `tool`.
    """

    def failure(error: McpdError, arguments: Mapping[str, Any]) -> CallResult:
        ids = {name: arguments.get(name) for name in subject}
        return legacy.failure(
            error,
            {
                # What UTF-8 cannot carry is no part of an id either.
                name: id_[:_LONGEST_ID].encode(errors="replace").decode()
                for name, id_ in ids.items()
                if isinstance(id_, str)
            },
        )

    def wrap(function: Tool) -> Tool:
        @functools.wraps(function)
        async def wrapped(**arguments: Any) -> CallResult:
            try:
                return await function(**arguments)
            except McpdError as error:
                return failure(error, arguments)

        mark = tool(category="task_queue", listed=False, on_misfit=failure, **options)
        return cast(Tool, mark(wrapped))

    return wrap


def given(**arguments: Any) -> list[str]:
    """Return the names of those arguments that were given a value."""
    return [name for name, value in arguments.items() if value]
