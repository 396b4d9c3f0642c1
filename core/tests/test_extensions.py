"""What plugins add to the server: JSON-RPC methods, HTTP routes and transports, in real sessions.

And what the owner asks of it beside MCP.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcpd_core import Principal
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.server.control import Control
from mcpd_core.server.extensions import Extensions
from mcpd_core.server.http.listener import HttpListener
from mcpd_core.server.http.peers import Door
from mcpd_core.server.mcp import McpServer
from mcpd_core.settings import HttpSettings, load_settings
from mcpd_core.spec import ToolSpec

pytestmark = pytest.mark.anyio

ME = Principal("local", str(os.getuid()))
STRANGER = Principal("peer", "12D3Koo")
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}

PLUGIN = """
    from __future__ import annotations
    from contextlib import asynccontextmanager
    from mcpd_core import HttpRoute, McpdError, Transport, hookimpl, tool

    log = []

    @tool
    async def say(text: str) -> str:
        return text

    async def ask(params, principal):
        if params.get("fail") == "known":
            raise McpdError("It is raining.", hint="Wait.", data={"mm": 3})
        if params.get("fail"):
            raise ZeroDivisionError("secret")
        return {"params": params, "principal": str(principal)}

    async def nothing(params, principal):
        return None

    @hookimpl
    def mcpd_rpc_methods():
        return {"weather/ask": ask, "weather/nothing": nothing, "tools/list": ask}

    async def page(scope, receive, send):
        body = (await receive()).get("body", b"")
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": scope["method"].encode() + b" " + body})

    @hookimpl
    def mcpd_http_routes():
        return [HttpRoute("/weather/page", ("GET", "POST"), page)]
"""
HOOKS = ("mcpd_http_routes", "mcpd_rpc_methods")

#: Methods and routes that work with a service, which says where it is asked.
SERVED = """
    from __future__ import annotations
    from contextlib import asynccontextmanager
    import sniffio
    from mcpd_core import Health, HttpRoute, Service, hookimpl, tool

    @tool
    async def say(text: str) -> str:
        return text

    class Station:
        async def measure(self):
            return sniffio.current_async_library()

        def health(self):
            return Health(True)

    @asynccontextmanager
    async def open_station(host):
        yield Station()

    @hookimpl
    def mcpd_services():
        return [Service("station", __name__ + ":open_station", runtime="RUNTIME")]

    @hookimpl
    def mcpd_rpc_methods(services):
        async def measure(params, principal):
            station = await services.get(params.get("service", "station"))
            return {"here": sniffio.current_async_library(), "there": await station.measure()}

        return {"station/measure": measure}

    @hookimpl
    def mcpd_http_routes(services):
        async def page(scope, receive, send):
            body = await (await services.get("station")).measure()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body.encode()})

        return [HttpRoute("/station", ("GET",), page)]
