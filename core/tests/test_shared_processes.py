"""Tools that share a worker process by name: what they keep there, and how they can lose it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import (
    Busy,
    CallResult,
    InvalidArguments,
    ManifestError,
    Principal,
    ToolUnavailable,
    tool,
)
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.manifest import parse_tools
from mcpd_core.settings import load_settings

ME = Principal("local", str(os.getuid()))
LINUX = sys.platform == "linux"

#: Modules of somebody else's, which keep state and know nothing of mcpd.
STATE = """
    import asyncio, os
    kept = []
    lock = asyncio.Lock()
    ticks = 0

    async def tick():
        global ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)
"""
TOOLS = """
    import asyncio, os, sys, time
    import shared_state

    def keep(value=None):
        if value is not None:
            shared_state.kept.append(value)
        return {"pid": os.getpid(), "kept": shared_state.kept}

    async def contend():
        # Locks of asyncio stay with the loop that they were first waited for in.
        async with shared_state.lock:
            waiting = asyncio.ensure_future(shared_state.lock.acquire())
            await asyncio.sleep(0)
        await waiting
        shared_state.lock.release()
        if not hasattr(shared_state, "task"):
            shared_state.task = asyncio.ensure_future(shared_state.tick())
        await asyncio.sleep(0)
        return {"pid": os.getpid(), "ticks": shared_state.ticks}

    def own_loop():
        async def nothing():
            return "ran"
        return asyncio.run(nothing())

    async def in_trio():
        import trio
        await trio.sleep(0)
        return {"pid": os.getpid()}

    def die(how):
        if how == "exit":
            os._exit(3)
        if how == "sys.exit":
            sys.exit(3)
        if how == "raise":
            raise ZeroDivisionError
        if how == "memory":
            return len(bytearray(900 << 20))
        while True:
            pass

    def wait_for(note, started=None):
        if started:
            open(started, "w").close()
        while not os.path.exists(note):
            time.sleep(0.002)
        return "seen"
"""
MORE = """
    import os, shared_state

    def also():
        return {"pid": os.getpid(), "kept": shared_state.kept}
