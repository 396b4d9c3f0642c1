"""The era of 2026-07-28: each POST carries one request that describes its client.

It does what the SDK's own HTTP entry does, with the SDK's rules (`mcp.shared.inbound`) and its
handler kernel (`ServerRunner`), and without what makes up most of a call's cost there: a request
object, a connection and an exit stack for each call. It chooses between JSON and a stream for each
request, where the SDK has one answer for all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mcp.server.connection import Connection
from mcp.server.runner import ServerRunner, modern_error_data
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
    validate_mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    HEADER_MISMATCH,
    INVALID_REQUEST,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    ErrorData,
    JSONRPCNotification,
    JSONRPCRequest,
    RequestId,
)

from ..mcp import McpServer
from ..wire import encode_error, encode_result
from .connection import HttpConnection
from .exchange import (
    BadBody,
    Exchange,
    Headers,
    Send,
    as_request,
    decode,
    refuse_stopping,
    respond,
)

log = logging.getLogger(__name__)

_VERSION = MCP_PROTOCOL_VERSION_HEADER.encode()
_METHOD = MCP_METHOD_HEADER.encode()
_NAME = MCP_NAME_HEADER.encode()
_LISTEN = "subscriptions/listen"


class Envelopes:
    """Serves requests that describe their client.

    :param server: what answers.
    :param always_stream: whether every request may be answered by a stream.
    """

    def __init__(self, server: McpServer, *, always_stream: bool) -> None:
        self._server = server
        self._always_stream = always_stream
        #: Whether no subscription may begin any more.
        self.stopping = False
        # For each input schema, whether it wants arguments repeated in headers.
        self._mirrored: dict[int, tuple[Mapping[str, Any], bool]] = {}

    async def post(
        self,
        connection: HttpConnection,
        lines: Headers,
        headers: Mapping[bytes, bytes],
        body: bytes,
        accepts: tuple[bool, bool],
        send: Send,
    ) -> None:
        """Answer one POST.

        :param lines: its headers, in order.
        :param headers: the same by name.
        :param accepts: whether the client takes JSON, and whether it takes streams.
        """
        try:
            raw = decode(body)
            if "id" not in raw:
                await self._acknowledge(raw, headers, send)
                return
            request = as_request(raw)
        except BadBody as refused:
            await respond(send, 400, refused.answer)
            return
        takes_json, takes_events = accepts
        listens = request.method == _LISTEN
        if listens and self.stopping:
            await refuse_stopping(send)
            return
        if not takes_events and (listens or not takes_json):
            await respond(send, 406, b"", [])
            return
        rejection = self._check(connection, request, raw, lines, headers)
        if rejection is not None:
            await _reject(send, request.id, rejection)
            return
        token = progress_token_from_params(request.params)
        wanted = self._always_stream or listens or token is not None or _wants_log(request.params)
        exchange = Exchange(
            send, request_id=request.id, token=token, stream=takes_events and wanted
        )
        await self._run(connection, exchange, request)

    async def _run(
        self, connection: HttpConnection, exchange: Exchange, request: JSONRPCRequest
    ) -> None:
        assert connection.described is not None
        runner = connection.described[1]
        status = 200
        try:
            # A client of this era gives a request up by closing the connection.
            with connection.cancelling():
                result = await runner.on_request(exchange, request.method, request.params)
            answer = encode_result(request.id, result)
        except Exception as exc:  # noqa: BLE001 - the boundary, which logs what it does not know
            error = modern_error_data(exc)
            status = ERROR_CODE_HTTP_STATUS.get(error.code, 200)
            answer = encode_error(request.id, error)
        finally:
            exchange.close()
        await exchange.answer(answer, status)

    # --- checks -----------------------------------------------------------------------------------

    def _check(
        self,
        connection: HttpConnection,
        request: JSONRPCRequest,
        raw: dict[str, Any],
        lines: Headers,
        headers: Mapping[bytes, bytes],
    ) -> InboundLadderRejection | None:
        """Check the envelope against the headers, and remember who described itself so."""
        if len(headers) != len(lines):
            written = [(name.decode("latin-1"), "") for name, _ in lines]
            if (twice := find_duplicated_routing_header(written)) is not None:
                return InboundLadderRejection(
                    HEADER_MISMATCH, f"The header {twice} appears more than once."
                )
        if not _is_familiar(connection, request, headers):
            route = classify_inbound_request(raw, headers=_text(headers))
            if isinstance(route, InboundLadderRejection):
                return route
            described = (route.protocol_version, route.client_info, route.client_capabilities)
            if connection.described is None or connection.described[0] != described:
                # Nothing of ours registers clean-up with the SDK's connection, so that the one
                # before needs no closing.
                runner = ServerRunner(
                    self._server.sdk, Connection.from_envelope(*described), connection.session
                )
                connection.described = described, runner
        return self._check_mirrored(request, lines)

    def _check_mirrored(
        self, request: JSONRPCRequest, lines: Headers
    ) -> InboundLadderRejection | None:
        """Check the headers that repeat arguments of a tool which wants that (``x-mcp-header``)."""
        lookup = self._server.sdk.get_tool_input_schema
        params = request.params or {}
        name, arguments = params.get("name"), params.get("arguments") or {}
        if request.method != "tools/call" or lookup is None or not isinstance(name, str):
            return None
        schema = lookup(name)
        if schema is None or not isinstance(arguments, Mapping):
            return None
        known = self._mirrored.get(id(schema))
        if known is None or known[0] is not schema:
            if len(self._mirrored) > 2 * self._server.tools:
                self._mirrored.clear()  # of the schemas of tools that are gone
            known = self._mirrored[id(schema)] = schema, bool(x_mcp_header_map(schema))
        if not known[1]:
            return None
        return validate_mcp_param_headers(schema, arguments, _Lines(lines))

    async def _acknowledge(
        self, raw: dict[str, Any], headers: Mapping[bytes, bytes], send: Send
    ) -> None:
        """Accept a notification and drop it: this era knows none from client to server."""
        try:
            JSONRPCNotification.model_validate(raw, by_name=False)
        except ValueError:
            raise BadBody(INVALID_REQUEST, "The body is not a JSON-RPC message.") from None
        version = headers.get(_VERSION, b"").decode("latin-1")
        rejection = unsupported_protocol_version_rejection(version)
        if rejection is not None:
            await _reject(send, None, rejection)
            return
        await respond(send, 202, b"", [])


class _Lines(Mapping[str, str]):
    """Headers as the SDK's check of them wants them: a mapping whose items may repeat."""

    def __init__(self, lines: Headers) -> None:
        self._lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in lines]

    def __getitem__(self, name: str) -> str:
        return dict(self._lines)[name]

    def __iter__(self) -> Any:
        return iter(name for name, _ in self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def items(self) -> Any:
        return self._lines


def _is_familiar(
    connection: HttpConnection, request: JSONRPCRequest, headers: Mapping[bytes, bytes]
) -> bool:
    """Whether a request is described as the one before it on the connection, and says so alike.

    Whatever differs, however harmless, is judged by the SDK.
    """
    if connection.described is None or type(request.params) is not dict:
        return False
    meta = request.params.get("_meta")
    if type(meta) is not dict:
        return False
    version = meta.get(PROTOCOL_VERSION_META_KEY)
    said = version, meta.get(CLIENT_INFO_META_KEY), meta.get(CLIENT_CAPABILITIES_META_KEY)
    if said != connection.described[0] or said[2] is None:
        return False
    if type(version) is not str or headers.get(_VERSION) != version.encode():
        return False
    if headers.get(_METHOD) != request.method.encode():
        return False
    key = NAME_BEARING_METHODS.get(request.method)
    if key is None:
        return True
    name = request.params.get(key)
    return type(name) is str and name.isascii() and headers.get(_NAME) == name.encode()


def _wants_log(params: Mapping[str, Any] | None) -> bool:
    meta = params.get("_meta") if params else None
    return isinstance(meta, Mapping) and meta.get(LOG_LEVEL_META_KEY) is not None


def _text(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}


async def _reject(
    send: Send, request_id: RequestId | None, rejection: InboundLadderRejection
) -> None:
    error = ErrorData(code=rejection.code, message=rejection.message, data=rejection.data)
    status = ERROR_CODE_HTTP_STATUS.get(rejection.code, 200)
    await respond(send, status, encode_error(request_id, error))
