"""Libraries in threads of their own: the promises of a runtime, and what is particular to them."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from queue import SimpleQueue
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.lowlevel

from mcpd_core.errors import CallCancelled, ToolUnavailable, WrongLibrary
from mcpd_core.runtimes import AsyncioRuntime, Expired, ThreadBridge
from mcpd_core.runtimes import bridge as bridging
from mcpd_core.runtimes.far_sides import AsyncioSide
from mcpd_core.runtimes.mailbox import Mailbox
from mcpd_core.testing import CallConformance, RuntimeConformance
from mcpd_core.testing.runtimes import Way

from .runtime_kit import STARTED, STORM, STORM_LIMIT, nothing_is_left

LOOPS: list[Any] = ["asyncio"]
if importlib.util.find_spec("uvloop") is not None:
    LOOPS.append(("asyncio", {"use_uvloop": True}))
LIBRARIES = ["trio", "asyncio"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"][: len(LOOPS)])
def either_loop(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def bridge(anyio_backend: Any, library: str) -> AsyncIterator[ThreadBridge]:
    bridge = ThreadBridge(library, patience=5, label="test")
    await bridge.start()
    assert bridge.rung == "thread"
    yield bridge
    await bridge.aclose()


def in_library(library: str) -> bool:
    if library == "trio":
        return trio.lowlevel.current_task() is not None
    return asyncio.current_task() is not None


def threads_of(label: str) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith(f"mcpd-{label}-")]


class TestItIsARuntime(RuntimeConformance):
    @pytest.fixture
    def anyio_backend(self, either_loop: Any) -> Any:
        return either_loop

    @pytest.fixture(autouse=True, params=LIBRARIES)
    def library(self, request: pytest.FixtureRequest) -> str:
        self.name: str = request.param
        self.host = threading.get_ident()
        return self.name

    @pytest.fixture
    def runtime(self, bridge: ThreadBridge) -> ThreadBridge:
        return bridge

    def is_inside(self) -> bool:
        return in_library(self.name) and threading.get_ident() != self.host


class TestTheWayBackIsOneToo(CallConformance):
    """The host's code as called from the thread."""

    @pytest.fixture
    def anyio_backend(self, either_loop: Any) -> Any:
        return either_loop

    @pytest.fixture
    def way(self, bridge: ThreadBridge) -> Way:
        host, loop = threading.get_ident(), AsyncioRuntime()

        async def run(function: Any, *, deadline: float | None = None) -> Any:
            inside = partial(loop.run, function, deadline=deadline)
            return await bridge.run(partial(bridge.run_in_host, inside))

        def is_inside() -> bool:
            return in_library("asyncio") and threading.get_ident() == host

        return Way(run, is_inside, asyncio.sleep)


class TestTheWayWithinIsOneToo(CallConformance):
    @pytest.fixture
    def way(self, bridge: ThreadBridge, library: str) -> Way:
        async def run(function: Any, *, deadline: float | None = None) -> Any:
            return await bridge.run(partial(bridge.run_here, function, deadline=deadline))

        async def clean_up(seconds: float) -> None:
            if library == "asyncio":
                await asyncio.sleep(seconds)
            else:
                with trio.CancelScope(shield=True):
                    await trio.sleep(seconds)

        return Way(run, partial(in_library, library), clean_up)


class TestTheMailbox:
    def test_a_loop_is_woken_once_for_many_calls_and_makes_them_in_order(self) -> None:
        wakes: list[Any] = []
        made: list[int] = []
        mailbox = Mailbox(wakes.append)
        for n in range(100):
            mailbox.post(partial(made.append, n))
        assert len(wakes) == 1
        wakes.pop()()
        assert made == list(range(100))

    def test_what_is_posted_during_a_delivery_wakes_again(self) -> None:
        wakes: list[Any] = []
        made: list[str] = []
        mailbox = Mailbox(wakes.append)
        mailbox.post(lambda: mailbox.post(lambda: made.append("second")))
        wakes.pop()()
        assert made == []
        wakes.pop()()
        assert made == ["second"]
        assert wakes == []

    def test_no_call_is_lost_among_threads(self) -> None:
        made: list[int] = []
        wakes: SimpleQueue[Any] = SimpleQueue()
        mailbox = Mailbox(wakes.put)

        def post() -> None:
            for n in range(5000):
                mailbox.post(partial(made.append, n))

        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(made) < 20000:
            wakes.get(timeout=10)()
        for thread in threads:
            thread.join()
        assert sorted(made) == sorted(4 * list(range(5000)))


@pytest.mark.anyio
async def test_one_that_blocks_leaves_the_hosts_loop_free(bridge: ThreadBridge) -> None:
    turns = 0

    async def blocks() -> int:
        before = turns
        time.sleep(0.2)  # noqa: ASYNC251 - that it blocks is the point
        return turns - before

    blocked = asyncio.ensure_future(bridge.run(blocks))
    while not blocked.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert await blocked > 20


