"""Listens on a TCP port with uvicorn, on the host's loop."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import math
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from ...errors import DaemonError
from ...hookspecs import HttpRoute
from ...settings import HttpSettings
from ..engine import unsupported
from ..mcp import McpServer
from .app import HttpApp
from .connection import HttpConnection
from .guard import guard_for
from .health import HealthPages, Watched
from .peers import Door
from .protocol import protocol_for

log = logging.getLogger(__name__)

#: Seconds for which a connection may be silent between two requests, or before the first.
KEEP_ALIVE = 75
#: Connections beyond these are closed at once, before the process runs out of descriptors.
MAX_CONNECTIONS = 512
#: Connections that clients who may call nothing can have, to ask for the server's health.
MAX_STRANGERS = 32
#: Seconds between two log lines that tell of connections that were closed at once.
_QUIET = 5.0


class HttpListener:
    """One listening port and the connections of its clients.

    :param host: whose readiness ``/health/ready`` tells.
    :param changed: called with the number of connections whenever it changes.
    :param door: decides who a client is.
    :param routes: returns the paths that plugins serve beside MCP.
    """

    def __init__(
        self,
        server: McpServer,
        host: Watched,
        settings: HttpSettings,
        changed: Callable[[int], None] = lambda number: None,
        door: Door | None = None,
        routes: Callable[[], Mapping[str, HttpRoute]] = dict,
    ) -> None:
        if problem := unsupported():
            raise DaemonError(
                f"HTTP cannot be served: {problem}.",
                hint="Install the version of the SDK that mcpd-core asks for, or serve the socket"
                " alone with --transport socket.",
            )
        self._server = server
        self._settings = settings
        self._changed = changed
        self._door = door or Door(settings)
        self._routes = routes
        self._connections: set[HttpConnection] = set()
        self._max_connections = _max_connections()
        self._turned_away = 0
        self._told = -_QUIET
        self._app: HttpApp | None = None
        self._uvicorn: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        self.health = HealthPages(host)
        #: Where clients find MCP, once it is served.
        self.url = ""

    async def start(self) -> None:
        """Bind, and answer clients from now on.

        :raises DaemonError: when the address cannot be listened on, or may not be.
        """
        settings = self._settings
        sock = bind(settings)
        address, port = sock.getsockname()[:2]
        self._app = HttpApp(
            self._server, settings, guard_for(settings, address), self.health, self._routes
        )
        config = uvicorn.Config(
            self._app,
            http=protocol_for(self),
            loop="none",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            # Nobody's word about whom a request was forwarded for counts.
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            # Of requests in hand, some of which outlive their connection; `opened` bounds those.
            limit_concurrency=MAX_CONNECTIONS + 1,
        )
        self._uvicorn = _Uvicorn(config)
        self._serving = asyncio.ensure_future(self._uvicorn.serve([sock]))
        ready = asyncio.ensure_future(self._uvicorn.ready.wait())
        # No deadline: listening on a bound socket waits for nothing.
        await asyncio.wait([ready, self._serving], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            ready.cancel()
            self._serving.result()
        self.url = f"http://{_bracketed(address)}:{port}{settings.path}"

    def stop(self) -> None:
        """Accept nobody any more and end the streams; calls in flight go on."""
        if self._uvicorn is not None:
            for server in self._uvicorn.servers:
                server.close()
        if self._app is not None:
            self._app.stop()

    async def close(self, timeout: float) -> None:
        """Close every connection after its answer.

        :param timeout: seconds after which what still runs is cancelled, and a connection whose
            client does not take its answer is cut off.
        """
        self.stop()
        if self._uvicorn is None or self._serving is None or self._app is None:
            return
        await self._app.handshakes.close()
        protocols: list[Any] = list(self._uvicorn.server_state.connections)
        for protocol in protocols:
            # Nobody need wait for the rest of a request that nobody would serve.
            if getattr(protocol, "late_task", None) is not None and not protocol.answering():
                protocol.abandon()
        # uvicorn would leave the connections open, and say that something went wrong.
        cutting = asyncio.get_running_loop().call_later(timeout, self._cut_off)
        self._uvicorn.config.timeout_graceful_shutdown = math.ceil(timeout) + 1
        self._uvicorn.should_exit = True
        # Bounded by the two.
        await self._serving
        cutting.cancel()

    def _cut_off(self) -> None:
        for connection in list(self._connections):
            connection.abandon()

    # --- called by the protocol -------------------------------------------------------------------

    def opened(self, sock: Any, abandon: Callable[[], None]) -> HttpConnection | None:
        """Take note of a new connection.

        :returns: ``None`` for one that is to be closed at once.
        """
        if len(self._connections) >= self._max_connections:
            self._turn_away()
            return None
        connection = HttpConnection(sock, self._door, abandon)
        # Asked now, because the kernel tells nothing any more of a client that has begun to close.
        if connection.principal is None:
            strangers = sum(known.principal is None for known in self._connections)
            if strangers >= MAX_STRANGERS:
                self._turn_away()
                return None
        self._connections.add(connection)
        self._changed(len(self._connections))
        return connection

    def lost(self, connection: HttpConnection) -> None:
        """Take note that a connection has gone."""
        connection.close()
        self._connections.discard(connection)
        self._changed(len(self._connections))

    def _turn_away(self) -> None:
        self._turned_away += 1
        now = time.monotonic()
        if now - self._told >= _QUIET:
            log.warning("closed %d HTTP connections at once: too many are open", self._turned_away)
            self._turned_away, self._told = 0, now


class _Uvicorn(uvicorn.Server):
    """uvicorn inside a daemon that has signal handlers of its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers: list[Any] = []
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _max_connections() -> int:
    try:
        import resource
    except ImportError:
        return MAX_CONNECTIONS
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, soft // 2)


def bind(settings: HttpSettings) -> socket.socket:
    """Bind the address that the settings name.

    :raises DaemonError: when it is not this machine's own, without the owner's saying so, or when
        it cannot be had.
    """
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as exc:
        raise DaemonError(
            f"The address {host!r} is not known: {exc.strerror}.",
            hint="Name one of this machine's addresses with --host or [http] host.",
        ) from exc
    if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        if not settings.insecure_bind:
            raise DaemonError(
                f"HTTP is not served on {address[0]}: others can reach it, and this version of"
                " mcpd cannot tell them from you.",
                hint="Listen on 127.0.0.1 and let clients come through an SSH tunnel, or add"
                " --insecure-bind if everybody who reaches the port may call every tool.",
            )
        log.warning(
            "INSECURE: everybody who reaches %s:%d may call every tool, as %s",
            address[0],
            port,
            "http:network",
        )
    if settings.trust_loopback:
        log.warning("every user of this machine may call every tool over HTTP (trust_loopback)")
    elif sys.platform != "linux" and not settings.insecure_bind:
        log.warning(
            "this system cannot tell whose an HTTP connection is, so that all are refused; if you"
            " are the only user of this machine, set [http] trust_loopback = true"
        )
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise _not_had(exc, str(address[0]), port) from exc
    return sock


def _not_had(exc: OSError, address: str, port: int) -> DaemonError:
    alone = "or serve the socket alone with --transport socket."
    if exc.errno == errno.EADDRINUSE:
        return DaemonError(
            f"Port {port} of {address} is taken by another program.",
            hint=f"Choose another with --port or [http] port (0 takes any that is free), {alone}",
            data={"port": port},
        )
    return DaemonError(
        f"Port {port} of {address} cannot be listened on: {exc.strerror}.",
        hint=f"Choose another --host or --port, {alone}",
        data={"port": port},
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
