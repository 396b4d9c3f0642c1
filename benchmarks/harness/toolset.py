"""The same N tools for every server, and the plugin that gives them to mcpd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: What the tools are called with.
ARGUMENTS = {"message": "hello world", "repeat": 2}
#: The plugin and its distribution.
PLUGIN = "bench"

#: Tools per module and category: about what a family of tools has.
FAMILY = 37

_HEAD = """\
from typing import Annotated

from pydantic import Field

from mcpd_core import tool


def echo(message, repeat, upper):
    text = message * repeat
    return text.upper() if upper else text
"""
_CODE = '''
@tool(category="{category}", read_only=True, idempotent=True, open_world=False)
async def {name}(
    message: Annotated[str, Field(description="Text to echo.")],
    repeat: Annotated[int, Field(description="How often.", ge=1, le=10)] = 1,
    upper: bool = False,
) -> str:
    """{description}"""
    return echo(message, repeat, upper)
'''


def name(index: int) -> str:
    """Return the name of a tool."""
    return f"family{index // FAMILY:03d}_tool{index:04d}"


def definition(index: int) -> dict[str, Any]:
    """Return a tool as ``tools/list`` shows it."""
    title = name(index).replace("_", " ").capitalize()
    return {
        "name": name(index),
        "title": title,
        "description": _description(index),
        "inputSchema": _schema(),
        "annotations": {
            "readOnlyHint": True,
            "destructiveHint": True,
            "idempotentHint": True,
            "openWorldHint": False,
            "title": title,
        },
    }


def echo(message: str, repeat: int = 1, upper: bool = False) -> str:
    """Do what every tool does."""
    text = message * repeat
    return text.upper() if upper else text


def install_plugin(site: Path, count: int, *, plugin: str = PLUGIN, first: int = 0) -> None:
    """Write a plugin of mcpd into a directory, as an installation would leave it there.

    :param site: a directory that is or will be on the interpreter's path.
    :param count: tools of the plugin.
    :param first: index of its first tool.
    """
    package = f"mcpd_{plugin}"
    folder = site / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "plugin.py").write_text("")
    tools = []
    for family in sorted({index // FAMILY for index in range(first, first + count)}):
        indices = [i for i in range(first, first + count) if i // FAMILY == family]
        _write_module(folder / f"family{family:03d}.py", indices)
        tools += [_manifest_item(package, index) for index in indices]
    document = {
        "schema": 1,
        "api": 1,
        "plugins": {plugin: {"runtime": "asyncio", "tools": tools}},
    }
    (folder / "mcpd_plugin.json").write_text(json.dumps(document, indent=1) + "\n")
    entry_points = f"[mcpd_core.plugins.asyncio]\n{plugin} = {package}.plugin\n"
    install_metadata(site, f"mcpd-{plugin}", entry_points)


def install_metadata(site: Path, distribution: str, entry_points: str | None = None) -> None:
    """Write the metadata of a distribution into a directory."""
    folder = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    description = "A line of the long description that most distributions have.\n" * 60
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n\n{description}"
    )
    (folder / "INSTALLER").write_text("pip\n")
    if entry_points is not None:
        (folder / "entry_points.txt").write_text(entry_points)


def _description(index: int) -> str:
    return f"Echo a message, in the manner of tool number {index}; repeated on demand."


def _schema() -> dict[str, Any]:
    return {
        "additionalProperties": False,
        "properties": {
            "message": {"description": "Text to echo.", "type": "string"},
            "repeat": {
                "default": 1,
                "description": "How often.",
                "maximum": 10,
                "minimum": 1,
                "type": "integer",
            },
            "upper": {"default": False, "type": "boolean"},
        },
        "required": ["message"],
        "type": "object",
    }


def _manifest_item(package: str, index: int) -> dict[str, Any]:
    shown = definition(index)
    return {
        "name": shown["name"],
        "title": shown["title"],
        "description": shown["description"],
        "category": _category(index),
        "input_schema": shown["inputSchema"],
        "annotations": {"read_only": True, "idempotent": True, "open_world": False},
        "entry": f"{package}.family{index // FAMILY:03d}:{shown['name']}",
    }


def _category(index: int) -> str:
    return f"family{index // FAMILY:03d}"


def _write_module(path: Path, indices: list[int]) -> None:
    code = [_HEAD]
    code += [
        _CODE.format(name=name(i), category=_category(i), description=_description(i))
        for i in indices
    ]
    path.write_text("\n".join(code))
