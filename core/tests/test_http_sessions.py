"""MCP over Streamable HTTP on a real port, with the SDK's client, in both protocol eras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types
import pytest
from mcp import Client, MCPError
from mcp.client.subscriptions import ToolsListChanged

from mcpd_core.inventory import PluginRow

from .http_kit import ME, MORE, TOOLS, Served, plant, serving, until, wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["legacy", "auto"], ids=["handshake", "modern"])
def era(request: pytest.FixtureRequest) -> Any:
    """How the client connects: by handshake, or with an envelope on each request."""
    return request.param


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginRow:
    return plant(tmp_path, monkeypatch, "tools", TOOLS)


@pytest.fixture
async def served(row: PluginRow) -> AsyncIterator[Served]:
    async with serving(row) as served:
        yield served


# --- what clients do ------------------------------------------------------------------------------


async def test_a_client_lists_and_calls_tools(served: Served, era: Any) -> None:
    async with Client(served.url, mode=era) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == ["fail", "report", "say", "wait", "whoami"]
        answer = await client.call_tool("say", {"text": "ab", "times": 2})
        assert answer.content == [mcp_types.TextContent(text="abab")]
        who = (await client.call_tool("whoami", {})).structured_content
        assert who is not None
        assert who["principal"] == ME
        assert who["client"].startswith("http")
        failed = await client.call_tool("fail", {})
        assert failed.is_error
        assert "Free some room" in failed.content[0].text  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="No tool is called 'sai'"):
            await client.call_tool("sai", {})


async def test_many_clients_are_served_at_once(served: Served, era: Any) -> None:
    async def one(number: int) -> str:
        async with Client(served.url, mode=era) as client:
            answer = await client.call_tool("say", {"text": f"{number} ", "times": 3})
            return answer.content[0].text  # type: ignore[union-attr]

    texts = await asyncio.gather(*(one(number) for number in range(20)))
    assert texts == [f"{number} " * 3 for number in range(20)]


async def test_progress_comes_before_the_answer(served: Served, era: Any) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with Client(served.url, mode=era) as client:
        answer = await client.call_tool("report", {"count": 3}, progress_callback=hear)
        assert answer.content == [mcp_types.TextContent(text="reported")]
    assert heard == [(n, 3, f"step {n}") for n in range(3)]


async def test_log_lines_come_to_those_who_ask_for_them(served: Served, era: Any) -> None:
    heard: list[Any] = []

    async def hear(params: mcp_types.LoggingMessageNotificationParams) -> None:
        heard.append(params.data)

    level: Any = "info" if era == "auto" else None
    async with Client(served.url, mode=era, logging_callback=hear, log_level=level) as client:
        if era != "auto":
            await client.call_tool("report", {"count": 2})
            assert heard == []
            await client.session.send_request(
                mcp_types.SetLevelRequest(params=mcp_types.SetLevelRequestParams(level="info")),
                mcp_types.EmptyResult,
            )
        await client.call_tool("report", {"count": 2})
    assert heard == ["line 0", "line 1"]


async def test_giving_up_cancels_the_tool(served: Served, era: Any) -> None:
    async with Client(served.url, mode=era) as client:
        with anyio.move_on_after(10) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "wait", {})
                await until(lambda: served.tools.log == ["waiting"])
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught
        await until(lambda: served.tools.log == ["waiting", "cancelled"])
        assert (await client.call_tool("say", {"text": "on"})).content[0].text == "on"  # type: ignore[union-attr]


async def test_clients_hear_of_tools_that_come_and_go(
    served: Served, era: Any, row: PluginRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = plant(tmp_path, monkeypatch, "extra", MORE)
    heard = anyio.Event()

    async def hear(message: Any) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            heard.set()

    async with Client(served.url, mode=era, message_handler=hear) as client:
        capabilities = client.server_capabilities
        assert capabilities.tools is not None
        assert capabilities.tools.list_changed is True
        before = len((await client.list_tools()).tools)
        with anyio.fail_after(10):
            if era == "auto":
                async with client.listen(tools_list_changed=True) as events:
                    served.revise(row, more)
                    async for event in events:
                        assert isinstance(event, ToolsListChanged)
                        break
            else:
                served.revise(row, more)
                await heard.wait()
        assert len((await client.list_tools()).tools) == before + 1
        assert (await client.call_tool("more", {})).content[0].text == "more"  # type: ignore[union-attr]


async def test_what_changes_nothing_for_clients_is_not_announced(
    served: Served, row: PluginRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = plant(tmp_path, monkeypatch, "extra", MORE)
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(getattr(message, "method", ""))

    async with Client(served.url, mode="legacy", message_handler=hear) as client:
        await client.list_tools()
        served.revise(row)
        await client.call_tool("say", {"text": "x"})
        # Several in a row are announced once.
        served.revise(row, more)
        served.revise(row, more)
        await until(lambda: "notifications/tools/list_changed" in heard)
        await client.call_tool("say", {"text": "x"})
    assert heard.count("notifications/tools/list_changed") == 1


# --- JSON or a stream -----------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["handshake", "modern"])
def modern(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def events(answer: httpx2.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "text/event-stream"
    lines = answer.text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


async def test_space_around_the_value_of_a_header_is_none_of_it(
    served: Served, modern: bool
) -> None:
    async with wire(served.url, modern=modern) as client:
        params = {"name": "whoami", "arguments": {}}
        body = json.dumps(client.message("tools/call", params))
        url = httpx2.URL(served.url)
        headers = {
            **client.headers("tools/call", params),
            "host": url.netloc.decode(),
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
        # By hand: the client library would not send such lines.
        lines = [f"{name}: \t {value} \t" for name, value in headers.items()]
        reader, writer = await asyncio.open_connection(url.host, url.port)
        request = [f"POST {url.path} HTTP/1.1", *lines, "", body]
        writer.write("\r\n".join(request).encode())
        answer = (await reader.read()).decode()
        writer.close()
    assert answer.startswith("HTTP/1.1 200 ")
    assert ME in answer


async def test_an_answer_is_json_unless_the_request_asks_for_more(
    served: Served, modern: bool
) -> None:
    async with wire(served.url, modern=modern) as client:
        plain = await client.call("report", count=2)
        assert plain.headers["content-type"] == "application/json"
        assert plain.json()["result"]["content"][0]["text"] == "reported"
        params: dict[str, Any] = {"name": "report", "arguments": {"count": 2}}
        params["_meta"] = {"progressToken": "t"}
        *reports, answer = events(await client.post("tools/call", params))
        assert [each["params"]["progress"] for each in reports] == [0, 1]
        assert {each["params"]["progressToken"] for each in reports} == {"t"}
        assert answer["result"]["content"][0]["text"] == "reported"
        # A tool that reports nothing is answered at once, and a stream is not begun for it.
        params |= {"name": "say", "arguments": {"text": "x"}}
        quiet = await client.post("tools/call", params)
        assert quiet.headers["content-type"] == "application/json"


async def test_with_sse_the_handshake_era_hears_log_lines_unasked(row: PluginRow) -> None:
    async with serving(row, stream="sse") as served, wire(served.url, modern=False) as client:
        *lines, answer = events(await client.call("report", count=1))
        assert [line["params"]["data"] for line in lines] == ["line 0"]
        assert "result" in answer


async def test_a_client_that_takes_no_streams_gets_json(served: Served, modern: bool) -> None:
    async with wire(served.url, modern=modern) as client:
        params = {"name": "report", "arguments": {"count": 1}, "_meta": {"progressToken": 1}}
        answer = await client.post("tools/call", params, accept="application/json")
        assert answer.json()["result"]["content"][0]["text"] == "reported"
        assert (await client.post("tools/list", {}, accept="text/html")).status_code == 406
        listening = {"notifications": {"toolsListChanged": True}}
        if modern:
            method = "subscriptions/listen"
            answer = await client.post(method, listening, accept="application/json")
            assert answer.status_code == 406


async def test_a_silent_stream_shows_that_it_is_alive(
    served: Served, modern: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpd_core.server.http.exchange.PING", 0.05)
    async with wire(served.url, modern=modern) as client:
        params = {"name": "wait", "arguments": {}, "_meta": {"progressToken": 1}}
        message = client.message("tools/call", params)
        headers = client.headers("tools/call", params)
        async with client.client.stream(
            "POST", served.url, json=message, headers=headers
        ) as response:
            lines = response.aiter_lines()
            assert await anext(lines) == ": ping"
            served.tools.gate.set()
            rest = [line async for line in lines]
        assert any('"waited"' in line for line in rest)


# --- the rules of each era ------------------------------------------------------------------------


async def test_headers_must_say_what_the_body_says(served: Served) -> None:
    async with wire(served.url, modern=True) as client:
        call = {"name": "say", "arguments": {"text": "x"}}
        # Twice, because a connection remembers how its client describes itself.
        for _ in range(2):
            assert (await client.post("tools/call", call)).status_code == 200
            for wrong in ({"mcp_method": "tools/list"}, {"mcp_name": "wait"}):
                refused = await client.post("tools/call", call, **wrong)
                assert refused.status_code == 400
                assert refused.json()["error"]["code"] == -32020
        encoded = await client.post("tools/call", call, mcp_name="=?base64?c2F5?=")
        assert encoded.status_code == 200
        other = await client.post("tools/list", {}, mcp_protocol_version="2027-01-01")
        assert other.status_code == 400
        twice = [*client.headers("tools/list", {}).items(), ("mcp-method", "tools/list")]
        message = client.message("tools/list", {})
        refused = await client.client.post(served.url, json=message, headers=twice)
        assert "more than once" in refused.json()["error"]["message"]


async def test_arguments_that_a_tool_wants_in_headers_are_compared(
    served: Served, row: PluginRow
) -> None:
    say = next(spec for spec in row.tools if spec.name == "say")
    properties = {**say.input_schema["properties"]}
    properties["text"] = {**properties["text"], "x-mcp-header": "Text"}
    spec = type(say)(
        **{**vars(say), "input_schema": {**say.input_schema, "properties": properties}}
    )
    served.revise(type(row)(**{**vars(row), "tools": (spec,)}))
    async with wire(served.url, modern=True) as client:
        call = {"name": "say", "arguments": {"text": "x"}}
        assert (await client.post("tools/call", call)).status_code == 400
        assert (await client.post("tools/call", call, mcp_param_text="y")).status_code == 400
        assert (await client.post("tools/call", call, mcp_param_text="x")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"[]", 400, -32600),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "tools/list"}', 400, -32600),
        (b'{"jsonrpc": "1.0", "method": 1}', 400, -32600),
    ],
)
async def test_a_body_that_is_no_message_is_refused(
    served: Served, modern: bool, body: bytes, status: int, code: int
) -> None:
    async with wire(served.url, modern=modern) as client:
        headers = {**client.headers("tools/list", {}), "content-type": "application/json"}
        refused = await client.client.post(served.url, content=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)


async def test_unknown_methods_and_missing_envelopes_are_errors(served: Served) -> None:
    async with wire(served.url, modern=True) as client:
        unknown = await client.post("tools/juggle", {})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, -32601)
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        headers = client.headers("tools/list", {})
        refused = await client.client.post(served.url, json=message, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
        assert (await client.notify("notifications/cancelled", requestId=1)).status_code == 202
        assert (await client.client.get(served.url, headers=headers)).status_code == 405


async def test_a_session_ends_when_its_client_says_so(served: Served) -> None:
    async with wire(served.url, modern=False) as client:
        headers = client.headers("", {})
        assert (await client.client.put(served.url, headers=headers)).status_code == 405
        assert (await client.client.delete(served.url, headers=headers)).status_code == 200
        assert (await client.call("say", text="x")).status_code == 404
        client.session = ""
        assert (await client.call("say", text="x")).status_code == 400


async def test_a_session_has_one_stream(served: Served) -> None:
    async with wire(served.url, modern=False) as client:
        headers = {**client.headers("", {}), "accept": "text/event-stream"}
        async with client.client.stream("GET", served.url, headers=headers) as response:
            assert await anext(response.aiter_lines()) == ": open"
            assert (await client.client.get(served.url, headers=headers)).status_code == 409
        as_json = {**headers, "accept": "application/json"}
        assert (await client.client.get(served.url, headers=as_json)).status_code == 406


async def test_what_is_announced_waits_for_a_client_without_a_stream(
    served: Served, row: PluginRow
) -> None:
    async with wire(served.url, modern=False) as client:
        served.revise()
        served.revise(row)
        served.revise()
        await asyncio.sleep(0)
        await client.post("ping")
        headers = {**client.headers("", {}), "accept": "text/event-stream"}
        async with client.client.stream("GET", served.url, headers=headers) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    break
        assert json.loads(line[6:])["method"] == "notifications/tools/list_changed"


async def test_a_session_that_is_closed_answers_what_is_running(served: Served) -> None:
    async with wire(served.url, modern=False) as client:
        call = asyncio.ensure_future(client.call("wait"))
        await until(lambda: served.tools.log == ["waiting"])
        await client.client.delete(served.url, headers=client.headers("", {}))
        assert "closed" in (await call).json()["error"]["message"]
        assert served.tools.log == ["waiting", "cancelled"]


async def test_sessions_are_bounded_in_number_and_in_time(row: PluginRow) -> None:
    async with serving(row, max_sessions=1, idle_timeout=0.1) as served:
        async with wire(served.url, modern=False) as client:
            another = await client.client.post(
                served.url,
                json=client.message("initialize", {"protocolVersion": "2025-11-25"}),
                headers={"accept": "application/json"},
            )
            assert another.status_code == 503
            handshakes = served.web._app.handshakes  # type: ignore[union-attr]
            await until(lambda: len(handshakes) == 0)
            assert (await client.call("say", text="x")).status_code == 404
            client.session = ""
            await client.hello()
            assert (await client.call("say", text="x")).status_code == 200


async def test_a_handshake_that_fails_leaves_no_session(served: Served) -> None:
    async with httpx2.AsyncClient() as client:
        refused = await client.post(
            served.url,
            json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}},
            headers={"accept": "application/json"},
        )
        assert refused.json()["error"]["code"] == -32602
    assert len(served.web._app.handshakes) == 0  # type: ignore[union-attr]


# --- sizes, and the end ---------------------------------------------------------------------------


async def test_a_request_of_four_mebibytes_is_served_and_a_larger_one_refused(
    served: Served, modern: bool
) -> None:
    async with wire(served.url, modern=modern) as client:
        text = "x" * (4 * 1024 * 1024 - 1000)
        answer = (await client.call("say", text=text, times=0)).json()["result"]
        assert answer["content"][0]["text"] == ""
        refused = await client.call("say", text=text + "x" * 2000)
        assert refused.status_code == 413

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b" " * 1024 * 1024

        headers = {**client.headers("tools/list", {}), "content-type": "application/json"}
        refused = await client.client.post(served.url, content=chunks(), headers=headers)
        assert refused.status_code == 413


async def test_calls_in_flight_are_answered_when_the_server_stops(
    served: Served, modern: bool
) -> None:
    async with wire(served.url, modern=modern) as client:
        call = asyncio.ensure_future(client.call("wait"))
        await until(lambda: served.tools.log == ["waiting"])
        draining = asyncio.ensure_future(served.drain(grace=10))
        await until(lambda: served.host.closing)
        with pytest.raises(httpx2.ConnectError):
            async with httpx2.AsyncClient() as late:
                await late.get(f"{served.root}/health/live")
        served.tools.gate.set()
        assert (await call).json()["result"]["content"][0]["text"] == "waited"
        await draining


async def test_calls_that_outlast_the_grace_are_cancelled_and_answered(
    served: Served, modern: bool
) -> None:
    async with wire(served.url, modern=modern) as client:
        call = asyncio.ensure_future(client.call("wait"))
        await until(lambda: served.tools.log == ["waiting"])
        await served.drain(grace=0.01)
        result = (await call).json()["result"]
        assert result["_meta"]["mcpd/error"]["code"] == "interrupted"
        assert served.tools.log == ["waiting", "cancelled"]


async def test_open_streams_do_not_keep_a_server_that_stops(served: Served, era: Any) -> None:
    async with Client(served.url, mode=era) as client:
        if era == "auto":
            async with client.listen(tools_list_changed=True) as changes:
                with anyio.fail_after(4):
                    await served.drain(grace=10)
                assert [change async for change in changes] == []
        else:
            await client.list_tools()
            with anyio.fail_after(4):
                await served.drain(grace=10)
