"""The way of a call through the host."""

from __future__ import annotations

import asyncio
import logging
import os
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from mcpd_core import (
    Busy,
    CallRefused,
    HostClosed,
    InvalidArguments,
    NotAuthorised,
    Principal,
    Progress,
    SelectionError,
    Service,
    ServiceUnavailable,
    SettingsError,
    ToolUnavailable,
    UnknownTool,
)
from mcpd_core.host import Host
from mcpd_core.host.services import HostView
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.schema import describe, tools_of
from mcpd_core.settings import load_settings
from mcpd_core.spec import CallResult

ME = Principal("local", str(os.getuid()))
STRANGER = Principal("peer", "12D3Koo")

TOOLS = """
    from __future__ import annotations
    import asyncio, threading, time
    import anyio
    from mcpd_core import CallResult, Context, ToolError, tool

    log = []

    @tool(read_only=True)
    async def library(ctx: Context) -> dict[str, object]:
        '''Say where it runs.'''
        try:
            import trio.lowlevel
            trio.lowlevel.current_task()
            return {"library": "trio", "thread": threading.get_ident()}
        except (ImportError, RuntimeError):
            assert asyncio.current_task() is not None
            return {"library": "asyncio", "thread": threading.get_ident()}

    @tool
    def thread() -> dict[str, int]:
        return {"thread": threading.get_ident()}

    @tool(runtime="any")
    async def neutral(ctx: Context) -> str:
        await anyio.sleep(0)
        try:
            import trio.lowlevel
            trio.lowlevel.current_task()
            return "trio"
        except (ImportError, RuntimeError):
            return "asyncio"

    @tool
    async def relay(to: str, ctx: Context, arguments: dict[str, object] = {}) -> dict[str, object]:
        result = await ctx.call(to, arguments)
        return {"text": result.text, "data": result.structured, "error": result.is_error}

    @tool
    def relay_from_thread(to: str, ctx: Context) -> str:
        return ctx.call_from_thread(to).text

    @tool
    async def sleep(seconds: float, ctx: Context, tidy: float = 0) -> str:
        log.append("started")
        try:
            await anyio.sleep(seconds)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(tidy)
            log.append("cleaned")
        return "slept"

    @tool
    async def deaf() -> str:
        log.append("started")
        try:
            await anyio.sleep(60)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
        log.append("ended")
        return "I have not heard"

    @tool(timeout=0.05)
    async def hurried() -> None:
        await anyio.sleep(60)

    @tool
    async def fail(how: str) -> None:
        if how == "tool":
            raise ToolError("The disk is full.", hint="Free some room.", retryable=False)
        if how == "exit":
            raise SystemExit(3)
        raise ZeroDivisionError("secret")

    @tool
    async def report(ctx: Context) -> str:
        for n in range(3):
            ctx.progress(n, 3, f"step {n}")
        ctx.log("info", "half way")
        return ctx.call_id

    @tool
    def report_from_thread(ctx: Context) -> str:
        ctx.progress(1, 2)
        return str(ctx.principal)

    @tool
    def stubborn(ctx: Context) -> str:
        while not ctx.cancelled:
            time.sleep(0.001)
        ctx.check_cancelled()
        return "never"

    @tool
    async def say(text: str) -> str:
        return text

    @tool
    async def give(data: dict[str, object]) -> dict[str, object]:
        return data

    @tool
    async def wait_for(gate: str, ctx: Context) -> str:
        async with ctx.waiting():
            while gate not in log:
                await anyio.sleep(0.001)
        return "passed"

    @tool
    async def about(ctx: Context) -> dict[str, object]:
        remaining = ctx.remaining()
        return {"tool": ctx.tool, "client": ctx.client, "hurried": remaining < 10,
                "principal": str(ctx.principal), "deadline": ctx.deadline is not None}

    @tool
    async def misplaced(ctx: Context) -> str:
        return ctx.call_from_thread("say", {"text": "x"}).text

    @tool
    def awaited_in_thread(ctx: Context) -> str:
        try:
            ctx.call("say").send(None)
        except Exception as error:
            return str(error)
        return "no error"

    @tool
    async def check(to: str, arguments: dict[str, object], ctx: Context) -> str:
        return (await ctx.check(to, arguments)).name

    @tool
    async def count(ctx: Context, name: str = "counter") -> int:
        counter = await ctx.service(name)
        answer = counter.add(1)
        return await answer if hasattr(answer, "__await__") else answer

    @tool
    async def wait_twice(ctx: Context) -> str:
        async def fail():
            await anyio.sleep(0.01)
            raise ValueError("sibling")
        async with anyio.create_task_group() as group:
            group.start_soon(ctx.call, "wait_for", {"gate": "never"})
            group.start_soon(fail)
        return "never"

    @tool
    def wait_from_thread(ctx: Context) -> str:
        return ctx.call_from_thread("wait_for", {"gate": "never"}).text

    @tool
    def tidy_from_thread(ctx: Context) -> str:
        return ctx.call_from_thread("sleep", {"seconds": 60, "tidy": 0.05}).text

    @tool
    async def grouped() -> None:
        import sys
        if sys.version_info < (3, 11):
            from exceptiongroup import BaseExceptionGroup
        else:
            from builtins import BaseExceptionGroup
        raise BaseExceptionGroup("several", [ValueError("x"), asyncio.CancelledError()])

    @tool
    async def by_hand(text: str) -> CallResult:
        return CallResult(text, {"n": float("nan")}, error={"code": "own"})

    @tool
    async def odd_error() -> None:
        raise ToolError(OSError("an exception"), data={(1, 2): {3}, "x": "\\udcff"})

    @tool(placement="loop")
    def quick() -> int:
        return threading.get_ident()
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Make = Callable[..., PluginRow]
Start = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a plugin of one module and return its row, as discovery would have found it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(
        name: str, source: str, *, runtime: Any = "asyncio", hooks: tuple[str, ...] = ()
    ) -> PluginRow:
        module = f"{name}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        import importlib

        loaded = importlib.import_module(module)
        return PluginRow(
            name=name,
            distribution=f"mcpd-{name}",
            version="1.0",
            runtime=runtime,
            state="enabled",
            entry=module,
            hooks=hooks,
            tools=tuple(describe(f, plugin=name, runtime=runtime) for f in tools_of(loaded)),
        )

    return make


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(
        *rows: PluginRow, data_dir: Path | None = tmp_path, **sections: dict[str, Any]
    ) -> AsyncIterator[Host]:
        settings = load_settings(config=None, env={}, overrides=sections)
        async with Host(Inventory(rows), settings, data_dir=data_dir) as host:
            yield host

    return started


@pytest.fixture(params=["asyncio", "trio"])
async def host(
    request: pytest.FixtureRequest, plugin: Make, start: Start, anyio_backend: str
) -> AsyncIterator[Host]:
    """A host whose tools are written for the runtime of the parameter."""
    async with start(plugin("tools", TOOLS, runtime=request.param)) as host:
        yield host


async def call(host: Host, tool: str, arguments: Any = None, **options: Any) -> CallResult:
    options = {"principal": ME, "client": "test", **options}
    return await host.call(tool, arguments or {}, **options)


async def load(host: Host, tool: str, arguments: Any = None) -> None:
    """Load the code and start its runtime, so that a short deadline is the tool's alone."""
    await host.check(tool, arguments or {}, principal=ME)
    await host.lanes.runtime(runtime_of(host))


