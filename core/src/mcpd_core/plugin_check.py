"""Examining an installed plugin thoroughly, for ``mcpd plugins check NAME``.

Listing takes a plugin's manifest at its word. Here its code is imported and the two are compared,
as its author or a continuous-integration job wants it.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from .content.contract import Offering, render_prompt, render_resource
from .discovery import Scan, same_name
from .discovery import scan as scan_environment
from .errors import McpdError
from .hooks import Hooks
from .importer import Importer
from .inventory import PluginRow
from .manifest import render_tool
from .registrar import ToolRegistrar
from .selection import select
from .spec import RUNTIMES, CommandSpec, PromptSpec, ResourceSpec, RuntimeName, ToolSpec

#: Prints the modules that importing a metadata provider takes, other than the interpreter's own.
_PROVIDER_PROBE = """
import importlib, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
own = {sys.argv[1].partition(".")[0], "mcpd_core"}
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(" ".join(sorted(tops - own - set(sys.stdlib_module_names))))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    :ivar level: an ``error`` makes the plugin unfit; a ``warning`` can be lived with.
    """

    plugin: str
    level: Literal["error", "warning"]
    message: str
    hint: str = ""


def check(
    name: str,
    *,
    scan: Scan | None = None,
    timeout: float = 30.0,
    section: Callable[[str], Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """Compare a plugin's manifest with its code, and look for what will cause trouble.

    The plugin's code is imported into this process.

    :param name: of a plugin, a distribution or a bundle, or ``distribution:plugin``.
    :param scan: where to look; the current environment by default.
    :param timeout: seconds that one import may take.
    :param section: returns a section of the settings by its name, for metadata providers.
    :returns: what was found, nothing when all is well.
    :raises SelectionError: when the name matches nothing.
    """
    scan = scan_environment() if scan is None else scan
    everything = select(scan, wanted=None, section=section).rows
    rows = [row for row in everything if same_name(row.name, name)]
    rows = rows or [
        row
        for row in everything
        if same_name(row.distribution, name)
        or same_name(row.label, name)
        or any(same_name(bundle, name) for bundle in row.bundles)
    ]
    if not rows:
        select(scan, wanted=[name], section=section)
    importer = Importer(timeout, faults=scan.faults)
    return [finding for row in rows for finding in _check_row(row, importer, timeout)]


def _check_row(row: PluginRow, importer: Importer, timeout: float) -> Iterator[Finding]:
    if row.state != "enabled":
        yield Finding(row.name, "error", f"It is {row.state}: {row.reason}")
    if row.state == "broken" or row.runtime not in RUNTIMES:
        return
    if row.dynamic:
        yield Finding(
            row.name,
            "warning",
            "It has no manifest, so it has to be imported at every start of the server.",
            "Make one: mcpd plugins manifest DIR. Is it part of the built distribution?",
        )
    for spec in row.tools:
        yield from _check_contract(row, spec)
    try:
        yield from importer.load(
            row.entry, plugin=row.name, then=lambda plugin: _check_hooks(row, plugin)
        ).result()
    except McpdError as exc:
        yield Finding(row.name, "error", exc.message, exc.hint)
    for spec in row.tools:
        if not spec.loader:
            yield from _check_code(row, spec, importer)
    for loader in sorted({spec.loader for spec in row.tools if spec.loader}):
        yield from _check_loader(row, loader, importer)
    for content in _content(row):
        yield from _check_content(row, content, importer)
    for command in row.commands:
        yield from _check_command(row, command, importer)
    if row.metadata_provider is not None:
        yield from _check_provider(row, row.metadata_provider, timeout)


def _check_contract(row: PluginRow, spec: ToolSpec) -> Iterator[Finding]:
    if not spec.description.strip():
        yield Finding(
            row.name,
            "warning",
            f"Tool {spec.name!r} has no description, so no model can know when to call it.",
            "Give the function a docstring.",
        )
    schemas: tuple[tuple[str, Mapping[str, Any] | None], ...] = (
        ("input", spec.input_schema),
        ("output", spec.output_schema),
    )
    for which, schema in schemas:
        problem = "" if schema is None else _schema_problem(schema)
        if problem:
            yield Finding(
                row.name,
                "error",
                f"The {which} schema of tool {spec.name!r} is not valid: {problem}.",
            )


def _schema_problem(schema: Mapping[str, Any]) -> str:
    # It comes with the MCP SDK and brings no type information.
    jsonschema: Any = importlib.import_module("jsonschema")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as exc:
        return f"{exc.json_path}: {exc.message}"
    missing = set(schema.get("required", ())) - set(schema.get("properties", {}))
    return f"it requires {', '.join(sorted(missing))}, which it does not define" if missing else ""


def _check_hooks(row: PluginRow, plugin: object) -> list[Finding]:
    """Compare the hooks and the tools that the plugin's module names with the manifest."""
    hooks = Hooks()
    implemented = set(hooks.register(plugin, row.name, requires_core=row.requires_core))
    registrar = ToolRegistrar(row.name, cast(RuntimeName, row.runtime))
    hooks.register_tools(registrar)
    if row.dynamic:
        return [finding for spec in registrar.specs for finding in _check_contract(row, spec)]
    stale = []
    serving = implemented - {"mcpd_register_tools"}
    for hook in sorted(serving ^ set(row.hooks)):
        where = "the code, but not in the manifest" if hook in serving else "the manifest only"
        stale.append(f"hook {hook} is in {where}")
    if "mcpd_register_tools" in implemented:
        listed = {spec.name for spec in row.tools}
        for spec in registrar.specs:
            if spec.name not in listed:
                stale.append(f"tool {spec.name!r} is in the code, but not in the manifest")
        known = {content.label for content in _content(row)}
        for content in _content(registrar):
            if content.label not in known:
                stale.append(f"{content.label} is in the code, but not in the manifest")
    return [_stale(row, what) for what in stale]


