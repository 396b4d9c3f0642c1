"""The commands that the enabled plugins add: which there are, and the code of one of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

from ..commands import assign
from ..errors import McpdError, PluginLoadError, SelectionError
from .options import inventory_of, settings_from

if TYPE_CHECKING:
    from ..inventory import Inventory
    from ..spec import CommandSpec


def offered(group: str = "", *, notes: bool = False) -> list[CommandSpec]:
    """Return the commands that can be run, in alphabetical order; none when the settings are wrong.

    Nothing of a plugin is imported.

    :param group: the group of the core below which they are; by default those below none.
    :param notes: whether to say on stderr why commands are left out.
    """
    from .output import note

    try:
        inventory = _inventory()
    except McpdError as error:
        if notes:
            note(f"note: the commands of plugins are not known: {error.message}")
        return []
    commands = assign(inventory.rows)
    if notes:
        for label, problems in sorted(commands.refused.items()):
            for problem in problems:
                note(f"warning: {label}: {problem}")
    return [spec for spec in commands.free.values() if spec.group == group]


def load(name: str) -> click.Command | None:
    """Import the command of that name; ``None`` when no plugin has one.

    :raises PluginLoadError: when it cannot be imported, or is no command.
    :raises SelectionError: when plugins contest it, or its plugin is not enabled.
    """
    inventory = _inventory()
    commands = assign(inventory.rows)
    if (spec := commands.free.get(name)) is not None:
        return _imported(spec)
    if name in commands.contested:
        raise SelectionError(
            f"Several plugins have a command {name!r}: {', '.join(commands.contested[name])}.",
            hint="Disable one of them with `mcpd plugins disable NAME`.",
        )
    for row in inventory.rows:
        if row.state != "enabled" and any(spec.name == name for spec in row.commands):
            raise SelectionError(
                f"The command {name!r} is of the plugin {row.label}, which is {row.state}: "
                f"{row.reason}",
                hint="`mcpd plugins list` shows all of them.",
            )
    return None


def _imported(spec: CommandSpec) -> click.Command:
    module, _, attribute = spec.entry.partition(":")
    try:
        command: object = import_module(module)
        for part in attribute.split("."):
            command = getattr(command, part)
    except (Exception, SystemExit) as error:
        raise PluginLoadError(
            spec.plugin,
            f"The command {spec.name!r} of the plugin {spec.plugin!r} cannot be imported from "
            f"{spec.entry}: {type(error).__name__}: {error}",
            hint=f"Reinstall the plugin; `mcpd plugins check {spec.plugin}` examines it.",
        ) from error
    if not isinstance(command, click.Command):
        raise PluginLoadError(
            spec.plugin,
            f"The command {spec.name!r} of the plugin {spec.plugin!r} is no click command: "
            f"{spec.entry} is a {type(command).__name__}.",
            hint="Report it to the plugin's authors.",
        )
    return command


def _inventory() -> Inventory:
    return inventory_of(settings_from(None))
