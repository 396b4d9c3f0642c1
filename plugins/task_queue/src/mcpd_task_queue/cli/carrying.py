"""``mcpd tasks export|backup``: taking tasks elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from mcpd_core.commandline import (
    Daemon,
    data_dir_option,
    json_option,
    note,
    write,
    write_json,
)

from .asking import whole_id
from .listing import filter_options


@click.command()
@click.argument("file", metavar="[FILE]", default="-")
@filter_options
@click.option("--schedule", metavar="ID", help="Only tasks that this recurring one has made.")
@click.option("--everybody", is_flag=True, help="Tasks of all principals, not only your own.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@data_dir_option
def export(
    file: str,
    state: str | None,
    queue: str | None,
    tool: str | None,
    tag: str | None,
    schedule: str | None,
    everybody: bool,
    force: bool,
    data_dir: str | None,
) -> None:
    """Write tasks as lines of JSON, the oldest first, with arguments, results and history.

    They go to FILE, which appears when it is complete, or to standard output.
    """
    if file != "-" and not force and os.path.lexists(file):
        raise click.UsageError(f"{file} is there already; --force replaces it.")
    with Daemon(data_dir) as daemon:
        filters = {
            "state": state,
            "queue": queue,
            "tool": tool,
            "tag": tag,
            "schedule_id": None if schedule is None else whole_id(daemon, schedule),
            "everybody": everybody,
        }
        given = {key: value for key, value in filters.items() if value}
        count = _print(daemon, given) if file == "-" else _save(daemon, given, Path(file))
    note(f"{count} task{'' if count == 1 else 's'} exported.")


@click.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@data_dir_option
@json_option
def backup(folder: Path, data_dir: str | None, as_json: bool) -> None:
    """Copy the whole queue into a new FOLDER, while the daemon goes on working.

    The daemon writes it, as it would find it: to restore it, stop the daemon and put the folder in
    the place of `task_queue` in the data directory. It is there whole or not at all.
    """
    path = folder.absolute()
    with Daemon(data_dir) as daemon:
        note(f"Copying to {path} ...")
        # No limit: however long the copy takes.
        done = daemon.request("task_queue/backup", {"path": str(path)}, limited=False)
    if as_json:
        write_json(done)
    else:
        megabytes = done["bytes"] / 1e6
        write(f"{done['path']}\t{done['tasks']} tasks\t{megabytes:.1f} MB\t{done['seconds']:.1f} s")


def _lines(daemon: Daemon, filters: Mapping[str, Any]) -> Iterator[str]:
    cursor: str | None = None
    while True:
        # No limit: one line may be a result of many megabytes.
        params = {**filters, "cursor": cursor}
        page = daemon.request("task_queue/export", params, limited=False)
        yield from page["lines"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _print(daemon: Daemon, filters: Mapping[str, Any]) -> int:
    count = 0
    for line in _lines(daemon, filters):
        write(line)
        count += 1
    return count


def _save(daemon: Daemon, filters: Mapping[str, Any], path: Path) -> int:
    """Write the lines to a file that nobody sees before it is complete."""
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    count = 0
    try:
        # Tasks hold what may be nobody else's business.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8", newline="\n") as out:
            for line in _lines(daemon, filters):
                out.write(line + "\n")
                count += 1
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from error
    finally:
        part.unlink(missing_ok=True)
    return count
