"""The wire of one client: lines, bounds, back-pressure, and the end of the input."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from mcpd_core.server import wire
from mcpd_core.server.sdk_streams import ChannelReadStream, ChannelWriteStream
from mcpd_core.server.streams import LineChannel

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[LineChannel, socket.socket]]:
    """A channel on a real socket, and the client's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    channel = LineChannel(**options)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, ours)
    try:
        yield channel, theirs
    finally:
        theirs.close()
        await channel.close()


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, size: int = 1 << 16) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, size)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await asyncio.sleep(0.001)


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, 10)


# --- lines ----------------------------------------------------------------------------------------


async def test_a_line_is_put_together_from_pieces() -> None:
    async with connected() as (channel, client):
        for piece in (b'{"a"', b":1", b"}\n{", b'"b":2}\n'):
            await send(client, piece)
            await asyncio.sleep(0)
        assert await soon(channel.line()) == b'{"a":1}'
        assert await soon(channel.line()) == b'{"b":2}'


async def test_the_end_of_the_input_comes_after_the_last_line() -> None:
    async with connected() as (channel, client):
        await send(client, b"one\ntwo\nunfinished")
        client.shutdown(socket.SHUT_WR)
        assert [await soon(channel.line()) for _ in range(3)] == [b"one", b"two", None]


@pytest.mark.parametrize("ending", [b"", b"\n"], ids=["unfinished", "in one piece"])
async def test_a_message_that_is_too_long_is_refused_and_the_input_ends(ending: bytes) -> None:
    async with connected(max_message=100) as (channel, client):
        await send(client, b"ok\n")
        assert await soon(channel.line()) == b"ok"
        await send(client, b"x" * 101 + ending)
        assert await soon(channel.line()) is None
        refusal = json.loads(await soon(receive(client)))
        assert refusal["id"] is None
        assert "100 bytes" in refusal["error"]["message"]
        channel.data_received(b"more\n")
        assert await soon(channel.line()) is None


async def test_a_client_that_sends_faster_than_is_read_is_held_back() -> None:
    async with connected() as (channel, client):
        sender = asyncio.ensure_future(send(client, (b"x" * 999 + b"\n") * 4000))
        await until(lambda: channel._paused)
        assert not sender.done()
        for _ in range(4000):
            assert await soon(channel.line()) == b"x" * 999
        await soon(sender)


async def test_a_client_that_does_not_read_holds_its_own_answers_back() -> None:
    async with connected() as (channel, client):
        assert channel.write(b"y" * (8 << 20))
        waiting = asyncio.ensure_future(channel.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        got = 0
        while got < 8 << 20:
            got += len(await soon(receive(client, 1 << 20)))
        await soon(waiting)


async def test_nothing_is_written_to_a_client_that_has_gone() -> None:
    async with connected() as (channel, client):
        channel.write(b"y" * (8 << 20))
        waiting = asyncio.ensure_future(channel.drain())
        client.close()
        await soon(waiting)
        assert channel.lost
        assert channel.write(b"more") is False
        assert await soon(channel.line()) is None


async def test_closing_gives_up_on_a_client_that_does_not_read() -> None:
    async with connected() as (channel, _):
        channel.write(b"y" * (8 << 20))
        await channel.close(timeout=0.01)
        await until(lambda: channel.lost)


async def test_a_channel_without_transports_can_be_closed() -> None:
    await LineChannel().close()


# --- the end of the input -------------------------------------------------------------------------


async def test_the_end_is_held_back_while_requests_are_unanswered() -> None:
    async with connected(eof_grace=10) as (channel, client):
        channel.begin()
        client.shutdown(socket.SHUT_WR)
        end = asyncio.ensure_future(channel.line())
        await until(lambda: channel._ended)
        await asyncio.sleep(0)
        assert not end.done()
        channel.done()
        assert await soon(end) is None


async def test_the_end_is_held_back_only_for_so_long() -> None:
    async with connected(eof_grace=0.01) as (channel, client):
        channel.begin()
        client.shutdown(socket.SHUT_WR)
        assert await soon(channel.line()) is None
        assert channel.in_flight == 1


async def test_the_end_is_not_held_back_for_a_client_that_has_closed_its_socket() -> None:
    async with connected(eof_grace=3600) as (channel, client):
        channel.begin()
        client.close()
        assert await soon(channel.line()) is None
        assert channel.lost


async def test_a_client_may_have_only_so_many_requests_unanswered() -> None:
    async with connected(max_in_flight=2) as (channel, _):
        channel.begin()
        await soon(channel.room())
        channel.begin()
        room = asyncio.ensure_future(channel.room())
        await asyncio.sleep(0)
        assert not room.done()
        channel.done()
        await soon(room)


# --- the SDK's streams ----------------------------------------------------------------------------


async def test_the_read_stream_yields_messages_and_says_what_is_none() -> None:
    async with connected() as (channel, client):
        lines = [
            b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
            b"  ",
            b"garbage",
            b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        ]
        await send(client, b"\n".join(lines) + b"\n")
        client.shutdown(socket.SHUT_WR)
        items: list[Any] = []
        async with ChannelReadStream(channel) as stream:
            async for item in stream:
                items.append(item)
                if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCRequest):
                    channel.done()
        request, garbage, notification = items
        assert isinstance(request.message, JSONRPCRequest)
        assert isinstance(garbage, ValueError)
        assert isinstance(notification.message, JSONRPCNotification)