"""
LOADER = """
    import importlib
    from mcpd_core import InvalidArguments, LoadedTool

    def load(spec):
        module, _, name = spec.entry.partition(":")
        return LoadedTool(getattr(importlib.import_module(module), name), check=check)

    def check(arguments):
        if "unknown" in arguments:
            raise InvalidArguments("There is no argument 'unknown'.")
        return arguments
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the modules; the worker looks for them where this process does."""
    monkeypatch.syspath_prepend(str(tmp_path))
    sources = {"state": STATE, "tools": TOOLS, "more": MORE, "loader": LOADER}
    for name, source in sources.items():
        (tmp_path / f"shared_{name}.py").write_text(textwrap.dedent(source))
    return tmp_path


@asynccontextmanager
async def start(*rows: PluginRow, **sections: dict[str, Any]) -> AsyncIterator[Host]:
    settings = load_settings(config=None, env={}, overrides=sections)
    async with Host(Inventory(rows), settings, data_dir=None) as host:
        yield host


def item(name: str, module: str = "tools", **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "entry": f"shared_{module}:{name}",
        "loader": "shared_loader:load",
        "input_schema": {"type": "object"},
        "placement": "process",
        "process": "tree",
        **facts,
    }


def plugin(*items: dict[str, Any], name: str = "old") -> PluginRow:
    tools = parse_tools(list(items), plugin=name, runtime="asyncio")
    return PluginRow(name, f"mcpd-{name}", "1", "asyncio", "enabled", tools=tools)


async def call(host: Host, tool: str, arguments: Any = None, **options: Any) -> CallResult:
    options = {"principal": ME, "client": "test", **options}
    return await host.call(tool, arguments or {}, **options)


async def data(host: Host, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await call(host, tool, arguments)
    assert answer.structured is not None, answer
    return answer.structured


def pids(host: Host) -> tuple[int, ...]:
    return host.lanes.processes.pids


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


# --- what is kept ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_tools_of_several_modules_share_what_their_modules_keep() -> None:
    # Neither the number of calls nor the time without one ends the process.
    processes = {"calls": 1, "idle_timeout": 0}
    async with start(plugin(item("keep"), item("also", "more")), processes=processes) as host:
        assert pids(host) == ()
        (pid,) = {(await data(host, "keep", value=n))["pid"] for n in range(3)}
        assert await data(host, "also") == {"pid": pid, "kept": [0, 1, 2]}
        assert pids(host) == (pid,)
        assert not {"shared_state", "shared_loader"} & set(sys.modules)


@pytest.mark.anyio
async def test_each_name_and_each_plugin_has_a_process_of_its_own() -> None:
    rows = (
        plugin(item("keep"), item("also", "more", process="other")),
        plugin(item("keep_too", entry="shared_tools:keep"), name="young"),
    )
    async with start(*rows) as host:
        await data(host, "keep", value=1)
        assert (await data(host, "also"))["kept"] == []
        assert (await data(host, "keep_too"))["kept"] == []
        assert len(pids(host)) == 3


@pytest.mark.anyio
async def test_marked_functions_can_share_a_process_too(modules: Path) -> None:
    source = """
        from mcpd_core import tool

        kept = []

        @tool(placement="process", process="state")
        def keep(value: int) -> list[int]:
            kept.append(value)
            return kept
    """
    (modules / "shared_marked.py").write_text(textwrap.dedent(source))
    stated = item("keep", "marked", loader="", process="state")
    async with start(plugin(stated), processes={"calls": 1}) as host:
        await call(host, "keep", {"value": 0})
        assert (await call(host, "keep", {"value": 1})).structured == {"result": [0, 1]}


@pytest.mark.anyio
async def test_what_is_bound_to_an_event_loop_can_be_kept() -> None:
    async with start(plugin(item("contend"), item("own_loop"))) as host:
        first = await data(host, "contend")
        # A loop that a `def` makes for itself is not in the way.
        assert (await call(host, "own_loop")).text == "ran"
        second = await data(host, "contend")
        assert second["pid"] == first["pid"]
        # The task that the first call left behind has gone on during the second.
        assert second["ticks"] > first["ticks"]


@pytest.mark.anyio
async def test_code_for_trio_runs_there_as_well() -> None:
    pytest.importorskip("trio")
    async with start(plugin(item("in_trio", runtime="trio"), item("keep"))) as host:
        assert (await data(host, "in_trio"))["pid"] == (await data(host, "keep"))["pid"]
        assert "trio" not in [place for place, _ in host.lanes.started()]


# --- how it is lost -------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(("how", "code"), [("exit", "process_died"), ("spin", "deadline_exceeded")])
async def test_a_process_that_ends_takes_the_state_along_and_says_so(
    caplog: pytest.LogCaptureFixture, how: str, code: str
) -> None:
    async with start(plugin(item("keep"), item("die"))) as host:
        before = await data(host, "keep", value=1)
        error = (await call(host, "die", {"how": how}, timeout=1.0 if how == "spin" else 60)).error
        assert error is not None
        assert error["code"] == code
        assert "The process 'tree' has ended" in error["hint"]
        assert "what its tools kept there is lost" in error["hint"]
        after = await data(host, "keep", value=2)
        assert after["pid"] != before["pid"]
        assert after["kept"] == [2]
        await until(lambda: "The process 'tree'" in caplog.text)
        assert f"({before['pid']}) of the plugin old has ended" in caplog.text


@pytest.mark.skipif(not LINUX, reason="other systems do not enforce a limit of address space")
@pytest.mark.anyio
async def test_the_memory_limit_of_a_contract_holds_there() -> None:
    row = plugin(item("keep", memory_mb=600), item("die", memory_mb=600))
    async with start(row) as host:
        await data(host, "keep", value=1)
        error = (await call(host, "die", {"how": "memory"})).error
        assert error is not None
        assert error["code"] == "out_of_memory"
        assert "what its tools kept there is lost" in error["hint"]
        assert (await data(host, "keep"))["kept"] == []


@pytest.mark.anyio
async def test_a_process_that_dies_between_two_calls_is_started_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with start(plugin(item("keep"))) as host:
        pid = (await data(host, "keep", value=1))["pid"]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not pids(host))
        assert "it was ended by SIGKILL. The next call starts it anew." in caplog.text
        assert (await data(host, "keep"))["kept"] == []


@pytest.mark.anyio
async def test_what_fails_without_ending_the_process_costs_nothing(
    modules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (modules / "shared_broken.py").write_text("import no_such_library")
    row = plugin(item("keep"), item("die"), item("broken", "broken"))
    async with start(row) as host:
        pid = (await data(host, "keep", value=1))["pid"]
        for how in ("raise", "sys.exit"):
            error = (await call(host, "die", {"how": how})).error
            assert error is not None
            assert error["code"] == "tool_crashed"
            assert "lost" not in error["hint"]
        with pytest.raises(ToolUnavailable, match="no_such_library") as refused:
            await call(host, "broken")
        assert "lost" not in refused.value.hint
        with pytest.raises(InvalidArguments):
            await call(host, "keep", {"unknown": 1})
        # What was missing can be mended while the process lives.
        (modules / "shared_broken.py").write_text("def broken(): return 'mended'")
        assert (await call(host, "broken")).text == "mended"
        assert await data(host, "keep") == {"pid": pid, "kept": [1]}
        assert "has ended" not in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["cancelled", "late"])
async def test_who_gives_up_while_a_tool_is_loaded_ends_nothing(modules: Path, how: str) -> None:
    go, entered = modules / "go", modules / "entered"
    (modules / "shared_slow.py").write_text(
        f"import os, time\nopen({str(entered)!r}, 'w').close()\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.002)\n"
        "def slow(): return 'loaded'\n"
    )
    async with start(plugin(item("keep"), item("slow", "slow"))) as host:
        pid = (await data(host, "keep", value=1))["pid"]
        timeout = 60.0 if how == "cancelled" else 0.5
        calling = asyncio.ensure_future(call(host, "slow", timeout=timeout))
        await until(entered.exists)
        if how == "cancelled":
            calling.cancel()
            await asyncio.wait([calling])
            assert calling.cancelled()
        else:
            with pytest.raises(ToolUnavailable, match="has not been loaded in time"):
                await calling
        # The next one has to wait for it all the same.
        waiting = asyncio.ensure_future(call(host, "keep"))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        go.touch()
        assert (await waiting).structured == {"pid": pid, "kept": [1]}
        assert (await call(host, "slow")).text == "loaded"


@pytest.mark.anyio
async def test_a_server_that_closes_while_a_tool_is_loaded_does_not_wait_for_it(
    modules: Path,
) -> None:
    entered = modules / "entered"
    (modules / "shared_slow.py").write_text(
        f"import time\nopen({str(entered)!r}, 'w').close()\ntime.sleep(600)\n"
    )
    async with start(plugin(item("slow", "slow")), executor={"cancel_grace": 0.1}) as host:
        calling = asyncio.ensure_future(call(host, "slow"))
        await until(entered.exists)
        calling.cancel()
        await asyncio.wait([calling])
        assert len(pids(host)) == 1
    assert pids(host) == ()


# --- whose turn it is -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_clients_take_turns_and_calls_run_one_at_a_time(modules: Path) -> None:
    go, started = modules / "go", modules / "started"
    async with start(plugin(item("wait_for"), item("keep"))) as host:
        arguments = {"note": str(go), "started": str(started)}
        first = asyncio.ensure_future(call(host, "wait_for", arguments, client="greedy"))
        await until(started.exists)
        flood = [
            asyncio.ensure_future(call(host, "keep", {"value": f"greedy {n}"}, client="greedy"))
            for n in range(6)
        ]
        slots = host.lanes.processes._shared["old", "tree"].slots
        await until(lambda: slots.stats()["waiting"] == len(flood))
        modest = asyncio.ensure_future(call(host, "keep", {"value": "modest"}, client="modest"))
        await until(lambda: slots.stats()["waiting"] == len(flood) + 1)
        assert slots.stats()["running"] == 1
        go.touch()
        await asyncio.gather(first, modest, *flood)
        kept = (await data(host, "keep"))["kept"]
        assert kept.index("modest") <= 1
        assert [value for value in kept if value != "modest"] == [f"greedy {n}" for n in range(6)]


@pytest.mark.anyio
async def test_whoever_waits_is_refused_at_the_deadline_and_ends_nothing(modules: Path) -> None:
    go, started = modules / "go", modules / "started"
    async with start(plugin(item("wait_for"), item("keep"))) as host:
        pid = (await data(host, "keep", value=1))["pid"]
        arguments = {"note": str(go), "started": str(started)}
        first = asyncio.ensure_future(call(host, "wait_for", arguments))
        await until(started.exists)
        with pytest.raises(Busy):
            await call(host, "keep", timeout=0.05)
        go.touch()
        assert (await first).text == "seen"
        assert await data(host, "keep") == {"pid": pid, "kept": [1]}


@pytest.mark.anyio
async def test_shared_processes_leave_the_pool_alone(modules: Path) -> None:
    go, started = modules / "go", modules / "started"
    row = plugin(
        item("wait_for"),
        item("keep", process="second"),
        item("pooled", entry="shared_tools:keep", process=""),
    )
    async with start(row, processes={"workers": 1}) as host:
        arguments = {"note": str(go), "started": str(started)}
        busy = asyncio.ensure_future(call(host, "wait_for", arguments))
        await until(started.exists)
        # One process is all that the pool may have, and it is there.
        found = {(await data(host, name))["pid"] for name in ("keep", "pooled", "pooled")}
        assert len(found) == 2
        assert len(pids(host)) == 3
        go.touch()
        assert (await busy).text == "seen"


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_disabling_the_plugin_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with start(plugin(item("keep")), plugin(item("also", "more"), name="other")) as host:
        pid = (await data(host, "keep", value=1))["pid"]
        other = (await data(host, "also"))["pid"]
        await host.set_enabled("old", False)
        await until(lambda: pids(host) == (other,))
        assert "has ended" not in caplog.text
        await host.set_enabled("old", True)
        again = await data(host, "keep")
        assert again["pid"] != pid
        assert again["kept"] == []


# --- contracts ------------------------------------------------------------------------------------


def test_tools_that_share_a_process_share_its_memory_limit() -> None:
    with pytest.raises(ManifestError, match="share the process 'tree' differ in memory_mb"):
        plugin(item("keep", memory_mb=300), item("die"))
    plugin(item("keep", memory_mb=300), item("die", process="other"))


@pytest.mark.parametrize("options", [{"process": "x"}, {"process": "a b", "placement": "process"}])
def test_a_mark_that_cannot_be_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match='goes with placement="process"'):

        @tool(**options)
        def keep() -> None: ...
