"""``mcpd tasks show``: everything about one task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import click

from mcpd_core import CallRefused, ToolError
from mcpd_core.commandline import (
    Daemon,
    clean,
    data_dir_option,
    json_option,
    table,
    write,
    write_json,
)

from .asking import whole_id
from .words import age, clock, data, moment, progress

#: What a client of the handshake era is told where there is no resource.
_NOT_FOUND = -32002


@click.command()
@click.argument("task_id", metavar="ID")
@data_dir_option
@json_option
def show(task_id: str, data_dir: str | None, as_json: bool) -> None:
    """Show everything about a task: why it is in its state, its result, its history.

    ID may be the beginning of the id, if no other task has it.
    """
    with Daemon(data_dir) as daemon:
        task = look_up(daemon, whole_id(daemon, task_id))
    if as_json:
        write_json(task)
        return
    for line in described(task):
        write(clean(line))
    if task["failed_attempts"]:
        write("\nfailed attempts:")
        table(
            ("attempt", "started", "took", "outcome", "error"),
            [
                (
                    str(failed["attempt"]),
                    clock(failed["started_at"]),
                    age(failed["started_at"], moment(failed["ended_at"])),
                    failed["outcome"],
                    str(failed["error"].get("message", "")),
                )
                for failed in task["failed_attempts"]
            ],
        )
    if task.get("logs"):
        write("\nlog:")
        for entry in task["logs"]:
            write(clean(f"{clock(entry['at'])}  {entry['level']:<8}{entry['message']}"))
    if task["events"]:
        write("\nevents:")
        table(
            ("at", "what", "state", "attempt", "detail"),
            [
                (
                    clock(event["at"]),
                    event["kind"],
                    event["state"],
                    str(event["attempt"] or "-"),
                    event["detail"],
                )
                for event in task["events"]
            ],
        )


def look_up(daemon: Daemon, task_id: str) -> dict[str, Any]:
    """Return everything the daemon tells of a task.

    :raises ToolError: when the caller has no task of that id.
    """
    try:
        task: dict[str, Any] = json.loads(daemon.read(f"tasks://tasks/{quote(task_id, safe='')}"))
    except CallRefused as refused:
        if refused.data.get("jsonrpc_code") != _NOT_FOUND:
            raise
        raise ToolError(
            f"There is no task {task_id[:80]!r}.",
            hint="`mcpd tasks list` shows your tasks; finished ones are removed after a while.",
        ) from None
    return task


def described(task: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that say what the task is and how it is, without its history."""
    why = f": {task['why']}" if task["why"] else ""
    due = clock(task["due_at"])
    facts = {
        "task": task["task_id"],
        "tool": task["tool"],
        "state": f"{task['state']}{why}",
        "position": "" if task["position"] is None else str(task["position"]),
        "progress": progress(task["progress"]),
        "queue": f"{task['queue']}, priority {task['priority']}",
        "tags": ", ".join(task["tags"]),
        "attempts": "" if task["cron"] else f"{task['attempts']} of {task['max_attempts']}",
        "delivery": task["delivery"].replace("_", " "),
        "recurs": f"{task['cron']} ({task['timezone'] or 'UTC'})" if task["cron"] else "",
        "made by": task["schedule_id"] or "",
        "created": _when(task["created_at"]),
        "due": due,
        "deadline": clock(task["deadline_at"]),
        "started": _when(task["started_at"]),
        "finished": _when(task["finished_at"]),
        "worker": task["worker"] or "",
        "arguments": data(task["arguments"]) if task["arguments"] is not None else "(large)",
    }
    for label, value in facts.items():
        if value:
            yield from _block(label, value)
    if "large" in task:
        yield from _block(
            "result",
            f"{task['large']['size']:,} bytes; `mcpd tools call get_task_result "
            f"task_id={task['task_id']} offset=0` has it in parts",
        )
    if "structured" in task:
        yield from _block("result", data(task["structured"]))
    elif "text" in task:
        yield from _block("result", task["text"])
    if "error" in task:
        error = dict(task["error"])
        yield from _block("error", str(error.pop("message", "")))
        if error:
            yield from _block("", data(error))


def _when(stamp: str | None) -> str:
    return f"{clock(stamp)} ({age(stamp)} ago)" if stamp else ""


def _block(label: str, text: str) -> Iterator[str]:
    """Yield a text of one line beside its label, a longer one below it."""
    lines = text.splitlines() or [""]
    heading = f"{label}:" if label else ""
    if len(lines) == 1:
        yield f"{heading:<11}{lines[0]}"
        return
    if heading:
        yield heading
    yield from (f"  {line}" for line in lines)
