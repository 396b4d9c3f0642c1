"""The promises of the runtimes, checked for every caller and callee."""

from __future__ import annotations

import asyncio
import contextvars
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

from mcpd_core.errors import CallCancelled
from mcpd_core.runtimes import AsyncioRuntime, Expired, ThreadRuntime, TrioRuntime
from mcpd_core.testing import CallConformance
from mcpd_core.testing.runtimes import Run, Way

from .runtime_kit import STARTED, EveryRung

where = contextvars.ContextVar("where", default="nowhere")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


class TestEveryPairOfCallerAndCallee(EveryRung, CallConformance):
    @pytest.fixture(
        params=["asyncio", "trio", "trio to asyncio", "asyncio to asyncio", "trio to trio"]
    )
    def way(self, request: pytest.FixtureRequest, runtime: TrioRuntime) -> Way:
        """How a caller on the host's loop reaches code in a library, directly or through another
        call."""
        loop = AsyncioRuntime()

        async def trio_to_asyncio(function: Any, *, deadline: float | None = None) -> Any:
            return await runtime.run(
                lambda: runtime.run_in_host(lambda: loop.run(function, deadline=deadline))
            )

        async def asyncio_to_asyncio(function: Any, *, deadline: float | None = None) -> Any:
            return await loop.run(lambda: loop.run_here(function, deadline=deadline))

        async def trio_to_trio(function: Any, *, deadline: float | None = None) -> Any:
            return await runtime.run(lambda: runtime.run_here(function, deadline=deadline))

        ways: dict[str, tuple[str, Run]] = {
            "asyncio": ("asyncio", loop.run),
            "trio": ("trio", runtime.run),
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


@pytest.mark.anyio
async def test_a_cancelled_error_that_a_tool_raises_itself_does_not_cancel_its_caller() -> None:
    async def tool() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CallCancelled):
        await AsyncioRuntime().run(tool)


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
        await threads.run(tool, deadline=time.monotonic() + STARTED, on_cancel=stop.set)


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
        await threads.run(tool, deadline=time.monotonic() + STARTED)
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
