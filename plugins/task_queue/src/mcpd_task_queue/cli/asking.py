"""Asking the daemon about tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mcpd_core import InvalidArguments, ToolError
from mcpd_core.commandline import Daemon

#: Characters of an id that a table shows; any beginning that is unique does.
SHORT = 10
#: Of a whole id.
WHOLE = 32
#: The most that `list_tasks` answers at a time.
PAGE = 200


def tasks_of(
    daemon: Daemon, filters: Mapping[str, Any], limit: int | None
) -> Iterator[dict[str, Any]]:
    """Yield tasks, newest first.

    :param filters: arguments of `list_tasks`.
    :param limit: how many at most; ``None`` for all of them.
    """
    cursor: str | None = None
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        page = daemon.call("list_tasks", {**filters, "cursor": cursor, "limit": size})
        yield from page["tasks"]
        if limit is not None:
            limit -= len(page["tasks"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def whole_id(daemon: Daemon, given: str) -> str:
    """Return the id that begins so.

    :raises ToolError: when no task of the caller has one.
    :raises InvalidArguments: when several have.
    """
    given = given.strip().lower()
    if not given:
        raise InvalidArguments("The id of the task is empty.")
    if len(given) >= WHOLE or given.strip("0123456789abcdef"):
        return given  # the daemon says what is wrong with it
    found = [task["task_id"] for task in tasks_of(daemon, {"id_prefix": given}, 6)]
    if not found:
        raise ToolError(
            f"There is no task whose id begins with {given!r}.",
            hint="`mcpd tasks list` shows your tasks; finished ones are removed after a while.",
        )
    if len(found) > 1:
        shown = ", ".join(task_id[:16] for task_id in found[:5])
        raise InvalidArguments(
            f"Several tasks have ids that begin with {given!r}: {shown}"
            + (", ..." if len(found) > 5 else "."),
            hint="Write more of the id.",
        )
    return str(found[0])