"""

#: A transport of a plugin: a queue in each direction, in the library of its runtime.
TRANSPORT = {
    "asyncio": """
        from __future__ import annotations
        import asyncio
        from contextlib import asynccontextmanager
        from mcpd_core import Health, Principal, Transport, hookimpl, tool

        clients = []
        log = []

        @tool
        async def say(text: str) -> str:
            return text

        class Pipe:
            def health(self):
                return Health(True, "open")

        class Client:
            def __init__(self, principal):
                self.inbox, self.outbox = asyncio.Queue(), asyncio.Queue()
                self.principal = principal

        @asynccontextmanager
        async def open_pipe(host):
            async def serve(client):
                assert asyncio.current_task() is not None
                await host.serve_stream(
                    client.inbox.get, client.outbox.put, principal=client.principal
                )
                log.append("left")
            client = Client(Principal("local", "1"))
            clients.append(client)
            task = asyncio.create_task(serve(client))
            yield Pipe()
            task.cancel()
            await asyncio.wait([task])
            log.append("closed")

        @hookimpl
        def mcpd_transports():
            return [Transport("pipe", __name__ + ":open_pipe", runtime="asyncio")]
    """,
    "trio": """
        from __future__ import annotations
        from contextlib import asynccontextmanager
        from mcpd_core import Health, Principal, Transport, hookimpl, tool

        clients = []
        log = []

        @tool
        async def say(text: str) -> str:
            return text

        class Pipe:
            def health(self):
                return Health(True, "open")

        class Client:
            def __init__(self, principal):
                import trio
                self.to_us, self.from_client = trio.open_memory_channel(1000)
                self.token = trio.lowlevel.current_trio_token()
                self.outbox = []
                self.principal = principal
            async def receive(self):
                return await self.from_client.receive()
            async def send(self, data):
                self.outbox.append(data)

        @asynccontextmanager
        async def open_pipe(host):
            import trio
            async def serve(client):
                trio.lowlevel.current_task()
                await host.serve_stream(client.receive, client.send, principal=client.principal)
                log.append("left")
            client = Client(Principal("local", "1"))
            clients.append(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, client)
                yield Pipe()
                nursery.cancel_scope.cancel()
            log.append("closed")

        @hookimpl
        def mcpd_transports():
            return [Transport("pipe", __name__ + ":open_pipe", runtime="trio")]
    """,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Make = Callable[..., PluginRow]
Start = Callable[..., AbstractAsyncContextManager["Served"]]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, source: str, hooks: tuple[str, ...], runtime: str = "asyncio") -> PluginRow:
        module = f"{name}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        schema = {"type": "object", "properties": {"text": {"type": "string"}}}
        say = ToolSpec(f"say_{name}", "", schema, f"{module}:say", name)
        return PluginRow(
            name, f"mcpd-{name}", "1", runtime, "enabled", entry=module, hooks=hooks, tools=(say,)
        )

    return make


class Served:
    """A host with a server before it, and what the plugins add to that."""

    def __init__(self, host: Host, server: McpServer, extensions: Extensions) -> None:
        self.host = host
        self.server = server
        self.extensions = extensions

    @asynccontextmanager
    async def client(self, principal: Principal = ME) -> AsyncIterator[Client]:
        """A client over a stream, as a plugin's transport would bring it."""
        inbox: asyncio.Queue[bytes] = asyncio.Queue()
        outbox: asyncio.Queue[bytes] = asyncio.Queue()
        from mcpd_core.host.streams import serve_over

        async def serve(sock: Any) -> None:
            await self.extensions.serve_stream(sock, principal, "test")

        serving = asyncio.ensure_future(serve_over(inbox.get, outbox.put, serve))
        client = Client(inbox.put, outbox.get)
        await client.hello()
        yield client
        await inbox.put(b"")
        await serving


class Client:
    def __init__(self, send: Callable[[bytes], Any], receive: Callable[[], Any]) -> None:
        self._send = send
        self._receive = receive
        self._ids = itertools.count(1)
        self._buffer = b""

    async def hello(self) -> None:
        assert "result" in await self.request("initialize", HELLO)
        await self._send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    async def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}
        await self._send(json.dumps(message).encode() + b"\n")
        while True:
            while b"\n" not in self._buffer:
                data = await self._receive()
                assert data, "the server hung up"
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
            answer: dict[str, Any] = json.loads(line)
            if answer.get("id") == number:
                return answer


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(*rows: PluginRow) -> AsyncIterator[Served]:
        settings = load_settings(config=None, env={}, overrides={})
        async with Host(Inventory(rows), settings, data_dir=tmp_path) as host:
            server = McpServer(host)
            Control(host).register(server.sdk)
            extensions = Extensions(server, host)
            server.watch()
            await host.start_services()
            yield Served(host, server, extensions)
            extensions.close()
            await server.aclose()

    return started


# --- JSON-RPC methods -----------------------------------------------------------------------------


async def test_a_method_of_a_plugin_is_answered_by_it(plugin: Make, start: Start) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served, served.client() as client:
        answer = await client.request("weather/ask", {"where": "here", "_meta": {"x": 1}})
        assert answer["result"] == {"params": {"where": "here"}, "principal": str(ME)}
        assert (await client.request("weather/nothing"))["result"] == {}


