"""Making a plugin's manifest from its code, for ``mcpd plugins manifest DIR``.

The plugin's module is imported, its ``mcpd_register_tools`` hook says which functions are tools,
and their annotations say the rest. What is not known from them, the bundles, the commands and the
metadata provider, is read from the ``[tool.mcpd]`` table of the plugin's ``pyproject.toml``. The
same sources give the same bytes on every supported Python, so a check for drift compares bytes.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, cast

from .commands import read_commands
from .content.contract import offered_by_both
from .contract import Problem, as_object
from .discovery import GROUP
from .errors import ManifestError, PluginLoadError
from .hooks import Hooks
from .importer import Importer
from .manifest import FILENAME, PluginManifest, render
from .packages import PackageNotImportable, package_directories
from .registrar import ToolRegistrar
from .spec import RUNTIMES, CommandSpec, RuntimeName

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the same module under its older name
    import tomli as tomllib

#: Seconds that importing one plugin may take.
IMPORT_TIMEOUT = 60.0

_KEYS = ("bundles", "commands", "metadata-provider", "plugins")


@dataclass(frozen=True)
class ManifestFile:
    """The manifest of one import package: what it should hold, and what it holds.

    :ivar text: what the sources say.
    :ivar current: what the file holds, ``None`` when there is none.
    """

    path: Path
    plugins: tuple[PluginManifest, ...]
    text: str
    current: str | None

    @property
    def stale(self) -> bool:
        """Whether the file is missing or does not say what the sources say."""
        return self.text != self.current

    def changes(self) -> list[str]:
        """Return what is stale, a line for each tool or other part, sorted."""
        if self.current is None:
            return [f"{self.path} is missing"]
        old, new = _parts(self.current), _parts(self.text)
        if old == new and self.stale:
            return [f"{self.path} is not written as `mcpd plugins manifest` writes it"]
        changes = [f"{part} is new" for part in new.keys() - old.keys()]
        changes += [f"{part} is gone" for part in old.keys() - new.keys()]
        changes += [
            f"{part} has changed" for part in old.keys() & new.keys() if old[part] != new[part]
        ]
        return sorted(changes)

    def write(self) -> bool:
        """Bring the file up to date; readers see the old or the new one, never a part.

        :returns: whether it had to be written.
        """
        if not self.stale:
            return False
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_bytes(self.text.encode())
        os.replace(temporary, self.path)
        return True


def generate(directory: Path) -> tuple[ManifestFile, ...]:
    """Derive the manifests of the plugins in a source directory. Nothing is written.

    The plugins are imported from the directory, whether or not they are installed.

    :param directory: holds the ``pyproject.toml`` that declares the plugins' entry points.
    :returns: one file for each import package, sorted by path.
    :raises ManifestError: when the directory or its ``pyproject.toml`` does not fit.
    :raises PluginLoadError: when a plugin cannot be imported, or says what cannot be.
    """
    directory = directory.resolve()
    project = _read_project(directory)
    packages: dict[Path, list[PluginManifest]] = {}
    with _importable(directory):
        for name, runtime, entry in _entry_points(project, directory):
            root = _package_root(name, entry, directory)
            described = _describe(name, runtime, entry, _options(project, name, directory), root)
            packages.setdefault(root, []).append(described)
    _check_names([plugin for plugins in packages.values() for plugin in plugins])
    files = []
    for root in sorted(packages):
        path = root / FILENAME
        current = path.read_bytes().decode("utf-8", "replace") if path.exists() else None
        files.append(ManifestFile(path, tuple(packages[root]), render(packages[root]), current))
    return tuple(files)


def _parts(text: str) -> dict[str, object]:
    """Take a manifest's text apart, so that two of them can be compared tool by tool."""
    parts: dict[str, object] = {}
    try:
        document = json.loads(text)
        for name, plugin in document.pop("plugins").items():
            for kind, key in (("tool", "name"), ("resource", "uri"), ("prompt", "name")):
                for item in plugin.pop(f"{kind}s", []):
                    parts[f"{kind} {item[key]!r} of plugin {name!r}"] = item
            parts[f"plugin {name!r}"] = plugin
        parts["the head of the file"] = document
    except (ValueError, KeyError, TypeError, AttributeError):
        parts["the whole file"] = text
    return parts


# --- pyproject.toml -----------------------------------------------------------------------------


def _read_project(directory: Path) -> Mapping[str, Any]:
    path = directory / "pyproject.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ManifestError(
            "",
            f"{path} cannot be read: {exc.strerror}.",
            hint="Name the directory that holds the plugin's pyproject.toml.",
        ) from None
    except ValueError as exc:
        raise ManifestError("", f"{path} is not valid: {exc}.") from None


def _entry_points(
    project: Mapping[str, Any], directory: Path
) -> list[tuple[str, RuntimeName, str]]:
    found = []
    for group, entries in project.get("project", {}).get("entry-points", {}).items():
        if not group.startswith(GROUP):
            continue
        runtime = group[len(GROUP) :]
        if runtime not in RUNTIMES:
            raise ManifestError(
                "",
                f"{directory / 'pyproject.toml'} declares the entry-point group {group!r}, whose "
                f"runtime {runtime!r} is unknown.",
                hint=f"Known are {', '.join(RUNTIMES)}.",
            )
        found += [(name, cast(RuntimeName, runtime), entry) for name, entry in entries.items()]
    if not found:
        raise ManifestError(
            "",
            f"{directory / 'pyproject.toml'} declares no plugin.",
            hint=f'Add [project.entry-points."{GROUP}asyncio"] (or trio, or any) with a line '
            '`name = "package.module"`.',
        )
    return sorted(found)


