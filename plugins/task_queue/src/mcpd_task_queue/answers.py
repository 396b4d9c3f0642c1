"""From records to what the tools answer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, overload

from mcpd_core import Health

from .capabilities import Capabilities
from .metrics import Metric, to_json
from .models.results import LargeAnswer, PartOfResult, TaskResult
from .models.shared import Counts
from .models.statistics import Engine, Load, PausedQueue, Stats
from .models.tasks import (
    Event,
    FailedAttemptReport,
    LogEntry,
    ProgressReport,
    TaskStatus,
    TaskSummary,
)
from .models.workers import WorkerReport
from .records import (
    SETTLED,
    Activity,
    Hold,
    LargeResult,
    LogLine,
    Pause,
    QueueLoad,
    QueueStats,
    Reported,
    ResultPart,
    Snapshot,
    Task,
    TaskEvent,
    TaskState,
)
from .retrying import FailedAttempt

if TYPE_CHECKING:
    from .slots import Employed


@overload
def iso(seconds: float) -> str: ...


@overload
def iso(seconds: None) -> None: ...


@overload
def iso(seconds: float | None) -> str | None: ...


def iso(seconds: float | None) -> str | None:
    """Write a time as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def summary(task: Task) -> TaskSummary:
    """Describe a task in short."""
    return {
        "task_id": task.id,
        "tool": task.tool,
        "queue": task.queue,
        "state": task.state,
        "priority": task.priority,
        "tags": list(task.tags),
        "attempts": task.attempts,
        "max_attempts": task.max_attempts,
        "created_at": iso(task.created_at),
        "updated_at": iso(task.updated_at),
        "cron": task.cron,
        "timezone": task.timezone,
        "schedule_id": task.schedule_id,
        "reason": task.reason,
    }


def status(
    snapshot: Snapshot, latest: Reported | None, workers: int, holding: str = ""
) -> TaskStatus:
    """Describe a task at length.

    :param latest: its progress, where that is newer than what is stored.
    :param holding: what keeps it running although it is to be cancelled.
    """
    task = snapshot.task
    return {
        **summary(task),
        "why": why(snapshot, workers, holding),
        "position": None if snapshot.ahead is None else snapshot.ahead + 1,
        "delivery": task.delivery,
        "progress": _progress(latest or task.progress),
        "due_at": iso(task.run_at),
        "started_at": iso(task.started_at),
        "finished_at": iso(task.finished_at),
        "deadline_at": iso(task.expires_at),
        "cancelling": None
        if task.cancelled_at is None
        else {"since": iso(task.cancelled_at), "why": holding or "it runs elsewhere"},
        "worker": task.worker,
        "failed_attempts": [failed_attempt(failure) for failure in snapshot.failures],
        "events": [event(step) for step in snapshot.events],
        "logs": [log_entry(line) for line in snapshot.logs],
        "logged": snapshot.logged,
    }


def event(step: TaskEvent) -> Event:
    """Describe a step in the life of a task."""
    return {
        "at": iso(step.at),
        "kind": step.kind,
        "state": step.state,
        "attempt": step.attempt,
        "detail": step.detail,
    }


def failed_attempt(failure: FailedAttempt) -> FailedAttemptReport:
    """Describe an attempt without success."""
    return {
        "attempt": failure.n,
        "started_at": iso(failure.started_at),
        "ended_at": iso(failure.ended_at),
        "worker": failure.worker,
        "outcome": failure.outcome,
        "error": dict(failure.error),
    }


def _progress(reported: Reported | None) -> ProgressReport | None:
    if reported is None:
        return None
    progress, at = reported
    return {
        "done": progress.done,
        "total": progress.total,
        "message": progress.message,
        "at": iso(at),
    }


def log_entry(line: LogLine) -> LogEntry:
    """Describe a line that a tool has logged."""
    return {
        "at": iso(line.at),
        "level": line.level,
        "message": line.message,
        "attempt": line.attempt,
    }


