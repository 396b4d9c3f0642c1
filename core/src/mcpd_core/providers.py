"""Metadata providers: the one kind of plugin code that listing may run.

A plugin whose tools are found by looking at files rather than written down in its manifest names a
module with a function ``tools(plugin)`` that returns them as a manifest would hold them. The module
uses the standard library only, so that listing stays cheap. It is run like any plugin code: on the
import thread, with a time limit, and its failure is the failure of its plugin alone.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from .errors import ManifestError, PluginLoadError
from .manifest import PluginManifest, parse_tools
from .spec import RuntimeName, ToolSpec

#: Seconds that one provider may take; a listing waits for it.
TIME_LIMIT = 10.0


def provided_tools(
    described: PluginManifest, runtime: RuntimeName, *, timeout: float = TIME_LIMIT
) -> tuple[tuple[ToolSpec, ...], str]:
    """Ask a plugin's metadata provider for its tools.

    :param described: the manifest, which names the provider.
    :param timeout: seconds.
    :returns: the tools of the manifest and those of the provider, and what is wrong, if anything.
    """
    from .importer import Importer

    module = described.metadata_provider

    def ask(tools: Any) -> tuple[ToolSpec, ...] | ManifestError:
        # What a provider prints must not get into the output of `plugins list --json`. Its answer
        # may run code of its own while it is read, so it is read here, within the time limit.
        with contextlib.redirect_stdout(sys.stderr):
            answer = tools(described.name)
            items = list(answer) if not isinstance(answer, (list, tuple)) else answer
            try:
                return parse_tools(items, plugin=described.name, runtime=runtime)
            except ManifestError as exc:
                return exc

    importer = Importer(timeout=timeout)
    try:
        answer = importer.load(f"{module}:tools", plugin=described.name, then=ask).result()
        if isinstance(answer, ManifestError):
            raise answer
        tools: tuple[ToolSpec, ...] = answer
    except (ManifestError, PluginLoadError) as exc:
        return described.tools, f"Its metadata provider {module} failed. {exc}"
    names = {name for spec in described.tools for name in (spec.name, *spec.aliases)}
    for spec in tools:
        if taken := names.intersection((spec.name, *spec.aliases)):
            name = min(taken)
            return described.tools, (
                f"Its metadata provider {module} offers {name!r}, which is in its manifest already."
            )
    return (*described.tools, *tools), ""
