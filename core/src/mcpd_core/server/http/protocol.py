"""uvicorn's protocol with bounds: on what a client may send before its request is whole, and on how
long one that has gone, or does not read, is served."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from .app import CONNECTION

if TYPE_CHECKING:
    from .listener import HttpListener

log = logging.getLogger(__name__)

#: Seconds in which a request must have come, from its first byte to its last.
REQUEST_TIMEOUT = 60.0
#: Bytes that a request may have outside its body in one piece: its head, or its trailers.
MAX_HEAD = 64 * 1024


def protocol_for(listener: HttpListener) -> type[asyncio.Protocol]:
    """Return the fastest HTTP protocol there is, made to know its connection."""
    base: Any
    missing = [name for name in ("uvloop", "httptools") if not _importable(name)]
    if missing:
        log.info(
            "HTTP is served without %s, at about half the speed; mcpd-core[fast] installs it",
            " and ".join(missing),
        )
    if "httptools" in missing:
        from uvicorn.protocols.http.h11_impl import H11Protocol as base
    else:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as base

    class Protocol(base):  # type: ignore[misc]
        app_state: dict[str, Any]

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.late_task: asyncio.TimerHandle | None = None
            self.known = listener.opened(transport.get_extra_info("socket"), self.abandon)
            if self.known is None:
                transport.abort()
                return
            self.app_state = {**self.app_state, CONNECTION: self.known}
            # uvicorn waits for a first request without end.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._unset_keepalive_if_required()
            self.expect(False)
            if self.known is not None:
                listener.lost(self.known)

        def expect(self, more: bool) -> None:
            """Take note of whether the rest of a request is yet to come."""
            if not more:
                if self.late_task is not None:
                    self.late_task.cancel()
                    self.late_task = None
            elif self.late_task is None:
                self.late_task = self.loop.call_later(REQUEST_TIMEOUT, self.late)

        def late(self) -> None:
            self.late_task = None
            if self.answering():
                self.expect(True)
            else:
                self.transport.abort()

        def abandon(self) -> None:
            if self.cycle is not None:
                # As when the client has gone: uvicorn wants no answer then.
                self.cycle.disconnected = True
            self.transport.abort()

        def answering(self) -> bool:
            """Whether a request has come as a whole and is not answered yet."""
            cycle = self.cycle
            if getattr(self, "pipeline", None):
                return True
            return cycle is not None and not cycle.response_complete and not cycle.more_body

    class H11(Protocol):
        def handle_events(self) -> None:
            super().handle_events()
            state = self.conn.their_state
            buffered = bool(self.conn.trailing_data[0])
            closing = self.transport.is_closing()
            begun = state.__name__ == "SEND_BODY" or (state.__name__ == "IDLE" and buffered)
            self.expect(begun and not closing)

    class HttpTools(Protocol):
        #: Whether the parser has got on since this was last cleared, and what it took before.
        progress = False
        taken = 0
        begun = False

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            #: The requests without a whole answer, in order. uvicorn only knows the latest of them
            #: when the client goes, and goes on with the others.
            self.unanswered: deque[Any] = deque()

        def connection_lost(self, exc: Exception | None) -> None:
            self.give_up()
            super().connection_lost(exc)

        def abandon(self) -> None:
            self.give_up()
            super().abandon()

        def give_up(self) -> None:
            self.pipeline.clear()
            for cycle in self.unanswered:
                cycle.disconnected = True
                cycle.message_event.set()

        def on_response_complete(self) -> None:
            self.unanswered.popleft()
            super().on_response_complete()

        def data_received(self, data: bytes) -> None:
            # The parser keeps the head of a request, and trailers, however long they are.
            while data and not self.transport.is_closing():
                part, data = data[:MAX_HEAD], data[MAX_HEAD:]
                self.progress, self.begun = False, True
                super().data_received(part)
                self.taken = 0 if self.progress else self.taken + len(part)
                if self.taken > MAX_HEAD:
                    self.transport.abort()
            self.expect(self.begun and not self.transport.is_closing())

        def on_message_begin(self) -> None:
            self.begun = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self.progress = True
            before = self.cycle
            super().on_headers_complete()
            if self.cycle is not before:
                self.unanswered.append(self.cycle)

        def on_body(self, body: bytes) -> None:
            self.progress = True
            super().on_body(body)

        def on_message_complete(self) -> None:
            self.progress, self.begun = True, False
            super().on_message_complete()

    return H11 if "httptools" in missing else HttpTools


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
