"""What happens to plugins when they are served: hooks taken up, settings checked, services
declared."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import pydantic

from ..errors import McpdError, PluginLoadError, SelectionError, SettingsError
from ..hooks import Hooks
from ..inventory import PluginRow
from ..settings import Settings
from ..spec import RuntimeName

if TYPE_CHECKING:
    from .host import Host
    from .services import Services

_log = logging.getLogger(__name__)


async def enlist(host: Host, hooks: Hooks, services: Services) -> None:
    """Take up the plugins that have something to do before one of their tools is called.

    A plugin with a manifest that names no hooks is not imported. One that fails is `broken` and
    skipped, unless plugins were asked for by name: then each of them has to work.

    :raises SelectionError: when a plugin that was asked for does not work.
    :raises SettingsError: when a plugin's section of the settings does not fit.
    """
    for row in host.inventory.enabled:
        if row.hooks or row.dynamic:
            try:
                await _take_up(host, hooks, row)
                _expect_enabled(host, row)
            except PluginLoadError as error:
                _refuse(host, row.name, error)
    for row in host.inventory.enabled:
        specs = hooks.tool_metadata(row.name, cast(RuntimeName, row.runtime))
        if specs is not None:
            host.revise(host.inventory.with_tools(row.name, specs))
            _expect_enabled(host, row)
    _read_settings(host, hooks)
    for plugin, service in hooks.services():
        try:
            services.declare(plugin, service)
        except PluginLoadError as error:
            _refuse(host, plugin, error)
    for plugin, transport in hooks.transports():
        try:
            services.declare_transport(plugin, transport)
        except PluginLoadError as error:
            _refuse(host, plugin, error)


async def _take_up(host: Host, hooks: Hooks, row: PluginRow) -> None:
    plugin = await asyncio.wrap_future(host.importer.load(row.entry, plugin=row.name))
    hooks.register(plugin, row.name, requires_core=row.requires_core)
    if row.dynamic:
        from ..registrar import ToolRegistrar  # a manifest is the rule

        registrar = ToolRegistrar(row.name, cast(RuntimeName, row.runtime))
        # On the import thread: registering imports the modules of the tools.
        await asyncio.wrap_future(
            host.importer.load(
                row.entry, plugin=row.name, then=lambda _: hooks.register_tools(registrar)
            )
        )
        host.revise(
            host.inventory.with_tools(
                row.name,
                registrar.specs,
                resources=registrar.resources,
                prompts=registrar.prompts,
            )
        )


def _expect_enabled(host: Host, row: PluginRow) -> None:
    """Refuse a plugin that was asked for and whose tools, known only now, collide with others'."""
    now = next(other for other in host.inventory.rows if other.label == row.label)
    if now.state != "enabled" and host.settings.serve.plugins is not None:
        raise SelectionError(
            f"The plugin {row.name!r} was asked for and is in the state {now.state}: {now.reason}"
        )


def _refuse(host: Host, plugin: str, error: McpdError) -> None:
    if host.settings.serve.plugins is not None:
        raise SelectionError(
            f"The plugin {plugin!r} was asked for and does not work: {error.message}",
            hint=error.hint,
        ) from error
    _log.error("The plugin %s is skipped: %s", plugin, error)
    host.revise(host.inventory.with_broken(plugin, str(error)))


def _read_settings(host: Host, hooks: Hooks) -> None:
    claimed: dict[str, str] = {}
    for plugin, section, model in hooks.settings():
        if section in claimed:
            raise SettingsError(
                f"The plugins {claimed[section]!r} and {plugin!r} both claim the settings "
                f"section [{section}].",
                hint="Disable one of them.",
            )
        claimed[section] = plugin
        try:
            host.plugin_settings[plugin] = model.model_validate(host.settings.section(section))
        except pydantic.ValidationError as error:
            raise misfit(host.settings, section, error) from None
        except Exception as error:  # noqa: BLE001 - the boundary: validators are code of the plugin
            problem = f"Its settings model raised {type(error).__name__} for [{section}]."
            _refuse(host, plugin, PluginLoadError(plugin, problem))
    # A metadata provider is given the section that has its plugin's name.
    told = {row.name.replace("-", "_") for row in host.inventory.enabled if row.metadata_provider}
    for section in host.settings.extra:
        if section not in claimed and section not in told:
            _log.warning("The settings section [%s] belongs to no plugin that is enabled.", section)


def misfit(settings: Settings, section: str, error: pydantic.ValidationError) -> SettingsError:
    """Return the error about a section that does not fit its plugin's model."""
    problems = []
    for item in error.errors(include_url=False, include_context=False):
        path: list[Any] = list(item["loc"])
        key = ".".join(map(str, path))
        origin = settings.origin(section, str(path[0])) if path else "default"
        text = item["msg"][:1].lower() + item["msg"][1:]
        problems.append(f"[{section}] {key}: {text} ({origin})")
    return SettingsError(f"Settings do not fit: {'; '.join(problems)}.")
