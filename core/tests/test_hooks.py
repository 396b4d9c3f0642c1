"""Hooks are taken up only when they fit, and one that fails disturbs no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mcpd_core import (
    Call,
    CallResult,
    HttpRoute,
    Outcome,
    Principal,
    Service,
    ToolSpec,
    Transport,
    hookimpl,
    tool,
)
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


async def anything(*arguments: object) -> Any:
    return None


class NoServices:
    async def get(self, name: str) -> Any:
        raise AssertionError("nothing is looked up while hooks are called")


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


@pytest.mark.parametrize(
    ("hook", "answer", "complaint"),
    [
        ("mcpd_transports", ["x"], "'x', which is no Transport"),
        ("mcpd_transports", [Transport("x", "nowhere", "trio")], "not of the form"),
        ("mcpd_transports", [Transport("x", "m:f", "any")], "it can be asyncio or trio"),  # type: ignore[arg-type]
        ("mcpd_rpc_methods", {"plain": print}, "`plugin/method`"),
        ("mcpd_rpc_methods", {"mcpd/plugins/set": print}, "does not begin with mcpd/"),
        ("mcpd_rpc_methods", {"hello/x": 1}, "cannot be called"),
        ("mcpd_rpc_methods", 1, "cannot be read"),
        ("mcpd_http_routes", ["x"], "'x', which is no HttpRoute"),
        ("mcpd_http_routes", [HttpRoute("page", ("GET",), anything)], "no path such as"),
        ("mcpd_http_routes", [HttpRoute("/page", ("get",), anything)], "write ('GET', 'POST')"),
        ("mcpd_http_routes", [HttpRoute("/page", ("GET",), 1)], "1, which cannot be called"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_extension_of_the_server_breaks_its_plugin(
    hook: str, answer: object, complaint: str
) -> None:
    hooks = Hooks()
    hooks.register(plugin(**{hook: lambda: answer}), "p")
    arguments = () if hook == "mcpd_transports" else (NoServices(),)
    found: list[Any] = getattr(hooks, hook.removeprefix("mcpd_"))(*arguments)
    assert found == []
    assert complaint in hooks.broken["p"]


def test_extensions_of_the_server_come_with_their_plugins() -> None:
    hooks = Hooks()
    transport = Transport("pipe", "m:f", "trio")
    route = HttpRoute("/page/one", ("GET", "POST"), anything)
    hooks.register(
        plugin(
            mcpd_transports=lambda: [transport],
            mcpd_rpc_methods=lambda services: {"p/ask": services.get},
            mcpd_http_routes=lambda: [route],
        ),
        "p",
    )
    assert hooks.transports() == [("p", transport)]
    assert hooks.transports(only="q") == []
    services: Any = NoServices()
    assert hooks.rpc_methods(services) == [("p", "p/ask", services.get)]
    assert hooks.http_routes(services) == [("p", route)]
    assert hooks.broken == {}


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


class LooksLikeAModel:
    @staticmethod
    def model_validate(value: object) -> None:
        raise KeyError("boom")


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        (Service(["x"], "m:f", "asyncio"), "a service is named ['x'], which is no name"),  # type: ignore[arg-type]
        (Service("", "m:f", "asyncio"), "a service is named '', which is no name"),
        (Service("x\x1b", "m:f", "asyncio"), "which is no name"),
        (Service("x", 3, "asyncio"), "the factory of the service 'x' is 3, which is not of the"),  # type: ignore[arg-type]
        (Service("x", "module", "asyncio"), "is 'module', which is not of the form `module:func"),
        (Service("x", "m:f", "any"), "the service 'x' wants the runtime 'any'; it can be"),  # type: ignore[arg-type]
        (Service("x", "m:f", ["trio"]), "the service 'x' wants the runtime ['trio']; it can be"),  # type: ignore[arg-type]
        (Service("x", "m:f", "trio", "never"), "the service 'x' is to start at 'never'; it can be"),  # type: ignore[arg-type]
        ("x", "it answered 'x', which is no Service"),
    ],
)
def test_a_service_that_nobody_could_start_breaks_its_plugin(service: object, problem: str) -> None:
    fine = Service("fine", "m:f", "asyncio")
    hooks = registered(
        a=plugin(mcpd_services=lambda: [fine, service]), b=plugin(mcpd_services=lambda: [fine])
    )
    assert hooks.services() == [("b", fine)]
    assert problem in hooks.broken["a"]


def test_settings_come_with_their_section() -> None:
    class Section(BaseModel):
        workers: int = 4

    hooks = registered(
        a=plugin(mcpd_settings=lambda: ("queue", Section)),
        b=plugin(mcpd_settings=lambda: ("queue", dict)),
        c=plugin(mcpd_settings=lambda: Section),
        d=plugin(mcpd_settings=lambda: ("queue", LooksLikeAModel)),
    )
    assert hooks.settings() == [("a", "queue", Section)]
    assert sorted(hooks.broken) == ["b", "c", "d"]
    assert "instead of (section, pydantic model)" in hooks.broken["b"]


def test_tool_metadata_is_asked_of_the_plugin_that_it_is_about_and_of_no_other() -> None:
    hooks = registered(
        p=plugin(mcpd_tool_metadata=lambda plugin: [SPEC] if plugin == "p" else None),
        q=plugin(mcpd_tool_metadata=lambda: None),
        c=plugin(mcpd_tool_metadata=lambda: ["not a spec"]),
    )
    assert hooks.tool_metadata("p") == (SPEC,)
    assert hooks.tool_metadata("q") is None
    assert hooks.broken == {}
    assert hooks.tool_metadata("c") is None
    assert "answered 'not a spec', which is no ToolSpec" in hooks.broken["c"]


def test_tool_metadata_belongs_to_the_plugin_that_answers_whatever_it_says() -> None:
    shy = replace(SPEC, plugin="somebody else", title="In\u202edisguise\x1b[2J")
    hooks = registered(p=plugin(mcpd_tool_metadata=lambda: iter([shy])))
    (spec,) = hooks.tool_metadata("p") or ()
    assert (spec.plugin, spec.title) == ("p", "Indisguise[2J")


@pytest.mark.parametrize(
    ("specs", "problem"),
    [
        ([SPEC, replace(SPEC, description="2")], "the name 'greet' is taken by tools[0] already"),
        ([replace(SPEC, name="a.b c")], '"a.b c" is not a tool name'),
        ([replace(SPEC, name=3)], "3 is not a tool name"),  # type: ignore[arg-type]
        ([replace(SPEC, input_schema=object())], "object is no JSON type"),  # type: ignore[arg-type]
        ([replace(SPEC, input_schema={"type": "object", "x": {1}})], "set is no JSON type"),
        ([replace(SPEC, input_schema={"type": "object", "required": "x"})], "an array of strings"),
        ([replace(SPEC, aliases="abc")], 'aliases: must be an array, not "abc"'),  # type: ignore[arg-type]
        ([replace(SPEC, annotations=3)], "annotations: must be an object, not 3"),  # type: ignore[arg-type]
        (
            [replace(SPEC, timeout=float("inf"))],
            "it cannot be JSON (ValueError: Out of range float",
        ),
        ([replace(SPEC, runtime="trio")], "'trio' cannot be served by a plugin of 'asyncio'"),
    ],
)
def test_tool_metadata_is_checked_like_a_manifest(specs: list[ToolSpec], problem: str) -> None:
    hooks = registered(p=plugin(mcpd_tool_metadata=lambda: specs))
    assert hooks.tool_metadata("p", "asyncio") is None
    assert problem in hooks.broken["p"]


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


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")

    __repr__ = __str__


class Cancelled(BaseException):
    """What event loops raise to cancel a task is no `Exception`."""


def raiser(exc: type[BaseException]) -> Callable[..., Any]:
    def implementation() -> Any:
        raise exc

    return implementation


class Evasive:
    """An object that raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise Cancelled

    def __iter__(self) -> Any:
        raise Cancelled

    def __repr__(self) -> str:
        raise Cancelled


