"""The process's own standard input and output as a client's connection."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from .streams import LineChannel, ReadingSide, WritingSide

_CHUNK = 256 * 1024


class StdioTransports:
    """Connects a channel to a pair of descriptors, whatever they are.

    Pipes and sockets are given to the loop. It refuses regular files and some devices, and a
    terminal must not be made non-blocking because the shell shares it; these are fed through a
    pipe by a thread.

    :param channel: what to connect.
    """

    def __init__(self, channel: LineChannel) -> None:
        self._channel = channel
        self._writer: threading.Thread | None = None

    async def open(self, reading: int, writing: int) -> None:
        """Connect; the descriptors stay the caller's.

        :param reading: where requests are read from.
        :param writing: where answers are written to.
        """
        loop = asyncio.get_running_loop()
        if _is_socket(reading) and _same(reading, writing):
            sock = socket.socket(fileno=os.dup(reading))
            sock.setblocking(False)
            await loop.connect_accepted_socket(lambda: self._channel, sock)
            return
        output = await self._open_output(loop, writing)
        source = await self._open_input(loop, reading)
        self._channel.attach(source, output)

    async def close(self, timeout: float = 5.0) -> None:
        """Send what is buffered and close.

        :param timeout: seconds for a client that does not read its answers.
        """
        await self._channel.close(timeout)
        if self._writer is not None:
            # Joined on a thread, so that a terminal that is held up does not block the loop.
            waiting = asyncio.get_running_loop().run_in_executor(None, self._writer.join, timeout)
            await asyncio.wait([asyncio.ensure_future(waiting)], timeout=timeout)

    async def _open_input(
        self, loop: asyncio.AbstractEventLoop, reading: int
    ) -> asyncio.ReadTransport:
        side = ReadingSide(self._channel)
        if _is_socket(reading):
            sock = socket.socket(fileno=os.dup(reading))
            sock.setblocking(False)
            transport, _ = await loop.connect_accepted_socket(lambda: side, sock)
            return transport
        if _is_pipe(reading):
            source = os.dup(reading)
        else:
            source, sink = os.pipe()
            _start(_copy, os.dup(reading), sink, name="mcpd-stdin")
        read_transport, _ = await loop.connect_read_pipe(lambda: side, _file(source, "rb"))
        return read_transport

    async def _open_output(
        self, loop: asyncio.AbstractEventLoop, writing: int
    ) -> asyncio.WriteTransport:
        side = WritingSide(self._channel)
        if _is_socket(writing):
            sock = socket.socket(fileno=os.dup(writing))
            sock.setblocking(False)
            transport, _ = await loop.connect_accepted_socket(lambda: side, sock)
            return transport
        if _is_pipe(writing):
            sink = os.dup(writing)
        else:
            source, sink = os.pipe()
            self._writer = _start(_copy, source, os.dup(writing), name="mcpd-stdout")
        write_transport, _ = await loop.connect_write_pipe(lambda: side, _file(sink, "wb"))
        return write_transport


def _file(descriptor: int, mode: str) -> IO[bytes]:
    """Wrap a descriptor for a transport, which closes it."""
    return open(descriptor, mode, buffering=0)


def _start(target: Callable[[int, int], None], *args: int, name: str) -> threading.Thread:
    # A daemon thread: a read of a terminal cannot be interrupted when the process is to end.
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    thread.start()
    return thread


def _copy(source: int, sink: int) -> None:
    """Copy until the end, then close both; either end may go away at any time."""
    with suppress(OSError):
        while data := os.read(source, _CHUNK):
            while data:
                data = data[os.write(sink, data) :]
    os.close(source)
    os.close(sink)


def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _is_pipe(descriptor: int) -> bool:
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


def _same(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))
