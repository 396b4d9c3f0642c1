"""Tools that block the loop: they and nobody else are named, with the line, and can be moved."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import signal
import sys
import textwrap
import threading
import types
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import pytest
import trio
import trio.lowlevel

from mcpd_core.host import sampling
from mcpd_core.host.looking import Looker, Place, Watched
from mcpd_core.host.stalls import LASTING, Look, Stall, Stalls
from mcpd_core.host.watchdog import PAUSE, Record, Watchdog
from mcpd_core.runtimes import TrioRuntime
from mcpd_core.runtimes.trio_private import task_seen_from_outside
from mcpd_core.settings import WatchdogSettings
from mcpd_core.spec import Call, Principal, ToolSpec
from mcpd_core.testing import MakeHost, PluginHost
from mcpd_core.testing.planting import PlantedPlugin, WritePlugin

LOOPS: list[Any] = ["asyncio"]
#: The daemon runs on uvloop, where it is installed.
if importlib.util.find_spec("uvloop") is not None:
    LOOPS.append(("asyncio", {"use_uvloop": True}))

TOLERATED = 0.05
#: Far more than what is tolerated, however seldom somebody looks.
BLOCK = 0.2
#: So many that adding them up takes about as long.
NUMBERS = 9_000_000


# --- the judgement --------------------------------------------------------------------------------


class Looks:
    """Looks at an imagined thread, as they would be taken."""

    def __init__(self) -> None:
        self.stalls: Stalls[str] = Stalls(TOLERATED)
        self.at = self.cpu = self.others = self.kept = self.collecting = 0.0
        self.beats = 0
        self.told: list[Stall[str]] = []

    def see(
        self,
        suspect: str | None,
        *,
        after: float | None = None,
        cpu: float = 0.0,
        others: float = 0.0,
        kept: float = 0.0,
        collecting: float = 0.0,
        turned: bool = False,
        due: float | None = 0.0,
        place: str = "here",
    ) -> None:
        """Look again.

        :param after: seconds since the last look; as planned by default.
        :param cpu: seconds that the thread has computed meanwhile.
        :param others: the same of all other threads.
        :param kept: seconds for which whoever looks has waited for the interpreter's lock.
        :param turned: whether the loop has got to something else.
        :param due: when the loop was to tick, if it does.
        """
        self.at += self.stalls.interval if after is None else after
        self.cpu += cpu
        self.others += others
        self.kept += kept
        self.collecting += collecting
        self.beats += turned
        stall = self.stalls.see(
            Look(
                at=self.at,
                cpu=self.cpu,
                process=self.cpu + self.others,
                kept=self.kept,
                collecting=self.collecting,
                beats=self.beats,
                due=due,
                suspect=suspect,
                place=place,
            )
        )
        if stall is not None:
            self.told.append(stall)

    def end(self) -> None:
        stall = self.stalls.end()
        if stall is not None:
            self.told.append(stall)


@pytest.fixture
def looks() -> Looks:
    looks = Looks()
    looks.see(None)
    return looks


def test_a_call_that_is_found_again_and_again_while_the_loop_does_not_turn_blocks_it(
    looks: Looks,
) -> None:
    looks.see("a")
    began = looks.at
    for _ in range(20):
        looks.see("a")
    assert looks.told == []
    lasted = looks.at - began
    looks.see(None, turned=True)
    (stall,) = looks.told
    assert stall.seconds == pytest.approx(lasted)
    assert (stall.suspect, stall.place, stall.lasts, stall.told) == ("a", "here", False, False)


def test_looks_are_taken_more_often_while_somebody_is_suspected(looks: Looks) -> None:
    calm = looks.stalls.interval
    looks.see("a")
    assert looks.stalls.interval < calm < TOLERATED


def test_a_call_that_lets_the_loop_turn_blocks_nothing(looks: Looks) -> None:
    for _ in range(100):
        looks.see("a", cpu=looks.stalls.interval, turned=True)
    looks.end()
    assert looks.told == []


def test_calls_that_take_turns_within_one_turn_of_the_loop_are_not_summed_up(
    looks: Looks,
) -> None:
    for name in "abcdef":
        for _ in range(4):
            looks.see(name)
    looks.end()
    assert looks.told == []


def test_a_process_that_was_suspended_blames_nobody(looks: Looks) -> None:
    looks.see("a")
    looks.see("a")
    looks.see("a", after=60.0)
    looks.see(None, turned=True)
    assert looks.told == []


def test_a_machine_that_is_too_busy_to_look_blames_nobody(looks: Looks) -> None:
    looks.see("a")
    # Each look comes far too late, and the thread has hardly run meanwhile.
    looks.see("a", after=0.2, cpu=0.01)
    looks.see("a", after=0.2, cpu=0.01, turned=True)
    looks.end()
    assert looks.told == []


def test_what_is_computed_between_two_looks_counts_in_full(looks: Looks) -> None:
    looks.see("a")
    looks.see("a", after=0.5, cpu=0.5)
    looks.end()
    assert [stall.seconds for stall in looks.told] == [pytest.approx(0.5)]


def test_c_code_that_kept_the_lock_is_blamed_although_it_was_seen_at_its_end_only(
    looks: Looks,
) -> None:
    looks.see(None)
    looks.see("a", after=0.5, cpu=0.5, kept=0.4, turned=True)
    looks.see(None, turned=True)
    (stall,) = looks.told
    assert stall.suspect == "a"
    # What was computed before the look was due may have been anybody's.
    assert stall.seconds == pytest.approx(0.4)


def test_a_late_look_blames_nobody_for_what_other_threads_computed(looks: Looks) -> None:
    looks.see(None)
    looks.see("a", after=0.5, cpu=0.2, others=0.3, kept=0.4)
    looks.see(None, turned=True)
    assert looks.told == []


def test_a_late_look_blames_nobody_when_it_did_not_wait_for_the_lock(looks: Looks) -> None:
    looks.see(None)
    looks.see("a", after=0.5, cpu=0.5, turned=True)
    looks.see(None, turned=True)
    assert looks.told == []


def test_a_late_look_blames_nobody_for_what_was_computed_while_the_loop_ticked(
    looks: Looks,
) -> None:
    looks.see(None)
    # Whoever looks has woken up again and again and has found the lock taken back.
    looks.see("a", after=0.5, cpu=0.5, kept=9.0, due=looks.at + 0.48)
    looks.see(None, turned=True)
    assert looks.told == []


def test_a_late_look_blames_nobody_when_the_loop_does_not_tick(looks: Looks) -> None:
    looks.see(None)
    looks.see("a", after=0.5, cpu=0.5, kept=0.4, due=None)
    looks.see(None, turned=True)
    assert looks.told == []


@pytest.mark.parametrize("first", [None, "a"])
def test_garbage_collection_counts_for_nobody(looks: Looks, first: str | None) -> None:
    looks.see(first)
    looks.see("a", after=0.5, cpu=0.5, kept=0.48, collecting=0.48)
    looks.see(None, turned=True)
    assert looks.told == []


def test_where_the_clock_of_a_thread_cannot_be_read_time_still_counts_as_planned() -> None:
    stalls: Stalls[str] = Stalls(TOLERATED)
    at, seen = 0.0, []
    for _ in range(10):
        at += stalls.interval
        seen.append(stalls.see(Look(at, None, at, 0.0, 0.0, 0, None, "a", "here")))
    at += 60
    seen.append(stalls.see(Look(at, None, at, 0.0, 0.0, 0, None, "a", "here")))
    seen.append(stalls.see(Look(at, None, at, 0.0, 0.0, 1, None, None)))
    (stall,) = [stall for stall in seen if stall is not None]
    assert TOLERATED < stall.seconds < LASTING


def test_a_stall_that_does_not_end_is_told_of_while_it_lasts_and_at_its_end(
    looks: Looks,
) -> None:
    for _ in range(300):
        looks.see("a")
    looks.see(None, turned=True)
    assert [(stall.lasts, stall.told) for stall in looks.told] == [(True, False), (False, True)]
    assert LASTING < looks.told[0].seconds < looks.told[1].seconds


def test_the_line_is_the_one_that_was_found_most_often(looks: Looks) -> None:
    for place in ["first", *["often"] * 9, "last"]:
        looks.see("a", place=place)
    looks.see(None, turned=True)
    assert [stall.place for stall in looks.told] == ["often"]


def test_a_thread_that_does_nothing_for_long_is_looked_at_seldom(looks: Looks) -> None:
    calm = looks.stalls.interval
    while looks.at < 10:
        looks.see(None)
    assert looks.stalls.interval >= 4 * calm
    looks.see(None, cpu=0.01)
    assert looks.stalls.interval == calm


# --- real tools, in both libraries ----------------------------------------------------------------

TOOLS = """
    from __future__ import annotations
    import asyncio, subprocess, threading, time
    import anyio
    from mcpd_core import Context, tool

    @tool
    async def sleeps() -> dict[str, int]:
        await anyio.sleep(0.01)
        time.sleep({block})  # sleeps
        await anyio.sleep(0.01)
        return {{"thread": threading.get_ident()}}

    @tool
    async def at_once() -> str:
        time.sleep({block})  # at_once
        return "slept"

    @tool
    async def computes() -> str:
        await anyio.sleep(0.01)
        end = time.perf_counter() + {block}
        while time.perf_counter() < end:  # computes
            pass
        await anyio.sleep(0.01)
        return "computed"

    @tool
    async def keeps_the_lock() -> int:
        await anyio.sleep(0.1)
        # One call of C code, which never gives the interpreter's lock away.
        total = sum(range({numbers}))  # keeps_the_lock
        await anyio.sleep(0.01)
        return total

    @tool
    async def by_a_child() -> str:
        async def child() -> None:
            await anyio.sleep(0.01)
            time.sleep({block})  # by_a_child
            await anyio.sleep(0.01)

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await anyio.sleep(2 * {block})
        return "waited"

    @tool
    async def through_a_library() -> str:
        subprocess.run(["sleep", "{block}"])  # through_a_library
        return "worked"

    @tool
    async def outer(to: str, ctx: Context) -> str:
        return (await ctx.call(to)).text

    @tool
    async def polite(until: float, steps: int = 1000, every: int = 0) -> dict[str, float]:
        turns, longest = 0, 0.0
        end = time.monotonic() + until
        while (begun := time.monotonic()) < end:
            turns += 1
            # Some of them are long enough for another thread to be given the interpreter's lock.
            for _ in range(600_000 if every and turns % every == 0 else steps):
                pass
            longest = max(longest, time.monotonic() - begun)
            await anyio.sleep(0)
        return {{"turns": turns, "longest": longest}}

    @tool
    async def idles() -> str:
        await anyio.sleep(3600)
        return "never"

    @tool
    async def uses_box(ctx: Context) -> dict[str, int]:
        box = await ctx.service("box")
        time.sleep({block})  # uses_box
        return {{"thread": threading.get_ident(), "box": await box.look()}}

    @tool
    async def opens(ctx: Context) -> str:
        await ctx.service("crate")
        return "open"

    @tool
    def in_a_thread() -> str:
        time.sleep({block})
        return "slept"
