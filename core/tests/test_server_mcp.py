"""MCP sessions over the real host: both protocol eras, and both engines."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import logging
import os
import socket
import textwrap
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from opentelemetry import trace

from mcpd_core.errors import Busy, CallRefused, HostClosed, NotAuthorised, ToolUnavailable
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.schema import describe, tools_of
from mcpd_core.server import engine as engine_module
from mcpd_core.server.mcp import McpServer, instructions
from mcpd_core.server.notifier import LIMIT
from mcpd_core.server.results import ERROR_META
from mcpd_core.server.sdk_streams import ChannelReadStream, ChannelWriteStream
from mcpd_core.server.session import Session
from mcpd_core.server.streams import LineChannel
from mcpd_core.settings import load_settings
from mcpd_core.spec import CallResult, Principal, Progress

pytestmark = pytest.mark.anyio

ME = Principal("local", str(os.getuid()))
MODERN = "2026-07-28"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}

TOOLS = """
    from __future__ import annotations
    import anyio
    from mcpd_core import CallResult, Context, ToolError, tool

    log = []

    @tool(title="Say it", read_only=True, destructive=False, idempotent=True, open_world=False)
    async def say(text: str, times: int = 1) -> str:
        '''Say something.'''
        return text * times

    @tool(aliases=("total",))
    async def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @tool
    async def fail() -> None:
        raise ToolError("The disk is full.", hint="Free some room.", data={"free": 0})

    @tool
    async def crash() -> None:
        raise ZeroDivisionError("secret")

    @tool
    async def report(count: int, ctx: Context) -> str:
        for n in range(count):
            ctx.progress(n, count, f"step {n}")
            ctx.log("info", f"line {n}")
        ctx.log("debug", "details")
        return "reported"

    @tool
    async def wait(ctx: Context, tidy: float = 0) -> str:
        log.append("waiting")
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(tidy)
            log.append("cleaned")
        return "waited"

    @tool
    async def whoami(ctx: Context) -> dict[str, str]:
        return {"principal": str(ctx.principal), "client": ctx.client}

    def in_our_words(misfit, arguments):
        return CallResult("", {"ok": False, "given": sorted(arguments)}, {"code": misfit.code})

    @tool(on_misfit=in_our_words)
    async def half(answer: dict[str, object]) -> CallResult:
        return CallResult("", answer, {"code": "half_done"})
"""

Serve = Callable[..., AbstractAsyncContextManager["Wire"]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["lean", "sdk"])
def engine(request: pytest.FixtureRequest) -> str:
    """Which code moves the messages; clients must not be able to tell."""
    name: str = request.param
    return name


@pytest.fixture(params=["legacy", MODERN])
def era(request: pytest.FixtureRequest) -> str:
    """How the client connects: by handshake, or with an envelope on each request."""
    name: str = request.param
    return name


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginRow:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"server_tools_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(TOOLS))
    functions = tools_of(importlib.import_module(module))
    return PluginRow(
        name="tools",
        distribution="mcpd-tools",
        version="1.0",
        runtime="asyncio",
        state="enabled",
        entry=module,
        tools=tuple(describe(f, plugin="tools", runtime="asyncio") for f in functions),
    )


@pytest.fixture
async def host(row: PluginRow, anyio_backend: str) -> AsyncIterator[Host]:
    settings = load_settings(config=None, env={}, overrides={})
    async with Host(Inventory((row,)), settings, data_dir=None) as host:
        yield host


def log_of(row: PluginRow) -> list[str]:
    log: list[str] = importlib.import_module(row.entry).log
    return log


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def session_of(server: McpServer) -> AsyncIterator[tuple[socket.socket, LineChannel]]:
    """Serve one end of a socket pair; yield the other."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    channel = LineChannel(eof_grace=0.5)
    await loop.connect_accepted_socket(lambda: channel, ours)
    serving = asyncio.ensure_future(server.serve(channel, Session(ME, "test:1")))
    try:
        yield theirs, channel
    finally:
        theirs.close()
        await asyncio.wait_for(serving, 20)
        await channel.close()


