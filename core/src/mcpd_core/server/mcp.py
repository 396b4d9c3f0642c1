"""The MCP server: the SDK's low-level `Server`, answering from the host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.runner import serve_dual_era_loop
from mcp.server.session import ServerSession
from mcp.server.subscriptions import PromptsListChanged, ResourcesListChanged, ToolsListChanged
from mcp_types import (
    SERVER_INFO_META_KEY,
    CallToolRequestParams,
    EmptyResult,
    NotificationParams,
    ServerCapabilities,
    SetLevelRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from opentelemetry import trace

from .._version import __version__
from ..catalog import Catalog
from ..errors import CallRefused, InvalidArguments
from ..host.updates import Updates
from ..spec import CallResult, Principal, ToolSpec
from .changes import Changes
from .content import ContentHandlers, ContentHost, cache_hints
from .engine import Engine, unsupported
from .leading import lead
from .listing import PAGE, ToolListing
from .results import error_of, result_of, result_of_misfit
from .sdk_streams import ChannelReadStream, ChannelWriteStream
from .session import Session
from .streams import LineChannel
from .updates import Subscriptions

log = logging.getLogger(__name__)

#: Milliseconds for which a client may take its copy of a list for fresh (2026-07-28 and later).
_LIST_TTL = 60_000


class ToolHost(ContentHost, Protocol):
    """What the server needs of `mcpd_core.host.Host`."""

    @property
    def catalog(self) -> Catalog:
        """The specs of the enabled plugins."""
        ...

    def tools_for(self, principal: Principal) -> tuple[ToolSpec, ...]:
        """List the tools that somebody may see, sorted by name."""
        ...

    @property
    def updates(self) -> Updates:
        """Who follows which resource."""
        ...

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, on any thread, when the catalogue may have changed."""
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


class _SdkServer(Server[Any]):
    """The SDK's server, promising what ours keeps: to tell of changes, and what there is.

    :ivar not_offered: says which capabilities are not to be promised.
    """

    not_offered: Callable[[], Mapping[str, None]]

    def get_capabilities(self, *args: Any, **kwargs: Any) -> ServerCapabilities:
        capabilities = super().get_capabilities(*args, **kwargs)
        return capabilities.model_copy(update=self.not_offered())

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> InitializationOptions:
        options = notification_options or NotificationOptions(
            prompts_changed=True, resources_changed=True, tools_changed=True
        )
        return super().create_initialization_options(options, *args, **kwargs)


class McpServer:
    """Serves any number of clients, of either protocol era, from one host.

    :param host: what answers.
    :param page: items per page of a list.
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
        listing = ToolListing(self._tools_for, page=page, raw=self.engine == "lean")
        content = ContentHandlers(host, page=page, shelter=self.engine != "lean")
        self._changes = Changes(host.updates)
        self._subscriptions = Subscriptions(host.updates)
        sdk = _SdkServer(
            "mcpd",
            version=__version__,
            title="mcpd",
            instructions=instructions(host.catalog.specs),
            cache_hints={
                **cache_hints(_LIST_TTL),
                "tools/list": CacheHint(ttl_ms=_LIST_TTL, scope="private"),
                "server/discover": CacheHint(ttl_ms=_LIST_TTL, scope="private"),
            },
            get_tool_input_schema=self._input_schema,
            on_list_tools=listing.answer,
            on_call_tool=self._call_tool,
            on_subscriptions_listen=self._changes.listen,
        )
        sdk.not_offered = content.not_offered
        self.sdk: Server[Any] = sdk
        content.register(sdk)
        self._subscriptions.register(sdk)
        self.sdk.add_notification_handler(
            "notifications/initialized", NotificationParams, self._changes.handshaken
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
        self._specs = host.catalog.specs
        self._content = host.content
        self._announcing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget: Callable[[], None] = lambda: None

    @property
    def tools(self) -> int:
        """How many tools there are."""
        return len(self._specs)

    def watch(self) -> None:
        """Tell clients from now on, on the running loop, when the set of tools changes."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._forget = self._host.on_change(self._changed)

    async def aclose(self, timeout: float = 1.0) -> None:
        """Stop telling of changes; the sessions themselves are ended by who serves them.

        :param timeout: seconds for clients that do not read.
        """
        self._forget()
        await self._changes.close(timeout)

    async def serve(self, channel: LineChannel, session: Session) -> None:
        """Serve one client until it leaves; the caller closes the channel.

        :param channel: its connection.
        :param session: who it is.
        """
        try:
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
        finally:
            self.forget(session)

    def forget(self, session: Session) -> None:
        """Tell a client of nothing more: it has left."""
        self._subscriptions.forget(session)

    # --- changes ----------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Tell clients of a change, from whatever thread it was made on."""
        if not self._announcing and self._loop is not None:
            # Several changes in a row are one to a client.
            self._announcing = True
            self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        self._announcing = False
        specs, content, before = self._host.catalog.specs, self._host.content, self._content
        if specs != self._specs:
            self._specs = specs
            self.sdk.instructions = instructions(specs)
            self._changes.announce(ToolsListChanged(), ServerSession.send_tool_list_changed)
        self._content = content
        if (content.resources, content.templates) != (before.resources, before.templates):
            self._changes.announce(ResourcesListChanged(), ServerSession.send_resource_list_changed)
        if content.prompts != before.prompts:
            self._changes.announce(PromptsListChanged(), ServerSession.send_prompt_list_changed)

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
        call = partial(self._host.call, params.name, params.arguments or {})
        try:
            result = await lead(ctx, params.name, call, shelter=self.engine != "lean")
        except InvalidArguments as exc:
            return result_of_misfit(exc)
        except CallRefused as exc:
            raise error_of(exc) from None
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
        if not spec.listed:
            continue
        families[spec.plugin] = families.get(spec.plugin, 0) + 1
    offered = ", ".join(f"{name} ({count})" for name, count in sorted(families.items()))
    text = "Tools of the plugins that the owner of this machine installed"
    text += f", with the number of tools of each: {offered}." if offered else "; none is enabled."
    return f"{text} A result with isError says what to do next."


def tracing_configured() -> bool:
    """Whether an OpenTelemetry SDK is set up, in code or by its environment variable."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
