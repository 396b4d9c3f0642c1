"""The eras that begin with a handshake (2024-11-05 to 2025-11-25): sessions over HTTP."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from mcp.server.connection import Connection
from mcp.server.runner import ServerRunner, aclose_shielded
from mcp.shared.dispatcher import CallOptions, coerce_request_id
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.jsonrpc_dispatcher import (
    cancelled_request_id_from_params,
    progress_token_from_params,
)
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    ErrorData,
    JSONRPCNotification,
    JSONRPCRequest,
    RequestId,
    jsonrpc_message_adapter,
)

from ...spec import Principal
from ..engine import error_data
from ..mcp import McpServer
from ..session import Session
from ..wire import encode_error, encode_notification, encode_result
from .connection import HttpConnection
from .exchange import (
    BadBody,
    Exchange,
    Send,
    Stream,
    as_request,
    decode,
    refuse_stopping,
    respond,
)

log = logging.getLogger(__name__)

_SESSION = b"mcp-session-id"
#: What a cancelled request is answered with, which in this era must be answered (as the SDK does).
_CANCELLED = ErrorData(code=-32800, message="Request cancelled")
_ENDED = ErrorData(code=INTERNAL_ERROR, message="The session was closed before the answer.")
#: Notifications that wait for a client that has no stream open at the moment.
_MAX_WAITING = 16


class _Standing:
    """The SDK's ``Outbound`` over the stream that a client has opened with GET, if it has."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self._waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        message = encode_notification(method, None if params is None else dict(params))
        if self.stream is not None:
            self.stream.put(message)
        elif message not in self._waiting:
            self._waiting.append(message)

    def open(self) -> Stream:
        self.stream = Stream()
        while self._waiting:
            self.stream.put(self._waiting.popleft())
        return self.stream


class _Session:
    """One client between its handshake and its end."""

    def __init__(self, server: McpServer, principal: Principal, *, log_level: str) -> None:
        self.id = secrets.token_hex(16)
        self.principal = principal
        self.session = Session(principal, f"http-session:{self.id[:8]}", log_level)
        self.standing = _Standing()
        self.connection = Connection.for_loop(self.standing, session_id=self.id)
        self.runner = ServerRunner(server.sdk, self.connection, self.session)
        self._forget = server.forget
        self.running: dict[RequestId, tuple[_Flight, asyncio.Task[Any]]] = {}
        self.in_flight = 0
        self.touched = time.monotonic()

    def idle_since(self) -> float:
        """When it was last used; now while it is."""
        return time.monotonic() if self.in_flight or self.standing.stream else self.touched

    def cancel(self, request_id: RequestId, error: ErrorData) -> None:
        found = self.running.get(coerce_request_id(request_id))
        if found is not None and found[0].given_up is None:
            found[0].given_up = error
            found[1].cancel()

    async def close(self) -> None:
        for request_id in list(self.running):
            self.cancel(request_id, _ENDED)
        self._forget(self.session)
        if self.standing.stream is not None:
            self.standing.stream.end()
        await aclose_shielded(self.connection)


class _Flight:
    """A request in hand."""

    __slots__ = ("given_up",)

    def __init__(self) -> None:
        #: What it is answered with when it is cancelled on purpose.
        self.given_up: ErrorData | None = None


