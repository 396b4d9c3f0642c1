"""What plugin authors test with: fixtures for pytest, and promises to check an extension against.

pytest loads the fixtures by itself wherever mcpd-core is installed:

`mcpd_host`
    a real host for the plugins that the test names (`MakeHost`);
`mcpd_client`
    the SDK's client, connected in memory to the real MCP server over such a host (`Connect`);
`tmp_plugin`
    writes a plugin with its manifest into the test's folder (`WritePlugin`).

Beside them there are `check_manifest`, for the one test that every plugin should have, and
`RuntimeConformance`, for whoever writes a runtime. The fixtures are switched off by
``-p no:mcpd``. Names are looked up when they are first used, so that loading this costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from .clients import Connect as Connect
    from .hosts import DiscoveryRefused as DiscoveryRefused
    from .hosts import MakeHost as MakeHost
    from .hosts import PluginHost as PluginHost
    from .hosts import PluginSource as PluginSource
    from .manifests import check_manifest as check_manifest
    from .planting import PlantedPlugin as PlantedPlugin
    from .planting import WritePlugin as WritePlugin
    from .runtimes import CallConformance as CallConformance
    from .runtimes import RuntimeConformance as RuntimeConformance

# Public name -> the module that defines it.
_HOMES = {
    "CallConformance": "runtimes",
    "Connect": "clients",
    "DiscoveryRefused": "hosts",
    "MakeHost": "hosts",
    "PlantedPlugin": "planting",
    "PluginHost": "hosts",
    "PluginSource": "hosts",
    "RuntimeConformance": "runtimes",
    "WritePlugin": "planting",
    "check_manifest": "manifests",
}

__all__ = [
    "CallConformance",
    "Connect",
    "DiscoveryRefused",
    "MakeHost",
    "PlantedPlugin",
    "PluginHost",
    "PluginSource",
    "RuntimeConformance",
    "WritePlugin",
    "check_manifest",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