@pytest.mark.anyio
async def test_calls_cross_forty_times_and_cancelling_the_outermost_unwinds_all(
    bridge: ThreadBridge, either_loop: Any
) -> None:
    depth, unwound, bottom = 40, [], threading.Event()

    async def go(level: int) -> None:
        try:
            if level == depth:
                bottom.set()
                await anyio.sleep(3600)
            elif level % 2:
                await bridge.run_in_host(partial(go, level + 1))
            else:
                await bridge.run(partial(go, level + 1))
        finally:
            unwound.append(level)

    task = asyncio.ensure_future(go(0))
    while not bottom.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unwound == list(range(depth, -1, -1))


@pytest.mark.anyio
@pytest.mark.timeout(STORM_LIMIT)
@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_a_storm_of_random_cancellations_leaves_nothing_behind(bridge: ThreadBridge) -> None:
    dice = random.Random(7)
    running = 0

    async def tool(steps: int) -> int:
        nonlocal running
        running += 1
        try:
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            return steps
        finally:
            running -= 1

    async def both_ways(steps: int) -> int:
        return await bridge.run_in_host(partial(at_home, steps))

    async def at_home(steps: int) -> int:
        for _ in range(steps):
            await asyncio.sleep(0)
        return steps

    async def one() -> None:
        steps = dice.randrange(4)
        inner = tool if dice.random() < 0.5 else both_ways
        deadline = time.monotonic() + dice.random() / 500 if dice.random() < 0.2 else None
        task = asyncio.ensure_future(bridge.run(partial(inner, steps), deadline=deadline))
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        if dice.random() < 0.7:
            task.cancel()
        try:
            assert await task == steps
        except (asyncio.CancelledError, Expired):
            pass

    with anyio.fail_after(STORM_LIMIT - 10):
        for _ in range(STORM // 100):
            await asyncio.gather(*(one() for _ in range(100)))
    assert running == 0
    assert nothing_is_left(bridge)


@pytest.mark.anyio
async def test_a_call_cancelled_before_the_thread_has_looked_never_runs(
    bridge: ThreadBridge,
) -> None:
    started, release, ran = threading.Event(), threading.Event(), []

    async def blocks() -> None:
        started.set()
        release.wait(30)

    async def late() -> None:
        ran.append(1)

    blocked = asyncio.ensure_future(bridge.run(blocks))
    while not started.is_set():
        await asyncio.sleep(0.001)
    task = asyncio.ensure_future(bridge.run(late))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await blocked
    assert not ran


@pytest.mark.anyio
async def test_a_cancelled_error_of_its_own_reaches_nobody(bridge: ThreadBridge) -> None:
    async def own() -> None:
        raise asyncio.CancelledError

    async def caller() -> str:
        try:
            await bridge.run_in_host(own)
        except CallCancelled:
            return "told apart"
        return "not told"

    assert await bridge.run(caller) == "told apart"


@pytest.mark.anyio
async def test_the_wrong_library_is_named_and_harms_nobody_else(bridge: ThreadBridge) -> None:
    async def wrong() -> None:
        if bridge.name == "trio":
            await asyncio.sleep(0.01)
        else:
            await trio.sleep(0.01)

    with pytest.raises(WrongLibrary, match=f"The tool runs in {bridge.name} and used"):
        await bridge.run(wrong)
    await bridge.run(anyio.lowlevel.checkpoint)


@pytest.mark.anyio
async def test_it_runs_nothing_before_its_start(library: str) -> None:
    bridge = ThreadBridge(library, patience=1)
    with pytest.raises(ToolUnavailable):
        await bridge.run(trio.sleep_forever)
    await bridge.aclose()


@pytest.mark.anyio
async def test_it_can_be_closed_while_it_starts_and_does_not_start_afterwards(
    library: str,
) -> None:
    bridge = ThreadBridge(library, patience=5, label="hasty")
    start = asyncio.ensure_future(bridge.start())
    await asyncio.sleep(0)
    await bridge.aclose()
    await start
    assert not bridge.running
    assert not threads_of("hasty")
    with pytest.raises(ToolUnavailable, match="thread of hasty is not running"):
        await bridge.start()


@pytest.mark.anyio
async def test_tasks_that_tools_leave_running_end_with_the_thread(bridge: ThreadBridge) -> None:
    if bridge.name == "trio":
        pytest.skip("trio has no such tasks")
    ended: list[str] = []
    tasks: list[Any] = []

    async def stray() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("stray")

    async def tool() -> None:
        tasks.append(asyncio.ensure_future(stray()))
        await asyncio.sleep(0)

    await bridge.run(tool)
    assert not ended
    await bridge.aclose()
    assert ended == ["stray"]
    assert not threads_of("test")


@pytest.mark.anyio
async def test_a_thread_that_hangs_is_left_behind_by_the_close_and_named(
    library: str, caplog: pytest.LogCaptureFixture
) -> None:
    release, started = threading.Event(), threading.Event()
    bridge = ThreadBridge(library, patience=0.05, label="hung")
    await bridge.start()

    async def the_one_that_hangs() -> None:
        started.set()
        release.wait(30)

    task = asyncio.ensure_future(bridge.run(the_one_that_hangs))
    while not started.is_set():
        await asyncio.sleep(0.001)
    await bridge.aclose()
    with pytest.raises(CallCancelled):
        await task
    assert "the_one_that_hangs did not stop within 0.05 s" in caplog.text
    assert "the thread of hung hangs in" in caplog.text
    release.set()
    # It ends by itself as soon as it can.
    for thread in threads_of("hung"):
        await asyncio.to_thread(thread.join, 10)
    assert not threads_of("hung")


@pytest.mark.anyio
async def test_others_in_a_thread_that_was_given_up_can_end_before_it_does(
    library: str, caplog: pytest.LogCaptureFixture
) -> None:
    release, started = threading.Event(), threading.Event()
    bridge = ThreadBridge(library, patience=0.05, label="given-up")
    await bridge.start()

    async def innocent() -> str:
        await anyio.sleep(0.01)
        return "done"

    async def hangs() -> None:
        started.set()
        release.wait(30)

    other = asyncio.ensure_future(bridge.run(innocent))
    with pytest.raises(Expired):
        await bridge.run(hangs, deadline=time.monotonic() + STARTED)
    assert started.is_set()
    assert not bridge.usable
    with pytest.raises(ToolUnavailable):
        await bridge.run(innocent)
    release.set()
    assert await other == "done"
    for thread in threads_of("given-up"):
        await asyncio.to_thread(thread.join, 10)
    assert not threads_of("given-up")
    await bridge.aclose()


@pytest.mark.anyio
async def test_a_long_clean_up_is_no_hang(bridge: ThreadBridge) -> None:
    quick = ThreadBridge(bridge.name, patience=0.02, label="patient")
    await quick.start()
    cleaned: list[bool] = []

    async def tool() -> None:
        try:
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.2)
            cleaned.append(True)

    with pytest.raises(Expired):
        await quick.run(tool, deadline=time.monotonic() + STARTED)
    assert cleaned == [True]
    assert quick.usable
    await quick.aclose()


