"""Tools in threads of their own, with the host that routes their calls."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import Principal, Progress
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.manifest import checked, render_tool
from mcpd_core.schema import describe, tools_of
from mcpd_core.settings import load_settings
from mcpd_core.spec import CallResult
from mcpd_core.testing import MakeHost
from mcpd_core.testing.planting import WritePlugin

ME = Principal("local", str(os.getuid()))
LOOPS: list[Any] = ["asyncio"]
if importlib.util.find_spec("uvloop") is not None:
    LOOPS.append(("asyncio", {"use_uvloop": True}))

TOOLS = """
    from __future__ import annotations
    import asyncio, threading, time
    import anyio
    from mcpd_core import Context, tool

    log = []
    release = threading.Event()

    def here():
        try:
            import trio.lowlevel
            trio.lowlevel.current_task()
            library = "trio"
        except RuntimeError:
            assert asyncio.current_task() is not None
            library = "asyncio"
        return {"library": library, "thread": threading.get_ident(),
                "name": threading.current_thread().name}

    @tool(placement="thread")
    async def apart() -> dict[str, object]:
        await anyio.sleep(0)
        return here()

    @tool(placement="thread")
    async def apart_too() -> dict[str, object]:
        return here()

    @tool
    async def at_home() -> dict[str, object]:
        await anyio.sleep(0)
        return here()

    @tool(runtime="any")
    async def neutral() -> dict[str, object]:
        await anyio.sleep(0)
        return here()

    @tool(runtime="any", placement="thread")
    async def neutral_apart() -> dict[str, object]:
        await anyio.sleep(0)
        return here()

    @tool
    def pooled() -> dict[str, object]:
        return {"name": threading.current_thread().name}

    @tool
    def pooled_relay(to: str, ctx: Context) -> dict[str, object]:
        return ctx.call_from_thread(to).structured

    @tool(placement="thread")
    async def relay(to: str, ctx: Context) -> dict[str, object]:
        result = await ctx.call(to)
        assert not result.is_error, result
        return {"caller": here(), "callee": result.structured}

    @tool
    async def relay_at_home(to: str, ctx: Context) -> dict[str, object]:
        result = await ctx.call(to)
        assert not result.is_error, result
        return {"caller": here(), "callee": result.structured}

    @tool(placement="thread")
    async def down(levels: int, ctx: Context) -> list[str]:
        return await deeper("down_at_home", levels, ctx)

    @tool
    async def down_at_home(levels: int, ctx: Context) -> list[str]:
        return await deeper("down", levels, ctx)

    async def deeper(to, levels, ctx):
        try:
            if levels == 0:
                log.append("bottom")
                await anyio.sleep(3600)
            result = await ctx.call(to, {"levels": levels - 1})
            return [ctx.tool, result.text]
        finally:
            log.append(levels)

    @tool(placement="thread")
    async def counts(to: str, ctx: Context) -> int:
        counter = await ctx.service("counter")
        answer = counter.add(1)
        return await answer if hasattr(answer, "__await__") else answer

    @tool(placement="thread")
    async def report(ctx: Context) -> str:
        for n in range(3):
            ctx.progress(n, 3)
        ctx.log("info", "half way")
        return ctx.call_id

    @tool(placement="thread")
    async def waits(ctx: Context) -> str:
        log.append("waits")
        async with ctx.waiting():
            while "passed" not in log:
                await anyio.sleep(0.001)
        return "passed"

    @tool(placement="thread")
    async def passes() -> None:
        log.append("passed")

    @tool(placement="thread")
    async def sleeps() -> None:
        try:
            log.append("sleeps")
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)
            log.append("cleaned")

    @tool(placement="thread")
    async def blocks() -> None:
        log.append("blocks")
        release.wait(30)

    @tool
    async def blocks_at_home() -> dict[str, object]:
        time.sleep(0.01)
        return here()

    @tool(placement="loop")
    def plain() -> str:
        return threading.current_thread().name

    @tool
    async def counts_at_home(ctx: Context) -> int:
        return (await ctx.service("counter")) is not None

    @tool(placement="thread")
    async def checks(ctx: Context) -> str:
        return (await ctx.check("apart", {})).name

    @tool(placement="thread")
    async def fails() -> None:
        raise SystemExit(3)
