"""Tasks as JSON lines: one object for each, with everything that is stored about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from .answers import event, failed_attempt, iso, log_entry
from .records import Exported, Filter, Snapshot, TaskState

#: Bytes of arguments and results that an answer may be asked to have.
MOST = 16 * 1024 * 1024


class ExportRequest(BaseModel):
    """Which tasks to export, and how many of them at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cursor: str | None = None
    state: TaskState | None = None
    queue: str | None = None
    tool: str | None = None
    tag: str | None = None
    recurring: bool | None = None
    schedule_id: str | None = None
    everybody: bool = False
    max_bytes: Annotated[int, Field(ge=1, le=MOST)] = 1024 * 1024

    @property
    def wanted(self) -> Filter:
        """The filter."""
        return Filter(
            self.state,
            self.queue,
            self.tool,
            self.tag,
            recurring=self.recurring,
            schedule_id=self.schedule_id,
        )


def lines_of(page: Exported) -> list[str]:
    """Write a page as lines of JSON, in ASCII and without the newlines."""
    return [
        json.dumps(line_of(snapshot, page.problems.get(snapshot.task.id)), separators=(",", ":"))
        for snapshot in page.snapshots
    ]


def line_of(snapshot: Snapshot, problem: str | None = None) -> dict[str, Any]:
    """Describe a task with everything that is stored about it.

    :param problem: why its result could not be read.
    """
    task = snapshot.task
    who = task.principal
    progress = task.progress
    line = {
        "task_id": task.id,
        "tool": task.tool,
        "state": task.state,
        "reason": task.reason,
        "principal": {"kind": who.kind, "id": who.id, "name": who.name},
        "client": task.client,
        "queue": task.queue,
        "priority": task.priority,
        "fairness_key": task.fairness_key,
        "delivery": task.delivery,
        "repeatable": task.repeatable,
        "timeout": task.timeout,
        "max_attempts": task.max_attempts,
        "retry": None if task.retry is None else task.retry.as_json(),
        "deadline": task.deadline,
        "expires_at": iso(task.expires_at),
        "attempts": task.attempts,
        "tags": list(task.tags),
        "idempotency_key": task.idempotency_key,
        "created_at": iso(task.created_at),
        "updated_at": iso(task.updated_at),
        "due_at": iso(task.run_at),
        "started_at": iso(task.started_at),
        "finished_at": iso(task.finished_at),
        "progress": None
        if progress is None
        else {**asdict(progress.progress), "at": iso(progress.at)},
        "worker": task.worker,
        "cron": task.cron,
        "timezone": task.timezone,
        "schedule_id": task.schedule_id,
        "arguments": task.arguments,
        "result": _result(snapshot),
        "error": task.error,
        "failed_attempts": [failed_attempt(failure) for failure in snapshot.failures],
        "cancelled_at": iso(task.cancelled_at),
        "events": [event(step) for step in snapshot.events],
        "logs": [log_entry(line) for line in snapshot.logs],
        "logged": snapshot.logged,
    }
    return line if problem is None else {**line, "result_problem": problem}


def _result(snapshot: Snapshot) -> dict[str, Any] | None:
    result = snapshot.task.result
    if result is None:
        return None
    answer: dict[str, Any] = (
        {"text": result.text} if result.structured is None else {"structured": result.structured}
    )
    return {**answer, "content": list(result.content)} if result.content else answer
