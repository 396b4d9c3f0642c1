"""``mcpd tasks list``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from mcpd_core.commandline import (
    Daemon,
    data_dir_option,
    json_option,
    note,
    table,
    write_json,
)
from mcpd_task_queue.records import STATES

from .asking import SHORT, tasks_of, whole_id
from .words import age, tries

#: A heading, and what stands below it for a task.
Column = tuple[str, Callable[[dict[str, Any]], str]]
F = TypeVar("F", bound=Callable[..., Any])

#: As many as `list_tasks` lists by itself.
_LIMIT = 50


def filter_options(command: F) -> F:
    """Add the options that say which tasks are meant; `filters` makes arguments of them."""
    for option in reversed(
        (
            click.option("--state", type=click.Choice(STATES), help="Only tasks in this state."),
            click.option("--queue", metavar="QUEUE", help="Only tasks of this queue."),
            click.option("--tool", metavar="TOOL", help="Only tasks that call this tool."),
            click.option("--tag", metavar="TAG", help="Only tasks with this tag."),
        )
    ):
        command = option(command)
    return command


@click.command("list")
@filter_options
@click.option(
    "--recurring/--no-recurring",
    default=None,
    help="Only tasks that recur, that is, schedules; or none of them.",
)
@click.option("--schedule", metavar="ID", help="Only tasks that this recurring one has made.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=_LIMIT,
    show_default=True,
    help="How many at most, the newest first.",
)
@click.option("--all", "every", is_flag=True, help="All of them, however many.")
@data_dir_option
@json_option
def list_(
    state: str | None,
    queue: str | None,
    tool: str | None,
    tag: str | None,
    recurring: bool | None,
    schedule: str | None,
    limit: int,
    every: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """List your tasks, newest first. All filters that are given must fit."""
    with Daemon(data_dir) as daemon:
        filters = {
            "state": state,
            "queue": queue,
            "tool": tool,
            "tag": tag,
            "recurring": recurring,
            "schedule_id": None if schedule is None else whole_id(daemon, schedule),
        }
        # One more than is shown tells whether there are more.
        found = list(tasks_of(daemon, filters, None if every else limit + 1))
    shown = found if every else found[:limit]
    if as_json:
        write_json(shown)
    else:
        print_tasks(shown)
    if not shown and not as_json:
        note("There is no task." if not any(filters.values()) else "No task fits.")
    if len(found) > len(shown):
        note(f"... and more: the newest {limit} are shown; --limit N or --all shows more.")


def print_tasks(tasks: Sequence[dict[str, Any]], columns: Sequence[Column] = ()) -> None:
    """Print a table of tasks; nothing when there are none. Whole ids where no terminal is.

    :param columns: what to say of each behind its id.
    """
    if not tasks:
        return
    columns = columns or _LIST
    terminal = sys.stdout.isatty()
    table(
        ("task", *(heading for heading, _ in columns)),
        [
            (
                task["task_id"][:SHORT] if terminal else task["task_id"],
                *(write(task) for _, write in columns),
            )
            for task in tasks
        ],
        one_line=True,
    )


_LIST: tuple[Column, ...] = (
    ("state", lambda task: task["state"]),
    ("tool", lambda task: task["tool"]),
    ("queue", lambda task: task["queue"]),
    ("tries", tries),
    ("age", lambda task: age(task["created_at"])),
    ("why", lambda task: task["reason"]),
)