"""

SERVICE = """
    from contextlib import asynccontextmanager
    import threading
    from mcpd_core import Health, Service, hookimpl

    class Counter:
        value = 0

        def __init__(self):
            self.thread = threading.get_ident()

        def add(self, n):
            assert threading.get_ident() == self.thread
            self.value += n
            return self.value

        def health(self):
            return Health(True)

    @asynccontextmanager
    async def open_counter(host):
        yield Counter()

    @hookimpl
    def mcpd_services():
        return [Service("counter", __name__ + ":open_counter", runtime="RUNTIME")]
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

    def make(name: str, source: str, *, runtime: Any = "asyncio", **facts: Any) -> PluginRow:
        module = f"{name}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        loaded = importlib.import_module(module)
        return PluginRow(
            name=name,
            distribution=f"mcpd-{name}",
            version="1.0",
            runtime=runtime,
            state="enabled",
            entry=module,
            tools=tuple(describe(f, plugin=name, runtime=runtime) for f in tools_of(loaded)),
            **facts,
        )

    return make


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(*rows: PluginRow, **sections: dict[str, Any]) -> AsyncIterator[Host]:
        settings = load_settings(config=None, env={}, overrides=sections)
        async with Host(Inventory(rows), settings, data_dir=tmp_path) as host:
            yield host

    return started


@pytest.fixture(params=["trio", "asyncio"])
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def row(plugin: Make, library: str) -> PluginRow:
    return plugin("tools", TOOLS, runtime=library)


@pytest.fixture
async def host(row: PluginRow, start: Start, anyio_backend: Any) -> AsyncIterator[Host]:
    async with start(row) as host:
        yield host


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert not own_threads()


def own_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("mcpd-the plugin")]


async def call(host: Host, tool: str, arguments: Any = None, **options: Any) -> CallResult:
    options = {"principal": ME, "client": "test", **options}
    return await host.call(tool, arguments or {}, **options)


async def told(host: Host, tool: str, arguments: Any = None, **options: Any) -> dict[str, Any]:
    result = await call(host, tool, arguments, **options)
    assert not result.is_error, result
    assert result.structured is not None
    return dict(result.structured)


def log_of(row: PluginRow) -> list[Any]:
    assert row.entry is not None
    log: list[Any] = importlib.import_module(row.entry).log
    return log


async def logged(row: PluginRow, entry: Any) -> None:
    while entry not in log_of(row):
        await asyncio.sleep(0.001)


# --- where it runs --------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_it_runs_in_its_own_library_in_a_thread_of_its_plugin(
    host: Host, library: str
) -> None:
    found = await told(host, "apart")
    assert (found["library"], found["name"]) == (library, f"mcpd-the plugin tools-{library}")
    assert found["thread"] != threading.get_ident()
    # State that the modules of a plugin share stays in one thread.
    assert await told(host, "apart_too") == found
    assert (await told(host, "at_home"))["thread"] == threading.get_ident()


@pytest.mark.anyio
async def test_plugins_do_not_share_a_thread(plugin: Make, start: Start, library: str) -> None:
    other = TOOLS.replace("async def apart()", "async def elsewhere()")
    second = plugin("second", other, runtime=library)
    second = replace(second, tools=tuple(t for t in second.tools if t.name == "elsewhere"))
    async with start(plugin("tools", TOOLS, runtime=library), second) as host:
        one, two = await told(host, "apart"), await told(host, "elsewhere")
        assert one["thread"] != two["thread"]
        assert two["name"] == f"mcpd-the plugin second-{library}"


@pytest.mark.anyio
async def test_no_thread_is_started_before_it_is_needed(host: Host) -> None:
    await told(host, "at_home")
    assert own_threads() == []


