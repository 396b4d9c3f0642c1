"""``mcpd tasks watch``: following one task to its end, or all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from mcpd_core import DaemonError, McpdError
from mcpd_core.commandline import (
    FAILED,
    INTERRUPTED,
    NOT_CALLED,
    OK,
    ConnectionLost,
    Daemon,
    can_be_redrawn,
    clean,
    complain,
    data_dir_option,
    interruptible,
    write,
)
from mcpd_task_queue.records import SETTLED

from .asking import whole_id
from .overview import Overview
from .words import progress

#: The resources that are followed.
QUEUES, TASK = "tasks://queues", "tasks://tasks/"
#: Seconds after which a terminal is drawn anew although nothing has happened: times go on.
TICK = 1.0


@click.command()
@click.argument("task_id", metavar="[ID]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON at each change.")
@data_dir_option
def watch(task_id: str | None, as_json: bool, data_dir: str | None) -> int:
    """Follow a task until it has ended, or all of your tasks until Ctrl-C.

    The daemon tells of every change; nothing is asked for in between. Without a terminal, and with
    --json, each change is a line.

    The exit status says how the task has ended: 0 when it succeeded, 1 when it did not, 2 when it
    could not be followed to its end, 130 after Ctrl-C. What is followed is not stopped by leaving.
    """
    drawn = can_be_redrawn() and not as_json
    if task_id is None:
        return _watch_all(data_dir, as_json, drawn)
    try:
        status = INTERRUPTED
        with Daemon(data_dir) as daemon, interruptible() as interrupted:
            status = _watch_one(daemon, whole_id(daemon, task_id), as_json, drawn, interrupted)
        return status  # noqa: RET504 - the block is left early on Ctrl-C
    except ConnectionLost:
        complain(_ended("The task goes on, or is taken over, when the next one is started."))
    except McpdError as error:
        complain(error)
    return NOT_CALLED


# --- one task -------------------------------------------------------------------------------------


def _watch_one(
    daemon: Daemon, task_id: str, as_json: bool, drawn: bool, interrupted: Sequence[int]
) -> int:
    states = _states(daemon, task_id, TICK if drawn else None, interrupted)
    if drawn:
        from .drawing import follow

        task = follow(states)
    else:
        task = _print_lines(states, as_json)
    return OK if task["state"] == "succeeded" else FAILED


def _states(
    daemon: Daemon, task_id: str, tick: float | None, interrupted: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield a task whenever it may be other than before, until it has ended.

    :param tick: seconds after which it is yielded anyway, without having been asked for again.
    :param interrupted: is no longer empty once the user has seen enough.
    :raises ToolError: when there is no such task.
    """
    # Before it is looked at, so that no change in between is missed.
    daemon.subscribe(TASK + task_id)
    while True:
        task = daemon.call("get_task_status", {"task_id": task_id})
        while True:
            yield task
            if task["state"] in SETTLED:
                return
            if interrupted:
                # What was raised for it then has been lost on the way.
                raise KeyboardInterrupt
            if daemon.notification(tick) is not None:
                break


def _print_lines(states: Iterator[dict[str, Any]], as_json: bool) -> dict[str, Any]:
    """Print a line for each state that differs from the one before."""
    task: dict[str, Any] = {}
    said = ""
    for task in states:
        line = json.dumps(task) if as_json else _line(task)
        if line != said:
            _say(line)
        said = line
    return task


def _line(task: Mapping[str, Any]) -> str:
    done = progress(task.get("progress")) if task["state"] == "running" else ""
    # Not `why`: where that counts seconds it differs each time.
    parts = (task["state"], f"attempt {task['attempts']}", done, task["reason"])
    return "\t".join(part for part in parts if part)


def _say(line: str) -> None:
    write(clean(line).replace("\n", " "))
    # Whoever reads a pipe wants each line when it is written.
    sys.stdout.flush()


# --- all of them ----------------------------------------------------------------------------------


def _watch_all(data_dir: str | None, as_json: bool, drawn: bool) -> int:
    try:
        with Daemon(data_dir) as daemon, interruptible() as interrupted:
            overview = Overview(daemon)
            daemon.subscribe(QUEUES)
            if drawn:
                from .drawing import draw_all

                draw_all(overview, TICK, interrupted)
            else:
                _print_changes(overview, as_json, interrupted)
    except ConnectionLost as error:
        raise _ended("`mcpd tasks watch` again follows the next one.") from error
    return OK


def _print_changes(overview: Overview, as_json: bool, interrupted: Sequence[int]) -> None:
    """Print a line for each task that has changed; those that are there already come first."""
    while not interrupted:
        overview.update()
        for task in overview.changed():
            if as_json:
                _say(json.dumps(task))
            else:
                _say(f"{task['task_id']}\t{task['tool']}\t{_line(task)}")
        while not interrupted and not overview.wait(TICK):
            continue


def _ended(hint: str) -> DaemonError:
    return DaemonError("The daemon has ended, or does not answer any more.", hint=hint)
