"""Tools whose code was not written for mcpd: a loader of their plugin makes it fit to be called."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import (
    CallResult,
    InvalidArguments,
    ManifestError,
    Principal,
    ToolUnavailable,
)
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.manifest import parse_tools, render_tool
from mcpd_core.settings import load_settings

ME = Principal("local", str(os.getuid()))
#: Long enough that only a defect makes a test wait for it.
LONG = 30.0

LOADER = """
    import importlib.util, sys, threading
    from mcpd_core import CallResult, InvalidArguments, LoadedTool

    loads = []
    entered, may_load = threading.Event(), threading.Event()
    may_load.set()

    def load(spec):
        loads.append((spec.name, threading.current_thread().name))
        entered.set()
        may_load.wait(30)
        module, _, name = spec.entry.partition(":")
        found = sys.modules.get(module)
        if found is None:
            where = importlib.util.spec_from_file_location(module, spec.source)
            found = importlib.util.module_from_spec(where)
            where.loader.exec_module(found)
            sys.modules[module] = found
        return LoadedTool(getattr(found, name), check=check_of(spec), answer=answer)

    def check_of(spec):
        required = spec.input_schema.get("required", ())
        def check(arguments):
            missing = [name for name in required if name not in arguments]
            if missing:
                raise InvalidArguments(f"Give {', '.join(missing)}.")
            if "explode" in arguments:
                raise SystemExit(arguments["explode"])
            return {name: int(value) for name, value in arguments.items()}
        return check

    def answer(value):
        if isinstance(value, dict) and value.get("status") == "error":
            return CallResult("", value, {"code": "old", "message": value["error"]})
        return value

    def bare(spec):
        return LoadedTool(getattr(sys.modules["foreign_bare"], spec.entry.partition(":")[2]))

    def with_context(spec):
        def who(ctx):
            return {"client": ctx.client}
        return LoadedTool(who, context="ctx")

    def wrong(spec):
        return {"no_tool": None, "no_function": LoadedTool(5), "generator": LoadedTool(numbers)}[
            spec.name
        ]

    def numbers():
        yield 1
"""

CODE = """
    import asyncio, sys, threading

    print("what old code prints while it is imported")

    def add(a, b=1):
        print("and while it runs")
        return {"status": "ok", "sum": a + b, "thread": threading.current_thread().name}

    async def add_async(a, b=1):
        return {"sum": a + b, "library": "asyncio" if asyncio.current_task() else "none"}

    async def add_in_trio(a, b=1):
        import trio
        await trio.sleep(0)
        return {"sum": a + b, "library": "trio"}

    def fail():
        return {"status": "error", "error": "the disk is full", "left": 0}

    def leave():
        sys.exit(4)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Write = Callable[[str, str], Path]
Start = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module of the test's own; none is left imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def written(module: str, source: str) -> Path:
        file = tmp_path / f"{module}.py"
        file.write_text(textwrap.dedent(source))
        return file

    yield written
    for name in set(sys.modules) - before:
        if name.startswith("foreign_"):
            del sys.modules[name]


@pytest.fixture
def start() -> Start:
    @asynccontextmanager
    async def started(*rows: PluginRow, **sections: dict[str, Any]) -> AsyncIterator[Host]:
        settings = load_settings(config=None, env={}, overrides=sections)
        async with Host(Inventory(rows), settings, data_dir=None) as host:
            yield host

    return started


def plugin(*items: dict[str, Any], runtime: Any = "asyncio") -> PluginRow:
    tools = parse_tools(list(items), plugin="old", runtime=runtime)
    return PluginRow("old", "mcpd-old", "1", runtime, "enabled", tools=tools)


def item(name: str, source: Path | str = "", **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "entry": f"foreign_code:{name}",
        "loader": "foreign_loader:load",
        "source": str(source),
        "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
        **facts,
    }


