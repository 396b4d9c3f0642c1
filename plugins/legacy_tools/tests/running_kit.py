"""Trees that tests write, in packages that no other test has."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mcpd_core.inventory import PluginRow
from mcpd_core.manifest import parse_tools
from mcpd_legacy_tools.placement import LOADER
from mcpd_legacy_tools.running import naming

_numbers = count(1)


class Planted:
    """A tree of one test.

    :ivar root: the directory that its package is in.
    :ivar package: the dotted name of the package of the tools.
    :ivar path: the directory that holds the categories.
    """

    def __init__(self, root: Path, package: str | None = None) -> None:
        self.root = root
        self.package = package or f"old_{next(_numbers)}.server.tools"
        self.path = root.joinpath(*self.package.split("."))
        for folder in (self.path, *self.path.parents):
            if folder == root:
                break
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").touch()

    def write(self, file: str, source: str) -> Path:
        """Write a file of the tree, given its path below `path`; categories become packages."""
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != self.path:
            (path.parent / "__init__.py").touch()
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    def module(self, file: str) -> str:
        """Return the name that the scan gives to the module of a file."""
        return f"{self.package}.{file.removesuffix('.py').replace('/', '.')}"

    def item(self, file: str, function: str, *, name: str = "", **facts: Any) -> dict[str, Any]:
        """Return what a manifest would say of a tool, for which everything is an argument."""
        given = {
            "name": name or function.replace(".", "_"),
            "entry": f"{self.module(file)}:{function}",
            "source": str(self.path / file),
            "loader": LOADER,
            "input_schema": {"type": "object", "additionalProperties": True},
        }
        return {**given, **facts}


def row(*items: dict[str, Any]) -> PluginRow:
    """Return the plugin with some tools."""
    specs = parse_tools(list(items), plugin="legacy_tools", runtime="asyncio")
    return PluginRow("legacy_tools", "mcpd-legacy-tools", "0", "asyncio", "enabled", tools=specs)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the process as it was: modules, path, environment, and the trees in it."""
    modules, path, environ = set(sys.modules), list(sys.path), dict(os.environ)
    monkeypatch.setattr(naming, "_known", {})
    yield
    for name in set(sys.modules) - modules:
        if "mcpd" not in name and (name.startswith(("old_", "legacy_", "ipfs_datasets_py"))):
            del sys.modules[name]
    naming.places.clear()
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environ)
