"""One request that came as a POST, and its answer: as JSON, or as a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import pydantic_core
from mcp.shared.dispatcher import CallOptions
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCRequest,
    RequestId,
)

from ..dispatch import OneWay, plain_request
from ..wire import encode_error, encode_notification

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
EVENTS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
#: Seconds of silence after which a stream says that it is alive, so that no proxy closes it.
PING = 15.0
#: Headers of which two might be read in two ways.
_ONCE = (b"host", b"origin", b"mcp-protocol-version", b"mcp-session-id")
_PING = b": ping\r\n\r\n"
#: Messages that may wait for a client that does not read its stream.
_MAX_WAITING = 64


class BadBody(Exception):
    """Raised when a body is not one JSON-RPC message."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.answer = encode_error(None, ErrorData(code=code, message=text))


def decode(body: bytes) -> dict[str, Any]:
    """Read a body.

    :raises BadBody: when it is no JSON, or not one object.
    """
    try:
        raw = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError:
        raise BadBody(PARSE_ERROR, "Parse error") from None
    if not isinstance(raw, dict):
        raise BadBody(INVALID_REQUEST, "The body must be one JSON-RPC message.")
    return raw


def as_request(raw: dict[str, Any]) -> JSONRPCRequest:
    """Take a body for a request.

    :raises BadBody: when it is none.
    """
    request = plain_request(raw)
    if request is not None:
        return request
    try:
        return JSONRPCRequest.model_validate(raw, by_name=False)
    except ValueError:
        raise BadBody(INVALID_REQUEST, "The body is not a JSON-RPC request.") from None


def event(message: bytes) -> bytes:
    """Write a message as an event of a stream."""
    return b"event: message\r\ndata: " + message.rstrip(b"\n") + b"\r\n\r\n"


async def respond(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    """Send a whole response; JSON unless the headers say otherwise."""
    lines = [JSON] if headers is None else headers
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*lines, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse_stopping(send: Send) -> None:
    """Tell a client that the server begins nothing any more."""
    error = ErrorData(code=INTERNAL_ERROR, message="The server is stopping.")
    await respond(send, 503, encode_error(None, error), [JSON, (b"connection", b"close")])


def repeated(lines: Headers) -> bytes | None:
    """Return a header that decides who is served how, and appears more than once."""
    names = [name for name, _ in lines]
    return next((name for name in _ONCE if names.count(name) > 1), None)


class Exchange(OneWay):
    """One request in hand, over a response that has not been sent yet.

    A stream is begun by the first thing there is to say before the answer, or after some seconds
    of silence: an answer that comes first and alone is JSON with a status of its own in any case.

    :param send: ASGI's.
    :param token: the progress token of the request.
    :param stream: whether anything but the answer may be sent.
    :param headers: further headers of the response.
    """

    __slots__ = (
        "_begun",
        "_headers",
        "_pinging",
        "_send",
        "_stream",
    )

    transport = TransportContext(kind="streamable-http", can_send_request=False)

    def __init__(
        self,
        send: Send,
        *,
        request_id: RequestId | None,
        token: str | int | None = None,
        stream: bool = False,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(request_id, token)
        self._send = send
        self._stream = stream
        self._headers = headers or []
        self._begun = False
        self._pinging: asyncio.Task[None] | None = None
        if stream:
            self._pinging = asyncio.get_running_loop().create_task(self._ping())

    # --- the SDK's side ---------------------------------------------------------------------------

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        if self._stream and not self.closed:
            message = encode_notification(method, None if params is None else dict(params))
            await self._say(event(message))

    # --- the server's side ------------------------------------------------------------------------

    async def answer(self, message: bytes, status: int = 200) -> None:
        """Send the answer, which ends the response.

        :param status: of the response, unless a stream has begun and with it the status 200.
        """
        self.close()
        if self._begun:
            await self._send(
                {"type": "http.response.body", "body": event(message), "more_body": False}
            )
        else:
            await respond(self._send, status, message, [JSON, *self._headers])

    def close(self) -> None:
        """Say nothing more."""
        self.closed = True
        if self._pinging is not None:
            self._pinging.cancel()

    async def _say(self, chunk: bytes) -> None:
        if not self._begun:
            self._begun = True
            headers = [*EVENTS, *self._headers]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _ping(self) -> None:
        # Until `close`; a client that has gone cancels the request, which closes.
        while True:
            await asyncio.sleep(PING)
            await self._say(_PING)


class Stream:
    """A response that goes on until somebody ends it: events, and signs of life between them."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(self, message: bytes) -> None:
        """Send a message as soon as possible; a client that never reads loses its stream."""
        if self._waiting.qsize() < _MAX_WAITING:
            self._waiting.put_nowait(event(message))
        else:
            self.end()

    def end(self) -> None:
        """End the response after what was put before."""
        self._waiting.put_nowait(None)

    async def run(self, send: Send, headers: Headers) -> None:
        """Send what is put, until the end."""
        start = {"type": "http.response.start", "status": 200, "headers": [*EVENTS, *headers]}
        await send(start)
        # Something must follow at once, for clients that wait for the first bytes of the body.
        chunk: bytes | None = b": open\r\n\r\n"
        while chunk is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            try:
                chunk = await asyncio.wait_for(self._waiting.get(), PING)
            except asyncio.TimeoutError:
                chunk = _PING
        await send({"type": "http.response.body", "body": b"", "more_body": False})
