"""``mcpd tools``: list, show, search and call tools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ..errors import McpdError, UnknownTool
from . import FAILED, NOT_CALLED, OK, complain
from .completing import tool_names
from .groups import OpenGroup
from .options import (
    config_option,
    data_dir_option,
    inventory_of,
    json_option,
    plugins_option,
    settings_from,
)
from .output import clean, first_line, note, table, write, write_json

if TYPE_CHECKING:
    from ..catalog import Catalog
    from ..spec import ToolSpec


@click.group(cls=OpenGroup)
def tools() -> None:
    """List, show, search and call tools."""


@tools.command("list")
@plugins_option
@config_option
@click.option("--all", "every", is_flag=True, help="Also those that clients are not told of.")
@json_option
def list_(wanted: tuple[str, ...] | None, config: str | None, every: bool, as_json: bool) -> None:
    """List the tools of the enabled plugins. Nothing of a plugin is imported for it."""
    specs = _catalog(config, wanted).specs
    _print([spec for spec in specs if every or spec.listed], as_json)


@tools.command()
@click.argument("name", shell_complete=tool_names)
@plugins_option
@config_option
@json_option
def show(name: str, wanted: tuple[str, ...] | None, config: str | None, as_json: bool) -> None:
    """Show everything a tool promises."""
    catalog = _catalog(config, wanted)
    spec = catalog.get(name)
    if spec is None:
        close = catalog.close_matches(name)
        raise UnknownTool(
            f"No enabled plugin offers a tool {name!r}.",
            hint=f"Did you mean {' or '.join(map(repr, close))}?"
            if close
            else "See `mcpd tools list`; `mcpd plugins list` shows what is not enabled.",
        )
    if as_json:
        from dataclasses import asdict

        write_json(asdict(spec))
        return
    _describe(spec)


@tools.command()
@click.argument("query", nargs=-1, required=True)
@click.option(
    "--limit",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many tools to show at most, the best matches first.",
)
@plugins_option
@config_option
@json_option
def search(
    query: tuple[str, ...],
    limit: int,
    wanted: tuple[str, ...] | None,
    config: str | None,
    as_json: bool,
) -> int:
    """Search names, descriptions, categories and tags. Exit status 1 when nothing is found."""
    found = _catalog(config, wanted).search(" ".join(query), limit)
    _print(found, as_json)
    if not found:
        note("No tool matches.")
    return OK if found else FAILED


@tools.command(context_settings={"ignore_unknown_options": False})
@click.argument("name", shell_complete=tool_names)
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--args", "whole", metavar="JSON", help="The arguments as one JSON object.")
@click.option("--local", is_flag=True, help="Call in this process instead of the daemon.")
@plugins_option
@data_dir_option
@config_option
@json_option
def call(
    name: str,
    pairs: tuple[str, ...],
    whole: str | None,
    local: bool,
    wanted: tuple[str, ...] | None,
    data_dir: str | None,
    config: str | None,
    as_json: bool,
) -> int:
    """Call a tool and print what it answers.

    The daemon that owns the data directory runs it; with --local this process does, without a data
    directory. The type that the tool gives an argument decides how its VALUE is read: text stays
    as it is, numbers, true and false are converted, lists and objects are JSON.

    The exit status is 1 when the tool failed and 2 when it could not be called.
    """
    from .calling import Request, call_daemon

    if local and data_dir is not None:
        raise click.UsageError("--data-dir is the daemon's; --local uses none.")
    if wanted and not local:
        raise click.UsageError("--plugins goes with --local; the daemon has its own.")
    request = Request(name, pairs, whole)
    try:
        if local:
            from .local_call import call_here

            settings = settings_from(config, wanted)
            answer = call_here(request, inventory_of(settings), settings)
        else:
            from .. import paths

            answer = call_daemon(request, paths.socket_path(paths.data_dir(data_dir)))
    except McpdError as error:
        complain(error)
        if as_json:
            write_json({"error": _details(error)})
        return FAILED if error.code == "connection_lost" else NOT_CALLED
    if as_json:
        write_json(answer.to_json())
    if answer.error is not None:
        note(f"error: {answer.text}")
        return FAILED
    if not as_json:
        write(clean(answer.text))
    return OK


def _details(error: McpdError) -> dict[str, Any]:
    details = {"code": error.code, "message": error.message, "hint": error.hint, "data": error.data}
    if isinstance(remote := error.data.get("code"), str):
        details["code"] = remote
    return {key: value for key, value in details.items() if value}


def _catalog(config: str | None, wanted: tuple[str, ...] | None) -> Catalog:
    from ..catalog import Catalog

    inventory = inventory_of(settings_from(config, wanted))
    for row in inventory.rows:
        if row.state == "enabled" and row.dynamic:
            note(f"note: the tools of {row.name} are known when it is served: it has no manifest.")
    return Catalog(inventory.specs())


def _print(specs: Iterable[ToolSpec], as_json: bool) -> None:
    if as_json:
        write_json(
            [
                {
                    "name": spec.name,
                    "plugin": spec.plugin,
                    "category": spec.category,
                    "runtime": spec.runtime,
                    "placement": spec.placement,
                    "description": spec.description,
                }
                for spec in specs
            ]
        )
        return
    table(
        ("tool", "plugin", "category", "runs in", "description"),
        [
            (spec.name, spec.plugin, spec.category, _where(spec), first_line(spec.description))
            for spec in specs
        ],
    )


def _where(spec: ToolSpec) -> str:
    return spec.runtime if spec.placement == "loop" else spec.placement


def _describe(spec: ToolSpec) -> None:
    write(clean(f"{spec.name}  ({spec.title})" if spec.title else spec.name))
    write("")
    write(clean(spec.description) or "(no description)")
    write("")
    hints = spec.annotations
    effects = "changes nothing" if hints.read_only else "changes things"
    if not hints.read_only and hints.destructive:
        effects += ", perhaps destructively"
    if hints.idempotent:
        effects += "; doing it again changes nothing more"
    if hints.open_world:
        effects += "; reaches beyond this machine"
    facts = {
        "plugin": spec.plugin,
        "category": spec.category,
        "aliases": ", ".join(spec.aliases),
        "tags": ", ".join(spec.tags),
        "runs in": f"{spec.runtime}, {spec.placement}",
        "process": spec.process,
        "timeout": "" if spec.timeout is None else f"{spec.timeout:g} s",
        "memory": "" if spec.memory_mb is None else f"{spec.memory_mb} MiB",
        "CPU time": "" if spec.cpu_seconds is None else f"{spec.cpu_seconds} s",
        "effects": effects,
        "listed": "" if spec.listed else "no; it can be called by its name",
        "code": spec.entry,
        "source": spec.source,
    }
    for label, value in facts.items():
        if value:
            write(clean(f"{label + ':':<10} {value}"))
    properties = spec.input_schema.get("properties", {})
    required = spec.input_schema.get("required", [])
    write("\narguments:" if properties else "\nno arguments")
    for name, schema in properties.items():
        must = "required" if name in required else f"default {_short(schema.get('default'))}"
        write(clean(f"  {name}: {_kind(schema)}, {must}"))
        if text := schema.get("description"):
            write(clean(f"      {text}"))


def _kind(schema: dict[str, Any]) -> str:
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        return " or ".join(_kind(alternative) for alternative in alternatives)
    if "enum" in schema:
        return "one of " + ", ".join(_short(value) for value in schema["enum"])
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"array of {_kind(schema['items'])}"
    kind: str = str(schema.get("type") or schema.get("$ref", "").rpartition("/")[2] or "anything")
    return kind


def _short(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
