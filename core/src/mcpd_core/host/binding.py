"""From a tool's contract to code that can run: imported once, on its first call."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import PluginLoadError, ToolUnavailable
from ..hooks import Hooks
from ..importer import Importer
from ..manifest import render_tool
from ..schema import ToolFunction
from ..spec import Offer, ToolSpec

if TYPE_CHECKING:
    from .content_binding import BoundContent

_log = logging.getLogger(__name__)

#: Where the bound function runs.
Target = Literal["asyncio", "trio", "any", "thread"]
#: Where a tool may be put by ``mcpd_select_runtime``.
_AVAILABLE = ("asyncio", "trio", "thread", "process")


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


@dataclass(frozen=True)
class Apart:
    """A tool that runs in a process of its own; its code is loaded there, and not here.

    :ivar declared: the contract as its plugin states it.
    :ivar spec: the same with runtime and placement as they were selected.
    """

    declared: ToolSpec
    spec: ToolSpec


class Binder:
    """Loads the code of tools and keeps it. Used on the host's loop."""

    def __init__(self, importer: Importer, hooks: Hooks) -> None:
        self._importer = importer
        self._hooks = hooks
        self._bound: dict[str, Bound | Apart | BoundContent] = {}
        self._stale: set[tuple[str, str]] = set()

    def get(self, spec: Offer) -> Bound | Apart | BoundContent | None:
        """Return what is bound already."""
        bound = self._bound.get(spec.label)
        # Another plugin may offer the name by now.
        return bound if bound is not None and bound.declared is spec else None

    async def bind(self, spec: Offer) -> Bound | Apart | BoundContent:
        """Choose where a tool runs; unless that is a process, import its code and check it against
        its contract.

        :raises ToolUnavailable: when the code cannot be loaded or cannot run here.
        """
        if not isinstance(spec, ToolSpec):
            content = await self._load_content(spec)
            self._bound[spec.label] = content
            return content
        selected = self._hooks.select_runtime(spec, _AVAILABLE) or spec
        bound: Bound | Apart = Apart(spec, selected)
        if selected.placement != "process":
            function = await self._load(spec)
            # The code's own word counts where its manifest is older.
            if function.spec.placement != "process":
                bound = Bound(spec, selected, function, _target(selected, function))
        self._bound[spec.label] = bound
        return bound

    async def _load(self, spec: ToolSpec) -> ToolFunction:
        try:
            loaded = await asyncio.wrap_future(self._importer.load(spec.entry, plugin=spec.plugin))
            function = ToolFunction(loaded, plugin=spec.plugin, runtime=spec.runtime)
        except PluginLoadError as error:
            raise _unavailable(spec, error) from error
        if render_tool(function.spec, runtime="any") != render_tool(spec, runtime="any"):
            self.report_stale(spec)
        return function

    async def _load_content(self, spec: Offer) -> BoundContent:
        from .content_binding import bind_content  # most plugins have tools alone

        try:
            loaded = await asyncio.wrap_future(self._importer.load(spec.entry, plugin=spec.plugin))
            bound = bind_content(loaded, spec)
        except PluginLoadError as error:
            raise _unavailable(spec, error) from error
        if bound.stale:
            self.report_stale(spec)
        return bound

    def report_stale(self, spec: Offer) -> None:
        """Say, once, that the code promises something else than the manifest."""
        if (spec.plugin, spec.label) not in self._stale:
            self._stale.add((spec.plugin, spec.label))
            _log.warning(
                "The manifest of the plugin %s is stale: the %s has changed since. "
                "Run `mcpd plugins manifest` on the plugin's folder.",
                spec.plugin,
                spec.label,
            )


def _unavailable(spec: Offer, error: PluginLoadError) -> ToolUnavailable:
    return ToolUnavailable(
        f"The {spec.label} of the plugin {spec.plugin!r} cannot be loaded: {error.message}",
        hint=error.hint,
    )


def _target(spec: ToolSpec, function: ToolFunction) -> Target:
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
