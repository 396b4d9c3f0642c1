"""The trio runtime on every rung and every loop, for the tests of its promises."""

from __future__ import annotations

import asyncio
import importlib.util
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
import sniffio
import trio
import trio.lowlevel

from mcpd_core.runtimes import TrioRuntime
from mcpd_core.runtimes.trio_drivers import Choice

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
LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=needs_uvloop),
]


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


def on_uvloop() -> bool:
    return type(asyncio.get_running_loop()).__module__.startswith("uvloop")


def library() -> str:
    """Return the library that the calling code runs in, on which everybody has to agree."""
    found = sniffio.current_async_library()
    if found == "trio":
        assert trio.lowlevel.current_task() is not None
        assert asyncio.current_task() is None
    else:
        assert asyncio.current_task() is not None
        assert not in_trio_task()
    assert (anyio.get_cancelled_exc_class() is trio.Cancelled) == (found == "trio")
    return found


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