@pytest.mark.anyio
async def test_neutral_code_in_a_thread_runs_in_asyncio(host: Host) -> None:
    found = await told(host, "neutral_apart")
    assert (found["library"], found["name"]) == ("asyncio", "mcpd-the plugin tools-asyncio")


def test_the_placement_is_part_of_the_contract(row: PluginRow, library: Any) -> None:
    spec = next(t for t in row.tools if t.name == "apart")
    assert render_tool(spec, runtime=library)["placement"] == "thread"
    (read,) = checked([spec], plugin="tools", runtime=library)
    assert read.placement == "thread"


HOOK = """
    @hookimpl
    def mcpd_select_runtime(spec, available):
        assert "thread" in available
        if spec.name == "at_home":
            return dataclasses.replace(spec, placement="thread")
        if spec.name == "apart":
            return dataclasses.replace(spec, placement="loop")
"""


@pytest.mark.anyio
async def test_a_hook_moves_tools_into_a_thread_and_out_of_it(
    plugin: Make, start: Start, library: str
) -> None:
    source = TOOLS + "    import dataclasses\n    from mcpd_core import hookimpl\n" + HOOK
    row = plugin("tools", source, runtime=library, hooks=("mcpd_select_runtime",))
    async with start(row) as host:
        assert (await told(host, "at_home"))["name"].startswith("mcpd-the plugin tools")
        assert (await told(host, "apart"))["thread"] == threading.get_ident()


