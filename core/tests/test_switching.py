"""Plugins are enabled and disabled while they are served, and the choice outlives the server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import (
    HostClosed,
    Principal,
    SelectionError,
    ServiceUnavailable,
    SettingsError,
    UnknownTool,
)
from mcpd_core.choices import FILENAME, find, read_choices, remember
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.schema import describe, tools_of
from mcpd_core.selection import select
from mcpd_core.settings import load_settings
from mcpd_core.spec import CallResult

ME = Principal("local", str(os.getuid()))

#: A plugin with everything that has to be put away: a service that starts with the server, an
#: observer, settings, a tool that runs for as long as it is let.
FULL = """
    from __future__ import annotations
    from contextlib import asynccontextmanager
    import anyio
    from pydantic import BaseModel
    from mcpd_core import Context, Health, Service, hookimpl, tool

    log = []

    @tool
    async def work(until: str, ctx: Context) -> str:
        log.append("working")
        while until not in log:
            await anyio.sleep(0.001)
        return (await ctx.call("help")).text

    @tool
    async def help() -> str:
        return "helped"

    class Box:
        def health(self):
            return Health(True)
        def look(self):
            return "in the box"

    @tool
    async def look(ctx: Context) -> str:
        return (await ctx.service("box")).look()

    @asynccontextmanager
    async def open_box(host):
        log.append(f"opened {host.settings.size}")
        yield Box()
        log.append("closed")

    class Observer:
        def before(self, call): log.append(f"saw {call.spec.name}")
        def after(self, call, outcome): pass

    class Settings(BaseModel):
        size: int = 3

    @hookimpl
    def mcpd_services():
        return [Service("box", __name__ + ":open_box", runtime="asyncio", start="serve")]

    @hookimpl
    def mcpd_call_observers():
        return [Observer()]

    @hookimpl
    def mcpd_settings():
        return "full", Settings
"""
HOOKS = ("mcpd_call_observers", "mcpd_services", "mcpd_settings")

OTHER = """
    from mcpd_core import Context, tool

    @tool
    async def other() -> str:
        return "other"

    @tool
    async def other_look(ctx: Context) -> str:
        return (await ctx.service("box")).look()
