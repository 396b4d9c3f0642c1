"""The static manifest: what a plugin offers, readable without importing any of it.

``mcpd_plugin.json`` at the root of an import package describes the plugins of that package. Reading
is strict about what it knows, so that an error names the plugin and the place in the file, and
tolerant of keys that it does not know, so that a newer plugin can still be listed. Rendering is
deterministic: the same specs give the same bytes on every supported Python.

What a tool's item leaves out has a default, that of `ToolSpec`: above all, a tool without
``placement`` runs on the loop. Only the code knows whether a function is a plain ``def``, which
belongs in a thread; so the manifest that is made from the code says ``thread`` wherever that is so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import json_schema
from .commands import read_commands, render_command
from .content.contract import read_prompts, read_resources, render_prompt, render_resource
from .contract import (
    ANNOTATIONS,
    Problem,
    as_line,
    as_lines,
    as_object,
    facts_of,
    no_arguments,
    plain,
    plain_each,
    read_each_tool,
    read_tools,
)
from .errors import ManifestError, PluginLoadError
from .json_schema import brief
from .spec import Annotations, CommandSpec, PromptSpec, ResourceSpec, RuntimeName, ToolSpec
from .text import clean, one_line

FILENAME = "mcpd_plugin.json"
#: The version of the file's format that is written, and the newest that can be read.
SCHEMA = 1
#: The version of the interface between core and plugins.
API = 1


@dataclass(frozen=True)
class PluginManifest:
    """What a manifest says about one plugin.

    :ivar hooks: names of the hooks that the plugin module implements; when there are none, the
        module need not be imported to serve the plugin.
    :ivar metadata_provider: a module of the standard library's means only, which listing may
        import to ask it for more tools.
    :ivar commands: command-line commands that the plugin adds.
    """

    name: str
    runtime: RuntimeName
    tools: tuple[ToolSpec, ...] = ()
    bundles: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    metadata_provider: str | None = None
    commands: tuple[CommandSpec, ...] = ()
    resources: tuple[ResourceSpec, ...] = ()
    prompts: tuple[PromptSpec, ...] = ()


# --- reading ------------------------------------------------------------------------------------


def parse(
    content: bytes, *, plugin: str, runtime: RuntimeName, requires_core: str = ""
) -> PluginManifest:
    """Read what a manifest file says about one plugin.

    :param plugin: the plugin's entry-point name.
    :param runtime: what its entry-point group declares.
    :param requires_core: what its distribution asks of mcpd-core, such as ``>=2``; named when the
        manifest turns out to be made for a newer one.
    :raises ManifestError: when the manifest does not describe the plugin, and properly so.
    """
    try:
        document = as_object(_load(content), "")
        _check_versions(document, plugin, requires_core)
        plugins = as_object(document.get("plugins", {}), "plugins")
        if plugin not in plugins:
            known = ", ".join(sorted(plugins)) or "no plugin"
            raise Problem("plugins", f"describes {known}, but not {plugin!r}")
        return _plugin(as_object(plugins[plugin], f"plugins.{plugin}"), plugin, runtime)
    except Problem as problem:
        raise ManifestError(
            plugin,
            f"The manifest of plugin {plugin!r} is not valid: {problem}.",
            hint="Make it anew with `mcpd plugins manifest DIR`, or reinstall the plugin.",
        ) from None


def parse_tools(items: object, *, plugin: str, runtime: RuntimeName) -> tuple[ToolSpec, ...]:
    """Read a list of tools, as a manifest holds it and as a metadata provider returns it.

    :param items: anybody's objects; they are copied.
    :raises ManifestError: when it is not a proper one.
    """
    try:
        if isinstance(items, (list, tuple)):
            return read_each_tool(plain_each(items), "tools", plugin, runtime)
        return read_tools(plain(items), "tools", plugin, runtime)
    except Problem as problem:
        raise ManifestError(
            plugin, f"The tools of plugin {plugin!r} are not described properly: {problem}."
        ) from None


def checked(
    specs: Iterable[ToolSpec], *, plugin: str, runtime: RuntimeName
) -> tuple[ToolSpec, ...]:
    """Read contracts that code has made as strictly as a manifest that holds them is read.

    :param specs: what they say about their plugin does not count.
    :param plugin: the plugin that they belong to.
    :raises ManifestError: when one of them is not proper, or two claim the same name.
    """
    return parse_tools([facts_of(spec) for spec in specs], plugin=plugin, runtime=runtime)


def _load(content: bytes) -> object:
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError is a ValueError
        raise Problem("", f"it is not JSON ({exc})") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _check_versions(document: Mapping[str, Any], plugin: str, requires_core: str) -> None:
    for key, supported, what in (
        ("schema", SCHEMA, "manifest format"),
        ("api", API, "plugin interface"),
    ):
        version = document.get(key)
        if type(version) is not int or version < 1:
            raise Problem(key, f"must be a positive integer, not {brief(version)}")
        if version > supported:
            needed = f"mcpd-core{requires_core}" if requires_core else "a newer mcpd-core"
            raise ManifestError(
                plugin,
                f"Plugin {plugin!r} needs {needed}: it is made for {what} {version}, and this "
                f"mcpd-core knows {what} {supported}.",
                hint=f"Upgrade it: pip install --upgrade 'mcpd-core{requires_core}'",
            )


def _plugin(item: Mapping[str, Any], name: str, runtime: RuntimeName) -> PluginManifest:
    path = f"plugins.{name}"
    declared = item.get("runtime", runtime)
    if declared != runtime:
        raise Problem(
            f"{path}.runtime",
            f"says {brief(declared)}, but the entry point is in the group of {runtime!r}",
        )
    provider = item.get("metadata_provider")
    if provider is not None:
        provider = as_line(provider, f"{path}.metadata_provider")
    return PluginManifest(
        name=name,
        runtime=runtime,
        tools=read_tools(item.get("tools", []), f"{path}.tools", name, runtime),
        bundles=as_lines(item.get("bundles", []), f"{path}.bundles"),
        hooks=as_lines(item.get("hooks", []), f"{path}.hooks"),
        metadata_provider=provider,
        commands=read_commands(item.get("commands", []), f"{path}.commands", name),
        resources=read_resources(item.get("resources", []), f"{path}.resources", name, runtime),
        prompts=read_prompts(item.get("prompts", []), f"{path}.prompts", name, runtime),
    )


# --- writing ------------------------------------------------------------------------------------


def render(plugins: Iterable[PluginManifest]) -> str:
    """Return the text of the manifest file that describes the plugins of one package.

    :raises PluginLoadError: when JSON cannot carry what a tool says, such as an infinite default.
    """
    document = {
        "schema": SCHEMA,
        "api": API,
        "plugins": {
            manifest.name: _render_plugin(manifest)
            for manifest in sorted(plugins, key=lambda manifest: manifest.name)
        },
    }
    # Not sorted by key: the order of a schema's properties is the order of the parameters.
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _render_plugin(manifest: PluginManifest) -> dict[str, Any]:
    item: dict[str, Any] = {
        "runtime": manifest.runtime,
        "bundles": sorted(manifest.bundles),
        "hooks": sorted(manifest.hooks),
        "metadata_provider": manifest.metadata_provider,
        "commands": [
            render_command(spec) for spec in sorted(manifest.commands, key=lambda spec: spec.name)
        ],
        "tools": [
            _carried(render_tool(spec, runtime=manifest.runtime), manifest.name)
            for spec in sorted(manifest.tools, key=lambda spec: spec.name)
        ],
        "resources": [
            render_resource(spec, runtime=manifest.runtime)
            for spec in sorted(manifest.resources, key=lambda spec: spec.uri)
        ],
        "prompts": [
            render_prompt(spec, runtime=manifest.runtime)
            for spec in sorted(manifest.prompts, key=lambda spec: spec.name)
        ],
    }
    return {key: value for key, value in item.items() if value or key == "tools"}


def _carried(tool: dict[str, Any], plugin: str) -> dict[str, Any]:
    try:
        json.dumps(tool, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as exc:
        raise PluginLoadError(
            plugin,
            f"The contract of tool {tool['name']!r} of plugin {plugin!r} cannot be written as "
            f"JSON: {exc}.",
            hint="Give its parameters defaults that JSON has: no infinity, no NaN.",
        ) from None
    return tool


def render_tool(spec: ToolSpec, *, runtime: RuntimeName) -> dict[str, Any]:
    """Return a tool as the manifest holds it, without what is the default.

    Two specs that render alike promise the same: this is how a stale manifest is told from a good
    one. Texts are cleaned as they are when a manifest is read.

    :param runtime: of the plugin; the tool's own is left out when it is the same.
    """
    default = Annotations()
    annotations = {
        key: getattr(spec.annotations, key)
        for key in ANNOTATIONS
        if getattr(spec.annotations, key) != getattr(default, key)
    }
    item: dict[str, Any] = {
        "name": spec.name,
        "title": _rendered(spec.title, one_line),
        "description": _rendered(spec.description, clean),
        "category": _rendered(spec.category, one_line),
        "input_schema": (
            None if spec.input_schema == no_arguments() else json_schema.cleaned(spec.input_schema)
        ),
        "output_schema": (
            None if spec.output_schema is None else json_schema.cleaned(spec.output_schema)
        ),
        "annotations": annotations,
        "runtime": None if spec.runtime == runtime else spec.runtime,
        "placement": None if spec.placement == "loop" else spec.placement,
        "entry": spec.entry,
        "timeout": spec.timeout,
        "long_running": spec.long_running,
        "aliases": list(spec.aliases),
        "tags": [_rendered(tag, one_line) for tag in spec.tags],
        "memory_mb": spec.memory_mb,
        "cpu_seconds": spec.cpu_seconds,
        "loader": spec.loader,
        "source": _rendered(spec.source, one_line),
        "process": spec.process,
    }
    kept = {key: value for key, value in item.items() if value not in (None, "", False, [], {})}
    return kept if spec.listed else {**kept, "listed": False}


def _rendered(text: Any, cleaning: Callable[[str], str]) -> Any:
    # What is no text is rendered as it is: to refuse it is for those who check contracts.
    return cleaning(text) if isinstance(text, str) else text
