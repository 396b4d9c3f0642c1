"""The ASGI application: who may come in, and which era answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import INVALID_REQUEST, ErrorData
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from ...hookspecs import HttpRoute
from ...settings import HttpSettings
from ..mcp import McpServer
from ..wire import encode_error
from .connection import HttpConnection
from .envelopes import Envelopes
from .exchange import Headers, Send, repeated, respond
from .guard import Guard
from .handshakes import Handshakes
from .health import LIVE, READY, HealthPages
from .routes import PluginRoutes

#: Where uvicorn's protocol puts the `HttpConnection` among a request's state.
CONNECTION = "mcpd.connection"

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_VERSION = MCP_PROTOCOL_VERSION_HEADER.encode()
_HANDSHAKES = frozenset(version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS)
_PLAIN: Headers = [(b"content-type", b"text/plain; charset=utf-8")]
#: ``Accept`` headers whose meaning is kept.
_KEPT = 64

_STRANGER = (
    "This server cannot tell that you are its owner, and nobody else may call tools. If every user "
    "of this machine may, the owner can set [http] trust_loopback = true; otherwise use the Unix "
    "socket (mcpd attach)."
)


class HttpApp:
    """Routes requests to health pages and to the two eras.

    :param server: what answers.
    :param guard: checks ``Host`` and ``Origin``.
    :param health: the health pages.
    :param routes: returns the paths that plugins serve beside MCP.
    """

    def __init__(
        self,
        server: McpServer,
        settings: HttpSettings,
        guard: Guard,
        health: HealthPages,
        routes: Callable[[], Mapping[str, HttpRoute]] = dict,
    ) -> None:
        always_stream = settings.stream == "sse"
        self._stopping = False
        self._path = settings.path
        self._max_body = settings.max_body
        self._guard = guard
        self._health = health
        self._routes = PluginRoutes(routes, guard)
        self._accepts: dict[bytes, tuple[bool, bool]] = {}
        self._envelopes = Envelopes(server, always_stream=always_stream)
        self.handshakes = Handshakes(
            server,
            always_stream=always_stream,
            max_sessions=settings.max_sessions,
            idle_timeout=settings.idle_timeout,
        )

    def stop(self) -> None:
        """Begin nothing that would last, and end the streams that clients hold open."""
        self._stopping = True
        self._envelopes.stopping = True
        self.handshakes.end_streams()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        path = scope["path"]
        if path == self._path:
            connection: HttpConnection = scope["state"][CONNECTION]
            try:
                await self._mcp(connection, scope, receive, send)
            except asyncio.CancelledError:
                # Cancelled by ourselves, because there is nobody to answer any more, or no time.
                if self._stopping:
                    connection.abandon()
                elif not connection.lost:
                    raise
        elif path in (LIVE, READY):
            await self._health.get(path, scope["method"], send)
        else:
            await self._routes.serve(scope["state"][CONNECTION], scope, receive, send)

    async def _mcp(
        self,
        connection: HttpConnection,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        # Space around a value is none of it (RFC 9110, 5.5); httptools leaves what follows it.
        lines: Headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        headers = dict(lines)
        method = scope["method"]
        if len(headers) != len(lines) and (twice := repeated(lines)):
            await respond(send, 400, b"The header %b appears more than once." % twice, _PLAIN)
            return
        refusal = self._guard.refusal(headers.get(b"host"), headers.get(b"origin"))
        if refusal is not None:
            await respond(send, refusal[0], refusal[1].encode(), _PLAIN)
            return
        if connection.principal is None:
            error = ErrorData(code=INVALID_REQUEST, message=_STRANGER)
            await respond(send, 403, encode_error(None, error))
            return
        version = headers.get(_VERSION)
        modern = version is not None and version not in _HANDSHAKES
        accepts = self._accepted(headers.get(b"accept", b""))
        if method == "POST":
            if not headers.get(b"content-type", b"").lower().startswith(b"application/json"):
                await respond(send, 415, b"Content-Type must be application/json", _PLAIN)
                return
            body = await self._body(headers, receive)
            if body is None:
                text = f"The request body is larger than {self._max_body} bytes"
                # uvicorn reads on and forgets it: closing now would lose the response as well.
                await respond(send, 413, text.encode(), _PLAIN)
            elif modern:
                await self._envelopes.post(connection, lines, headers, body, accepts, send)
            else:
                await self.handshakes.post(connection, headers, body, accepts, send)
        elif method == "GET" and not modern:
            await self.handshakes.get(connection, headers, accepts, send)
        elif method == "DELETE" and not modern:
            await self.handshakes.delete(connection, headers, send)
        else:
            allowed = b"POST" if modern else b"GET, POST, DELETE"
            await respond(send, 405, b"", [(b"allow", allowed)])

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes | None:
        """Read the body; ``None`` when it is too large."""
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._max_body:
            return None
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return body if len(body) <= self._max_body else None
        parts = [body]
        size = len(body)
        while message.get("more_body", False):
            if size > self._max_body:
                return None
            message = await receive()
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
        return b"".join(parts) if size <= self._max_body else None

    def _accepted(self, header: bytes) -> tuple[bool, bool]:
        """Read an ``Accept`` header: whether JSON is taken, and whether streams of events are."""
        known = self._accepts.get(header)
        if known is None:
            types = {part.split(b";")[0].strip().lower() for part in header.split(b",")}
            known = (
                not types.isdisjoint((b"*/*", b"application/*", b"application/json")),
                not types.isdisjoint((b"*/*", b"text/*", b"text/event-stream")),
            )
            if len(self._accepts) < _KEPT:
                self._accepts[header] = known
        return known
