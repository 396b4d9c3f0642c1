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

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from .services import Registrar, Service
from .spec import Call, CallResult, ToolSpec

if TYPE_CHECKING:
    from pydantic import BaseModel

PROJECT = "mcpd_core"

hookspec = pluggy.HookspecMarker(PROJECT)
#: Marks a function of a plugin module as the implementation of the hook of the same name.
hookimpl = pluggy.HookimplMarker(PROJECT)

#: Hooks that are specified, but that this version does not call; an implementation is reported.
NOT_CALLED_YET = frozenset({"mcpd_http_routes", "mcpd_rpc_methods", "mcpd_transports"})


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
    """Sees every call, nested ones included. Both methods run on the host's thread and must be
    cheap: every caller waits for them. An observer that raises is not asked again."""

    def before(self, call: Call) -> None:
        """Called when the tool is about to run: admitted, and its arguments checked."""
        ...

    def after(self, call: Call, outcome: Outcome) -> None:
        """Called when the tool has ended, also when it failed or was cancelled."""
        ...


@hookspec(firstresult=True)
def mcpd_tool_metadata(plugin: str) -> Iterable[ToolSpec] | None:
    """Return the contracts of one plugin's tools; the first answer that is not ``None`` counts.

    Without an answer they are taken from the manifest. Only needed by plugins whose tools are
    neither known when the manifest is made nor registered by `mcpd_register_tools`.

    :param plugin: the name of the plugin that is asked about; answer ``None`` for any but yours.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_register_tools(registrar: Registrar) -> None:
    """Say which tools the plugin offers.

    Called when its manifest is made. A plugin with a manifest is not asked again when it is served;
    one without is asked at every start of the server.

    :param registrar: receives functions with the ``@tool`` mark, or modules of them.

    .. versionadded:: 0.1
    """


@hookspec(firstresult=True)
def mcpd_select_runtime(spec: ToolSpec, available: Collection[str]) -> ToolSpec | None:
    """Run a tool elsewhere than it declares; the first answer that is not ``None`` counts.

    Asked once per tool, when its code is loaded.

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
def mcpd_transports() -> Iterable[Any]:  # type: ignore[empty-body]
    """Return further ways for clients to arrive. Reserved: this version does not call it, and what
    it is to return is not settled.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_rpc_methods() -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Return further JSON-RPC methods by name. Reserved: this version does not call it, and what
    it is to return is not settled.

    .. versionadded:: 0.1
    """


@hookspec
def mcpd_http_routes() -> Iterable[Any]:  # type: ignore[empty-body]
    """Return further HTTP routes. Reserved: this version does not call it, and what it is to return
    is not settled.

    .. versionadded:: 0.1
    """
