"""The static manifest: what a plugin offers, readable without importing any of it.

``mcpd_plugin.json`` at the root of an import package describes the plugins of that package. Reading
is strict about what it knows, so that an error names the plugin and the place in the file, and
tolerant of keys that it does not know, so that a newer plugin can still be listed. Rendering is
deterministic: the same specs give the same bytes on every supported Python.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ManifestError
from .spec import PLACEMENTS, RUNTIMES, TOOL_NAME, Annotations, Placement, RuntimeName, ToolSpec

FILENAME = "mcpd_plugin.json"
#: The version of the file's format that is written, and the newest that can be read.
SCHEMA = 1
#: The version of the interface between core and plugins.
API = 1

_ENTRY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
_ANNOTATIONS = ("read_only", "destructive", "idempotent", "open_world")


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
    commands: tuple[Mapping[str, Any], ...] = ()


class _Problem(Exception):
    """What is wrong at one place of a file; becomes a `ManifestError` that names the plugin."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)


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
        document = _object(_load(content), "")
        _check_versions(document, plugin, requires_core)
        plugins = _object(document.get("plugins", {}), "plugins")
        if plugin not in plugins:
            known = ", ".join(sorted(plugins)) or "no plugin"
            raise _Problem("plugins", f"describes {known}, but not {plugin!r}")
        return _plugin(_object(plugins[plugin], f"plugins.{plugin}"), plugin, runtime)
    except _Problem as problem:
        raise ManifestError(
            plugin,
            f"The manifest of plugin {plugin!r} is not valid: {problem}.",
            hint="Make it anew with `mcpd plugins manifest DIR`, or reinstall the plugin.",
        ) from None


def parse_tools(items: object, *, plugin: str, runtime: RuntimeName) -> tuple[ToolSpec, ...]:
    """Read a list of tools, as a manifest holds it and as a metadata provider returns it.

    :raises ManifestError: when it is not a proper one.
    """
    try:
        return _tools(items, "tools", plugin, runtime)
    except _Problem as problem:
        raise ManifestError(
            plugin, f"The tools of plugin {plugin!r} are not described properly: {problem}."
        ) from None


