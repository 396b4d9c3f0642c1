"""A real host for the plugins that a test names."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from .. import discovery, manifest
from ..discovery import Candidate, Scan
from ..errors import ManifestError, McpdError, SelectionError
from ..host import Host
from ..inventory import Inventory, PluginRow, mark_conflicts
from ..packages import PackageNotImportable, find_in_package
from ..selection import select
from ..settings import Settings, load_settings
from ..spec import CallResult, Principal, RuntimeName

if TYPE_CHECKING:
    import pytest

    from .planting import PlantedPlugin

#: What names a plugin: the module of its entry point (``"acme_weather.plugin"``, or the imported
#: module, or ``"name = module:attribute"`` as in ``pyproject.toml``), what `tmp_plugin` returned,
#: or a row.
PluginSource: TypeAlias = "str | ModuleType | PlantedPlugin | PluginRow"

SettingsTables: TypeAlias = Mapping[str, Mapping[str, Any]]


class DiscoveryRefused(McpdError):
    """Raised when code under test looks for installed plugins: what it finds would depend on the
    machine."""

    code = "discovery_refused"


class PluginHost:
    """A running host, with calls made as the user of this machine.

    :ivar host: the host itself, for what is not offered here.
    """

    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def rows(self) -> tuple[PluginRow, ...]:
        """What became of the plugins, by name."""
        return self.host.inventory.rows

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        principal: Principal | None = None,
        client: str = "test",
        **options: Any,
    ) -> CallResult:
        """Call a tool the way every client's call goes.

        :param principal: on whose behalf; the user of this machine by default.
        :param options: more for `Host.call`: ``timeout`` in seconds, ``on_progress``, ``on_log``.
        :returns: the answer; a tool's failure is an answer too, with `CallResult.error` set.
        :raises CallRefused: when the tool did not start.
        """
        return await self.host.call(
            tool,
            arguments or {},
            principal=principal or local_user(),
            client=client,
            **options,
        )

    async def start_services(self) -> None:
        """Start what ``mcpd serve`` would start; other services start when they are needed."""
        await self.host.start_services()


class MakeHost(Protocol):
    """The type of the fixture `mcpd_host`."""

    def __call__(
        self,
        *plugins: PluginSource,
        settings: SettingsTables | None = None,
        data_dir: Path | None = None,
    ) -> AbstractAsyncContextManager[PluginHost]:
        """Make a host; enter it with ``async with``, on asyncio.

        :param plugins: what is served, whether or not it is installed.
        :param settings: values by section and key, as they would stand in ``mcpd.toml``. The
            developer's own file and environment are not read.
        :param data_dir: where services keep their data; a folder of the test's by default.
        :raises SelectionError: when a plugin cannot be served.
        """
        ...


def host_maker(default_data_dir: Path) -> MakeHost:
    """Return what the fixture `mcpd_host` is."""

    @asynccontextmanager
    async def make_host(
        *plugins: PluginSource,
        settings: SettingsTables | None = None,
        data_dir: Path | None = None,
    ) -> AsyncIterator[PluginHost]:
        if in_trio():
            raise RuntimeError(
                "A host runs on asyncio. Give this test the asyncio backend: trio tools run beside "
                "it all the same. Or use the fixture mcpd_client, whose client may run on trio."
            )
        folder = data_dir or default_data_dir
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        read = read_settings(settings)
        async with Host(inventory(plugins, read), read, data_dir=folder) as host:
            yield PluginHost(host)

    return make_host


def in_trio() -> bool:
    """Whether the calling code runs in a trio task; trio is not imported to find out."""
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return False
    # `in_trio_task` is younger than the oldest trio that is supported.
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def local_user() -> Principal:
    """Return the principal of whoever connects to the daemon's socket as this user."""
    return Principal("local", str(os.getuid()))


def read_settings(tables: SettingsTables | None) -> Settings:
    """Return settings of which nothing but these values is set.

    :raises SettingsError: when they do not fit.
    """
    # Without a file of that name ./mcpd.toml would be read.
    with tempfile.NamedTemporaryFile(suffix=".toml") as empty:
        return replace(load_settings(empty.name, env={}, overrides=tables), file=None)


def inventory(plugins: Sequence[PluginSource], settings: Settings | None = None) -> Inventory:
    """Return an inventory of exactly the plugins given.

    :param settings: what metadata providers are told of; nothing by default.
    :raises SelectionError: when one of them cannot be served.
    """
    candidates: list[Candidate] = []
    rows: list[PluginRow] = []
    for plugin in plugins:
        if isinstance(plugin, PluginRow):
            rows.append(plugin)
        elif isinstance(plugin, ModuleType):
            candidates.append(_candidate(plugin.__name__))
        else:
            candidates.append(_candidate(plugin if isinstance(plugin, str) else plugin.source))
    section = None if settings is None else settings.section
    chosen = select(Scan(tuple(candidates), ()), wanted=None, section=section)
    for row in chosen.rows:
        if row.state != "enabled":
            raise SelectionError(f"The plugin {row.name!r} is {row.state}: {row.reason}")
    return replace(chosen, rows=mark_conflicts((*chosen.rows, *rows)))


def _candidate(source: str) -> Candidate:
    """Find what an entry point offers, by the manifest of its package."""
    named, equals, entry = (part.strip() for part in source.rpartition("="))
    module = entry.partition(":")[0]
    try:
        path = find_in_package(module, manifest.FILENAME)
    except PackageNotImportable as exc:
        raise SelectionError(
            f"The plugin {source!r} cannot be found: {exc}.",
            hint="Install it with `pip install --editable .`, or correct the name.",
        ) from None
    if path is None:
        raise SelectionError(
            f"The package of {entry!r} has no manifest, so its runtime is not known.",
            hint="Write one with `mcpd plugins manifest DIR`. To test the plugin without, pass a "
            "PluginRow with dynamic=True.",
        )
    content = Path(path).read_bytes()
    plugins = _described(content, named or module)
    if named and equals:
        plugins = {name: runtime for name, runtime in plugins.items() if name == named}
    if len(plugins) != 1:
        known = ", ".join(_described(content, module))
        raise SelectionError(
            f"{path} describes {known}, which leaves open what {source!r} stands for.",
            hint=f"Name it as in pyproject.toml: 'NAME = {entry}'.",
        )
    ((name, runtime),) = plugins.items()
    return Candidate(
        name=name,
        runtime=runtime,
        entry=entry,
        distribution="under-test",
        version="0",
        manifest=manifest.parse(content, plugin=name, runtime=cast(RuntimeName, runtime)),
        manifest_path=Path(path),
    )


def _described(content: bytes, name: str) -> dict[str, str]:
    """Return the runtimes of the plugins in a manifest, by name."""
    try:
        plugins = json.loads(content)["plugins"]
        return {name: str(plugin["runtime"]) for name, plugin in plugins.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ManifestError(
            name,
            f"The manifest of {name!r} does not say which plugins there are.",
            hint="Make it anew with `mcpd plugins manifest DIR`.",
        ) from None


def refuse_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make looking for installed plugins an error; looking into a named directory is none."""
    # Where `scan` looks it up, so that it does not matter how `scan` itself was imported.
    real: Any = vars(discovery)["installed"]

    def installed(path: Sequence[str] | None, faults: Any) -> Any:
        if path is None:
            raise DiscoveryRefused(
                "This test looks for installed plugins, which differ from machine to machine.",
                hint="Name the plugin's module: mcpd_host('package.plugin'), or mcpd_client(...).",
            )
        return real(path, faults)

    monkeypatch.setattr(discovery, "installed", installed)