class Wire:
    """A client that sees every byte."""

    def __init__(self, sock: socket.socket, modern: bool) -> None:
        self._sock = sock
        self._modern = modern
        self._ids = itertools.count(1)
        self._buffer = b""

    async def send(self, *messages: Any) -> None:
        data = b""
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            data += line + b"\n"
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        params = dict(params or {})
        if self._modern:
            params["_meta"] = {**ENVELOPE, **params.get("_meta", {})}
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}

    def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    async def receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            more = await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(self._sock, 1 << 16), 10
            )
            assert more, "the server closed the connection"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        await self.send(self.request(method, params))
        return await self.receive()

    def end(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)


@pytest.fixture
def serve(host: Host, engine: Any, era: str) -> Serve:
    @asynccontextmanager
    async def served(*, introduced: bool = True, **options: Any) -> AsyncIterator[Wire]:
        options = {"engine": engine, **options}
        async with session_of(McpServer(options.pop("host", host), **options)) as (sock, _):
            wire = Wire(sock, era == MODERN)
            if introduced and era == "legacy":
                assert "result" in await wire.ask("initialize", HELLO)
                await wire.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            yield wire

    return served


@asynccontextmanager
async def sdk_client(host: Host, engine: Any, era: Any, **options: Any) -> AsyncIterator[Client]:
    """The SDK's own client, connected through the same streams from the other side."""

    @asynccontextmanager
    async def transport(sock: socket.socket) -> AsyncIterator[Any]:
        channel = LineChannel()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, sock)
        try:
            yield ChannelReadStream(channel), ChannelWriteStream(channel)
        finally:
            await channel.close()

    async with session_of(McpServer(host, engine=engine)) as (sock, _):
        mode: Any = "auto" if era == MODERN else era
        async with Client(transport(sock.dup()), mode=mode, **options) as client:
            assert client.protocol_version == (MODERN if era == MODERN else "2025-11-25")
            yield client


# --- what the SDK's client sees -------------------------------------------------------------------


async def test_a_client_finds_the_tools_with_everything_they_promise(
    host: Host, engine: str, era: str
) -> None:
    async with sdk_client(host, engine, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == sorted(tools)
        say = tools["say"]
        assert (say.title, say.description) == ("Say it", "Say something.")
        assert say.input_schema["required"] == ["text"]
        hints = say.annotations
        assert hints is not None
        assert hints.read_only_hint is True
        assert hints.destructive_hint is False
        assert hints.idempotent_hint is True
        assert hints.open_world_hint is False
        assert tools["add"].output_schema is not None
        assert tools["add"].annotations is not None
        assert tools["add"].annotations.destructive_hint is True
        assert client.server_capabilities.tools is not None
        assert client.server_capabilities.resources is None
        assert "tools (8)" in (client.instructions or "")


async def test_a_client_gets_text_and_structured_answers(host: Host, engine: str, era: str) -> None:
    async with sdk_client(host, engine, era) as client:
        said = await client.call_tool("say", {"text": "ho", "times": 3})
        assert [block.model_dump()["text"] for block in said.content] == ["hohoho"]
        added = await client.call_tool("total", {"a": 1, "b": 2})
        assert added.structured_content == {"sum": 3}
        assert json.loads(added.content[0].text) == {"sum": 3}  # type: ignore[union-attr]
        who = await client.call_tool("whoami", {})
        assert who.structured_content == {"principal": str(ME), "client": "test:1"}


async def test_a_failing_tool_is_a_result_that_says_what_to_do(
    host: Host, engine: str, era: str
) -> None:
    async with sdk_client(host, engine, era) as client:
        failed = await client.call_tool("fail", {})
        assert failed.is_error
        assert failed.content[0].text == "The disk is full. Free some room."  # type: ignore[union-attr]
        assert failed.meta is not None
        details = failed.meta[ERROR_META]
        assert details["code"] == "tool_failed"
        assert details["free"] == 0
        misfit = await client.call_tool("say", {"txt": "x"})
        assert misfit.is_error
        assert misfit.meta is not None
        assert misfit.meta[ERROR_META]["code"] == "invalid_arguments"
        crashed = await client.call_tool("crash", {})
        assert crashed.is_error
        assert "secret" not in crashed.model_dump_json()


async def test_a_failure_keeps_the_data_that_the_tool_gave_with_it(
    host: Host, engine: str, era: str
) -> None:
    async with sdk_client(host, engine, era) as client:
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({"answer": {"ok": False}}, {"ok": False}),
            ({"anser": 1}, {"ok": False, "given": ["anser"]}),
        ]
        for arguments, given in cases:
            failed = await client.call_tool("half", arguments)
            assert failed.is_error
            assert failed.structured_content == given
            assert json.loads(failed.content[0].text) == given  # type: ignore[union-attr]
            assert failed.meta is not None
            assert failed.meta[ERROR_META]["code"] in ("half_done", "invalid_arguments")


