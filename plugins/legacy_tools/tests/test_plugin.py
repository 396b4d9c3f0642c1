"""The distribution: what it declares."""

from __future__ import annotations

from importlib.metadata import entry_points


def test_the_plugin_is_found_in_the_group_of_its_runtime() -> None:
    (found,) = entry_points(group="mcpd_core.plugins.asyncio", name="legacy_tools")
    assert found.value == "mcpd_legacy_tools.plugin"