def _options(project: Mapping[str, Any], plugin: str, directory: Path) -> Mapping[str, Any]:
    """Return what ``[tool.mcpd]`` says about a plugin, its own table over the common one."""
    table = project.get("tool", {}).get("mcpd", {})
    own = table.get("plugins", {}).get(plugin, {})
    for place, item in (("tool.mcpd", table), (f"tool.mcpd.plugins.{plugin}", own)):
        for key in item:
            if key not in _KEYS:
                close = difflib.get_close_matches(key, _KEYS, n=1)
                raise ManifestError(
                    plugin,
                    f"{directory / 'pyproject.toml'}: [{place}] has the unknown key {key!r}.",
                    hint=f"Did you mean {close[0]!r}?" if close else "",
                )
    options = {**table, **own}
    bundles, provider = options.get("bundles", []), options.get("metadata-provider")
    if not isinstance(bundles, list) or not all(isinstance(bundle, str) for bundle in bundles):
        raise ManifestError(plugin, "[tool.mcpd] bundles must be an array of strings.")
    if provider is not None and not isinstance(provider, str):
        raise ManifestError(plugin, "[tool.mcpd] metadata-provider must be the name of a module.")
    return options


def _commands(options: Mapping[str, Any], plugin: str) -> tuple[CommandSpec, ...]:
    """Return the commands that ``[tool.mcpd.commands]`` declares."""
    table = options.get("commands", {})
    try:
        items = [
            {**as_object(facts, f"[tool.mcpd.commands.{name}]"), "name": name}
            for name, facts in as_object(table, "[tool.mcpd] commands").items()
        ]
        for item in items:
            if unknown := sorted(item.keys() - {"name", "entry", "help"}):
                where = f"[tool.mcpd.commands.{item['name']}]"
                raise Problem(where, f"has the unknown key {unknown[0]!r}; known are entry, help")
        return read_commands(items, "[tool.mcpd.commands]", plugin)
    except Problem as problem:
        raise ManifestError(plugin, f"pyproject.toml: {problem}.") from None


# --- code ---------------------------------------------------------------------------------------


@contextmanager
def _importable(directory: Path) -> Iterator[None]:
    """Make the sources in a directory the first to be imported."""
    roots = [str(root) for root in (directory / "src", directory) if root.is_dir()]
    sys.path[:0] = roots
    try:
        yield
    finally:
        for root in roots:
            sys.path.remove(root)


def _package_root(name: str, entry: str, directory: Path) -> Path:
    module = entry.partition(":")[0].strip()
    try:
        roots = [Path(root).resolve() for root in package_directories(module)]
    except PackageNotImportable as exc:
        raise PluginLoadError(
            name, f"The entry point {entry!r} of plugin {name!r} leads nowhere: {exc}."
        ) from None
    if not roots:
        raise ManifestError(
            name,
            f"Plugin {name!r} is the single module {module!r}, which has no room for a manifest.",
            hint="Make it a package, or leave it without a manifest.",
        )
    for root in roots:
        if root.is_relative_to(directory):
            return root
    raise PluginLoadError(
        name, f"Plugin {name!r} is imported from {roots[0]}, which is not in {directory}."
    )


def _describe(
    name: str, runtime: RuntimeName, entry: str, options: Mapping[str, Any], root: Path
) -> PluginManifest:
    module = entry.partition(":")[0].strip()
    provider = options.get("metadata-provider")
    commands = _commands(options, name)

    def collect(plugin: object) -> PluginManifest:
        loaded = Path(getattr(sys.modules[module], "__file__", None) or "").resolve()
        if not loaded.is_relative_to(root):
            raise PluginLoadError(
                name,
                f"Plugin {name!r} was imported from {loaded}, not from {root}.",
                hint="Uninstall the other copy, or install this one with pip install --editable.",
            )
        hooks = Hooks()
        implemented = hooks.register(plugin, name)
        registrar = ToolRegistrar(name, runtime)
        hooks.register_tools(registrar)
        if not implemented and provider is None and not commands:
            raise PluginLoadError(
                name,
                f"{entry} of plugin {name!r} implements no hook.",
                hint="Add mcpd_register_tools with the @hookimpl mark.",
            )
        return PluginManifest(
            name=name,
            runtime=runtime,
            tools=registrar.specs,
            bundles=tuple(options.get("bundles", ())),
            # With a manifest nobody has to be asked which tools there are.
            hooks=tuple(hook for hook in implemented if hook != "mcpd_register_tools"),
            metadata_provider=provider,
            resources=registrar.resources,
            prompts=registrar.prompts,
            commands=commands,
        )

    loading = Importer(IMPORT_TIMEOUT).load(entry.replace(" ", ""), plugin=name, then=collect)
    return cast(PluginManifest, loading.result())


def _check_names(plugins: list[PluginManifest]) -> None:
    owners: dict[str, str] = {}
    for plugin in plugins:
        for spec in plugin.tools:
            for tool in (spec.name, *spec.aliases):
                other = owners.setdefault(tool, plugin.name)
                if other != plugin.name:
                    raise PluginLoadError(
                        plugin.name,
                        f"The plugins {other!r} and {plugin.name!r} both offer a tool {tool!r}.",
                    )
    for one, two in combinations(plugins, 2):
        for label in offered_by_both(one, two):
            raise PluginLoadError(
                two.name, f"The plugins {one.name!r} and {two.name!r} both offer the {label}."
            )
