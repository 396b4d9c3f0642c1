"""A small MCP client over Streamable HTTP that keeps a number of connections busy.

Like `client.Client` it does nothing but what the protocol wants, so that what is measured is the
server: requests are made beforehand, except for their id, and of an answer only the end is looked
for while the clock runs.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Mapping
from typing import Any

from .client import _IDENTITY, _META, Era, ServerFailed
from .figures import quantile

#: Seconds that a server may take for any one answer.
PATIENCE = 120.0

_CHUNK = 1 << 18


class Connection:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._head = b""
        self._needed = -1

    def send(self, request: bytes) -> None:
        """Send a request; the answer before it has been taken."""
        self._buffer.clear()
        self._head = b""
        self._needed = -1
        self.sock.sendall(request)

    def take(self) -> bool:
        """Read what is there; return whether the answer is complete."""
        data = self.sock.recv(_CHUNK)
        if not data:
            raise ServerFailed("the server closed the connection")
        buffer = self._buffer
        buffer += data
        if not self._head:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head = bytes(buffer[: end + 4]).lower()
            del buffer[: end + 4]
            at = self._head.find(b"content-length:")
            if at >= 0:
                self._needed = int(self._head[at + 15 : self._head.index(b"\r", at)])
        if self._needed >= 0:
            return len(buffer) >= self._needed
        return buffer.endswith(b"0\r\n\r\n")

    def wait(self) -> None:
        """Wait for the whole answer."""
        while not self.take():
            pass

    def header(self, name: bytes) -> str:
        """Return a header of the answer, or an empty text."""
        at = self._head.find(b"\r\n" + name + b":")
        if at < 0:
            return ""
        at += len(name) + 3
        return self._head[at : self._head.index(b"\r", at)].strip().decode()

    def body(self) -> bytes:
        """Return the answer's JSON, out of a stream if need be."""
        body = bytes(self._buffer)
        if self._needed < 0:
            body = _unchunked(body)
        if b"text/event-stream" in self._head:
            events = [line for line in body.splitlines() if line.startswith(b"data:")]
            body = events[-1][5:]
        return body

    def ok(self) -> bool:
        """Whether the answer is a successful call's, without parsing all of it."""
        return self._head.startswith(b"http/1.1 200") and b'"isError":true' not in self._buffer


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


class HttpClient:
    """A client of a server that listens already.

    :param port: on 127.0.0.1.
    :param path: of the MCP endpoint.
    """

    def __init__(self, port: int, path: str, *, era: Era) -> None:
        self._port = port
        self._path = path
        self._era = era
        self._session = ""
        self._id = 0
        self._main = Connection(port)

    def hello(self) -> None:
        """Introduce this client, where the era wants that."""
        if self._era == "modern":
            self.ask("server/discover", {})
            return
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": _IDENTITY}
        self.ask("initialize", params)
        self._session = self._main.header(b"mcp-session-id")
        self._main.send(self._request("notifications/initialized", {}, None))
        self._main.wait()

    def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the result."""
        self._main.send(self._next(method, params))
        self._main.wait()
        message = json.loads(self._main.body())
        if "result" not in message or message["result"].get("isError"):
            raise ServerFailed(f"answered {json.dumps(message)[:500]}")
        result: dict[str, Any] = message["result"]
        return result

    def list_tools(self) -> tuple[list[dict[str, Any]], float]:
        """List every page of the tools; return them and the seconds until the last byte came."""
        tools: list[dict[str, Any]] = []
        params: dict[str, Any] = {}
        seconds = 0.0
        while True:
            request = self._next("tools/list", params)
            begun = time.perf_counter()
            self._main.send(request)
            self._main.wait()
            seconds += time.perf_counter() - begun
            page = json.loads(self._main.body())["result"]
            tools += page["tools"]
            if page.get("nextCursor") is None:
                return tools, seconds
            params = {"cursor": page["nextCursor"]}

    def latencies(
        self, tool: str, arguments: Mapping[str, Any], calls: int, limit: float
    ) -> dict[str, float]:
        """Call a tool over and over, one call at a time; return quantiles in seconds.

        :param limit: seconds after which no further call is made.
        """
        seconds: list[float] = []
        until = time.perf_counter() + limit
        while len(seconds) < calls and (not seconds or time.perf_counter() < until):
            request = self._next("tools/call", {"name": tool, "arguments": arguments})
            begun = time.perf_counter()
            self._main.send(request)
            self._main.wait()
            seconds.append(time.perf_counter() - begun)
            self._check(self._main)
        return {"p50": quantile(seconds, 0.5), "p99": quantile(seconds, 0.99)}

    def throughput(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        calls: int,
        connections: int,
        limit: float,
    ) -> float:
        """Keep a number of connections busy; return how many calls finish per second.

        :param limit: seconds after which no further call is made.
        """
        params = {"name": tool, "arguments": arguments}
        busy = [Connection(self._port) for _ in range(connections)]
        # A connection is served more slowly the first time. A server that is slow by itself needs
        # no such exactness, and would close the connections that wait for the others.
        warm_by = time.perf_counter() + 1.0
        for one in busy:
            if time.perf_counter() < warm_by:
                one.send(self._next("tools/call", params))
                one.wait()
        selector = selectors.EpollSelector()
        for one in busy:
            selector.register(one.sock, selectors.EVENT_READ, one)
        left, under_way, finished = calls, 0, 0
        begun = time.perf_counter()
        for one in busy[:left]:
            one.send(self._next("tools/call", params))
            left -= 1
            under_way += 1
        while under_way:
            for key, _ in selector.select(PATIENCE):
                one = key.data
                if not one.take():
                    continue
                self._check(one)
                finished += 1
                under_way -= 1
                if left and time.perf_counter() - begun < limit:
                    one.send(self._next("tools/call", params))
                    left -= 1
                    under_way += 1
        elapsed = time.perf_counter() - begun
        selector.close()
        for one in busy:
            one.sock.close()
        return finished / elapsed

    def close(self) -> None:
        """Close the connection."""
        self._main.sock.close()

    def _check(self, connection: Connection) -> None:
        if not connection.ok():
            raise ServerFailed(f"a call failed: {connection.body()[:500]!r}")

    def _next(self, method: str, params: Mapping[str, Any]) -> bytes:
        self._id += 1
        return self._request(method, params, self._id)

    def _request(self, method: str, params: Mapping[str, Any], ident: int | None) -> bytes:
        lines = [
            f"POST {self._path} HTTP/1.1",
            f"Host: 127.0.0.1:{self._port}",
            "Accept: application/json, text/event-stream",
            "Content-Type: application/json",
        ]
        if self._era == "modern":
            params = {**params, "_meta": _META}
            lines += ["MCP-Protocol-Version: 2026-07-28", f"Mcp-Method: {method}"]
            if "name" in params:
                lines.append(f"Mcp-Name: {params['name']}")
        elif self._session:
            lines += [f"Mcp-Session-Id: {self._session}", "MCP-Protocol-Version: 2025-11-25"]
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if ident is not None:
            message["id"] = ident
        body = json.dumps(message).encode()
        lines.append(f"Content-Length: {len(body)}\r\n\r\n")
        return "\r\n".join(lines).encode() + body
