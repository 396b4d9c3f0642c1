"""Standard input and output as a client's connection, whatever they are."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import socket
import subprocess
import sys
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mcpd_core.errors import DaemonError
from mcpd_core.server.claim import claimed
from mcpd_core.server.stdio import StdioTransports
from mcpd_core.server.streams import LineChannel

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def opened(reading: int, writing: int) -> AsyncIterator[LineChannel]:
    channel = LineChannel()
    transports = StdioTransports(channel)
    await transports.open(reading, writing)
    try:
        yield channel
    finally:
        await transports.close(timeout=10)


async def echo(channel: LineChannel) -> None:
    """Answer every line until the end of the input."""
    while (line := await asyncio.wait_for(channel.line(), 10)) is not None:
        channel.write(b"echo " + line + b"\n")
        await channel.drain()


async def read(descriptor: int, size: int = 1 << 16) -> bytes:
    return await asyncio.get_running_loop().run_in_executor(None, os.read, descriptor, size)


async def test_pipes_are_served() -> None:
    requests, client_out = os.pipe()
    client_in, answers = os.pipe()
    os.write(client_out, b"one\ntwo\n")
    os.close(client_out)
    async with opened(requests, answers) as channel:
        await echo(channel)
    os.close(requests)
    os.close(answers)
    assert os.read(client_in, 100) == b"echo one\necho two\n"
    assert os.read(client_in, 100) == b""
    os.close(client_in)


async def test_regular_files_are_served(tmp_path: Path) -> None:
    source, sink = tmp_path / "requests", tmp_path / "answers"
    source.write_bytes(b"line\n" * 1000)
    reading, writing = os.open(source, os.O_RDONLY), os.open(sink, os.O_WRONLY | os.O_CREAT)
    async with opened(reading, writing) as channel:
        await echo(channel)
    os.close(reading)
    os.close(writing)
    assert sink.read_bytes() == b"echo line\n" * 1000


async def test_the_null_device_is_an_input_that_has_ended() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    async with opened(null, null) as channel:
        await echo(channel)
    os.close(null)


async def test_a_terminal_is_served_and_stays_blocking() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    async with opened(theirs, theirs) as channel:
        serving = asyncio.create_task(echo(channel))
        os.write(ours, b"typed\n")
        assert await asyncio.wait_for(read(ours), 10) == b"echo typed\n"
        assert not fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
    # Closing our end wakes the thread that reads the terminal.
    os.close(ours)
    os.close(theirs)


async def test_one_socket_for_both_directions_is_served() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"one\n")
    theirs.shutdown(socket.SHUT_WR)
    async with opened(ours.fileno(), ours.fileno()) as channel:
        await echo(channel)
    ours.close()
    assert theirs.recv(100) == b"echo one\n"
    theirs.close()


async def test_a_socket_for_each_direction_is_served() -> None:
    requests, client_out = socket.socketpair()
    answers, client_in = socket.socketpair()
    client_in.shutdown(socket.SHUT_WR)
    client_out.sendall(b"one\n")
    async with opened(requests.fileno(), answers.fileno()) as channel:
        client_in_answer = asyncio.create_task(echo(channel))
        client_in.setblocking(False)
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(client_in, 100), 10) == b"echo one\n"
        client_out.close()
        await client_in_answer
    for sock in (requests, answers, client_in):
        sock.close()


async def test_a_client_that_stops_reading_a_pipe_is_lost() -> None:
    requests, client_out = os.pipe()
    client_in, answers = os.pipe()
    async with opened(requests, answers) as channel:
        channel.write(b"x" * (1 << 20))
        waiting = asyncio.create_task(channel.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        os.close(client_in)
        await asyncio.wait_for(waiting, 10)
        assert await asyncio.wait_for(channel.line(), 10) is None
        assert channel.lost
    for descriptor in (requests, client_out, answers):
        os.close(descriptor)


STRAY = """
import os, subprocess, sys
from mcpd_core.server.claim import claimed
with claimed() as (reading, writing):
    print("stray print", flush=True)
    subprocess.run(["sh", "-c", "echo stray child; cat"], check=True)
    os.write(writing, os.read(reading, 100))
print("restored", flush=True)
"""


@pytest.mark.parametrize("stderr", ["open", "closed"])
def test_stray_output_and_input_of_children_never_touch_the_wire(stderr: str) -> None:
    command = f"exec {sys.executable} -c '{STRAY}'" + (" 2>&-" if stderr == "closed" else "")
    done = subprocess.run(
        ["sh", "-c", command], input="request", capture_output=True, text=True, check=True
    )
    assert done.stdout == "requestrestored\n"
    assert done.stderr == ("stray print\nstray child\n" if stderr == "open" else "")


def test_the_wire_is_taken_and_given_back() -> None:
    with claimed() as (reading, writing):
        assert reading > 2
        assert writing > 2
        assert os.path.samestat(os.fstat(0), os.stat(os.devnull))
        assert not os.get_inheritable(reading)
        assert not os.get_inheritable(writing)
    for descriptor in (reading, writing):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_closed_input_is_an_error_that_says_so() -> None:
    kept = os.dup(0)
    os.close(0)
    try:
        with pytest.raises(DaemonError, match="cannot be used"), claimed():
            pass
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_the_wire_is_claimed_before_the_sdk_is_imported() -> None:
    code = "import sys, mcpd_core.server.daemon; sys.exit('mcp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
