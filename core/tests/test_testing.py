"""`mcpd_core.testing`: what plugin authors get to test with."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types
import pytest

import mcpd_core.testing
from mcpd_core import (
    CallCancelled,
    InvalidArguments,
    ManifestError,
    SelectionError,
    SettingsError,
    ToolUnavailable,
    UnknownTool,
)
from mcpd_core.discovery import scan
from mcpd_core.inventory import PluginRow
from mcpd_core.plugin_check import check
from mcpd_core.runtimes import Expired, Outcome, capture
from mcpd_core.runtimes.base import supervise
from mcpd_core.testing import (
    CallConformance,
    Connect,
    DiscoveryRefused,
    MakeHost,
    RuntimeConformance,
    WritePlugin,
    check_manifest,
)
from mcpd_core.testing.hosts import PluginSource, inventory
from mcpd_core.testing.runtimes import Way

TOOLS = """
    import threading
    import anyio
    from mcpd_core import Context, ToolError, tool

    @tool(read_only=True)
    async def double(number: int) -> int:
        '''Double a number.'''
        await anyio.sleep(0)
        return 2 * number

    @tool
    async def fail() -> None:
        '''Fail.'''
        raise ToolError("It failed.", hint="Do not call it.")

    @tool
    async def where(ctx: Context) -> dict[str, object]:
        '''Say where it runs.'''
        ctx.progress(1, 2, "half")
        try:
            import trio
            trio.lowlevel.current_task()
            library = "trio"
        except (ImportError, RuntimeError):
            library = "asyncio"
        return {"library": library, "thread": threading.get_ident()}
"""

SERVICE = """
    from contextlib import asynccontextmanager
    from pydantic import BaseModel
    from mcpd_core import Health, Service, hookimpl

    class Options(BaseModel):
        greeting: str = "hello"

    class Greeter:
        def __init__(self, greeting): self.greeting = greeting
        def health(self): return Health(True)

    @asynccontextmanager
    async def own(host):
        (host.data_dir / "here").write_text(host.settings.greeting)
        yield Greeter(host.settings.greeting)

    @hookimpl
    def mcpd_services():
        return [Service("greeter", "{package}.plugin:own", "asyncio", "serve")]

    @hookimpl
    def mcpd_settings():
        return "greeter", Options

    @hookimpl
    def mcpd_register_tools(registrar):
        registrar.add_module("{package}.tools")
"""

GREET = """
    from mcpd_core import Context, tool

    @tool
    async def greet(ctx: Context) -> str:
        '''Greet.'''
        return (await ctx.service("greeter")).greeting
