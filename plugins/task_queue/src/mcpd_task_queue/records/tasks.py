"""A task: what is submitted, and what is stored of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from mcpd_core import CallResult, Principal, Progress
from mcpd_task_queue.retrying import RetryPolicy

#: ``scheduled`` waits for a time, ``ready`` for a worker, ``paused`` for its queue to be resumed.
#: ``succeeded``, ``failed`` (no use trying again), ``cancelled`` and ``dead`` (every allowed
#: attempt failed, or its deadline passed) are final. ``uncertain`` was interrupted at a point where
#: repeating it might do the work twice: it waits for a person.
TaskState = Literal[
    "scheduled",
    "ready",
    "paused",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "dead",
    "uncertain",
]
#: ``at_least_once`` may start a task again after an interruption, ``at_most_once`` never does.
Delivery = Literal["at_least_once", "at_most_once"]

STATES: tuple[TaskState, ...] = get_args(TaskState)
#: A task in one of these never changes again, unless a person has it retried.
FINAL: frozenset[TaskState] = frozenset({"succeeded", "failed", "cancelled", "dead"})
#: A task in one of these has not been started, or is to be started again.
WAITING: frozenset[TaskState] = frozenset({"scheduled", "ready", "paused"})
#: A person may have a task in one of these tried anew.
RETRYABLE: frozenset[TaskState] = frozenset({"failed", "cancelled", "dead", "uncertain"})
#: A task in one of these is not going to run by itself: nobody need wait for it.
SETTLED: frozenset[TaskState] = FINAL | {"uncertain"}


class NewTask(NamedTuple):
    """A tool call to be made later.

    :ivar arguments: JSON-compatible.
    :ivar principal: on whose behalf it runs, and who alone can see it.
    :ivar client: which connection submitted it.
    :ivar priority: higher runs first; see `store.TaskStore.claim` for the order.
    :ivar delay: seconds before it may start.
    :ivar run_at: seconds since the epoch before which it may not start; goes before ``delay``.
    :ivar cron: five fields that say when it is to be made into a task, again and again. A task
        with them never runs itself: it stays ``scheduled`` until it is cancelled.
    :ivar timezone: of the cron fields, as the IANA names it.
    :ivar timeout: seconds one attempt may take; ``None`` leaves it to the tool and the host.
    :ivar max_attempts: how often it may be started; 1 for ``at_most_once``, whatever this says.
    :ivar retry: how attempts follow each other; ``None`` leaves it to the settings.
    :ivar deadline: seconds that all attempts together have, from when it is first due; of a
        recurring task, each task that it is made into.
    :ivar repeatable: whether an interrupted call may be made again without asking anybody.
    :ivar idempotency_key: a second submit with the key of an existing task makes no new one.
    :ivar fairness_key: tasks of one priority are started round robin, one of each key of each
        principal; ``None`` stands for the client.
    """

    tool: str
    arguments: Mapping[str, Any]
    principal: Principal
    client: str = ""
    queue: str = "default"
    priority: int = 0
    delay: float = 0.0
    timeout: float | None = None
    max_attempts: int = 3
    delivery: Delivery = "at_least_once"
    repeatable: bool = False
    idempotency_key: str | None = None
    tags: tuple[str, ...] = ()
    run_at: float | None = None
    cron: str | None = None
    timezone: str | None = None
    fairness_key: str | None = None
    retry: RetryPolicy | None = None
    deadline: float | None = None


class Task(NamedTuple):
    """One task as it is stored. Times are seconds since the epoch.

    :ivar reason: why it is in its state, in words; empty when that goes without saying.
    :ivar attempts: how often it was started.
    :ivar fence: grows with each start; a completion must name the fence of the start it is for.
    :ivar run_at: when it is due, while ``scheduled``.
    :ivar cancelling: it is running, and is to be cancelled.
    :ivar cancelled_at: when it was asked to be cancelled, while it is running.
    :ivar worker: who started it last; ``None`` before the first start.
    :ivar cron: the fields of a recurring task, which never runs itself.
    :ivar schedule_id: the recurring task that this one was made by.
    :ivar deadline: seconds that all attempts together have; ``None`` without a limit.
    :ivar expires_at: when they are over; after that it is not started.
    :ivar arguments: ``None`` when they were not asked for.
    :ivar result: what the tool answered, when it was asked for and the task has succeeded.
    :ivar large: the result, when it was asked for and is larger than was asked for.
    :ivar error: how the last attempt failed, when it was asked for.
    """

    id: str
    tool: str
    state: TaskState
    principal: Principal
    client: str
    queue: str
    priority: int
    delivery: Delivery
    repeatable: bool
    timeout: float | None
    max_attempts: int
    attempts: int
    fence: int
    tags: tuple[str, ...]
    idempotency_key: str | None
    reason: str
    created_at: float
    updated_at: float
    run_at: float | None
    started_at: float | None
    finished_at: float | None
    progress: Reported | None
    cancelling: bool
    releases: int = 0
    worker: str | None = None
    cron: str | None = None
    timezone: str | None = None
    schedule_id: str | None = None
    fairness_key: str = ""
    retry: RetryPolicy | None = None
    deadline: float | None = None
    expires_at: float | None = None
    cancelled_at: float | None = None
    arguments: Mapping[str, Any] | None = None
    result: CallResult | None = None
    error: Mapping[str, Any] | None = None
    large: LargeResult | None = None


class Reported(NamedTuple):
    """Progress of a task, and when it was reported."""

    progress: Progress
    at: float


class LargeResult(NamedTuple):
    """A result that is left where it is; `TaskStore.read_result` gives parts of it.

    It is the JSON text of an object in ASCII: its ``structured``, or else its ``text``, is what the
    tool answered, and ``content`` are the further blocks of the answer, if there are any.

    :ivar size: characters of that text, which are as many bytes.
    :ivar sha256: of that text, in hexadecimal digits.
    """

    size: int
    sha256: str
