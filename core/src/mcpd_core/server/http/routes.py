"""Paths that plugins serve beside MCP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ...hookspecs import HttpRoute
from .connection import HttpConnection
from .exchange import Headers, Send, repeated, respond
from .guard import Guard

_PLAIN: Headers = [(b"content-type", b"text/plain; charset=utf-8")]
_STRANGER = b"Only the owner of the server may ask for this."

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class PluginRoutes:
    """Serves the routes that plugins add, to those who may call tools.

    :param routes: returns those of the moment, by path.
    :param guard: checks ``Host`` and ``Origin``.
    """

    def __init__(self, routes: Callable[[], Mapping[str, HttpRoute]], guard: Guard) -> None:
        self._routes = routes
        self._guard = guard

    async def serve(
        self,
        connection: HttpConnection,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        """Serve one request (ASGI)."""
        route = self._routes().get(scope["path"])
        if route is None:
            await respond(send, 404, b"Not found", _PLAIN)
            return
        if twice := repeated(scope["headers"]):
            await respond(send, 400, b"The header %b appears more than once." % twice, _PLAIN)
            return
        headers = dict(scope["headers"])
        refusal = self._guard.refusal(headers.get(b"host"), headers.get(b"origin"))
        if refusal is not None:
            await respond(send, refusal[0], refusal[1].encode(), _PLAIN)
        elif connection.principal is None:
            await respond(send, 403, _STRANGER, _PLAIN)
        elif scope["method"] not in route.methods:
            await respond(send, 405, b"", [(b"allow", ", ".join(route.methods).encode())])
        else:
            await route.handler(scope, receive, send)
