"""The plugin's hooks. Nothing heavy is imported before a hook is called."""

from __future__ import annotations

from mcpd_core import Registrar, hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydantic import BaseModel


@hookimpl
def mcpd_register_tools(registrar: Registrar) -> None:
    """Offer the plugin's own tools; those of the trees come from the metadata provider."""
    registrar.add_module("mcpd_legacy_tools.meta.tools")


@hookimpl
def mcpd_settings() -> tuple[str, type[BaseModel]]:
    """Name the section of the settings file, and the model that checks it."""
    from .settings import LegacyToolsSettings

    return "legacy_tools", LegacyToolsSettings
