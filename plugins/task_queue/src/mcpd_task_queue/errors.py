"""The errors of the task queue. All are `ToolError`, since they reach clients through its tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcpd_core import ToolError

if TYPE_CHECKING:
    from .records import Full


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


class UnknownWorker(ToolError):
    """Raised when the asking principal has registered no worker of that name."""

    code = "unknown_worker"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"You have registered no worker {name[:80]!r}.",
            hint="get_worker_status shows your workers.",
            retryable=False,
        )


class NoPeers(ToolError):
    """Raised when a task is for a peer and there is no network of peers; nothing was stored."""

    code = "peers_unavailable"

    def __init__(self, peer: str) -> None:
        super().__init__(
            f"The task was not submitted to the peer {peer[:80]!r}: no peer network is installed "
            "on this server. Nothing was stored.",
            hint="submit_task runs it on this machine.",
            retryable=False,
        )


class TaskRefused(ToolError):
    """Raised when a task cannot be accepted as it was asked for; nothing was changed."""

    code = "task_refused"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retryable=retryable, data=data)


class QueueFull(TaskRefused):
    """Raised when a queue has no room for a task; nothing was stored.

    :param full: what is full.
    :param retry_after: seconds after which there may be room; ``None`` when nobody can tell.
    """

    code = "queue_full"

    def __init__(self, full: Full, retry_after: float | None) -> None:
        waiting = (
            f"{full.tasks:,} of {full.most:,} tasks wait in it"
            if full.limit == "tasks"
            else f"what waits in it has {full.bytes:,} bytes of arguments, and it takes "
            f"{full.most:,}; this task has {full.wanted:,}"
        )
        also = f" The queue {full.spilled_to!r}, which takes over, is full too." * bool(
            full.spilled_to
        )
        hint = "Submit it again later."
        if not full.ever:
            hint = "It never fits in there; pass less, or a reference, or use another queue."
        elif retry_after is not None:
            hint = f"Submit it again in {retry_after:.0f} s."
        super().__init__(
            f"The queue {full.queue!r} is full: {waiting}.{also} Nothing was stored.",
            hint=hint,
            retryable=full.ever,
            data={
                "queue": full.queue,
                "limit": full.limit,
                "most": full.most,
                "waiting_tasks": full.tasks,
                "waiting_bytes": full.bytes,
                "overflow": full.overflow,
                "spill_to": full.spilled_to,
                "retry_after": retry_after,
            },
        )


class Draining(TaskRefused):
    """Raised when a task was to wait for room in its queue and the server stops; nothing was
    stored.
    """

    code = "shutting_down"

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"The queue {queue!r} is full, and the server is shutting down: nobody waits for room "
            "any more. Nothing was stored.",
            hint="Submit it again when the server is back.",
            retryable=True,
            data={"queue": queue},
        )


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


class LookUpTooSlow(StoreError):
    """Raised when a look-up took too long and was given up."""

    code = "look_up_too_slow"

    def __init__(self, limit: float) -> None:
        super().__init__(
            f"The look-up was given up after {limit:g} s, so that it holds nothing else up.",
            hint="Ask for less: a smaller page, or fewer tasks by a filter.",
        )


class BackupFailed(StoreError):
    """Raised when a backup was not made; nothing of it is left."""

    code = "backup_failed"


class StoreUnusable(StoreError):
    """Raised when a store cannot be opened: locked, made by a newer version, not a store at all."""

    code = "store_unusable"


class BlobDamaged(StoreError):
    """Raised when the file of a large result is not there, or has other contents than it had."""

    code = "result_damaged"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"The file {path}, which has a task's result, is damaged: {problem}.",
            hint="Restore this one file from a backup; its name is the SHA-256 of its contents. "
            "Or have the tool called again by a new task.",
            retryable=False,
        )
