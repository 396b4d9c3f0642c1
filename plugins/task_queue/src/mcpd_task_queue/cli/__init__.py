"""``mcpd tasks``: looking at the tasks of the running daemon, and changing them, from a terminal.

Everything goes through the daemon: this is a client like any other, and imports no store.

* `listing`, `showing`: what there is, and everything about one task;
* `watching`, with `overview` and `drawing`: following them as they change;
* `changing`: cancelling, retrying, resolving;
* `carrying`: exporting them, copying all of them;
* `asking`, `words`: finding a task by the beginning of its id; times and data as people read them.
"""

from __future__ import annotations

import click

from .carrying import backup, export
from .changing import cancel, dead, resolve, retry
from .listing import list_
from .showing import show
from .watching import watch


@click.group()
def tasks() -> None:
    """Watch and manage the tasks of the running daemon.

    A task is named by its id, or by as much of its beginning as no other task has. You see your own
    tasks: those that were submitted through the daemon's socket.
    """


for command in (list_, show, watch, cancel, retry, dead, resolve, export, backup):
    tasks.add_command(command)