async def call_loaded(host: Host, tool: str, arguments: Any = None, **options: Any) -> CallResult:
    """Call a tool that has been loaded."""
    await load(host, tool, arguments)
    return await call(host, tool, arguments, **options)


def runtime_of(host: Host) -> str:
    return host.inventory.rows[0].runtime


def log_of(host: Host) -> list[str]:
    import sys

    log: list[str] = sys.modules[host.inventory.rows[0].entry].log
    return log


async def logged(host: Host, event: str) -> None:
    """Wait until a tool has noted an event; a tool of either library, so there is no Event."""
    while event not in log_of(host):
        await asyncio.sleep(0.001)


# --- routing --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_async_tool_runs_in_its_plugins_runtime_on_the_hosts_thread(host: Host) -> None:
    result = await call(host, "library")
    assert result.structured == {"library": runtime_of(host), "thread": threading.get_ident()}


@pytest.mark.anyio
async def test_a_def_tool_runs_in_another_thread(host: Host) -> None:
    result = await call(host, "thread")
    assert result.structured is not None
    assert result.structured["thread"] != threading.get_ident()


@pytest.mark.anyio
async def test_a_def_tool_placed_on_the_loop_runs_there(host: Host) -> None:
    result = await call(host, "quick")
    assert result.structured == {"result": threading.get_ident()}


@pytest.mark.anyio
async def test_a_neutral_tool_runs_in_the_runtime_of_its_caller(host: Host) -> None:
    assert (await call(host, "neutral")).text == "asyncio"
    nested = await call(host, "relay", {"to": "neutral"})
    assert nested.structured is not None
    assert nested.structured["text"] == runtime_of(host)


@pytest.mark.anyio
async def test_a_tool_calls_a_tool_of_the_same_runtime_and_one_in_a_thread(host: Host) -> None:
    nested = await call(host, "relay", {"to": "library"})
    assert nested.structured is not None
    assert nested.structured["data"]["library"] == runtime_of(host)
    threaded = await call(host, "relay", {"to": "thread"})
    assert threaded.structured is not None
    assert threaded.structured["data"]["thread"] != threading.get_ident()


@pytest.mark.anyio
async def test_a_def_tool_calls_an_async_one_from_its_thread(host: Host) -> None:
    result = await call(host, "relay_from_thread", {"to": "neutral"})
    assert result.text == "asyncio"
    result = await call(host, "relay_from_thread", {"to": "library"})
    assert f'"library":"{runtime_of(host)}"' in result.text


@pytest.mark.anyio
async def test_tools_of_both_runtimes_call_each_other(plugin: Make, start: Start) -> None:
    renamed = TOOLS.replace("async def ", "async def x_").replace("def x_x_", "def x_")
    renamed = renamed.replace("    def ", "    def x_").replace("def x_x_", "def x_")
    async with start(
        plugin("one", TOOLS, runtime="asyncio"), plugin("two", renamed, runtime="trio")
    ) as host:
        across = await call(
            host, "relay", {"to": "x_relay", "arguments": {"to": "library", "arguments": {}}}
        )
        assert across.structured is not None
        assert across.structured["data"]["data"]["library"] == "asyncio"
        back = await call(
            host, "x_relay", {"to": "relay", "arguments": {"to": "x_library", "arguments": {}}}
        )
        assert back.structured is not None
        assert back.structured["data"]["data"]["library"] == "trio"


# --- refusals: the tool did not start -------------------------------------------------------------


@pytest.mark.anyio
async def test_an_unknown_tool_is_refused_with_the_closest_names(host: Host) -> None:
    with pytest.raises(UnknownTool, match="Did you mean 'report'"):
        await call(host, "reprot")


@pytest.mark.anyio
async def test_arguments_that_do_not_fit_are_refused(host: Host) -> None:
    with pytest.raises(InvalidArguments, match="seconds"):
        await call(host, "sleep", {"second": 1})
    assert log_of(host) == []


@pytest.mark.anyio
async def test_a_principal_that_is_not_local_sees_nothing_and_calls_nothing(host: Host) -> None:
    assert host.tools_for(STRANGER) == ()
    assert [spec.name for spec in host.tools_for(ME)] == sorted(s.name for s in host.catalog.specs)
    with pytest.raises(NotAuthorised, match="peer:12D3Koo"):
        await call(host, "library", principal=STRANGER)


@pytest.mark.anyio
async def test_a_tool_that_is_not_listed_can_be_called_by_its_name(
    plugin: Make, start: Start
) -> None:
    code = """
        from mcpd_core import tool

        @tool(listed=False)
        async def old() -> str:
            return "old"
    """
    async with start(plugin("hidden", code, runtime="asyncio")) as host:
        assert host.tools_for(ME) == ()
        assert (await call(host, "old")).text == "old"


@pytest.mark.anyio
async def test_check_refuses_what_a_call_would_and_runs_nothing(host: Host) -> None:
    assert (await host.check("sleep", {"seconds": 60}, principal=ME)).name == "sleep"
    with pytest.raises(InvalidArguments):
        await host.check("sleep", {}, principal=ME)
    inside = await call(host, "check", {"to": "sleep", "arguments": {"seconds": 60}})
    assert inside.text == "sleep"
    inside = await call(host, "check", {"to": "sleep", "arguments": {}})
    assert inside.error is not None
    assert inside.error["code"] == "invalid_arguments"
    assert log_of(host) == []