async def test_what_a_method_raises_reaches_the_client_without_internals(
    plugin: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served, served.client() as client:
        error = (await client.request("weather/ask", {"fail": "known"}))["error"]
        assert error["message"] == "It is raining."
        assert error["data"] == {"code": "error", "data": {"mm": 3}, "hint": "Wait."}
        error = (await client.request("weather/ask", {"fail": "x"}))["error"]
        assert error == {"code": -32603, "message": "Internal server error"}
    assert "ZeroDivisionError: secret" in caplog.text


@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_methods_and_routes_reach_the_services_of_either_runtime(
    plugin: Make, start: Start, runtime: str
) -> None:
    hooks = (*HOOKS, "mcpd_services")
    row = plugin("station", SERVED.replace("RUNTIME", runtime), hooks)
    async with start(row) as served, served.client() as client:
        answer = await client.request("station/measure")
        assert answer["result"] == {"here": "asyncio", "there": runtime}
        error = (await client.request("station/measure", {"service": "tower"}))["error"]
        assert error["message"].startswith("No enabled plugin offers the service 'tower'")
        async with web(served) as root, httpx2.AsyncClient() as browser:
            assert (await browser.get(f"{root}/station")).text == runtime


async def test_the_methods_of_mcp_cannot_be_replaced(
    plugin: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served, served.client() as client:
        (tool,) = (await client.request("tools/list"))["result"]["tools"]
        assert tool["name"] == "say_weather"
    assert "tools/list of a plugin is the server's own" in caplog.text


async def test_a_method_is_the_owners_alone(plugin: Make, start: Start) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served:
        async with served.client(STRANGER) as client:
            error = (await client.request("weather/ask"))["error"]
            assert error["data"]["code"] == "not_authorised"


async def test_a_method_two_plugins_claim_is_left_out(
    plugin: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    rows = plugin("weather", PLUGIN, HOOKS), plugin("rival", PLUGIN, HOOKS)
    async with start(*rows) as served, served.client() as client:
        assert (await client.request("weather/ask"))["error"]["code"] == -32601
        assert "weather/ask is offered by rival and weather" in caplog.text
        await served.host.set_enabled("rival", False)
        await asyncio.sleep(0)
        assert "result" in await client.request("weather/ask")


async def test_a_method_goes_and_comes_with_its_plugin(plugin: Make, start: Start) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served, served.client() as client:
        for enabled in (False, True, False):
            await served.host.set_enabled("weather", enabled)
            await asyncio.sleep(0)
            answer = await client.request("weather/ask")
            assert ("result" in answer) is enabled


# --- HTTP routes ----------------------------------------------------------------------------------


@asynccontextmanager
async def web(served: Served, door: Door | None = None, **http: Any) -> AsyncIterator[str]:
    settings = HttpSettings(port=0, **http)
    routes = served.host.extras.http_routes
    listener = HttpListener(served.server, served.host, settings, routes=routes, door=door)
    await listener.start()
    try:
        yield listener.url.rpartition("/")[0]
    finally:
        await listener.close(5)


async def test_a_route_of_a_plugin_is_served_beside_mcp(plugin: Make, start: Start) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served, web(served) as root:
        async with httpx2.AsyncClient() as client:
            page = f"{root}/weather/page"
            assert (await client.get(page)).text == "GET "
            assert (await client.post(page, content=b"rain")).text == "POST rain"
            refused = await client.delete(page)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
            assert (await client.get(f"{root}/weather")).status_code == 404
            await served.host.set_enabled("weather", False)
            assert (await client.get(page)).status_code == 404


class NobodysDoor(Door):
    def principal(self, sock: Any) -> Principal | None:
        return None


async def test_a_route_is_guarded_as_mcp_is(plugin: Make, start: Start) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served:
        async with web(served) as root, httpx2.AsyncClient() as client:
            page = f"{root}/weather/page"
            for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
                assert (await client.get(page, headers=headers)).status_code in (403, 421)
        door = NobodysDoor(HttpSettings())
        async with web(served, door) as root, httpx2.AsyncClient() as client:
            assert (await client.get(f"{root}/weather/page")).status_code == 403


# --- transports -----------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_a_transport_of_a_plugin_brings_clients(
    plugin: Make, start: Start, runtime: str
) -> None:
    row = plugin("pipe", TRANSPORT[runtime], ("mcpd_transports",), runtime)
    async with start(row) as served:
        module = sys.modules[row.entry]
        assert served.host.health()["transport:pipe"].ok
        while not module.clients:
            await asyncio.sleep(0.001)
        pipe = module.clients[0]
        client = Client(_sender(pipe), _receiver(pipe))
        await client.hello()
        answer = await client.request(
            "tools/call", {"name": "say_pipe", "arguments": {"text": "x"}}
        )
        assert answer["result"]["content"][0]["text"] == "x"
        # More than any buffer on the way holds.
        long = "y" * 900_000
        for _ in range(3):
            answer = await client.request(
                "tools/call", {"name": "say_pipe", "arguments": {"text": long}}
            )
            assert answer["result"]["content"][0]["text"] == long
        await _sender(pipe)(b"")
        while "left" not in module.log:
            await asyncio.sleep(0.001)
    assert module.log[-1] == "closed"


@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_a_transport_is_closed_with_its_plugin(
    plugin: Make, start: Start, runtime: str
) -> None:
    row = plugin("pipe", TRANSPORT[runtime], ("mcpd_transports",), runtime)
    async with start(row) as served:
        module = sys.modules[row.entry]
        while not module.clients:
            await asyncio.sleep(0.001)
        client = Client(_sender(module.clients[0]), _receiver(module.clients[0]))
        await client.hello()
        await served.host.set_enabled("pipe", False)
        # It is put away behind the answer, once the calls in flight have ended.
        while served.host.health():
            await asyncio.sleep(0.001)
        assert "closed" in module.log


def _sender(pipe: Any) -> Any:
    if hasattr(pipe, "inbox"):
        return pipe.inbox.put

    async def send(data: bytes) -> None:
        # Used from asyncio, in the same thread; trio has to be woken for it.
        pipe.token.run_sync_soon(pipe.to_us.send_nowait, data)

    return send


def _receiver(pipe: Any) -> Any:
    if hasattr(pipe, "inbox"):
        return pipe.outbox.get

    async def receive() -> bytes:
        while not pipe.outbox:
            await asyncio.sleep(0.001)
        data: bytes = pipe.outbox.pop(0)
        return data

    return receive


async def test_a_stream_that_breaks_ends_its_client_and_nothing_else(
    plugin: Make, start: Start
) -> None:
    from mcpd_core.host.streams import serve_over

    async with start(plugin("weather", PLUGIN, HOOKS)) as served:

        async def serve(sock: Any) -> None:
            await served.extensions.serve_stream(sock, ME, "test")

        async def broken(*_: object) -> Any:
            raise ConnectionResetError("the cable")

        queue: asyncio.Queue[bytes] = asyncio.Queue()
        await serve_over(broken, queue.put, serve)
        await queue.put(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        await serve_over(queue.get, broken, serve)
        async with served.client() as client:
            assert "result" in await client.request("ping")


# --- what the owner asks --------------------------------------------------------------------------


async def test_the_owner_enables_and_disables_plugins(plugin: Make, start: Start) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served, served.client() as client:
        params = {"name": "weather", "enabled": False}
        answer = (await client.request("mcpd/plugins/set", params))["result"]
        assert answer == {
            "name": "weather",
            "distribution": "mcpd-weather",
            "enabled": False,
            "changed": True,
            "running": 0,
            "remembered": True,
            "until_restart": False,
        }
        assert (await client.request("tools/list"))["result"]["tools"] == []
        error = (await client.request("mcpd/plugins/set", {"name": "wether", "enabled": True}))[
            "error"
        ]
        assert error["message"] == "No plugin 'wether' is installed."
        assert error["data"]["hint"] == "Did you mean 'weather' or 'mcpd-weather'?"
        rows = (await client.request("mcpd/plugins/list"))["result"]["plugins"]
        assert [(row["name"], row["state"]) for row in rows] == [("weather", "disabled")]


async def test_nobody_else_does(plugin: Make, start: Start) -> None:
    async with start(plugin("weather", PLUGIN, HOOKS)) as served:
        async with served.client(STRANGER) as client:
            for method, params in (
                ("mcpd/plugins/set", {"name": "weather", "enabled": False}),
                ("mcpd/plugins/list", {}),
            ):
                error = (await client.request(method, params))["error"]
                assert error["data"]["code"] == "not_authorised"
        assert len(served.host.catalog) == 1
