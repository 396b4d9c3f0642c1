"""Clients that arrive over a stream of bytes of a plugin's own: `ServiceHost.serve_stream`."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio

Receive = Callable[[], Awaitable[bytes]]
Send = Callable[[bytes], Awaitable[Any]]
#: Serves one client over a connected socket, which it closes; awaited in the plugin's library.
Serve = Callable[[socket.socket], Coroutine[Any, Any, None]]

_CHUNK = 1 << 16

_log = logging.getLogger(__name__)


async def serve_over(receive: Receive, send: Send, serve: Serve) -> None:
    """Serve one client until it leaves, or until there is nothing more to say to it.

    The bytes go through a pair of sockets, whose buffers give back-pressure in both directions
    whatever the two libraries are.
    """
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        async with anyio.create_task_group() as group:
            group.start_soon(serve, theirs)
            group.start_soon(_copy_in, receive, ours)
            # Ends when the server has sent its last answer and closed its end.
            await _copy_out(ours, send)
            group.cancel_scope.cancel()


async def _copy_in(receive: Receive, sock: socket.socket) -> None:
    try:
        while data := await receive():
            await _send_all(sock, data)
    except Exception as error:  # noqa: BLE001 - the boundary of a plugin's stream: its end
        _log.debug("a client's stream ended: %r", error)
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        # The server has closed its end already.
        return


async def _copy_out(sock: socket.socket, send: Send) -> None:
    try:
        while data := await _receive_some(sock):
            await send(data)
    except Exception as error:  # noqa: BLE001 - as above: nobody reads the answers any more
        _log.debug("a client's stream ended: %r", error)


async def _receive_some(sock: socket.socket) -> bytes:
    while True:
        try:
            return sock.recv(_CHUNK)
        except BlockingIOError:
            await anyio.wait_readable(sock)


async def _send_all(sock: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await anyio.wait_writable(sock)
