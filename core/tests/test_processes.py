"""Process placement: tools in processes of their own, with the host that guards them."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import (
    InvalidArguments,
    ManifestError,
    Principal,
    Progress,
    SettingsError,
    ToolUnavailable,
    tool,
)
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.manifest import checked, parse_tools, render_tool
from mcpd_core.schema import describe, tools_of
from mcpd_core.settings import load_settings
from mcpd_core.spec import CallResult

ME = Principal("local", str(os.getuid()))
LINUX = sys.platform == "linux"
#: The daemon runs on uvloop, where it is installed.
LOOPS = ["asyncio"]
if importlib.util.find_spec("uvloop") is not None:
    LOOPS.append(("asyncio", {"use_uvloop": True}))  # type: ignore[arg-type]

TOOLS = """
    from __future__ import annotations
    import asyncio, gc, os, resource, signal, subprocess, sys, time
    import anyio
    from mcpd_core import CallResult, Context, ToolError, tool

    @tool(placement="process")
    def pid() -> int:
        return os.getpid()

    @tool(placement="process", runtime="asyncio")
    async def in_asyncio(ctx: Context) -> dict[str, object]:
        assert asyncio.current_task() is not None
        return {"pid": os.getpid(), "principal": str(ctx.principal), "tool": ctx.tool,
                "client": ctx.client, "hurried": ctx.remaining() < 120}

    @tool(placement="process", runtime="trio")
    async def in_trio() -> int:
        import trio.lowlevel
        trio.lowlevel.current_task()
        return os.getpid()

    @tool(placement="process")
    def report(ctx: Context) -> int:
        for n in range(3):
            ctx.progress(n, 3, f"step {n}")
        ctx.log("info", "half way")
        print("for the log, and not for any wire")
        ctx.check_cancelled()
        return os.getpid()

    @tool(placement="process")
    def allocate(mebibytes: int) -> int:
        return len(bytearray(mebibytes << 20)) >> 20

    @tool(placement="process", memory_mb=400)
    def allocate_in_little(mebibytes: int) -> int:
        return len(bytearray(mebibytes << 20)) >> 20

    @tool(placement="process")
    def spin(note: str) -> None:
        with open(note, "w") as file:
            file.write(str(os.getpid()))
        while True:
            pass

    @tool(placement="process")
    def tidy(note: str) -> None:
        try:
            with open(note, "w") as file:
                file.write(str(os.getpid()))
            while True:
                pass
        finally:
            with open(note + ".tidy", "w") as file:
                file.write("def")

    @tool(placement="process", runtime="asyncio")
    async def tidy_in_asyncio(note: str) -> None:
        try:
            with open(note, "w") as file:
                file.write(str(os.getpid()))
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.01)
            with open(note + ".tidy", "w") as file:
                file.write("asyncio")

    @tool(placement="process", runtime="trio")
    async def tidy_in_trio(note: str) -> None:
        import trio
        try:
            with open(note, "w") as file:
                file.write(str(os.getpid()))
            await trio.sleep(600)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
            with open(note + ".tidy", "w") as file:
                file.write("trio")

    @tool(placement="process")
    def stubborn(note: str) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(note, "w") as file:
            file.write(str(os.getpid()))
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass

    @tool(placement="process")
    def with_child(note: str) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(note, "w") as file:
            file.write(str(child.pid))
        child.wait()

    @tool(placement="process")
    def die(how: str) -> str:
        if how == "exit":
            os._exit(3)
        if how == "sys.exit":
            sys.exit(3)
        if how == "raise":
            raise ZeroDivisionError("secret")
        if how == "odd":
            raise ToolError(OSError("an exception"), hint=4, data={(1, 2): object()})
        if how == "own":
            class Own(Exception):
                def __init__(self, text, needed):
                    super().__init__(text)
                    self.held = object()
            raise Own("secret", 1)
        if how == "tool":
            raise ToolError("The disk is full.", hint="Free some.", retryable=False,
                            data={"free": 0, "set": {1}})
        os.kill(os.getpid(), getattr(signal, how))
        return "not dead"

    @tool(placement="process")
    def give(what: str) -> object:
        if what == "unserialisable":
            return object()
        if what == "much":
            return "x" * 3_000_000
        if what == "flood":
            return "x" * 40_000_000
        return CallResult("own", {"result": 1}, error={"code": "own", "odd": {1}})

    @tool(placement="process")
    def forge(line: str) -> None:
        for holder in gc.get_objects():
            if type(holder).__name__ == "Child":
                holder._socket.sendall(line.encode())
        time.sleep(600)

    @tool(placement="process", runtime="asyncio")
    async def reach(what: str, ctx: Context) -> str:
        if what == "call":
            await ctx.call("pid")
        if what == "check":
            await ctx.check("pid")
        if what == "find":
            ctx.find_tool("pid")
        if what == "list":
            ctx.tools()
        if what == "service":
            await ctx.service("x")
        if what == "waiting":
            async with ctx.waiting():
                pass
        if what == "thread":
            ctx.call_from_thread("pid")
        return "reached"

    @tool
    async def relay(to: str, ctx: Context) -> str:
        return (await ctx.call(to)).text
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Make = Callable[..., PluginRow]
Start = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a plugin of one module and return its row; the module is not left imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, source: str, *, runtime: Any = "any", stale: str = "") -> PluginRow:
        module = f"{name}_{tmp_path.name.replace('-', '_')}"
        file = tmp_path / f"{module}.py"
        file.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[module] = loaded  # where annotations are looked up
        try:
            spec.loader.exec_module(loaded)
            tools = tuple(describe(f, plugin=name, runtime=runtime) for f in tools_of(loaded))
        finally:
            del sys.modules[module]
        if stale:
            file.write_text(textwrap.dedent(stale))
        return PluginRow(
            name=name,
            distribution=f"mcpd-{name}",
            version="1.0",
            runtime=runtime,
            state="enabled",
            entry=module,
            tools=tools,
        )

    return make


