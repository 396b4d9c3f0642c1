"""The plugin's hooks. Nothing heavy is imported before a hook is called."""

from __future__ import annotations

from mcpd_core import ReadinessCheck, ReadSection, Registrar, hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from mcpd_core import Finding


@hookimpl
def mcpd_register_tools(registrar: Registrar) -> None:
    """Offer the plugin's own tools; those of the trees come from the metadata provider."""
    registrar.add_module("mcpd_legacy_tools.meta.tools")


@hookimpl
def mcpd_settings() -> tuple[str, type[BaseModel]]:
    """Name the section of the settings file, and the model that checks it."""
    from .settings import LegacyToolsSettings

    return "legacy_tools", LegacyToolsSettings


@hookimpl
def mcpd_tool_readiness() -> ReadinessCheck:
    """Tell which tools of the trees lack what."""
    from .readiness import check

    return check


@hookimpl
def mcpd_doctor_checks(section: ReadSection) -> Iterable[Finding]:
    """Look at the trees, at what of them cannot be read, and at what tools lack."""
    from .checks import examine

    return examine(section("legacy_tools"))
