"""A small MCP client over the stdio of a server that it spawns.

It blocks, parses each answer once and does nothing else, so that what is measured is the server.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .figures import quantile

#: The handshake revisions of the protocol, and the stateless one of 2026-07-28.
Era = Literal["handshake", "modern"]

#: Seconds that a server may take for any one answer.
PATIENCE = 120.0

_CHUNK = 1 << 18
_IDENTITY = {"name": "benchmark", "version": "1"}
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": _IDENTITY,
}


class ServerFailed(Exception):
    """Raised when a server ends, answers with an error or does not answer; says what it logged."""


class Client:
    """A client and the server process that it spawned.

    :param command: what to spawn.
    :param era: the protocol era to speak.
    :param env: the environment of the server.
    :ivar pid: the server's process id.
    :ivar born: when it was spawned (`time.perf_counter`).
    """

    def __init__(
        self, command: Sequence[str], *, era: Era, env: Mapping[str, str], cwd: str
    ) -> None:
        self._era = era
        self._command = command
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the client
        self.born = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            env=dict(env),
            cwd=cwd,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self._to = self._process.stdin.fileno()
        self._from = self._process.stdout.fileno()
        self._ready = select.poll()
        self._ready.register(self._from, select.POLLIN)
        self._buffer = bytearray()
        self._scanned = 0
        self._last_id = 0

    # --- the protocol -----------------------------------------------------------------------------

    def say_hello(self) -> None:
        """Send the first request of the era without waiting for its answer."""
        if self._era == "modern":
            self._send("server/discover", {})
        else:
            self._send(
                "initialize",
                {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "clientInfo": _IDENTITY,
                },
            )

    def hear_hello(self) -> float:
        """Wait for the answer to `say_hello`; return the seconds since the spawn."""
        self._answer(self._last_id)
        elapsed = time.perf_counter() - self.born
        if self._era == "handshake":
            self._write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        return elapsed

    def list_tools(self) -> tuple[list[dict[str, Any]], float]:
        """List every page of the tools; return them and the seconds that it took.

        Parsing the answers is not part of the time, except for the cursor of a further page.
        """
        pages = []
        cursor: str | None = None
        begun = time.perf_counter()
        while True:
            self._send("tools/list", {} if cursor is None else {"cursor": cursor})
            page = self._line()
            elapsed = time.perf_counter() - begun
            parsed = self._parse(page, self._last_id)
            pages.append(parsed)
            cursor = parsed.get("nextCursor")
            if cursor is None:
                return [tool for part in pages for tool in part["tools"]], elapsed

    def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool and return the result.

        :raises ServerFailed: when the tool fails.
        """
        self._send("tools/call", {"name": tool, "arguments": arguments})
        return self._checked(self._answer(self._last_id))

    def latencies(self, tool: str, arguments: Mapping[str, Any], calls: int) -> dict[str, float]:
        """Call a tool over and over, one call at a time; return quantiles in seconds."""
        seconds = []
        for _ in range(calls):
            begun = time.perf_counter()
            self._send("tools/call", {"name": tool, "arguments": arguments})
            line = self._line()
            seconds.append(time.perf_counter() - begun)
            self._checked(self._parse(line, self._last_id))
        return {"p50": quantile(seconds, 0.5), "p99": quantile(seconds, 0.99)}

    def throughput(
        self, tool: str, arguments: Mapping[str, Any], calls: int, concurrency: int
    ) -> float:
        """Keep a number of calls under way; return how many finish per second."""
        params = {"name": tool, "arguments": arguments}
        waiting: set[int] = set()
        left = calls
        begun = time.perf_counter()
        while left and len(waiting) < concurrency:
            waiting.add(self._send("tools/call", params))
            left -= 1
        while waiting:
            message = json.loads(self._line())
            if message.get("id") not in waiting:
                continue
            waiting.remove(message["id"])
            self._checked(self._result(message))
            if left:
                waiting.add(self._send("tools/call", params))
                left -= 1
        return calls / (time.perf_counter() - begun)

    def close(self) -> None:
        """End the session by closing the server's input, and make sure that the server ends."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        process.stdout.close()
        self._log.close()

    def log(self) -> str:
        """Return what the server has said on stderr so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    # --- messages ---------------------------------------------------------------------------------

    def _send(self, method: str, params: dict[str, Any]) -> int:
        self._last_id += 1
        if self._era == "modern":
            params = {**params, "_meta": _META}
        message = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
        self._write(json.dumps(message).encode() + b"\n")
        return self._last_id

    def _write(self, data: bytes) -> None:
        # Requests are far smaller than the pipe, which never blocks here.
        try:
            os.write(self._to, data)
        except BrokenPipeError:
            raise self._failed("ended") from None

    def _answer(self, ident: int) -> dict[str, Any]:
        while True:
            message = json.loads(self._line())
            if message.get("id") == ident:
                return self._result(message)

    def _parse(self, line: bytes, ident: int) -> dict[str, Any]:
        message = json.loads(line)
        return self._result(message) if message.get("id") == ident else self._answer(ident)

    def _result(self, message: dict[str, Any]) -> dict[str, Any]:
        if "result" not in message:
            raise self._failed(f"answered {json.dumps(message)[:500]}")
        result: dict[str, Any] = message["result"]
        return result

    def _checked(self, result: dict[str, Any]) -> dict[str, Any]:
        if result.get("isError"):
            raise self._failed(f"failed a call: {json.dumps(result)[:500]}")
        return result

    def _line(self) -> bytes:
        buffer = self._buffer
        while (end := buffer.find(b"\n", self._scanned)) < 0:
            self._scanned = len(buffer)
            if not self._ready.poll(PATIENCE * 1000):
                raise self._failed(f"did not answer within {PATIENCE:g} s")
            chunk = os.read(self._from, _CHUNK)
            if not chunk:
                raise self._failed("ended")
            buffer += chunk
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        self._scanned = 0
        return line

    def _failed(self, how: str) -> ServerFailed:
        return ServerFailed(f"{' '.join(self._command)}\n{how}. It logged:\n{self.log()[-4000:]}")
