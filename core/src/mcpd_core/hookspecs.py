"""The hooks that a plugin can implement.

A hook is a function of the plugin module with the ``@hookimpl`` mark and the name of one of the
functions below. It takes those of the arguments that it needs, by name::

    from mcpd_core import Registrar, Service, hookimpl

    @hookimpl
    def mcpd_register_tools(registrar: Registrar) -> None:
        registrar.add_module("mcpd_hello_plugin.tools")

    @hookimpl
    def mcpd_services() -> list[Service]:
        return [Service("greeter", "mcpd_hello_plugin.greeter:open_greeter", runtime="asyncio")]

Hooks are plain functions: asynchronous work is returned as an object, never awaited here. They
return soon, because the server waits for them. A hook that raises is logged, its plugin is
``broken`` from then on, and no other plugin notices. Arguments are only ever added to a hook, so an
implementation that works goes on working. One that is meant to run with an older mcpd-core as well,
which may not know the hook, says ``@hookimpl(optionalhook=True)``. Wrappers are not supported:
nobody can wrap what another plugin does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pluggy

from .findings import Finding
from .services import Registrar, Service, ServiceFinder
from .spec import Call, CallResult, Principal, ToolSpec

if TYPE_CHECKING:
    from pydantic import BaseModel

PROJECT = "mcpd_core"

hookspec = pluggy.HookspecMarker(PROJECT)
#: Marks a function of a plugin module as the implementation of the hook of the same name.
hookimpl = pluggy.HookimplMarker(PROJECT)

#: Answers one JSON-RPC request: takes its parameters without ``_meta`` and who makes it, and
#: returns the result.
RpcHandler = Callable[[Mapping[str, Any], Principal], Awaitable[Mapping[str, Any] | None]]
#: Makes a JSON-RPC request to the daemon: takes the method and its parameters, returns the result,
#: and raises `DaemonError` when there is none.
Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
#: Tells which of some tools cannot run here: takes their contracts, all of one plugin, and returns
#: why, by name: what is missing and what to do, in a sentence or two. Tools that are not named are
#: taken to be ready.
ReadinessCheck = Callable[[Sequence[ToolSpec]], Mapping[str, str]]
#: Reads a section of the settings as it is written, without validating it.
ReadSection = Callable[[str], Mapping[str, Any]]
#: Serves one HTTP request: an ASGI application (https://asgi.readthedocs.io).
HttpHandler = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class HttpRoute:
    """A path that the server answers beside MCP, to whom it would let call tools.

    :ivar path: begins with ``/``, and is matched as a whole.
    :ivar methods: the HTTP methods that are served; others are answered with 405.
    :ivar handler: an ASGI application, awaited on the host's asyncio loop.
    """

    path: str
    methods: tuple[str, ...]
    handler: HttpHandler


@dataclass(frozen=True)
class Transport:
    """A further way for clients to arrive.

    :ivar name: for messages and for the health of the server; unique among the enabled plugins.
    :ivar factory: as that of a `Service`; it accepts clients from when it yields until it is left,
        and hands each to `ServiceHost.serve_stream`.
    :ivar runtime: the library of the factory.
    """

    name: str
    factory: str
    runtime: Literal["asyncio", "trio"]


@dataclass(frozen=True)
class Outcome:
    """How a call ended, as observers see it.

    :ivar result: the answer, a tool's failure included; ``None`` when there was none.
    :ivar error: what was raised instead of an answer, such as the call's cancellation.
    :ivar seconds: how long the tool ran; waiting for a permit is not counted.
    """

    result: CallResult | None
    error: BaseException | None
    seconds: float


class CallObserver(Protocol):
    """Sees every call, nested ones included, and every reading of a resource and writing of a
    prompt; ``call.spec`` says which. Both methods run on the host's thread and must be cheap: every
    caller waits for them. An observer that raises is not asked again."""

    def before(self, call: Call) -> None:
        """Called when the tool is about to run: admitted, and its arguments checked."""
        ...

    def after(self, call: Call, outcome: Outcome) -> None:
        """Called when the tool has ended, also when it failed or was cancelled."""
        ...


@hookspec(firstresult=True)
def mcpd_tool_metadata(plugin: str) -> Iterable[ToolSpec] | None:
    """Return the contracts of the plugin's own tools.

    They are checked as those of a manifest are, and belong to the plugin whatever they say. With
    the answer ``None`` they are taken from the manifest. Only needed by plugins whose tools are
    neither known when the manifest is made nor registered by `mcpd_register_tools`.

    :param plugin: the name of the plugin that is asked, which is always your own.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_register_tools(registrar: Registrar) -> None:
    """Say which tools, resources and prompts the plugin offers.

    Called when its manifest is made. A plugin with a manifest is not asked again when it is served;
    one without is asked at every start of the server.

    :param registrar: receives functions with the ``@tool``, ``@resource`` or ``@prompt`` mark, or
        modules of them.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def mcpd_select_runtime(spec: ToolSpec, available: Collection[str]) -> ToolSpec | None:
    """Run a tool elsewhere than it declares; the first answer that is not ``None`` counts.

    Asked once per tool, before its code is loaded: what is placed in a process is loaded there.

    :param spec: the tool's contract.
    :param available: what can be had: ``asyncio``, ``trio``, and the placements besides ``loop``.
    :returns: ``dataclasses.replace(spec, runtime=...)`` or ``placement=...``; only these two
        fields count.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_services() -> Iterable[Service]:  # type: ignore[empty-body]
    """Declare the plugin's services. Called at the start of the server, which imports a service's
    module only when the service is started.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_call_observers() -> Iterable[CallObserver]:  # type: ignore[empty-body]
    """Return objects that are told of every call, such as for metrics or an audit trail.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_settings() -> tuple[str, type[BaseModel]]:  # type: ignore[empty-body]
    """Declare the plugin's section of the settings.

    :returns: the name of the section and the pydantic model that it must fit. The validated model
        reaches the plugin's services as `ServiceHost.settings`.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_transports() -> Iterable[Transport]:  # type: ignore[empty-body]
    """Return further ways for clients to arrive. They are opened when the server starts, and closed
    when it stops or the plugin is disabled.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_rpc_methods(  # type: ignore[empty-body]
    services: ServiceFinder,
) -> Mapping[str, RpcHandler]:
    """Return further JSON-RPC methods that the server answers, by name.

    A name has the form ``plugin/method``; those of the Model Context Protocol and those that begin
    with ``mcpd/`` are taken. Only the owner of the server may call them.

    :param services: finds the services that the methods work with.
    :returns: ``async def`` functions that are awaited on the host's asyncio loop with the
        parameters and the `Principal`; an `McpdError` that one raises reaches the client as it is.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_http_routes(  # type: ignore[empty-body]
    services: ServiceFinder,
) -> Iterable[HttpRoute]:
    """Return further paths that are served over HTTP. They are guarded as MCP itself is: the
    ``Host`` and ``Origin`` headers are checked, and who may not call tools is refused.

    :param services: finds the services that the routes work with.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_doctor_checks(  # type: ignore[empty-body]
    data_dir: Path, ask: Ask | None, section: ReadSection
) -> Iterable[Finding]:
    """Examine what belongs to the plugin, for ``mcpd doctor``, which imports the plugin for it.

    Nothing may be changed, and it should be over in a few seconds.

    :param data_dir: the data directory, which need not exist. A daemon may be working in it.
    :param ask: asks the daemon that runs there, as a client of the owner; ``None`` when none does.
    :param section: returns a section of the settings by its name, such as the plugin's own, as it
        is written; empty when there is none.
    :returns: what was found, what is well included.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_tool_readiness() -> ReadinessCheck:  # type: ignore[empty-body]
    """Return what tells which of the plugin's tools cannot run here, such as for want of a library.

    Only needed by plugins whose tools need what their distribution does not bring. What is returned
    is called in a worker thread when somebody wants to know, at most once a minute; it changes
    nothing, and imports nothing of the tools.

    .. versionadded:: 0.1
    """