@pytest.fixture
def start() -> Start:
    @asynccontextmanager
    async def started(*rows: PluginRow, **sections: dict[str, Any]) -> AsyncIterator[Host]:
        settings = load_settings(config=None, env={}, overrides=sections)
        async with Host(Inventory(rows), settings, data_dir=None) as host:
            yield host

    return started


@pytest.fixture
async def host(plugin: Make, start: Start, anyio_backend: str) -> AsyncIterator[Host]:
    async with start(plugin("tools", TOOLS), processes={"workers": 2}) as host:
        yield host


async def call(host: Host, tool: str, arguments: Any = None, **options: Any) -> CallResult:
    options = {"principal": ME, "client": "test", **options}
    return await host.call(tool, arguments or {}, **options)


async def number(host: Host, tool: str, arguments: Any = None, **options: Any) -> int:
    result = await call(host, tool, arguments, **options)
    assert result.structured is not None, result
    found: int = result.structured["result"]
    return found


def pids(host: Host) -> tuple[int, ...]:
    return host.lanes.processes.pids


def read(note: Path) -> str:
    return note.read_text() if note.exists() else ""


async def noted(note: Path) -> int:
    """Wait until a tool has written its process id."""
    while not read(note):
        await asyncio.sleep(0.005)
    return int(read(note))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if LINUX:
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            # It was reaped between the two questions.
            return False
        return status.rpartition(")")[2].split()[0] != "Z"
    return True


async def ended(pid: int) -> None:
    """Wait for the end of a process that somebody else reaps."""
    while alive(pid):
        await asyncio.sleep(0.005)


# --- where it runs --------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_a_tool_runs_in_another_process_that_is_used_again(host: Host) -> None:
    first = await number(host, "pid")
    assert first not in (os.getpid(), os.getppid())
    assert await number(host, "pid") == first
    assert pids(host) == (first,)


