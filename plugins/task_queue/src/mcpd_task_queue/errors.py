"""The errors of the task queue. All are `ToolError`, since they reach clients through its tools."""

from __future__ import annotations

from mcpd_core import ToolError


class UnknownTask(ToolError):
    """Raised when the asking principal has no task of that id.

    Another principal's task and no task at all are told apart by nobody.
    """

    code = "unknown_task"

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"There is no task {task_id[:80]!r}.",
            hint="list_tasks shows your tasks; finished ones are removed after a while.",
            retryable=False,
        )


class TaskRefused(ToolError):
    """Raised when a task cannot be accepted as it was asked for; nothing was changed."""

    code = "task_refused"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, retryable=False)


class StoreError(ToolError):
    """Base of the failures of a task store; what was being done has not been done."""

    code = "store_failed"


class StoreClosed(StoreError):
    """Raised when a store is used after it was closed, or when it closes before it got to it."""

    code = "store_closed"


class StoreFull(StoreError):
    """Raised when the disk, or the database's own limit, has no room for a change."""

    code = "store_full"


class StoreBroken(StoreError):
    """Raised for every change after the disk failed a write: what is on it is no longer known.

    Only opening the store anew, which replays its log, can tell.
    """

    code = "store_broken"


class StoreUnusable(StoreError):
    """Raised when a store cannot be opened: locked, made by a newer version, not a store at all."""

    code = "store_unusable"