def _load(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError is a ValueError
        raise _Problem("", f"it is not JSON ({exc})") from None


def _check_versions(document: Mapping[str, Any], plugin: str, requires_core: str) -> None:
    for key, supported, what in (
        ("schema", SCHEMA, "manifest format"),
        ("api", API, "plugin interface"),
    ):
        version = document.get(key)
        if type(version) is not int or version < 1:
            raise _Problem(key, f"must be a positive integer, not {_shown(version)}")
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
        raise _Problem(
            f"{path}.runtime",
            f"says {_shown(declared)}, but the entry point is in the group of {runtime!r}",
        )
    provider = item.get("metadata_provider")
    if provider is not None:
        _text(provider, f"{path}.metadata_provider")
    commands = _array(item.get("commands", []), f"{path}.commands")
    return PluginManifest(
        name=name,
        runtime=runtime,
        tools=_tools(item.get("tools", []), f"{path}.tools", name, runtime),
        bundles=_texts(item.get("bundles", []), f"{path}.bundles"),
        hooks=_texts(item.get("hooks", []), f"{path}.hooks"),
        metadata_provider=provider,
        commands=tuple(
            _object(command, f"{path}.commands[{i}]") for i, command in enumerate(commands)
        ),
    )


def _tools(items: object, path: str, plugin: str, runtime: RuntimeName) -> tuple[ToolSpec, ...]:
    specs = []
    owner: dict[str, str] = {}
    for i, item in enumerate(_array(items, path)):
        where = f"{path}[{i}]"
        spec = _tool(_object(item, where), where, plugin, runtime)
        for name in (spec.name, *spec.aliases):
            if name in owner:
                raise _Problem(where, f"the name {name!r} is taken by {owner[name]} already")
            owner[name] = where
        specs.append(spec)
    return tuple(specs)


def _tool(item: Mapping[str, Any], path: str, plugin: str, runtime: RuntimeName) -> ToolSpec:
    # A listing reads hundreds of tools: only the keys that are there are looked at.
    facts: dict[str, Any] = {}
    for key, value in item.items():
        check = _CHECKS.get(key)
        if check is not None and value is not None:
            facts[key] = check(value, f"{path}.{key}")
    if "name" not in facts:
        raise _Problem(path, "has no name")
    if "entry" not in facts:
        raise _Problem(path, f"tool {facts['name']!r} has no entry")
    own_runtime = facts.setdefault("runtime", runtime)
    if own_runtime != runtime and "any" not in (own_runtime, runtime):
        raise _Problem(
            f"{path}.runtime", f"{own_runtime!r} cannot be served by a plugin of {runtime!r}"
        )
    facts.setdefault("description", "")
    if "input_schema" not in facts:
        facts["input_schema"] = _no_arguments()
    return ToolSpec(plugin=plugin, **facts)


def _no_arguments() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Problem(path, f"must be an object, not {_shown(value)}")
    return value


def _array(value: object, path: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise _Problem(path, f"must be an array, not {_shown(value)}")
    return value


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _Problem(path, f"must be a string, not {_shown(value)}")
    return value


def _texts(value: object, path: str) -> tuple[str, ...]:
    return tuple(_text(item, f"{path}[{i}]") for i, item in enumerate(_array(value, path)))


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _Problem(path, f"must be true or false, not {_shown(value)}")
    return value


def _seconds(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise _Problem(path, f"must be a positive number of seconds, not {_shown(value)}")
    return value


def _tool_name(value: object, path: str) -> str:
    if not isinstance(value, str) or not TOOL_NAME.match(value):
        raise _Problem(
            path, f"{_shown(value)} is not a tool name: use 1 to 64 letters, digits, '_' and '-'"
        )
    return value


def _tool_names(value: object, path: str) -> tuple[str, ...]:
    return tuple(_tool_name(item, f"{path}[{i}]") for i, item in enumerate(_array(value, path)))


def _reference(value: object, path: str) -> str:
    if not isinstance(value, str) or not _ENTRY.match(value):
        raise _Problem(path, f"{_shown(value)} is not of the form `module:function`")
    return value


def _runtime(value: object, path: str) -> RuntimeName:
    if value not in RUNTIMES:
        raise _Problem(path, f"must be one of {', '.join(RUNTIMES)}, not {_shown(value)}")
    return value


def _placement(value: object, path: str) -> Placement:
    if value not in PLACEMENTS:
        raise _Problem(path, f"must be one of {', '.join(PLACEMENTS)}, not {_shown(value)}")
    return value


def _annotations(value: object, path: str) -> Annotations:
    item = _object(value, path)
    return Annotations(
        **{key: _flag(item[key], f"{path}.{key}") for key in _ANNOTATIONS if key in item}
    )


def _object_schema(value: object, path: str) -> dict[str, Any]:
    schema = _object(value, path)
    if schema.get("type") != "object":
        raise _Problem(f"{path}.type", f'must be "object", not {_shown(schema.get("type"))}')
    return schema


#: What a key of a tool must hold; the keys are the fields of `ToolSpec`.
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "name": _tool_name,
    "description": _text,
    "input_schema": _object_schema,
    "entry": _reference,
    "title": _text,
    "category": _text,
    "output_schema": _object_schema,
    "annotations": _annotations,
    "runtime": _runtime,
    "placement": _placement,
    "timeout": _seconds,
    "long_running": _flag,
    "aliases": _tool_names,
    "tags": _texts,
}


# --- writing ------------------------------------------------------------------------------------


def render(plugins: Iterable[PluginManifest]) -> str:
    """Return the text of the manifest file that describes the plugins of one package."""
    document = {
        "schema": SCHEMA,
        "api": API,
        "plugins": {
            manifest.name: _render_plugin(manifest)
            for manifest in sorted(plugins, key=lambda manifest: manifest.name)
        },
    }
    # Not sorted by key: the order of a schema's properties is the order of the parameters.
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _render_plugin(manifest: PluginManifest) -> dict[str, Any]:
    item: dict[str, Any] = {
        "runtime": manifest.runtime,
        "bundles": sorted(manifest.bundles),
        "hooks": sorted(manifest.hooks),
        "metadata_provider": manifest.metadata_provider,
        "commands": list(manifest.commands),
        "tools": [
            render_tool(spec, runtime=manifest.runtime)
            for spec in sorted(manifest.tools, key=lambda spec: spec.name)
        ],
    }
    return {key: value for key, value in item.items() if value or key == "tools"}


def render_tool(spec: ToolSpec, *, runtime: RuntimeName) -> dict[str, Any]:
    """Return a tool as the manifest holds it, without what is the default.

    Two specs that render alike promise the same: this is how a stale manifest is told from a good
    one.

    :param runtime: of the plugin; the tool's own is left out when it is the same.
    """
    default = Annotations()
    annotations = {
        key: getattr(spec.annotations, key)
        for key in _ANNOTATIONS
        if getattr(spec.annotations, key) != getattr(default, key)
    }
    item: dict[str, Any] = {
        "name": spec.name,
        "title": spec.title,
        "description": spec.description,
        "category": spec.category,
        "input_schema": None if spec.input_schema == _no_arguments() else spec.input_schema,
        "output_schema": spec.output_schema,
        "annotations": annotations,
        "runtime": None if spec.runtime == runtime else spec.runtime,
        "placement": None if spec.placement == "loop" else spec.placement,
        "entry": spec.entry,
        "timeout": spec.timeout,
        "long_running": spec.long_running,
        "aliases": list(spec.aliases),
        "tags": list(spec.tags),
    }
    return {key: value for key, value in item.items() if value not in (None, "", False, [], {})}
