"""The workers of this daemon."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from .shared import Counts, Time


class WorkerReport(TypedDict):
    """One worker of this daemon."""

    worker_id: str
    kind: Annotated[
        Literal["built-in", "registered"],
        Field(description="'built-in': takes any task. 'registered': takes some of yours."),
    ]
    state: Annotated[
        Literal["idle", "active", "busy"],
        Field(description="'idle': runs nothing. 'busy': has no free slot. 'active': between."),
    ]
    queues: Annotated[list[str] | None, Field(description="Those it serves; null: all of them.")]
    capabilities: Annotated[
        list[str],
        Field(description="It takes tasks with one of these as tool or tag; empty: any."),
    ]
    max_concurrent_tasks: int
    running: Annotated[int, Field(description="How many tasks it runs now, anybody's.")]
    tasks: Annotated[list[str], Field(description="Ids of those of them that are yours.")]
    counts: Annotated[
        Counts, Field(description="Your tasks that it started last, as far as they are kept.")
    ]
    registered_at: Time | None


class Workers(TypedDict):
    """The workers of this daemon that take your tasks."""

    workers: list[WorkerReport]


class RegisteredWorker(TypedDict):
    """A worker that was registered."""

    worker_id: str
    queues: list[str]
    capabilities: list[str]
    max_concurrent_tasks: int
    registered_at: Time


class UnregisteredWorker(TypedDict):
    """A worker that is no more."""

    worker_id: str
    finished: Annotated[int, Field(description="Tasks that it ran, and that ended meanwhile.")]
    still_running: Annotated[int, Field(description="Tasks that it is going to finish.")]
    interrupted: Annotated[
        int,
        Field(description="Tasks that were interrupted, to be run again or to become 'uncertain'."),
    ]
