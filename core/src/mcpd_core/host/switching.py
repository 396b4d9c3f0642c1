"""Enabling and disabling plugins while they are served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pydantic

from ..choices import disabled_reason, find, remember
from ..discovery import same_name
from ..errors import HostClosed, McpdError, PluginLoadError, SelectionError
from ..hooks import Hooks
from ..inventory import Inventory, PluginRow, mark_conflicts
from ..manifest import PluginManifest
from ..providers import provided_tools
from ..selection import available_runtimes
from ..spec import RuntimeName
from .plugins import misfit
from .services import Services
from .usage import Usage

if TYPE_CHECKING:
    from .host import Host

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Switched:
    """What came of enabling or disabling a plugin.

    :ivar name: the plugin.
    :ivar distribution: which one it is from.
    :ivar enabled: whether its tools are offered now.
    :ivar changed: whether they were not before, or were.
    :ivar running: calls of a disabled plugin that still run; its services stop after them.
    :ivar remembered: whether the choice is kept in the data directory.
    :ivar until_restart: whether the server was started with plugins named, which counts more than
        the choice when it is started so again.
    """

    name: str
    distribution: str
    enabled: bool
    changed: bool
    running: int = 0
    remembered: bool = True
    until_restart: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


class Switches:
    """Enables and disables the plugins of a host, one at a time. Used on the host's loop."""

    def __init__(self, host: Host, hooks: Hooks, services: Services, usage: Usage) -> None:
        self._host = host
        self._hooks = hooks
        self._services = services
        self._usage = usage
        self._lock = asyncio.Lock()
        self._leaving: dict[str, _Leaving] = {}
        # Only those that were to be enabled have been asked for what their manifest does not say.
        rows = host.inventory.rows
        self._asked = {row.label for row in rows if row.state != "disabled"}

    async def set(self, name: str, enabled: bool) -> Switched:
        """See `Host.set_enabled`."""
        async with self._lock:
            row = find(self._host.inventory.rows, name)
            was = row.state == "enabled"
            if enabled and not was:
                await self._enable(row)
            elif not enabled:
                self._disable(row)
            if self._host.data_dir is not None:
                await asyncio.to_thread(remember, self._host.data_dir, row.label, enabled)
            return Switched(
                row.name,
                row.distribution,
                enabled,
                changed=was is not enabled,
                running=0 if enabled else self._usage[row.name],
                remembered=self._host.data_dir is not None,
                until_restart=self._host.settings.serve.plugins is not None,
            )

    async def aclose(self) -> None:
        """Wait for what is being put away."""
        leaving = [each.task for each in self._leaving.values()]
        if leaving:
            # Without a limit of its own: the calls have been cancelled, and services have theirs.
            await asyncio.wait(leaving)

    # --- disabling --------------------------------------------------------------------------------

    def _disable(self, row: PluginRow) -> None:
        reason = disabled_reason(row.name)
        self._revise(row, replace(row, state="disabled", reason=reason))
        if row.state != "disabled" and row.name not in self._leaving:
            leaving = _Leaving()
            leaving.task = asyncio.ensure_future(self._put_away(row.name, leaving))
            self._leaving[row.name] = leaving

    async def _put_away(self, plugin: str, leaving: _Leaving) -> None:
        """Stop what a disabled plugin has running, after its calls in flight have ended."""
        try:
            await self._usage.none_of(plugin)
            leaving.begun = True
            await self._services.withdraw(plugin)
            self._hooks.unregister(plugin)
            self._host.lanes.dismiss(plugin)
            self._host.plugin_settings.pop(plugin, None)
        except Exception:  # noqa: BLE001 - the boundary: nobody awaits this
            _log.exception("The plugin %s could not be put away.", plugin)
        finally:
            if self._leaving.get(plugin) is leaving:
                del self._leaving[plugin]

    async def _return(self, plugin: str) -> bool:
        """Keep a plugin that is about to be put away; whether everything of it is still there."""
        leaving = self._leaving.get(plugin)
        if leaving is None:
            return False
        if not leaving.begun:
            leaving.task.cancel()
        await asyncio.wait([leaving.task])
        # One that was cancelled before its first step has not removed itself.
        self._leaving.pop(plugin, None)
        return not leaving.begun

    # --- enabling ---------------------------------------------------------------------------------

    async def _enable(self, row: PluginRow) -> None:
        """Offer a plugin's tools.

        :raises SelectionError: when that cannot be; nothing has changed then.
        """
        if self._host.closing:
            raise HostClosed("The server is shutting down.", hint="Try again when it is back.")
        if row.state in ("broken", "missing-runtime"):
            raise _impossible(row, row.state, row.reason, "Mend it, and restart the server.")
        if row.runtime not in available_runtimes():
            raise _impossible(row, "missing-runtime", f"{row.runtime} cannot be imported here.")
        self._expect_no_rival(row)
        if await self._return(row.name):
            self._revise(row, replace(row, state="enabled", reason=row.note))
            return
        try:
            known = await self._take_in(row)
            self._expect_no_rival(known)
            self._revise(row, known)
        except BaseException as error:
            await self._services.withdraw(row.name)
            self._hooks.unregister(row.name)
            self._host.plugin_settings.pop(row.name, None)
            if isinstance(error, McpdError) and not isinstance(error, SelectionError):
                raise _impossible(row, "broken", error.message, error.hint) from error
            raise
        await self._services.start_all(row.name)

    async def _take_in(self, row: PluginRow) -> PluginRow:
        """Do for one plugin what `enlist` does for all; return the row with all that it offers."""
        known = replace(row, state="enabled", reason=row.note)
        if row.label not in self._asked and row.metadata_provider is not None:
            described = PluginManifest(
                row.name,
                cast(RuntimeName, row.runtime),
                row.tools,
                metadata_provider=row.metadata_provider,
            )
            section = self._host.settings.section(row.name)
            provided = await asyncio.to_thread(
                provided_tools, described, described.runtime, section
            )
            if provided.problem:
                raise PluginLoadError(row.name, provided.problem)
            known = replace(known, tools=provided.tools, reason=provided.note, note=provided.note)
        if row.hooks or row.dynamic:
            known = await self._take_up(known)
        self._asked.add(row.label)
        return known

    async def _take_up(self, row: PluginRow) -> PluginRow:
        host, hooks, runtime = self._host, self._hooks, cast(RuntimeName, row.runtime)
        plugin = await asyncio.wrap_future(host.importer.load(row.entry, plugin=row.name))
        # It may be there from before: a plugin that came to be in conflict while it was served.
        hooks.unregister(row.name)
        hooks.register(plugin, row.name, requires_core=row.requires_core)
        if row.dynamic:
            from ..registrar import ToolRegistrar  # a manifest is the rule

            registrar = ToolRegistrar(row.name, runtime)
            await asyncio.wrap_future(
                host.importer.load(
                    row.entry, plugin=row.name, then=lambda _: hooks.register_tools(registrar)
                )
            )
            row = replace(
                row,
                tools=registrar.specs,
                resources=registrar.resources,
                prompts=registrar.prompts,
            )
        specs = hooks.tool_metadata(row.name, runtime)
        if specs is not None:
            row = replace(row, tools=specs)
        self._read_settings(row.name)
        for owner, service in hooks.services(only=row.name):
            self._services.declare(owner, service)
        for owner, transport in hooks.transports(only=row.name):
            self._services.declare_transport(owner, transport)
        if row.name in hooks.broken:
            raise PluginLoadError(row.name, hooks.broken[row.name])
        return row

    def _read_settings(self, plugin: str) -> None:
        host = self._host
        for _, section, model in self._hooks.settings(only=plugin):
            for other, claimed, _ in self._hooks.settings():
                if claimed == section and other != plugin:
                    raise PluginLoadError(
                        plugin,
                        f"The plugins {other!r} and {plugin!r} both claim the settings section "
                        f"[{section}].",
                        hint="Disable one of them.",
                    )
            try:
                host.plugin_settings[plugin] = model.model_validate(host.settings.section(section))
            except pydantic.ValidationError as error:
                raise misfit(host.settings, section, error) from None

    def _expect_no_rival(self, row: PluginRow) -> None:
        """Make sure that no enabled plugin offers the same.

        :raises SelectionError: naming it, and what they both offer.
        """
        wanted = replace(row, state="enabled", reason="")
        for other in self._host.inventory.enabled:
            if other.label != row.label and same_name(other.name, row.name):
                raise _impossible(
                    row, "conflict", f"{other.label} has the same name.", "Disable it first."
                )
        rows = mark_conflicts(_with(self._host.inventory.rows, row.label, wanted))
        found = find(rows, row.label)
        if found.state != "enabled":
            raise _impossible(row, found.state, found.reason)

    def _revise(self, row: PluginRow, now: PluginRow) -> None:
        inventory: Inventory = self._host.inventory
        self._host.revise(replace(inventory, rows=_with(inventory.rows, row.label, now)))


class _Leaving:
    """A plugin that is being put away.

    :ivar begun: whether that can be undone no more.
    """

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.begun = False


def _with(rows: Sequence[PluginRow], label: str, row: PluginRow) -> tuple[PluginRow, ...]:
    return tuple(row if each.label == label else each for each in rows)


def _impossible(row: PluginRow, state: str, reason: str, hint: str = "") -> SelectionError:
    return SelectionError(
        f"The plugin {row.label} cannot be enabled ({state}): {reason}",
        hint=hint,
        data={"name": row.name, "state": state},
    )