async def test_a_client_can_be_told_of_progress_and_logs(host: Host, engine: str, era: str) -> None:
    reports: list[tuple[float, float | None, str | None]] = []
    lines: list[tuple[str, Any]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    async def on_log(params: Any) -> None:
        lines.append((params.level, params.data))

    options: dict[str, Any] = {"logging_callback": on_log}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK deprecates asking for log lines
        if era == MODERN:
            options["log_level"] = "debug"
        async with sdk_client(host, engine, era, **options) as client:
            if era == "legacy":
                await client.set_logging_level("debug")
            await client.call_tool("report", {"count": 3}, progress_callback=on_progress)
            await until(lambda: len(lines) == 4 and len(reports) == 3)
    assert sorted(reports) == [(n, 3, f"step {n}") for n in range(3)]
    assert sorted(lines) == [
        ("debug", "details"),
        *(("info", f"line {n}") for n in range(3)),
    ]


# --- what goes over the wire ----------------------------------------------------------------------


async def test_progress_precedes_the_answer_in_the_order_it_was_made(serve: Serve) -> None:
    async with serve() as wire:
        request = wire.call("report", count=20)
        request["params"].setdefault("_meta", {})["progressToken"] = "token"
        await wire.send(request)
        seen = []
        while "id" not in (message := await wire.receive()):
            if message["method"] == "notifications/progress":
                assert message["params"]["progressToken"] == "token"
                seen.append(message["params"]["progress"])
        assert seen == list(range(20))
        assert message["result"]["content"][0]["text"] == "reported"


async def test_a_client_that_asked_for_nothing_is_told_nothing(serve: Serve, era: str) -> None:
    async with serve() as wire:
        await wire.send(wire.call("report", count=1))
        messages = [await wire.receive()]
        while "id" not in messages[-1]:
            messages.append(await wire.receive())
        # In the handshake era log lines come unasked, from the level "info" on.
        expected = (
            [] if era == MODERN else [{"level": "info", "logger": "report", "data": "line 0"}]
        )
        assert [message["params"] for message in messages[:-1]] == expected


async def test_a_cancelled_call_is_cleaned_up_and_never_answered(
    serve: Serve, row: PluginRow
) -> None:
    async with serve() as wire:
        request = wire.call("wait", tidy=0.05)
        await wire.send(request)
        await until(lambda: log_of(row) == ["waiting"])
        params = {"requestId": request["id"], "reason": "enough"}
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        await wire.send(note)
        await until(lambda: log_of(row) == ["waiting", "cleaned"])
        answer = await wire.ask("tools/call", {"name": "say", "arguments": {"text": "next"}})
        assert answer["result"]["content"][0]["text"] == "next"


async def test_a_call_may_be_cancelled_before_it_has_begun(serve: Serve, row: PluginRow) -> None:
    async with serve() as wire:
        request = wire.call("wait")
        params = {"requestId": str(request["id"])}
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        await wire.send(request, note, wire.call("say", text="next"))
        assert (await wire.receive())["result"]["content"][0]["text"] == "next"


async def test_a_client_that_leaves_cancels_its_calls(serve: Serve, row: PluginRow) -> None:
    async with serve() as wire:
        await wire.send(wire.call("wait"))
        await until(lambda: log_of(row) == ["waiting"])
    assert log_of(row) == ["waiting", "cleaned"]


async def test_calls_in_flight_are_answered_after_the_end_of_the_input(serve: Serve) -> None:
    async with serve() as wire:
        await wire.send(*(wire.call("say", text=str(n)) for n in range(20)))
        wire.end()
        answers = [await wire.receive() for _ in range(20)]
        texts = {answer["result"]["content"][0]["text"] for answer in answers}
        assert texts == {str(n) for n in range(20)}


async def test_calls_that_outlast_the_end_of_the_input_are_answered_as_closed(
    serve: Serve, row: PluginRow
) -> None:
    async with serve() as wire:
        await wire.send(wire.call("wait"))
        await until(lambda: log_of(row) == ["waiting"])
        wire.end()
        assert (await wire.receive())["error"]["message"] == "Connection closed"
        assert log_of(row) == ["waiting", "cleaned"]


async def test_thousands_of_pipelined_calls_are_all_answered(serve: Serve) -> None:
    async with serve() as wire:
        calls = [wire.call("say", text="x" * 500) for _ in range(1500)]
        sending = asyncio.create_task(wire.send(*calls))
        answered = set()
        for _ in range(1500):
            answer = await wire.receive()
            assert answer["result"]["content"][0]["text"] == "x" * 500
            answered.add(answer["id"])
        await asyncio.wait_for(sending, 10)
        assert len(answered) == 1500


async def test_garbage_is_ignored_and_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with serve() as wire:
        await wire.send(
            b"garbage", b"", b"[]", b'{"jsonrpc":"1.0","id":1,"method":"ping"}', b"\xff"
        )
        await wire.send({"jsonrpc": "2.0", "id": 99, "result": {}})
        answer = await wire.ask("tools/call", {"name": "say", "arguments": {"text": "still"}})
        assert answer["result"]["content"][0]["text"] == "still"
    assert "no JSON-RPC message" in caplog.text


async def test_an_id_may_be_used_again(serve: Serve) -> None:
    async with serve() as wire:
        for text in ("one", "two"):
            request = {**wire.call("say", text=text), "id": "same"}
            await wire.send(request)
            answer = await wire.receive()
            assert (answer["id"], answer["result"]["content"][0]["text"]) == ("same", text)
        twice = [{**wire.call("say", text=text), "id": "same"} for text in ("one", "two")]
        await wire.send(*twice)
        answers = [await wire.receive() for _ in twice]
        assert [answer["id"] for answer in answers] == ["same", "same"]


async def test_pages_are_complete_and_in_order(serve: Serve) -> None:
    async with serve(page=3) as wire:
        names: list[str] = []
        sizes: list[int] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await wire.ask("tools/list", cursor))["result"]
            names += [tool["name"] for tool in page["tools"]]
            sizes.append(len(page["tools"]))
            if "nextCursor" not in page:
                break
            cursor = {"cursor": page["nextCursor"]}
        assert sizes == [3, 3, 2]
        assert names == sorted(names)
        assert len(set(names)) == 8


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 8])
async def test_a_list_is_the_same_in_however_many_parts_it_is_made(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    async with serve() as wire:
        whole = (await wire.ask("tools/list"))["result"]
    monkeypatch.setattr("mcpd_core.server.listing.AT_A_TIME", at_a_time)
    async with serve() as wire:
        for _ in range(2):
            assert (await wire.ask("tools/list"))["result"] == whole
    async with serve(page=5) as wire:
        first = (await wire.ask("tools/list"))["result"]
        second = (await wire.ask("tools/list", {"cursor": first["nextCursor"]}))["result"]
        assert first["tools"] + second["tools"] == whole["tools"]
        assert "nextCursor" not in second


@pytest.mark.parametrize("cursor", ["nonsense", "after:not a name"])
async def test_an_unknown_cursor_is_an_error(serve: Serve, cursor: str) -> None:
    async with serve() as wire:
        answer = await wire.ask("tools/list", {"cursor": cursor})
        assert answer["error"]["code"] == -32602


async def test_a_list_is_given_again_until_the_tools_change(
    serve: Serve, host: Host, row: PluginRow
) -> None:
    async with serve() as wire:
        first = (await wire.ask("tools/list"))["result"]
        assert (await wire.ask("tools/list"))["result"] == first
        host.revise(Inventory(()))
        assert (await wire.ask("tools/list"))["result"]["tools"] == []


async def test_a_request_that_the_sdk_refuses_is_refused_though_the_list_is_kept(
    serve: Serve, era: str
) -> None:
    async with serve() as wire:
        assert "result" in await wire.ask("tools/list")
        assert (await wire.ask("tools/list", {"cursor": 5}))["error"]["code"] == -32602


async def test_old_pages_are_forgotten(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpd_core.server.listing.KEPT", 1)
    async with serve(page=3) as wire:
        first = (await wire.ask("tools/list"))["result"]
        second = (await wire.ask("tools/list", {"cursor": first["nextCursor"]}))["result"]
        assert (await wire.ask("tools/list"))["result"] == first
        assert second != first


async def test_requests_are_checked_in_the_era_of_the_connection(serve: Serve, era: str) -> None:
    async with serve() as wire:
        if era == "legacy":
            enveloped = {**wire.call("say", text="x")}
            enveloped["params"]["_meta"] = ENVELOPE
            await wire.send(enveloped)
            assert (await wire.receive())["error"]["code"] == -32600
            assert (await wire.ask("ping"))["result"] == {}
        else:
            discovered = (await wire.ask("server/discover"))["result"]
            assert discovered["supportedVersions"] == [MODERN]
            assert discovered["capabilities"]["tools"]["listChanged"] is True
            answer = await wire.ask("initialize", HELLO)
            assert answer["error"]["code"] == -32022
            bare = {**wire.call("say", text="x")}
            del bare["params"]["_meta"]
            await wire.send(bare)
            assert (await wire.receive())["error"]["code"] == -32602
        assert (await wire.ask("no/such"))["error"]["code"] == -32601
        assert (await wire.ask("tools/call", {"arguments": {}}))["error"]["code"] == -32602


async def test_nothing_is_offered_before_the_handshake(host: Host, engine: Any) -> None:
    async with session_of(McpServer(host, engine=engine)) as (sock, _):
        wire = Wire(sock, modern=False)
        await wire.send(
            *({"jsonrpc": "2.0", "method": "notifications/progress"} for _ in range(10)),
            wire.request("tools/list"),
        )
        assert (await wire.receive())["error"]["code"] == -32602
        # A client may pipeline its first request behind its handshake.
        hello, listing = wire.request("initialize", HELLO), wire.request("tools/list")
        await wire.send(hello, listing)
        assert (await wire.receive())["id"] == hello["id"]
        assert len((await wire.receive())["result"]["tools"]) == 8


async def test_a_client_may_describe_itself_anew(host: Host) -> None:
    async with session_of(McpServer(host, engine="lean")) as (sock, _):
        wire = Wire(sock, modern=True)
        refused = wire.call("say", text="x")
        del refused["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        await wire.send(refused, note)
        assert (await wire.receive())["error"]["code"] == -32602
        for name in ("one", "one", "two"):
            request = wire.call("say", text=name)
            request["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] = {
                "name": name,
                "version": "1",
            }
            await wire.send(request, note)
            assert (await wire.receive())["result"]["content"][0]["text"] == name


async def test_a_handler_can_see_that_its_request_was_given_up() -> None:
    request = engine_module._Request(LineChannel(), 1, None)
    before = request.cancel_requested
    assert not before.is_set()
    request.give_up()
    assert before.is_set()
    later = engine_module._Request(LineChannel(), 2, None)
    later.give_up()
    assert later.cancel_requested.is_set()
    # Nobody can be asked anything, and what is said after the answer is dropped.
    assert later.transport.can_send_request is False
    assert later.can_send_request is False
    with pytest.raises(MCPError):
        await later.send_raw_request("ping", None)
    later.closed = True
    await later.notify("notifications/message", None)
    await later.progress(1)


# --- refusals -------------------------------------------------------------------------------------


class Refusing:
    """A host that refuses every call."""

    def __init__(self, host: Host, refusal: BaseException) -> None:
        self.catalog = host.catalog
        self.content = host.content
        self.updates = host.updates
        self.tools_for = host.tools_for
        self.refusal = refusal

    async def call(self, *_: Any, **__: Any) -> CallResult:
        raise self.refusal


async def test_an_unknown_tool_is_an_error_that_names_the_close_match(serve: Serve) -> None:
    async with serve() as wire:
        error = (await wire.ask("tools/call", {"name": "sai", "arguments": {}}))["error"]
        assert error["code"] == -32602
        assert "'say'" in error["message"]
        assert error["data"]["code"] == "unknown_tool"


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Busy("Too many calls wait.", retry_after=2.5), "busy"),
        (HostClosed("Closing."), "host_closed"),
        (NotAuthorised("No."), "not_authorised"),
        (
            ToolUnavailable("Broken.", hint="Mend it.", data={"path": Path("/x")}),
            "tool_unavailable",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_refusal_is_an_error_with_its_reason(
    serve: Serve, host: Host, refusal: CallRefused, code: str
) -> None:
    async with serve(host=Refusing(host, refusal)) as wire:
        error = (await wire.ask("tools/call", {"name": "say", "arguments": {}}))["error"]
        assert (error["code"], error["data"]["code"]) == (-32000, code)
        assert refusal.message in error["message"]
        if isinstance(refusal, Busy):
            assert error["data"]["retryAfter"] == 2.5


async def test_what_goes_wrong_inside_stays_inside(
    serve: Serve, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(host=Refusing(host, RuntimeError("secret"))) as wire:
        error = (await wire.ask("tools/call", {"name": "say", "arguments": {}}))["error"]
        assert error == {"code": -32603, "message": "Internal server error"}
    assert "secret" in caplog.text


async def test_a_failure_outside_the_handlers_stays_inside_too(host: Host) -> None:
    server = McpServer(host, engine="lean")

    async def broken(ctx: Any, call_next: Any) -> Any:
        raise RuntimeError("secret")

    async with session_of(server) as (sock, _):
        wire = Wire(sock, modern=False)
        server.sdk.middleware.insert(0, broken)
        assert (await wire.ask("initialize", HELLO))["error"]["code"] == -32603


# --- slow readers, tracing, choosing the engine ---------------------------------------------------


class Chatty:
    """A host with one tool, which says more than a client that does not read can take."""

    def __init__(self, host: Host) -> None:
        self.catalog = host.catalog
        self.content = host.content
        self.updates = host.updates
        self.tools_for = host.tools_for
        self.trace: Any = None

    async def call(
        self, *_: Any, on_progress: Any = None, on_log: Any = None, trace: Any = None, **__: Any
    ) -> CallResult:
        self.trace = trace
        if on_progress is not None:
            for n in range(LIMIT * 4):
                on_progress(Progress(n))
        if on_log is not None:
            for n in range(LIMIT * 4):
                on_log("WARN", f"line {n}")
            on_log("unheard of", "odd")
        return CallResult("done")


async def test_what_a_client_is_too_slow_for_is_thinned_and_not_queued(
    serve: Serve, host: Host
) -> None:
    async with serve(host=Chatty(host)) as wire:
        request = wire.call("say")
        meta = {"progressToken": 7, "io.modelcontextprotocol/logLevel": "info"}
        request["params"]["_meta"] = {**request["params"].get("_meta", {}), **meta}
        await wire.send(request)
        messages = []
        while "id" not in (message := await wire.receive()):
            messages.append(message["params"])
        assert len(messages) == LIMIT
        assert messages[-1]["data"] == "odd"
        assert {message.get("level") for message in messages} <= {None, "warning", "info"}


async def test_the_trace_context_of_a_request_reaches_the_host(serve: Serve, host: Host) -> None:
    chatty = Chatty(host)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serve(host=chatty) as wire:
        request = wire.call("say")
        request["params"].setdefault("_meta", {}).update(traceparent=parent, tracestate=5)
        await wire.send(request)
        while "id" not in await wire.receive():
            pass
        assert chatty.trace == {"traceparent": parent}


def test_spans_are_made_only_when_somebody_collects_them(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(config=None, env={}, overrides={})
    host = Host(Inventory((row,)), settings, data_dir=None)
    assert len(McpServer(host).sdk.middleware) == 1
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    assert len(McpServer(host).sdk.middleware) == 2


def test_an_sdk_of_another_shape_is_driven_by_its_own_loop(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(config=None, env={}, overrides={})
    host = Host(Inventory((row,)), settings, data_dir=None)
    assert McpServer(host).engine == "lean"

    def changed(something: int) -> None: ...

    monkeypatch.setattr(engine_module, "_WRITTEN_FOR", {changed: ("connection",)})
    assert McpServer(host).engine == "sdk"
    assert "changed of the installed MCP SDK takes ('something',)" in caplog.text


def test_the_instructions_say_so_when_nothing_is_enabled() -> None:
    assert "none is enabled" in instructions(())


async def test_schemas_are_found_by_name(host: Host) -> None:
    server = McpServer(host)
    find = server.sdk.get_tool_input_schema
    assert find is not None
    assert find("say") == host.catalog.get("say").input_schema  # type: ignore[union-attr]
    assert find("none") is None


# --- changes --------------------------------------------------------------------------------------


async def test_a_client_hears_of_tools_that_come_and_go(
    host: Host, row: PluginRow, engine: Any, era: str
) -> None:
    server = McpServer(host, engine=engine)
    server.watch()
    async with session_of(server) as (sock, _):
        wire = Wire(sock, era == MODERN)
        listening: dict[str, Any] = {}
        if era == "legacy":
            capabilities = (await wire.ask("initialize", HELLO))["result"]["capabilities"]
            assert capabilities["tools"]["listChanged"] is True
            await wire.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            await wire.ask("ping")
        else:
            listening = wire.request(
                "subscriptions/listen", {"notifications": {"toolsListChanged": True}}
            )
            await wire.send(listening)
            assert (await wire.receive())["method"] == "notifications/subscriptions/acknowledged"
        host.revise(Inventory(()))
        assert (await wire.receive())["method"] == "notifications/tools/list_changed"
        assert (await wire.ask("tools/list"))["result"]["tools"] == []
        # Nothing is different for clients, so that nothing is said.
        host.revise(Inventory(()))
        await asyncio.sleep(0)
        host.revise(Inventory((row,)))
        assert (await wire.receive())["method"] == "notifications/tools/list_changed"
        assert len((await wire.ask("tools/list"))["result"]["tools"]) == len(row.tools)
        await server.aclose()
        if era == MODERN:
            assert (await wire.receive())["id"] == listening["id"]
        host.revise(Inventory(()))
        assert (await wire.ask("tools/list"))["result"]["tools"] == []


async def test_a_change_is_announced_from_whatever_thread_makes_it(host: Host) -> None:
    server = McpServer(host)
    server.watch()
    async with session_of(server) as (sock, _):
        wire = Wire(sock, modern=False)
        await wire.ask("initialize", HELLO)
        await wire.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        await wire.ask("ping")
        await asyncio.to_thread(host.revise, Inventory(()))
        assert (await wire.receive())["method"] == "notifications/tools/list_changed"


async def test_a_subscription_does_not_hold_up_the_end_of_a_connection(host: Host) -> None:
    server = McpServer(host, engine="lean")
    server.watch()
    async with session_of(server) as (sock, channel):
        wire = Wire(sock, modern=True)
        params = {"notifications": {"toolsListChanged": True}}
        await wire.send(wire.request("subscriptions/listen", params))
        await wire.receive()
        assert channel.in_flight == 0
        wire.end()
        # The grace for calls in flight is not for subscriptions.
        assert (await asyncio.wait_for(wire.receive(), 10))["error"]["message"]