async def call(host: Host, tool: str, **arguments: Any) -> CallResult:
    return await host.call(tool, arguments, principal=ME, client="test", timeout=LONG)


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_nothing_is_loaded_until_a_tool_is_called(write: Write, start: Start) -> None:
    write("foreign_loader", LOADER)
    file = write("not_importable", CODE)
    async with start(plugin(item("add", file), item("fail", file))) as host:
        assert [spec.name for spec in host.catalog] == ["add", "fail"]
        assert not {"foreign_loader", "foreign_code"} & set(sys.modules)
        answer = await call(host, "add", a="2", b=3)
        assert answer.structured is not None
        assert answer.structured["sum"] == 5
        assert answer.structured["thread"] != threading.current_thread().name
        loads = sys.modules["foreign_loader"].loads
        assert loads == [("add", "mcpd-import-foreign_code")]
        await call(host, "add", a=1)
        assert loads == [("add", "mcpd-import-foreign_code")]


@pytest.mark.anyio
async def test_calls_that_come_while_a_tool_is_loaded_wait_for_it(
    write: Write, start: Start
) -> None:
    write("foreign_loader", LOADER + "\n    may_load.clear()\n")
    file = write("not_importable", CODE)
    async with start(plugin(item("add", file))) as host:
        calls = [asyncio.ensure_future(call(host, "add", a=n)) for n in range(3)]
        while "foreign_loader" not in sys.modules:
            await asyncio.sleep(0.005)
        loader = sys.modules["foreign_loader"]
        assert await asyncio.to_thread(loader.entered.wait, LONG)
        # One that gives up takes it from nobody.
        calls[0].cancel()
        loader.may_load.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        sums = [answer.structured["sum"] for answer in answers[1:]]  # type: ignore[union-attr, index]
        assert sums == [2, 3]
        assert len(loader.loads) == 1


@pytest.mark.anyio
async def test_code_runs_in_the_library_that_its_contract_names(write: Write, start: Start) -> None:
    pytest.importorskip("trio")
    write("foreign_loader", LOADER)
    file = write("not_importable", CODE)
    row = plugin(item("add_async", file), item("add_in_trio", file, runtime="trio"))
    async with start(row) as host:
        answer = await call(host, "add_async", a=1)
        assert answer.structured == {"sum": 2, "library": "asyncio"}
        assert "trio" not in [place for place, _ in host.lanes.started()]
        answer = await call(host, "add_in_trio", a=1)
        assert answer.structured == {"sum": 2, "library": "trio"}


@pytest.mark.anyio
@pytest.mark.parametrize("placement", ["loop", "thread"])
async def test_without_trio_a_tool_that_needs_it_says_what_to_install(
    write: Write, start: Start, monkeypatch: pytest.MonkeyPatch, placement: str
) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    write("foreign_loader", LOADER)
    file = write("not_importable", CODE)
    needing = item("add_in_trio", file, runtime="trio", placement=placement)
    async with start(plugin(needing, item("add", file))) as host:
        error = (await call(host, "add_in_trio", a=1)).error
        assert error is not None
        assert error["code"] == "tool_unavailable"
        assert error["hint"] == "Install it: pip install 'mcpd-core[trio]'"
        assert not (await call(host, "add", a=1)).is_error


@pytest.mark.anyio
async def test_without_trio_in_a_process_it_is_said_before_the_tool_is_run(
    write: Write, start: Start
) -> None:
    write("foreign_loader", "import sys\nsys.modules['trio'] = None\n" + textwrap.dedent(LOADER))
    file = write("not_importable", CODE)
    row = plugin(item("add_in_trio", file, runtime="trio", placement="process"))
    async with start(row) as host:
        with pytest.raises(ToolUnavailable, match="written for trio") as refused:
            await call(host, "add_in_trio", a=1)
        assert "mcpd-core[trio]" in refused.value.hint


@pytest.mark.anyio
async def test_what_the_loader_says_of_arguments_and_answers_counts(
    write: Write, start: Start
) -> None:
    write("foreign_loader", LOADER)
    file = write("not_importable", CODE)
    needing = {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    async with start(plugin(item("add", file, input_schema=needing), item("fail", file))) as host:
        with pytest.raises(InvalidArguments, match=r"Give a\."):
            await call(host, "add")
        with pytest.raises(ToolUnavailable, match="one of its validators failed"):
            await call(host, "add", a=1, explode=1)
        with pytest.raises(InvalidArguments):
            await host.check("add", {}, principal=ME)
        answer = await call(host, "fail")
        assert answer.error == {"code": "old", "message": "the disk is full"}
        assert answer.structured == {"status": "error", "error": "the disk is full", "left": 0}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("value", "text", "structured"),
    [
        ({"a": 1}, '{"a":1}', {"a": 1}),
        ([1, 2], "[1,2]", None),
        ("plain", "plain", None),
        (None, "", None),
    ],
)
async def test_without_a_check_and_an_answer_values_pass_as_they_are(
    write: Write, start: Start, value: Any, text: str, structured: Any
) -> None:
    write("foreign_loader", LOADER)
    write("foreign_bare", "def echo(value): return value\n")
    row = plugin(item("echo", entry="foreign_bare:echo", loader="foreign_loader:bare"))
    sys.modules.pop("foreign_bare", None)
    __import__("foreign_bare")
    async with start(row) as host:
        answer = await call(host, "echo", value=value)
        assert (answer.text, answer.structured, answer.error) == (text, structured, None)