@pytest.mark.anyio
async def test_nothing_is_started_before_it_is_needed(host: Host) -> None:
    assert pids(host) == ()


@pytest.mark.anyio
async def test_the_host_never_imports_the_module_of_such_a_tool(plugin: Make, start: Start) -> None:
    source = """
        from mcpd_core import tool

        @tool(placement="process")
        def pid() -> int:
            import os
            return os.getpid()
    """
    row = plugin("apart", source)
    async with start(row) as host:
        assert await number(host, "pid") in pids(host)
        spec = await host.check("pid", {}, principal=ME)
        assert spec.placement == "process"
    assert row.entry not in sys.modules


@pytest.mark.anyio
async def test_an_async_tool_runs_in_its_own_library_there(host: Host) -> None:
    told = (await call(host, "in_asyncio")).structured
    assert told is not None
    assert told.pop("pid") in pids(host)
    assert told == {"principal": str(ME), "tool": "in_asyncio", "client": "test", "hurried": True}
    assert await number(host, "in_trio") in pids(host)


@pytest.mark.anyio
async def test_trio_and_asyncio_code_alike_call_a_tool_in_a_process(
    plugin: Make, start: Start
) -> None:
    relay = """
        from mcpd_core import Context, tool

        @tool
        async def relay_{0}(to: str, ctx: Context) -> str:
            import sniffio
            assert sniffio.current_async_library() == "{0}"
            return (await ctx.call(to)).text
    """
    async with start(
        plugin("tools", TOOLS),
        plugin("one", relay.format("trio"), runtime="trio"),
        plugin("two", relay.format("asyncio"), runtime="asyncio"),
    ) as host:
        for library in ("trio", "asyncio"):
            result = await call(host, f"relay_{library}", {"to": "pid"})
            assert result.text in [f'{{"result":{pid}}}' for pid in pids(host)]


@pytest.mark.anyio
async def test_progress_and_log_lines_come_over(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    reports: list[Progress] = []
    lines: list[tuple[str, str]] = []
    await number(
        host, "report", on_progress=reports.append, on_log=lambda *line: lines.append(line)
    )
    assert reports == [Progress(float(n), 3.0, f"step {n}") for n in range(3)]
    assert lines == [("info", "half way")]
    out, err = capfd.readouterr()
    assert out == ""
    assert "for the log, and not for any wire" in err


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["call", "check", "find", "list", "service", "waiting", "thread"])
async def test_what_needs_the_host_is_refused_in_a_process(host: Host, what: str) -> None:
    result = await call(host, "reach", {"what": what})
    assert result.error is not None
    assert "runs in a process of its own and cannot" in result.error["message"]
    assert 'Place it with "loop" or "thread"' in result.error["hint"]


# --- arguments and answers ------------------------------------------------------------------------


@pytest.mark.anyio
async def test_arguments_are_checked_where_the_code_is_and_refused_before_it_runs(
    host: Host,
) -> None:
    with pytest.raises(InvalidArguments, match="did you mean 'mebibytes'"):
        await call(host, "allocate", {"mebibyte": 1})
    with pytest.raises(InvalidArguments, match="mebibytes"):
        await host.check("allocate", {"mebibytes": "many"}, principal=ME)
    assert len(pids(host)) == 1


@pytest.mark.anyio
async def test_arguments_that_are_not_json_are_refused_by_name(host: Host) -> None:
    fault = "'mebibytes'.*'allocate'.* have to be JSON data .*bytes"
    with pytest.raises(InvalidArguments, match=fault):
        await call(host, "allocate", {"mebibytes": b"1"})


