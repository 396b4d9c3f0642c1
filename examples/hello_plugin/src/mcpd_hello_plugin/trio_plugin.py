"""The plugin ``hello-trio``: tools written for trio."""

from __future__ import annotations

from mcpd_core import Registrar, hookimpl


@hookimpl
def mcpd_register_tools(registrar: Registrar) -> None:
    """Say where the tools are."""
    registrar.add_module("mcpd_hello_plugin.trio_tools")
