"""The lean engine: moves messages between a channel and the SDK's handler kernel.

It does what the SDK's `serve_dual_era_loop` does, with one asyncio task per request instead of a
task group, cancel scopes and memory streams, which cost more than the handling itself. Everything
that gives a message its meaning (validation, version gates, shaping of results) remains the SDK's:
`ServerRunner`, which is public but young. `unsupported` therefore compares the
installed SDK with what this was written for, and `McpServer` falls back to the SDK's loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import pydantic_core
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner, aclose_shielded
from mcp.shared.dispatcher import CallOptions, coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    InboundLadderRejection,
    InboundModernRoute,
    classify_inbound_request,
)
from mcp.shared.jsonrpc_dispatcher import (
    cancelled_request_id_from_params,
    handler_exception_to_error_data,
    progress_token_from_params,
)
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PROTOCOL_VERSION_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
    ErrorData,
    JSONRPCNotification,
    JSONRPCRequest,
    RequestId,
    jsonrpc_message_adapter,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from .dispatch import OneWay, plain_request
from .session import Session
from .streams import LineChannel
from .wire import encode_error, encode_notification, encode_result

log = logging.getLogger(__name__)

#: What is called of the SDK, and the parameters it is called with.
_WRITTEN_FOR: dict[Any, tuple[str, ...]] = {
    ServerRunner: ("server", "connection", "lifespan_state", "init_options"),
    ServerRunner._on_request: ("self", "dctx", "method", "params"),
    ServerRunner._on_notify: ("self", "dctx", "method", "params"),
    Connection.for_loop: ("outbound", "session_id", "protocol_version_hint"),
    Connection.from_envelope: (
        "protocol_version",
        "client_info",
        "client_capabilities",
        "outbound",
    ),
    classify_inbound_request: ("body", "headers", "supported_modern_versions"),
    aclose_shielded: ("connection",),
}
_CLOSED = ErrorData(code=CONNECTION_CLOSED, message="Connection closed")
#: Notifications kept from before the first request, which decides the era they are handled in.
_MAX_EARLY = 8


def unsupported() -> str:
    """Say why the installed SDK cannot be driven by `Engine`; empty when it can."""
    for function, expected in _WRITTEN_FOR.items():
        found = tuple(inspect.signature(function).parameters)
        if found != expected:
            name = getattr(function, "__qualname__", repr(function))
            return f"{name} of the installed MCP SDK takes {found}, not {expected}"
    return ""


class _Request(OneWay):
    """One message in hand, over a channel."""

    __slots__ = ("_channel", "answered", "counted", "given_up")

    # Neither era's connection lets the server ask its client anything.
    transport = TransportContext(kind="line", can_send_request=False)

    def __init__(
        self, channel: LineChannel, request_id: RequestId | None, token: str | int | None
    ) -> None:
        super().__init__(request_id, token)
        self._channel = channel
        #: Whether an answer has been written.
        self.answered = False
        #: Whether the client has cancelled it: it must not be answered then.
        self.given_up = False
        #: Whether the connection waits for its answer before it ends.
        self.counted = False

    def give_up(self) -> None:
        self.given_up = True
        self.cancel_requested.set()

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        if self.closed:
            return
        self._channel.write(encode_notification(method, None if params is None else dict(params)))
        await self._channel.drain()


class Engine:
    """Drives one client's connection; `run` is called once.

    :param server: the SDK's server, which holds the handlers.
    :param channel: the client's connection.
    :param session: who the client is; handlers find it as their lifespan context.
    """

    def __init__(self, server: Server[Any], channel: LineChannel, session: Session) -> None:
        self._server = server
        self._channel = channel
        self._session = session
        # The connection's own outbound channel carries announcements of changes and nothing else.
        self._connection = Connection.for_loop(_Request(channel, None, None))
        self._runner = ServerRunner(server, self._connection, session)
        self._modern: bool | None = None
        self._envelope: tuple[Any, Any, Any] | None = None
        self._early: list[JSONRPCNotification] = []
        self._running: dict[RequestId, tuple[_Request, asyncio.Task[None]]] = {}
        # All of them; a client that uses an id twice at a time hides one of its requests above.
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the input ends, then cancel and answer what is still running."""
        try:
            while (line := await self._channel.line()) is not None:
                if line and not line.isspace():
                    await self._receive(line)
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                # No deadline: the host bounds the clean-up of a tool.
                await asyncio.wait(set(self._tasks))
            await aclose_shielded(self._connection)

    async def _receive(self, line: bytes) -> None:
        message = parse(line)
        if isinstance(message, JSONRPCNotification):
            if self._modern is not None:
                await self._notification(message)
            elif len(self._early) < _MAX_EARLY:
                self._early.append(message)
        elif isinstance(message, JSONRPCRequest):
            await self._request(message)
        elif message is None:
            log.warning("a client sent a line that is no JSON-RPC message; it is ignored")
        # What remains are responses, and nothing was asked.

    async def _request(self, message: JSONRPCRequest) -> None:
        if self._modern is None:
            self._modern = message.method != "initialize" and _has_envelope(message.params)
            for early in self._early:
                await self._notification(early)
            self._early.clear()
        channel = self._channel
        request = _Request(channel, message.id, progress_token_from_params(message.params))
        # A subscription is answered when it ends, and it ends with the connection at the latest.
        if message.method != "subscriptions/listen":
            await channel.room()
            channel.begin()
            request.counted = True
        handling = self._handle(request, message.method, message.params)
        task = asyncio.get_running_loop().create_task(handling)
        self._tasks.add(task)
        self._running[coerce_request_id(message.id)] = (request, task)
        # A callback, because a task that is cancelled before its first step runs no clause.
        task.add_done_callback(partial(self._settle, request))
        if message.method == "initialize":
            # What a client pipelines behind its handshake must find the handshake done.
            await asyncio.wait([task])

    async def _notification(self, message: JSONRPCNotification) -> None:
        if message.method == "notifications/cancelled":
            request_id = cancelled_request_id_from_params(message.params)
            if request_id is not None:
                found = self._running.get(coerce_request_id(request_id))
                if found is not None:
                    request, task = found
                    request.give_up()
                    task.cancel()
        if self._modern and self._envelope is None:
            return  # the client's first request was refused, and nothing is known of it
        await self._runner.on_notify(
            _Request(self._channel, None, None), message.method, message.params
        )

    async def _handle(self, request: _Request, method: str, params: dict[str, Any] | None) -> None:
        """Answer one request: the boundary where exceptions become JSON-RPC errors."""
        request_id = request.request_id
        assert request_id is not None
        try:
            route = self._handle_modern if self._modern else self._handle_legacy
            answer = encode_result(request_id, await route(request, method, params))
        except Exception as exc:  # noqa: BLE001 - the boundary, which logs what it does not know
            answer = encode_error(request_id, error_data(exc, method))
        finally:
            request.closed = True
        # What the client has given up must not be answered.
        if not request.given_up:
            request.answered = True
            self._channel.write(answer)
            await self._channel.drain()

    def _settle(self, request: _Request, task: asyncio.Task[None]) -> None:
        request_id = request.request_id
        assert request_id is not None
        if task.cancelled() and not request.answered and not request.given_up:
            self._channel.write(encode_error(request_id, _CLOSED))
        self._tasks.discard(task)
        key = coerce_request_id(request_id)
        found = self._running.get(key)
        if found is not None and found[0] is request:
            del self._running[key]
        if request.counted:
            self._channel.done()

    async def _handle_legacy(
        self, request: _Request, method: str, params: dict[str, Any] | None
    ) -> dict[str, Any]:
        if method != "initialize" and _has_envelope(params):
            raise MCPError(
                INVALID_REQUEST,
                "This connection began with the initialize handshake; requests that carry the "
                "envelope of 2026-07-28 are not accepted on it.",
            )
        return await self._runner.on_request(request, method, params)

    async def _handle_modern(
        self, request: _Request, method: str, params: dict[str, Any] | None
    ) -> dict[str, Any]:
        if method == "initialize":
            raise MCPError(
                UNSUPPORTED_PROTOCOL_VERSION,
                "This connection speaks 2026-07-28; the initialize handshake is not accepted.",
                {
                    "supported": list(MODERN_PROTOCOL_VERSIONS),
                    "requested": str((params or {}).get("protocolVersion", "")),
                },
            )
        runner = self._runner_for((params or {}).get("_meta"))
        if runner is None:
            route = classify_inbound_request({"method": method, "params": params})
            if isinstance(route, InboundLadderRejection):
                raise MCPError(route.code, route.message, route.data)
            await aclose_shielded(self._connection)
            self._introduce(route)
            runner = self._runner
        return await runner.on_request(request, method, params)

    def _introduce(self, route: InboundModernRoute) -> None:
        """Remember how a client describes itself, for the requests that follow."""
        self._envelope = (route.protocol_version, route.client_info, route.client_capabilities)
        self._connection = Connection.from_envelope(*self._envelope)
        self._runner = ServerRunner(self._server, self._connection, self._session)

    def _runner_for(self, meta: Any) -> ServerRunner[Any] | None:
        """Find the runner of a client that describes itself as it did the last time.

        Each request of the later era repeats the description, and the SDK would check and model it
        each time anew, at a third of the cost of a call.
        """
        if self._envelope is None or not isinstance(meta, dict):
            return None
        said = (
            meta.get(PROTOCOL_VERSION_META_KEY),
            meta.get(CLIENT_INFO_META_KEY),
            meta.get(CLIENT_CAPABILITIES_META_KEY),
        )
        return self._runner if said == self._envelope else None


def parse(line: bytes) -> Any:
    """Read one line: a message of the SDK, or ``None`` when it is none."""
    try:
        raw = pydantic_core.from_json(line, allow_inf_nan=False)
        if type(raw) is dict and (request := plain_request(raw)) is not None:
            return request
        return jsonrpc_message_adapter.validate_python(raw, by_name=False)
    except ValueError:
        return None


def _has_envelope(params: Mapping[str, Any] | None) -> bool:
    meta = params.get("_meta") if params else None
    return isinstance(meta, Mapping) and PROTOCOL_VERSION_META_KEY in meta


def error_data(exc: Exception, method: str) -> ErrorData:
    """Translate what a handler raised; what the SDK does not know is logged and not told."""
    known = handler_exception_to_error_data(exc)
    if known is not None:
        return known
    log.error("the handler of %r failed", method, exc_info=exc)
    return ErrorData(code=INTERNAL_ERROR, message="Internal server error")
