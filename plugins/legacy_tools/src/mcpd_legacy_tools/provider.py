"""The metadata provider: the tools of the trees, as items of a manifest.

Listing tools imports this; so it needs the standard library alone, and imports nothing of a tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import options
from .placement import placed
from .records import LegacyTool, Scan
from .scan import scan

#: Names that a note spells out before it only counts.
_MOST_NAMED = 3
MADE_UP = "Its code shows made-up data"


def tools(plugin: str, section: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the tools of all trees, and what a person should know about them.

    :param plugin: the name of the plugin that asks.
    :param section: the section ``[legacy_tools]`` of the settings, as it is written.
    :raises OptionsError: when the section is not a proper one.
    """
    chosen = options.read(section or {})
    found = scan(chosen)
    return {"tools": [item(tool, chosen, found) for tool in found.tools], "note": note(found)}


def item(tool: LegacyTool, chosen: options.Options, found: Scan) -> dict[str, Any]:
    """Return a tool as a manifest holds it."""
    confinement = chosen.confined(found.tree_options.get(tool.tree), tool.category)
    return {
        "name": tool.name,
        "description": described(tool),
        "category": tool.category,
        "input_schema": tool.input_schema,
        "entry": tool.entry,
        "aliases": list(tool.aliases),
        **placed(tool, confinement, auto_install=chosen.auto_install),
    }


def described(tool: LegacyTool) -> str:
    """Return what a model is told of a tool; that its data is made up comes first."""
    text = tool.description or f"The tool {tool.tool} of {tool.category}, which has no docstring."
    if not tool.marks:
        return text
    mark = tool.marks[0]
    return f"{MADE_UP} ({mark.file}, line {mark.line}). {text}"


def note(found: Scan) -> str:
    """Return what is not as it should be, in a sentence or two; empty when all is well."""
    parts = []
    parts += [problem.message for problem in found.problems if not problem.file][:_MOST_NAMED]
    if named := [problem.file for problem in found.problems if problem.file]:
        parts.append(f"{_counted(len(named), 'file')} could not be read: {_listed(named)}.")
    if found.collisions:
        names = [collision.name for collision in found.collisions]
        several = _counted(len(names), "name")
        parts.append(
            f"{several} would have been several tools', which have longer names now: "
            f"{_listed(names)}."
        )
    if parts:
        parts.append("See `mcpd legacy list --problems`.")
    return " ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown}, ..."