"""

Make = Callable[..., PluginRow]
Start = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a plugin of one module and return its row, as discovery would have found it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, source: str, **facts: Any) -> PluginRow:
        import importlib

        module = f"{name}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        loaded = importlib.import_module(module)
        row = PluginRow(
            name=name,
            distribution=f"mcpd-{name}",
            version="1.0",
            runtime="asyncio",
            state="enabled",
            entry=module,
            tools=tuple(describe(f, plugin=name, runtime="asyncio") for f in tools_of(loaded)),
        )
        return replace(row, **facts)

    return make


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(
        *rows: PluginRow, data_dir: Path | None = tmp_path, **sections: dict[str, Any]
    ) -> AsyncIterator[Host]:
        settings = load_settings(config=None, env={}, overrides=sections)
        async with Host(Inventory(rows), settings, data_dir=data_dir) as host:
            await host.start_services()
            yield host

    return started


async def call(host: Host, tool: str, arguments: Any = None) -> CallResult:
    return await host.call(tool, arguments or {}, principal=ME, client="test")


def log_of(row: PluginRow) -> list[str]:
    log: list[str] = sys.modules[row.entry].log
    return log


async def logged(row: PluginRow, event: str) -> None:
    while event not in log_of(row):
        await asyncio.sleep(0.001)


# --- disabling ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_tools_of_a_disabled_plugin_are_gone_at_once(plugin: Make, start: Start) -> None:
    async with start(plugin("full", FULL, hooks=HOOKS), plugin("other", OTHER)) as host:
        told: list[int] = []
        host.on_change(lambda: told.append(len(host.catalog)))
        done = await host.set_enabled("full", False)
        assert (done.name, done.enabled, done.changed, done.running) == ("full", False, True, 0)
        assert told == [2]
        assert [spec.name for spec in host.tools_for(ME)] == ["other", "other_look"]
        with pytest.raises(UnknownTool, match="its plugin 'full' is disabled") as refused:
            await call(host, "help")
        assert refused.value.hint == "Enable it: mcpd plugins enable full"
        assert refused.value.data == {"plugin": "full", "state": "disabled"}
        row = find(host.inventory.rows, "full")
        assert (row.state, row.reason) == (
            "disabled",
            "It was disabled by hand; `mcpd plugins enable full` enables it.",
        )
        again = await host.set_enabled("full", False)
        assert again.changed is False


@pytest.mark.anyio
async def test_calls_in_flight_finish_and_the_services_stop_after_them(
    plugin: Make, start: Start
) -> None:
    full = plugin("full", FULL, hooks=HOOKS)
    async with start(full, plugin("other", OTHER)) as host:
        log = log_of(full)
        running = asyncio.ensure_future(call(host, "work", {"until": "free"}))
        await logged(full, "working")
        assert (await host.set_enabled("full", False)).running == 1
        assert (await call(host, "other_look")).text == "in the box"
        log.append("free")
        # It calls a tool of its own plugin, which nobody else can call any more.
        assert (await running).text == "helped"
        await logged(full, "closed")
        refused = await call(host, "other_look")
        assert refused.error is not None
        assert refused.error["code"] == ServiceUnavailable.code
        assert host.health() == {}
        seen = list(log)
        await call(host, "other")
        assert log == seen, "the observer was told of a call"


@pytest.mark.anyio
async def test_a_disabled_plugin_comes_back_with_all_it_has(plugin: Make, start: Start) -> None:
    full = plugin("full", FULL, hooks=HOOKS)
    async with start(full, full={"size": 7}) as host:
        log = log_of(full)
        await host.set_enabled("full", False)
        await logged(full, "closed")
        done = await host.set_enabled("full", True)
        assert (done.enabled, done.changed) == (True, True)
        assert log == ["opened 7", "closed", "opened 7"]
        assert (await call(host, "look")).text == "in the box"
        assert log[-1] == "saw look"


@pytest.mark.anyio
async def test_a_plugin_that_is_wanted_back_before_its_calls_have_ended_loses_nothing(
    plugin: Make, start: Start
) -> None:
    full = plugin("full", FULL, hooks=HOOKS)
    async with start(full) as host:
        running = asyncio.ensure_future(call(host, "work", {"until": "free"}))
        await logged(full, "working")
        await host.set_enabled("full", False)
        await host.set_enabled("full", True)
        log_of(full).append("free")
        assert (await running).text == "helped"
        await host.set_enabled("full", False)
        await host.set_enabled("full", True)
        assert (await call(host, "look")).text == "in the box"
        # Whether the second time came too late to keep it or not, it is open once.
        assert log_of(full).count("opened 3") == log_of(full).count("closed") + 1


@pytest.mark.anyio
async def test_the_host_closes_while_a_plugin_is_being_put_away(plugin: Make, start: Start) -> None:
    full = plugin("full", FULL, hooks=HOOKS)
    async with start(full) as host:
        running = asyncio.ensure_future(call(host, "work", {"until": "never"}))
        await logged(full, "working")
        await host.set_enabled("full", False)
    assert log_of(full)[-1] == "closed"
    assert (await running).error is not None
    with pytest.raises(HostClosed):
        await host.set_enabled("full", True)


# --- enabling -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_plugin_that_was_never_enabled_is_taken_in(plugin: Make, start: Start) -> None:
    full = plugin("full", FULL, hooks=HOOKS, state="disabled", reason="It is denied.")
    async with start(full) as host:
        assert log_of(full) == []
        with pytest.raises(UnknownTool, match="disabled"):
            await call(host, "help")
        assert (await host.set_enabled("mcpd-full", True)).changed
        assert (await call(host, "help")).text == "helped"
        assert log_of(full) == ["opened 3", "saw help"]


@pytest.mark.anyio
async def test_a_plugin_without_manifest_registers_its_tools_again(
    plugin: Make, start: Start
) -> None:
    source = """
        from mcpd_core import hookimpl, tool

        @tool
        async def known_late() -> str:
            return "late"

        @hookimpl
        def mcpd_register_tools(registrar):
            registrar.add(known_late)
    """
    row = plugin("late", source, dynamic=True, tools=(), state="disabled")
    async with start(row) as host:
        for _ in range(2):
            await host.set_enabled("late", True)
            assert (await call(host, "known_late")).text == "late"
            await host.set_enabled("late", False)


@pytest.mark.anyio
async def test_a_provider_is_asked_when_its_plugin_is_enabled(plugin: Make, start: Start) -> None:
    source = """
        from mcpd_core import tool

        @tool
        def found() -> str:
            return "found"

        def tools(plugin, section):
            tool = {"name": "found", "entry": __name__ + ":found", "placement": "thread"}
            return {"tools": [tool], "note": f"Looked in {section['place']}."}
    """
    row = plugin("finder", source, tools=(), state="disabled")
    row = replace(row, metadata_provider=row.entry)
    async with start(row, finder={"place": "files"}) as host:
        for _ in range(2):
            await host.set_enabled("finder", True)
            assert (await call(host, "found")).text == "found"
            assert host.inventory.rows[0].reason == "Looked in files."
            await host.set_enabled("finder", False)
            assert host.inventory.rows[0].reason != "Looked in files."
    wrong = replace(row, metadata_provider="no_such_provider")
    async with start(wrong) as host:
        with pytest.raises(SelectionError, match="metadata provider no_such_provider failed"):
            await host.set_enabled("finder", True)


@pytest.mark.anyio
async def test_a_misspelt_name_is_answered_with_the_closest(plugin: Make, start: Start) -> None:
    async with start(plugin("other", OTHER)) as host:
        with pytest.raises(SelectionError, match="No plugin 'othr'") as refused:
            await host.set_enabled("othr", True)
        assert refused.value.hint == "Did you mean 'other'?"
        with pytest.raises(SelectionError) as refused:
            await host.set_enabled("zzz", False)
        assert refused.value.hint == "Installed plugins: other."


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["broken", "missing-runtime"])
async def test_what_does_not_work_cannot_be_enabled(plugin: Make, start: Start, state: str) -> None:
    row = plugin("other", OTHER, state=state, reason="Its wheel came off.")
    async with start(row) as host:
        with pytest.raises(SelectionError, match=f"{state}.*: Its wheel came off."):
            await host.set_enabled("other", True)
        assert len(host.catalog) == 0


@pytest.mark.anyio
async def test_a_plugin_for_a_library_that_is_missing_cannot_be_enabled(
    plugin: Make, start: Start
) -> None:
    async with start(plugin("other", OTHER, runtime="curio", state="disabled")) as host:
        with pytest.raises(SelectionError, match="missing-runtime.*curio"):
            await host.set_enabled("other", True)


@pytest.mark.anyio
async def test_of_two_rivals_the_second_is_refused_until_the_first_is_disabled(
    plugin: Make, start: Start
) -> None:
    one = plugin("one", OTHER, state="conflict", reason="two offers the same")
    two = plugin("two", OTHER, state="conflict", reason="one offers the same")
    async with start(one, two) as host:
        with pytest.raises(UnknownTool):
            await call(host, "other")
        await host.set_enabled("one", True)
        with pytest.raises(SelectionError, match="conflict.*mcpd-one:one offers 'other'"):
            await host.set_enabled("two", True)
        assert (await call(host, "other")).text == "other"
        await host.set_enabled("one", False)
        await host.set_enabled("two", True)
        spec = host.catalog.get("other")
        assert spec is not None
        assert spec.plugin == "two"


@pytest.mark.anyio
async def test_two_plugins_of_one_name_are_told_apart_by_their_distribution(
    plugin: Make, start: Start
) -> None:
    one = plugin("same", OTHER)
    two = replace(one, distribution="other-same", state="disabled", tools=())
    async with start(one, two) as host:
        with pytest.raises(SelectionError, match="several plugins") as refused:
            await host.set_enabled("same", False)
        assert refused.value.hint == "Say which one: mcpd-same:same or other-same:same."
        with pytest.raises(SelectionError, match="mcpd-same:same has the same name"):
            await host.set_enabled("other-same:same", True)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('not today')", "not today"),
        ("@hookimpl\ndef mcpd_services(): raise ValueError('no luck')", "no luck"),
        ("@hookimpl\ndef mcpd_settings(): return 'full', Strict", "size"),
        ("@hookimpl\ndef mcpd_settings(): return 'taken', Strict", "both claim"),
        (
            "@hookimpl\ndef mcpd_services(): return [Service('box', 'm:f', runtime='asyncio')]",
            "both declare a service 'box'",
        ),
    ],
)
async def test_a_plugin_that_fails_when_it_is_taken_in_changes_nothing(
    plugin: Make, start: Start, tmp_path: Path, source: str, reason: str
) -> None:
    head = """
