"""What the tests of HTTP share: a served host with tools, and requests to it."""

from __future__ import annotations

import asyncio
import importlib
import os
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.schema import describe, tools_of
from mcpd_core.server.http.listener import HttpListener
from mcpd_core.server.http.peers import Door
from mcpd_core.server.mcp import McpServer
from mcpd_core.settings import HttpSettings, load_settings

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
    from mcpd_core import Context, ToolError, tool

    log = []
    gate = anyio.Event()

    @tool
    async def say(text: str, times: int = 1) -> str:
        '''Say something.'''
        return text * times

    @tool
    async def fail() -> None:
        raise ToolError("The disk is full.", hint="Free some room.")

    @tool
    async def report(count: int, ctx: Context) -> str:
        for n in range(count):
            ctx.progress(n, count, f"step {n}")
            ctx.log("info", f"line {n}")
        return "reported"

    @tool
    async def wait(ctx: Context) -> str:
        log.append("waiting")
        try:
            await gate.wait()
        except BaseException:
            log.append("cancelled")
            raise
        return "waited"

    @tool
    async def whoami(ctx: Context) -> dict[str, str]:
        return {"principal": str(ctx.principal), "client": ctx.client}
"""
MORE = """
    from mcpd_core import tool

    @tool
    async def more() -> str:
        return "more"
"""


def plant(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> PluginRow:
    """Write a plugin's module and describe it."""
    monkeypatch.syspath_prepend(str(folder))
    module = f"http_{name}_{folder.name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    importlib.invalidate_caches()
    functions = tools_of(importlib.import_module(module))
    return PluginRow(
        name=name,
        distribution=f"mcpd-{name}",
        version="1.0",
        runtime="asyncio",
        state="enabled",
        entry=module,
        tools=tuple(describe(f, plugin=name, runtime="asyncio") for f in functions),
    )


class Served:
    """A host that is being served.

    :ivar tools: the module of its tools.
    """

    def __init__(self, host: Host, server: McpServer, web: HttpListener, tools: Any) -> None:
        self.host = host
        self.server = server
        self.web = web
        self.url = web.url
        self.tools = tools

    @property
    def root(self) -> str:
        return self.url.rpartition("/")[0]

    def revise(self, *rows: PluginRow) -> None:
        """Offer the tools of other plugins."""
        self.host.revise(Inventory(rows))

    async def drain(self, grace: float) -> None:
        """Stop as the daemon does."""
        self.web.stop()
        await self.server.aclose()
        self.host.stop_accepting()
        await self.host.drain(grace)
        await self.web.close(5)


@asynccontextmanager
async def serving(
    row: PluginRow, door: Callable[[HttpSettings], Door] = Door, **http: Any
) -> AsyncIterator[Served]:
    """Serve a plugin's tools on a port of uvicorn's."""
    settings = replace(
        load_settings(config=None, env={}, overrides={}), http=HttpSettings(port=0, **http)
    )
    async with Host(Inventory((row,)), settings, data_dir=None) as host:
        server = McpServer(host)
        server.watch()
        web = HttpListener(server, host, settings.http, door=door(settings.http))
        await web.start()
        tools: Any = importlib.import_module(row.entry)
        tools.gate, tools.log = anyio.Event(), []
        try:
            yield Served(host, server, web, tools)
        finally:
            await server.aclose()
            await web.close(5)


class Wire:
    """A client that sees every header and byte, in either era."""

    def __init__(self, client: httpx2.AsyncClient, url: str, modern: bool) -> None:
        self.client = client
        self.url = url
        self.modern = modern
        self.session = ""
        self.ids = iter(range(1, 1000))

    def headers(self, method: str, params: Mapping[str, Any]) -> dict[str, str]:
        headers = {"accept": "application/json, text/event-stream"}
        if self.modern:
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": method}
            if "name" in params:
                headers["mcp-name"] = params["name"]
        elif self.session:
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": "2025-11-25"}
        return headers

    def message(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        body = dict(params)
        if self.modern:
            body["_meta"] = {**ENVELOPE, **body.get("_meta", {})}
        return {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": body}

    async def hello(self) -> None:
        """Do what the era wants before anything else."""
        if not self.modern:
            answer = await self.post("initialize", HELLO)
            assert answer.status_code == 200, answer.text
            self.session = answer.headers["mcp-session-id"]
            await self.notify("notifications/initialized")

    async def notify(self, method: str, **params: Any) -> httpx2.Response:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        return await self.client.post(self.url, json=message, headers=self.headers(method, {}))

    async def post(
        self, method: str, params: Mapping[str, Any] | None = None, **headers: str
    ) -> httpx2.Response:
        params = params or {}
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(
            self.url,
            json=self.message(method, params),
            headers={**self.headers(method, params), **changed},
        )

    async def call(self, tool: str, /, **arguments: Any) -> httpx2.Response:
        return await self.post("tools/call", {"name": tool, "arguments": arguments})


@asynccontextmanager
async def wire(url: str, *, modern: bool) -> AsyncIterator[Wire]:
    """Connect a client and let it introduce itself."""
    async with httpx2.AsyncClient(timeout=20) as client:
        connected = Wire(client, url, modern)
        await connected.hello()
        yield connected


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another task does."""
    with anyio.fail_after(10):
        while not condition():
            await asyncio.sleep(0.001)


ME = f"local:{os.geteuid()}"
