"""Plugins that a test writes: a project on disk, with its manifest, that can be imported."""

from __future__ import annotations

import importlib
import sys
import textwrap
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..discovery import GROUP
from ..manifest import FILENAME
from ..manifest_writer import generate
from ..spec import RuntimeName

if TYPE_CHECKING:
    import pytest

_PLUGIN = """\
from mcpd_core import hookimpl


@hookimpl
def mcpd_register_tools(registrar):
    registrar.add_module("{package}.tools")
"""

_numbers = count(1)


@dataclass(frozen=True)
class PlantedPlugin:
    """A plugin that a test has written.

    :ivar name: its entry-point name.
    :ivar package: its import package.
    :ivar project: the folder that holds its ``pyproject.toml``.
    :ivar path: the folder to import from; its distribution's metadata is there as well, so that a
        process with this ``PYTHONPATH`` takes the plugin for installed.
    """

    name: str
    package: str
    project: Path

    @property
    def path(self) -> Path:
        """The folder to import from."""
        return self.project / "src"

    @property
    def entry(self) -> str:
        """The module of its hooks."""
        return f"{self.package}.plugin"

    @property
    def source(self) -> str:
        """The line of its ``pyproject.toml`` that declares it."""
        return f"{self.name} = {self.entry}"

    @property
    def manifest(self) -> Path:
        """The file that describes it."""
        return self.path / self.package / FILENAME


class WritePlugin(Protocol):
    """The type of the fixture `tmp_plugin`."""

    def __call__(
        self,
        tools: str = "",
        *,
        name: str = "planted",
        runtime: RuntimeName = "asyncio",
        plugin: str | None = None,
        manifest: bool = True,
    ) -> PlantedPlugin:
        """Write a plugin and make it importable for the rest of the test.

        :param tools: the source of its tools module; indentation that all lines share is removed.
        :param name: its entry-point name; one test may write several plugins.
        :param runtime: the entry-point group that it is in.
        :param plugin: the source of the module with its hooks; by default it has the one hook that
            registers the tools. ``{package}`` stands for the name of its package.
        :param manifest: whether to write its manifest; the code is imported for that, and forgotten
            again.
        """
        ...


class Garden:
    """The plugins of one test.

    :param root: the folder to write them to.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._monkeypatch = monkeypatch
        self._packages: list[str] = []

    def plant(
        self,
        tools: str = "",
        *,
        name: str = "planted",
        runtime: RuntimeName = "asyncio",
        plugin: str | None = None,
        manifest: bool = True,
    ) -> PlantedPlugin:
        """See `WritePlugin`."""
        # Never the same twice in a process: a module that another test left behind is another's.
        package = f"mcpd_planted_{next(_numbers)}"
        planted = PlantedPlugin(name, package, self._root / package)
        hooks = _PLUGIN if plugin is None else textwrap.dedent(plugin)
        group = f"{GROUP}{runtime}"
        info = f"src/{package}-1.0.dist-info"
        for file, content in {
            "pyproject.toml": f'[project]\nname = "{package}"\nversion = "1.0"\n'
            f'[project.entry-points."{group}"]\n{name} = "{planted.entry}"\n',
            f"src/{package}/__init__.py": "",
            f"src/{package}/plugin.py": hooks.replace("{package}", package),
            f"src/{package}/tools.py": textwrap.dedent(tools),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
            f"{info}/entry_points.txt": f"[{group}]\n{name} = {planted.entry}\n",
        }.items():
            path = planted.project / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        self._packages.append(package)
        self._monkeypatch.syspath_prepend(str(planted.path))
        importlib.invalidate_caches()
        if manifest:
            for described in generate(planted.project):
                described.write()
            # What is served must import it itself, when it is due.
            self._forget(package)
        return planted

    def clear(self) -> None:
        """Forget the modules of all of them."""
        for package in self._packages:
            self._forget(package)

    def _forget(self, package: str) -> None:
        for module in [m for m in sys.modules if m == package or m.startswith(f"{package}.")]:
            del sys.modules[module]
