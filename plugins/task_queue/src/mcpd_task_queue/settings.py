"""The ``[task_queue]`` section of ``mcpd.toml``."""

# Annotations are not postponed here: pydantic would read each of them from its text, which takes a
# quarter of the time of the import.
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .limits import Bound, Limit, Limits, Overflow
from .records import TaskState

Retention = Annotated[float, Field(ge=0, le=3_650 * 86_400)]
#: Seconds for which dead tasks are kept at least, unless the settings name another number: they
#: wait for somebody who looks.
DEAD_RETENTION = 30 * 86_400.0


class LimitSettings(BaseModel):
    """How tasks are started, of all principals together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: Annotated[
        int | None, Field(ge=1, le=1_000, description="How many run at the same time; any number.")
    ] = None
    rate: Annotated[
        float | None,
        Field(gt=0, le=1_000_000, description="How many start per `per` seconds; any number."),
    ] = None
    per: Annotated[float, Field(gt=0, le=366 * 86_400, description="Seconds.")] = 1.0
    burst: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="How many may start at once after a while in which none did.",
        ),
    ] = 1

    def limit(self) -> Limit | None:
        """Return the limit, if there is one."""
        if self.concurrency is None and self.rate is None:
            return None
        return Limit(self.concurrency, self.rate, self.per, self.burst)


QueueName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,64}$")]
MostTasks = Annotated[
    int, Field(ge=1, le=100_000_000, description="How many tasks may wait in a queue.")
]
MostBytes = Annotated[
    int,
    Field(ge=1, le=2**50, description="How many bytes of arguments may wait in a queue."),
]
OnOverflow = Annotated[
    Overflow,
    Field(
        description="What becomes of a task for which there is no room. 'reject': the submitter is "
        "told. 'block': the submitter waits for room, if it likes. 'spill': it goes to `spill_to`.",
    ),
]
SpillTo = Annotated[QueueName | None, Field(description="The queue that takes over.")]


class QueueSettings(LimitSettings):
    """What holds for one queue; it is one for all principals who name it."""

    most_tasks: MostTasks | None = None
    most_bytes: MostBytes | None = None
    overflow: OnOverflow | None = None
    spill_to: SpillTo = None


class RetentionOf(BaseModel):
    """How long tasks are kept that ended in a certain state, in seconds. An uncertain task has not
    ended: it is kept until a person has resolved it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    succeeded: Retention | None = None
    failed: Retention | None = None
    cancelled: Retention | None = None
    dead: Annotated[
        Retention | None, Field(description="By default 30 days, or `retention` if that is longer.")
    ] = None


