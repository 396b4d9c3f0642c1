"""The plugin's hook."""

from __future__ import annotations

from mcpd_core import Registrar, hookimpl


@hookimpl
def mcpd_register_tools(registrar: Registrar) -> None:
    """Offer the tools; with a manifest this is only called to make it."""
    registrar.add_module("mcpd_catalog.batches")
    registrar.add_module("mcpd_catalog.categories")