@pytest.mark.anyio
async def test_the_codes_own_word_counts_where_the_manifest_is_older(
    row: PluginRow, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    older = tuple(replace(t, placement="loop") if t.name == "apart" else t for t in row.tools)
    async with start(replace(row, tools=older)) as host:
        assert (await told(host, "apart"))["name"].startswith("mcpd-the plugin tools")
    assert "is stale" in caplog.text


# --- calls between lanes --------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
@pytest.mark.parametrize("to", ["at_home", "apart", "neutral", "neutral_apart", "pooled"])
async def test_it_calls_tools_everywhere(host: Host, library: str, to: str) -> None:
    found = await told(host, "relay", {"to": to})
    caller, callee = found["caller"], found["callee"]
    assert caller["name"] == f"mcpd-the plugin tools-{library}"
    if to == "at_home":
        assert callee["thread"] == threading.get_ident()
        assert callee["library"] == library
    elif to == "pooled":
        assert callee["name"].startswith("mcpd-tool-")
    elif to == "neutral_apart":
        assert callee["name"] == "mcpd-the plugin tools-asyncio"
    else:
        # In its own thread; what is neutral runs where its caller does.
        assert callee == caller


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_tools_on_the_hosts_thread_and_in_worker_threads_call_it(
    host: Host, library: str
) -> None:
    found = await told(host, "relay_at_home", {"to": "apart"})
    assert found["caller"]["thread"] == threading.get_ident()
    assert found["callee"]["name"] == f"mcpd-the plugin tools-{library}"
    assert await told(host, "pooled_relay", {"to": "apart"}) == found["callee"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_nested_calls_share_one_permit_and_unwind_to_the_last(
    row: PluginRow, start: Start
) -> None:
    async with start(row, executor={"concurrency": 1}) as host:
        task = asyncio.ensure_future(call(host, "down", {"levels": 20}))
        await logged(row, "bottom")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log_of(row) == ["bottom", *range(21)]
        # The permit is there again.
        await told(host, "apart")


@pytest.mark.anyio
async def test_the_permit_is_given_back_while_it_waits(row: PluginRow, start: Start) -> None:
    async with start(row, executor={"concurrency": 1}) as host:
        waiting = asyncio.ensure_future(call(host, "waits"))
        await logged(row, "waits")
        await call(host, "passes")
        assert (await waiting).text == "passed"


@pytest.mark.anyio
@pytest.mark.parametrize("owner", ["asyncio", "trio"])
async def test_a_service_is_reached_through_a_proxy(
    plugin: Make, start: Start, row: PluginRow, owner: str
) -> None:
    source = SERVICE.replace("RUNTIME", owner)
    service = plugin("service", source, runtime=owner, hooks=("mcpd_services",))
    async with start(row, service) as host:
        assert await told(host, "counts", {"to": "x"}) == {"result": 1}
        assert await told(host, "counts", {"to": "x"}) == {"result": 2}


@pytest.mark.anyio
async def test_checks_progress_and_log_lines_reach_the_host(host: Host) -> None:
    assert (await call(host, "checks")).text == "apart"
    reports: list[Progress] = []
    lines: list[tuple[str, str]] = []
    await call(host, "report", on_progress=reports.append, on_log=lambda *at: lines.append(at))
    assert [report.done for report in reports] == [0, 1, 2]
    assert lines == [("info", "half way")]


@pytest.mark.anyio
async def test_an_exit_is_the_tools_failure_and_its_thread_lives_on(host: Host) -> None:
    before = await told(host, "apart")
    assert (await call(host, "fails")).is_error
    assert await told(host, "apart") == before


# --- endings --------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_a_deadline_is_an_answer_after_the_clean_up(row: PluginRow, start: Start) -> None:
    async with start(row) as host:
        # Its deadline is for the tool, not for loading it and starting the thread.
        assert not (await call(host, "apart")).is_error
        error = (await call(host, "sleeps", timeout=0.3)).error
        assert error is not None
        assert error["code"] == "deadline_exceeded"
        assert log_of(row) == ["sleeps", "cleaned"]


@pytest.mark.anyio
async def test_the_host_closes_after_the_clean_up(row: PluginRow, start: Start) -> None:
    async with start(row) as host:
        running = asyncio.ensure_future(call(host, "sleeps"))
        await logged(row, "sleeps")
    assert log_of(row) == ["sleeps", "cleaned"]
    assert (await running).is_error
    assert own_threads() == []


@pytest.mark.anyio
async def test_one_that_blocks_leaves_the_hosts_loop_free(row: PluginRow, start: Start) -> None:
    async with start(row) as host:
        blocked = asyncio.ensure_future(call(host, "blocks"))
        await logged(row, "blocks")
        for _ in range(1000):
            await asyncio.sleep(0)
        assert (await told(host, "at_home"))["thread"] == threading.get_ident()
        assert not blocked.done()
        importlib.import_module(row.entry or "").release.set()
        assert not (await blocked).is_error


@pytest.mark.anyio
async def test_one_that_hangs_is_left_behind_and_its_plugin_served_by_another_thread(
    row: PluginRow, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    release = importlib.import_module(row.entry or "").release
    try:
        async with start(row, executor={"cancel_grace": 0.05}) as host:
            hung = (await told(host, "apart"))["thread"]
            error = (await call(host, "blocks", timeout=0.05)).error
            assert error is not None
            assert error["code"] == "deadline_exceeded"
            # The innermost frame is that of `threading`, on whose event it waits.
            assert "blocks did not stop within 0.05 s of being cancelled" in caplog.text
            assert "threading.py" in caplog.text
            assert (await told(host, "apart"))["thread"] != hung
        # The host has closed: a thread that hangs does not keep it.
        assert len(own_threads()) == 1
    finally:
        release.set()
        while own_threads():
            await asyncio.sleep(0.001)


NEIGHBOURS = """
    import threading, time
    from pathlib import Path
    import anyio
    from mcpd_core import tool

    @tool(placement="thread")
    async def hangs(until: str) -> None:
        while not Path(until).exists():
            time.sleep(0.005)

    @tool(placement="thread")
    async def waits(until: str) -> int:
        while not Path(until).exists():
            await anyio.sleep(0.005)
        return threading.get_ident()
"""


@pytest.mark.anyio
@pytest.mark.parametrize("library", ["asyncio", "trio"])
async def test_what_runs_beside_one_that_hangs_is_finished_though_another_thread_serves_by_then(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin, tmp_path: Path, library: Any
) -> None:
    plugin = tmp_plugin(textwrap.dedent(NEIGHBOURS), runtime=library)
    release, now = tmp_path / "release", tmp_path / "now"
    now.touch()
    async with mcpd_host(plugin, settings={"executor": {"cancel_grace": 0.05}}) as host:
        first = (await host.call("waits", {"until": str(now)})).structured
        beside = asyncio.ensure_future(host.call("waits", {"until": str(release)}))
        error = (await host.call("hangs", {"until": str(release)}, timeout=0.05)).error
        assert error is not None
        assert error["code"] == "deadline_exceeded"
        assert (await host.call("waits", {"until": str(now)})).structured != first
        # For longer than the one that hangs was waited for.
        await asyncio.sleep(0.1)
        assert not beside.done()
        release.touch()
        assert (await beside).structured == first
        # With nothing left to do, it ends without being told to.
        while len(own_threads()) > 1:
            await asyncio.sleep(0.001)
    assert own_threads() == []


@pytest.mark.anyio
async def test_one_that_hangs_does_not_keep_the_host_from_closing(
    row: PluginRow, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        async with start(row, executor={"cancel_grace": 0.05}) as host:
            running = asyncio.ensure_future(call(host, "blocks"))
            await logged(row, "blocks")
        error = (await running).error
        assert error is not None
        assert error["code"] == "interrupted"
        assert "cleaned up" not in error["message"]
        assert "blocks did not stop within 0.05 s of being cancelled" in caplog.text
        assert len(own_threads()) == 1
    finally:
        importlib.import_module(row.entry or "").release.set()
        while own_threads():
            await asyncio.sleep(0.001)


@pytest.mark.anyio
async def test_a_disabled_plugin_keeps_no_thread(row: PluginRow, start: Start) -> None:
    async with start(row) as host:
        await told(host, "apart")
        assert len(own_threads()) == 1
        await host.set_enabled("tools", False)
        while own_threads():
            await asyncio.sleep(0.001)


# --- tools that are moved because they block ------------------------------------------------------


def label(name: str) -> str:
    return f"tool {name!r}"


@pytest.mark.anyio
async def test_a_tool_is_moved_to_the_thread_of_its_plugin(host: Host, library: str) -> None:
    move = host._binder.move_to_thread
    assert not move(label("blocks_at_home")), "nobody has called it yet"
    assert (await told(host, "blocks_at_home"))["thread"] == threading.get_ident()
    assert move(label("blocks_at_home"))
    found = await told(host, "blocks_at_home")
    assert found["name"] == f"mcpd-the plugin tools-{library}"
    assert found["library"] == library
    assert move(label("blocks_at_home")), "it is there already"
    assert not move("resource 'x'")


@pytest.mark.anyio
async def test_a_plain_def_is_moved_to_a_worker_thread(host: Host) -> None:
    assert (await call(host, "plain")).text == threading.current_thread().name
    assert host._binder.move_to_thread(label("plain"))
    assert (await call(host, "plain")).text.startswith("mcpd-tool-")


@pytest.mark.anyio
async def test_a_tool_that_uses_a_service_is_not_moved_or_moves_back(
    plugin: Make, start: Start, row: PluginRow, library: str
) -> None:
    source = SERVICE.replace("RUNTIME", library)
    service = plugin("service", source, runtime=library, hooks=("mcpd_services",))
    async with start(row, service) as host:
        assert not (await call(host, "counts_at_home")).is_error
        assert not host._binder.move_to_thread(label("counts_at_home"))

        spec = host.catalog.get("at_home")
        assert spec is not None
        await told(host, "at_home")
        assert host._binder.move_to_thread(spec.label)
        assert (await told(host, "at_home"))["name"].startswith("mcpd-the plugin")
        host._binder.note_service(spec)
        assert (await told(host, "at_home"))["thread"] == threading.get_ident()
        assert not host._binder.move_to_thread(spec.label)
