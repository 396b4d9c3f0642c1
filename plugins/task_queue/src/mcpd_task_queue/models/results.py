"""What a task came to."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from mcpd_task_queue.records import TaskState

from .tasks import FailedAttemptReport


class LargeAnswer(TypedDict):
    """A result that is too large for an answer."""

    size: Annotated[
        int, Field(description="How many characters its JSON text has; they are as many bytes.")
    ]
    mime_type: str
    sha256: Annotated[str, Field(description="Of that text.")]
    how: Annotated[str, Field(description="How to get it.")]


class PartOfResult(TypedDict):
    """A part of the JSON text of a result."""

    text: str
    offset: Annotated[int, Field(description="Where it begins, in characters.")]
    next_offset: Annotated[
        int | None, Field(description="Pass it as `offset` for the next part; null at the end.")
    ]
    size: Annotated[int, Field(description="How many characters the whole text has.")]
    sha256: Annotated[str, Field(description="Of the whole text.")]


class TaskResult(TypedDict):
    """The result of a task, or how far it is."""

    task_id: str
    tool: str
    state: TaskState
    ready: Annotated[
        bool,
        Field(description="Whether the task has ended; when false, ask again with a wait."),
    ]
    text: NotRequired[
        Annotated[str, Field(description="What the tool answered, when that was plain text.")]
    ]
    structured: NotRequired[
        Annotated[dict[str, Any], Field(description="What the tool answered, when that was data.")]
    ]
    content: NotRequired[
        Annotated[
            list[dict[str, Any]],
            Field(description="What it answered besides, as content blocks: images, for example."),
        ]
    ]
    large: NotRequired[
        Annotated[LargeAnswer, Field(description="In place of a result that is too large.")]
    ]
    part: NotRequired[
        Annotated[PartOfResult, Field(description="What `offset` asked for, and no more.")]
    ]
    error: NotRequired[Annotated[dict[str, Any], Field(description="How the last attempt failed.")]]
    failed_attempts: NotRequired[
        Annotated[
            list[FailedAttemptReport],
            Field(description="If it did not succeed: how each attempt ended, oldest first."),
        ]
    ]
    why: Annotated[str, Field(description="Why there is no result, in words; else empty.")]
