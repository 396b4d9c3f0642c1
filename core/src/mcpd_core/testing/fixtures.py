"""The pytest plugin ``mcpd``: fixtures only, and nothing that costs anything before one is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .clients import Connect
    from .hosts import MakeHost
    from .planting import WritePlugin

# Their assertions are to be explained like those of a test module.
pytest.register_assert_rewrite("mcpd_core.testing.manifests", "mcpd_core.testing.runtimes")


@pytest.fixture
def mcpd_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeHost:
    """Make hosts with the plugins that the test names; see `mcpd_core.testing.MakeHost`.

    What else is installed does not count: looking for installed plugins is refused for the rest of
    the test.
    """
    from .hosts import host_maker, refuse_discovery

    refuse_discovery(monkeypatch)
    return host_maker(tmp_path / "mcpd-data")


@pytest.fixture
def mcpd_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Connect MCP clients to a server with the plugins that the test names; see
    `mcpd_core.testing.Connect`."""
    from .clients import connector
    from .hosts import refuse_discovery

    refuse_discovery(monkeypatch)
    return connector(tmp_path / "mcpd-data")


@pytest.fixture
def tmp_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritePlugin]:
    """Write plugins into the test's folder; see `mcpd_core.testing.WritePlugin`."""
    from .planting import Garden

    garden = Garden(tmp_path / "plugins", monkeypatch)
    yield garden.plant
    garden.clear()
