"""Hooks are taken up only when they fit, and one that fails disturbs no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcpd_core import Call, CallResult, Outcome, Principal, Service, ToolSpec, hookimpl, tool
from mcpd_core.errors import PluginLoadError
from mcpd_core.hooks import Hooks
from mcpd_core.registrar import ToolRegistrar

if TYPE_CHECKING:
    from core.tests.conftest import Environment

SPEC = ToolSpec("greet", "", {"type": "object"}, "m:greet", "p")
CALL = Call("1", SPEC, {}, Principal("local", "1"), "client")
OUTCOME = Outcome(CallResult("done"), None, 0.1)


def plugin(**implementations: Callable[..., Any]) -> SimpleNamespace:
    """Return an object with hook implementations, each given its hook's name."""
    for name, function in implementations.items():
        function.__name__ = name
        hookimpl(function)
    return SimpleNamespace(**implementations)


def registered(**plugins: SimpleNamespace) -> Hooks:
    hooks = Hooks()
    for name, item in plugins.items():
        hooks.register(item, name)
    return hooks


def nothing() -> list[Any]:
    return []


def fails(*arguments: object) -> Any:
    raise RuntimeError("no luck")


# --- registration ---------------------------------------------------------------------------------


def test_the_hooks_of_a_plugin_are_named() -> None:
    item = plugin(mcpd_services=nothing, mcpd_call_observers=nothing)
    assert Hooks().register(item, "p") == ("mcpd_call_observers", "mcpd_services")


def test_an_argument_that_is_not_known_needs_a_newer_core() -> None:
    hooks = Hooks()
    item = plugin(mcpd_select_runtime=lambda spec, mood: None, mcpd_services=fails)
    with pytest.raises(PluginLoadError) as caught:
        hooks.register(item, "p", requires_core=">=3")
    assert caught.value.plugin == "p"
    assert "A hook of plugin 'p' does not fit this mcpd-core: " in caught.value.message
    assert "mood" in caught.value.message
    assert caught.value.hint == (
        "The plugin needs mcpd-core>=3: pip install --upgrade 'mcpd-core>=3'"
    )
    assert hooks.services() == []  # nothing of it was taken up
    with pytest.raises(PluginLoadError, match="needs a newer mcpd-core: pip install"):
        hooks.register(item, "p")


def test_a_misspelt_hook_is_reported() -> None:
    hooks = Hooks()
    with pytest.raises(PluginLoadError) as caught:
        hooks.register(plugin(mcpd_servces=fails, mcpd_services=fails), "p")
    assert caught.value.message == (
        "Plugin 'p' implements mcpd_servces, which is no hook of this mcpd-core."
    )
    assert caught.value.hint == "Did you mean mcpd_services?"
    assert hooks.services() == []
    with pytest.raises(PluginLoadError, match="needs a newer mcpd-core"):
        hooks.register(plugin(xyz=fails), "p")


def test_a_hook_of_a_newer_core_can_be_optional() -> None:
    def mcpd_of_tomorrow() -> None: ...

    hookimpl(mcpd_of_tomorrow, optionalhook=True)
    item = SimpleNamespace(mcpd_of_tomorrow=mcpd_of_tomorrow)
    assert Hooks().register(item, "p") == ()


def test_wrappers_and_coroutines_are_refused() -> None:
    @hookimpl(wrapper=True)
    def mcpd_services() -> Any:
        return (yield)

    with pytest.raises(PluginLoadError, match="mcpd_services of plugin 'p' is a wrapper"):
        Hooks().register(SimpleNamespace(mcpd_services=mcpd_services), "p")

    async def late() -> list[Service]:
        return []

    with pytest.raises(PluginLoadError, match="is an `async def`, but hooks are synchronous"):
        Hooks().register(plugin(mcpd_services=late), "p")


def test_two_names_for_one_plugin_object_are_refused() -> None:
    item = plugin(mcpd_services=nothing)
    hooks = registered(a=item)
    with pytest.raises(PluginLoadError, match="The hooks of plugin 'b' cannot be read .ValueError"):
        hooks.register(item, "b")
    with pytest.raises(PluginLoadError, match="The hooks of plugin 'a' are taken up already"):
        hooks.register(plugin(mcpd_services=fails), "a")
    assert hooks.services() == []
    assert hooks.broken == {}  # the first one is still there, undisturbed


def test_hooks_that_are_not_called_yet_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert Hooks().register(plugin(mcpd_http_routes=fails), "p") == ("mcpd_http_routes",)
    assert "'p' implements mcpd_http_routes, which this version does not call" in caplog.text


def test_an_unregistered_plugin_is_not_asked() -> None:
    observer = Observer()
    hooks = registered(p=plugin(mcpd_call_observers=lambda: [observer]))
    assert hooks.call_observers() == (("p", observer),)
    hooks.unregister("p")
    hooks.unregister("nobody")
    assert hooks.call_observers() == ()