@pytest.mark.anyio
async def test_a_tool_sees_the_contracts_of_the_others(plugin: Make, start: Start) -> None:
    code = """
        from mcpd_core import Context, tool

        @tool(listed=False, aliases=["older"])
        async def old() -> str:
            return "old"

        @tool
        async def look(name: str, ctx: Context) -> list[str]:
            found = ctx.find_tool(name)
            return [*(spec.name for spec in ctx.tools()), found.name if found else "none"]
    """
    async with start(plugin("seeing", code, runtime="asyncio")) as host:
        for name, found in (("old", "old"), ("older", "old"), ("gone", "none")):
            seen = await call(host, "look", {"name": name})
            assert seen.structured == {"result": ["look", "old", found]}


@pytest.mark.anyio
async def test_a_tool_can_hand_on_what_another_one_tells(plugin: Make, start: Start) -> None:
    code = """
        from mcpd_core import Context, tool

        @tool
        async def work(ctx: Context) -> str:
            ctx.progress(1, 2, "half")
            ctx.log("info", "working")
            return "done"

        @tool
        async def ask(relay: bool, ctx: Context) -> str:
            return (await ctx.call("work", relay=relay)).text
    """
    async with start(plugin("asking", code, runtime="asyncio")) as host:
        for relay, wanted in ((True, ([Progress(1, 2, "half")], ["working"])), (False, ([], []))):
            told: list[Progress] = []
            logged: list[str] = []
            answer = await host.call(
                "ask",
                {"relay": relay},
                principal=ME,
                client="c",
                on_progress=told.append,
                on_log=lambda _, line, into=logged: into.append(line),  # type: ignore[misc]
            )
            assert answer.text == "done"
            assert (told, logged) == wanted


@pytest.mark.anyio
async def test_calls_beyond_the_queue_are_busy(plugin: Make, start: Start) -> None:
    async with (
        start(plugin("tools", TOOLS), executor={"concurrency": 1, "queue": 1}) as host,
        anyio.create_task_group() as group,
    ):
        group.start_soon(call, host, "sleep", {"seconds": 60})
        group.start_soon(call, host, "sleep", {"seconds": 60})
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Busy) as refused:
            await call(host, "say", {"text": "x"})
        assert refused.value.retry_after > 0
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_tool_whose_code_is_gone_is_unavailable_with_the_reason(
    plugin: Make, start: Start
) -> None:
    import dataclasses

    row = plugin("tools", TOOLS)
    lost = dataclasses.replace(row.tools[0], name="lost", entry="no_such_module_here:lost")
    async with start(dataclasses.replace(row, tools=(lost,))) as host:
        with pytest.raises(ToolUnavailable, match="no_such_module_here"):
            await call(host, "lost")


