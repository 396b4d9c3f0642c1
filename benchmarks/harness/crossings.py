"""Calls that cross from one library into the other, by every means; runs in a process of its own.

    python -m harness.crossings asyncio 2000 PORT

Prints one JSON object: for each quantity, one value per means. Times are medians in microseconds,
rates are calls per second. All means are measured one after the other in the same process.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.from_thread
import trio

from mcpd_core.runtimes import AsyncioRuntime, TrioRuntime
from mcpd_core.runtimes.trio_drivers import Choice

from .figures import quantile
from .loops import runner

Call = Callable[[], Awaitable[Any]]
Results = dict[str, dict[str, float]]

#: Callers at once where a rate is measured.
CALLERS = 100
MESSAGE = b"x" * 64


async def nothing() -> int:
    """The tool whose call costs nothing but the call."""
    return 1


async def ten_microseconds() -> None:
    """The tool that works for about ten microseconds."""
    until = time.perf_counter_ns() + 10_000
    while time.perf_counter_ns() < until:
        pass


async def median(call: Call, calls: int) -> float:
    """Call over and over, one at a time; return the median in microseconds."""
    for _ in range(calls // 10 + 1):
        await call()
    clock = time.perf_counter
    seconds = []
    for _ in range(calls):
        begun = clock()
        await call()
        seconds.append(clock() - begun)
    return quantile(seconds, 0.5) * 1e6


async def pair(one: Call, other: Call, calls: int) -> tuple[float, float]:
    """Measure two calls in turns, for differences that are smaller than the noise of a second."""
    clock = time.perf_counter
    first, second = [], []
    for _ in range(calls):
        begun = clock()
        await one()
        middle = clock()
        await other()
        ended = clock()
        first.append(middle - begun)
        second.append(ended - middle)
    return quantile(first, 0.5) * 1e6, quantile(second, 0.5) * 1e6


async def rate(call: Call, calls: int, group: Callable[[], Any]) -> float:
    """Keep `CALLERS` callers busy; return the calls per second of all.

    :param group: opens a group of tasks of the library that runs this.
    """

    async def caller() -> None:
        for _ in range(max(1, calls // CALLERS)):
            await call()

    begun = time.perf_counter()
    async with group() as tasks:
        for _ in range(CALLERS):
            tasks.start_soon(caller)
    return max(1, calls // CALLERS) * CALLERS / (time.perf_counter() - begun)


# --- the other means ------------------------------------------------------------------------------


def thread_round_trip(calls: int) -> float:
    """Hand an object to a thread and take it back, which no bridge of two threads can undercut."""
    there: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    back: queue.SimpleQueue[int] = queue.SimpleQueue()

    def echo() -> None:
        while (item := there.get()) is not None:
            back.put(item)

    thread = threading.Thread(target=echo)
    thread.start()
    seconds = []
    for number in range(calls):
        begun = time.perf_counter()
        there.put(number)
        back.get()
        seconds.append(time.perf_counter() - begun)
    there.put(None)
    thread.join()
    return quantile(seconds, 0.5) * 1e6


class Hop:
    """trio in a thread of its own, and one message each way for each call."""

    async def __aenter__(self) -> Hop:
        self._loop = asyncio.get_running_loop()
        started = threading.Event()

        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            async with trio.open_nursery() as self._nursery:
                started.set()
                await trio.sleep_forever()

        self._thread = threading.Thread(target=trio.run, args=(main,))
        self._thread.start()
        started.wait()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        await self._loop.run_in_executor(None, self._thread.join)

    async def call(self, tool: Call) -> Any:
        done = self._loop.create_future()
        context = contextvars.copy_context()

        async def run() -> None:
            value = await tool()
            self._loop.call_soon_threadsafe(done.set_result, value)

        self._token.run_sync_soon(lambda: context.run(self._nursery.start_soon, run))
        return await done


# --- trio and its I/O -----------------------------------------------------------------------------


class TrioEcho:
    """A tool that makes a round trip over a TCP connection of the loopback interface."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[trio.SocketStream] = []

    async def call(self) -> None:
        if self._idle:
            stream = self._idle.pop()
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        await stream.send_all(MESSAGE)
        await stream.receive_some(len(MESSAGE))
        self._idle.append(stream)

    async def aclose(self) -> None:
        for stream in self._idle:
            await stream.aclose()