"""

PLUGIN = """
from contextlib import asynccontextmanager
import threading, time
import anyio
from mcpd_core import Health, Service, hookimpl

class Box:
    def health(self): return Health(True)
    async def look(self): return threading.get_ident()

@asynccontextmanager
async def open_box(host):
    yield Box()

@asynccontextmanager
async def open_crate(host):
    time.sleep({block})
    await anyio.sleep(0)
    yield Box()

@hookimpl
def mcpd_register_tools(registrar):
    registrar.add_module("{{package}}.tools")

@hookimpl
def mcpd_services():
    here = "{{package}}.plugin"
    return [
        Service("box", here + ":open_box", runtime="{runtime}"),
        Service("crate", here + ":open_crate", runtime="{runtime}"),
    ]
"""

Library = Literal["asyncio", "trio"]
#: The library of the tools, and how trio is driven.
WAYS = ["asyncio", "trio fused", "trio guest"]


class Blocking:
    """A host with the tools above."""

    def __init__(self, host: PluginHost, plugin: PlantedPlugin, library: Library) -> None:
        self.host = host
        self.library = library
        self.tools = plugin.path / plugin.package / "tools.py"

    async def call(self, tool: str, **arguments: Any) -> Any:
        result = await self.host.call(tool, arguments)
        assert not result.is_error, result.text
        return result.structured if result.structured is not None else result.text

    async def blamed(self) -> dict[str, Record]:
        """Return who has blocked the loop, after the last look at what was called so far."""
        host = self.host.host
        # The looks end when nothing has run for the time between two of them.
        while host.watchdog.looking:
            await asyncio.sleep(0.001)
        found = (host.watchdog.record(spec) for spec in host.catalog.specs)
        return {record.spec.name: record for record in found if record is not None}

    def line(self, mark: str) -> int:
        lines = self.tools.read_text().splitlines()
        return next(n for n, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))


Make = Callable[..., AbstractAsyncContextManager[Blocking]]


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio"


#: For what looks at the loop itself.
on_every_loop = pytest.mark.parametrize(
    "anyio_backend", LOOPS, ids=["asyncio", "uvloop"][: len(LOOPS)]
)


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks ends as soon as it has nothing to look at."""
    monkeypatch.setattr(sampling, "LINGER", 0.0)


