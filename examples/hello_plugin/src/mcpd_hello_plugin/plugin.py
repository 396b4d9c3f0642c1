"""The plugin ``hello``: tools for asyncio, for threads and for any runtime, and content."""

from __future__ import annotations

from mcpd_core import Registrar, hookimpl


@hookimpl
def mcpd_register_tools(registrar: Registrar) -> None:
    """Say where the tools, the resources and the prompt are."""
    registrar.add_module("mcpd_hello_plugin.tools")
    registrar.add_module("mcpd_hello_plugin.content")
