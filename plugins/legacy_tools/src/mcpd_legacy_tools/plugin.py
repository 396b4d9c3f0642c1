"""The plugin's hooks. Nothing heavy is imported before a hook is called."""

from __future__ import annotations

from mcpd_core import Registrar, hookimpl


@hookimpl
def mcpd_register_tools(registrar: Registrar) -> None:
    """Offer the plugin's own tools; those of the trees come from the metadata provider."""
