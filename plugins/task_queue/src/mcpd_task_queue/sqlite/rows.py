"""How tasks are written into columns, and read back."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from mcpd_core import CallResult, Principal, Progress
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import LargeResult, Reported, Task, TaskEvent, TaskState
from mcpd_task_queue.retrying import FailedAttempt, RetryPolicy

T = TypeVar("T")

_COLUMNS = (
    "seq",
    "id",
    "tool",
    "state",
    "principal_kind",
    "principal_id",
    "principal_name",
    "client",
    "queue",
    "priority",
    "delivery",
    "repeatable",
    "timeout",
    "max_attempts",
    "attempts",
    "fence",
    "tags",
    "idempotency_key",
    "reason",
    "created_at",
    "updated_at",
    "run_at",
    "started_at",
    "finished_at",
    "progress_done",
    "progress_total",
    "progress_message",
    "progress_at",
    "cancelling",
    "releases",
    "events",
    "worker",
    "cron",
    "timezone",
    "schedule_id",
    "fairness_key",
    "lane",
    "turn",
    "ready_at",
    "size",
    "retry",
    "deadline",
    "expires_at",
    "cancelled_at",
)
#: What `task_from` reads, in its order.
COLUMNS = ", ".join(_COLUMNS)
SEQ, ID, PRIORITY, EVENTS, LANE, TURN, READY_AT = (
    _COLUMNS.index(name) for name in ("seq", "id", "priority", "events", "lane", "turn", "ready_at")
)
PRINCIPAL_KIND, PRINCIPAL_ID, QUEUE, FAIRNESS_KEY, SIZE, EXPIRES_AT = (
    _COLUMNS.index(name)
    for name in ("principal_kind", "principal_id", "queue", "fairness_key", "size", "expires_at")
)

#: Longest text kept of a reason, of an event's detail and of a progress message.
LONGEST_TEXT = 500
#: Characters from which on the text of a result is not kept when its data says the same.
LONG_TEXT = 1_000
#: Characters of JSON kept of the error of a task, and of each attempt that it had.
LARGEST_ERROR = 64 * 1024
LARGEST_PAST_ERROR = 8 * 1024

#: Stands for the error of a task, or of an attempt, that cannot be read.
_UNREADABLE = {"code": "unreadable", "message": "what is stored of the error cannot be read"}

# `json.dumps` makes an encoder for each call that wants anything but its defaults.
_encode_arguments = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode
_encode_sorted = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_encode_answer = json.JSONEncoder(separators=(",", ":")).encode


def task_from(
    row: sqlite3.Row | tuple[Any, ...],
    *,
    arguments: str | None = None,
    result: str | None = None,
    error: str | None = None,
    large: LargeResult | None = None,
    strict: bool = False,
) -> Task:
    """Read a task from a row of `COLUMNS`, and from the JSON of its payload if that was read.

    :param strict: raise where something cannot be read; otherwise that is left out, so that one
        damaged task does not hide all that are listed with it.
    :raises ValueError: and whatever else comes of JSON that is not what was written; if ``strict``.
    """
    readable = _unchecked if strict else _if_readable
    (
        _seq,
        id_,
        tool,
        state,
        principal_kind,
        principal_id,
        principal_name,
        client,
        queue,
        priority,
        delivery,
        repeatable,
        timeout,
        max_attempts,
        attempts,
        fence,
        tags,
        idempotency_key,
        reason,
        created_at,
        updated_at,
        run_at,
        started_at,
        finished_at,
        progress_done,
        progress_total,
        progress_message,
        progress_at,
        cancelling,
        releases,
        _events,
        worker,
        cron,
        timezone,
        schedule_id,
        fairness_key,
        _lane,
        _turn,
        _ready_at,
        _size,
        retry,
        deadline,
        expires_at,
        cancelled_at,
    ) = row
    return Task(
        id=id_,
        tool=tool,
        state=state,
        principal=Principal(principal_kind, principal_id, principal_name),
        client=client,
        queue=queue,
        priority=priority,
        delivery=delivery,
        repeatable=bool(repeatable),
        timeout=timeout,
        max_attempts=max_attempts,
        attempts=attempts,
        fence=fence,
        # Most have none.
        tags=() if tags == "[]" else readable(_tags_from, tags, ()),
        idempotency_key=idempotency_key,
        reason=reason,
        created_at=created_at,
        updated_at=updated_at,
        run_at=run_at,
        started_at=started_at,
        finished_at=finished_at,
        progress=(
            None
            if progress_done is None
            else Reported(
                Progress(progress_done, progress_total, progress_message),
                updated_at if progress_at is None else progress_at,
            )
        ),
        cancelling=bool(cancelling),
        releases=releases,
        worker=worker,
        cron=cron,
        timezone=timezone,
        schedule_id=schedule_id,
        fairness_key=fairness_key,
        retry=None if retry is None else readable(_retry_from, retry, None),
        deadline=deadline,
        expires_at=expires_at,
        cancelled_at=cancelled_at if state == "running" else None,
        arguments=None if arguments is None else readable(_object_from, arguments, None),
        result=None if result is None else readable(result_from, result, None),
        error=None if error is None else readable(_object_from, error, _UNREADABLE),
        large=large,
    )


def _unchecked(read: Callable[[str], T], text: str, _: T) -> T:
    return read(text)


def _if_readable(read: Callable[[str], T], text: str, otherwise: T) -> T:
    try:
        return read(text)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return otherwise


def _tags_from(text: str) -> tuple[str, ...]:
    tags = json.loads(text)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("its tags are not a list of words")
    return tuple(tags)


def _object_from(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it is not an object of JSON")
    return found


def _retry_from(text: str) -> RetryPolicy | None:
    return RetryPolicy.from_json(_object_from(text))


def event_from(row: tuple[float, str, str, int, str]) -> TaskEvent:
    """Read an event from its columns ``at, kind, state, attempt, detail``."""
    at, kind, state, attempt, detail = row
    return TaskEvent(at, kind, cast(TaskState, state), attempt, detail)


def failed_attempt_from(row: tuple[int, float, float, str, Any, str]) -> FailedAttempt:
    """Read an attempt from its columns ``n, started_at, ended_at, worker, outcome, error``."""
    n, started_at, ended_at, worker, outcome, error = row
    said = _if_readable(_object_from, error, _UNREADABLE)
    return FailedAttempt(n, started_at, ended_at, worker, outcome, said)


def retry_text(policy: RetryPolicy | None) -> str | None:
    """Write a retry policy as JSON."""
    return None if policy is None else json.dumps(policy.as_json(), separators=(",", ":"))


def arguments_text(arguments: Mapping[str, Any], limit: int) -> str:
    """Write arguments as JSON.

    :param limit: bytes of UTF-8 at most.
    :raises TaskRefused: when they are too large or not JSON.
    """
    try:
        text = _encode_arguments(arguments)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskRefused(f"The arguments cannot be stored as JSON: {error}.") from error
    if size > limit:
        raise TaskRefused(
            f"The arguments take {size:,} bytes as JSON; a task may have {limit:,}.",
            hint="Store the data elsewhere and pass a reference to it.",
        )
    return text


def digest(tool: str, arguments: Mapping[str, Any], *recurrence: str | None) -> bytes:
    """Return what two requests have in common when they ask for the same work.

    :param recurrence: the cron fields and the time zone, if there are any.
    """
    work = [tool, arguments, *(part for part in recurrence if part is not None)]
    text = _encode_sorted(work)
    return hashlib.sha256(text.encode()).digest()


def result_text(result: CallResult) -> str:
    """Write what a tool answered as JSON, in ASCII: any part of it is text, whatever it has.

    :raises TaskRefused: when it is not JSON.
    """
    answer: dict[str, Any] = {}
    try:
        if result.structured is not None:
            answer["structured"] = result.structured
        # The text of data is its JSON, almost always. That need not be kept twice; but to find out
        # takes longer than to keep a short one.
        if (
            result.structured is None
            or len(result.text) < LONG_TEXT
            or result.text != _compact(result.structured)
        ):
            answer["text"] = result.text
        if result.content:
            answer["content"] = result.content
        return _encode_answer(answer)
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskRefused(f"The result cannot be stored as JSON: {error}.") from error


def result_from(text: str) -> CallResult:
    """Read what `result_text` wrote, now or in an older version, which kept the text always."""
    stored = json.loads(text)
    structured = stored.get("structured")
    said = stored["text"] if "text" in stored else _compact(structured)
    return CallResult(said, structured, content=tuple(stored.get("content", ())))


def _compact(structured: Any) -> str:
    return json.dumps(structured, ensure_ascii=False, separators=(",", ":"))


def error_text(error: Mapping[str, Any], limit: int = LARGEST_ERROR) -> str:
    """Write a failure as JSON, its essence only when it is too large or not JSON at all.

    :param limit: characters at most.
    """
    try:
        text = json.dumps(dict(error), separators=(",", ":"))
        if len(text) <= limit:
            return text
    except (TypeError, ValueError, RecursionError):
        pass
    essence = {"code": str(error.get("code", "")), "message": str(error.get("message", ""))}
    return json.dumps({key: shorten(value, limit // 16) for key, value in essence.items()})


def shorten(text: str, limit: int = LONGEST_TEXT) -> str:
    """Cut a text that is only there to be read by people."""
    # A lone surrogate is no text that SQLite could store.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
