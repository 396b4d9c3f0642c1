"""The arguments that several tools share, and the way to the service."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import ConfigDict, Field
from typing_extensions import NotRequired, TypedDict

from mcpd_core import Context
from mcpd_task_queue.queue import TaskQueue
from mcpd_task_queue.records import Delivery

#: Longest `wait` of `get_task_result`, and the longest timeout of one attempt, in seconds.
LONGEST_WAIT = 600
LONGEST_TIMEOUT = 7 * 86_400
#: Longest wait between two attempts, in seconds.
LONGEST_BACKOFF = 7 * 86_400
#: What is waited for up to the very deadline of the call would be lost with it.
MARGIN = 1.0

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,64}$")]
TaskId = Annotated[
    str, Field(min_length=1, max_length=64, description="As submit_task answered it.")
]
Queue = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,64}$", description="Name of the queue.")]

ToolName = Annotated[str, Field(max_length=64, description="Name of the tool to call.")]
Arguments = Annotated[
    dict[str, Any] | None,
    Field(description="Arguments of that tool; checked now, against its schema."),
]
TaskQueueName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_.:/-]{1,64}$",
        description="A name to group tasks by, for lists, statistics, pauses and workers.",
    ),
]
Priority = Annotated[
    int,
    Field(
        ge=-1000,
        le=1000,
        description="Higher runs first; waiting makes up for it. Equal ones run round robin, one "
        "of each client.",
    ),
]
Delay = Annotated[float, Field(ge=0, le=366 * 86_400, description="Seconds before it may start.")]
Timeout = Annotated[
    float | None,
    Field(
        gt=0,
        le=LONGEST_TIMEOUT,
        description="Seconds that one attempt may take; by default what the tool allows.",
    ),
]
MaxAttempts = Annotated[
    int, Field(ge=1, le=100, description="How often it may be started, if attempts fail.")
]
DeliveryChoice = Annotated[
    Delivery,
    Field(
        description="'at_least_once' may start it again after a crash (only if the tool is "
        "idempotent or read-only; else the task becomes 'uncertain'). 'at_most_once' starts it "
        "a single time, whatever happens."
    ),
]
Deadline = Annotated[
    float | None,
    Field(
        gt=0,
        le=366 * 86_400,
        description="Seconds that all attempts together have, from when it is first due; after "
        "them it is not started or tried again.",
    ),
]


class Retry(TypedDict):
    """How attempts follow each other."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    first: NotRequired[
        Annotated[
            float,
            Field(ge=0, le=LONGEST_BACKOFF, description="Seconds before the second attempt."),
        ]
    ]
    longest: NotRequired[
        Annotated[
            float,
            Field(ge=0, le=LONGEST_BACKOFF, description="Longest wait before any, in seconds."),
        ]
    ]
    multiplier: NotRequired[
        Annotated[float, Field(ge=1, le=100, description="Each further wait is longer by this.")]
    ]
    jitter: NotRequired[
        Annotated[float, Field(ge=0, le=1, description="The part of each wait that is random.")]
    ]
    never_on: NotRequired[
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=100)]],
            Field(max_length=50, description="Codes of errors after which none is made any more."),
        ]
    ]


RetryChoice = Annotated[
    Retry | None,
    Field(
        description="How failed attempts are repeated, where the settings of the server are not "
        "right: by default the wait doubles each time, and half of it is random."
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[\x20-\x7e]+$",
        description="Submitting again with the key of an existing task, and the same tool and "
        "arguments, makes no new task and answers the existing one.",
    ),
]
FairnessKey = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=64,
        pattern=r"^[\x20-\x7e]+$",
        description="Tasks of one priority are started round robin, one of each key; by default "
        "the key is the connection that submitted them.",
    ),
]
WaitForRoom = Annotated[
    float | None,
    Field(
        ge=0,
        le=LONGEST_WAIT,
        description="Seconds to wait for room in a queue that has submitters wait when it is full; "
        "by default for as long as this call may take.",
    ),
]
Tags = Annotated[list[Name] | None, Field(max_length=16, description="Words to list tasks by.")]


async def service(ctx: Context) -> TaskQueue:
    """Return the service; these tools run where it does."""
    return cast(TaskQueue, await ctx.service("task_queue"))


def for_room(ctx: Context, wait: float | None) -> float:
    """Return how long a submit waits for room."""
    return within(ctx, LONGEST_WAIT if wait is None else wait)


def within(ctx: Context, wait: float) -> float:
    """Return how long a call may wait so that it still answers before its deadline."""
    remaining = ctx.remaining()
    return wait if remaining is None else min(wait, max(0.0, remaining - MARGIN))