def why(snapshot: Snapshot, workers: int, holding: str = "") -> str:
    """Say why a task waits, or why it is in its state; empty when it has succeeded.

    :param holding: what keeps it running although it is to be cancelled.
    """
    task = snapshot.task
    if task.state == "scheduled":
        seconds = max(0.0, (task.run_at or 0.0) - time.time())
        if task.cron is not None:
            return f"recurs; next in {seconds:.0f} s, at {iso(task.run_at)}"
        if task.releases:
            return f"waits: {task.reason}; looked at again in {seconds:.0f} s"
        if task.attempts:
            return (
                f"attempt {task.attempts} of {task.max_attempts} failed; the next one is in "
                f"{seconds:.0f} s: {task.reason}"
            )
        return f"due in {seconds:.0f} s: {task.reason}"
    if task.state == "ready":
        ahead = snapshot.ahead or 0
        place = "it is next" if ahead == 0 else f"{ahead} ahead of it"
        cause = ", and ".join(map(_hold, snapshot.holds)) or f"waits for one of {workers} workers"
        return f"{cause}; {place}" + (f" ({task.reason})" if task.reason else "")
    if task.state == "paused":
        pause = snapshot.pause
        since = f" since {iso(pause.since)}" if pause else ""
        return f"its queue {task.queue!r} is paused{since}" + (
            f": {pause.reason}" if pause and pause.reason else ""
        )
    if task.state == "running":
        doing = "is being cancelled" if task.cancelling else "runs"
        held = f": {holding}" if task.cancelling and holding else ""
        return f"{doing}, attempt {task.attempts} of {task.max_attempts}{held}"
    if task.state == "dead":
        return f"not tried again after {task.attempts} of {task.max_attempts} attempts: " + (
            task.reason
        )
    return task.reason


def _hold(hold: Hold) -> str:
    limited = f"its queue {hold.name!r}" if hold.kind == "queue" else f"the tool {hold.name!r}"
    if hold.opens_in is not None:
        return f"the rate limit of {limited} opens in {hold.opens_in:.1f} s"
    return f"{limited} runs its {hold.running} of {hold.most}"


def result(
    snapshot: Snapshot, workers: int, limit: int, part: ResultPart | None = None
) -> TaskResult:
    """Describe how a task ended, or that it has not.

    :param limit: bytes that the answer may have; a result that does not fit is described only.
    :param part: of the result, in place of the whole.
    """
    answer = _ended(snapshot, workers)
    task = snapshot.task
    if part is not None:
        answer["part"] = _part(part)
        return answer
    whole = task.result
    if whole is None:
        if task.large is not None:
            answer["large"] = _large(task.large, limit)
        elif task.error is not None:
            answer["error"] = dict(task.error)
        if snapshot.failures and task.large is None:
            answer["failed_attempts"] = [failed_attempt(failure) for failure in snapshot.failures]
        return answer
    # Not both: the text of data is its JSON, and an answer has a size limit.
    if whole.structured is not None:
        answer["structured"] = whole.structured
    else:
        answer["text"] = whole.text
    if whole.content:
        answer["content"] = list(whole.content)
    return answer


def too_large(answer: TaskResult, limit: int) -> bool:
    """Whether a client cannot be given an answer."""
    return len(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()) > limit


def _large(large: LargeResult, limit: int) -> LargeAnswer:
    return {
        "size": large.size,
        "mime_type": "application/json",
        "sha256": large.sha256,
        "how": f"It does not fit into an answer, which may have {limit:,} bytes. Call "
        "get_task_result with offset=0, then with each next_offset, and join the parts: they are "
        "the JSON of an object with `structured`, or else with `text`.",
    }


def _part(part: ResultPart) -> PartOfResult:
    end = part.offset + len(part.text)
    return {
        "text": part.text,
        "offset": part.offset,
        "next_offset": end if end < part.whole.size else None,
        "size": part.whole.size,
        "sha256": part.whole.sha256,
    }


def _ended(snapshot: Snapshot, workers: int) -> TaskResult:
    task = snapshot.task
    return {
        "task_id": task.id,
        "tool": task.tool,
        "state": task.state,
        "ready": task.state in SETTLED,
        "why": why(snapshot, workers),
    }


