"""The facade over pluggy: one typed method per hook, and nobody else touches pluggy.

Implementations are called one by one rather than through pluggy's own loop, in its order: there one
that raises would take the others' answers with it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from . import answers, hookspecs
from .errors import McpdError, PluginLoadError
from .faults import explain_import_failure
from .findings import Finding
from .hookspecs import (
    Ask,
    CallObserver,
    HttpRoute,
    Outcome,
    ReadinessCheck,
    ReadSection,
    RpcHandler,
    Transport,
)
from .services import Service, ServiceFinder
from .spec import Call, RuntimeName, ToolSpec
from .text import error_text, one_line

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Registering(Protocol):
    @property
    def plugin(self) -> str: ...

    def add(self, function: Callable[..., Any], /) -> None: ...

    def add_module(self, module: str) -> None: ...


class Hooks:
    """The hooks of the plugins that are served.

    Whatever a plugin raises ends here, also what is no `Exception`, such as a `SystemExit` or the
    cancellation of a task. Only an interrupt is the user's own, and passes.

    :ivar broken: plugin -> reason, for each plugin of which an implementation failed; its other
        implementations are not called any more.
    :param on_broken: told of each such plugin as it happens.
    """

    def __init__(self, on_broken: Callable[[str, str], None] | None = None) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._on_broken = on_broken
        self._observers: tuple[tuple[str, CallObserver], ...] | None = None
        self.broken: dict[str, str] = {}

    # --- plugins ---------------------------------------------------------------------------------

    def register(self, plugin: object, name: str, *, requires_core: str = "") -> tuple[str, ...]:
        """Take up the hooks of a plugin.

        :param plugin: the module, or the object in it, that the entry point names.
        :param requires_core: what its distribution asks of mcpd-core, such as ``>=0.2``.
        :returns: the names of the hooks that it implements, sorted.
        :raises PluginLoadError: when one of its implementations does not fit; none is taken up.
        """
        if self._manager.has_plugin(name):
            raise PluginLoadError(name, f"The hooks of plugin {name!r} are taken up already.")
        try:
            self._manager.register(plugin, name)
            names = self._check(plugin, name, requires_core)
        except pluggy.PluginValidationError as exc:
            self._forget(name)
            raise PluginLoadError(
                name,
                f"A hook of plugin {name!r} does not fit this mcpd-core: "
                f"{' '.join(str(exc).split())}",
                hint=_upgrade_hint(requires_core),
            ) from exc
        except (PluginLoadError, KeyboardInterrupt):
            self._forget(name)
            raise
        except BaseException as exc:
            self._forget(name)
            raise PluginLoadError(
                name, f"The hooks of plugin {name!r} cannot be read ({_one_line(exc)})."
            ) from exc
        self._observers = None
        return names

    def unregister(self, name: str) -> None:
        """Drop the hooks of a plugin; nothing happens when it has none."""
        self._forget(name)
        self.broken.pop(name, None)
        self._observers = None

    def _forget(self, name: str) -> None:
        if self._manager.get_plugin(name) is not None:
            self._manager.unregister(name=name)

    def _check(self, plugin: object, name: str, requires_core: str) -> tuple[str, ...]:
        names = []
        for caller in self._manager.get_hookcallers(plugin) or ():
            for impl in caller.get_hookimpls():
                if impl.plugin is plugin and self._fits(impl, caller, name, requires_core):
                    names.append(caller.name)
        return tuple(sorted(names))

    def _fits(
        self, impl: pluggy.HookImpl, caller: pluggy.HookCaller, name: str, requires_core: str
    ) -> bool:
        """Return whether the hook will be called; raise when it cannot be."""
        if not caller.has_spec():
            if impl.optionalhook:
                return False
            import difflib  # only needed for this message

            known = [hook for hook in vars(hookspecs) if hook.startswith("mcpd_")]
            close = difflib.get_close_matches(caller.name, known, n=1)
            raise PluginLoadError(
                name,
                f"Plugin {name!r} implements {caller.name}, which is no hook of this mcpd-core.",
                hint=f"Did you mean {close[0]}?" if close else _upgrade_hint(requires_core),
            )
        if impl.hookwrapper or impl.wrapper:
            raise PluginLoadError(
                name, f"{caller.name} of plugin {name!r} is a wrapper, which is not supported."
            )
        if inspect.iscoroutinefunction(impl.function):
            raise PluginLoadError(
                name,
                f"{caller.name} of plugin {name!r} is an `async def`, but hooks are synchronous.",
                hint="Return the object that does the asynchronous work, such as a Service.",
            )
        return True

    # --- hooks, one by one -----------------------------------------------------------------------

    def tool_metadata(
        self, plugin: str, runtime: RuntimeName = "any"
    ) -> tuple[ToolSpec, ...] | None:
        """Call ``mcpd_tool_metadata`` of one plugin: none can speak for another.

        :param plugin: the plugin whose tools are asked for.
        :param runtime: what its entry-point group declares.
        :returns: ``None`` when it has nothing to say, or nothing sound: the manifest counts.
        """
        hook = "mcpd_tool_metadata"
        read = partial(answers.tools, plugin=plugin, runtime=runtime)
        for owner, answer in self._answers(hook, only=plugin, plugin=plugin):
            return self._read(owner, hook, read, answer)
        return None

    def register_tools(self, registrar: _Registering) -> None:
        """Call ``mcpd_register_tools`` of the one plugin that the registrar belongs to.

        :raises PluginLoadError: when it failed.
        """
        for owner, _ in self._answers(
            "mcpd_register_tools", only=registrar.plugin, raising=True, registrar=registrar
        ):
            _log.debug("Plugin %r has registered its tools.", owner)

    def select_runtime(self, spec: ToolSpec, available: Collection[str]) -> ToolSpec | None:
        """Call ``mcpd_select_runtime``.

        :param available: the runtimes that can be served and the placements besides ``loop``.
        :returns: the contract with another runtime or placement, or ``None`` when no plugin asks
            for that.
        """
        hook = "mcpd_select_runtime"
        read = partial(answers.selection, spec=spec, available=available)
        for owner, answer in self._answers(hook, spec=spec, available=available):
            selected = self._read(owner, hook, read, answer)
            if selected is not None:
                return selected
        return None

    def services(self, only: str | None = None) -> list[tuple[str, Service]]:
        """Call ``mcpd_services``.

        :param only: the plugin that is asked; ``None`` asks all.
        :returns: the services with the plugin that each belongs to.
        """
        found = []
        for owner, answer in self._answers("mcpd_services", only=only):
            for service in self._read(owner, "mcpd_services", answers.services, answer) or ():
                found.append((owner, service))
        return found

    def call_observers(self) -> tuple[tuple[str, CallObserver], ...]:
        """Call ``mcpd_call_observers``, once for the plugins that are registered.

        :returns: the observers with the plugin that each belongs to.
        """
        if self._observers is None:
            found: list[tuple[str, CallObserver]] = []
            hook = "mcpd_call_observers"
            for owner, answer in self._answers(hook):
                for observer in self._read(owner, hook, answers.observers, answer) or ():
                    found.append((owner, observer))
            self._observers = tuple(found)
        return self._observers

    def before_call(self, call: Call) -> None:
        """Tell the observers that a tool is about to run."""
        for owner, observer in self.call_observers():
            try:
                observer.before(call)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:  # noqa: BLE001 - reported by _drop
                self._drop(owner, observer, "before", exc)

    def after_call(self, call: Call, outcome: Outcome) -> None:
        """Tell the observers that a tool has ended."""
        for owner, observer in self.call_observers():
            try:
                observer.after(call, outcome)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:  # noqa: BLE001 - reported by _drop
                self._drop(owner, observer, "after", exc)

    def settings(self, only: str | None = None) -> list[tuple[str, str, type[BaseModel]]]:
        """Call ``mcpd_settings``.

        :param only: the plugin that is asked; ``None`` asks all.
        :returns: plugin, section and model of each.
        """
        found: list[tuple[str, str, type[BaseModel]]] = []
        for owner, answer in self._answers("mcpd_settings", only=only):
            read = self._read(owner, "mcpd_settings", answers.settings, answer)
            if read is not None:
                found.append((owner, *read))
        return found

    def transports(self, only: str | None = None) -> list[tuple[str, Transport]]:
        """Call ``mcpd_transports``.

        :param only: the plugin that is asked; ``None`` asks all.
        :returns: the transports with the plugin that each belongs to.
        """
        hook = "mcpd_transports"
        return [
            (owner, transport)
            for owner, answer in self._answers(hook, only=only)
            for transport in self._read(owner, hook, answers.transports, answer) or ()
        ]

    def rpc_methods(self, services: ServiceFinder) -> list[tuple[str, str, RpcHandler]]:
        """Call ``mcpd_rpc_methods``.

        :param services: finds the services that the methods work with.
        :returns: plugin, name and handler of each.
        """
        hook = "mcpd_rpc_methods"
        found = []
        for owner, answer in self._answers(hook, services=services):
            methods = self._read(owner, hook, answers.rpc_methods, answer) or {}
            found += [(owner, name, handler) for name, handler in methods.items()]
        return found

    def tool_readiness(self, only: str) -> ReadinessCheck | None:
        """Call ``mcpd_tool_readiness`` of one plugin: none can speak for another.

        :returns: what tells which of its tools cannot run; ``None`` when it has nothing to say.
        """
        hook = "mcpd_tool_readiness"
        for owner, answer in self._answers(hook, only=only):
            return self._read(owner, hook, answers.readiness, answer)
        return None

    def reasons(
        self, plugin: str, ask: Callable[[], Any], names: Collection[str]
    ) -> dict[str, str]:
        """Return what a plugin's check of readiness has found; nothing when it failed.

        :param ask: returns, or raises, what the check did.
        :param names: the tools that it was asked about.
        """
        hook = "mcpd_tool_readiness"
        try:
            answer = ask()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - reported
            self._fail(plugin, hook, _raised(exc), exc)
            return {}
        return self._read(plugin, hook, partial(answers.reasons, names=names), answer) or {}

    def doctor_checks(
        self, data_dir: Path, ask: Ask | None, section: ReadSection
    ) -> list[tuple[str, Finding]]:
        """Call ``mcpd_doctor_checks``.

        :param ask: asks the daemon, if one runs.
        :param section: reads a section of the settings.
        :returns: what was found, with the plugin that found it.
        """
        hook = "mcpd_doctor_checks"
        return [
            (owner, finding)
            for owner, answer in self._answers(hook, data_dir=data_dir, ask=ask, section=section)
            for finding in self._read(owner, hook, answers.findings, answer) or ()
        ]

    def http_routes(self, services: ServiceFinder) -> list[tuple[str, HttpRoute]]:
        """Call ``mcpd_http_routes``.

        :param services: finds the services that the routes work with.
        :returns: the routes with the plugin that each belongs to.
        """
        hook = "mcpd_http_routes"
        return [
            (owner, route)
            for owner, answer in self._answers(hook, services=services)
            for route in self._read(owner, hook, answers.http_routes, answer) or ()
        ]

    # --- isolation -------------------------------------------------------------------------------

    def _answers(
        self, hook: str, *, only: str | None = None, raising: bool = False, **arguments: object
    ) -> Iterator[tuple[str, Any]]:
        """Call the implementations in pluggy's order; yield who answered what, ``None`` apart."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        for impl in reversed(caller.get_hookimpls()):
            owner = impl.plugin_name
            if owner in self.broken or (only is not None and owner != only):
                continue
            try:
                answer = impl.function(*(arguments[name] for name in impl.argnames))
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                broken = explain_import_failure(exc)
                if broken is not None:
                    self._fail(owner, hook, broken.message)
                else:
                    self._fail(owner, hook, _raised(exc), exc)
                if raising:
                    known = broken or (exc if isinstance(exc, McpdError) else None)
                    hint = getattr(known, "hint", "")
                    raise PluginLoadError(owner, self.broken[owner], hint=hint) from exc
                continue
            if answer is not None:
                yield owner, answer

    def _read(self, owner: str, hook: str, read: Callable[[Any], T], answer: Any) -> T | None:
        """Return what an answer says, or ``None`` after having marked the plugin broken."""
        try:
            return read(answer)
        except answers.Unfit as exc:
            self._fail(owner, hook, str(exc))
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - reported; an answer may be a generator
            self._fail(owner, hook, f"its answer cannot be read ({error_text(exc)})", exc)
        return None

    def _drop(self, owner: str, observer: CallObserver, method: str, exc: BaseException) -> None:
        self._observers = tuple(item for item in self.call_observers() if item[1] is not observer)
        problem = f"{method}() of an observer raised {error_text(exc)}"
        self._fail(owner, "mcpd_call_observers", problem, exc)

    def _fail(self, owner: str, hook: str, problem: str, exc: BaseException | None = None) -> None:
        reason = f"{hook} of plugin {owner!r} failed: {problem.rstrip('.')}."
        _log.error("%s", reason, exc_info=exc)
        self.broken[owner] = reason
        if self._on_broken is not None:
            self._on_broken(owner, reason)


def _raised(exc: BaseException) -> str:
    message = getattr(exc, "message", None) if isinstance(exc, McpdError) else None
    return message if isinstance(message, str) else f"it raised {error_text(exc)}"


def _upgrade_hint(requires_core: str) -> str:
    if requires_core:
        return (
            f"The plugin needs mcpd-core{requires_core}: "
            f"pip install --upgrade 'mcpd-core{requires_core}'"
        )
    return "The plugin needs a newer mcpd-core: pip install --upgrade mcpd-core"


def _one_line(exc: BaseException) -> str:
    return one_line(error_text(exc))
