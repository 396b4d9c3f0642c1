"""What several test modules of the core share."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mcpd_core.discovery import Scan, scan

#: Stands in every module of a planted plugin: listing must never run it.
BOMB = "raise SystemExit('this module must not be imported by a listing')\n"


class Environment:
    """A directory of installed distributions, as ``site-packages`` is one.

    :ivar root: the directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def path(self) -> list[str]:
        return [str(self.root)]

    def scan(self) -> Scan:
        return scan(self.path)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file, its directories included."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def distribution(
        self,
        name: str,
        entry_points: str | bytes | None = None,
        *,
        version: str = "1.0",
        requires: Sequence[str] = (),
        metadata: bool = True,
    ) -> Path:
        """Plant the metadata of a distribution; return its metadata directory."""
        folder = f"{name.replace('-', '_')}-{version}.dist-info"
        (self.root / folder).mkdir(parents=True)
        if metadata:
            lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            lines += [f"Requires-Dist: {requirement}" for requirement in requires]
            self.write(f"{folder}/METADATA", "\n".join(lines) + "\n\nName: not-this\n")
        if entry_points is not None:
            self.write(f"{folder}/entry_points.txt", entry_points)
        return self.root / folder

    def package(self, name: str, **modules: str) -> None:
        """Plant an import package; a module that is not given content is a bomb."""
        for module in {"__init__": "", "plugin": "", "tools": "", **modules}:
            self.write(f"{name}/{module}.py", modules.get(module) or BOMB)

    def manifest(self, package: str, plugins: Mapping[str, Any], **head: Any) -> Path:
        document = {"schema": 1, "api": 1, "plugins": plugins, **head}
        return self.write(f"{package}/mcpd_plugin.json", json.dumps(document))

    def plugin(
        self,
        name: str,
        *,
        distribution: str | None = None,
        runtime: str = "asyncio",
        tools: Sequence[str | Mapping[str, Any]] = (),
        version: str = "1.0",
        requires: Sequence[str] = (),
        **facts: Any,
    ) -> str:
        """Plant a whole plugin with a manifest; return the name of its package.

        :param tools: names, or items of the manifest.
        :param facts: more for the manifest's entry of the plugin.
        """
        distribution = distribution or f"dist-{name}"
        package = f"{distribution}_{name}".replace("-", "_")
        self.distribution(
            distribution,
            f"[mcpd_core.plugins.{runtime}]\n{name} = {package}.plugin\n",
            version=version,
            requires=requires,
        )
        self.package(package)
        items = [
            {"name": tool, "entry": f"{package}.tools:{tool}"} if isinstance(tool, str) else tool
            for tool in tools
        ]
        self.manifest(package, {name: {"runtime": runtime, "tools": items, **facts}})
        return package


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An empty environment."""
    root = tmp_path / "site"
    root.mkdir()
    return Environment(root)


@pytest.fixture
def importable(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """An empty environment that can be imported from; what was imported is forgotten again."""
    monkeypatch.syspath_prepend(str(environment.root))
    before = set(sys.modules)
    yield environment
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is not None and Path(origin).is_relative_to(environment.root.parent):
            del sys.modules[name]