"""


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio"


both = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


# --- mcpd_host ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_host_serves_what_it_is_given_and_nothing_else(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    async with mcpd_host(tmp_plugin(TOOLS)) as host:
        assert [row.state for row in host.rows] == ["enabled"]
        assert (await host.call("double", {"number": 4})).structured == {"result": 8}
        failed = await host.call("fail")
        assert failed.error is not None
        assert failed.error["hint"] == "Do not call it."
        with pytest.raises(InvalidArguments):
            await host.call("double", {"numbr": 4})
        with pytest.raises(UnknownTool):
            await host.call("hello_greet", {"name": "Ada"})


@pytest.mark.anyio
async def test_a_host_calls_as_the_user_and_passes_options_on(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    reports: list[Any] = []
    async with mcpd_host(tmp_plugin(TOOLS, runtime="trio")) as host:
        result = await host.call("where", on_progress=reports.append)
    assert result.structured is not None
    assert result.structured["library"] == "trio"
    assert [report.message for report in reports] == ["half"]


@pytest.mark.anyio
async def test_a_host_has_settings_services_and_a_folder_for_their_data(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the developer has set must not decide a test.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mcpd.toml").write_text("[greeter]\ngreeting = 3\n")
    monkeypatch.setenv("MCPD_GREETER__GREETING", "from the environment")
    plugin = tmp_plugin(GREET, plugin=SERVICE)
    async with mcpd_host(plugin) as host:
        await host.start_services()
        assert list((tmp_path / "mcpd-data").rglob("here"))
        assert (await host.call("greet")).text == "hello"
    settings = {"greeter": {"greeting": "Good day"}}
    async with mcpd_host(plugin, settings=settings, data_dir=tmp_path / "other") as host:
        assert (await host.call("greet")).text == "Good day"
    assert list((tmp_path / "other").rglob("here"))
    with pytest.raises(SettingsError):
        async with mcpd_host(plugin, settings={"greeter": {"greeting": []}}):
            raise AssertionError("it must not start")


@pytest.mark.anyio
async def test_an_installed_plugin_is_named_by_its_module(mcpd_host: MakeHost) -> None:
    import mcpd_hello_plugin.plugin

    async with mcpd_host("hello = mcpd_hello_plugin.plugin") as host:
        assert (await host.call("hello_greet", {"name": "Ada"})).text == "Hello, Ada!"
    with pytest.raises(SelectionError, match=r"describes hello, hello-trio.* open") as caught:
        inventory([mcpd_hello_plugin.plugin])
    assert "NAME = mcpd_hello_plugin.plugin" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("no_such_package.plugin", "cannot be found"),
        ("other = mcpd_hello_plugin.plugin", "leaves open"),
        ("email.message", "has no manifest"),
    ],
)
def test_a_plugin_that_cannot_be_served_is_named(source: PluginSource, complaint: str) -> None:
    with pytest.raises(SelectionError, match=complaint):
        inventory([source])


def test_a_broken_or_colliding_plugin_is_no_silent_absence(tmp_plugin: WritePlugin) -> None:
    plugin = tmp_plugin(TOOLS)
    rival = tmp_plugin(TOOLS, name="rival")
    with pytest.raises(SelectionError, match=r"'planted' is conflict: .* offers 'double'"):
        inventory([plugin, rival])
    plugin.manifest.write_text('{"plugins": []}')
    with pytest.raises(ManifestError, match="does not say which plugins there are"):
        inventory([plugin])


@pytest.mark.anyio
async def test_a_row_is_served_as_it_is(mcpd_host: MakeHost, tmp_plugin: WritePlugin) -> None:
    planted = tmp_plugin(TOOLS, manifest=False)
    assert not planted.manifest.exists()
    row = PluginRow("mine", "dist", "1", "asyncio", "enabled", entry=planted.entry, dynamic=True)
    async with mcpd_host(row) as host:
        assert len(host.rows[0].tools) == 3


def test_looking_for_installed_plugins_is_refused(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    for look in (scan, lambda: check("hello")):
        with pytest.raises(DiscoveryRefused):
            look()
    planted = tmp_plugin(TOOLS)
    assert [found.name for found in scan([str(planted.path)]).candidates] == ["planted"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_host_on_trio_is_refused_with_the_way_out(mcpd_host: MakeHost) -> None:
    with pytest.raises(RuntimeError, match="A host runs on asyncio.* mcpd_client"):
        async with mcpd_host():
            raise AssertionError("it must not start")


# --- mcpd_client ----------------------------------------------------------------------------------


@both
@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_talks_to_the_real_server(
    mcpd_client: Connect, tmp_plugin: WritePlugin, mode: Any, anyio_backend: str
) -> None:
    reports = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    async with mcpd_client(tmp_plugin(TOOLS), mode=mode) as client:
        assert (client.protocol_version < "2026") is (mode == "legacy")
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["double", "fail", "where"]
        doubled = await client.call_tool("double", {"number": 2})
        assert doubled.structured_content == {"result": 4}
        failed = await client.call_tool("fail", {})
        assert failed.is_error
        content = failed.content[0]
        assert isinstance(content, mcp_types.TextContent)
        assert content.text == "It failed. Do not call it."
        where = await client.call_tool("where", {}, progress_callback=on_progress)
        assert where.structured_content is not None
        # The host shares the test's thread where it can, and has its own where it must.
        shares = where.structured_content["thread"] == threading.get_ident()
        assert shares is (anyio_backend == "asyncio")
        with anyio.fail_after(10):
            while not reports:
                await anyio.sleep(0.001)
    assert reports == [(1, 2, "half")]
    assert not [thread for thread in threading.enumerate() if thread.name == "mcpd-host"]


@both
@pytest.mark.anyio
async def test_a_server_that_cannot_start_says_why(
    mcpd_client: Connect, tmp_plugin: WritePlugin
) -> None:
    plugin = tmp_plugin(GREET, plugin=SERVICE)
    with pytest.raises(SettingsError, match="greeting"):
        async with mcpd_client(plugin, settings={"greeter": {"greeting": []}}):
            raise AssertionError("it must not start")


@both
@pytest.mark.anyio
async def test_a_test_that_fails_or_times_out_leaves_no_server_behind(
    mcpd_client: Connect, tmp_plugin: WritePlugin
) -> None:
    plugin = tmp_plugin(TOOLS)
    with pytest.raises(ZeroDivisionError):
        async with mcpd_client(plugin):
            raise ZeroDivisionError
    with anyio.move_on_after(0.05) as scope:
        async with mcpd_client(plugin):
            await anyio.sleep(60)
    assert scope.cancelled_caught
    assert not [thread for thread in threading.enumerate() if thread.name == "mcpd-host"]


@pytest.mark.anyio
async def test_a_client_that_gives_up_before_the_server_is_ready_leaves_nothing_behind(
    mcpd_client: Connect, tmp_plugin: WritePlugin
) -> None:
    plugin = tmp_plugin(TOOLS)

    async def connect() -> None:
        async with mcpd_client(plugin):
            raise AssertionError("it was cancelled")

    task = asyncio.ensure_future(connect())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- tmp_plugin -----------------------------------------------------------------------------------


def test_a_planted_plugin_is_a_whole_project_and_is_not_imported(tmp_plugin: WritePlugin) -> None:
    planted = tmp_plugin(TOOLS, name="garden", runtime="any")
    home = str(planted.project)
    assert planted.manifest.is_file()
    assert planted.package not in sys.modules
    check_manifest(planted.project)
    found = subprocess.run(
        [sys.executable, "-m", "mcpd_core", "plugins", "list", "--plugins", "garden"],
        env={"PYTHONPATH": str(planted.path), "PATH": "/usr/bin:/bin", "HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "garden\tenabled\tany\t3" in found.stdout


def test_planted_plugins_are_forgotten_with_their_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcpd_core.testing.planting import Garden

    garden = Garden(tmp_path, monkeypatch)
    one, other = garden.plant(TOOLS), garden.plant(TOOLS)
    assert one.package != other.package
    __import__(one.entry)
    garden.clear()
    assert one.entry not in sys.modules


# --- check_manifest -------------------------------------------------------------------------------


def test_a_stale_manifest_fails_the_test_that_checks_it(tmp_plugin: WritePlugin) -> None:
    planted = tmp_plugin(TOOLS)
    tools = planted.path / planted.package / "tools.py"
    tools.write_text(tools.read_text().replace("number: int", "number: float"))
    with pytest.raises(AssertionError, match="tool 'double' of plugin 'planted' has changed"):
        check_manifest(planted.project)
    with pytest.raises(ManifestError):
        check_manifest(planted.path)


# --- conformance ----------------------------------------------------------------------------------


class LoopInAThread:
    """What a third party might write: asyncio in a thread of its own."""

    name = "elsewhere"
    rung = "thread"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def start(self) -> None:
        self._thread.start()

    async def run(self, function: Any, *, deadline: float | None = None) -> Any:
        if self._closed:
            raise ToolUnavailable("The runtime is closed.")
        host, context = asyncio.get_running_loop(), contextvars.copy_context()
        done: asyncio.Future[None] = host.create_future()
        tasks: list[asyncio.Task[Outcome[Any]]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(capture(function)))
            self._running.add(tasks[0])
            tasks[0].add_done_callback(lambda _: host.call_soon_threadsafe(done.set_result, None))

        def cancel() -> None:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())

        self._loop.call_soon_threadsafe(context.run, start)
        expired = await supervise(done, cancel, deadline=deadline)
        self._running.discard(tasks[0])
        if tasks[0].cancelled():
            if expired:
                raise Expired
            raise CallCancelled("The runtime was closed.")
        return tasks[0].result().unwrap()

    def gate(self) -> ThreadGate:
        return ThreadGate(self._loop)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        for task in self._running:
            self._loop.call_soon_threadsafe(task.cancel)
        while not all(task.done() for task in self._running):
            await asyncio.sleep(0.001)
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()


class ThreadGate:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()


class TestTheSuiteOnARuntimeOfAThirdParty(RuntimeConformance):
    @pytest.fixture
    async def runtime(self) -> AsyncIterator[LoopInAThread]:
        self.host = threading.get_ident()
        runtime = LoopInAThread()
        runtime.start()
        yield runtime
        await runtime.aclose()

    def is_inside(self) -> bool:
        return asyncio.current_task() is not None and threading.get_ident() != self.host


@pytest.mark.anyio
async def test_the_suite_finds_a_runtime_that_does_not_wait_for_the_clean_up() -> None:
    async def hasty(function: Any, *, deadline: float | None = None) -> Any:
        return await asyncio.shield(asyncio.ensure_future(function()))

    way = Way(hasty, lambda: True)
    suite: Any = CallConformance()
    with pytest.raises(AssertionError):
        await suite.test_cancelling_returns_only_after_the_clean_up_without_spinning(way)


def test_a_runtime_that_does_not_say_how_to_know_it_is_told_so() -> None:
    suite: Any = RuntimeConformance
    with pytest.raises(TypeError, match="abstract method '?is_inside"):
        suite()


# --- loading --------------------------------------------------------------------------------------


def test_what_pytest_loads_by_itself_costs_nothing() -> None:
    probe = (
        "import pytest, sys; before = set(sys.modules); import mcpd_core.testing.fixtures;"
        "print(sorted(name for name in set(sys.modules) - before))"
    )
    out = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    ).stdout
    assert eval(out) == ["mcpd_core", "mcpd_core.testing", "mcpd_core.testing.fixtures"]


def test_pytest_finds_the_fixtures_by_their_entry_point(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(mcpd_host, mcpd_client, tmp_plugin): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    done = subprocess.run([*command, "-p", "no:mcpd"], capture_output=True, text=True, check=False)
    assert "fixture 'mcpd_host' not found" in done.stdout


def test_every_public_name_is_there_and_documented() -> None:
    assert set(mcpd_core.testing.__all__) <= set(dir(mcpd_core.testing))
    for name in mcpd_core.testing.__all__:
        value = getattr(mcpd_core.testing, name)
        assert isinstance(value, str) or value.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mcpd_core.testing.nothing  # noqa: B018
