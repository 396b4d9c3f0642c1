"""The runtimes of trio on every rung and every loop, for the tests of their promises."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import anyio
import pytest
import sniffio
import trio
import trio.lowlevel

from mcpd_core.runtimes import ThreadBridge, TrioRuntime
from mcpd_core.runtimes.trio_drivers import Choice

#: How many calls each storm makes in each direction; ``make soak`` makes 100,000.
STORM = int(os.environ.get("MCPD_STORM", "2000"))
#: Seconds that a storm may take.
STORM_LIMIT = 60 + STORM // 100

#: Seconds within which a call has begun in another thread, even where the machine is busy. A
#: deadline that is to find it there is this far away.
STARTED = 0.2

HAS_EPOLL = hasattr(select, "epoll")
HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None

needs_epoll = pytest.mark.skipif(not HAS_EPOLL, reason="the fused driver needs epoll")
needs_uvloop = pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed")

#: The rungs, and whether calls are run eagerly where the rung can do so.
RUNGS = [
    pytest.param(("fused", True), id="fused", marks=needs_epoll),
    pytest.param(("fused", False), id="fused-queued", marks=needs_epoll),
    pytest.param(("guest", True), id="guest"),
]
THREAD = pytest.param(("thread", True), id="thread")
LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=needs_uvloop),
]

#: What runs functions in trio, in the host's thread or in one of its own.
AnyRuntime = TrioRuntime | ThreadBridge


class EveryRung:
    """Gives the tests of a subclass a ``runtime`` of each rung, on each loop."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=LOOPS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture(params=RUNGS)
    def rung(self, request: pytest.FixtureRequest) -> Any:
        """What `started` takes, for a test that starts a runtime by itself."""
        return request.param

    @pytest.fixture
    async def runtime(self, rung: Any, anyio_backend: Any) -> AsyncIterator[TrioRuntime]:
        runtime = await started(*rung)
        assert on_uvloop() == anyio_backend[1]["use_uvloop"]
        yield runtime
        await runtime.aclose()
        assert asyncio.current_task() is not None
        assert library() == "asyncio"


class ThreadToo(EveryRung):
    """Gives the tests of a subclass also a ``runtime`` that has a thread of its own.

    What such a test shares between the two sides has to bear it: see `Signal` and `tell`.
    """

    @pytest.fixture(params=[*RUNGS, THREAD])
    def rung(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    async def runtime(self, rung: Any, anyio_backend: Any) -> AsyncIterator[AnyRuntime]:
        runtime = await started_anywhere(*rung)
        assert on_uvloop() == anyio_backend[1]["use_uvloop"]
        yield runtime
        await runtime.aclose()
        assert asyncio.current_task() is not None
        assert library() == "asyncio"


class Fused:
    """Gives the tests of a subclass a fused, eager ``runtime``, on each loop."""

    pytestmark = [pytest.mark.anyio, needs_epoll]  # noqa: RUF012 - what pytest takes

    @pytest.fixture(params=LOOPS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    async def runtime(self, anyio_backend: Any) -> AsyncIterator[TrioRuntime]:
        runtime = await started("fused")
        assert on_uvloop() == anyio_backend[1]["use_uvloop"]
        yield runtime
        await runtime.aclose()


async def started(rung: Choice, eager: bool = True) -> TrioRuntime:
    """Return a runtime that was started, on the rung that was asked for."""
    runtime = TrioRuntime(rung, eager=eager)
    await runtime.start()
    assert runtime.rung == rung
    assert runtime.running
    return runtime


async def started_anywhere(rung: Choice | Literal["thread"], eager: bool = True) -> AnyRuntime:
    """Return what `started` does, or a thread that was started."""
    if rung != "thread":
        return await started(rung, eager)
    bridge = ThreadBridge("trio", patience=20, label="test")
    await bridge.start()
    assert bridge.rung == rung
    assert bridge.running
    return bridge


def nothing_is_left(runtime: AnyRuntime) -> bool:
    """Tell whether a runtime remembers no call, in either direction."""
    if isinstance(runtime, ThreadBridge):
        return not (runtime._crossings or runtime._live or runtime._errands)
    return not (runtime._crossings or runtime._visits)


def tell(runtime: AnyRuntime, call: Callable[[], object]) -> None:
    """Have a function called where trio runs: at once, where that is this thread."""
    if isinstance(runtime, ThreadBridge):
        runtime._tell(call)
    else:
        call()


class Signal:
    """An event of the host's loop that may be set from trio, in whichever thread that runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        await within(20, self._event.wait)


def on_uvloop() -> bool:
    return type(asyncio.get_running_loop()).__module__.startswith("uvloop")


def library() -> str:
    """Return the library that the calling code runs in, on which everybody has to agree."""
    found = sniffio.current_async_library()
    if found == "trio":
        assert trio.lowlevel.current_task() is not None
        assert not in_asyncio_task()
    else:
        assert in_asyncio_task()
        assert not in_trio_task()
    assert (anyio.get_cancelled_exc_class() is trio.Cancelled) == (found == "trio")
    return found


def in_asyncio_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        # No loop runs in this thread.
        return False


def in_trio_task() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


async def turns(number: int) -> None:
    """Let the host's loop turn a few times."""
    for _ in range(number):
        await asyncio.sleep(0)


async def within(seconds: float, work: Callable[[], Awaitable[Any]]) -> Any:
    """Await something that must not hang; on the host's loop."""
    return await asyncio.wait_for(work(), seconds)
