"""``mcpd plugins enable`` and ``disable``: on the running daemon, and remembered for the next."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import McpdError, NoDaemon, SelectionError
from .completing import plugin_names
from .options import config_option, data_dir_option, json_option, settings_from
from .output import note, write, write_json

if TYPE_CHECKING:
    from ..settings import Settings


#: What connecting fails with when nobody listens.
_ABSENT = (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)


@click.command()
@click.argument("name", shell_complete=plugin_names)
@data_dir_option
@config_option
@json_option
def enable(name: str, data_dir: str | None, config: str | None, as_json: bool) -> None:
    """Enable a plugin, now and for the future.

    NAME is a plugin, a distribution with one plugin, or DISTRIBUTION:PLUGIN. The daemon that owns
    the data directory offers its tools at once; without a daemon the next one will. The choice
    counts more than the deny-list of the settings.
    """
    _switch(name, True, data_dir, config, as_json)


@click.command()
@click.argument("name", shell_complete=plugin_names)
@data_dir_option
@config_option
@json_option
def disable(name: str, data_dir: str | None, config: str | None, as_json: bool) -> None:
    """Disable a plugin, now and for the future.

    NAME is a plugin, a distribution with one plugin, or DISTRIBUTION:PLUGIN. Its tools are gone at
    once. Calls of them that are in flight finish, and then its services stop.
    """
    _switch(name, False, data_dir, config, as_json)


def _switch(
    name: str, enabled: bool, data_dir: str | None, config: str | None, as_json: bool
) -> None:
    from .. import paths

    directory = paths.data_dir(data_dir)
    done = _ask_daemon(name, enabled, paths.socket_path(directory))
    if done is None:
        done = _keep(name, enabled, directory, settings_from(config))
    if as_json:
        write_json(done)
        return
    verb = "enabled" if enabled else "disabled"
    where = "on the running daemon" if done["daemon"] else "for the next daemon"
    write(f"{verb} {where}: {done['name']} ({done['distribution']})")
    if not done["changed"]:
        note(f"note: it was {verb} before.")
    if done["running"]:
        note(f"note: {done['running']} of its calls still run; its services stop after them.")
    if done["until_restart"]:
        note(
            "note: the daemon was started with plugins named, which counts more than this choice "
            "when it is started so again."
        )


def _ask_daemon(name: str, enabled: bool, socket: Path) -> dict[str, Any] | None:
    """Ask the running daemon; ``None`` when there is none."""
    from .daemon_client import DaemonClient, RemoteError

    try:
        with DaemonClient(socket) as daemon:
            params = {"name": name, "enabled": enabled}
            # No limit of our own: enabling may import the plugin, which the daemon limits.
            answer = daemon.request("mcpd/plugins/set", params, limited=False)
    except NoDaemon as error:
        if not isinstance(error.__cause__, _ABSENT):
            # Somebody may well listen there: another user, for example.
            raise
        return None
    except RemoteError as error:
        raise _translated(error) from None
    return {**answer, "daemon": True}


def _translated(error: Any) -> McpdError:
    hint = str(error.data.get("hint") or "")
    if error.data.get("code") == SelectionError.code:
        return SelectionError(error.message, hint=hint)
    return McpdError(error.message, hint=hint)


def _keep(name: str, enabled: bool, directory: Path, settings: Settings) -> dict[str, Any]:
    """Remember the choice for the next daemon, if it can be followed.

    :raises SelectionError: when there is no such plugin, or it could not be enabled.
    """
    from .. import choices, discovery, selection

    scan = discovery.scan()
    kept = choices.read_choices(directory)
    select = partial(
        selection.select,
        scan,
        wanted=None,
        denied=settings.plugins.deny,
        section=settings.section,
    )
    row = choices.find(select(choices=kept).rows, name)
    after = select(choices={**kept, row.label: enabled})
    now = choices.find(after.rows, row.label)
    if enabled and now.state != "enabled":
        raise SelectionError(
            f"The plugin {now.label} cannot be enabled ({now.state}): {now.reason}",
            data={"name": now.name, "state": now.state},
        )
    choices.remember(directory, row.label, enabled)
    return {
        "name": row.name,
        "distribution": row.distribution,
        "enabled": enabled,
        "changed": (row.state == "enabled") is not enabled,
        "running": 0,
        "remembered": True,
        "until_restart": settings.serve.plugins is not None,
        "daemon": False,
    }