async def test_the_streams_count_answers_and_requests_left_unanswered() -> None:
    async with connected() as (channel, client):
        await send(client, b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n' * 3)
        reader, writer = ChannelReadStream(channel), ChannelWriteStream(channel)
        items = [await soon(reader.receive()) for _ in range(3)]
        assert channel.in_flight == 3
        async with writer:
            await writer.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={})))
            error = ErrorData(code=1, message="no")
            await writer.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=1, error=error)))
            note = JSONRPCNotification(jsonrpc="2.0", method="notifications/progress")
            await writer.send(SessionMessage(note))
        assert channel.in_flight == 1
        await items[2].metadata.on_request_unanswered()
        assert channel.in_flight == 0
        lines = (await soon(receive(client))).splitlines()
        assert [sorted(json.loads(line)) for line in lines] == [
            ["id", "jsonrpc", "result"],
            ["error", "id", "jsonrpc"],
            ["jsonrpc", "method"],
        ]


async def test_the_write_stream_is_broken_when_the_client_has_gone() -> None:
    async with connected() as (channel, client):
        client.close()
        await soon(channel.line())
        with pytest.raises(anyio.BrokenResourceError):
            await ChannelWriteStream(channel).send(
                SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="x"))
            )


# --- encoding -------------------------------------------------------------------------------------


def test_a_raw_list_is_spliced_into_its_result() -> None:
    tools = [{"name": "a"}, {"name": "ö"}]
    for rest in ({}, {"nextCursor": "after:ö", "ttlMs": 1}):
        raw: dict[str, Any] = {"tools": wire.RawList(tools), **rest}
        line = wire.encode_result("id", raw)
        assert line.endswith(b"\n")
        expected = {"jsonrpc": "2.0", "id": "id", "result": {"tools": tools, **rest}}
        assert json.loads(line) == expected


def test_any_other_serialiser_sees_an_ordinary_list() -> None:
    assert json.dumps(wire.RawList([1, 2])) == "[1, 2]"


def test_every_text_can_be_encoded() -> None:
    line = wire.encode_result(1, {"text": "\ud800 and \u2028"})
    assert line.count(b"\n") == 1
    assert json.loads(line)["result"]["text"] == "\ud800 and \u2028"


def test_numbers_that_json_lacks_become_null() -> None:
    assert json.loads(wire.dump({"a": math.nan, "b": math.inf})) == {"a": None, "b": None}
