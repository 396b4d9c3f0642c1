"""The pool of worker threads for `def` tools."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.util
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest

from mcpd_core.errors import CallCancelled, ToolUnavailable
from mcpd_core.runtimes import Expired, ThreadRuntime
from mcpd_core.runtimes.mailbox import Mailbox

from .runtime_kit import STARTED

LOOPS: list[Any] = ["asyncio"]
if importlib.util.find_spec("uvloop") is not None:
    LOOPS.append(("asyncio", {"use_uvloop": True}))

where = contextvars.ContextVar("where", default="nowhere")

pytestmark = pytest.mark.anyio


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"][: len(LOOPS)])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def pool(anyio_backend: Any) -> AsyncIterator[ThreadRuntime]:
    pool = ThreadRuntime(limit=2, patience=0.05)
    assert (pool.name, pool.rung) == ("thread", "pool")
    yield pool
    await pool.aclose()


async def test_many_that_have_ended_wake_the_loop_once(
    pool: ThreadRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asyncio.ensure_future(pool.run(lambda: None))
    await first
    wakes: list[Any] = []
    monkeypatch.setattr(pool._ended, "_wake", wakes.append)
    ended: list[int] = []
    all_ended = threading.Event()

    def tool(n: int) -> int:
        ended.append(n)
        if len(ended) == 50:
            all_ended.set()
        return n

    calls = [asyncio.ensure_future(pool.run(partial(tool, n))) for n in range(50)]
    await asyncio.sleep(0)
    # The loop is kept from looking until all have ended.
    assert all_ended.wait(10)
    while not wakes:
        time.sleep(0.001)  # noqa: ASYNC251 - see above
    assert len(wakes) <= 2, "two threads may both find that nobody has woken it"
    while pool.busy:
        while wakes:
            wakes.pop()()
        await asyncio.sleep(0)
    assert await asyncio.gather(*calls) == list(range(50))


async def test_contexts_go_in_and_do_not_come_out(pool: ThreadRuntime) -> None:
    where.set("caller")

    def tool() -> str:
        seen = where.get()
        where.set("tool")
        return seen

    assert await pool.run(tool) == "caller"
    assert where.get() == "caller"


async def test_a_deadline_tells_the_tool_once_and_a_cancellation_after_it_nothing_new(
    pool: ThreadRuntime,
) -> None:
    stop, told = threading.Event(), []

    def tool() -> None:
        stop.wait(30)
        raise CallCancelled("stopped")

    def on_cancel() -> None:
        told.append(threading.get_ident())
        asyncio.get_running_loop().call_soon(task.cancel)

    call = pool.run(tool, deadline=time.monotonic() + STARTED, on_cancel=on_cancel)
    task = asyncio.ensure_future(call)
    while not told:
        await asyncio.sleep(0.001)
    stop.set()
    with pytest.raises((asyncio.CancelledError, Expired)):
        await task
    assert told == [threading.get_ident()]


async def test_one_that_ends_late_but_ends_has_its_value_counted(
    pool: ThreadRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, release = threading.Event(), threading.Event()
    due: list[Any] = []

    class ByHand:
        def at(self, deadline: float, function: Any) -> asyncio.TimerHandle:
            due.append(function)
            return asyncio.get_running_loop().call_later(3600, function)

    def tool() -> str:
        started.set()
        release.wait(30)
        return "late"

    monkeypatch.setattr(pool, "_deadlines", ByHand())
    call = asyncio.ensure_future(pool.run(tool, deadline=1.0, on_cancel=release.set))
    while not started.is_set():
        await asyncio.sleep(0.001)
    due[0]()
    assert await call == "late"


async def test_a_cancelled_scope_waits_for_the_thread_without_spinning(
    pool: ThreadRuntime,
) -> None:
    started, stopped = threading.Event(), []
    stop = threading.Event()

    def tool() -> None:
        started.set()
        stop.wait(30)
        time.sleep(0.03)
        stopped.append(True)

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await pool.run(tool, on_cancel=stop.set)

        group.start_soon(run)
        while not started.is_set():
            await asyncio.sleep(0.001)
        cpu = time.process_time()
        group.cancel_scope.cancel()
    assert stopped == [True]
    assert time.process_time() - cpu < 0.025, "the wait used up the processor"


async def test_those_that_wait_for_others_do_not_keep_them_from_running(
    pool: ThreadRuntime,
) -> None:
    loop, inner = asyncio.get_running_loop(), threading.Semaphore(0)

    def outer() -> None:
        loop.call_soon_threadsafe(pool.wait)
        assert inner.acquire(timeout=30)
        loop.call_soon_threadsafe(pool.resume)

    calls = [asyncio.ensure_future(pool.run(outer)) for _ in range(2)]
    await asyncio.gather(*(pool.run(inner.release) for _ in range(2)), *calls)
    assert pool.busy == 0


class Occupied:
    """Fills a pool with functions that do not listen, until `release`."""

    def __init__(self, pool: ThreadRuntime, threads: int) -> None:
        self.release = threading.Event()
        self._began = threading.Semaphore(0)
        self.calls = [asyncio.ensure_future(pool.run(self._hang)) for _ in range(threads)]

    def _hang(self) -> None:
        self._began.release()
        self.release.wait(30)

    async def __aenter__(self) -> Occupied:
        for _ in self.calls:
            while not self._began.acquire(blocking=False):
                await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.release.set()
        await asyncio.gather(*self.calls)


async def test_one_that_is_cancelled_before_its_turn_is_neither_run_nor_waited_for(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pool = ThreadRuntime(limit=2, patience=3600)
    ran: list[str] = []
    async with Occupied(pool, 2):
        call = asyncio.ensure_future(pool.run(lambda: ran.append("ran")))
        await asyncio.sleep(0)
        assert pool.busy == 3
        call.cancel()
        # With the patience of an hour, a wait for it would not come to an end.
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 10)
        assert pool.busy == 2
    assert await pool.run(lambda: "served") == "served"
    await pool.aclose()
    assert (ran, caplog.messages) == ([], [])


async def test_one_that_no_thread_was_free_for_says_so(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pool = ThreadRuntime(limit=2, patience=3600)
    async with Occupied(pool, 2):
        with pytest.raises(ToolUnavailable, match="No worker thread was free .* all 2 are in use"):
            await pool.run(lambda: None, deadline=time.monotonic() + 0.01)
        assert pool.busy == 2
    await pool.aclose()
    assert caplog.messages == []


async def test_what_ends_in_time_leaves_no_timer_behind(pool: ThreadRuntime) -> None:
    class Big:
        def __call__(self) -> None:
            stop.wait(30)

    stop = threading.Event()
    pool.patience = 3600
    big = Big()
    call = asyncio.ensure_future(pool.run(big, on_cancel=stop.set))
    while not pool.busy:
        await asyncio.sleep(0.001)
    seen = weakref.ref(big)
    del big
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    del call
    while seen() is not None:
        gc.collect()
        await asyncio.sleep(0.001)


async def test_an_idle_thread_keeps_no_arguments_alive(pool: ThreadRuntime) -> None:
    class Big:
        pass

    async def call() -> weakref.ref[Big]:
        big = Big()
        await pool.run(lambda: str(big))
        return weakref.ref(big)

    seen = await call()
    while seen() is not None:
        gc.collect()
        await asyncio.sleep(0.001)


async def test_a_storm_of_cancellations_leaves_nothing_behind(pool: ThreadRuntime) -> None:
    dice = random.Random(7)

    async def one() -> None:
        task = asyncio.ensure_future(pool.run(lambda: "value"))
        for _ in range(dice.randrange(5)):
            await asyncio.sleep(0)
        if dice.random() < 0.7:
            task.cancel()
        try:
            assert await task == "value"
        except asyncio.CancelledError:
            pass

    for _ in range(20):
        await asyncio.gather(*(one() for _ in range(100)))
    assert pool.busy == 0
    assert await pool.run(lambda: "served") == "served"


async def test_a_system_without_threads_to_spare_is_said_so(
    pool: ThreadRuntime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ToolUnavailable, match="can't start new thread"):
            await pool.run(lambda: None)
    assert pool.busy == 0
    assert await pool.run(lambda: "served") == "served"
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        # One thread is enough to serve all of them, in turn.
        calls = [pool.run(lambda: "served") for _ in range(3)]
        assert await asyncio.gather(*calls) == ["served"] * 3
    assert "Tools wait for those that there are" in caplog.text


def test_every_call_to_a_loop_that_has_ended_is_refused() -> None:
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop.call_soon_threadsafe)
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            mailbox.post(lambda: None)


def test_one_that_returns_after_the_host_has_gone_ends_its_thread() -> None:
    release = threading.Event()

    async def host() -> None:
        pool = ThreadRuntime(limit=1, patience=0.01)
        started = threading.Event()

        def tool() -> None:
            started.set()
            release.wait(30)

        call = asyncio.ensure_future(pool.run(tool))
        while not started.is_set():
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await pool.aclose()

    before = set(threading.enumerate())
    asyncio.run(host())
    (left,) = set(threading.enumerate()) - before
    release.set()
    left.join(10)
    assert not left.is_alive()
