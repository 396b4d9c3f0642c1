"""The shapes of an older server: its states, its priorities, its answers. No I/O.

That server answered every failure as ``{"success": false, "error": ...}`` and never as an error of
the protocol. The shape stays; but a failure is marked as one here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from mcpd_core import CallResult, McpdError

from .answers import iso
from .errors import TaskRefused
from .records import Snapshot, Task, TaskState

LegacyStatus = Literal["queued", "running", "completed", "failed", "cancelled"]

#: What each of the old states stands for.
STATES: dict[LegacyStatus, tuple[TaskState, ...]] = {
    "queued": ("scheduled", "ready", "paused"),
    "running": ("running",),
    "completed": ("succeeded",),
    "failed": ("failed", "dead", "uncertain"),
    "cancelled": ("cancelled",),
}
STATUSES: tuple[LegacyStatus, ...] = get_args(LegacyStatus)
_STATUS = {state: status for status, states in STATES.items() for state in states}

#: The priority of a task that was given none, there; here it is 0.
DEFAULT_PRIORITY = 1.0
#: Steps of ours in one of theirs, which were fractions.
_STEPS = 100
_LARGEST_PRIORITY = 1e6
#: The largest of our priorities, either way.
_LARGEST_STEPS = 1_000
#: Names under which the old retry policies held the number of attempts.
_ATTEMPTS = {"max_attempts": 0, "max_retries": 1}


def status_of(state: TaskState) -> LegacyStatus:
    """Return the old name of a state."""
    return _STATUS[state]


def priority_from(priority: float) -> int:
    """Return our priority for one of theirs; higher is earlier in both.

    :raises TaskRefused: when no task can have it.
    """
    steps = steps_from(priority)
    if abs(steps) > _LARGEST_STEPS:
        lowest, highest = priority_to(-_LARGEST_STEPS), priority_to(_LARGEST_STEPS)
        raise TaskRefused(f"The priority {priority} is not between {lowest:g} and {highest:g}.")
    return steps


def steps_from(priority: float) -> int:
    """Return what to compare our priorities with for one of theirs.

    :raises TaskRefused: when it is no number that could be meant.
    """
    if not abs(priority) <= _LARGEST_PRIORITY:
        raise TaskRefused(f"The priority {priority} is not between -1e6 and 1e6.")
    return round((priority - DEFAULT_PRIORITY) * _STEPS)


def priority_to(priority: int) -> float:
    """Return their priority for one of ours."""
    return priority / _STEPS + DEFAULT_PRIORITY


def attempts_in(policy: Mapping[str, Any] | None, ignored: list[str], field: str) -> int | None:
    """Return the budget of attempts that an old retry policy gives, if it does.

    :param ignored: gets the parts of the policy that have no counterpart.
    :param field: what the policy is called.
    :raises TaskRefused: when it is no number of attempts.
    """
    budget = None
    for key, value in (policy or {}).items():
        if key not in _ATTEMPTS:
            ignored.append(f"{field}.{key}")
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TaskRefused(f"{field}.{key} is not a whole number.")
        budget = value + _ATTEMPTS[key]
        if not 1 <= budget <= 100:
            # Without the value: not every whole number can be written out.
            raise TaskRefused(f"{field}.{key} does not fit: a task has 1 to 100 attempts.")
    return budget


def id_of(task: Task) -> str:
    """Return the id that the old names know a task by: the caller's own, if it chose one."""
    return task.idempotency_key or task.id


def position(snapshot: Snapshot) -> int | None:
    """Return the place among the tasks that wait for a worker, the first one being 1."""
    return None if snapshot.ahead is None else snapshot.ahead + 1


def seconds(task: Task) -> float | None:
    """Return how long the last attempt took."""
    if task.started_at is None or task.finished_at is None:
        return None
    return task.finished_at - task.started_at


def listed(task: Task) -> dict[str, Any]:
    """Describe a task as one of a list."""
    return {
        "task_id": id_of(task),
        "task_type": task.tool,
        "status": status_of(task.state),
        "priority": priority_to(task.priority),
        "tags": list(task.tags),
        "worker_id": task.worker,
        "created_at": iso(task.created_at),
        "start_time": iso(task.started_at),
        "end_time": iso(task.finished_at),
    }


def success(ignored: list[str], **payload: Any) -> CallResult:
    """Return an answer; what was asked for in vain is named in it.

    :param ignored: arguments that have no effect here.
    """
    data = {"success": True, **payload}
    if ignored:
        data["ignored"] = ignored
    return _result(data)


def failure(error: McpdError, subject: Mapping[str, Any]) -> CallResult:
    """Return a failure: the old payload, marked as an error.

    :param subject: the id that was given, if one was.
    """
    data = {"success": False, "error": str(error), **subject}
    details = {**error.data, "code": error.code, "message": error.message}
    details["retryable"] = getattr(error, "retryable", True)
    return _result(data, details)


def _result(data: dict[str, Any], error: Mapping[str, Any] | None = None) -> CallResult:
    return CallResult(json.dumps(data, ensure_ascii=False), data, error)