@pytest.mark.parametrize("hook", ["mcpd_services", "mcpd_settings", "mcpd_call_observers"])
@pytest.mark.parametrize(
    ("implementation", "problem"),
    [
        (raiser(Unspeakable), "failed: it raised Unspeakable, whose str() fails."),
        (raiser(Cancelled), "failed: it raised Cancelled."),
        (raiser(GeneratorExit), "failed: it raised GeneratorExit."),
        (lambda: [Evasive()], " failed: it"),
        (lambda: Evasive(), " failed: it"),
        (lambda: ("section", Evasive()), " failed: "),
    ],
)
def test_nothing_that_a_plugin_raises_gets_out(
    hook: str, implementation: Callable[..., Any], problem: str
) -> None:
    hooks = registered(p=plugin(**{hook: implementation}))
    assert list(getattr(hooks, hook.removeprefix("mcpd_"))()) == []
    assert problem in hooks.broken["p"]


def test_an_answer_about_a_runtime_that_cannot_be_read_breaks_its_plugin_only() -> None:
    hooks = registered(p=plugin(mcpd_select_runtime=lambda: Evasive()))
    assert hooks.select_runtime(SPEC, ("asyncio",)) is None
    assert set(hooks.broken) == {"p"}


def test_an_interrupt_of_the_user_is_not_kept_from_the_program() -> None:
    hooks = registered(p=plugin(mcpd_services=raiser(KeyboardInterrupt)))
    with pytest.raises(KeyboardInterrupt):
        hooks.services()
    interrupted = SimpleNamespace(before=raiser(KeyboardInterrupt), after=lambda *args: None)
    observing = registered(p=plugin(mcpd_call_observers=lambda: [interrupted]))
    assert len(observing.call_observers()) == 1


