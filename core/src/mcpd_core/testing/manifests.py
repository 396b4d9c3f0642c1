"""The one test that every plugin should have: its manifest says what its code says."""

from __future__ import annotations

from pathlib import Path

from ..manifest_writer import generate


def check_manifest(directory: str | Path) -> None:
    """Fail the test when a plugin's manifest is missing or does not fit its code.

    The plugin is imported from the directory, as ``mcpd plugins manifest DIR --check`` does it.

    :param directory: holds the plugin's ``pyproject.toml``.
    :raises AssertionError: with a line for each tool or hook that differs.
    :raises PluginLoadError: when the plugin cannot be imported.
    """
    files = generate(Path(directory))
    stale = [change for file in files if file.stale for change in file.changes()]
    if stale:
        lines = "\n".join(f"  {change}" for change in stale)
        raise AssertionError(
            f"The manifest is stale:\n{lines}\nWrite it anew: mcpd plugins manifest {directory}"
        )