@pytest.mark.anyio
async def test_a_loader_can_ask_for_the_context(write: Write, start: Start) -> None:
    write("foreign_loader", LOADER)
    async with start(plugin(item("who", loader="foreign_loader:with_context"))) as host:
        assert (await call(host, "who")).structured == {"client": "test"}


@pytest.mark.anyio
async def test_the_section_that_a_provider_is_given_belongs_to_its_plugin(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    row = replace(plugin(item("add")), metadata_provider="foreign_provider")
    async with start(row, old={"folder": "x"}, other={"folder": "y"}):
        assert "[other] belongs to no plugin that is enabled" in caplog.text
        assert "[old]" not in caplog.text


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sys; sys.exit(7)", r"it called sys.exit\(7\)"),
        ("import not_there_at_all", "install what it belongs to, where mcpd runs"),
        ("1 / 0", "division by zero"),
        ("def (", "SyntaxError"),
    ],
)
async def test_code_that_cannot_be_loaded_is_the_failure_of_its_tool_alone(
    write: Write, start: Start, source: str, reason: str
) -> None:
    write("foreign_loader", LOADER)
    broken, sound = write("not_importable", source), write("not_importable_2", CODE)
    row = plugin(item("broken", broken), item("add", sound, entry="foreign_sound:add"))
    async with start(row) as host:
        with pytest.raises(ToolUnavailable) as refused:
            await call(host, "broken")
        assert reason.replace("\\", "") in f"{refused.value.message} {refused.value.hint}"
        assert "foreign_code:broken of plugin 'old' cannot be loaded" in refused.value.message
        assert not (await call(host, "add", a=1)).is_error
        # What was missing may be there by now.
        broken.write_text(textwrap.dedent(CODE) + "\ndef broken(): return 'mended'\n")
        assert (await call(host, "broken")).text == "mended"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_tool", "returned a NoneType, which is no LoadedTool, for the tool 'no_tool'"),
        ("no_function", "returned a int, which cannot be called, as function"),
        ("generator", "returned a generator, which cannot be a tool"),
    ],
)
async def test_a_loader_that_returns_something_else_is_told_so(
    write: Write, start: Start, name: str, reason: str
) -> None:
    write("foreign_loader", LOADER)
    async with start(plugin(item(name, loader="foreign_loader:wrong"))) as host:
        with pytest.raises(ToolUnavailable, match=reason):
            await call(host, name)


@pytest.mark.anyio
async def test_a_module_that_hangs_keeps_no_other_from_being_loaded(
    write: Write, start: Start
) -> None:
    write("foreign_loader", LOADER)
    hangs = write("not_importable", "import threading; threading.Event().wait()")
    sound = write("not_importable_2", CODE)
    row = plugin(
        item("hangs", hangs),
        item("too", hangs),
        item("add", sound, entry="foreign_sound:add"),
    )
    async with start(row, executor={"import_timeout": 0.2}) as host:
        for name in ("hangs", "too"):
            with pytest.raises(ToolUnavailable, match="had not finished after 0.2 s"):
                await call(host, name)
        assert not (await call(host, "add", a=1)).is_error
        # The second one was not even tried: a thread that hangs is enough.
        assert [name for name, _ in sys.modules["foreign_loader"].loads] == ["hangs", "add"]