# --- answers --------------------------------------------------------------------------------------


def test_services_come_with_their_plugin() -> None:
    one, two = Service("one", "m:one", "asyncio"), Service("two", "m:two", "trio")
    hooks = registered(
        a=plugin(mcpd_services=lambda: [one]), b=plugin(mcpd_services=lambda: iter([two]))
    )
    assert sorted(hooks.services(), key=lambda item: item[0]) == [("a", one), ("b", two)]


def test_settings_come_with_their_section() -> None:
    class Section(BaseModel):
        workers: int = 4

    hooks = registered(
        a=plugin(mcpd_settings=lambda: ("queue", Section)),
        b=plugin(mcpd_settings=lambda: ("queue", dict)),
        c=plugin(mcpd_settings=lambda: Section),
    )
    assert hooks.settings() == [("a", "queue", Section)]
    assert sorted(hooks.broken) == ["b", "c"]
    assert "instead of (section, pydantic model)" in hooks.broken["b"]


def test_tool_metadata_is_answered_by_the_first_who_knows() -> None:
    hooks = registered(
        a=plugin(mcpd_tool_metadata=lambda plugin: [SPEC] if plugin == "p" else None),
        b=plugin(mcpd_tool_metadata=lambda: None),
        c=plugin(mcpd_tool_metadata=lambda: ["not a spec"]),
    )
    assert hooks.tool_metadata("p") == (SPEC,)
    assert hooks.tool_metadata("q") is None
    assert "answered 'not a spec', which is no ToolSpec" in hooks.broken["c"]


def test_a_runtime_can_be_selected() -> None:
    def select(spec: ToolSpec, available: Iterable[str]) -> ToolSpec | None:
        return replace(spec, runtime="trio", name="ignored") if "trio" in available else None

    hooks = registered(a=plugin(mcpd_select_runtime=select))
    assert hooks.select_runtime(SPEC, ("asyncio", "trio")) == replace(SPEC, runtime="trio")
    assert hooks.select_runtime(SPEC, ("asyncio",)) is None
    moved = registered(a=plugin(mcpd_select_runtime=lambda spec: replace(spec, placement="thread")))
    assert moved.select_runtime(SPEC, ("asyncio", "thread")) == replace(SPEC, placement="thread")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("trio", "'trio' instead of a ToolSpec"),
        (replace(SPEC, runtime="trio"), "the runtime 'trio', which cannot be had"),
        (replace(SPEC, placement="process"), "the placement 'process', which cannot be had"),
        (replace(SPEC, runtime="curio"), "the unknown place 'curio', 'loop'"),  # type: ignore[arg-type]
    ],
)
def test_a_runtime_that_cannot_be_had_is_not_selected(answer: object, problem: str) -> None:
    hooks = registered(a=plugin(mcpd_select_runtime=lambda: answer))
    assert hooks.select_runtime(SPEC, ("asyncio",)) is None
    assert f"it answered {problem}" in hooks.broken["a"]


# --- isolation ------------------------------------------------------------------------------------


def test_a_hook_that_raises_is_logged_and_disturbs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = []
    hooks = Hooks(lambda name, reason: told.append(name))
    service = Service("fine", "m:f", "asyncio")
    for name, function in {
        "first": lambda: [service],
        "raises": fails,
        "exits": lambda: exit(3),
        "wrong": lambda: 5,
        "generator": lambda: (fails() for _ in "x"),
        "last": lambda: [replace(service, name="too")],
    }.items():
        hooks.register(plugin(mcpd_services=function), name)
    with caplog.at_level(logging.ERROR):
        assert [(owner, item.name) for owner, item in hooks.services()] == [
            ("last", "too"),
            ("first", "fine"),
        ]
    assert set(hooks.broken) == set(told) == {"raises", "exits", "wrong", "generator"}
    assert hooks.broken["raises"] == (
        "mcpd_services of plugin 'raises' failed: it raised RuntimeError: no luck."
    )
    assert "SystemExit: 3" in hooks.broken["exits"]
    assert "no luck" in caplog.text


def test_a_broken_plugin_is_not_asked_again() -> None:
    observer = Observer()
    hooks = registered(p=plugin(mcpd_services=fails, mcpd_call_observers=lambda: [observer]))
    assert hooks.services() == []
    assert hooks.call_observers() == ()


class Observer:
    def __init__(self, before: bool = True, after: bool = True) -> None:
        self.fine = {"before": before, "after": after}
        self.seen: list[object] = []

    def before(self, call: Call) -> None:
        self._note("before", call)

    def after(self, call: Call, outcome: Outcome) -> None:
        self._note("after", (call, outcome))

    def _note(self, method: str, what: object) -> None:
        self.seen.append(what)
        if not self.fine[method]:
            raise RuntimeError(f"{method} fails")