def test_a_host_that_goes_without_a_word_leaves_no_thread(library: str) -> None:
    release = threading.Event()

    async def host() -> None:
        bridge = ThreadBridge(library, patience=1, label="orphan")
        await bridge.start()

        async def tool() -> None:
            await anyio.lowlevel.checkpoint()
            release.wait(30)

        running.append(asyncio.ensure_future(bridge.run(tool)))
        await asyncio.sleep(0.01)

    running: list[Any] = []
    loop = asyncio.new_event_loop()
    task = loop.create_task(host())
    loop.run_until_complete(task)
    for left in asyncio.all_tasks(loop):
        left.cancel()
    loop.close()
    (thread,) = threads_of("orphan")
    release.set()
    thread.join(10)
    assert not thread.is_alive()


class BrokenSide(AsyncioSide):
    """Ends with an error before its loop turns, or after."""

    early = True

    def main(self, on_ready: Any) -> None:
        if self.early:
            raise OSError("no descriptors left")
        super().main(on_ready)

    def spawn(self, call: Any) -> None:
        call.entered(lambda: None)
        self._loop.call_soon(self._loop.stop)


@pytest.mark.anyio
async def test_a_library_that_cannot_be_started_is_said_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bridging, "FAR_SIDES", {"asyncio": BrokenSide})
    bridge = ThreadBridge("asyncio", patience=1, label="broken")
    with pytest.raises(ToolUnavailable, match="asyncio thread of broken could not be started"):
        await bridge.start()
    assert "no descriptors left" in caplog.text
    assert not bridge.usable
    await bridge.aclose()


@pytest.mark.anyio
async def test_a_loop_that_breaks_takes_its_calls_with_it_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bridging, "FAR_SIDES", {"asyncio": BrokenSide})
    monkeypatch.setattr(BrokenSide, "early", False)
    bridge = ThreadBridge("asyncio", patience=1, label="broken")
    await bridge.start()
    with pytest.raises(CallCancelled):
        await bridge.run(partial(asyncio.sleep, 0))
    assert "The asyncio thread of broken ended with an error" in caplog.text
    await bridge.aclose()


@pytest.mark.anyio
async def test_a_system_without_threads_to_spare_is_said_so(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bridge = ThreadBridge(library, patience=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ToolUnavailable, match="can't start new thread"):
            await bridge.start()
    # Later there may be some.
    await bridge.start()
    await bridge.run(anyio.lowlevel.checkpoint)
    await bridge.aclose()
