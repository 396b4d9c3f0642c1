"""From a tool's contract to code that can run: imported once, on its first call."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Literal

from ..errors import PluginLoadError, ToolUnavailable
from ..hooks import Hooks
from ..importer import Importer
from ..manifest import render_tool
from ..schema import ToolFunction
from ..spec import ToolSpec

_log = logging.getLogger(__name__)

#: Where the bound function runs.
Target = Literal["asyncio", "trio", "any", "thread"]


@dataclass(frozen=True)
class Bound:
    """A tool whose code is loaded.

    :ivar declared: the contract as its plugin states it.
    :ivar spec: the same with runtime and placement as they were selected.
    :ivar function: the code, its argument check and the shape of its answer.
    :ivar target: where it runs.
    """

    declared: ToolSpec
    spec: ToolSpec
    function: ToolFunction
    target: Target


class Binder:
    """Loads the code of tools and keeps it. Used on the host's loop."""

    def __init__(self, importer: Importer, hooks: Hooks) -> None:
        self._importer = importer
        self._hooks = hooks
        self._bound: dict[str, Bound] = {}

    def get(self, spec: ToolSpec) -> Bound | None:
        """Return a tool that is bound already."""
        bound = self._bound.get(spec.name)
        # Another plugin may offer the name by now.
        return bound if bound is not None and bound.declared is spec else None

    async def bind(self, spec: ToolSpec) -> Bound:
        """Import a tool's code, check it against its contract and choose where it runs.

        :raises ToolUnavailable: when the code cannot be loaded or cannot run here.
        """
        try:
            loaded = await asyncio.wrap_future(self._importer.load(spec.entry, plugin=spec.plugin))
            function = ToolFunction(loaded, plugin=spec.plugin, runtime=spec.runtime)
        except PluginLoadError as error:
            raise ToolUnavailable(
                f"The tool {spec.name!r} of the plugin {spec.plugin!r} cannot be loaded: "
                f"{error.message}",
                hint=error.hint,
            ) from error
        if render_tool(function.spec, runtime="any") != render_tool(spec, runtime="any"):
            _log.warning(
                "The manifest of the plugin %s is stale: the tool %s has changed since. "
                "Run `mcpd plugins manifest` on the plugin's folder.",
                spec.plugin,
                spec.name,
            )
        selected = self._hooks.select_runtime(spec, ("asyncio", "trio", "thread")) or spec
        bound = Bound(spec, selected, function, _target(selected, function))
        self._bound[spec.name] = bound
        return bound


def _target(spec: ToolSpec, function: ToolFunction) -> Target:
    if spec.placement == "process":
        raise ToolUnavailable(
            f"The tool {spec.name!r} asks to run in a process of its own, which this version "
            f"of mcpd cannot do.",
            hint='Let its plugin declare placement="thread" or "loop".',
        )
    if not function.is_async and function.spec.placement == "thread":
        # Whatever the manifest says: only the code's own word puts a `def` on the loop.
        return "thread"
    if spec.placement == "thread":
        if function.is_async:
            raise ToolUnavailable(
                f"The tool {spec.name!r} is an `async def`, which cannot run in a thread.",
                hint='Let its plugin declare placement="loop".',
            )
        return "thread"
    return spec.runtime