def stats(
    queues: Sequence[QueueStats],
    load: Mapping[str, Any],
    health: Health,
    pauses: Sequence[Pause],
    activity: Activity,
    capabilities: Capabilities,
    metrics: Sequence[Metric] | None,
) -> Stats:
    """Describe the queue."""
    return {
        "workers": load["workers"],
        "busy": load["busy"],
        "healthy": health.ok,
        "detail": health.detail,
        "counts": counts_of(together(queues)),
        "queues": [
            {"queue": q.queue, "counts": counts_of(q.counts), "load": _load(q.load)} for q in queues
        ],
        "paused": [pause(one) for one in pauses],
        "last_hour": {
            "ended": activity.ended,
            "average_wait": activity.wait,
            "average_run": activity.run,
        },
        "engine": engine(capabilities),
        "metrics": None if metrics is None else to_json(metrics),
    }


def _load(load: QueueLoad | None) -> Load | None:
    if load is None:
        return None
    bound, limit = load.bound, load.limit
    return {
        "waiting_tasks": load.tasks,
        "most_tasks": bound.most_tasks,
        "waiting_bytes": load.bytes,
        "most_bytes": bound.most_bytes,
        "overflow": bound.overflow,
        "spill_to": bound.spill_to if bound.overflow == "spill" else None,
        "running": load.running,
        "concurrency": None if limit is None else limit.concurrency,
        "rate": None if limit is None else limit.rate,
        "per": None if limit is None or limit.rate is None else limit.per,
        "burst": None if limit is None or limit.rate is None else limit.burst,
    }


def pause(paused: Pause) -> PausedQueue:
    """Describe the pause of a queue."""
    return {"queue": paused.queue, "since": iso(paused.since), "reason": paused.reason}


def engine(capabilities: Capabilities) -> Engine:
    """Describe what the engine can do."""
    return {
        "engine": capabilities.engine,
        "delivery": list(capabilities.delivery),
        "fsync": capabilities.fsync,
        "priority": capabilities.priority,
        "delay": capabilities.delay,
        "recurring": capabilities.recurring,
        "dedup_window": capabilities.dedup_window,
        "payload_limit": capabilities.payload_limit,
        "result_limit": capabilities.result_limit,
        "transactional_graph_advance": capabilities.transactional_graph_advance,
        "backup": capabilities.backup,
    }


def together(queues: Sequence[QueueStats]) -> dict[TaskState, int]:
    """Count the tasks of several queues by state."""
    total: dict[TaskState, int] = {}
    for queue in queues:
        for state, count in queue.counts.items():
            total[state] = total.get(state, 0) + count
    return total


def counts_of(counts: Mapping[TaskState, int]) -> Counts:
    """Say how many are in each state, none left out."""
    return {
        "scheduled": counts.get("scheduled", 0),
        "ready": counts.get("ready", 0),
        "paused": counts.get("paused", 0),
        "running": counts.get("running", 0),
        "succeeded": counts.get("succeeded", 0),
        "failed": counts.get("failed", 0),
        "cancelled": counts.get("cancelled", 0),
        "dead": counts.get("dead", 0),
        "uncertain": counts.get("uncertain", 0),
    }


def worker(employed: Employed) -> WorkerReport:
    """Describe a worker."""
    kept = employed.worker
    state: Literal["idle", "active", "busy"] = "active"
    if not employed.busy:
        state = "idle"
    elif employed.busy >= employed.slots:
        state = "busy"
    return {
        "worker_id": employed.name,
        "kind": "built-in" if kept is None else "registered",
        "state": state,
        "queues": None if kept is None else list(kept.queues),
        "capabilities": [] if kept is None else list(kept.capabilities),
        "max_concurrent_tasks": employed.slots,
        "running": employed.busy,
        "tasks": list(employed.tasks),
        "counts": counts_of(employed.counts),
        "registered_at": None if kept is None else iso(kept.registered_at),
    }
