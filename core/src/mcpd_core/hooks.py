"""The facade over pluggy: one typed method per hook, and nobody else touches pluggy.

Implementations are called one by one rather than through pluggy's own loop, in its order: there one
that raises would take the others' answers with it.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from . import hookspecs
from .errors import McpdError, PluginLoadError
from .faults import explain_import_failure
from .hookspecs import CallObserver, Outcome
from .services import Service
from .spec import PLACEMENTS, RUNTIMES, Call, ToolSpec

if TYPE_CHECKING:
    from pydantic import BaseModel

_log = logging.getLogger(__name__)


class _Registering(Protocol):
    @property
    def plugin(self) -> str: ...

    def add(self, function: Callable[..., Any], /) -> None: ...

    def add_module(self, module: str) -> None: ...


class Hooks:
    """The hooks of the plugins that are served.

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
                f"A hook of plugin {name!r} does not fit this mcpd-core: {_one_line(exc)}",
                hint=_upgrade_hint(requires_core),
            ) from exc
        except PluginLoadError:
            self._forget(name)
            raise
        except Exception as exc:
            self._forget(name)
            raise PluginLoadError(
                name,
                f"The hooks of plugin {name!r} cannot be read "
                f"({type(exc).__name__}: {_one_line(exc)}).",
            ) from exc
        self._observers = None
        for hook in sorted(hookspecs.NOT_CALLED_YET.intersection(names)):
            _log.warning("Plugin %r implements %s, which this version does not call.", name, hook)
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

    def tool_metadata(self, plugin: str) -> tuple[ToolSpec, ...] | None:
        """Call ``mcpd_tool_metadata``.

        :param plugin: the plugin whose tools are asked for.
        :returns: ``None`` when no implementation knows it: the manifest counts.
        """
        for owner, answer in self._answers("mcpd_tool_metadata", plugin=plugin):
            specs = self._items(owner, "mcpd_tool_metadata", answer, ToolSpec)
            if specs is not None:
                return specs
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
        for owner, answer in self._answers("mcpd_select_runtime", spec=spec, available=available):
            problem = _selection_problem(answer, available)
            if not problem:
                return replace(spec, runtime=answer.runtime, placement=answer.placement)
            self._fail(owner, "mcpd_select_runtime", f"it answered {problem}")
        return None

    def services(self) -> list[tuple[str, Service]]:
        """Call ``mcpd_services``.

        :returns: the services with the plugin that each belongs to.
        """
        found = []
        for owner, answer in self._answers("mcpd_services"):
            for service in self._items(owner, "mcpd_services", answer, Service) or ():
                found.append((owner, service))
        return found

    def call_observers(self) -> tuple[tuple[str, CallObserver], ...]:
        """Call ``mcpd_call_observers``, once for the plugins that are registered.

        :returns: the observers with the plugin that each belongs to.
        """
        if self._observers is None:
            found: list[tuple[str, CallObserver]] = []
            for owner, answer in self._answers("mcpd_call_observers"):
                for observer in self._items(owner, "mcpd_call_observers", answer, object) or ():
                    if callable(getattr(observer, "before", None)) and callable(
                        getattr(observer, "after", None)
                    ):
                        found.append((owner, observer))
                    else:
                        problem = f"{observer!r} lacks before() or after()"
                        self._fail(owner, "mcpd_call_observers", problem)
            self._observers = tuple(found)
        return self._observers

    def before_call(self, call: Call) -> None:
        """Tell the observers that a tool is about to run."""
        for owner, observer in self.call_observers():
            try:
                observer.before(call)
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - reported by _drop
                self._drop(owner, observer, "before", exc)

    def after_call(self, call: Call, outcome: Outcome) -> None:
        """Tell the observers that a tool has ended."""
        for owner, observer in self.call_observers():
            try:
                observer.after(call, outcome)
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - reported by _drop
                self._drop(owner, observer, "after", exc)

    def settings(self) -> list[tuple[str, str, type[BaseModel]]]:
        """Call ``mcpd_settings``.

        :returns: plugin, section and model of each.
        """
        found: list[tuple[str, str, type[BaseModel]]] = []
        for owner, answer in self._answers("mcpd_settings"):
            match answer:
                case (str() as section, type() as model) if hasattr(model, "model_validate"):
                    found.append((owner, section, model))
                case _:
                    problem = f"it answered {answer!r} instead of (section, pydantic model)"
                    self._fail(owner, "mcpd_settings", problem)
        return found

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
            except (Exception, SystemExit) as exc:
                broken = explain_import_failure(exc)
                if broken is not None:
                    self._fail(owner, hook, broken.message.rstrip("."))
                else:
                    self._fail(owner, hook, f"it raised {type(exc).__name__}: {exc}", exc)
                if raising:
                    known = broken or (exc if isinstance(exc, McpdError) else None)
                    hint = known.hint if known else ""
                    raise PluginLoadError(owner, self.broken[owner], hint=hint) from exc
                continue
            if answer is not None:
                yield owner, answer

    def _items(self, owner: str, hook: str, answer: Any, kind: type[Any]) -> tuple[Any, ...] | None:
        """Return an answer as a tuple, or ``None`` after having marked the plugin broken."""
        try:
            items = tuple(answer)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - an answer may be a generator
            self._fail(owner, hook, f"its answer cannot be iterated ({exc})", exc)
            return None
        for item in items:
            if not isinstance(item, kind):
                self._fail(owner, hook, f"it answered {item!r}, which is no {kind.__name__}")
                return None
        return items

    def _drop(self, owner: str, observer: CallObserver, method: str, exc: BaseException) -> None:
        self._observers = tuple(item for item in self.call_observers() if item[1] is not observer)
        problem = f"{method}() of an observer raised {type(exc).__name__}: {exc}"
        self._fail(owner, "mcpd_call_observers", problem, exc)

    def _fail(self, owner: str, hook: str, problem: str, exc: BaseException | None = None) -> None:
        reason = f"{hook} of plugin {owner!r} failed: {problem}."
        _log.error("%s", reason, exc_info=exc)
        self.broken[owner] = reason
        if self._on_broken is not None:
            self._on_broken(owner, reason)


def _selection_problem(answer: object, available: Collection[str]) -> str:
    if not isinstance(answer, ToolSpec):
        return f"{answer!r} instead of a ToolSpec"
    if answer.runtime not in RUNTIMES or answer.placement not in PLACEMENTS:
        return f"the unknown place {answer.runtime!r}, {answer.placement!r}"
    if answer.runtime not in ("any", *available):
        return f"the runtime {answer.runtime!r}, which cannot be had"
    if answer.placement not in ("loop", *available):
        return f"the placement {answer.placement!r}, which cannot be had"
    return ""


def _upgrade_hint(requires_core: str) -> str:
    if requires_core:
        return (
            f"The plugin needs mcpd-core{requires_core}: "
            f"pip install --upgrade 'mcpd-core{requires_core}'"
        )
    return "The plugin needs a newer mcpd-core: pip install --upgrade mcpd-core"


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