@pytest.mark.anyio
async def test_a_loader_that_hangs_while_it_is_imported_is_not_tried_for_each_tool(
    write: Write, start: Start
) -> None:
    write("foreign_stuck", "import threading; threading.Event().wait()")
    names = ("one", "two")
    row = plugin(
        *(item(name, entry=f"foreign_{name}:f", loader="foreign_stuck:load") for name in names)
    )
    async with start(row, executor={"import_timeout": 0.2}) as host:
        for name in names:
            with pytest.raises(ToolUnavailable, match="Importing foreign_stuck"):
                await call(host, name)
        threads = [thread.name for thread in threading.enumerate()]
        assert threads.count("mcpd-import-foreign_stuck") == 1


@pytest.mark.anyio
async def test_code_that_leaves_fails_and_the_host_lives_on(write: Write, start: Start) -> None:
    write("foreign_loader", LOADER)
    file = write("not_importable", CODE)
    async with start(plugin(item("leave", file), item("add", file))) as host:
        answer = await call(host, "leave")
        assert answer.error is not None
        assert answer.error["code"] == "tool_crashed"
        assert not (await call(host, "add", a=1)).is_error


# --- in a process ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_in_a_process_the_loader_works_there(
    write: Write, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    write("foreign_loader", LOADER)
    pids = CODE + "\n    import os\n    def pid(a=0): return {'pid': os.getpid(), 'a': a}\n"
    file = write("not_importable", pids)
    row = plugin(item("pid", file, placement="process"), item("fail", file, placement="process"))
    async with start(row, processes={"workers": 1}) as host:
        answer = await call(host, "pid", a="5")
        assert answer.structured is not None
        assert answer.structured["a"] == 5
        assert answer.structured["pid"] in host.lanes.processes.pids
        assert (await call(host, "pid")).structured == {"pid": answer.structured["pid"], "a": 0}
        assert (await call(host, "fail")).error == {"code": "old", "message": "the disk is full"}
        assert not {"foreign_loader", "foreign_code"} & set(sys.modules)
        assert "stale" not in caplog.text


@pytest.mark.anyio
async def test_in_a_process_code_that_cannot_be_loaded_says_why(write: Write, start: Start) -> None:
    write("foreign_loader", LOADER)
    file = write("not_importable", "import sys; sys.exit(7)")
    async with start(plugin(item("pid", file, placement="process"))) as host:
        with pytest.raises(ToolUnavailable, match=r"it called sys\.exit\(7\)"):
            await call(host, "pid")


@pytest.mark.anyio
async def test_a_hook_cannot_bring_code_into_the_server_that_belongs_into_a_process(
    write: Write, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("foreign_loader", LOADER)
    file = write("not_importable", CODE)
    async with start(plugin(item("add", file, placement="process"))) as host:
        monkeypatch.setattr(
            host._hooks,
            "select_runtime",
            lambda spec, available: replace(spec, placement="thread"),
        )
        assert not (await call(host, "add", a=1)).is_error
        assert len(host.lanes.processes.pids) == 1
        assert "foreign_code" not in sys.modules


# --- contracts ------------------------------------------------------------------------------------


def test_a_contract_holds_what_the_loader_needs() -> None:
    written = item("add", "/srv/tools/a.py", aliases=["math_tools.add"], runtime="trio")
    (spec,) = parse_tools([written], plugin="old", runtime="asyncio")
    assert (spec.loader, spec.source) == ("foreign_loader:load", "/srv/tools/a.py")
    rendered = render_tool(spec, runtime="asyncio")
    assert parse_tools([rendered], plugin="old", runtime="asyncio") == (spec,)
    assert rendered["aliases"] == ["math_tools.add"]


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"loader": "nothing"}, "is not of the form `module:function`"),
        ({"loader": 5}, "is not of the form `module:function`"),
        ({"loader": "", "runtime": "trio"}, "'trio' cannot be served by a plugin of 'asyncio'"),
        ({"source": 5}, "source: must be a string"),
        ({"process": "tree"}, "process: goes with the placement `process` only"),
        ({"process": "a b", "placement": "process"}, "is no name of a process"),
        ({"process": 1, "placement": "process"}, "is no name of a process"),
        ({"aliases": ["a/b"]}, "is not an alias"),
        ({"aliases": ["a" * 129]}, "is not an alias"),
        ({"name": "a.b"}, "is not a tool name"),
    ],
)
def test_a_contract_that_cannot_be_is_refused(facts: dict[str, Any], problem: str) -> None:
    with pytest.raises(ManifestError, match=problem):
        parse_tools([{**item("add"), **facts}], plugin="old", runtime="asyncio")
