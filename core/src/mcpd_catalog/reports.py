"""What a client is told of one call of a batch, and how much of it there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from mcpd_core import Answer, Busy, CallCancelled, CallResult, NotStarted

#: Bytes for what is around the reports in an answer.
_ENVELOPE = 100

Status = Literal["ok", "failed", "refused", "cancelled", "not_started"]


class Report(TypedDict):
    """What became of one call."""

    tool: str
    status: Status
    structured: NotRequired[
        Annotated[dict[str, Any], Field(description="Its structured answer, if it has one.")]
    ]
    text: NotRequired[Annotated[str, Field(description="Its answer, when that is text.")]]
    error: NotRequired[
        Annotated[dict[str, Any], Field(description="Why it did not succeed: code, message, hint.")]
    ]
    omitted_bytes: NotRequired[
        Annotated[
            int,
            Field(
                description="The answer was left out, because all together would have been too "
                "large; it has this size. The tool has run: call it alone only if that is safe."
            ),
        ]
    ]


def report(tool: str, answer: Answer) -> Report:
    """Return what a client is told."""
    if not isinstance(answer, CallResult):
        error: dict[str, Any] = {"code": answer.code, "message": answer.message}
        if answer.hint:
            error["hint"] = answer.hint
        if isinstance(answer, Busy):
            error["retry_after"] = answer.retry_after
        return {"tool": tool, "status": _status_without_result(answer), "error": error}
    told: Report = {"tool": tool, "status": "ok"}
    if answer.error is not None:
        told["status"] = "failed"
        told["error"] = dict(answer.error)
    # The text of a structured answer, and of a failure, says the same once more.
    if answer.structured is not None:
        told["structured"] = answer.structured
    elif answer.error is None:
        told["text"] = answer.text
    return told


def _status_without_result(answer: Exception) -> Status:
    if isinstance(answer, NotStarted):
        return "not_started"
    return "cancelled" if isinstance(answer, CallCancelled) else "refused"


def fit(reports: Sequence[Report], limit: int) -> list[Report]:
    """Leave out the answers that there is no room for, so that the others arrive.

    :param limit: bytes of all reports together, as JSON. Each call is reported whatever it is.
    """
    bare = [_without_answer(each) for each in reports]
    room = limit - _ENVELOPE - sum(map(_size, bare))
    fitting = []
    for whole, short in zip(reports, bare, strict=True):
        more = _size(whole) - _size(short)
        if more <= room:
            room -= max(0, more)
            fitting.append(whole)
        else:
            fitting.append(short)
    return fitting


def _without_answer(whole: Report) -> Report:
    return {"tool": whole["tool"], "status": whole["status"], "omitted_bytes": _size(whole)}


def _size(item: Report) -> int:
    # And the comma behind it.
    return len(pydantic_core.to_json(item, inf_nan_mode="null")) + 1
