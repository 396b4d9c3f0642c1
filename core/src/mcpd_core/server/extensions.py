"""What plugins add to the server: JSON-RPC methods, and clients over streams of their own."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, METHOD_NOT_FOUND, RequestParams

from ..errors import McpdError
from ..spec import Principal
from .control import owner_only, refusal
from .mcp import McpServer
from .session import Session
from .streams import LineChannel

if TYPE_CHECKING:
    from ..host import Host

log = logging.getLogger(__name__)


class Extensions:
    """Connects a server with what the plugins of its host bring. Used on the host's loop."""

    def __init__(self, server: McpServer, host: Host) -> None:
        self._server = server
        self._host = host
        self._registered: set[str] = set()
        self._loop = asyncio.get_running_loop()
        host.stream_server = self.serve_stream
        self._forget = host.on_change(self._changed)
        self._register()

    def close(self) -> None:
        """Take up nothing more."""
        self._forget()

    # --- JSON-RPC methods -------------------------------------------------------------------------

    def _changed(self) -> None:
        # Soon, and not now: what has changed may be half done, and on any thread.
        self._loop.call_soon_threadsafe(self._register)

    def _register(self) -> None:
        sdk = self._server.sdk
        for name in self._host.extras.rpc_methods():
            if name in self._registered:
                continue
            if sdk.get_request_handler(name) is not None:
                log.error("the method %s of a plugin is the server's own, and is left out", name)
                continue
            # It stays registered when its plugin goes: it is looked up with each request.
            self._registered.add(name)
            sdk.add_request_handler(name, RequestParams, self._answer)

    async def _answer(self, ctx: ServerRequestContext[Any, Any], params: RequestParams) -> Any:
        handler = self._host.extras.rpc_methods().get(ctx.method)
        if handler is None:
            raise MCPError(METHOD_NOT_FOUND, "Method not found", ctx.method)
        owner_only(ctx)
        session: Session = ctx.lifespan_context
        given = {key: value for key, value in (ctx.params or {}).items() if key != "_meta"}
        try:
            return dict(await handler(given, session.principal) or {})
        except McpdError as error:
            raise refusal(error) from None
        except Exception:
            # The boundary of a plugin's code.
            log.exception("the method %s of a plugin failed", ctx.method)
            raise MCPError(INTERNAL_ERROR, "Internal server error") from None

    # --- streams ----------------------------------------------------------------------------------

    async def serve_stream(self, sock: socket.socket, principal: Principal, client: str) -> None:
        """Serve one client over a connected socket, which is closed in the end."""
        channel = LineChannel()
        sock.setblocking(False)
        await self._loop.connect_accepted_socket(lambda: channel, sock)
        try:
            await self._server.serve(channel, Session(principal, client))
        finally:
            await channel.close()