@asynccontextmanager
async def trio_echo(port: int) -> Any:
    """Provide a `TrioEcho`, and close its connections in trio."""
    echo = TrioEcho(port)
    try:
        yield echo
    finally:
        await echo.aclose()


# --- what is measured -----------------------------------------------------------------------------


async def from_asyncio(calls: int, port: int) -> Results:
    """Measure everything whose caller, or whose host, is the loop that runs this."""
    few = max(20, calls // 20)
    found: Results = {"to trio, us": {}, "trio I/O, calls/s": {}}
    into = found["to trio, us"]
    into["SimpleQueue round trip"] = thread_round_trip(calls)
    into["to_thread(trio.run)"] = await median(lambda: in_thread(trio.run, nothing), few)
    async with Hop() as hop:
        into["trio in a thread, a hop each way"] = await median(lambda: hop.call(nothing), calls)
    with anyio.from_thread.start_blocking_portal("trio") as portal:
        # Newer versions of anyio have a way of their own.
        own_way = getattr(portal, "call_async", None)
        ask = own_way or (lambda tool: asyncio.wrap_future(portal.start_task_soon(tool)))
        into["anyio's portal"] = await median(lambda: ask(nothing), calls)
    own = AsyncioRuntime()
    into["asyncio tool (no crossing)"] = await median(lambda: own.run(nothing), calls)
    plain, here = await pair(ten_microseconds, lambda: own.run_here(ten_microseconds), calls)
    found["asyncio, 10 us tool, us"] = {"a plain await": plain, "run_here": here}
    rungs: tuple[Choice, ...] = ("guest", "fused")
    for rung in rungs:
        await crossing(rung, calls, port, found)
    return found


async def crossing(rung: Choice, calls: int, port: int, found: Results) -> None:
    """Measure one rung of the trio runtime, both ways."""
    runtime = TrioRuntime(rung)
    await runtime.start()
    assert runtime.rung == rung
    try:
        found["to trio, us"][f"mcpd, {rung}"] = await median(lambda: runtime.run(nothing), calls)

        async def back() -> float:
            return await median(lambda: runtime.run_in_host(nothing), calls)

        found.setdefault("to asyncio, us", {})[f"mcpd, {rung}"] = await runtime.run(back)
        plain, here = await runtime.run(
            lambda: pair(ten_microseconds, lambda: runtime.run_here(ten_microseconds), calls)
        )
        found[f"trio ({rung}), 10 us tool, us"] = {"a plain await": plain, "run_here": here}

        async def inside() -> float:
            async with trio_echo(port) as echo:
                await rate(echo.call, CALLERS, trio.open_nursery)
                return await rate(echo.call, calls * 5, trio.open_nursery)

        io = found["trio I/O, calls/s"]
        io[f"inside, {rung}"] = await runtime.run(inside)
        echo = TrioEcho(port)
        across = lambda: runtime.run(echo.call)  # noqa: E731
        await rate(across, CALLERS, anyio.create_task_group)
        io[f"across, {rung}"] = await rate(across, calls * 5, anyio.create_task_group)
        await runtime.run(echo.aclose)
    finally:
        await runtime.aclose()


async def native(calls: int, port: int) -> Results:
    """Measure trio by itself."""

    async def spawn() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nothing)

    started = await median(spawn, calls)
    async with trio_echo(port) as echo:
        await rate(echo.call, CALLERS, trio.open_nursery)
        io = await rate(echo.call, calls * 5, trio.open_nursery)
    return {"to trio, us": {"trio's own nursery": started}, "trio I/O, calls/s": {"trio.run": io}}


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function in a thread of the loop's default executor."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def main() -> None:
    """Measure with the loop, the number of calls and the echo server that are named."""
    loop, calls, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found = runner(loop)(from_asyncio(calls, port))
    for quantity, values in trio.run(native, calls, port).items():
        found[quantity].update(values)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
