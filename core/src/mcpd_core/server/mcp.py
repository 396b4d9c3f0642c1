"""The MCP server: the SDK's low-level `Server`, answering from the host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import anyio
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_dual_era_loop
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    SERVER_INFO_META_KEY,
    CallToolRequestParams,
    EmptyResult,
    SetLevelRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from opentelemetry import trace

from .._version import __version__
from ..catalog import Catalog
from ..errors import CallRefused, InvalidArguments
from ..spec import CallResult, Principal, ToolSpec
from .engine import Engine, unsupported
from .listing import PAGE, ToolListing
from .notifier import Notifier
from .results import error_of, result_of, result_of_misfit
from .session import Session
from .streams import ChannelReadStream, ChannelWriteStream, LineChannel

log = logging.getLogger(__name__)

_TRACE_KEYS = ("traceparent", "tracestate", "baggage")
#: Milliseconds for which a client may take its copy of a list for fresh (2026-07-28 and later).
_LIST_TTL = 60_000


class ToolHost(Protocol):
    """What the server needs of `mcpd_core.host.Host`."""

    @property
    def catalog(self) -> Catalog:
        """The specs of the enabled plugins."""
        ...

    def tools_for(self, principal: Principal) -> tuple[ToolSpec, ...]:
        """List the tools that somebody may see, sorted by name."""
        ...

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        timeout: float | None = None,
        on_progress: Any = None,
        on_log: Any = None,
        trace: Mapping[str, str] = ...,
    ) -> CallResult:
        """Call a tool."""
        ...


class McpServer:
    """Serves any number of clients, of either protocol era, from one host.

    :param host: what answers.
    :param page: tools per page of ``tools/list``.
    :param engine: what moves messages between a channel and the SDK's handler kernel. ``lean`` is
        ours (`engine.Engine`), ``sdk`` the SDK's own loop over our streams; ``auto`` takes the
        lean one unless the installed SDK differs from what it was written for.
    """

    def __init__(
        self,
        host: ToolHost,
        *,
        page: int = PAGE,
        engine: Literal["auto", "lean", "sdk"] = "auto",
    ) -> None:
        self._host = host
        self.engine: Literal["lean", "sdk"] = "sdk" if engine == "sdk" else "lean"
        if engine == "auto" and (reason := unsupported()):
            log.warning("serving through the SDK's own, slower loop: %s", reason)
            self.engine = "sdk"
        listing = ToolListing(self._tools_for, page=page)
        self.sdk: Server[Any] = Server(
            "mcpd",
            version=__version__,
            title="mcpd",
            instructions=instructions(host.catalog.specs),
            cache_hints={
                "tools/list": CacheHint(ttl_ms=_LIST_TTL, scope="private"),
                "server/discover": CacheHint(ttl_ms=_LIST_TTL, scope="private"),
            },
            get_tool_input_schema=self._input_schema,
            on_list_tools=listing.answer,
            on_call_tool=self._call_tool,
        )
        # Not through the constructor, which warns that logging is deprecated as of 2026-07-28:
        # clients of the handshake era still ask for it.
        self.sdk.add_request_handler("logging/setLevel", SetLevelRequestParams, self._set_level)
        self._server_info = self.sdk.server_info_stamp
        if not tracing_configured():
            # The SDK's OpenTelemetry middleware makes a span for every message, which costs a
            # tenth of a call, and the API alone throws it away.
            self.sdk.middleware.clear()
        self.sdk.middleware.append(listing.remember)

    async def serve(self, channel: LineChannel, session: Session) -> None:
        """Serve one client until it leaves; the caller closes the channel.

        :param channel: its connection.
        :param session: who it is.
        """
        if self.engine == "lean":
            await Engine(self.sdk, channel, session).run()
            return
        await serve_dual_era_loop(
            self.sdk,
            ChannelReadStream(channel),
            ChannelWriteStream(channel),
            lifespan_state=session,
            init_options=self.sdk.create_initialization_options(),
        )

    # --- handlers ---------------------------------------------------------------------------------

    def _tools_for(self, ctx: ServerRequestContext[Any, Any]) -> Sequence[ToolSpec]:
        session: Session = ctx.lifespan_context
        return self._host.tools_for(session.principal)

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        spec = self._host.catalog.get(name)
        return spec.input_schema if spec is not None else None

    async def _set_level(
        self, ctx: ServerRequestContext[Any, Any], params: SetLevelRequestParams
    ) -> EmptyResult:
        session: Session = ctx.lifespan_context
        session.log_level = params.level
        return EmptyResult()

    async def _call_tool(
        self, ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> Any:
        session: Session = ctx.lifespan_context
        notifier = Notifier(ctx, session, source=params.name)
        call = self._host.call(
            params.name,
            params.arguments or {},
            principal=session.principal,
            client=session.client,
            on_progress=notifier.progress if notifier.wants_progress else None,
            on_log=notifier.log if notifier.wants_log else None,
            trace=_trace_context(ctx.params),
        )
        try:
            result = await (call if self.engine == "lean" else _sheltered(call))
            await notifier.flush()
        except InvalidArguments as exc:
            return result_of_misfit(exc)
        except CallRefused as exc:
            raise error_of(exc) from None
        except asyncio.CancelledError:
            notifier.abandon()
            raise
        except Exception:
            # The boundary: what went wrong inside the host is for the log, not for the client.
            log.exception("a call of %r failed inside the host", params.name)
            raise MCPError(INTERNAL_ERROR, "Internal server error") from None
        return self._stamped(ctx, result_of(result))

    def _stamped(
        self, ctx: ServerRequestContext[Any, Any], result: dict[str, Any]
    ) -> dict[str, Any]:
        """Say in a result who answers, as the later era wants it.

        The SDK would do it, with a deep copy for each result, which is a tenth of a call.
        """
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            meta = result.get("_meta", {})
            result["_meta"] = {**meta, SERVER_INFO_META_KEY: self._server_info}
        return result


def instructions(specs: Sequence[ToolSpec]) -> str:
    """Tell a model, in a few words, what this server offers and how its tools behave."""
    families: dict[str, int] = {}
    for spec in specs:
        families[spec.plugin] = families.get(spec.plugin, 0) + 1
    offered = ", ".join(f"{name} ({count})" for name, count in sorted(families.items()))
    text = "Tools of the plugins that the owner of this machine installed"
    text += f", with the number of tools of each: {offered}." if offered else "; none is enabled."
    return f"{text} A result with isError says what to do next."


def tracing_configured() -> bool:
    """Whether an OpenTelemetry SDK is set up, in code or by its environment variable."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _trace_context(params: Mapping[str, Any] | None) -> dict[str, str]:
    meta = params.get("_meta") if params else None
    if not isinstance(meta, Mapping):
        return {}
    return {key: meta[key] for key in _TRACE_KEYS if isinstance(meta.get(key), str)}


async def _sheltered(call: Any) -> CallResult:
    """Await a host call from within an anyio cancel scope, as the SDK's own loop has it.

    A cancelled scope cancels its task again on every turn of the loop for as long as the task
    waits, which would interrupt the tool's clean-up; the call therefore runs in a task of its own
    that is cancelled once.
    """
    task: asyncio.Task[CallResult] = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            # No deadline: the host bounds a tool's clean-up.
            await asyncio.wait([task])
        raise
