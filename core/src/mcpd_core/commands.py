"""The command-line commands that plugins add: their contract, and who gets a name.

A plugin declares them in the ``[tool.mcpd.commands]`` table of its ``pyproject.toml``, and its
manifest repeats them, so that ``mcpd --help`` names them without importing anything of the plugin::

    [tool.mcpd.commands.tasks]
    entry = "mcpd_task_queue.cli:tasks"
    help = "Watch and manage the tasks of the running daemon."

The module is imported when its command is run. See `mcpd_core.commandline` for what it may use.

A command can also go below a group of the core, ``mcpd config migrate`` for one::

    [tool.mcpd.commands."config migrate"]
    entry = "mcpd_legacy_tools.migrating.command:migrate"
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .contract import Problem, as_array, as_line, as_object, as_reference
from .inventory import PluginRow
from .json_schema import brief
from .spec import CommandSpec

#: The core's own commands, whose names no plugin gets.
CORE = ("serve", "attach", "plugins", "tools", "top", "config", "doctor", "completion")

#: The groups among them below which plugins can have commands, with the core's own in each.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "config": ("show", "init", "schema"),
    "plugins": ("list", "enable", "disable", "check", "manifest", "new"),
    "tools": ("list", "show", "search", "call"),
}

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}( [a-z][a-z0-9-]{0,31})?\Z")


@dataclass(frozen=True)
class Commands:
    """Who gets which name.

    :ivar free: the commands that can be run, in alphabetical order.
    :ivar refused: for each plugin, by its label, what is wrong with names that it claims.
    :ivar contested: for each name that several plugins claim, so that none has it, their labels.
    """

    free: Mapping[str, CommandSpec]
    refused: Mapping[str, Sequence[str]]
    contested: Mapping[str, Sequence[str]]


def read_commands(items: object, path: str, plugin: str) -> tuple[CommandSpec, ...]:
    """Read a list of commands from JSON data.

    :param path: the place, for messages.
    :raises Problem: when it is not a proper one.
    """
    found: dict[str, CommandSpec] = {}
    for i, item in enumerate(as_array(items, path)):
        where = f"{path}[{i}]"
        facts = as_object(item, where)
        for key in ("name", "entry"):
            if key not in facts:
                raise Problem(where, f"has no {key}")
        name = as_line(facts["name"], f"{where}.name")
        if not _NAME.match(name):
            raise Problem(
                f"{where}.name",
                f"{brief(name)} is not a name of a command (a-z, 0-9 and -, 32 characters; "
                "before it, at most, a group of the core and a space)",
            )
        if name in found:
            raise Problem(where, f"the command {name!r} is declared twice")
        entry = as_reference(facts["entry"], f"{where}.entry")
        text = as_line(facts.get("help", ""), f"{where}.help")
        found[name] = CommandSpec(name=name, entry=entry, help=text, plugin=plugin)
    return tuple(found.values())


def render_command(spec: CommandSpec) -> dict[str, Any]:
    """Return a command as the manifest holds it."""
    item = {"name": spec.name, "entry": spec.entry, "help": spec.help}
    return {key: value for key, value in item.items() if value}


def assign(rows: Sequence[PluginRow]) -> Commands:
    """Decide which command each name stands for.

    The core's own commands win; of two plugins that claim a name neither gets it. Below a command
    of a plugin no other plugin has any.
    """
    claims: dict[str, list[tuple[PluginRow, CommandSpec]]] = {}
    for row in rows:
        for spec in row.commands if row.state == "enabled" else ():
            claims.setdefault(spec.name, []).append((row, spec))
    free: dict[str, CommandSpec] = {}
    refused: dict[str, list[str]] = {}
    contested: dict[str, list[str]] = {}
    for name, claimants in sorted(claims.items()):
        if problem := _not_for_plugins(name):
            for row, _ in claimants:
                refused.setdefault(row.label, []).append(
                    f"Its command {name!r} cannot be run: {problem}"
                )
        elif len(claimants) == 1:
            free[name] = claimants[0][1]
        else:
            labels = contested[name] = sorted(row.label for row, _ in claimants)
            for label in labels:
                others = ", ".join(other for other in labels if other != label)
                refused.setdefault(label, []).append(
                    f"Its command {name!r} cannot be run: {others} has one of that name too. "
                    "Disable one of them."
                )
    return Commands(free, refused, contested)


def _not_for_plugins(name: str) -> str:
    """Say why no plugin can have the name; nothing when one can."""
    group, _, below = name.partition(" ")
    if below and group not in GROUPS:
        return f"`mcpd {group}` is no group of the core's; those are {', '.join(sorted(GROUPS))}."
    if below in GROUPS[group] if below else name in CORE:
        return f"`mcpd {name}` is the core's own."
    return ""


def report(rows: Sequence[PluginRow]) -> tuple[PluginRow, ...]:
    """Say in the rows of enabled plugins which of their commands cannot be run, and why."""
    refused = assign(rows).refused
    return tuple(
        replace(row, reason=" ".join([*filter(None, [row.reason]), *refused[row.label]]))
        if row.state == "enabled" and row.label in refused
        else row
        for row in rows
    )
