"""The SDK's client, connected in memory to the real MCP server over a real host.

The two ends of a socket pair stand for the daemon's socket: every byte is what a client of the
daemon would see. The host needs asyncio. A test on asyncio has it in its own loop; for a test on
trio it runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import anyio
import anyio.to_thread
import pytest
from mcp import Client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from ..host import Host
from ..server.mcp import McpServer
from ..server.sdk_streams import ChannelReadStream, ChannelWriteStream
from ..server.session import Session
from ..server.streams import LineChannel
from ..server.wire import encode
from .hosts import PluginSource, SettingsTables, in_trio, inventory, local_user, read_settings

if TYPE_CHECKING:
    import trio

    from ..inventory import Inventory
    from ..settings import Settings

#: Seconds for which a server that is closed waits for its clients' last answers.
_EOF_GRACE = 0.5

#: What a test may fail with; a cancellation is none of them.
_FAILURES = (Exception, pytest.fail.Exception, pytest.skip.Exception)

_numbers = itertools.count(1)


class Connect(Protocol):
    """The type of the fixture `mcpd_client`."""

    def __call__(
        self,
        *plugins: PluginSource,
        settings: SettingsTables | None = None,
        data_dir: Path | None = None,
        mode: Literal["auto", "legacy"] = "auto",
        **options: Any,
    ) -> AbstractAsyncContextManager[Client]:
        """Serve plugins and connect a client; enter it with ``async with``, on asyncio or trio.

        On trio the host is in another thread: tools share no loop with the test there.

        :param plugins: what is served, as for `MakeHost`; ``settings`` and ``data_dir`` as well.
        :param mode: ``legacy`` connects by the handshake of 2025-11-25 and before.
        :param options: more for `mcp.Client`, such as ``logging_callback``.
        :raises SelectionError: when a plugin cannot be served.
        """
        ...


def connector(default_data_dir: Path) -> Connect:
    """Return what the fixture `mcpd_client` is."""

    @asynccontextmanager
    async def connect(
        *plugins: PluginSource,
        settings: SettingsTables | None = None,
        data_dir: Path | None = None,
        mode: Literal["auto", "legacy"] = "auto",
        **options: Any,
    ) -> AsyncIterator[Client]:
        folder = data_dir or default_data_dir
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        read = read_settings(settings)
        serving = _Serving(inventory(plugins, read), read, folder, ours)
        where, transport = (
            (_in_thread, _trio_transport) if in_trio() else (_in_loop, _asyncio_transport)
        )
        failure: BaseException | None = None
        async with where(serving, theirs):
            async with Client(transport(theirs), mode=mode, **options) as client:
                try:
                    yield client
                except _FAILURES as error:
                    # The client's task group would wrap it, and hide what the test is about.
                    failure = error
        if failure is not None:
            raise failure

    return connect


class _Serving:
    """A host, and a server that serves one socket from it."""

    def __init__(
        self, inventory: Inventory, settings: Settings, data_dir: Path, sock: socket.socket
    ) -> None:
        self._host = Host(inventory, settings, data_dir=data_dir)
        self._socket = sock

    async def run(self, ready: Future[None]) -> None:
        """Serve until the client has left.

        :param ready: set when the client may begin; it gets the error when that fails.
        """
        try:
            async with self._host:
                await self._host.start_services()
                channel = LineChannel(eof_grace=_EOF_GRACE)
                loop = asyncio.get_running_loop()
                await loop.connect_accepted_socket(lambda: channel, self._socket)
                ready.set_result(None)
                session = Session(local_user(), f"test:{next(_numbers)}")
                try:
                    await McpServer(self._host).serve(channel, session)
                finally:
                    await channel.close()
        except BaseException as error:
            self._socket.close()
            if ready.done():
                raise
            ready.set_exception(error)


@asynccontextmanager
async def _in_loop(serving: _Serving, client: socket.socket) -> AsyncIterator[None]:
    """Serve on the loop of the test."""
    ready = _running_future()
    task = asyncio.ensure_future(serving.run(ready))
    try:
        await asyncio.wrap_future(ready)
        yield
    finally:
        # That ends the serving, also when no client came to use it.
        client.close()
        with anyio.CancelScope(shield=True):
            await task


@asynccontextmanager
async def _in_thread(serving: _Serving, client: socket.socket) -> AsyncIterator[None]:
    """Serve on a loop in a thread; the test is on trio."""
    ready, ended = _running_future(), _running_future()

    def run() -> None:
        try:
            asyncio.run(serving.run(ready))
            ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - the boundary: raised in the test
            ended.set_exception(error)

    threading.Thread(target=run, name="mcpd-host", daemon=True).start()
    try:
        # No deadline: importing has one, and whatever the host starts has as well.
        await anyio.to_thread.run_sync(ready.exception)
        ready.result()
        yield
    finally:
        client.close()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(ended.exception)
        ended.result()


def _running_future() -> Future[None]:
    """Return a future that a cancelled waiter cannot cancel."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


# --- the client's end -----------------------------------------------------------------------------


@asynccontextmanager
async def _asyncio_transport(sock: socket.socket) -> AsyncIterator[Any]:
    channel = LineChannel()
    await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, sock)
    try:
        yield ChannelReadStream(channel), ChannelWriteStream(channel)
    finally:
        await channel.close()


@asynccontextmanager
async def _trio_transport(sock: socket.socket) -> AsyncIterator[Any]:
    import trio

    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    try:
        yield _TrioReadStream(stream), _TrioWriteStream(stream)
    finally:
        await stream.aclose()


class _TrioStream:
    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def aclose(self) -> None:
        """Close the connection, both ways."""
        await self._stream.aclose()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class _TrioReadStream(_TrioStream):
    """Messages that the server sends, as the SDK reads them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._buffer = bytearray()

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message.

        :raises anyio.EndOfStream: when the server has closed the connection.
        """
        import trio

        while (end := self._buffer.find(b"\n")) < 0:
            try:
                received = await self._stream.receive_some()
            except trio.BrokenResourceError:
                received = b""
            except trio.ClosedResourceError:
                raise anyio.ClosedResourceError from None
            if not received:
                raise anyio.EndOfStream
            self._buffer += received
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError as error:
            return error

    def __aiter__(self) -> _TrioReadStream:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> _TrioReadStream:
        return self


class _TrioWriteStream(_TrioStream):
    """Messages to the server, as the SDK writes them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._turn = anyio.Lock()

    async def send(self, item: SessionMessage, /) -> None:
        """Send one message.

        :raises anyio.BrokenResourceError: when the server has closed the connection.
        """
        import trio

        try:
            async with self._turn:
                await self._stream.send_all(encode(item.message))
        except trio.BrokenResourceError:
            raise anyio.BrokenResourceError from None
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None

    async def __aenter__(self) -> _TrioWriteStream:
        return self
