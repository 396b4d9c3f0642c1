"""What hooks may answer: each function here makes sure of one kind of answer.

The objects come from plugins, so reading them may run any code and raise anything; the facade in
`mcpd_core.hooks` calls these functions behind its own boundary.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from .contract import ENTRY
from .errors import ManifestError
from .findings import Finding, Level
from .hookspecs import CallObserver, HttpRoute, ReadinessCheck, RpcHandler, Transport
from .manifest import checked
from .services import Service
from .spec import PLACEMENTS, RUNTIMES, RuntimeName, ToolSpec
from .text import one_line, shown

if TYPE_CHECKING:
    from pydantic import BaseModel

_STARTS = ("serve", "need")
_METHOD = re.compile(r"[\w.-]+(/[\w.-]+)+\Z", re.ASCII)
#: Names of methods that plugins leave alone.
_OUR_METHODS = ("mcpd/", "notifications/", "rpc.")
_PATH = re.compile(r"(/[\w.~-]+)+\Z", re.ASCII)


class Unfit(Exception):
    """Raised about an answer that cannot be used; the text is the reason, a clause."""


def tools(answer: Any, plugin: str, runtime: RuntimeName) -> tuple[ToolSpec, ...]:
    """Read the answer of ``mcpd_tool_metadata``: contracts as sound as those of a manifest."""
    specs = tuple(answer)
    for spec in specs:
        if not isinstance(spec, ToolSpec):
            raise Unfit(f"it answered {shown(spec)}, which is no ToolSpec")
    try:
        return checked(specs, plugin=plugin, runtime=runtime)
    except ManifestError as exc:
        raise Unfit(exc.message) from None


def services(answer: Any) -> tuple[Service, ...]:
    """Read the answer of ``mcpd_services``."""
    return tuple(_service(item) for item in answer)


def _service(item: Any) -> Service:
    if not isinstance(item, Service):
        raise Unfit(f"it answered {shown(item)}, which is no Service")
    said: Any = item  # its fields may hold anything
    name, factory, runtime, start = said.name, said.factory, said.runtime, said.start
    if not isinstance(name, str) or not name.strip() or one_line(name) != name:
        raise Unfit(f"a service is named {shown(name)}, which is no name")
    if not isinstance(factory, str) or not ENTRY.match(factory):
        raise Unfit(
            f"the factory of the service {name!r} is {shown(factory)}, which is not of the form "
            "`module:function`"
        )
    if not isinstance(runtime, str) or runtime not in RUNTIMES or runtime == "any":
        raise Unfit(
            f"the service {name!r} wants the runtime {shown(runtime)}; it can be asyncio or trio"
        )
    if not isinstance(start, str) or start not in _STARTS:
        raise Unfit(f"the service {name!r} is to start at {shown(start)}; it can be serve or need")
    return item


def transports(answer: Any) -> tuple[Transport, ...]:
    """Read the answer of ``mcpd_transports``."""
    found = tuple(answer)
    for item in found:
        if not isinstance(item, Transport):
            raise Unfit(f"it answered {shown(item)}, which is no Transport")
        _service(Service(item.name, item.factory, item.runtime))
    return found


def rpc_methods(answer: Any) -> dict[str, RpcHandler]:
    """Read the answer of ``mcpd_rpc_methods``."""
    found: dict[str, RpcHandler] = {}
    for name, handler in dict(answer).items():
        if not isinstance(name, str) or not _METHOD.match(name) or name.startswith(_OUR_METHODS):
            raise Unfit(
                f"a method is called {shown(name)}; a name has the form `plugin/method`, and does "
                f"not begin with {' or '.join(_OUR_METHODS)}"
            )
        if not callable(handler):
            raise Unfit(f"the method {name!r} is {shown(handler)}, which cannot be called")
        found[name] = handler
    return found


def http_routes(answer: Any) -> tuple[HttpRoute, ...]:
    """Read the answer of ``mcpd_http_routes``."""
    found = tuple(answer)
    for route in found:
        if not isinstance(route, HttpRoute):
            raise Unfit(f"it answered {shown(route)}, which is no HttpRoute")
        said: Any = route  # its fields may hold anything
        path, methods = said.path, said.methods
        if not isinstance(path, str) or not _PATH.match(path):
            raise Unfit(f"a route is at {shown(path)}, which is no path such as /hello/page")
        if not isinstance(methods, tuple) or not methods or not all(map(_is_method, methods)):
            raise Unfit(f"the methods of {path} are {shown(methods)}; write ('GET', 'POST')")
        if not callable(said.handler):
            raise Unfit(f"the handler of {path} is {shown(said.handler)}, which cannot be called")
    return found


def _is_method(method: Any) -> bool:
    return isinstance(method, str) and method.isalpha() and method.isupper()


def findings(answer: Any) -> tuple[Finding, ...]:
    """Read the answer of ``mcpd_doctor_checks``."""
    found = tuple(answer)
    for item in found:
        if not isinstance(item, Finding):
            raise Unfit(f"it returned {shown(item)}, which is no Finding")
        if item.level not in get_args(Level):
            raise Unfit(f"it returned the level {shown(item.level)}")
    return found


def readiness(answer: Any) -> ReadinessCheck:
    """Read the answer of ``mcpd_tool_readiness``."""
    if not callable(answer) or inspect.iscoroutinefunction(answer):
        raise Unfit(f"it answered {shown(answer)}, which is no function that a thread can call")
    check: ReadinessCheck = answer
    return check


def reasons(answer: Any, names: Collection[str]) -> dict[str, str]:
    """Read what a check of readiness returns.

    :param names: the tools that it was asked about; what it says of others does not count.
    """
    found = {}
    for name, reason in dict(answer).items():
        if not isinstance(reason, str) or not reason.strip():
            raise Unfit(f"it says {shown(reason)} of the tool {shown(name)}, which is no reason")
        if name in names:
            found[name] = reason.strip()
    return found


def observers(answer: Any) -> tuple[CallObserver, ...]:
    """Read the answer of ``mcpd_call_observers``."""
    found = tuple(answer)
    for observer in found:
        methods = [getattr(observer, method, None) for method in ("before", "after")]
        if not all(callable(method) for method in methods):
            raise Unfit(f"{shown(observer)} lacks before() or after()")
        if any(inspect.iscoroutinefunction(method) for method in methods):
            raise Unfit(f"a method of {shown(observer)} is an `async def`, which nobody awaits")
    return found


def settings(answer: Any) -> tuple[str, type[BaseModel]]:
    """Read the answer of ``mcpd_settings``."""
    # Whoever answers with a model has imported it already.
    from pydantic import BaseModel

    match answer:
        case (str() as section, type() as model) if issubclass(model, BaseModel):
            return section, model
    raise Unfit(f"it answered {shown(answer)} instead of (section, pydantic model)")


def selection(answer: Any, spec: ToolSpec, available: Collection[str]) -> ToolSpec:
    """Read the answer of ``mcpd_select_runtime`` about a tool.

    :returns: the tool with the runtime and the placement of the answer, whatever else it says.
    """
    if not isinstance(answer, ToolSpec):
        raise Unfit(f"it answered {shown(answer)} instead of a ToolSpec")
    runtime, placement = answer.runtime, answer.placement
    if runtime not in RUNTIMES or placement not in PLACEMENTS:
        raise Unfit(f"it answered the unknown place {shown(runtime)}, {shown(placement)}")
    if runtime not in ("any", *available):
        raise Unfit(f"it answered the runtime {runtime!r}, which cannot be had")
    if placement not in ("loop", *available):
        raise Unfit(f"it answered the placement {placement!r}, which cannot be had")
    return replace(spec, runtime=runtime, placement=placement)