def test_a_plugin_object_that_raises_when_it_is_looked_at_is_refused() -> None:
    class Module:
        @property
        def mcpd_services(self) -> object:
            raise Unspeakable

        def __dir__(self) -> list[str]:
            raise Cancelled

    with pytest.raises(PluginLoadError, match="The hooks of plugin 'p' cannot be read"):
        Hooks().register(Module(), "p")


def test_an_error_of_ours_speaks_for_itself() -> None:
    def refuses() -> Any:
        raise PluginLoadError("p", "The moon is down.", hint="Wait.")

    hooks = registered(p=plugin(mcpd_services=refuses))
    assert hooks.services() == []
    assert hooks.broken["p"] == "mcpd_services of plugin 'p' failed: The moon is down."


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


@pytest.mark.parametrize("method", ["before", "after"])
def test_an_observer_cannot_cancel_calls(method: str) -> None:
    def cancels(*arguments: object) -> None:
        raise Cancelled

    bad = SimpleNamespace(**{"before": nothing_at_all, "after": nothing_at_all, method: cancels})
    hooks = registered(bad=plugin(mcpd_call_observers=lambda: [bad]))
    hooks.before_call(CALL)
    hooks.after_call(CALL, OUTCOME)
    assert f"{method}() of an observer raised Cancelled" in hooks.broken["bad"]


def nothing_at_all(*arguments: object) -> None: ...


def test_an_observer_is_not_asynchronous() -> None:
    class Late:
        async def before(self, call: Call) -> None: ...

        async def after(self, call: Call, outcome: Outcome) -> None: ...

    hooks = registered(p=plugin(mcpd_call_observers=lambda: [Late()]))
    assert hooks.call_observers() == ()
    assert "is an `async def`, which nobody awaits" in hooks.broken["p"]


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
    with pytest.raises(PluginLoadError, match="Name a function with the @tool mark"):
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


def test_the_registrar_refuses_what_its_name_does_not_lead_to() -> None:
    registrar = ToolRegistrar("p", "any")

    @tool
    async def impostor() -> None:
        """Claim the name of another function."""

    for name in ("greet", "nobody", "Teller.tell"):
        impostor.__qualname__ = name
        with pytest.raises(PluginLoadError, match=f"{name} cannot be imported by its name"):
            registrar.add(impostor)
    impostor.__module__ = "no_such_module_at_all"
    with pytest.raises(PluginLoadError, match="cannot be imported by its name"):
        registrar.add(impostor)
    with pytest.raises(PluginLoadError):
        registrar.add(Teller().tell)  # its object would be lost
    assert registrar.specs == ()


class Teller:
    @tool
    async def tell(self) -> None:
        """Say what is in the object."""


def test_the_registrar_refuses_a_contract_that_no_manifest_could_hold() -> None:
    with pytest.raises(PluginLoadError) as caught:
        ToolRegistrar("p", "any").add(endless)
    assert ":endless cannot be a tool: " in caught.value.message
    assert "seconds are more than a year" in caught.value.message


@tool(timeout=1e9)
async def endless() -> None:
    """Wait."""


def test_a_module_is_registered_whole() -> None:
    registrar = ToolRegistrar("p", "any")
    with pytest.raises(PluginLoadError, match="mcpd_core.errors defines no tool"):
        registrar.add_module("mcpd_core.errors")
    with pytest.raises(ModuleNotFoundError):
        registrar.add_module("no_such_module_at_all")