@pytest.mark.anyio
async def test_an_answer_that_json_cannot_carry_is_the_tools_failure(host: Host) -> None:
    error = (await call(host, "give", {"what": "unserialisable"})).error
    assert error is not None
    assert error["code"] == "invalid_output"
    assert "'give' returned a value of type object, which JSON cannot carry" in error["message"]


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["much", "flood"])
async def test_an_answer_that_is_too_large_is_the_tools_failure(host: Host, what: str) -> None:
    error = (await call(host, "give", {"what": what})).error
    assert error is not None
    assert error["code"] == "invalid_output"
    # Who notices it, the host or whoever reads from the process, words it differently.
    assert "1048576" in error["message"].replace(",", "")


@pytest.mark.anyio
async def test_an_answer_that_a_tool_shapes_itself_arrives_as_it_is(host: Host) -> None:
    result = await call(host, "give", {"what": "own"})
    assert result.structured == {"result": 1}
    assert result.error is not None
    assert result.error["code"] == "own"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "line",
    ["nonsense\n", "[]\n", '{"kind":"done","text":1}\n', '{"kind":"?"}\n', "[" * 99999 + "\n"],
)
async def test_a_process_that_sends_what_is_no_answer_is_done_with(host: Host, line: str) -> None:
    error = (await call(host, "forge", {"line": line})).error
    assert error is not None
    assert error["code"] in ("process_died", "invalid_output")
    assert await number(host, "pid") in pids(host)


@pytest.mark.anyio
async def test_malformed_progress_is_left_out(host: Host) -> None:
    line = '{"kind":"progress","done":"x"}\n{"kind":"done","text":"ok","structured":null}\n'
    reports: list[Progress] = []
    result = await call(host, "forge", {"line": line}, on_progress=reports.append)
    assert (result.text, reports) == ("ok", [])


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_a_tool_raises_reaches_the_caller_without_internals(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    error = (await call(host, "die", {"how": "tool"})).error
    assert error is not None
    assert error["code"] == "tool_failed"
    assert error["message"] == "The disk is full."
    assert error["hint"] == "Free some."
    assert error["retryable"] is False
    assert error["free"] == 0
    crashed = (await call(host, "die", {"how": "raise"})).error
    assert crashed is not None
    assert crashed["code"] == "tool_crashed"
    assert "secret" not in str(crashed)
    assert "ZeroDivisionError: secret" in caplog.text
    own = (await call(host, "die", {"how": "own"})).error
    assert own is not None
    assert own["code"] == "tool_crashed"
    # By the names of its type and its tool: an exception itself does not cross the border.
    assert "'die'" in own["message"]
    assert "(Own)" in own["message"]
    odd = (await call(host, "die", {"how": "odd"})).error
    assert odd is not None
    assert (odd["code"], odd["message"], odd["hint"]) == ("tool_failed", "an exception", "4")
    left = (await call(host, "die", {"how": "sys.exit"})).error
    assert left is not None
    assert "(SystemExit)" in left["message"]
    assert len(pids(host)) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("how", "named"),
    [("exit", "exit status 3"), ("SIGSEGV", "SIGSEGV"), ("SIGKILL", "SIGKILL")],
)
async def test_a_process_that_dies_is_named_with_the_way_it_ended(
    host: Host, how: str, named: str
) -> None:
    error = (await call(host, "die", {"how": how})).error
    assert error is not None
    assert error["code"] == "process_died"
    assert named in error["message"]
    assert error["hint"]
    assert await number(host, "pid") in pids(host)


@pytest.mark.anyio
async def test_code_that_cannot_be_imported_is_unavailable_with_the_reason(
    plugin: Make, start: Start
) -> None:
    source = """
        from mcpd_core import tool

        @tool(placement="process")
        def work() -> None: ...
    """
    for stale, reason in (
        ("import no_such_library", "no_such_library"),
        ("import sys; sys.exit(4)", r"it called sys.exit\(4\)"),
        ("import os; os._exit(4)", "died while its code was loaded: it ended with exit status 4"),
        ("work = 1", "a tool is a function"),
        ("x = bytearray(4 << 30)", "MemoryError"),
    ):
        async with start(plugin("tools", source, stale=stale)) as host:
            with pytest.raises(ToolUnavailable, match=f"(?i){reason}"):
                await call(host, "work")
            with pytest.raises(ToolUnavailable, match="work"):
                await host.check("work", {}, principal=ME)


