"""Metadata providers: the one kind of plugin code that listing may run.

A plugin whose tools are found by looking at files rather than written down in its manifest names a
module with a function ``tools(plugin)``, or ``tools(plugin, section)``, that returns them as a
manifest would hold them; ``section`` is the plugin's section of the settings. The module uses the
standard library only, so that listing stays cheap. It is run like any plugin code: on the import
thread, with a time limit, and its failure is the failure of its plugin alone.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import ManifestError, PluginLoadError
from .json_schema import brief
from .manifest import PluginManifest, parse_tools
from .spec import RuntimeName, ToolSpec
from .text import one_line

#: Seconds that one provider may take; a listing waits for it.
TIME_LIMIT = 10.0


@dataclass(frozen=True)
class Provided:
    """What a plugin offers, its metadata provider included.

    :ivar tools: the tools of the manifest and those of the provider.
    :ivar problem: what is wrong, if anything.
    :ivar note: what the provider wants a person to know although nothing is wrong with the plugin.
    """

    tools: tuple[ToolSpec, ...]
    problem: str = ""
    note: str = ""


def provided_tools(
    described: PluginManifest,
    runtime: RuntimeName,
    section: Mapping[str, Any] | None = None,
    *,
    timeout: float = TIME_LIMIT,
) -> Provided:
    """Ask a plugin's metadata provider for its tools.

    :param described: the manifest, which names the provider.
    :param section: the section of the settings that has the plugin's name, as it is written.
    :param timeout: seconds.
    """
    from .importer import Importer

    module = described.metadata_provider

    def ask(tools: Any) -> Provided | ManifestError:
        # What a provider prints must not get into the output of `plugins list --json`. Its answer
        # may run code of its own while it is read, so it is read here, within the time limit.
        with contextlib.redirect_stdout(sys.stderr):
            answer = _asked(tools, described.name, section or {})
            try:
                return _read(answer, described.name, runtime)
            except ManifestError as exc:
                return exc

    importer = Importer(timeout=timeout)
    try:
        answer = importer.load(f"{module}:tools", plugin=described.name, then=ask).result()
        if isinstance(answer, ManifestError):
            raise answer
        provided: Provided = answer
    except (ManifestError, PluginLoadError) as exc:
        return Provided(described.tools, f"Its metadata provider {module} failed. {exc}")
    names = {name for spec in described.tools for name in (spec.name, *spec.aliases)}
    for spec in provided.tools:
        if taken := names.intersection((spec.name, *spec.aliases)):
            name = min(taken)
            problem = f"offers {name!r}, which is in its manifest already."
            return Provided(described.tools, f"Its metadata provider {module} {problem}")
    return replace(provided, tools=(*described.tools, *provided.tools))


def _asked(tools: Any, plugin: str, section: Mapping[str, Any]) -> Any:
    try:
        inspect.signature(tools).bind(plugin, section)
    except (TypeError, ValueError):
        return tools(plugin)
    return tools(plugin, section)


def _read(answer: Any, plugin: str, runtime: RuntimeName) -> Provided:
    note = ""
    if isinstance(answer, Mapping):
        note = answer.get("note", "")
        if not isinstance(note, str):
            problem = f"The note of plugin {plugin!r} must be a string, not {brief(note)}."
            raise ManifestError(plugin, problem)
        answer = answer.get("tools", ())
    items = list(answer) if not isinstance(answer, (list, tuple)) else answer
    return Provided(parse_tools(items, plugin=plugin, runtime=runtime), note=one_line(note))