@pytest.fixture
def make(mcpd_host: MakeHost, tmp_plugin: WritePlugin) -> Make:
    """Makes a host with the tools above."""

    @asynccontextmanager
    async def make(way: str, **watchdog: Any) -> AsyncIterator[Blocking]:
        library: Library = "asyncio" if way == "asyncio" else "trio"
        plugin = tmp_plugin(
            textwrap.dedent(TOOLS).format(block=BLOCK, numbers=NUMBERS),
            runtime=library,
            plugin=PLUGIN.format(block=BLOCK, runtime=library),
        )
        async with mcpd_host(plugin, settings={"watchdog": watchdog}) as host:
            rung: Any = way.partition(" ")[2]
            if rung:
                host.host.lanes.trio = TrioRuntime(rung)
            yield Blocking(host, plugin, library)
            if rung:
                assert host.host.lanes.trio.rung == rung

    return make


def assert_loop(backend: Any) -> None:
    """The loop is the one that the test is about."""
    wanted = "asyncio" if backend == "asyncio" else "uvloop"
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == wanted


BLOCKERS = ["sleeps", "at_once", "computes", "keeps_the_lock", "by_a_child", "through_a_library"]
#: Every way to block in each library, and one of them on every loop however trio is driven there.
CASES = [
    *((loop, way, "sleeps") for loop in LOOPS for way in WAYS),
    *(("asyncio", way, tool) for way in WAYS[:2] for tool in BLOCKERS[1:]),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("anyio_backend", "way", "tool"), CASES)