class Handshakes:
    """Serves the sessions of clients that begin with ``initialize``.

    :param server: what answers.
    :param always_stream: whether every request may be answered by a stream.
    :param max_sessions: sessions that may be open at a time.
    :param idle_timeout: seconds without a request or a stream after which a session is closed.
    """

    def __init__(
        self, server: McpServer, *, always_stream: bool, max_sessions: int, idle_timeout: float
    ) -> None:
        self._server = server
        self._always_stream = always_stream
        self._max_sessions = max_sessions
        self._idle_timeout = idle_timeout
        self._sessions: dict[bytes, _Session] = {}
        self._stopping = False
        self._sweeping: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    def end_streams(self) -> None:
        """End the streams that clients hold open, so that nothing but calls keeps the server.

        No stream and no session can be opened from now on.
        """
        self._stopping = True
        for session in self._sessions.values():
            if session.standing.stream is not None:
                session.standing.stream.end()

    async def close(self) -> None:
        """Close every session."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    # --- the three methods ------------------------------------------------------------------------

    async def post(
        self,
        connection: HttpConnection,
        headers: Mapping[bytes, bytes],
        body: bytes,
        accepts: tuple[bool, bool],
        send: Send,
    ) -> None:
        """Answer one POST, with a request, a notification or a response in it."""
        try:
            raw = decode(body)
            request = as_request(raw) if "id" in raw and "method" in raw else None
            message = request or _message(raw)
        except BadBody as refused:
            await respond(send, 400, refused.answer)
            return
        if request is not None and request.method == "initialize" and _SESSION not in headers:
            if self._stopping:
                await refuse_stopping(send)
            else:
                await self._open(connection, request, send)
            return
        session = await self._find(connection, headers, send)
        if session is None:
            return
        session.touched = time.monotonic()
        if request is None:
            if isinstance(message, JSONRPCNotification):
                await self._notification(session, message)
            # What remains are responses, and nothing was asked.
            await respond(send, 202, b"", [_header(session)])
            return
        takes_json, takes_events = accepts
        if not takes_json and not takes_events:
            await _refuse(send, 406, "The client must accept application/json.")
            return
        token = progress_token_from_params(request.params)
        wanted = self._always_stream or token is not None or bool(session.session.log_level)
        exchange = Exchange(
            send,
            request_id=request.id,
            token=token,
            stream=takes_events and wanted,
            headers=[_header(session)],
        )
        await self._run(session, exchange, request)

    async def get(
        self,
        connection: HttpConnection,
        headers: Mapping[bytes, bytes],
        accepts: tuple[bool, bool],
        send: Send,
    ) -> None:
        """Hold a stream open for what the server has to say of its own accord."""
        if self._stopping:
            await refuse_stopping(send)
            return
        if not accepts[1]:
            await _refuse(send, 406, "The client must accept text/event-stream.")
            return
        session = await self._find(connection, headers, send)
        if session is None:
            return
        standing = session.standing
        if standing.stream is not None:
            await _refuse(send, 409, "The session has a stream already.")
            return
        stream = standing.open()
        try:
            with connection.cancelling():
                await stream.run(send, [_header(session)])
        finally:
            standing.stream = None
            session.touched = time.monotonic()

    async def delete(
        self, connection: HttpConnection, headers: Mapping[bytes, bytes], send: Send
    ) -> None:
        """Close a session."""
        session = await self._find(connection, headers, send)
        if session is not None:
            del self._sessions[session.id.encode()]
            await session.close()
            await respond(send, 200, b"", [])

    # --- sessions ---------------------------------------------------------------------------------

    async def _open(self, connection: HttpConnection, request: JSONRPCRequest, send: Send) -> None:
        if len(self._sessions) >= self._max_sessions:
            log.warning("refused a session: %d are open", len(self._sessions))
            await _refuse(send, 503, "Too many open sessions.", INTERNAL_ERROR)
            return
        assert connection.principal is not None
        # Without a stream log lines have nowhere to go, so that they are sent only to those who
        # ask for them (logging/setLevel), and only then is there a stream.
        level = "info" if self._always_stream else ""
        session = _Session(self._server, connection.principal, log_level=level)
        exchange = Exchange(send, request_id=request.id, headers=[_header(session)])
        # Known before the answer is sent, because the client's next request may overtake the end
        # of this one.
        self._sessions[session.id.encode()] = session
        if not await self._run(session, exchange, request):
            del self._sessions[session.id.encode()]
        if self._sweeping is None:
            self._sweep()

    async def _find(
        self, connection: HttpConnection, headers: Mapping[bytes, bytes], send: Send
    ) -> _Session | None:
        """Find the session that a request names, or refuse the request."""
        name = headers.get(_SESSION)
        if name is None:
            await _refuse(send, 400, "Bad Request: Missing session ID")
            return None
        session = self._sessions.get(name)
        # A session is its opener's: knowing its name is no credential.
        if session is None or session.principal != connection.principal:
            await _refuse(send, 404, "Session not found")
            return None
        return session

    def _sweep(self) -> None:
        """Close the sessions that have been idle for too long; now, and again in a while."""
        now = time.monotonic()
        for key, session in list(self._sessions.items()):
            if now - session.idle_since() >= self._idle_timeout:
                log.info("closing the idle session %s", session.session.client)
                del self._sessions[key]
                task = asyncio.ensure_future(session.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(min(60.0, self._idle_timeout / 4), self._sweep)

    # --- messages ---------------------------------------------------------------------------------

    async def _notification(self, session: _Session, message: JSONRPCNotification) -> None:
        if message.method == "notifications/cancelled":
            request_id = cancelled_request_id_from_params(message.params)
            if request_id is not None:
                session.cancel(request_id, _CANCELLED)
        exchange = Exchange(_nowhere, request_id=None)
        await session.runner.on_notify(exchange, message.method, message.params)

    async def _run(self, session: _Session, exchange: Exchange, request: JSONRPCRequest) -> bool:
        """Answer a request; the client's going away does not cancel it in this era.

        :returns: whether the handler succeeded.
        """
        task = asyncio.current_task()
        assert task is not None
        key = coerce_request_id(request.id)
        flight = _Flight()
        session.running[key] = flight, task
        session.in_flight += 1
        succeeded = False
        try:
            result = await session.runner.on_request(exchange, request.method, request.params)
            answer = encode_result(request.id, result)
            succeeded = True
        except asyncio.CancelledError:
            if flight.given_up is None:
                raise
            answer = encode_error(request.id, flight.given_up)
        except Exception as exc:  # noqa: BLE001 - the boundary, which logs what it does not know
            answer = encode_error(request.id, error_data(exc, request.method))
        finally:
            exchange.close()
            session.in_flight -= 1
            session.touched = time.monotonic()
            if session.running.get(key, (None,))[0] is flight:
                del session.running[key]
        await exchange.answer(answer)
        return succeeded


def _message(raw: dict[str, Any]) -> Any:
    try:
        return jsonrpc_message_adapter.validate_python(raw, by_name=False)
    except ValueError:
        raise BadBody(INVALID_REQUEST, "The body is not a JSON-RPC message.") from None


def _header(session: _Session) -> tuple[bytes, bytes]:
    return _SESSION, session.id.encode()


async def _nowhere(message: Any) -> None:
    """Send nothing: a notification has no response of its own."""


async def _refuse(send: Send, status: int, text: str, code: int = INVALID_REQUEST) -> None:
    await respond(send, status, encode_error(None, ErrorData(code=code, message=text)))
