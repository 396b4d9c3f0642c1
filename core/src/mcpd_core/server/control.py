"""What the owner's command line asks of the running daemon, beside MCP, over the same socket.

``mcpd/plugins/set`` enables or disables a plugin; ``mcpd/plugins/list`` says what became of each.
``mcpd/overview`` says what runs, and what became of the calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import RequestParams

from ..errors import McpdError, NotAuthorised
from .results import REFUSED, error_of
from .session import Session

if TYPE_CHECKING:
    from ..host import Host

SET_PLUGIN = "mcpd/plugins/set"
LIST_PLUGINS = "mcpd/plugins/list"
OVERVIEW = "mcpd/overview"


class SetPluginParams(RequestParams):
    """The parameters of ``mcpd/plugins/set``."""

    name: str
    enabled: bool


class Control:
    """Answers the owner, and nobody else.

    :param host: what is controlled.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def register(self, server: Server[Any]) -> None:
        """Answer on a server from now on."""
        server.add_request_handler(SET_PLUGIN, SetPluginParams, self._set_plugin)
        server.add_request_handler(LIST_PLUGINS, RequestParams, self._list_plugins)
        server.add_request_handler(OVERVIEW, RequestParams, self._overview)

    async def _set_plugin(
        self, ctx: ServerRequestContext[Any, Any], params: SetPluginParams
    ) -> dict[str, Any]:
        owner_only(ctx)
        try:
            switched = await self._host.set_enabled(params.name, params.enabled)
        except McpdError as error:
            raise refusal(error) from None
        return switched.to_json()

    async def _list_plugins(
        self, ctx: ServerRequestContext[Any, Any], params: RequestParams
    ) -> dict[str, Any]:
        owner_only(ctx)
        return {"plugins": [row.to_json() for row in self._host.inventory.rows]}

    async def _overview(
        self, ctx: ServerRequestContext[Any, Any], params: RequestParams
    ) -> dict[str, Any]:
        owner_only(ctx)
        return self._host.overview()


def owner_only(ctx: ServerRequestContext[Any, Any]) -> None:
    """Refuse everybody but the user who owns the daemon."""
    session: Session = ctx.lifespan_context
    if session.principal.kind != "local":
        raise error_of(
            NotAuthorised(
                f"{session.principal} may not ask for {ctx.method}.",
                hint="Only the owner of the server may, over its Unix socket.",
            )
        )


def refusal(error: McpdError) -> MCPError:
    """Translate an error that is safe to show into the JSON-RPC error that says so."""
    data: dict[str, Any] = {"code": error.code, "data": error.data}
    if error.hint:
        data["hint"] = error.hint
    return MCPError(REFUSED, error.message, data)