async def test_the_tool_that_blocks_is_named_with_its_line_and_nobody_else_is(
    make: Make, way: str, tool: str, anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert_loop(anyio_backend)
    async with make(way) as blocking:
        polite = asyncio.ensure_future(blocking.call("polite", until=BLOCK * 2))
        await asyncio.sleep(0.02)
        await blocking.call(tool)
        answer = await polite
        assert answer["turns"] > 10
        blamed = await blocking.blamed()
        # A machine that stands still in the middle of a step makes that one long.
        assert blamed.keys() - {"polite"} == {tool}
        assert "polite" not in blamed or answer["longest"] > TOLERATED
        assert blamed[tool].offences == 1
        assert blamed[tool].longest > TOLERATED
        line = f"{blocking.tools}:{blocking.line(tool)} in "
        said = f"The tool {tool!r} of the plugin planted has blocked the loop for 0."
        (report,) = [text for text in caplog.messages if said in text]
        assert line in report
        if tool == "through_a_library":
            assert f"in {tool} (which is in " in report
            assert "subprocess.py:" in report


@on_every_loop
@pytest.mark.anyio
async def test_a_call_that_gives_the_lock_away_often_is_not_taken_for_one_that_keeps_it(
    make: Make,
) -> None:
    async with make("asyncio") as blocking:
        # The loop takes the lock back before the thread that looks has woken up, many times over.
        answer = await blocking.call("polite", until=2.0, steps=10_000, every=1000)
        assert answer["turns"] > 1000
        assert not await blocking.blamed() or answer["longest"] > TOLERATED


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_a_nested_call_is_blamed_itself_and_its_caller_is_not(make: Make, way: str) -> None:
    async with make(way) as blocking:
        await blocking.call("outer", to="sleeps")
        assert set(await blocking.blamed()) == {"sleeps"}


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_a_service_that_is_slow_to_start_is_not_the_tool_that_wanted_it(
    make: Make, way: str
) -> None:
    async with make(way) as blocking:
        assert await blocking.call("opens") == "open"
        assert await blocking.blamed() == {}


@pytest.mark.anyio
async def test_a_tool_in_a_thread_blocks_nothing(make: Make) -> None:
    async with make("asyncio") as blocking:
        polite = asyncio.ensure_future(blocking.call("polite", until=BLOCK))
        await blocking.call("in_a_thread")
        await polite
        assert await blocking.blamed() == {}


@pytest.mark.anyio
@pytest.mark.parametrize("policy", [{"policy": "ignore"}, {"ignore": ["sleeps"]}])
async def test_a_tool_can_be_ignored(make: Make, policy: dict[str, Any]) -> None:
    async with make("asyncio", **policy) as blocking:
        await blocking.call("sleeps")
        assert not blocking.host.host.watchdog.looking
        assert await blocking.blamed() == {}


# --- moving ---------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("way", "policy"),
    [*((way, {"policy": "move"}) for way in WAYS), ("asyncio", {"move": ["sleeps"]})],
)
async def test_after_enough_offences_a_tool_runs_in_another_thread(
    make: Make, way: str, policy: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    here = threading.get_ident()
    async with make(way, offences=2, **policy) as blocking:
        for _ in range(2):
            assert (await blocking.call("sleeps"))["thread"] == here
            await blocking.blamed()
            await asyncio.sleep(0)
        polite = asyncio.ensure_future(blocking.call("polite", until=BLOCK))
        assert (await blocking.call("sleeps"))["thread"] != here
        await polite
        blamed = await blocking.blamed()
        assert {name: record.offences for name, record in blamed.items()} == {"sleeps": 2}
        assert "its next calls run in a thread." in caplog.text
        (offer,) = [o for o in blocking.host.host.overview()["offers"] if o["name"] == "sleeps"]
        assert offer["runtime"] == f"{blocking.library} thread"
        assert offer["blocked"]["offences"] == 2


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_a_tool_that_uses_a_service_is_never_moved(
    make: Make, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = threading.get_ident()
    async with make(way, policy="move", offences=1) as blocking:
        for _ in range(2):
            answer = await blocking.call("uses_box")
            assert answer == {"thread": here, "box": here}
            await blocking.blamed()
            await asyncio.sleep(0)
        assert (await blocking.blamed())["uses_box"].offences == 2
        assert "stays where it is" in caplog.text
        assert caplog.text.count("stays where it is") == 1


@pytest.mark.anyio
async def test_a_tool_is_only_reported_where_that_is_wanted(make: Make) -> None:
    here = threading.get_ident()
    async with make("asyncio", policy="move", report=["sleeps"], offences=1) as blocking:
        for _ in range(2):
            assert (await blocking.call("sleeps"))["thread"] == here
            await blocking.blamed()
            await asyncio.sleep(0)


# --- the thread that looks ------------------------------------------------------------------------


@on_every_loop
@pytest.mark.anyio
async def test_nobody_looks_before_the_first_call_nor_after_the_last(make: Make) -> None:
    def looking() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "mcpd-watchdog"]

    async with make("asyncio") as blocking:
        assert looking() == []
        await blocking.call("polite", until=0.01)
        assert looking() == ["mcpd-watchdog"]
        callbacks = len(gc.callbacks)
        assert await blocking.blamed() == {}
        while looking():
            await asyncio.sleep(0.001)
        assert len(gc.callbacks) == callbacks - 1


@on_every_loop
@pytest.mark.anyio
async def test_a_host_that_is_closed_waits_for_no_looks(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "LINGER", 3600.0)
    async with make("asyncio") as blocking:
        await blocking.call("polite", until=0.1)
        call = asyncio.ensure_future(blocking.host.call("idles"))
        await asyncio.sleep(0.1)
        assert blocking.host.host.watchdog.looking
    error = (await call).error
    assert error is not None
    assert error["code"] == "interrupted"
    assert not [t for t in threading.enumerate() if t.name == "mcpd-watchdog"]


@on_every_loop
@pytest.mark.anyio
async def test_a_process_that_is_stopped_for_a_while_blames_nobody(make: Make) -> None:
    async with make("asyncio") as blocking:
        call = asyncio.ensure_future(blocking.call("polite", until=0.5))
        await asyncio.sleep(0.05)
        # Somebody else has to wake this process again.
        resume = f"sleep 0.3; kill -CONT {os.getpid()}"
        other = await asyncio.create_subprocess_exec("sh", "-c", resume)
        os.kill(os.getpid(), signal.SIGSTOP)
        await other.wait()
        await call
        assert await blocking.blamed() == {}


@pytest.mark.anyio
async def test_a_watchdog_that_fails_says_so_and_calls_go_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("changed")

    monkeypatch.setattr(Looker, "look", fail)
    said = "The watchdog has failed"
    async with make("asyncio") as blocking:
        while said not in caplog.text:
            await blocking.call("polite", until=0.01)
        await blocking.call("polite", until=0.1)
    assert caplog.text.count(said) == 1


def test_a_loop_that_is_closed_under_it_is_no_failure_of_the_watchdog(
    caplog: pytest.LogCaptureFixture,
) -> None:
    moved: list[str] = []

    def move(label: str) -> bool:
        moved.append(label)
        return True

    async def make() -> Watchdog:
        return Watchdog(WatchdogSettings(policy="move", offences=1), move, lambda: None)

    watchdog = asyncio.run(make())
    call = Call("1", ToolSpec("slow", "", {}, "a:b", "acme"), {}, Principal("local", "1"), "test")
    place = Place("tools.py", 3, "slow")
    # What the thread that looks does as it finds the stall, which may be after the loop's end.
    watchdog._charge(Stall(Watched(call), 1.0, place, lasts=False, told=False))
    assert "the plugin acme has blocked the loop for 1.00 s" in caplog.text
    assert moved == []


def test_another_thread_sees_which_task_of_trio_runs() -> None:
    async def main() -> None:
        seen = task_seen_from_outside()
        with ThreadPoolExecutor(1) as outside:
            assert outside.submit(seen).result() is trio.lowlevel.current_task()
            await trio.lowlevel.checkpoint()
            assert outside.submit(seen).result() is trio.lowlevel.current_task()
        told.append(seen)

    told: list[Callable[[], Any]] = []
    trio.run(main)
    assert told[0]() is None


def test_a_trio_that_does_not_tell_its_task_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "trio._core._run", types.ModuleType("changed"))
    assert task_seen_from_outside()() is None
    assert "cannot tell which tool of trio blocks the loop" in caplog.text


# --- records --------------------------------------------------------------------------------------


def test_one_tool_is_written_about_once_in_a_while() -> None:
    record = Record(ToolSpec("slow", "", {}, "a:b", "acme"))
    assert record.may_be_written(0.0)
    assert not record.may_be_written(1.0)
    assert not record.may_be_written(PAUSE - 1)
    assert record.may_be_written(PAUSE)
    assert (record.unwritten(), record.unwritten()) == (2, 0)


def test_a_stall_that_is_told_of_twice_is_one_offence() -> None:
    record = Record(ToolSpec("slow", "", {}, "a:b", "acme"))
    place = Place("tools.py", 3, "slow", Place("socket.py", 700, "recv"))
    suspect: Any = None
    record.charge(Stall(suspect, 1.0, place, lasts=True, told=False))
    record.charge(Stall(suspect, 2.5, place, lasts=False, told=True))
    assert record.to_json() == {
        "offences": 1,
        "seconds": 2.5,
        "longest": 2.5,
        "place": "tools.py:3 in slow (which is in socket.py:700 in recv)",
    }
