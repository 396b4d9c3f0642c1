"""A client's wire as the pair of streams that the SDK runs over."""

from __future__ import annotations

import logging
from types import TracebackType

import anyio
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter

from .streams import LineChannel
from .wire import encode

log = logging.getLogger(__name__)


class _Stream:
    """What the SDK wants of both streams beside their one verb."""

    def __init__(self, channel: LineChannel) -> None:
        self._channel = channel

    async def aclose(self) -> None:
        """Do nothing: whoever made the channel closes it, after the last answer was sent."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class ChannelReadStream(_Stream):
    """The SDK's ``ReadStream`` over a channel.

    A line that is no JSON-RPC message is yielded as the exception that says so, as the SDK's own
    stdio transport does; the SDK logs and drops it.
    """

    async def receive(self) -> SessionMessage | Exception:
        """Wait for the next message.

        :raises anyio.EndOfStream: at the end of the input, held back as `LineChannel.line` says.
        """
        channel = self._channel
        while (line := await channel.line()) is not None:
            if not line or line.isspace():
                continue
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError as exc:
                log.warning("a client sent a line that is no JSON-RPC message; it is ignored")
                return exc
            if not isinstance(message, JSONRPCRequest):
                return SessionMessage(message)
            await channel.room()
            channel.begin()
            return SessionMessage(
                message, ServerMessageMetadata(on_request_unanswered=self._unanswered)
            )
        raise anyio.EndOfStream

    async def _unanswered(self) -> None:
        self._channel.done()

    def __aiter__(self) -> ChannelReadStream:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> ChannelReadStream:
        return self


class ChannelWriteStream(_Stream):
    """The SDK's ``WriteStream`` over a channel."""

    async def send(self, item: SessionMessage, /) -> None:
        """Write one message and wait until the client has read enough for the next.

        :raises anyio.BrokenResourceError: when the client has gone.
        """
        channel = self._channel
        message = item.message
        sent = channel.write(encode(message))
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            try:
                await channel.drain()
            finally:
                channel.done()
        else:
            await channel.drain()
        if not sent:
            raise anyio.BrokenResourceError

    async def __aenter__(self) -> ChannelWriteStream:
        return self
