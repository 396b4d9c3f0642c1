"""A small MCP client for the running daemon: JSON lines over its Unix socket, no event loop.

The command line does not use the SDK's client, because importing it takes longer than most calls.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .._version import __version__
from ..errors import DaemonError, NoDaemon

#: The newest protocol version whose handshake this client speaks.
PROTOCOL_VERSION = "2025-11-25"
#: Seconds within which the daemon accepts a connection and answers everything but a tool call.
PATIENCE = 10.0
#: Bytes of the longest message that is read: more than any daemon sends, less than a machine has.
LONGEST_MESSAGE = 1 << 30

Notified = Callable[[str, Mapping[str, Any]], None]


class RemoteError(DaemonError):
    """Raised when the daemon answers a request with a JSON-RPC error.

    :param message: what the daemon said.
    :param code: the JSON-RPC error code.
    :param data: the error's data as it came.
    """

    code = "remote"

    def __init__(self, message: str, *, code: int, data: Mapping[str, Any]) -> None:
        super().__init__(message, data={**data, "jsonrpc_code": code})


class ConnectionLost(DaemonError):
    """Raised when the daemon closed the connection, or fell silent, before it answered."""

    code = "connection_lost"


def _connect(sock: socket.socket, path: Path) -> None:
    try:
        sock.connect(str(path))
    except OSError as error:
        # Python refuses a path that is too long for the kernel before it asks it, without errno.
        if error.errno is not None or not sys.platform.startswith("linux"):
            raise
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


class DaemonClient:
    """One session with the daemon that owns a data directory.

    Use it as a context manager; entering connects and shakes hands.

    :param path: the daemon's socket.
    :param patience: seconds within which the daemon must answer everything but a tool call.
    :raises NoDaemon: on entering, when nobody listens there.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ids = itertools.count(1)
        self._buffer = bytearray()
        #: Until when an answer must have come, by `time.monotonic`; ``None`` without a limit.
        self._until: float | None = None

    def __enter__(self) -> DaemonClient:
        try:
            self._connect()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _connect(self) -> None:
        self._until = time.monotonic() + self._patience
        self._socket.settimeout(self._patience)
        try:
            _connect(self._socket, self._path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise NoDaemon(
                f"No daemon listens on {self._path}.",
                hint="Start one with `mcpd serve`, or call in this process with --local.",
            ) from error
        except OSError as error:
            raise NoDaemon(
                f"The daemon's socket {self._path} cannot be used: {error.strerror or error}.",
                hint="Another user's daemon? Name your own directory with --data-dir.",
            ) from error
        self.request(
            "initialize",
            {
                "protocolVersion": PROTOCOL_VERSION,
                "capabilities": {},
                "clientInfo": {"name": "mcpd-cli", "version": __version__},
            },
        )
        self._send({"method": "notifications/initialized"})

    def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        notified: Notified | None = None,
        limited: bool = True,
    ) -> dict[str, Any]:
        """Send a request and return its result.

        :param notified: called with method and parameters of each notification that arrives
            meanwhile.
        :param limited: whether the daemon is given up when its answer has not come as a whole
            within the patience; otherwise it is waited for as long as the connection stands, which
            is right where the daemon enforces a deadline of its own.
        :raises RemoteError: when the answer is an error.
        :raises ConnectionLost: when there is no answer.
        """
        identifier = next(self._ids)
        self._until = time.monotonic() + self._patience if limited else None
        try:
            self._send({"id": identifier, "method": method, "params": dict(params or {})})
            answer = self._answer_to(identifier, notified)
        except KeyboardInterrupt:
            self._cancel(identifier)
            raise
        error, result = answer.get("error"), answer.get("result")
        if isinstance(error, dict):
            data = error.get("data")
            raise RemoteError(
                str(error.get("message")),
                code=error.get("code", 0),
                data=data if isinstance(data, dict) else {},
            )
        if not isinstance(result, dict):
            raise self._stranger()
        return result

    def tools(self) -> list[dict[str, Any]]:
        """Return every tool the daemon offers, as MCP describes it."""
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.request("tools/list", {"cursor": cursor} if cursor else None)
            tools += page["tools"]
            cursor = page.get("nextCursor")
            if cursor is None:
                return tools

    def call(
        self, name: str, arguments: Mapping[str, Any], *, notified: Notified | None = None
    ) -> dict[str, Any]:
        """Call a tool and return the result of ``tools/call``.

        :raises RemoteError: when the daemon refuses the call.
        """
        params = {"name": name, "arguments": dict(arguments), "_meta": {"progressToken": name}}
        # No limit of our own: every call has a deadline that the daemon enforces.
        return self.request("tools/call", params, notified=notified, limited=False)

    def notification(self, timeout: float | None) -> tuple[str, Mapping[str, Any]] | None:
        """Wait for the daemon to say something of its own accord.

        :param timeout: seconds; ``None`` waits for as long as the connection stands.
        :returns: method and parameters; ``None`` when nothing came in time.
        :raises ConnectionLost: when the daemon has closed the connection.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            while b"\n" not in self._buffer:
                left = None if end is None else max(0.0, end - time.monotonic())
                if not select.select([self._socket], [], [], left)[0]:
                    return None
                self._until = None
                self._fill()
            message = self._receive()
            if "method" in message and "id" not in message:
                return message["method"], message.get("params") or {}
            if "method" in message:
                self._until = time.monotonic() + self._patience
                self._reply(message)

    def _cancel(self, identifier: int) -> None:
        self._until = time.monotonic() + self._patience
        params = {"requestId": identifier, "reason": "interrupted"}
        try:
            self._send({"method": "notifications/cancelled", "params": params})
        except ConnectionLost:
            # Then the daemon cancels what this connection asked for anyway.
            pass

    def _send(self, message: Mapping[str, Any]) -> None:
        line = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")) + "\n"
        try:
            self._limit()
            self._socket.sendall(line.encode())
        except OSError as error:
            raise self._lost() from error

    def _limit(self) -> None:
        """Let the next operation on the socket take as long as there is."""
        if self._until is None:
            self._socket.settimeout(None)
            return
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _answer_to(self, identifier: int, notified: Notified | None) -> dict[str, Any]:
        while True:
            message = self._receive()
            if "method" not in message:
                if message.get("id") == identifier:
                    return message
            elif "id" in message:
                # The only request a server may make of a client without capabilities is a ping.
                self._reply(message)
            elif notified is not None:
                notified(message["method"], message.get("params") or {})

    def _reply(self, request: Mapping[str, Any]) -> None:
        if request["method"] == "ping":
            self._send({"id": request["id"], "result": {}})
        else:
            error = {"code": -32601, "message": f"{request['method']} is not supported"}
            self._send({"id": request["id"], "error": error})

    def _receive(self) -> dict[str, Any]:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            self._fill()
            if searched > LONGEST_MESSAGE:
                raise self._stranger()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise self._stranger()
        return message

    def _fill(self) -> None:
        """Take some of what has arrived, or wait for it."""
        try:
            self._limit()
            received = self._socket.recv(1 << 16)
        except OSError as error:  # a timeout among them
            raise self._lost() from error
        if not received:
            raise self._lost()
        self._buffer += received

    def _stranger(self) -> ConnectionLost:
        return ConnectionLost(
            f"What listens on {self._path} does not speak MCP.",
            hint="Name the data directory of a running `mcpd serve` with --data-dir.",
        )

    def _lost(self) -> ConnectionLost:
        if self._until is not None and time.monotonic() >= self._until:
            return ConnectionLost(
                f"The daemon on {self._path} has not answered within {self._patience:g} s.",
                hint="Its log may say why. Stop it and start it again if it hangs.",
            )
        return ConnectionLost(
            f"The daemon on {self._path} ended the connection before it answered.",
            hint="Its log says why. The call may have been carried out.",
        )