class TaskQueueSettings(BaseModel):
    """How the task queue works. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: Annotated[
        int, Field(ge=1, le=1_000, description="How many tasks run at the same time.")
    ] = 4
    registered_slots: Annotated[
        int,
        Field(
            ge=0,
            le=1_000,
            description="How many tasks the workers that clients register may run at the same "
            "time, all together and besides those of `workers`. What the server runs at all at "
            "the same time is limited by `workers` of [executor].",
        ),
    ] = 12
    lease: Annotated[
        float,
        Field(
            ge=1,
            le=86_400,
            description="How long a task stays with a worker that shows no sign of life. Live "
            "workers renew it three times as often, however long the task runs.",
        ),
    ] = 30.0
    retention: Annotated[
        float,
        Field(
            ge=0,
            le=3_650 * 86_400,
            description="How long a task and its result are kept after it has ended.",
        ),
    ] = 7 * 86_400.0
    retention_of: Annotated[
        RetentionOf, Field(description="The same for tasks that ended in a certain state.")
    ] = RetentionOf()
    log_lines: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="How many of the last lines are kept that the tool of a task has logged.",
        ),
    ] = 200
    largest_arguments: Annotated[
        int,
        Field(
            ge=1_024,
            le=64 * 1024 * 1024,
            description="How many bytes of JSON the arguments of one task may take.",
        ),
    ] = 1024 * 1024
    largest_log: Annotated[
        int,
        Field(
            ge=8 * 1024 * 1024,
            le=1 << 40,
            description="How many bytes the write-ahead log may have before new tasks are refused. "
            "It gets there only while another program keeps a transaction of the database open.",
        ),
    ] = 256 * 1024 * 1024
    largest_result: Annotated[
        int,
        Field(
            ge=1_024,
            le=1024 * 1024 * 1024,
            description="How many bytes of JSON the result of one task may take; with a larger one "
            "it fails.",
        ),
    ] = 64 * 1024 * 1024
    inline_result: Annotated[
        int,
        Field(
            ge=0,
            le=1024 * 1024,
            description="How many of them are kept in the database. Larger results are files in "
            "the folder `blobs` beside it.",
        ),
    ] = 64 * 1024
    first_retry: Annotated[
        float,
        Field(
            gt=0,
            le=86_400,
            description="Longest wait before the second attempt; it doubles with each further one.",
        ),
    ] = 2.0
    longest_retry: Annotated[
        float, Field(gt=0, le=86_400, description="Longest wait before any attempt.")
    ] = 300.0
    cancel_grace: Annotated[
        float,
        Field(
            ge=0,
            le=3_600,
            description="How long the tool of a cancelled task may clean up before its process is "
            "killed. Nothing can kill a tool in a thread or on a loop.",
        ),
    ] = 10.0
    ageing: Annotated[
        float,
        Field(
            ge=0,
            le=365 * 86_400,
            description="How many seconds of waiting are worth a step of priority. 0: none; a task "
            "then waits for as long as there is one of a higher priority.",
        ),
    ] = 300.0
    most_tasks: MostTasks = 1_000_000
    most_bytes: MostBytes = 1024 * 1024 * 1024
    overflow: OnOverflow = "reject"
    spill_to: SpillTo = None
    queues: Annotated[
        dict[QueueName, QueueSettings],
        Field(description="What holds for single queues, by name."),
    ] = {}
    tools: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], LimitSettings],
        Field(description="What holds for tasks that call certain tools, by name."),
    ] = {}
    durability: Annotated[
        Literal["full", "normal"],
        Field(
            description="'full': what was acknowledged survives a power cut. 'normal': it survives "
            "the death of the process only."
        ),
    ] = "full"

    @property
    def has_rates(self) -> bool:
        """Whether there is a limit that time opens."""
        named = (*self.queues.values(), *self.tools.values())
        return any(settings.rate is not None for settings in named)

    def limits(self) -> Limits:
        """Return what holds tasks back."""
        return Limits(
            _limits(self.queues),
            _limits(self.tools),
            bound=Bound(self.most_tasks, self.most_bytes, self.overflow, self.spill_to),
            bounds={name: self._bound(queue) for name, queue in self.queues.items()},
        )

    def _bound(self, queue: QueueSettings) -> Bound:
        return Bound(
            queue.most_tasks or self.most_tasks,
            queue.most_bytes or self.most_bytes,
            queue.overflow or self.overflow,
            queue.spill_to or self.spill_to,
        )

    @model_validator(mode="after")
    def _spills_somewhere(self) -> "TaskQueueSettings":
        if self.overflow == "spill" and self.spill_to is None:
            raise ValueError('`overflow = "spill"` needs `spill_to`, the queue that takes over')
        for name, queue in self.queues.items():
            bound = self._bound(queue)
            if queue.overflow == "spill" and bound.spill_to in (None, name):
                raise ValueError(f"the queue {name!r} needs `spill_to`, another queue to spill to")
        return self

    @property
    def retention_of_states(self) -> dict[TaskState, float]:
        """How long tasks are kept that ended in a state, for each such state."""
        of = self.retention_of
        dead = max(self.retention, DEAD_RETENTION) if of.dead is None else of.dead
        return {
            "succeeded": self.retention if of.succeeded is None else of.succeeded,
            "failed": self.retention if of.failed is None else of.failed,
            "cancelled": self.retention if of.cancelled is None else of.cancelled,
            "dead": dead,
        }


def _limits(settings: Mapping[str, LimitSettings]) -> dict[str, Limit]:
    limits = {name: setting.limit() for name, setting in settings.items()}
    return {name: limit for name, limit in limits.items() if limit is not None}