def _check_code(row: PluginRow, spec: ToolSpec, importer: Importer) -> Iterator[Finding]:
    from .schema import describe

    runtime = cast(RuntimeName, row.runtime)
    try:
        described = importer.load(
            spec.entry,
            plugin=row.name,
            then=lambda function: describe(function, plugin=row.name, runtime=runtime),
        ).result()
    except McpdError as exc:
        yield Finding(row.name, "error", f"Tool {spec.name!r}: {exc.message}", exc.hint)
        return
    said, meant = render_tool(spec, runtime=runtime), render_tool(described, runtime=runtime)
    differing = sorted(key for key in said.keys() | meant.keys() if said.get(key) != meant.get(key))
    if differing:
        yield _stale(row, f"tool {spec.name!r} differs in {', '.join(differing)}")


def _check_loader(row: PluginRow, loader: str, importer: Importer) -> Iterator[Finding]:
    # What it loads is somebody else's code, and may be a lot of it: that is left alone.
    try:
        importer.load(loader, plugin=row.name).result()
    except McpdError as exc:
        yield Finding(row.name, "error", f"The loader {loader}: {exc.message}", exc.hint)


def _content(offering: Offering) -> list[ResourceSpec | PromptSpec]:
    return [*offering.resources, *offering.prompts]


def _check_content(
    row: PluginRow, spec: ResourceSpec | PromptSpec, importer: Importer
) -> Iterator[Finding]:
    from .content.functions import PromptFunction, ResourceFunction

    runtime = cast(RuntimeName, row.runtime)
    said = _rendered(spec, runtime)
    kind = ResourceFunction if isinstance(spec, ResourceSpec) else PromptFunction
    try:
        meant = importer.load(
            spec.entry,
            plugin=row.name,
            then=lambda function: _rendered(
                kind(function, plugin=row.name, runtime=runtime).spec, runtime
            ),
        ).result()
    except McpdError as exc:
        yield Finding(row.name, "error", f"The {spec.label}: {exc.message}", exc.hint)
        return
    if not spec.description.strip():
        yield Finding(
            row.name,
            "warning",
            f"The {spec.label} has no description, so nobody can know what it is for.",
            "Give the function a docstring.",
        )
    differing = sorted(key for key in said.keys() | meant.keys() if said.get(key) != meant.get(key))
    if differing:
        yield _stale(row, f"{spec.label} differs in {', '.join(differing)}")


def _check_command(row: PluginRow, spec: CommandSpec, importer: Importer) -> Iterator[Finding]:
    import click

    try:
        command = importer.load(spec.entry, plugin=row.name).result()
    except McpdError as exc:
        what = f"The command {spec.name!r} of the plugin {row.name!r} cannot be imported"
        yield Finding(row.name, "error", f"{what}: {exc.message}", exc.hint)
        return
    if not isinstance(command, click.Command):
        yield Finding(
            row.name,
            "error",
            f"The command {spec.name!r} is no click command: {spec.entry} is a "
            f"{type(command).__name__}.",
        )


def _rendered(spec: ResourceSpec | PromptSpec, runtime: RuntimeName) -> dict[str, Any]:
    if isinstance(spec, ResourceSpec):
        return render_resource(spec, runtime=runtime)
    return render_prompt(spec, runtime=runtime)


def _stale(row: PluginRow, what: str) -> Finding:
    return Finding(
        row.name,
        "error",
        f"The manifest is stale: {what}.",
        "Make it anew: mcpd plugins manifest DIR",
    )


def _check_provider(row: PluginRow, provider: str, timeout: float) -> Iterator[Finding]:
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROVIDER_PROBE, provider],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        yield Finding(
            row.name, "error", f"Its metadata provider {provider} takes more than {timeout:g} s."
        )
        return
    lines = probe.stdout.splitlines()
    foreign = lines[-1] if probe.returncode == 0 and lines else ""
    if foreign:
        yield Finding(
            row.name,
            "error",
            f"Its metadata provider {provider} imports {foreign}, which makes every listing slow.",
            "Use the standard library only.",
        )
