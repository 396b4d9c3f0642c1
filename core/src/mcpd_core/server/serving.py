"""A host on the loop: the listeners, the order of starting and the order of stopping."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..spec import Principal
from .control import Control
from .directory import DataDirectory
from .extensions import Extensions
from .lifecycle import Linger, Stop
from .listener import Listener
from .mcp import McpServer
from .session import Session
from .stdio import StdioTransports
from .streams import LineChannel

if TYPE_CHECKING:
    from ..host import Host
    from .http.listener import HttpListener

log = logging.getLogger(__name__)

#: Seconds in which clients must have read their last answers when the server stops.
FAREWELL = 5.0
#: They have so long in any case, and otherwise what is left of the grace for calls in flight.
LEAST_FAREWELL = 1.0


def _farewell(left: float) -> float:
    """Return how many seconds clients have to take what was written for them.

    :param left: seconds that are left of the grace.
    """
    return min(FAREWELL, max(LEAST_FAREWELL, left))


async def serve_socket(
    host: Host,
    directory: DataDirectory,
    *,
    ready: Callable[[list[str]], None],
    linger: float | None,
    grace: float,
    http: bool = False,
) -> None:
    """Serve the socket of a claimed directory, and HTTP beside it; see `run_daemon`."""
    until = math.inf
    with Stop() as stop:
        async with host:
            server = McpServer(host)
            Control(host).register(server.sdk)
            extensions = Extensions(server, host)
            server.watch()
            patience = _Patience(host, directory, stop, linger)
            listener = Listener(server.serve, patience.counter("socket"))
            patience.listener = listener
            web = _listener(server, host, patience.counter("http")) if http else None
            try:
                # First: a port that is taken should be the first thing to be known.
                if web is not None:
                    await web.start()
                listener.listen(directory.bind())
                patience.changed()
                places = [f"unix:{directory.socket_path}"]
                ready([*places, web.url] if web is not None else places)
                async with _services(host) as starting:
                    if web is not None:
                        starting.add_done_callback(web.health.start)
                    await stop.wait()
                    until = time.monotonic() + grace
                    patience.cancel()
                    listener.stop()
                    if web is not None:
                        web.stop()
                    directory.retire()
                    extensions.close()
                    await server.aclose()
                    await _drain(host, grace)
            finally:
                patience.cancel()
                farewell = _farewell(until - time.monotonic())
                closing = [listener.close(farewell)]
                if web is not None:
                    closing.append(web.close(farewell))
                await asyncio.gather(*closing)


async def serve_stdio(
    host: Host,
    reading: int,
    writing: int,
    *,
    ready: Callable[[list[str]], None],
    grace: float,
    eof_grace: float,
) -> None:
    """Serve one client over a pair of descriptors; see `run_standalone`."""
    until = math.inf
    with Stop() as stop:
        async with host:
            server = McpServer(host)
            Control(host).register(server.sdk)
            extensions = Extensions(server, host)
            server.watch()
            channel = LineChannel(eof_grace=eof_grace)
            transports = StdioTransports(channel)
            await transports.open(reading, writing)
            session = Session(Principal("local", str(os.geteuid())), "stdio:1")
            serving = asyncio.ensure_future(server.serve(channel, session))
            serving.add_done_callback(lambda _: stop.request("the client left"))
            try:
                ready(["stdio"])
                async with _services(host):
                    await stop.wait()
                    until = time.monotonic() + grace
                    extensions.close()
                    await server.aclose()
                    await _drain(host, grace)
            finally:
                channel.end()
                await asyncio.wait([serving], timeout=_farewell(until - time.monotonic()))
                if not serving.done():
                    serving.cancel()
                    # No deadline: a session that is cancelled has only bounded waits left.
                    await asyncio.wait([serving])
                await transports.close(_farewell(until - time.monotonic()))
            if not serving.cancelled():
                serving.result()


class _Patience:
    """What a daemon does about having no clients: nothing, unless it was told to linger."""

    def __init__(
        self, host: Host, directory: DataDirectory, stop: Stop, linger: float | None
    ) -> None:
        self._host = host
        self._directory = directory
        self._stop = stop
        self._linger = (
            None if linger is None else Linger(linger, needed=self._needed, leave=self._leave)
        )
        self._clients: dict[str, int] = {}
        self.listener: Listener | None = None

    def counter(self, transport: str) -> Callable[[int], None]:
        """Return what a transport tells its number of clients to."""

        def count(clients: int) -> None:
            self._clients[transport] = clients
            self.changed()

        return count

    def changed(self) -> None:
        """Note how many clients are connected."""
        if self._linger is not None:
            self._linger.clients(sum(self._clients.values()))

    def cancel(self) -> None:
        """Stop waiting: the daemon ends for another reason."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _needed(self) -> list[str]:
        reasons = list(self._host.pending())
        if self._host.in_flight:
            reasons.append(f"{self._host.in_flight} calls running")
        return reasons

    def _leave(self) -> None:
        """Leave, unless somebody has connected at this very moment.

        The path goes first, so that nobody else can begin to connect; whoever is in the accept
        queue by then is served, and the daemon stays.
        """
        assert self.listener is not None
        self._directory.retire()
        if self.listener.backlog():
            self.listener.stop()
            self.listener.listen(self._directory.bind())
            return
        self.listener.stop()
        self._stop.request("no client is connected and nothing is due")


@asynccontextmanager
async def _services(host: Host) -> AsyncIterator[asyncio.Future[None]]:
    """Start the services beside the clients that are already being answered."""
    starting = asyncio.ensure_future(host.start_services())
    try:
        yield starting
    finally:
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled() and (failure := starting.exception()) is not None:
            log.error("services could not be started", exc_info=failure)


def _listener(server: McpServer, host: Host, changed: Callable[[int], None]) -> HttpListener:
    # Imported here, because uvicorn takes a while.
    from .http.listener import HttpListener

    routes = host.extras.http_routes
    return HttpListener(server, host, host.settings.http, changed, routes=routes)


async def _drain(host: Host, grace: float) -> None:
    """Refuse new calls and wait for those in flight."""
    host.stop_accepting()
    await host.drain(grace)
