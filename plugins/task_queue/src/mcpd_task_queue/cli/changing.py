"""``mcpd tasks cancel|retry|dead|resolve``: changing tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from mcpd_core import McpdError
from mcpd_core.commandline import (
    FAILED,
    OK,
    ConnectionLost,
    Daemon,
    complain,
    confirm,
    data_dir_option,
    json_option,
    note,
    write,
    write_json,
)

from .asking import PAGE, tasks_of, whole_id
from .listing import Column, print_tasks
from .words import age, tries

#: What is done to one task: asks the daemon, and returns what it answers.
Change = Callable[[Daemon, str], Mapping[str, Any]]

_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_queue_option = click.option("--queue", metavar="QUEUE", help="Only tasks of this queue.")
_tool_option = click.option("--tool", metavar="TOOL", help="Only tasks that call this tool.")


@click.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@data_dir_option
@json_option
def cancel(task_ids: tuple[str, ...], data_dir: str | None, as_json: bool) -> int:
    """Cancel tasks, whether they wait or run; end recurring ones.

    The exit status is 1 when one of them had ended already, or is not there; the others are
    cancelled all the same.
    """

    def one(daemon: Daemon, task_id: str) -> Mapping[str, Any]:
        return daemon.call("cancel_task", {"task_id": task_id})

    with Daemon(data_dir) as daemon:
        status, done = _each(daemon, task_ids, one)
    if as_json:
        write_json(done)
    for answer in () if as_json else done:
        write(f"{answer['task_id']}\t{answer['outcome']}")
    for answer in done:
        if answer["outcome"] == "settled":
            note(f"{answer['task_id'][:10]}: too late, it is {answer['state']}.")
            status = FAILED
    return status


@click.command()
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@click.option("--dead", "all_dead", is_flag=True, help="All dead tasks, instead of named ones.")
@_queue_option
@_tool_option
@_yes_option
@data_dir_option
@json_option
def retry(
    task_ids: tuple[str, ...],
    all_dead: bool,
    queue: str | None,
    tool: str | None,
    yes: bool,
    data_dir: str | None,
    as_json: bool,
) -> int:
    """Have tasks tried anew that failed, are dead, were cancelled or are uncertain.

    They keep their ids and their history. You are asked before all dead tasks, or uncertain ones,
    which may do their work twice, are tried anew. The exit status is 1 when one cannot be.
    """
    if bool(task_ids) is all_dead:
        raise click.UsageError("Name the tasks, or say --dead.")
    if task_ids and (queue or tool):
        raise click.UsageError("--queue and --tool go with --dead.")
    with Daemon(data_dir) as daemon:
        if all_dead:
            return _retry_dead(daemon, {"queue": queue, "tool": tool}, yes, as_json)
        ids, status = [], OK
        for given in task_ids:
            try:
                ids.append(whole_id(daemon, given))
            except ConnectionLost:
                raise
            except McpdError as error:
                complain(error)
                status = FAILED
        uncertain = [task_id for task_id in ids if _state(daemon, task_id) == "uncertain"]
        if uncertain and not confirm(
            f"{_counted(len(uncertain))} uncertain and may do the work twice. Try anew?", yes=yes
        ):
            return FAILED
        return max(status, _retry(daemon, ids, as_json))


@click.command()
@_queue_option
@_tool_option
@click.option("--limit", type=click.IntRange(min=1), help="How many at most. Default: all.")
@click.option("--retry-all", is_flag=True, help="Have all of them tried anew, after asking.")
@_yes_option
@data_dir_option
@json_option
def dead(
    queue: str | None,
    tool: str | None,
    limit: int | None,
    retry_all: bool,
    yes: bool,
    data_dir: str | None,
    as_json: bool,
) -> int:
    """List dead tasks, all of whose attempts failed, with how they failed last."""
    filters = {"queue": queue, "tool": tool}
    with Daemon(data_dir) as daemon:
        if retry_all:
            return _retry_dead(daemon, filters, yes, as_json)
        found = list(tasks_of(daemon, {**filters, "state": "dead"}, limit))
    if as_json:
        write_json(found)
        return OK
    print_tasks(found, _DEAD)
    if found:
        note("`mcpd tasks retry ID` has one tried anew, `mcpd tasks dead --retry-all` all of them.")
    else:
        note("No task is dead.")
    return OK


@click.command()
@click.argument("task_id", metavar="ID")
@click.argument("outcome", type=click.Choice(["succeeded", "failed", "retry"]))
@click.option("--note", "text", metavar="TEXT", default="", help="How you found out; it is kept.")
@data_dir_option
@json_option
def resolve(task_id: str, outcome: str, text: str, data_dir: str | None, as_json: bool) -> None:
    """Record what became of an uncertain task, after looking whether it did its work.

    With retry it is started again: say so when it did nothing.
    """
    with Daemon(data_dir) as daemon:
        arguments = {"task_id": whole_id(daemon, task_id), "outcome": outcome, "note": text}
        answer = daemon.call("resolve_task", arguments)
    if as_json:
        write_json(answer)
    else:
        write(f"{answer['task_id']}\t{answer['state']}")


def _each(
    daemon: Daemon, given: Sequence[str], change: Change
) -> tuple[int, list[Mapping[str, Any]]]:
    """Change tasks one by one; what is wrong with one of them does not keep the others."""
    status, done = OK, []
    for each in given:
        try:
            done.append(change(daemon, whole_id(daemon, each)))
        except ConnectionLost:
            raise
        except McpdError as error:
            complain(error)
            status = FAILED
    return status, done


def _retry(daemon: Daemon, ids: Sequence[str], as_json: bool) -> int:
    def one(daemon: Daemon, task_id: str) -> Mapping[str, Any]:
        return daemon.call("retry_task", {"task_id": task_id})

    status, done = _each(daemon, ids, one)
    if as_json:
        write_json(done)
    for answer in () if as_json else done:
        write(f"{answer['task_id']}\t{answer['state']}")
    return status


def _retry_dead(daemon: Daemon, filters: Mapping[str, Any], yes: bool, as_json: bool) -> int:
    # The ones that are there now: one that dies again meanwhile is not tried a second time.
    ids = [task["task_id"] for task in tasks_of(daemon, {**filters, "state": "dead"}, None)]
    if not ids:
        note("No task is dead.")
        return OK
    if not confirm(f"{_counted(len(ids))} dead. Try anew?", yes=yes):
        return FAILED
    done: list[Mapping[str, Any]] = []
    for first in range(0, len(ids), PAGE):
        done += daemon.call("retry_task", {"task_ids": ids[first : first + PAGE]})["tasks"]
    if as_json:
        write_json(done)
    for answer in () if as_json else done:
        # One that somebody else has had tried anew meanwhile is as it was wanted.
        write(f"{answer['task_id']}\t{answer.get('state', 'gone')}")
    return OK


def _state(daemon: Daemon, task_id: str) -> str:
    try:
        return str(daemon.call("get_task_status", {"task_id": task_id})["state"])
    except ConnectionLost:
        raise
    except McpdError:
        return ""  # said when it is to be tried anew


def _counted(count: int) -> str:
    return "1 task is" if count == 1 else f"{count} tasks are"


_DEAD: tuple[Column, ...] = (
    ("tool", lambda task: task["tool"]),
    ("queue", lambda task: task["queue"]),
    ("tries", tries),
    ("died", lambda task: f"{age(task['updated_at'])} ago"),
    ("last error", lambda task: task["reason"]),
)
