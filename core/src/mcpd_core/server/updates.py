"""Subscriptions of the handshake eras to single resources: ``resources/subscribe`` and its kin.

In the later era they are part of ``subscriptions/listen``, see `mcpd_core.server.changes`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_REQUEST,
    EmptyResult,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from ..host.updates import Updates
from .content import RESOURCE_NOT_FOUND
from .session import Session

log = logging.getLogger(__name__)

#: Resources that one client may follow at a time, in one subscription in the later era.
MAX_RESOURCES = 512


class Subscriber:
    """What one client follows, and what it is yet to be told.

    A client that reads slowly is told once of whatever happened to a resource meanwhile.
    """

    def __init__(self, session: ServerSession) -> None:
        self._session = session
        self._waiting: dict[str, None] = {}
        self._sender: asyncio.Task[None] | None = None
        #: What ends each subscription.
        self.stops: dict[str, Callable[[], None]] = {}

    def tell(self, uri: str) -> None:
        """Have the client told that what is at a URI has changed."""
        self._waiting[uri] = None
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())

    def close(self) -> None:
        """Forget all of it."""
        for stop in self.stops.values():
            stop()
        self.stops.clear()
        self._waiting.clear()
        if self._sender is not None:
            self._sender.cancel()

    async def _send(self) -> None:
        try:
            while self._waiting:
                # Taken out first: what changes while this is being sent is worth another one.
                uri = next(iter(self._waiting))
                del self._waiting[uri]
                await self._session.send_resource_updated(uri)
        except Exception:
            log.debug("a client was not told of a change", exc_info=True)
        finally:
            self._sender = None


class Subscriptions:
    """The handlers of the requests of the handshake eras.

    :param updates: who follows what.
    """

    def __init__(self, updates: Updates) -> None:
        self._updates = updates

    def register(self, sdk: Server[Any]) -> None:
        """Have the SDK's server answer with these handlers."""
        sdk.add_request_handler("resources/subscribe", SubscribeRequestParams, self.subscribe)
        sdk.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, self.unsubscribe)

    def forget(self, session: Session) -> None:
        """End the subscriptions of a client that has left."""
        if session.subscriber is not None:
            session.subscriber.close()
            session.subscriber = None

    async def subscribe(
        self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams
    ) -> EmptyResult:
        """Tell a client of changes from now on."""
        session: Session = ctx.lifespan_context
        uri = str(params.uri)
        # Whether a template leads to something is not looked up: there may be something later.
        usual = self._updates.find(session.principal, uri)
        if usual is None:
            raise MCPError(RESOURCE_NOT_FOUND, f"No resource is at {uri[:200]!r}.", {"uri": uri})
        if session.subscriber is None:
            session.subscriber = Subscriber(ctx.session)
        subscriber = session.subscriber
        if uri not in subscriber.stops:
            if len(subscriber.stops) >= MAX_RESOURCES:
                raise MCPError(
                    INVALID_REQUEST,
                    f"This client has subscribed to {MAX_RESOURCES} resources, which is the most; "
                    "unsubscribe from one first.",
                )
            # It is told of the URI as it has spelt it.
            tell = partial(subscriber.tell, uri)
            subscriber.stops[uri] = self._updates.follow(usual, session.principal, tell)
        return EmptyResult()

    async def unsubscribe(
        self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        """Tell a client of changes no more; one that was not told of them is answered alike."""
        session: Session = ctx.lifespan_context
        if session.subscriber is not None:
            stop = session.subscriber.stops.pop(str(params.uri), None)
            if stop is not None:
                stop()
        return EmptyResult()
