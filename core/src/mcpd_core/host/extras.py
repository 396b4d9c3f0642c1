"""What plugins add to the server itself: JSON-RPC methods and HTTP routes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..hooks import Hooks
from ..hookspecs import HttpRoute, RpcHandler
from ..services import ServiceFinder

if TYPE_CHECKING:
    from .host import Host

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Finder:
    """Finds services for code that runs on the host's loop: `mcpd_core.ServiceFinder`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def get(self, name: str) -> Any:
        return await self._host.service(name, await self._host.lanes.runtime("asyncio"))


class Extras:
    """The methods and routes of the plugins that are enabled at the moment.

    Each hook is asked once for as long as the set of plugins stays the same.

    :param enabled: names the enabled plugins.
    :param services: finds the services that they work with.
    """

    def __init__(
        self, hooks: Hooks, enabled: Callable[[], Collection[str]], services: ServiceFinder
    ) -> None:
        self._hooks = hooks
        self._services = services
        self._enabled = enabled
        self._methods: Mapping[str, RpcHandler] | None = None
        self._routes: Mapping[str, HttpRoute] | None = None

    def forget(self) -> None:
        """Ask the hooks again the next time: there are other plugins now."""
        self._methods = self._routes = None

    def rpc_methods(self) -> Mapping[str, RpcHandler]:
        """Return the JSON-RPC methods by name."""
        if self._methods is None:
            found = self._hooks.rpc_methods(self._services)
            self._methods = self._settled("JSON-RPC method", found)
        return self._methods

    def http_routes(self) -> Mapping[str, HttpRoute]:
        """Return the HTTP routes by path."""
        if self._routes is None:
            found = ((p, route.path, route) for p, route in self._hooks.http_routes(self._services))
            self._routes = self._settled("HTTP route", found)
        return self._routes

    def _settled(self, what: str, found: Iterable[tuple[str, str, T]]) -> dict[str, T]:
        enabled = self._enabled()
        offers: dict[str, list[tuple[str, T]]] = {}
        for plugin, name, thing in found:
            if plugin in enabled:
                offers.setdefault(name, []).append((plugin, thing))
        settled = {}
        for name, claims in offers.items():
            if len(claims) > 1:
                # Neither wins silently.
                plugins = " and ".join(sorted({plugin for plugin, _ in claims}))
                _log.error("The %s %s is offered by %s, and is left out.", what, name, plugins)
            else:
                settled[name] = claims[0][1]
        return settled
