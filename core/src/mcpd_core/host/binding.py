"""From a tool's contract to code that can run: imported once, on its first call."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ..errors import PluginLoadError, ToolUnavailable
from ..foreign import ForeignFunction, start_loading
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
    :ivar target: where it runs; ``thread`` is a worker thread, for a ``def``.
    :ivar own_thread: whether the library of ``target`` runs it in the thread of its plugin.
    """

    declared: ToolSpec
    spec: ToolSpec
    function: ToolFunction | ForeignFunction
    target: Target
    own_thread: bool = False


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
        #: Calls that come while a loader works wait for what it makes.
        self._loading: dict[int, asyncio.Task[ForeignFunction]] = {}
        self._users: set[str] = set()
        #: What ran on the host's loop before `move_to_thread`.
        self._moved: dict[str, Bound] = {}

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
        stays = bool(spec.loader) and spec.placement == "process"
        if selected.placement != "process" and not stays:
            function = await self._load(spec)
            # The code's own word counts where its manifest is older.
            if function.spec.placement != "process":
                bound = _bound(spec, selected, function)
        self._bound[spec.label] = bound
        return bound

    def note_service(self, spec: Offer) -> None:
        """Note that a tool uses a service, whose owner's thread it has to stay in; one that was
        moved runs where it did before from its next call on."""
        self._users.add(spec.label)
        moved, bound = self._moved.pop(spec.label, None), self._bound.get(spec.label)
        if moved is not None and bound is not None and moved.declared is bound.declared:
            self._bound[spec.label] = moved

    def move_to_thread(self, label: str) -> bool:
        """Run the later calls of a tool that has blocked the host's loop outside of its thread: an
        ``async def`` in the thread of its plugin, a ``def`` in a worker thread.

        :param label: of its contract.
        :returns: whether that is so now. It is not for a tool that has used a service, because what
            it holds of it belongs to its owner's thread; nor for what is no tool, or has not been
            called yet.
        """
        bound = self._bound.get(label)
        if not isinstance(bound, Bound):
            return False
        if bound.own_thread or bound.target == "thread":
            return True
        if label in self._users:
            return False
        spec = replace(bound.spec, placement="thread")
        self._moved[label] = bound
        self._bound[label] = _bound(bound.declared, spec, bound.function)
        return True

    async def _load(self, spec: ToolSpec) -> ToolFunction | ForeignFunction:
        if spec.loader:
            return await self._load_foreign(spec)
        try:
            loaded = await asyncio.wrap_future(self._importer.load(spec.entry, plugin=spec.plugin))
            function = ToolFunction(loaded, plugin=spec.plugin, runtime=spec.runtime)
        except PluginLoadError as error:
            raise _unavailable(spec, error) from error
        if render_tool(function.spec, runtime="any") != render_tool(spec, runtime="any"):
            self.report_stale(spec)
        return function

    async def _load_foreign(self, spec: ToolSpec) -> ForeignFunction:
        # Nothing else has this id: the callback holds the contract for as long as it is a key.
        loading = self._loading.get(id(spec))
        if loading is None:
            loading = self._loading[id(spec)] = asyncio.ensure_future(self._run_loader(spec))
            loading.add_done_callback(lambda _: self._loading.pop(id(spec)))
        return await asyncio.shield(loading)

    async def _run_loader(self, spec: ToolSpec) -> ForeignFunction:
        try:
            load = await asyncio.wrap_future(self._importer.load(spec.loader, plugin=spec.plugin))
            return await asyncio.wrap_future(start_loading(self._importer, load, spec))
        except PluginLoadError as error:
            raise _unavailable(spec, error) from error

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


def _bound(
    declared: ToolSpec, selected: ToolSpec, function: ToolFunction | ForeignFunction
) -> Bound:
    code = function.spec.placement
    if not function.is_async and (code == "thread" or selected.placement == "thread"):
        # Whatever the manifest says: only the code's own word puts a `def` on the loop.
        return Bound(declared, selected, function, "thread")
    # Unless a hook has said otherwise, the code's own word counts where its manifest is older.
    placement = code if selected is declared else selected.placement
    own_thread = function.is_async and "thread" in (placement, selected.placement)
    return Bound(declared, selected, function, selected.runtime, own_thread)
