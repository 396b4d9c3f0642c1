"""The task queue as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from mcpd_task_queue.records import Delivery

from .shared import Counts, Time


class Load(TypedDict):
    """How full a queue is with everybody's tasks, and what its bounds and limits are."""

    waiting_tasks: int
    most_tasks: int | None
    waiting_bytes: Annotated[int, Field(description="Of their arguments.")]
    most_bytes: int | None
    overflow: Annotated[
        Literal["reject", "block", "spill"],
        Field(description="What becomes of a task for which there is no room."),
    ]
    spill_to: str | None
    running: Annotated[int | None, Field(description="Null when it has no limit.")]
    concurrency: Annotated[int | None, Field(description="How many may run at the same time.")]
    rate: Annotated[float | None, Field(description="How many start per `per` seconds.")]
    per: float | None
    burst: int | None


class QueueCounts(TypedDict):
    """The tasks of one queue."""

    queue: str
    counts: Annotated[Counts, Field(description="Your tasks.")]
    load: Annotated[
        Load | None, Field(description="With the tasks of all who have a queue of that name.")
    ]


class PausedQueue(TypedDict):
    """A queue of which nothing is started."""

    queue: str
    since: Time
    reason: str


class Lately(TypedDict):
    """What tasks of late were like."""

    ended: Annotated[int, Field(description="How many ended that had been started.")]
    average_wait: Annotated[
        float | None, Field(description="Seconds from submit to the start of the last attempt.")
    ]
    average_run: Annotated[float | None, Field(description="Seconds that the last attempt took.")]


class Engine(TypedDict):
    """What the engine that keeps the tasks can do."""

    engine: str
    delivery: list[Delivery]
    fsync: Annotated[
        Literal["commit", "interval", "never"],
        Field(
            description="What an acknowledged task survives. 'commit': a power cut. 'interval': "
            "the death of the server; a power cut may take the last seconds. 'never': neither."
        ),
    ]
    priority: bool
    delay: bool
    recurring: bool
    dedup_window: Annotated[
        float | None,
        Field(
            description="Seconds for which an idempotency key is known; null: for as long as its "
            "task is kept."
        ),
    ]
    payload_limit: Annotated[
        int | None, Field(description="Bytes of JSON that a task's arguments may take.")
    ]
    result_limit: Annotated[
        int | None, Field(description="Bytes of JSON that a task's result may take.")
    ]
    transactional_graph_advance: Annotated[
        bool,
        Field(
            description="Whether completing a task and releasing those that depend on it is one "
            "transaction."
        ),
    ]
    backup: Annotated[bool, Field(description="Whether it can be copied while it is in use.")]


class Stats(TypedDict):
    """The state of the task queue, as far as it concerns the caller."""

    workers: Annotated[int, Field(description="How many tasks can run at the same time.")]
    busy: Annotated[int, Field(description="How many run now, anybody's.")]
    healthy: bool
    detail: str
    counts: Annotated[Counts, Field(description="Your tasks, of all queues together.")]
    queues: Annotated[list[QueueCounts], Field(description="Your tasks, by queue.")]
    paused: Annotated[list[PausedQueue], Field(description="Your paused queues.")]
    last_hour: Annotated[Lately, Field(description="Your tasks that ended in the last hour.")]
    engine: Engine
    metrics: Annotated[
        dict[str, Any] | None,
        Field(
            description="For the owner of the server, of everybody's tasks since its start, in "
            "seconds and bytes. Null for others."
        ),
    ]
