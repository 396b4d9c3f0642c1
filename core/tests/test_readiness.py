"""Which tools can run here, as plugins say and as `list_categories` tells."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from mcpd_core.answers import Unfit, readiness, reasons
from mcpd_core.hooks import Hooks
from mcpd_core.host.readiness import Readiness
from mcpd_core.spec import ToolSpec
from mcpd_core.testing.hosts import MakeHost
from mcpd_core.testing.planting import WritePlugin

from .test_hooks import plugin

TOOLS = """
    from __future__ import annotations
    from mcpd_core import Context, tool

    @tool(category="sea")
    def read_tides() -> str:
        return ""

    @tool(category="sea")
    def read_depths() -> str:
        return ""

    @tool(category="land")
    def read_heights() -> str:
        return ""

    @tool
    async def ask(names: list[str], ctx: Context) -> dict[str, str]:
        return await ctx.readiness(names)

    @tool(placement="process")
    def ask_apart(ctx: Context) -> dict[str, str]:
        return ctx._scope.readiness([]).send(None)
"""
PLUGIN = """
    from mcpd_core import Registrar, hookimpl

    @hookimpl
    def mcpd_register_tools(registrar: Registrar) -> None:
        registrar.add_module("{package}.tools")

    @hookimpl
    def mcpd_tool_readiness():
        def check(tools):
            sea = [spec.name for spec in tools if spec.category == "sea"]
            return dict.fromkeys(sea, "It lacks a tide table. pip install tides")
        return check
"""


def spec(name: str, owner: str = "p") -> ToolSpec:
    return ToolSpec(name=name, description="", input_schema={}, entry="m:f", plugin=owner)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- one plugin ----------------------------------------------------------------------------------


def hooks_with(check: Any, name: str = "p") -> Hooks:
    hooks = Hooks()
    hooks.register(plugin(mcpd_tool_readiness=lambda: check), name)
    return hooks


@pytest.mark.anyio
async def test_a_plugin_is_asked_in_a_thread_about_its_own_tools_and_once_a_minute() -> None:
    asked: list[tuple[list[str], bool]] = []

    def check(tools: list[ToolSpec]) -> dict[str, str]:
        asked.append(([tool.name for tool in tools], threading.current_thread() is ours))
        return {"a": " It lacks x. ", "other": "It lacks y."}

    ours = threading.current_thread()
    found = Readiness(hooks_with(check))
    tools = [spec("a"), spec("b"), spec("other", "q")]
    together = await asyncio.gather(found.of(tools), found.of(tools[:1]))
    assert list(together) == [{"a": "It lacks x."}, {"a": "It lacks x."}]
    assert await found.of([spec("b")]) == {}
    assert asked == [(["a", "b"], False)]
    await found.of([spec("c")])
    assert len(asked) == 2


@pytest.mark.anyio
async def test_what_it_said_is_not_believed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{"a": "It lacks x."}, {}])
    found = Readiness(hooks_with(lambda tools: next(answers)))
    monkeypatch.setattr("mcpd_core.host.readiness._KEPT", 0.0)
    assert await found.of([spec("a")]) == {"a": "It lacks x."}
    assert await found.of([spec("a")]) == {}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("check", "complaint"),
    [
        (lambda tools: 1 / 0, "it raised ZeroDivisionError"),
        (lambda tools: {"a": 7}, "it says 7 of the tool 'a', which is no reason"),
        (lambda tools: 7, "its answer cannot be read"),
    ],
)
async def test_one_that_fails_is_broken_and_its_tools_count_as_ready(
    check: Any, complaint: str
) -> None:
    hooks = hooks_with(check)
    found = Readiness(hooks)
    assert await found.of([spec("a")]) == {}
    assert complaint in hooks.broken["p"]
    assert await found.of([spec("b")]) == {}


@pytest.mark.anyio
async def test_one_that_takes_long_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()

    def check(tools: list[ToolSpec]) -> dict[str, str]:
        free.wait()
        return {"a": "It lacks x."}

    monkeypatch.setattr("mcpd_core.host.readiness._PATIENCE", 0.01)
    found = Readiness(hooks_with(check))
    assert await found.of([spec("a")]) == {}
    free.set()
    monkeypatch.setattr("mcpd_core.host.readiness._PATIENCE", 60.0)
    assert await found.of([spec("a")]) == {"a": "It lacks x."}
    free.clear()
    closing = Readiness(hooks_with(check))
    monkeypatch.setattr("mcpd_core.host.readiness._PATIENCE", 0.01)
    await closing.of([spec("a")])
    await closing.aclose()
    free.set()


def test_what_is_no_check_is_refused() -> None:
    async def check(tools: Any) -> dict[str, str]:
        return {}

    for answer in (check, {"a": "x"}):
        with pytest.raises(Unfit, match="no function"):
            readiness(answer)
    assert reasons({"a": "x", "z": "y"}, ["a"]) == {"a": "x"}
    hooks = hooks_with(7)
    assert hooks.tool_readiness("p") is None
    assert "no function" in hooks.broken["p"]
    assert Hooks().tool_readiness("p") is None


# --- list_categories -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_each_category_tells_how_many_tools_are_ready_and_what_the_others_lack(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    charts = tmp_plugin(TOOLS, plugin=PLUGIN)
    async with mcpd_host("mcpd_catalog.plugin", charts) as host:
        result = await host.call("list_categories", {})
        assert result.structured is not None
        land, sea = (
            next(each for each in result.structured["categories"] if each["name"] == name)
            for name in ("land", "sea")
        )
        assert land == {"name": "land", "tools": 1, "ready": 1, "lacks": []}
        assert sea == {
            "name": "sea",
            "tools": 2,
            "ready": 0,
            "lacks": [
                {
                    "reason": "It lacks a tide table. pip install tides",
                    "count": 2,
                    "tools": ["read_depths", "read_tides"],
                }
            ],
        }
        assert result.structured["tools"] - result.structured["ready"] == 2
        quick = await host.call("list_categories", {"readiness": False})
        assert quick.structured is not None
        assert "ready" not in quick.structured
        assert {"name": "sea", "tools": 2} in quick.structured["categories"]


@pytest.mark.anyio
async def test_a_tool_asks_about_others_by_name(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    async with mcpd_host(tmp_plugin(TOOLS, plugin=PLUGIN)) as host:
        names = ["read_tides", "read_heights", "no_such_tool"]
        result = await host.call("ask", {"names": names})
        assert result.structured == {"read_tides": "It lacks a tide table. pip install tides"}
        apart = await host.call("ask_apart", {})
        assert "runs in a process of its own and cannot ask about other tools" in apart.text
