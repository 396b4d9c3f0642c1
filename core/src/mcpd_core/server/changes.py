"""Telling clients that lists or, in the later era, resources have changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourceUpdated,
    ServerEvent,
)
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    NotificationParams,
    SubscriptionsListenRequestParams,
)

from ..host.updates import Updates
from ..spec import Principal
from .updates import MAX_RESOURCES

log = logging.getLogger(__name__)

#: Streams of ``subscriptions/listen`` that may be open at a time, over all clients.
MAX_SUBSCRIPTIONS = 1024

Announcement = Callable[[ServerSession], Any]


#: Who is subscribing, and to which resources: the SDK tells a bus of neither.
_subscribing: ContextVar[tuple[Principal, frozenset[str]]] = ContextVar("mcpd_subscribing")


class _Bus(InMemorySubscriptionBus):
    """The SDK's bus, which tells of resources only those who may read them."""

    def __init__(self, updates: Updates) -> None:
        super().__init__()
        self._updates = updates

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        principal, uris = _subscribing.get()

        stops = [super().subscribe(listener)]
        for uri in uris:
            # Where nothing is yet, there may be something later.
            usual = self._updates.find(principal, uri) or uri
            tell = partial(listener, ResourceUpdated(uri))
            stops.append(self._updates.follow(usual, principal, tell))

        def unsubscribe() -> None:
            for stop in stops:
                stop()

        return unsubscribe


class _Untold:
    """What a client is yet to be told: one that reads slowly is told of many changes once."""

    __slots__ = ("busy", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Announcement] = []
        self.busy = False


class Changes:
    """Announces changes to the clients that want to know.

    In the handshake eras that is every client that finished its handshake, on its connection or on
    the stream it holds open over HTTP. In the later era it is whoever holds a
    ``subscriptions/listen`` open.

    :param updates: tells of changes of resources.
    """

    def __init__(self, updates: Updates) -> None:
        self._bus = _Bus(updates)
        self._handler = ListenHandler(self._bus, max_subscriptions=MAX_SUBSCRIPTIONS)
        self._closed = False
        # How many subscriptions are open, and what is set when there is none.
        self._open = 0
        self._none_open = anyio.Event()
        self._none_open.set()
        self._audience: WeakKeyDictionary[ServerSession, _Untold] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- handlers ---------------------------------------------------------------------------------

    async def listen(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> Any:
        """Serve one subscription until the client or `close` ends it."""
        if self._closed:
            raise MCPError(INTERNAL_ERROR, "The server is stopping.")
        uris = frozenset(params.notifications.resource_subscriptions or ())
        if len(uris) > MAX_RESOURCES:
            raise MCPError(
                INVALID_PARAMS, f"One subscription may be to {MAX_RESOURCES} resources at most."
            )
        _subscribing.set((ctx.lifespan_context.principal, uris))
        if self._open == 0:
            self._none_open = anyio.Event()
        self._open += 1
        try:
            return await self._handler(ctx, params)
        finally:
            self._open -= 1
            if self._open == 0:
                self._none_open.set()

    async def handshaken(
        self, ctx: ServerRequestContext[Any, Any], params: NotificationParams | None
    ) -> None:
        """Take note of a client that has finished its handshake."""
        # Held by the client's session, so that it is forgotten with that.
        ctx.lifespan_context.standing = ctx.session
        self._audience[ctx.session] = _Untold()

    # --- announcing -------------------------------------------------------------------------------

    def announce(self, event: ServerEvent, announcement: Announcement) -> None:
        """Tell everybody, without waiting for anybody.

        :param event: for the later era.
        :param announcement: sends it to one client of a handshake era.
        """
        self._start(self._bus.publish(event))
        for session, untold in self._audience.items():
            if announcement not in untold.waiting:
                untold.waiting.append(announcement)
            if not untold.busy:
                untold.busy = True
                self._start(self._tell(session, untold))

    async def close(self, timeout: float) -> None:
        """End every subscription with its result.

        :param timeout: seconds for clients that do not read.
        """
        self._closed = True
        self._handler.close()
        with anyio.move_on_after(timeout):
            await self._none_open.wait()

    async def _tell(self, session: ServerSession, untold: _Untold) -> None:
        try:
            while untold.waiting:
                # Taken out first: what changes while this is being sent is worth another one.
                await untold.waiting.pop(0)(session)
        finally:
            untold.busy = False

    def _start(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            # A client that has just gone, most likely.
            log.debug("a client was not told of a change", exc_info=failure)
