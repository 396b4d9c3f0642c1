"""The promises of the runtimes, checked for every caller and callee."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.lowlevel

from mcpd_core.errors import CallCancelled, ToolUnavailable
from mcpd_core.runtimes import AsyncioRuntime, Expired, ThreadRuntime, TrioRuntime
from mcpd_core.testing import CallConformance, RuntimeConformance
from mcpd_core.testing.runtimes import Run, Way

where = contextvars.ContextVar("where", default="nowhere")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def trio_runtime(anyio_backend: str) -> AsyncIterator[TrioRuntime]:
    runtime = TrioRuntime()
    await runtime.start()
    yield runtime
    await runtime.aclose()


def in_library(library: str) -> bool:
    """Whether the calling code runs in the named library: asked of the library itself."""
    if library == "trio":
        return trio.lowlevel.current_task() is not None
    return asyncio.current_task() is not None


async def clean_up(library: str, seconds: float) -> None:
    if library == "trio":
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


class TestEveryPairOfCallerAndCallee(CallConformance):
    @pytest.fixture(
        params=["asyncio", "trio", "trio to asyncio", "asyncio to asyncio", "trio to trio"]
    )
    def way(self, request: pytest.FixtureRequest, trio_runtime: TrioRuntime) -> Way:
        """How a caller on the host's loop reaches code in a library, directly or through another
        call."""
        loop = AsyncioRuntime()
        assert trio_runtime.rung == "guest"

        async def trio_to_asyncio(function: Any, *, deadline: float | None = None) -> Any:
            return await trio_runtime.run(
                lambda: trio_runtime.run_in_host(lambda: loop.run(function, deadline=deadline))
            )

        async def asyncio_to_asyncio(function: Any, *, deadline: float | None = None) -> Any:
            return await loop.run(lambda: loop.run_here(function, deadline=deadline))

        async def trio_to_trio(function: Any, *, deadline: float | None = None) -> Any:
            return await trio_runtime.run(
                lambda: trio_runtime.run_here(function, deadline=deadline)
            )

        ways: dict[str, tuple[str, Run]] = {
            "asyncio": ("asyncio", loop.run),
            "trio": ("trio", trio_runtime.run),
            "trio to asyncio": ("asyncio", trio_to_asyncio),
            "asyncio to asyncio": ("asyncio", asyncio_to_asyncio),
            "trio to trio": ("trio", trio_to_trio),
        }
        library, run = ways[request.param]
        return Way(run, partial(in_library, library), partial(clean_up, library))

    async def test_both_libraries_share_the_hosts_thread(self, way: Way) -> None:
        async def tool() -> int:
            await anyio.lowlevel.checkpoint()
            return threading.get_ident()

        assert await way.run(tool) == threading.get_ident()


class TestTheTrioRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(self, trio_runtime: TrioRuntime) -> TrioRuntime:
        return trio_runtime

    def is_inside(self) -> bool:
        return in_library("trio")


@pytest.mark.anyio
async def test_a_cancelled_error_that_a_tool_raises_itself_does_not_cancel_its_caller() -> None:
    async def tool() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CallCancelled):
        await AsyncioRuntime().run(tool)


@pytest.mark.anyio
async def test_a_cancelled_error_of_an_asyncio_tool_never_reaches_trio(
    trio_runtime: TrioRuntime,
) -> None:
    async def tool() -> None:
        raise asyncio.CancelledError

    async def caller() -> str:
        try:
            await trio_runtime.run_in_host(tool)
        except CallCancelled:
            return "told apart"
        return "not told"

    assert await trio_runtime.run(caller) == "told apart"


@pytest.mark.anyio
async def test_a_trio_deadline_cancels_an_asyncio_tool_and_waits_for_it(
    trio_runtime: TrioRuntime,
) -> None:
    ended = []

    async def tool() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            ended.append("cleaned")
            raise

    async def caller() -> bool:
        with trio.move_on_after(0.02) as scope:
            await trio_runtime.run_in_host(tool)
        return scope.cancelled_caught

    assert await trio_runtime.run(caller)
    assert ended == ["cleaned"]


@pytest.mark.anyio
async def test_calls_nest_forty_deep_and_cancelling_the_outermost_unwinds_all(
    trio_runtime: TrioRuntime,
) -> None:
    depth, unwound, bottom = 40, [], asyncio.Event()

    async def go(level: int) -> None:
        try:
            if level == depth:
                bottom.set()
                await anyio.sleep(3600)
            elif level % 2:
                await trio_runtime.run_in_host(lambda: go(level + 1))
            else:
                await trio_runtime.run(lambda: go(level + 1))
        finally:
            unwound.append(level)

    task = asyncio.ensure_future(go(0))
    await bottom.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unwound == list(range(depth, -1, -1))


@pytest.mark.anyio
async def test_a_storm_of_random_cancellations_leaves_nothing_behind(
    trio_runtime: TrioRuntime,
) -> None:
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
        return await trio_runtime.run_in_host(lambda: tool(steps))

    async def one() -> None:
        steps = dice.randrange(4)
        inner = tool if dice.random() < 0.5 else both_ways
        task = asyncio.ensure_future(trio_runtime.run(lambda: inner(steps)))
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        if dice.random() < 0.7:
            task.cancel()
        try:
            assert await task == steps
        except asyncio.CancelledError:
            pass

    with anyio.fail_after(50):
        for _ in range(20):
            await asyncio.gather(*(one() for _ in range(100)))
    assert running == 0
    assert not trio_runtime._crossings


@pytest.mark.anyio
async def test_nothing_runs_before_the_start() -> None:
    with pytest.raises(ToolUnavailable):
        await TrioRuntime().run(trio.sleep_forever)


@pytest.mark.anyio
async def test_wrong_library_use_is_an_error_of_that_tool_alone(trio_runtime: TrioRuntime) -> None:
    async def asyncio_in_trio() -> None:
        await asyncio.sleep(0.01)

    async def right() -> bool:
        await trio.lowlevel.checkpoint()
        return True

    with pytest.raises((TypeError, RuntimeError)):
        await trio_runtime.run(asyncio_in_trio)
    assert await trio_runtime.run(right)
    gc.collect()


@pytest.mark.anyio
async def test_a_gate_of_the_loop_lets_pass_what_waits_for_it() -> None:
    runtime = AsyncioRuntime()
    gate = runtime.gate()
    task = asyncio.ensure_future(runtime.run(gate.wait))
    await asyncio.sleep(0)
    gate.open()
    with anyio.fail_after(10):
        await task


@pytest.fixture
async def threads(anyio_backend: str) -> AsyncIterator[ThreadRuntime]:
    runtime = ThreadRuntime(limit=2, patience=0.05)
    yield runtime
    await runtime.aclose()


@pytest.mark.anyio
async def test_a_def_tool_runs_in_another_thread_with_its_callers_context(
    threads: ThreadRuntime,
) -> None:
    where.set("caller")
    ident, seen = await threads.run(lambda: (threading.get_ident(), where.get()))
    assert ident != threading.get_ident()
    assert seen == "caller"
    with pytest.raises(SystemExit):
        await threads.run(lambda: exit(1))
    assert await threads.run(lambda: "alive") == "alive"


@pytest.mark.anyio
async def test_no_more_threads_run_than_the_limit(threads: ThreadRuntime) -> None:
    both = threading.Barrier(2)

    def meet() -> int:
        both.wait(10)
        return threading.get_ident()

    idents = await asyncio.gather(*(threads.run(meet) for _ in range(6)))
    assert len(set(idents)) == 2


@pytest.mark.anyio
async def test_a_def_tool_that_listens_ends_at_its_deadline(threads: ThreadRuntime) -> None:
    stop = threading.Event()

    def tool() -> None:
        stop.wait(60)
        raise CallCancelled("stopped")

    with pytest.raises(Expired):
        await threads.run(tool, deadline=time.monotonic() + 0.01, on_cancel=stop.set)


@pytest.mark.anyio
async def test_a_def_tool_that_does_not_listen_is_left_behind_with_a_warning(
    threads: ThreadRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tool() -> None:
        loop.call_soon_threadsafe(started.set)
        release.wait(60)

    with pytest.raises(Expired):
        await threads.run(tool, deadline=time.monotonic() + 0.01)
    assert "its thread runs on" in caplog.text
    task = asyncio.ensure_future(threads.run(tool))
    started.clear()
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert await threads.run(lambda: "served again") == "served again"


@pytest.mark.anyio
async def test_a_call_cancelled_before_a_thread_was_free_never_runs(
    threads: ThreadRuntime,
) -> None:
    release = threading.Event()
    ran = []
    busy = [asyncio.ensure_future(threads.run(lambda: release.wait(60))) for _ in range(2)]
    await asyncio.sleep(0)
    late = asyncio.ensure_future(threads.run(lambda: ran.append(1)))
    await asyncio.sleep(0)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    release.set()
    await asyncio.gather(*busy)
    await threads.run(lambda: None)
    assert not ran
