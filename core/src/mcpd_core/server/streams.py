"""One client's wire as an asyncio protocol.

`LineChannel` is used for the Unix socket and for stdio alike. It has no tasks and no queues between
tasks: bytes go from the transport's callback into a deque of lines, and answers straight into the
transport's buffer. That, and not the JSON, is what makes it several times faster than the SDK's own
stdio transport.
"""

from __future__ import annotations

import asyncio
import logging
import select
import sys
from collections import deque
from typing import cast

from mcp_types import INVALID_REQUEST, ErrorData

from .wire import encode_error

log = logging.getLogger(__name__)

#: Bytes; a longer message closes the connection. Tool arguments are meant to be far smaller.
MAX_MESSAGE = 64 * 1024 * 1024
#: Requests of one client that may be unanswered at a time; the next one waits unread in the socket,
#: so that a client that pipelines thousands of calls is slowed down instead of being refused.
MAX_IN_FLIGHT = 256
#: Seconds for which the end of the input is held back while requests are unanswered.
EOF_GRACE = 5.0

# Reading pauses above and resumes below these many bytes of complete, unread messages.
_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024


class LineChannel(asyncio.Protocol):
    """A client's connection: lines in, lines out, with back-pressure both ways.

    One reader (the engine's loop) takes lines; any number of request handlers write. Use it as the
    protocol of a duplex transport, or `attach` the two ends of a pair of pipes.

    :param max_message: bytes of the longest message that is accepted.
    :param max_in_flight: requests that may be unanswered before `room` waits.
    :param eof_grace: seconds for which `line` holds the end of the input back while requests are
        unanswered, so that ``printf requests | mcpd serve --standalone`` gets its answers.
    """

    def __init__(
        self,
        *,
        max_message: int = MAX_MESSAGE,
        max_in_flight: int = MAX_IN_FLIGHT,
        eof_grace: float = EOF_GRACE,
    ) -> None:
        self._max_message = max_message
        self._max_in_flight = max_in_flight
        self._eof_grace = eof_grace
        self._lines: deque[bytes] = deque()
        self._queued = 0
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._reading: asyncio.ReadTransport | None = None
        self._writing: asyncio.WriteTransport | None = None
        self._paused = False
        self._ended = False
        self._changed: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        #: Requests read and not yet answered.
        self.in_flight = 0
        #: Whether nobody reads our answers any more.
        self.lost = False

    # --- the transport's side ---------------------------------------------------------------------

    def attach(self, reading: asyncio.ReadTransport, writing: asyncio.WriteTransport) -> None:
        """Use one transport for each direction; `connection_made` does so for a duplex one."""
        self._reading, self._writing = reading, writing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a duplex transport (called by asyncio)."""
        # Not checked by class: those of other loops derive from none of asyncio's.
        duplex = cast("asyncio.Transport", transport)
        self.attach(duplex, duplex)

    def data_received(self, data: bytes) -> None:
        """Split what arrived into lines (called by asyncio)."""
        if self._ended:
            return
        if b"\n" not in data:
            self._partial.append(data)
            self._partial_size += len(data)
        else:
            lines = data.split(b"\n")
            rest = lines.pop()
            if self._partial:
                self._partial.append(lines[0])
                lines[0] = b"".join(self._partial)
                self._partial.clear()
            if rest:
                self._partial.append(rest)
            self._partial_size = len(rest)
            if len(lines[0]) > self._max_message:
                self._refuse_long_message()
                return
            self._lines.extend(lines)
            self._queued += sum(map(len, lines))
            self._wake()
        if self._partial_size > self._max_message:
            self._refuse_long_message()
        elif self._queued > _HIGH_WATER and not self._paused:
            self._pause()

    def eof_received(self) -> bool:
        """Note the end of the input (called by asyncio); the other direction stays open."""
        self.end()
        self.lost = self.lost or self._hung_up()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note that both directions are gone (called by asyncio)."""
        self.lost = True
        self._writable.set()
        self._closed.set()
        self.end()

    def pause_writing(self) -> None:
        """Let `drain` wait (called by asyncio when the client reads too slowly)."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `drain` return (called by asyncio)."""
        self._writable.set()

    # --- the engine's side ------------------------------------------------------------------------

    async def line(self) -> bytes | None:
        """Wait for the next line; ``None`` at the end of the input.

        The end is held back for as long as requests are unanswered and somebody may be reading the
        answers, at most for the grace given to the constructor: after it the SDK cancels what is
        still running.
        """
        # No deadline: a client may be silent for as long as it likes.
        while not self._lines:
            if self._ended:
                await self._answered()
                return None
            await self._change()
        line = self._lines.popleft()
        self._queued -= len(line)
        if self._paused and self._queued < _LOW_WATER:
            self._resume()
        return line

    async def room(self) -> None:
        """Wait until one more request may be started."""
        # No deadline of its own: every request in flight has one, and its end makes room.
        while self.in_flight >= self._max_in_flight and not self.lost:
            await self._change()

    def begin(self) -> None:
        """Count a request as unanswered."""
        self.in_flight += 1

    def done(self) -> None:
        """Count a request as answered, or as settled without an answer."""
        self.in_flight -= 1
        self._wake()

    def write(self, data: bytes) -> bool:
        """Hand bytes to the transport, without waiting.

        :returns: whether there is still a client to write to.
        """
        if self.lost or self._writing is None or self._writing.is_closing():
            return False
        self._writing.write(data)
        return True

    async def drain(self) -> None:
        """Wait until the client has read enough for more to be written."""
        # No deadline: what is buffered is bounded by the requests in flight, and a client that
        # never reads hurts nobody else; when it leaves, or the server stops, this returns.
        if not self._writable.is_set():
            await self._writable.wait()

    def end(self) -> None:
        """Take no more input; lines that have arrived are still served."""
        self._ended = True
        self._wake()

    async def close(self, timeout: float = 5.0) -> None:
        """Send what is buffered and close; drop it when the client does not read it in time.

        :param timeout: seconds.
        """
        self.end()
        writing = self._writing
        if self._reading is not None:
            self._reading.close()
        if writing is None:
            return
        writing.close()
        try:
            await asyncio.wait_for(self._closed.wait(), timeout)
        except asyncio.TimeoutError:
            writing.abort()
            log.debug("a client did not read its last answers within %g s", timeout)

    def abort(self) -> None:
        """Close at once, and drop what is buffered."""
        if self._writing is not None:
            self._writing.abort()

    # --- details ----------------------------------------------------------------------------------

    async def _answered(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._eof_grace
        timer = loop.call_at(deadline, self._wake)
        try:
            while self.in_flight and not self.lost and loop.time() < deadline:
                await self._change()
        finally:
            timer.cancel()

    async def _change(self) -> None:
        """Wait until something that the engine's loop may be waiting for has changed."""
        self._changed = asyncio.get_running_loop().create_future()
        try:
            await self._changed
        finally:
            self._changed = None

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _pause(self) -> None:
        if self._reading is not None and not self._reading.is_closing():
            self._paused = True
            self._reading.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        if not self._ended and self._reading is not None and not self._reading.is_closing():
            self._reading.resume_reading()

    def _refuse_long_message(self) -> None:
        # The id of the message cannot be known without parsing it, hence an error without one.
        self._partial.clear()
        self._partial_size = 0
        text = f"A message of more than {self._max_message} bytes was sent; the connection closes."
        self.write(encode_error(None, ErrorData(code=INVALID_REQUEST, message=text)))
        log.warning("a client sent a message of more than %d bytes", self._max_message)
        self._pause()
        self.end()

    def _hung_up(self) -> bool:
        """Whether the peer has closed its socket, rather than only its sending half."""
        # Linux alone tells the two apart (POLLHUP means both halves). Elsewhere the end of the
        # input is taken for a half close, and the grace bounds the difference.
        sock = self._writing.get_extra_info("socket") if self._writing is not None else None
        if sys.platform != "linux" or sock is None:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))


class ReadingSide(asyncio.Protocol):
    """The reading one of two transports, for a channel made of a pair of pipes."""

    def __init__(self, channel: LineChannel) -> None:
        self._channel = channel

    def data_received(self, data: bytes) -> None:
        """Pass bytes on (called by asyncio)."""
        self._channel.data_received(data)

    def eof_received(self) -> bool:
        """Pass the end on (called by asyncio); a read pipe closes itself then."""
        self._channel.end()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take it for the end of the input; answers may still be written."""
        self._channel.end()


class WritingSide(asyncio.Protocol):
    """The writing one of two transports, for a channel made of a pair of pipes or sockets."""

    def __init__(self, channel: LineChannel) -> None:
        self._channel = channel

    def eof_received(self) -> bool:
        """Keep a socket open (called by asyncio): what is read from it is of no interest."""
        return True

    def pause_writing(self) -> None:
        """Pass it on (called by asyncio)."""
        self._channel.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on (called by asyncio)."""
        self._channel.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take it for the loss of the client: nobody reads answers any more."""
        self._channel.connection_lost(exc)
