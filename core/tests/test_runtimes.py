"""The promises of the runtimes, checked for every caller and callee."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.lowlevel

from mcpd_core.errors import CallCancelled, ToolUnavailable
from mcpd_core.runtimes import AsyncioRuntime, Expired, ThreadRuntime, TrioRuntime

Run = Callable[..., Coroutine[Any, Any, Any]]

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


@pytest.fixture(params=["asyncio", "trio", "trio to asyncio", "asyncio to asyncio", "trio to trio"])
def pair(request: pytest.FixtureRequest, trio_runtime: TrioRuntime) -> tuple[str, Run]:
    """A callee's library, and how a caller on the host's loop reaches it."""
    loop = AsyncioRuntime()
    assert trio_runtime.rung == "guest"

    async def trio_to_asyncio(function: Any, *, deadline: float | None = None) -> Any:
        return await trio_runtime.run(
            lambda: trio_runtime.run_in_host(lambda: loop.run(function, deadline=deadline))
        )

    async def asyncio_to_asyncio(function: Any, *, deadline: float | None = None) -> Any:
        return await loop.run(lambda: loop.run_here(function, deadline=deadline))

    async def trio_to_trio(function: Any, *, deadline: float | None = None) -> Any:
        return await trio_runtime.run(lambda: trio_runtime.run_here(function, deadline=deadline))

    ways: dict[str, tuple[str, Run]] = {
        "asyncio": ("asyncio", loop.run),
        "trio": ("trio", trio_runtime.run),
        "trio to asyncio": ("asyncio", trio_to_asyncio),
        "asyncio to asyncio": ("asyncio", asyncio_to_asyncio),
        "trio to trio": ("trio", trio_to_trio),
    }
    return ways[request.param]


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


@pytest.mark.anyio
async def test_a_value_comes_back_from_the_library_it_was_made_in(pair: tuple[str, Run]) -> None:
    library, run = pair

    async def tool() -> tuple[bool, int]:
        await anyio.lowlevel.checkpoint()
        return in_library(library), threading.get_ident()

    assert await run(tool) == (True, threading.get_ident())


@pytest.mark.anyio
async def test_an_error_arrives_with_its_traceback_and_the_tool_ran_once(
    pair: tuple[str, Run],
) -> None:
    _, run = pair
    runs = []

    async def the_tool_that_fails() -> None:
        runs.append(1)
        await anyio.lowlevel.checkpoint()
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost") as caught:
        await run(the_tool_that_fails)
    assert "the_tool_that_fails" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert runs == [1]


@pytest.mark.anyio
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_an_exit_of_a_tool_is_an_error_like_any_and_the_runtime_lives_on(
    pair: tuple[str, Run], error: BaseException
) -> None:
    library, run = pair

    async def leaves() -> None:
        raise error

    async def stays() -> bool:
        return in_library(library)

    with pytest.raises(type(error)):
        await run(leaves)
    assert await run(stays)


@pytest.mark.anyio
async def test_context_variables_go_in_and_do_not_come_out(pair: tuple[str, Run]) -> None:
    _, run = pair
    where.set("caller")

    async def tool() -> str:
        seen = where.get()
        where.set("tool")
        return seen

    async def caller() -> tuple[str, str]:
        return await run(tool), where.get()

    seen, after = await caller()
    assert seen == "caller"
    assert after == "caller"


@pytest.mark.anyio
async def test_cancelling_returns_only_after_the_clean_up_without_spinning(
    pair: tuple[str, Run],
) -> None:
    library, run = pair
    started = asyncio.Event()
    cleaned = []
    iterations = 0

    async def tool() -> None:
        started.set()
        try:
            await anyio.sleep(3600)
        finally:
            await clean_up(library, 0.1)
            cleaned.append(True)

    def count() -> None:
        nonlocal iterations
        iterations += 1
        if not cleaned:
            loop.call_later(0.001, count)

    loop = asyncio.get_running_loop()
    async with anyio.create_task_group() as group:
        # An anyio scope cancels again and again whatever waits unshielded inside it.
        group.start_soon(partial(run, tool))
        await started.wait()
        cpu = time.process_time()
        group.cancel_scope.cancel()
        loop.call_soon(count)
    assert cleaned == [True]
    assert time.process_time() - cpu < 0.09, "the wait used up the processor"


@pytest.mark.anyio
async def test_a_second_cancellation_does_not_cut_the_clean_up_short(
    pair: tuple[str, Run],
) -> None:
    library, run = pair
    started = asyncio.Event()
    cleaned = []

    async def tool() -> None:
        started.set()
        try:
            await anyio.sleep(3600)
        finally:
            await clean_up(library, 0.05)
            cleaned.append(True)

    task = asyncio.ensure_future(run(tool))
    await started.wait()
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]


@pytest.mark.anyio
async def test_a_deadline_cancels_the_tool_and_is_told_from_a_cancellation(
    pair: tuple[str, Run],
) -> None:
    library, run = pair
    cleaned = []

    async def tool() -> None:
        try:
            await anyio.sleep(3600)
        finally:
            await clean_up(library, 0.02)
            cleaned.append(True)

    with pytest.raises(Expired):
        await run(tool, deadline=time.monotonic() + 0.02)
    assert cleaned == [True]


@pytest.mark.anyio
async def test_a_tool_that_ends_before_its_deadline_is_left_alone(pair: tuple[str, Run]) -> None:
    _, run = pair

    async def tool() -> str:
        await anyio.lowlevel.checkpoint()
        return "done"

    assert await run(tool, deadline=time.monotonic() + 60) == "done"


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
async def test_closing_cancels_what_runs_and_refuses_what_comes_after(
    anyio_backend: str,
) -> None:
    runtime = TrioRuntime()
    with pytest.raises(ToolUnavailable):
        await runtime.run(trio.sleep_forever)
    await runtime.start()
    cleaned, started = [], asyncio.Event()

    async def tool() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            await clean_up("trio", 0.02)
            cleaned.append(True)

    task = asyncio.ensure_future(runtime.run(tool))
    await started.wait()
    await runtime.aclose()
    await runtime.aclose()
    with pytest.raises(CallCancelled):
        await task
    assert cleaned == [True]
    assert not runtime.running
    with pytest.raises(ToolUnavailable):
        await runtime.run(tool)


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
async def test_a_gate_lets_pass_what_waits_inside_the_runtime(trio_runtime: TrioRuntime) -> None:
    for runtime in (trio_runtime, AsyncioRuntime()):
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