def test_observers_see_every_call() -> None:
    one, two = Observer(), Observer()
    hooks = registered(
        a=plugin(mcpd_call_observers=lambda: [one]), b=plugin(mcpd_call_observers=lambda: [two])
    )
    hooks.before_call(CALL)
    hooks.after_call(CALL, OUTCOME)
    assert one.seen == two.seen == [CALL, (CALL, OUTCOME)]


@pytest.mark.parametrize("method", ["before", "after"])
def test_an_observer_that_raises_is_dropped(method: str) -> None:
    bad = Observer(before=method != "before", after=method != "after")
    good = Observer()
    hooks = registered(
        bad=plugin(mcpd_call_observers=lambda: [bad]),
        good=plugin(mcpd_call_observers=lambda: [good]),
    )
    for _ in range(2):
        hooks.before_call(CALL)
        hooks.after_call(CALL, OUTCOME)
    assert len(good.seen) == 4
    assert len(bad.seen) == (1 if method == "before" else 2)
    assert f"{method}() of an observer raised RuntimeError" in hooks.broken["bad"]


def test_what_is_no_observer_is_not_one() -> None:
    hooks = registered(p=plugin(mcpd_call_observers=lambda: [object()]))
    assert hooks.call_observers() == ()
    assert "lacks before() or after()" in hooks.broken["p"]


# --- registering tools ----------------------------------------------------------------------------


@tool
async def greet(name: str) -> str:
    """Say hello."""
    return name


@tool(runtime="trio", aliases=["swim"])
async def dive() -> None:
    """Go under."""


def test_only_the_plugin_that_the_registrar_belongs_to_is_asked() -> None:
    hooks = registered(
        a=plugin(mcpd_register_tools=lambda registrar: registrar.add(greet)),
        b=plugin(mcpd_register_tools=fails),
    )
    registrar = ToolRegistrar("a", "any")
    hooks.register_tools(registrar)
    assert [(spec.name, spec.plugin, spec.runtime) for spec in registrar.specs] == [
        ("greet", "a", "any")
    ]
    assert hooks.broken == {}


def test_a_plugin_that_cannot_register_its_tools_is_broken() -> None:
    hooks = registered(
        b=plugin(mcpd_register_tools=fails),
        c=plugin(mcpd_register_tools=lambda registrar: registrar.add(print)),
    )
    with pytest.raises(PluginLoadError, match="it raised RuntimeError: no luck"):
        hooks.register_tools(ToolRegistrar("b", "asyncio"))
    with pytest.raises(PluginLoadError, match="Mark the function with @tool"):
        hooks.register_tools(ToolRegistrar("c", "asyncio"))
    assert set(hooks.broken) == {"b", "c"}


def test_damaged_metadata_explains_a_hook_that_fails(
    importable: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    importable.distribution("culprit", "[a]\nno equals\n")
    importable.write(
        "walks_too.py", "from importlib.metadata import entry_points\nentry_points(group='x')\n"
    )
    hooks = registered(
        a=plugin(mcpd_register_tools=lambda registrar: registrar.add_module("walks_too"))
    )
    with pytest.raises(PluginLoadError) as caught:
        hooks.register_tools(ToolRegistrar("a", "asyncio"))
    assert "the installed distribution culprit is damaged" in caught.value.message
    assert caught.value.hint == "Reinstall it: pip install --force-reinstall culprit"
    assert "Traceback" not in caplog.text


def test_the_registrar_refuses_what_could_not_be_served() -> None:
    registrar = ToolRegistrar("p", "asyncio")

    @tool
    async def hidden() -> None:
        """Nobody can import this."""

    with pytest.raises(PluginLoadError, match="hidden cannot be imported by its name"):
        registrar.add(hidden)
    with pytest.raises(PluginLoadError, match="is a tool for trio, but the plugin 'p' is in the"):
        registrar.add(dive)
    assert registrar.specs == ()


def test_the_registrar_refuses_a_name_that_is_taken() -> None:
    registrar = ToolRegistrar("p", "any")
    registrar.add(dive)
    registrar.add(dive)  # twice the same is once
    other = tool(name="swim")(_another)
    with pytest.raises(PluginLoadError, match="dive and .*_another are both called 'swim'"):
        registrar.add(other)
    assert [spec.name for spec in registrar.specs] == ["dive"]


def _another() -> None:
    """Be another."""


def test_a_module_is_registered_whole() -> None:
    registrar = ToolRegistrar("p", "any")
    with pytest.raises(PluginLoadError, match="mcpd_core.errors defines no tool"):
        registrar.add_module("mcpd_core.errors")
    with pytest.raises(ModuleNotFoundError):
        registrar.add_module("no_such_module_at_all")
