"""A host on the loop: the listeners, the order of starting and the order of stopping."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..spec import Principal
from .directory import DataDirectory
from .lifecycle import Linger, Stop
from .listener import Listener
from .mcp import McpServer
from .session import Session
from .stdio import StdioTransports
from .streams import LineChannel

if TYPE_CHECKING:
    from ..host import Host

log = logging.getLogger(__name__)

#: Seconds in which clients must have read their last answers when the server stops.
FAREWELL = 5.0


async def serve_socket(
    host: Host,
    directory: DataDirectory,
    *,
    ready: Callable[[list[str]], None],
    linger: float | None,
    grace: float,
) -> None:
    """Serve the socket of a claimed directory; see `run_daemon`."""
    with Stop() as stop:
        async with host:
            server = McpServer(host)
            patience = _Patience(host, directory, stop, linger)
            listener = Listener(server.serve, patience.changed)
            patience.listener = listener
            listener.listen(directory.bind())
            patience.changed(0)
            try:
                ready([f"unix:{directory.socket_path}"])
                async with _services(host):
                    await stop.wait()
                    patience.cancel()
                    listener.stop()
                    directory.retire()
                    await _drain(host, grace)
            finally:
                patience.cancel()
                await listener.close(FAREWELL)


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
    with Stop() as stop:
        async with host:
            server = McpServer(host)
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
                    await _drain(host, grace)
            finally:
                channel.end()
                await asyncio.wait([serving], timeout=FAREWELL)
                if not serving.done():
                    serving.cancel()
                    # No deadline: a session that is cancelled has only bounded waits left.
                    await asyncio.wait([serving])
                await transports.close(FAREWELL)
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
        self.listener: Listener | None = None

    def changed(self, clients: int) -> None:
        """Note how many clients are connected."""
        if self._linger is not None:
            self._linger.clients(clients)

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
async def _services(host: Host) -> AsyncIterator[None]:
    """Start the services beside the clients that are already being answered."""
    starting = asyncio.ensure_future(host.start_services())
    try:
        yield
    finally:
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled() and (failure := starting.exception()) is not None:
            log.error("services could not be started", exc_info=failure)


async def _drain(host: Host, grace: float) -> None:
    """Refuse new calls and wait for those in flight."""
    host.stop_accepting()
    await host.drain(grace)