@pytest.mark.anyio
async def test_a_stale_manifest_is_reported_with_the_command_that_mends_it(
    plugin: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    import dataclasses

    row = plugin("tools", TOOLS)
    say = next(spec for spec in row.tools if spec.name == "say")
    stale = dataclasses.replace(say, description="What it was before.")
    async with start(dataclasses.replace(row, tools=(stale,))) as host:
        assert (await call(host, "say", {"text": "still works"})).text == "still works"
    assert "mcpd plugins manifest" in caplog.text


# --- failures: the tool's answer ------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_tools_error_is_its_answer_with_the_next_step(host: Host) -> None:
    result = await call(host, "fail", {"how": "tool"})
    assert result.is_error
    assert result.text == "The disk is full. Free some room."
    assert result.error is not None
    assert result.error["code"] == "tool_failed"
    assert result.error["retryable"] is False


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["crash", "exit"])
async def test_a_crash_is_answered_without_internals_and_logged_with_them(
    host: Host, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = await call(host, "fail", {"how": how})
    assert result.error is not None
    assert result.error["code"] == "tool_crashed"
    assert "secret" not in result.text
    assert ("ZeroDivisionError: secret" if how == "crash" else "SystemExit: 3") in caplog.text
    assert (await call(host, "say", {"text": "alive"})).text == "alive"


@pytest.mark.anyio
async def test_a_tool_is_cancelled_at_its_own_deadline(host: Host) -> None:
    result = await call_loaded(host, "hurried")
    assert result.error is not None
    assert result.error["code"] == "deadline_exceeded"


@pytest.mark.anyio
async def test_the_callers_deadline_cancels_and_waits_for_the_clean_up(host: Host) -> None:
    result = await call_loaded(host, "sleep", {"seconds": 60, "tidy": 0.02}, timeout=0.02)
    assert result.error is not None
    assert result.error["code"] == "deadline_exceeded"
    assert log_of(host) == ["started", "cleaned"]


@pytest.mark.anyio
async def test_a_nested_tools_own_deadline_ends_it_and_not_its_caller(host: Host) -> None:
    await load(host, "hurried")
    result = await call(host, "relay", {"to": "hurried"})
    assert not result.is_error
    assert result.structured is not None
    assert result.structured["error"] is True
    assert "deadline" in result.structured["text"]


@pytest.mark.anyio
async def test_a_def_tool_learns_of_its_deadline(host: Host) -> None:
    result = await call_loaded(host, "stubborn", timeout=0.02)
    assert result.error is not None
    assert result.error["code"] == "deadline_exceeded"


@pytest.mark.anyio
async def test_cancelling_the_caller_cancels_the_tool_and_waits_for_it(host: Host) -> None:
    task = asyncio.ensure_future(call(host, "sleep", {"seconds": 60, "tidy": 0.02}))
    await logged(host, "started")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log_of(host) == ["started", "cleaned"]
    assert host.in_flight == 0


@pytest.mark.anyio
async def test_cancelling_a_def_tool_cancels_what_it_waits_for(host: Host) -> None:
    await load(host, "hurried")
    task = asyncio.ensure_future(call(host, "relay_from_thread", {"to": "hurried"}, timeout=60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert host.in_flight == 0


@pytest.mark.anyio
async def test_an_answer_larger_than_the_limit_is_an_error(plugin: Make, start: Start) -> None:
    async with start(plugin("tools", TOOLS), executor={"max_result_bytes": 1024}) as host:
        assert (await call(host, "say", {"text": "é" * 512})).is_error is False
        for text in ("x" * 1025, "é" * 600):
            result = await call(host, "say", {"text": text})
            assert result.error is not None
            assert result.error["code"] == "invalid_output"


@pytest.mark.anyio
async def test_who_keeps_the_answer_may_take_a_larger_one(plugin: Make, start: Start) -> None:
    async with start(plugin("tools", TOOLS), executor={"max_result_bytes": 1024}) as host:
        large = {"text": "x" * 2000}
        answer = await call(host, "say", large, max_result_bytes=2000)
        assert answer.text == large["text"]
        answer = await call(host, "say", {"text": "x" * 2001}, max_result_bytes=2000)
        assert answer.text.startswith(
            "The tool 'say' answered with 2,001 bytes; at most 2,000 are allowed."
        )


@pytest.mark.anyio
async def test_control_characters_do_not_reach_the_client(host: Host) -> None:
    assert (await call(host, "say", {"text": "a\x1b[31mb\x00c\td\n"})).text == "a[31mbc\td\n"
    result = await call(host, "give", {"data": {"k\x1b": ["v\x07", 1, {"x": "\x9b2J"}]}})
    assert result.structured == {"k": ["v", 1, {"x": "2J"}]}
    assert "\\u00" not in result.text


# --- the context ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_progress_and_log_lines_reach_the_caller_on_the_hosts_thread(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    threads = set()

    def note(*what: Any) -> None:
        seen.append(what[0] if len(what) == 1 else what)
        threads.add(threading.get_ident())

    with caplog.at_level(logging.INFO, "mcpd.tool"):
        await call(host, "report", on_progress=note, on_log=note)
    assert seen == [*(Progress(n, 3, f"step {n}") for n in range(3)), ("info", "half way")]
    assert "half way" in caplog.text
    await call(host, "report_from_thread", on_progress=note)
    await asyncio.sleep(0)
    assert seen[-1] == Progress(1, 2)
    assert threads == {threading.get_ident()}


@pytest.mark.anyio
async def test_the_context_tells_a_tool_about_its_call(host: Host) -> None:
    result = await call(host, "about", client="laptop", timeout=5)
    assert result.structured == {
        "tool": "about",
        "client": "laptop",
        "hurried": True,
        "principal": str(ME),
        "deadline": True,
    }


@pytest.mark.anyio
async def test_the_wrong_kind_of_call_is_answered_with_the_right_one(host: Host) -> None:
    assert "Use ctx.call_from_thread" in (await call(host, "awaited_in_thread")).text
    assert "await ctx.call(...)" in (await call(host, "misplaced")).text


@pytest.mark.anyio
async def test_a_nested_call_shares_its_callers_permit(plugin: Make, start: Start) -> None:
    for runtime in ("asyncio", "trio"):
        async with start(
            plugin(f"{runtime}_tools", TOOLS, runtime=runtime), executor={"concurrency": 1}
        ) as host:
            with anyio.fail_after(10):
                result = await call(
                    host,
                    "relay",
                    {"to": "relay", "arguments": {"to": "say", "arguments": {"text": "deep"}}},
                )
            assert "deep" in result.text


@pytest.mark.anyio
@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_a_tool_that_only_waits_leaves_its_permit_to_others(
    plugin: Make, start: Start, runtime: str
) -> None:
    async with (
        start(plugin("tools", TOOLS, runtime=runtime), executor={"concurrency": 1}) as host,
        anyio.create_task_group() as group,
    ):
        waiters = []

        async def wait() -> None:
            waiters.append((await call(host, "wait_for", {"gate": "cleaned"})).text)

        for _ in range(20):
            group.start_soon(wait)
        with anyio.fail_after(10):
            await call(host, "sleep", {"seconds": 0})
    assert waiters == ["passed"] * 20


@pytest.mark.anyio
async def test_workers_and_clients_do_not_take_each_others_permits(
    plugin: Make, start: Start
) -> None:
    async with (
        start(plugin("tools", TOOLS), executor={"concurrency": 1, "workers": 1}) as host,
        anyio.create_task_group() as group,
    ):
        group.start_soon(call, host, "sleep", {"seconds": 60})
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            assert (await call(host, "say", {"text": "w"}, admission="worker")).text == "w"
        group.cancel_scope.cancel()


def permits_of(host: Host) -> list[dict[str, int]]:
    return [dict(admission.stats()) for admission in host._admission.values()]


@pytest.mark.anyio
@pytest.mark.parametrize("tool", ["wait_twice", "wait_from_thread"])
async def test_no_permit_is_lost_when_a_nested_call_is_cut_off_in_its_wait(
    host: Host, tool: str
) -> None:
    with anyio.fail_after(20):
        assert (await call_loaded(host, tool, timeout=0.1)).is_error
        while any(stats["running"] for stats in permits_of(host)):
            await asyncio.sleep(0.001)
    assert permits_of(host) == [{"running": 0, "waiting": 0}] * 2


@pytest.mark.anyio
async def test_a_def_tool_ends_only_when_what_it_called_has_cleaned_up(host: Host) -> None:
    result = await call_loaded(host, "tidy_from_thread", timeout=0.1)
    assert result.error is not None
    assert result.error["code"] == "deadline_exceeded"
    assert log_of(host) == ["started", "cleaned"]


@pytest.mark.anyio
async def test_a_cancellation_that_a_tool_hides_in_a_group_is_answered_like_any_failure(
    host: Host,
) -> None:
    result = await call(host, "grouped")
    assert result.error is not None
    assert result.error["code"] == "tool_crashed"


@pytest.mark.anyio
async def test_an_answer_that_a_tool_shaped_itself_keeps_its_failure(host: Host) -> None:
    result = await call(host, "by_hand", {"text": "x"})
    assert result == CallResult('{"n":null}', {"n": None}, {"code": "own"})


@pytest.mark.anyio
async def test_an_error_may_hold_anything_and_still_reaches_the_client(host: Host) -> None:
    result = await call(host, "odd_error")
    assert result.text == "an exception"
    assert result.error is not None
    assert result.error["1,2"] == [3]
    assert result.error["x"] == ""


@pytest.mark.anyio
async def test_a_cancelled_start_of_trio_does_not_spoil_it_for_the_next_call(
    plugin: Make, start: Start
) -> None:
    for steps in range(12):
        async with start(plugin(f"tools{steps}", TOOLS, runtime="trio")) as host:
            task = asyncio.ensure_future(call(host, "library"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            result = await call(host, "library")
            assert result.structured is not None
            assert result.structured["library"] == "trio"


@pytest.mark.anyio
async def test_an_import_that_takes_longer_than_the_deadline_is_a_refusal(
    plugin: Make, start: Start
) -> None:
    import dataclasses

    row = plugin("slow", TOOLS)
    say = next(spec for spec in row.tools if spec.name == "say")
    Path(sys_path_of(row)).with_name("imported_slowly.py").write_text(
        "import threading\nfrom mcpd_core import tool\ngate = threading.Event()\n"
        "gate.wait(2)\n@tool\nasync def say(text: str) -> str:\n    return text\n"
    )
    slow = dataclasses.replace(say, entry="imported_slowly:say")
    async with start(dataclasses.replace(row, tools=(slow,))) as host:
        with pytest.raises(ToolUnavailable, match="has not been loaded in time"):
            await call(host, "say", {"text": "x"}, timeout=0.05)
        import sys

        sys.modules["imported_slowly"].gate.set()
        with anyio.fail_after(10):
            assert (await call(host, "say", {"text": "x"}, timeout=10)).text == "x"


def sys_path_of(row: PluginRow) -> str:
    import sys

    path = sys.modules[row.entry].__file__
    assert path is not None
    return path


@pytest.mark.anyio
async def test_a_name_that_passes_to_another_plugin_runs_that_plugins_code(
    plugin: Make, start: Start
) -> None:
    source = "from mcpd_core import tool\n@tool\nasync def who() -> str:\n    return '{}'\n"
    rows = [plugin(name, source.format(name)) for name in ("one", "two")]
    async with start(rows[0]) as host:
        assert (await call(host, "who")).text == "one"
        host.revise(Inventory((rows[1],)))
        assert (await call(host, "who")).text == "two"


@pytest.mark.anyio
async def test_a_def_tool_never_blocks_the_loop_because_a_manifest_forgot_its_placement(
    plugin: Make, start: Start
) -> None:
    import dataclasses

    row = plugin("tools", TOOLS)
    thread = next(spec for spec in row.tools if spec.name == "thread")
    forgotten = dataclasses.replace(thread, placement="loop")
    async with start(dataclasses.replace(row, tools=(forgotten,))) as host:
        result = await call(host, "thread")
        assert result.structured is not None
        assert result.structured["thread"] != threading.get_ident()


@pytest.mark.anyio
@pytest.mark.parametrize("entry", ["os:environ", "os:sep", "math:pi", "os:system"])
async def test_an_entry_that_is_no_tool_is_refused_without_being_shown(
    plugin: Make, start: Start, entry: str
) -> None:
    import dataclasses

    row = plugin("tools", TOOLS)
    wrong = dataclasses.replace(row.tools[0], entry=entry)
    async with start(dataclasses.replace(row, tools=(wrong,))) as host:
        with pytest.raises(ToolUnavailable) as refused:
            await call(host, wrong.name)
        assert os.environ["PATH"] not in str(refused.value)


# --- services -------------------------------------------------------------------------------------

SERVICE = """
    from contextlib import asynccontextmanager
    import anyio
    from mcpd_core import Health, Service, hookimpl

    events = []

    class Counter:
        def __init__(self, host):
            self.host, self.value = host, 0

        def add(self, n):
            self.value += n
            return self.value

        def health(self):
            return Health(True, "counting", pending="1 thing left")

    @asynccontextmanager
    async def open_counter(host):
        events.append(f"open {host.name} {host.data_dir.is_dir()} {host.settings}")
        async with anyio.create_task_group() as group:
            yield Counter(host)
            events.append("close")
            group.cancel_scope.cancel()

    @asynccontextmanager
    async def open_broken(host):
        raise OSError("no such disk")
        yield

    @asynccontextmanager
    async def open_leaving(host):
        raise SystemExit("bad configuration")
        yield

    @asynccontextmanager
    async def open_hanging(host):
        events.append("hanging")
        await anyio.sleep(3600)
        yield

    @asynccontextmanager
    async def open_at_second(host):
        events.append("try")
        if events.count("try") < 2:
            raise OSError("not yet")
        yield Counter(host)

    @hookimpl
    def mcpd_services():
        here = __name__
        return [
            Service("counter", f"{here}:open_counter", "RUNTIME", start="serve"),
            Service("broken", f"{here}:open_broken", "RUNTIME", start="serve"),
            Service("lost", f"{here}:nowhere", "RUNTIME"),
            Service("leaving", f"{here}:open_leaving", "RUNTIME"),
            Service("hanging", f"{here}:open_hanging", "RUNTIME"),
            Service("second", f"{here}:open_at_second", "RUNTIME"),
        ]
"""


@pytest.mark.anyio
@pytest.mark.parametrize("owner", ["asyncio", "trio"])
@pytest.mark.parametrize("caller", ["asyncio", "trio"])
async def test_a_service_is_reached_from_either_runtime(
    plugin: Make, start: Start, owner: str, caller: str
) -> None:
    import sys

    service = plugin(
        "service", SERVICE.replace("RUNTIME", owner), runtime=owner, hooks=("mcpd_services",)
    )
    async with start(service, plugin("tools", TOOLS, runtime=caller)) as host:
        assert (await call(host, "count")).structured == {"result": 1}
        assert (await call(host, "count")).structured == {"result": 2}
        assert host.health()["counter"].detail == "counting"
        assert host.pending() == ["1 thing left"]
    assert sys.modules[service.entry].events == ["open counter True None", "close"]


@pytest.mark.anyio
async def test_a_service_that_cannot_start_says_so_and_disturbs_no_other(
    plugin: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    service = plugin("service", SERVICE.replace("RUNTIME", "trio"), hooks=("mcpd_services",))
    async with start(service, plugin("tools", TOOLS, runtime="trio")) as host:
        await host.start_services()
        assert host.health()["counter"].ok
        assert not host.health()["broken"].ok
        assert "no such disk" in caplog.text
        result = await call(host, "count", {"name": "broken"})
        assert result.error is not None
        assert result.error["code"] == "service_unavailable"
        for name in ("lost", "nobody"):
            result = await call(host, "count", {"name": name})
            assert result.error is not None
            assert result.error["code"] == "service_unavailable"
            assert name in result.text


@pytest.mark.anyio
@pytest.mark.parametrize("owner", ["asyncio", "trio"])
async def test_a_service_that_exits_or_hangs_in_its_start_takes_nothing_with_it(
    plugin: Make, start: Start, owner: str
) -> None:
    service = plugin("service", SERVICE.replace("RUNTIME", owner), hooks=("mcpd_services",))
    with anyio.fail_after(20):
        async with start(service, plugin("tools", TOOLS)) as host:
            result = await call(host, "count", {"name": "leaving"})
            assert result.error is not None
            assert result.error["code"] == "service_unavailable"
            assert not host.health()["leaving"].ok
            result = await call(host, "count", {"name": "hanging"}, timeout=0.1)
            assert result.is_error
            assert host.pending() == ["hanging is starting"]
            assert (await call(host, "say", {"text": "alive"})).text == "alive"


@pytest.mark.anyio
async def test_a_start_that_failed_is_tried_again_when_the_service_is_asked_for(
    plugin: Make, start: Start
) -> None:
    service = plugin("service", SERVICE.replace("RUNTIME", "trio"), hooks=("mcpd_services",))
    async with start(service, plugin("tools", TOOLS)) as host:
        assert (await call(host, "count", {"name": "second"})).is_error
        assert (await call(host, "count", {"name": "second"})).structured == {"result": 1}


THREADED = """
    import contextvars, threading
    from contextlib import asynccontextmanager
    import anyio
    from mcpd_core import Service, hookimpl

    class Threaded:
        def __init__(self, host):
            self.host = host

        async def add(self, n):
            here, heard, all_heard = threading.get_ident(), [], anyio.Event()
            asking = contextvars.ContextVar("asking", default=False)

            def hear(k):
                heard.append((k, threading.get_ident() == here and not asking.get()))
                if k == n:
                    all_heard.set()

            def tell():
                asking.set(True)
                for k in range(n + 1):
                    self.host.call_soon(lambda k=k: hear(k))

            thread = threading.Thread(target=tell)
            thread.start()
            await all_heard.wait()
            thread.join()
            assert heard == [(k, True) for k in range(n + 1)], heard
            return len(heard)

    @asynccontextmanager
    async def open_threaded(host):
        yield Threaded(host)

    @hookimpl
    def mcpd_services():
        return [Service("counter", f"{__name__}:open_threaded", "RUNTIME")]
"""


@pytest.mark.anyio
@pytest.mark.parametrize("owner", ["asyncio", "trio"])
async def test_a_thread_of_a_service_has_things_called_on_the_services_own_in_their_order(
    plugin: Make, start: Start, owner: str
) -> None:
    service = plugin(
        "service", THREADED.replace("RUNTIME", owner), runtime=owner, hooks=("mcpd_services",)
    )
    async with start(service, plugin("tools", TOOLS)) as host:
        with anyio.fail_after(20):
            assert (await call(host, "count")).structured == {"result": 2}


def test_what_a_thread_asks_for_after_the_end_is_nobodys_business() -> None:
    async def view() -> HostView:
        host = cast(Host, SimpleNamespace(plugin_settings={}))
        return HostView(host, Service("counter", "nowhere:at_all", "trio"), "plugin")

    ended = asyncio.run(view())
    ended.call_soon(lambda: pytest.fail("called after the end"))


WORKER = """
    from contextlib import asynccontextmanager
    import anyio
    from mcpd_core import Health, InvalidArguments, Principal, Service, hookimpl

    ME = Principal("local", "1")

    class Worker:
        def __init__(self, host):
            self.host = host
            self.died = anyio.Event()

        async def add(self, n):
            seen = []
            spec = await self.host.check("say", {"text": "x"}, principal=ME)
            try:
                await self.host.check("say", {}, principal=ME)
            except InvalidArguments:
                seen.append("refused")
            result = await self.host.call(
                "report", {}, principal=ME, client="worker", timeout=5, on_progress=seen.append
            )
            assert spec == self.host.tool("say") and self.host.tool("nobody") is None
            assert not result.is_error
            return len(seen)

        def die(self):
            self.died.set()

        def health(self):
            raise RuntimeError("not well")

    @asynccontextmanager
    async def open_worker(host):
        worker = Worker(host)

        async def fail():
            await worker.died.wait()
            raise OSError("the disk is gone")

        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            yield worker
            group.cancel_scope.cancel()

    @hookimpl
    def mcpd_services():
        return [Service("counter", f"{__name__}:open_worker", "RUNTIME")]
"""


@pytest.mark.anyio
@pytest.mark.parametrize("owner", ["asyncio", "trio"])
async def test_a_service_calls_tools_and_its_death_is_told(
    plugin: Make, start: Start, owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = plugin("service", WORKER.replace("RUNTIME", owner), hooks=("mcpd_services",))
    async with start(service, plugin("tools", TOOLS)) as host:
        assert (await call(host, "count")).structured == {"result": 4}
        assert host.health()["counter"].detail == "health() raised RuntimeError."
        worker = await host.service("counter", host.lanes.loop)
        dying = worker.die()
        assert (dying is not None) == (owner == "trio"), "a proxy's methods are awaited"
        if dying is not None:
            await dying
        with anyio.fail_after(10):
            while host.health()["counter"].detail.startswith("health"):
                await asyncio.sleep(0.001)
        assert "failed" in host.health()["counter"].detail
        assert "the disk is gone" in caplog.text
        result = await call(host, "count")
        assert result.error is not None
        assert result.error["code"] == "service_unavailable"


@pytest.mark.anyio
async def test_two_plugins_cannot_declare_the_same_service(plugin: Make, start: Start) -> None:
    source = SERVICE.replace("RUNTIME", "asyncio")
    rows = [plugin(name, source, hooks=("mcpd_services",)) for name in ("first", "second")]
    async with start(*rows) as host:
        states = sorted((row.state, row.reason) for row in host.inventory.rows)
        assert [state for state, _ in states] == ["broken", "enabled"]
        assert "both declare a service 'counter'" in states[0][1]


@pytest.mark.anyio
async def test_services_need_a_data_directory(plugin: Make, start: Start) -> None:
    service = plugin("service", SERVICE.replace("RUNTIME", "asyncio"), hooks=("mcpd_services",))
    async with start(service, plugin("tools", TOOLS), data_dir=None) as host:
        result = await call(host, "count")
        assert "needs a data directory" in result.text


# --- plugins --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_observers_see_every_call_nested_ones_included(plugin: Make, start: Start) -> None:
    import sys

    source = """
        from mcpd_core import hookimpl

        seen = []

        class Observer:
            def before(self, call):
                seen.append(("before", call.spec.name, call.parent and call.parent.spec.name))

            def after(self, call, outcome):
                seen.append(("after", call.spec.name, outcome.seconds >= 0, type(outcome.error)))

        class Broken:
            def before(self, call):
                raise RuntimeError("observer")

            def after(self, call, outcome):
                raise RuntimeError("observer")

        @hookimpl
        def mcpd_call_observers():
            return [Broken(), Observer()]
    """
    row = plugin("watch", source, hooks=("mcpd_call_observers",))
    async with start(row, plugin("tools", TOOLS, runtime="trio")) as host:
        await call(host, "relay", {"to": "say", "arguments": {"text": "x"}})
    none = type(None)
    assert sys.modules[row.entry].seen == [
        ("before", "relay", None),
        ("before", "say", "relay"),
        ("after", "say", True, none),
        ("after", "relay", True, none),
    ]


@pytest.mark.anyio
async def test_a_plugin_may_select_the_runtime_of_a_tool(plugin: Make, start: Start) -> None:
    source = """
        import dataclasses
        from mcpd_core import hookimpl

        @hookimpl
        def mcpd_select_runtime(spec, available):
            if spec.name == "quick":
                return dataclasses.replace(spec, placement="thread")
    """
    async with start(
        plugin("tools", TOOLS), plugin("select", source, hooks=("mcpd_select_runtime",))
    ) as host:
        result = await call(host, "quick")
        assert result.structured is not None
        assert result.structured["result"] != threading.get_ident()


SETTINGS = """
    import pydantic
    from mcpd_core import hookimpl

    class Model(pydantic.BaseModel, extra="forbid"):
        workers: int = 4

    @hookimpl
    def mcpd_settings():
        return "service", Model
"""


@pytest.mark.anyio
async def test_a_plugins_settings_are_validated_by_its_model(plugin: Make, start: Start) -> None:
    row = plugin("service", SETTINGS, hooks=("mcpd_settings",))
    async with start(row, service={"workers": "2"}) as host:
        assert host.plugin_settings["service"].workers == 2
    with pytest.raises(SettingsError, match=r"\[service\] workers"):
        async with start(row, service={"workers": "many"}):
            pass
    with pytest.raises(SettingsError, match=r"\[service\] worker"):
        async with start(row, service={"worker": 2}):
            pass


@pytest.mark.anyio
async def test_a_plugin_whose_hooks_cannot_be_imported_is_broken_and_skipped(
    plugin: Make, start: Start
) -> None:
    import dataclasses

    row = plugin("tools", TOOLS)
    bad = dataclasses.replace(
        row, name="bad", entry="no_such_plugin_module", hooks=("mcpd_services",), tools=()
    )
    async with start(bad, row) as host:
        states = {r.name: r.state for r in host.inventory.rows}
        assert states == {"bad": "broken", "tools": "enabled"}
        assert (await call(host, "say", {"text": "x"})).text == "x"


@pytest.mark.anyio
async def test_a_plugin_that_was_asked_for_and_does_not_work_stops_the_start(
    plugin: Make, start: Start
) -> None:
    import dataclasses

    row = plugin("tools", TOOLS)
    bad = dataclasses.replace(row, entry="no_such_plugin_module", hooks=("mcpd_services",))
    with pytest.raises(SelectionError, match="'tools' was asked for and does not work"):
        async with start(bad, serve={"plugins": ("tools",)}):
            pass


@pytest.mark.anyio
async def test_a_plugin_may_say_what_its_tools_are_when_it_is_served(
    plugin: Make, start: Start
) -> None:
    import dataclasses

    source = """
        import dataclasses
        from mcpd_core import hookimpl
        from mcpd_core.schema import describe, tools_of
        from mcpd_core import tool

        @tool
        async def said() -> str:
            return "so"

        @hookimpl
        def mcpd_tool_metadata(plugin):
            if plugin == "late":
                spec = describe(said, plugin=plugin, runtime="asyncio")
                return [dataclasses.replace(spec, description="Said late.")]
    """
    row = dataclasses.replace(plugin("late", source), tools=(), hooks=("mcpd_tool_metadata",))
    async with start(row) as host:
        spec = host.catalog.get("said")
        assert spec is not None
        assert spec.description == "Said late."


@pytest.mark.anyio
async def test_a_settings_section_belongs_to_one_plugin_and_an_orphan_is_reported(
    plugin: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [plugin(name, SETTINGS, hooks=("mcpd_settings",)) for name in ("first", "second")]
    with pytest.raises(SettingsError, match="both claim the settings section"):
        async with start(*rows):
            pass
    async with start(plugin("tools", TOOLS), nobody={"x": 1}):
        assert "[nobody] belongs to no plugin" in caplog.text


@pytest.mark.anyio
async def test_a_plugin_without_manifest_registers_its_tools_when_served(
    plugin: Make, start: Start
) -> None:
    import dataclasses

    source = """
        from mcpd_core import hookimpl, tool

        @tool
        async def improvised() -> str:
            '''Made up as it goes.'''
            return "here"

        @hookimpl
        def mcpd_register_tools(registrar):
            registrar.add(improvised)
    """
    row = dataclasses.replace(plugin("jazz", source), tools=(), dynamic=True)
    async with start(row) as host:
        assert host.catalog.get("improvised") is not None
        assert (await call(host, "improvised")).text == "here"


# --- permits --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_thousand_calls_at_once_are_all_answered(host: Host) -> None:
    # Of eight clients, with the limits as they come: most of them wait for their turn.
    with anyio.fail_after(50):
        answers = await asyncio.gather(
            *(call(host, "say", {"text": str(n)}, client=f"c{n % 8}") for n in range(1000))
        )
    assert [answer.text for answer in answers] == [str(n) for n in range(1000)]
    assert permits_of(host) == [{"running": 0, "waiting": 0}] * 2
    assert host.in_flight == 0


@pytest.mark.anyio
async def test_a_call_costs_a_task_for_an_asyncio_tool_and_none_for_a_trio_tool(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await call(host, "say", {"text": "imported and started"})
    loop = asyncio.get_running_loop()
    made: list[Any] = []
    create_task = loop.create_task

    def counted(coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coroutine)
        return create_task(coroutine, **options)

    monkeypatch.setattr(loop, "create_task", counted)
    await call(host, "say", {"text": "x"})
    assert len(made) == {"asyncio": 1, "trio": 0}[runtime_of(host)]


@pytest.mark.anyio
@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_a_permit_is_held_until_the_clean_up_is_over(
    plugin: Make, start: Start, runtime: str
) -> None:
    async with start(plugin("tools", TOOLS, runtime=runtime), executor={"concurrency": 1}) as host:
        log = log_of(host)
        for options in ({}, {"timeout": 0.05}):
            log.clear()
            first = asyncio.ensure_future(
                call(host, "sleep", {"seconds": 60, "tidy": 0.05}, **options)
            )
            await logged(host, "started")
            second = asyncio.ensure_future(call(host, "sleep", {"seconds": 0}))
            await asyncio.sleep(0)
            if not options:
                first.cancel()
            await asyncio.wait([first, second])
            assert log == ["started", "cleaned", "started", "cleaned"]


@pytest.mark.anyio
async def test_a_call_whose_deadline_comes_while_it_waits_is_busy_and_may_be_made_again(
    plugin: Make, start: Start
) -> None:
    async with start(plugin("tools", TOOLS), executor={"concurrency": 1}) as host:
        running = asyncio.ensure_future(call(host, "sleep", {"seconds": 60}))
        await logged(host, "started")
        with pytest.raises(Busy, match="before the deadline") as refused:
            await call(host, "say", {"text": "x"}, timeout=0.02)
        assert refused.value.retry_after > 0
        waiting = asyncio.ensure_future(call(host, "say", {"text": "x"}))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert permits_of(host)[0] == {"running": 1, "waiting": 0}
        running.cancel()
        await asyncio.wait([running])
        assert (await call(host, "say", {"text": "x"})).text == "x"


@pytest.mark.anyio
async def test_clients_take_turns_and_a_busy_tool_holds_up_only_its_own_calls(
    plugin: Make, start: Start
) -> None:
    limits = {"concurrency": 2, "per_client": 2, "per_tool": 1}
    async with start(plugin("tools", TOOLS), executor=limits) as host:
        slow = asyncio.ensure_future(call(host, "sleep", {"seconds": 60}, client="greedy"))
        await logged(host, "started")
        behind = asyncio.ensure_future(call(host, "sleep", {"seconds": 0}, client="greedy"))
        order: list[str] = []

        async def say(client: str) -> None:
            await call(host, "say", {"text": "x"}, client=client)
            order.append(client)

        greedy = [asyncio.ensure_future(say("greedy")) for _ in range(20)]
        modest = asyncio.ensure_future(say("modest"))
        with anyio.fail_after(20):
            await asyncio.wait([*greedy, modest])
        assert order.index("modest") <= 2
        assert not behind.done()
        slow.cancel()
        await asyncio.wait([slow, behind])
        assert behind.result().text == "slept"


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_drain_waits_for_a_tool_that_ignores_its_cancellation(host: Host) -> None:
    task = asyncio.ensure_future(call(host, "deaf"))
    await logged(host, "started")
    host.stop_accepting()
    await host.drain(0.01)
    assert log_of(host) == ["started", "ended"]
    result = await task
    assert result.error is not None
    assert result.error["code"] == "interrupted"
    assert permits_of(host) == [{"running": 0, "waiting": 0}] * 2


@pytest.mark.anyio
async def test_who_wants_to_know_of_the_end_is_told_once_and_before_any_call_is_waited_for(
    host: Host,
) -> None:
    told: list[str] = []
    host.on_closing(lambda: told.append(f"a defect {1 / 0}"))
    host.on_closing(lambda: told.append("first"))
    forget = host.on_closing(lambda: told.append("forgotten"))
    forget()
    forget()
    task = asyncio.ensure_future(call(host, "sleep", {"seconds": 0.05}))
    await logged(host, "started")
    host.stop_accepting()
    assert told == ["first"]
    host.stop_accepting()
    host.on_closing(lambda: told.append("late"))()
    assert told == ["first", "late"]
    await host.drain(30)
    assert (await task).text == "slept"


@pytest.mark.anyio
async def test_a_drain_lets_calls_finish_within_the_grace(host: Host) -> None:
    task = asyncio.ensure_future(call(host, "sleep", {"seconds": 0.05}))
    await logged(host, "started")
    host.stop_accepting()
    with pytest.raises(HostClosed):
        await call(host, "say", {"text": "late"})
    await host.drain(30)
    assert (await task).text == "slept"


@pytest.mark.anyio
async def test_a_drain_cancels_what_is_left_and_answers_it(host: Host) -> None:
    task = asyncio.ensure_future(call(host, "sleep", {"seconds": 60, "tidy": 0.02}))
    await logged(host, "started")
    host.stop_accepting()
    await host.drain(0.01)
    result = await task
    assert result.error is not None
    assert result.error["code"] == "interrupted"
    assert log_of(host) == ["started", "cleaned"]


@pytest.mark.anyio
async def test_a_call_that_never_started_is_refused_by_the_drain(
    plugin: Make, start: Start
) -> None:
    async with start(plugin("tools", TOOLS), executor={"concurrency": 1}) as host:
        running = asyncio.ensure_future(call(host, "sleep", {"seconds": 60}))
        waiting = asyncio.ensure_future(call(host, "say", {"text": "x"}))
        await logged(host, "started")
        host.stop_accepting()
        await host.drain(0.01)
        assert (await running).is_error
        with pytest.raises(HostClosed):
            await waiting


@pytest.mark.anyio
async def test_a_service_is_not_started_while_the_host_closes(plugin: Make, start: Start) -> None:
    row = plugin("service", SERVICE.replace("RUNTIME", "asyncio"), hooks=("mcpd_services",))
    async with start(row) as host:
        host.stop_accepting()
        with pytest.raises(ServiceUnavailable, match="not started any more"):
            await host.service("counter", host.lanes.loop)


def test_every_refusal_says_that_the_tool_did_not_start() -> None:
    for kind in (UnknownTool, InvalidArguments, NotAuthorised, Busy, ToolUnavailable, HostClosed):
        assert issubclass(kind, CallRefused)