from pydantic import BaseModel
from mcpd_core import Service, hookimpl
class Strict(BaseModel):
    size: int
"""
    taken = FULL.replace('"full", Settings', '"taken", Settings')
    row = plugin("bad", head, hooks=HOOKS, state="disabled", reason="It is denied.")
    (tmp_path / f"{row.entry}.py").write_text(head + source)
    sys.modules.pop(row.entry)
    async with start(plugin("full", taken, hooks=HOOKS), row) as host:
        for _ in range(2):
            with pytest.raises(SelectionError, match=f"mcpd-bad:bad cannot be .*{reason}"):
                await host.set_enabled("bad", True)
            assert find(host.inventory.rows, "bad").reason == "It is denied."
        assert (await call(host, "look")).text == "in the box"
    assert read_choices(tmp_path) == {}


# --- the memory -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_choice_is_kept_in_the_data_directory(
    plugin: Make, start: Start, tmp_path: Path
) -> None:
    async with start(plugin("other", OTHER)) as host:
        assert (await host.set_enabled("other", False)).remembered
        assert read_choices(tmp_path) == {"mcpd-other:other": False}
        await host.set_enabled("other", True)
        assert read_choices(tmp_path) == {"mcpd-other:other": True}
    async with start(plugin("other", OTHER), data_dir=None) as host:
        assert not (await host.set_enabled("other", False)).remembered


@pytest.mark.anyio
async def test_a_server_with_plugins_named_says_that_the_choice_holds_until_its_restart(
    plugin: Make, start: Start
) -> None:
    async with start(plugin("other", OTHER), serve={"plugins": ("other",)}) as host:
        assert (await host.set_enabled("other", False)).until_restart


def test_choices_are_read_back_and_replaced_as_a_whole(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    assert read_choices(data) == {}
    remember(data, "mcpd-hello:hello", False)
    remember(data, "x:y", True)
    remember(data, "mcpd-hello:hello", True)
    assert read_choices(data) == {"mcpd-hello:hello": True, "x:y": True}
    assert [path.name for path in data.iterdir()] == [FILENAME]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": 9, "plugins": {}}', '{"schema": 1, "plugins": {"x": 1}}']
)
def test_choices_that_cannot_be_read_are_an_error_with_the_mend(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / FILENAME).write_text(content)
    with pytest.raises(SettingsError, match=FILENAME) as caught:
        read_choices(tmp_path)
    assert "Remove the file" in caught.value.hint


def test_a_choice_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        remember(tmp_path / "file", "a:b", True)


def test_selection_follows_the_choices(environment: Any) -> None:
    environment.plugin("hello", distribution="mcpd-hello", tools=["greet"])
    environment.plugin("rival", distribution="mcpd-rival", tools=["greet"])
    environment.plugin("denied", distribution="mcpd-denied", tools=["more"])

    def states(choices: dict[str, bool], wanted: list[str] | None = None) -> dict[str, str]:
        inventory = select(
            environment.scan(), wanted=wanted, denied=["mcpd-denied"], choices=choices
        )
        return {row.name: row.state for row in inventory.rows}

    assert states({}) == {"hello": "conflict", "rival": "conflict", "denied": "disabled"}
    chosen = {"mcpd_rival:Rival": False, "mcpd-denied:denied": True, "gone:gone": True}
    assert states(chosen) == {"hello": "enabled", "rival": "disabled", "denied": "enabled"}
    # Who names plugins on the command line means these.
    assert states(chosen, ["rival"]) == {
        "hello": "disabled",
        "rival": "enabled",
        "denied": "disabled",
    }


def test_the_file_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    remember(tmp_path, "mcpd-hello:hello", False)
    assert json.loads((tmp_path / FILENAME).read_text()) == {
        "schema": 1,
        "plugins": {"mcpd-hello:hello": False},
    }
