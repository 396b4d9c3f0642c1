"""Services: the long-lived objects of plugins, such as a task store or a network node.

A service has one owner runtime. It is started once, on first need or when the server starts, and
stopped in reverse order when the host closes. Tools reach it with `Context.service`; a tool of
another runtime gets a proxy whose methods are awaited.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from .spec import CallResult, Principal, Progress, ToolSpec


@dataclass(frozen=True)
class Health:
    """How a service is, asked often and answered without waiting.

    :ivar ok: whether it does its work.
    :ivar detail: what is wrong, or a few words about what is right.
    :ivar pending: why the daemon must not exit although no client is connected, for example
        ``2 tasks running``; empty when it may.
    """

    ok: bool
    detail: str = ""
    pending: str = ""


@dataclass(frozen=True)
class Service:
    """The declaration of a service, returned by a plugin's ``mcpd_services`` hook.

    :ivar name: what tools ask for; unique among the enabled plugins.
    :ivar factory: ``module:function`` of an async context manager function that takes a
        `ServiceHost` and yields the object. It is entered and left in one task of the owner
        runtime, so a trio service may open a nursery in it. The module is imported when the
        service is started.
    :ivar runtime: the owner runtime.
    :ivar start: ``serve`` starts it with the server, ``need`` when a tool first asks for it.
    """

    name: str
    factory: str
    runtime: Literal["asyncio", "trio"]
    start: Literal["serve", "need"] = "need"


class ServiceHost(Protocol):
    """What a service sees of the host that runs it."""

    @property
    def name(self) -> str:
        """The name of the service."""
        ...

    @property
    def data_dir(self) -> Path:
        """The data directory that this process owns; make a folder of your own in it."""
        ...

    @property
    def settings(self) -> Any:
        """The plugin's section of the settings as its ``mcpd_settings`` model, or ``None``."""
        ...

    @property
    def log(self) -> logging.Logger:
        """A logger that carries the service's name."""
        ...

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        timeout: float | None = None,
        within: float | None = None,
        cancel_grace: Callable[[], float] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[str, str], None] | None = None,
        max_result_bytes: int | None = None,
    ) -> CallResult:
        """Call a tool on behalf of somebody; awaited in the service's own runtime.

        The call competes for the worker class of permits, so that deferred work and waiting
        clients do not starve each other.

        :param client: whose queue the call joins when permits are short.
        :param timeout: seconds; ``None`` means the tool's own or the host's default.
        :param within: seconds that it may take at most, whichever timeout counts otherwise.
        :param cancel_grace: asked when the call is cancelled, or reaches its deadline, for the
            seconds that the tool then has to clean up; ``None`` means the host's setting. After
            them a process is killed and a thread is waited for no longer; nothing can end an
            ``async def`` on a loop, which is waited for.
        :param on_progress: called on the host's thread for each progress report.
        :param on_log: called there with level and text of each log line of the tool.
        :param max_result_bytes: how large the answer may be, for a service that does not send it
            to a client as it is; ``None`` means as large as one for a client. Tools with a process
            of their own have the latter always.
        :raises CallRefused: when the tool did not start; `Busy` costs nothing, try again later.
        """
        ...

    async def check(
        self, tool: str, arguments: Mapping[str, Any], *, principal: Principal
    ) -> ToolSpec:
        """Refuse now what `call` would refuse, without running anything.

        :returns: the contract of the tool.
        :raises CallRefused: as `call` would.
        """
        ...

    async def serve_stream(
        self,
        receive: Callable[[], Awaitable[bytes]],
        send: Callable[[bytes], Awaitable[Any]],
        *,
        principal: Principal,
    ) -> None:
        """Serve one MCP client over a stream of bytes until it leaves; awaited in the service's own
        runtime. Messages are lines of JSON, as over stdio.

        :param receive: returns what has arrived; ``b""`` at the end.
        :param send: returns when the bytes are on their way.
        :param principal: who the client is; what it may do depends on it.
        :raises ServiceUnavailable: when this process serves no clients.
        """
        ...

    def on_closing(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have something called, once, as soon as the server stops: while calls in flight finish,
        and no further one is accepted. The service itself is stopped after that.

        :param callback: called on any thread, perhaps at once; it must neither wait nor raise.
        :returns: what ends it; a service that is stopped should.
        """
        ...

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have something called on the service's own thread, soon and in the order of asking; from
        any thread, without waiting.

        It is the way back from a thread of the service's own, in asyncio and in trio alike. The
        function is called between two steps of the service's tasks and belongs to none of them: it
        may set events, cancel scopes and start tasks in nurseries, and must neither wait nor raise.
        It sees no context variables of whoever asked. When the server has ended, nothing is called
        any more.
        """
        ...

    @property
    def followed(self) -> bool:
        """Whether any client follows any resource; may be asked on any thread.

        When none does, nobody need be told that one has changed.
        """
        ...

    def resource_changed(self, uri: str, *, principal: Principal | None = None) -> None:
        """Say that what is at a URI has changed; from any thread, without waiting.

        Clients that have subscribed to the URI are told: at once, and then of whatever happens
        within a tenth of a second as of one change. What nobody follows costs next to nothing.

        :param uri: as its template writes it: with ``urllib.parse.quote(value, safe="")`` for each
            placeholder.
        :param principal: for whom it has changed, where principals see different things there;
            no other one is told. ``None`` for everybody who may read it.
        """
        ...

    def tool(self, name: str) -> ToolSpec | None:
        """Look a tool up by name or alias; ``None`` when no enabled plugin offers it."""
        ...


class ServiceFinder(Protocol):
    """Finds services for what plugins add to the server itself, such as JSON-RPC methods."""

    async def get(self, name: str) -> Any:
        """Return a service, started if need be; awaited on the host's asyncio loop.

        :returns: the object itself when it lives in asyncio, else a proxy each of whose methods is
            awaited.
        :raises ServiceUnavailable: when no enabled plugin offers it, or it could not be started.
        """
        ...


class Registrar(Protocol):
    """Receives what a plugin offers in its ``mcpd_register_tools`` hook."""

    def add(self, function: Callable[..., Any]) -> None:
        """Add one function that carries the ``@tool``, ``@resource`` or ``@prompt`` mark.

        :raises PluginLoadError: when the function carries no mark.
        """
        ...

    def add_module(self, module: str) -> None:
        """Add every function with one of these marks that the named module defines.

        The module is imported when the manifest is made, and not before something of it is used
        when there is a manifest.

        :param module: its full name, for example ``mcpd_hello_plugin.tools``.
        """
        ...