@pytest.mark.anyio
async def test_code_that_is_not_loaded_in_time_costs_its_process(
    plugin: Make, start: Start
) -> None:
    source = """
        from mcpd_core import tool

        @tool(placement="process")
        def work() -> None: ...
    """
    row = plugin("tools", source, stale="import time; time.sleep(600)")
    async with start(row, executor={"import_timeout": 0.5}) as host:
        with pytest.raises(ToolUnavailable, match="has not been loaded in time"):
            await call(host, "work", timeout=0.3)
        assert pids(host) == ()
        with pytest.raises(ToolUnavailable, match="had not finished after 0.5 s"):
            await call(host, "work")


@pytest.mark.anyio
async def test_a_stale_manifest_is_reported_once(
    plugin: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
        from mcpd_core import tool

        @tool(placement="process")
        def work() -> str:
            return "old"
    """
    changed = source.replace("def work()", "def work(new: int = 1)")
    async with start(plugin("tools", source, stale=changed), processes={"calls": 1}) as host:
        for _ in range(2):
            assert (await call(host, "work", {"new": 2})).text == "old"
    assert caplog.text.count("The manifest of the plugin tools is stale: the tool 'work'") == 1


@pytest.mark.anyio
async def test_a_process_that_cannot_be_started_is_said_so(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ToolUnavailable, match="none can be started: No such file"):
        await call(host, "pid")


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="other systems do not enforce a limit of address space")
@pytest.mark.anyio
async def test_an_allocation_beyond_the_limit_ends_the_process(plugin: Make, start: Start) -> None:
    async with start(plugin("tools", TOOLS), processes={"memory_mb": 700}) as host:
        assert await number(host, "allocate", {"mebibytes": 64}) == 64
        before = pids(host)
        error = (await call(host, "allocate", {"mebibytes": 800})).error
        assert error is not None
        assert error["code"] == "out_of_memory"
        assert "700 MiB" in error["message"]
        assert error["retryable"] is False
        await ended(before[0])
        assert await number(host, "pid") not in before


@pytest.mark.skipif(not LINUX, reason="other systems do not enforce a limit of address space")
@pytest.mark.anyio
async def test_a_tools_own_limit_counts_instead_of_the_settings(host: Host) -> None:
    error = (await call(host, "allocate_in_little", {"mebibytes": 500})).error
    assert error is not None
    assert "400 MiB" in error["message"]
    assert await number(host, "allocate", {"mebibytes": 500}) == 500


BURNERS = """
    import asyncio, os
    from mcpd_core import tool

    def burn():
        while True:
            pass

    def note_down(note, what):
        with open(note, "a") as file:
            file.write(what)

    @tool(placement="process", cpu_seconds=1)
    def spin(note: str) -> None:
        note_down(note, f"{os.getpid()} ")
        try:
            burn()
        finally:
            note_down(note, "tidy")

    @tool(placement="process", runtime="asyncio", cpu_seconds=1)
    async def turn(note: str) -> None:
        note_down(note, f"{os.getpid()} ")
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            note_down(note, "tidy")

    @tool(placement="process", cpu_seconds=1)
    def swallow(note: str) -> None:
        note_down(note, f"{os.getpid()} ")
        while True:
            try:
                burn()
            except BaseException:
                note_down(note, "swallowed")

    @tool(placement="process")
    def half_a_second() -> int:
        end = sum(os.times()[:2]) + 0.5
        while sum(os.times()[:2]) < end:
            pass
        return os.getpid()

    @tool(placement="process", cpu_seconds=60)
    def own_limit() -> int:
        return half_a_second()
"""


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["spin", "turn"])
async def test_a_call_that_has_used_up_its_cpu_time_is_stopped_and_says_so(
    plugin: Make, start: Start, tmp_path: Path, name: str
) -> None:
    note = tmp_path / "note"
    async with start(plugin("burners", BURNERS)) as host:
        error = (await call(host, name, {"note": str(note)})).error
        assert error is not None
        assert error["code"] == "out_of_cpu_time"
        assert "1 s of CPU time" in error["message"]
        assert "cpu_seconds" in error["hint"]
        assert error["retryable"] is False
        pid, tidy = read(note).split()
        assert tidy == "tidy"
        # What it was in the midst of does no harm to another call.
        await ended(int(pid))


@pytest.mark.anyio
async def test_one_that_does_not_stop_is_ended_by_the_system(
    plugin: Make, start: Start, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    async with start(plugin("burners", BURNERS)) as host:
        error = (await call(host, "swallow", {"note": str(note)})).error
        assert error is not None
        assert error["code"] == "out_of_cpu_time"
        assert "was killed" in error["message"]
        assert "cpu_seconds" in error["hint"]
        pid, swallowed = read(note).split()
        assert swallowed == "swallowed"
        assert not alive(int(pid))


@pytest.mark.anyio
async def test_each_call_of_a_process_has_its_own_cpu_time(plugin: Make, start: Start) -> None:
    async with start(plugin("burners", BURNERS), processes={"cpu_seconds": 1}) as host:
        # Together they use more than one may.
        seen = {await number(host, "half_a_second") for _ in range(4)}
        assert seen == set(pids(host))
        assert len(seen) == 1
        assert {await number(host, "own_limit")} == seen


@pytest.mark.anyio
async def test_a_process_is_replaced_after_its_calls(plugin: Make, start: Start) -> None:
    async with start(plugin("tools", TOOLS), processes={"calls": 2}) as host:
        seen = [await number(host, "pid") for _ in range(5)]
    assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4]


@pytest.mark.anyio
async def test_an_idle_process_ends_after_its_time(plugin: Make, start: Start) -> None:
    async with start(plugin("tools", TOOLS), processes={"idle_timeout": 0.01}) as host:
        pid = await number(host, "pid")
        while pids(host):
            await asyncio.sleep(0.005)
        assert not alive(pid)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_twenty_calls_at_once_share_the_workers(host: Host) -> None:
    seen = await asyncio.gather(*(number(host, "pid") for _ in range(20)))
    assert len(set(seen)) == 2
    assert set(seen) == set(pids(host))


@pytest.mark.anyio
async def test_plugins_do_not_share_a_process(plugin: Make, start: Start) -> None:
    other = """
        import os
        from mcpd_core import tool

        @tool(placement="process")
        def other() -> int:
            return os.getpid()
    """
    async with start(
        plugin("tools", TOOLS), plugin("second", other), processes={"workers": 1}
    ) as host:
        first, second = await number(host, "pid"), await number(host, "other")
        assert first != second
        # There is room for one: the idle process of the first made it.
        await ended(first)
        host.lanes.processes.dismiss("second")
        await ended(second)


@pytest.mark.anyio
async def test_a_busy_process_does_not_hold_up_the_loop(host: Host, tmp_path: Path) -> None:
    spinning = asyncio.ensure_future(call(host, "spin", {"note": str(tmp_path / "note")}))
    pid = await noted(tmp_path / "note")
    for _ in range(100):
        await asyncio.sleep(0)
    assert await number(host, "pid") != pid
    spinning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spinning


# --- the end of a call, of the host, and of everything --------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_a_call_at_its_deadline_is_killed_and_gone_when_the_caller_hears_of_it(
    host: Host, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    # The deadline counts from the start of the interpreter on.
    await number(host, "pid")
    error = (await call(host, "spin", {"note": str(note)}, timeout=1)).error
    assert error is not None
    assert error["code"] == "deadline_exceeded"
    assert not alive(int(read(note)))
    assert int(read(note)) not in pids(host)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tool", "how"), [("tidy", "def"), ("tidy_in_asyncio", "asyncio"), ("tidy_in_trio", "trio")]
)
async def test_a_cancelled_call_cleans_up_before_its_process_ends(
    host: Host, tmp_path: Path, tool: str, how: str
) -> None:
    note = tmp_path / "note"
    running = asyncio.ensure_future(call(host, tool, {"note": str(note)}))
    pid = await noted(note)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not alive(pid)
    assert read(Path(f"{note}.tidy")) == how


@pytest.mark.anyio
async def test_one_that_ignores_sigterm_is_killed_after_the_grace(
    plugin: Make, start: Start, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    async with start(plugin("tools", TOOLS), executor={"cancel_grace": 0.1}) as host:
        running = asyncio.ensure_future(call(host, "stubborn", {"note": str(note)}))
        pid = await noted(note)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not alive(pid)


@pytest.mark.anyio
async def test_a_caller_may_set_the_grace_of_its_call_up_to_the_moment_of_cancelling(
    plugin: Make, start: Start, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    grace = 3_600.0
    async with start(plugin("tools", TOOLS), executor={"cancel_grace": 3_600}) as host:
        options = {"cancel_grace": lambda: grace}
        running = asyncio.ensure_future(call(host, "stubborn", {"note": str(note)}, **options))
        pid = await noted(note)
        grace = 0.1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not alive(pid)


@pytest.mark.anyio
async def test_a_call_has_no_more_time_than_its_caller_whatever_its_timeout(
    host: Host, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    await number(host, "pid")  # so that the process is there
    result = await call(host, "spin", {"note": str(note)}, timeout=3_600, within=2.0)
    assert result.error is not None
    assert result.error["code"] == "deadline_exceeded"


@pytest.mark.anyio
async def test_what_a_tool_has_started_ends_with_its_process(host: Host, tmp_path: Path) -> None:
    note = tmp_path / "note"
    running = asyncio.ensure_future(call(host, "with_child", {"note": str(note)}))
    grandchild = await noted(note)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await ended(grandchild)


@pytest.mark.anyio
async def test_no_process_outlives_the_host(plugin: Make, start: Start, tmp_path: Path) -> None:
    note = tmp_path / "note"
    async with start(plugin("tools", TOOLS)) as host:
        idle = await number(host, "pid")
        running = asyncio.ensure_future(call(host, "spin", {"note": str(note)}))
        busy = await noted(note)
    assert not alive(idle)
    assert not alive(busy)
    assert (await running).error is not None


HOST = """
    import asyncio, sys
    from mcpd_core import Principal, ToolSpec
    from mcpd_core.host import Host
    from mcpd_core.inventory import Inventory, PluginRow
    from mcpd_core.settings import load_settings

    def spec(name):
        return ToolSpec(name, "", {}, sys.argv[1] + ":" + name, "tools", placement="process")

    async def main():
        tools = spec("pid"), spec("spin")
        row = PluginRow("tools", "mcpd-tools", "1", "any", "enabled", tools=tools)
        async with Host(Inventory((row,)), load_settings(env={}), data_dir=None) as host:
            who = dict(principal=Principal("local", "0"), client="x")
            await host.call("pid", {}, **who)
            spin = asyncio.create_task(host.call("spin", {"note": sys.argv[2]}, **who))
            await host.call("pid", {}, **who)
            print(*host.lanes.processes.pids, flush=True)
            await spin

    asyncio.run(main())
"""


@pytest.mark.anyio
async def test_no_process_outlives_a_host_that_is_killed(plugin: Make, tmp_path: Path) -> None:
    row = plugin("tools", TOOLS)
    note = tmp_path / "note"
    with subprocess.Popen(  # noqa: ASYNC220 - its output is waited for, and nothing else runs
        [sys.executable, "-c", textwrap.dedent(HOST), row.entry, str(note)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        text=True,
    ) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        busy = await noted(note)
        assert busy in workers
        process.send_signal(signal.SIGKILL)
    for pid in workers:
        await ended(pid)


@pytest.mark.anyio
async def test_a_hook_moves_a_tool_into_a_process(plugin: Make, start: Start) -> None:
    source = """
        import dataclasses, os
        from mcpd_core import hookimpl, tool

        @tool
        def pid() -> int:
            return os.getpid()

        @hookimpl
        def mcpd_select_runtime(spec, available):
            assert "process" in available
            return dataclasses.replace(spec, placement="process")
    """
    from dataclasses import replace

    row = replace(plugin("tools", source), hooks=("mcpd_select_runtime",))
    async with start(row) as host:
        assert await number(host, "pid") in pids(host)


@pytest.mark.anyio
async def test_the_codes_own_word_puts_a_tool_into_a_process(
    plugin: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
        import os
        from mcpd_core import tool

        @tool(placement="thread")
        def pid() -> int:
            return os.getpid()
    """
    row = plugin("tools", source, stale=source.replace("thread", "process"))
    with caplog.at_level(logging.WARNING):
        async with start(row) as host:
            assert await number(host, "pid") in pids(host)
    assert "is stale" in caplog.text


# --- what is declared -----------------------------------------------------------------------------


def test_a_tools_memory_is_part_of_its_contract(plugin: Make) -> None:
    specs = {spec.name: spec for spec in plugin("tools", TOOLS).tools}
    spec = specs["allocate_in_little"]
    assert (spec.placement, spec.memory_mb, spec.cpu_seconds) == ("process", 400, None)
    assert render_tool(spec, runtime="any")["memory_mb"] == 400
    assert "memory_mb" not in render_tool(specs["pid"], runtime="any")
    (read,) = checked([spec], plugin="tools", runtime="any")
    assert read.memory_mb == 400


@pytest.mark.parametrize("memory_mb", [0, 127, -1])
def test_less_memory_than_an_interpreter_needs_is_refused(memory_mb: int) -> None:
    with pytest.raises(ValueError, match="less than 128"):
        tool(name="x", memory_mb=memory_mb)(lambda: None)
    item = {"name": "x", "entry": "m:x", "memory_mb": memory_mb}
    with pytest.raises(ManifestError, match="memory_mb: must be a whole number of at least 128"):
        parse_tools([item], plugin="tools", runtime="any")
    if memory_mb:
        with pytest.raises(SettingsError, match="processes.memory_mb"):
            load_settings(env={"MCPD_PROCESSES__MEMORY_MB": str(memory_mb)})


def test_a_tools_cpu_time_is_part_of_its_contract(plugin: Make) -> None:
    specs = {spec.name: spec for spec in plugin("burners", BURNERS).tools}
    assert render_tool(specs["spin"], runtime="any")["cpu_seconds"] == 1
    assert "cpu_seconds" not in render_tool(specs["half_a_second"], runtime="any")
    (read,) = checked([specs["spin"]], plugin="burners", runtime="any")
    assert read.cpu_seconds == 1


@pytest.mark.parametrize("cpu_seconds", [0, -1])
def test_no_cpu_time_at_all_is_refused(cpu_seconds: int) -> None:
    with pytest.raises(ValueError, match="less than 1"):
        tool(name="x", cpu_seconds=cpu_seconds)(lambda: None)
    item = {"name": "x", "entry": "m:x", "cpu_seconds": cpu_seconds}
    with pytest.raises(ManifestError, match="cpu_seconds: must be a whole number of at least 1"):
        parse_tools([item], plugin="tools", runtime="any")
