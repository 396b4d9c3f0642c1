"""What a client is told of one call of a batch, and how much of it there is room for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import pydantic_core
from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from mcpd_core import Answer, Busy, CallCancelled, CallResult, NotStarted

#: Bytes for what is around the reports in an answer.
_ENVELOPE = 100

#: Of these, what is around a single report, but for the comma behind it.
_AROUND = len('{"results":[]}') - 1

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


class Measured(NamedTuple):
    """A report, and how many bytes it is as JSON, the comma behind it included."""

    report: Report
    size: int


def measured(tool: str, answer: Answer) -> Measured:
    """Return what a client is told, and how large that is.

    It takes milliseconds for a large answer. Used for each answer as it comes, it leaves the loop
    time for others in between.
    """
    told = report(tool, answer)
    try:
        return Measured(told, _size(told))
    except ValueError:
        # There is a limit to the depth of JSON, and it is deeper inside of ours.
        assert isinstance(answer, CallResult)
        told.pop("structured", None)
        told["text"] = answer.text
        return Measured(told, _size(told))


def least_bytes(tools: Iterable[str]) -> int:
    """Return how many bytes an answer takes, at most, that reports the calls of some tools and
    leaves out what they answer."""
    return _ENVELOPE + sum(
        _size(_without_answer(tool, "not_started", sys.maxsize)) for tool in tools
    )


def fit(reports: Sequence[Measured], limit: int) -> list[Report]:
    """Leave out the answers that there is no room for, so that the others arrive.

    :param limit: bytes of all reports together, as JSON, not less than `least_bytes`.
    """
    bare = [_without_answer(each["tool"], each["status"], size) for each, size in reports]
    sizes = [_size(each) for each in bare]
    room = limit - _ENVELOPE - sum(sizes)
    fitting = []
    for whole, short, least in zip(reports, bare, sizes, strict=True):
        more = whole.size - least
        if more <= room:
            room -= max(0, more)
            fitting.append(whole.report)
        else:
            fitting.append(short)
    return fitting


def _without_answer(tool: str, status: Status, size: int) -> Report:
    return {"tool": tool, "status": status, "omitted_bytes": size}


def _size(item: Report) -> int:
    # Where it will be: what is too deep there is to be found out here.
    return len(pydantic_core.to_json({"results": [item]}, inf_nan_mode="null")) - _AROUND
