"""``mcpd top``: what the running daemon does, as a table that follows it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ..errors import DaemonError, NoDaemon
from . import OK
from .options import data_dir_option, json_option
from .output import write_json
from .terminal import can_be_redrawn, interruptible
from .top_rows import SORTS, History


@click.command()
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default=SORTS[0],
    show_default=True,
    help="What comes first; what is equal is sorted by the calls per second.",
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Ask again after so long.",
)
@click.option("--once", is_flag=True, help="Print the table once, as it does without a terminal.")
@data_dir_option
@json_option
def top(sort: str, interval: float, once: bool, data_dir: str | None, as_json: bool) -> int:
    """Show what the running daemon does: tools, runtimes, queues, times, errors.

    The table follows the daemon until Ctrl-C. Percentiles and calls per second are those of the
    last minute; where there was no call in it, and with --once, percentiles are those since the
    daemon was started. --json prints everything that is counted, once.
    """
    from .. import paths
    from .daemon_client import ConnectionLost, DaemonClient

    path = paths.socket_path(paths.data_dir(data_dir))
    try:
        with DaemonClient(path) as daemon:
            if as_json:
                write_json(daemon.request("mcpd/overview"))
            elif once or not can_be_redrawn():
                _print(daemon.request("mcpd/overview"), sort)
            else:
                _follow(daemon, sort, interval)
    except NoDaemon as error:
        raise _without_local(error, path) from error.__cause__
    except ConnectionLost as error:
        raise DaemonError(
            f"The daemon on {path} has ended, or does not answer any more.",
            hint="Its log says why. `mcpd top` again shows the next one.",
        ) from error
    return OK


def _without_local(error: NoDaemon, path: Path) -> NoDaemon:
    """Return the error with a next step that makes sense here."""
    if "--local" not in error.hint:
        return error
    return NoDaemon(
        f"No daemon listens on {path}, so there is nothing to show.",
        hint="Start one with `mcpd serve`, or name its directory with --data-dir.",
    )


def _print(overview: dict[str, Any], sort: str) -> None:
    from .top_view import console, view

    history = History()
    history.add(time.monotonic(), overview)
    screen = console()
    screen.print(view(history, sort, width=screen.width, height=None))


def _follow(daemon: Any, sort: str, interval: float) -> None:
    """Draw the table anew until the user has seen enough."""
    from rich.live import Live

    from .top_view import console, view

    history, screen = History(), console()
    with (
        interruptible() as interrupted,
        Live(console=screen, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        while not interrupted:
            history.add(time.monotonic(), daemon.request("mcpd/overview"))
            live.update(view(history, sort, width=screen.width, height=screen.height), refresh=True)
            time.sleep(interval)
