"""mcpd's task queue: the SQLite store, the dispatcher, and tasks that do nothing.

Variants: ``full`` (an fsync before every answer, the default), ``normal``. Runs as it does in the
daemon: in trio, which the host's loop drives. No tool is called, and no host takes part.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import trio

from harness.figures import quantile
from harness.loops import runner
from mcpd_core import CallResult, Principal, ServiceHost
from mcpd_core.runtimes import TrioRuntime
from mcpd_task_queue.bridge import Bridge
from mcpd_task_queue.queue import TaskQueue
from mcpd_task_queue.records import Change, NewTask
from mcpd_task_queue.service import serving
from mcpd_task_queue.settings import TaskQueueSettings
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.store import Listener

from .contestant import PATIENCE, PAYLOAD, Queue, Starts, main

T = TypeVar("T")

#: As `mcpd_core.ServiceHost.call_soon`.
CallSoon = Callable[[Callable[[], object]], object]

ME = Principal("local", "0")
DONE = CallResult("")


def task() -> NewTask:
    """Return a task that does nothing."""
    return NewTask("nothing", PAYLOAD, ME)


class WatchedStore(SQLiteTaskStore):
    """Tells of every task that was recorded to have succeeded, beside its listener."""

    watch: Callable[[], None] = staticmethod(lambda: None)

    def listen(self, listener: Listener | None) -> None:
        """Have both called."""

        def both(changes: Sequence[Change]) -> None:
            assert listener is not None
            listener(changes)
            for change in changes:
                if change.after == "succeeded":
                    self.watch()

        super().listen(None if listener is None else both)


class McpdStore(Queue):
    """The store, and the dispatcher in front of a host whose calls return at once.

    :ivar name: of the file.
    """

    name = "mcpd.db"

    def __init__(self, where: str, variant: str) -> None:
        super().__init__(where, variant)
        self._called: Callable[[], object] = lambda: None

    def submit(self, count: int, callers: int) -> float:
        async def measured(call_soon: CallSoon) -> float:
            bridge = Bridge(call_soon)
            store = self._open()

            async def call() -> None:
                for _ in range(count // callers):
                    await bridge.wait(store.submit([task()]))

            begun = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(callers):
                    nursery.start_soon(call)
            seconds = time.perf_counter() - begun
            await bridge.wait(store.close())
            return seconds

        return in_trio(measured)

    def fill(self, count: int) -> float:
        """In few commits."""
        store = self._open()
        for first in range(0, count, 500):
            store.submit([task() for _ in range(min(500, count - first))]).result(PATIENCE)
        store.close().result(PATIENCE)
        return 0.0

    def drain(self, count: int, workers: int) -> float:
        """Until the last one is recorded, and not only started."""

        async def measured(call_soon: CallSoon) -> float:
            bridge = Bridge(call_soon)
            recorded = trio.Event()
            store = self._open()
            succeeded = Starts(count, lambda: bridge.post(recorded.set))
            store.watch = succeeded.one
            starts = Starts(count, lambda: None)
            self._called = starts.one
            async with self._serving(store, bridge, workers):
                with trio.fail_after(PATIENCE):
                    await recorded.wait()
                return starts.seconds

        return in_trio(measured)

    def start(self, count: int, workers: int) -> list[float]:
        async def measured(call_soon: CallSoon) -> list[float]:
            bridge = Bridge(call_soon)
            store = self._open()
            at = 0.0
            recorded = trio.Event()

            def called() -> None:
                nonlocal at
                at = time.perf_counter()

            self._called = called
            store.watch = lambda: bridge.post(lambda: recorded.set())
            found = []
            async with self._serving(store, bridge, workers) as queue:
                for _ in range(count):
                    recorded = trio.Event()
                    begun = time.perf_counter()
                    await queue.submit(task())
                    await recorded.wait()
                    found.append(at - begun)
            return found

        return in_trio(measured)

    def claim(self, count: int) -> float:
        """Return how long a claim of one task takes, in seconds, at the median.

        One is submitted before each, so that as many wait each time.
        """
        store = self._open()
        seconds = []
        for _ in range(count):
            store.submit([task()]).result(PATIENCE)
            begun = time.perf_counter()
            (claimed,) = store.claim("benchmark", 1, 60.0).result(PATIENCE)
            seconds.append(time.perf_counter() - begun)
            store.complete(claimed.id, claimed.fence, DONE).result(PATIENCE)
        store.close().result(PATIENCE)
        return quantile(seconds, 0.5)

    def _open(self) -> WatchedStore:
        path = Path(self.where) / self.name
        return WatchedStore(path, durability="full" if self.variant == "full" else "normal")

    @asynccontextmanager
    async def _serving(
        self, store: SQLiteTaskStore, bridge: Bridge, workers: int
    ) -> AsyncIterator[TaskQueue]:
        async def call(tool: str, arguments: Mapping[str, Any], **_: Any) -> CallResult:
            self._called()
            return DONE

        host = SimpleNamespace(call=call, log=logging.getLogger("benchmark"), followed=False)
        host.on_closing = lambda callback: lambda: None
        settings = TaskQueueSettings(workers=workers)
        async with serving(store, cast(ServiceHost, host), bridge, settings) as queue:
            yield queue
        await bridge.wait(store.close())


def in_trio(function: Callable[[CallSoon], Awaitable[T]]) -> T:
    """Run a function in trio on the loop that the daemon has, with its way back from threads."""

    async def run() -> T:
        loop = asyncio.get_running_loop()

        def call_soon(function: Callable[[], object]) -> None:
            loop.call_soon_threadsafe(function, context=contextvars.Context())

        runtime = TrioRuntime()
        await runtime.start()
        try:
            return await runtime.run(partial(function, call_soon))
        finally:
            await runtime.aclose()

    return runner("asyncio" if importlib.util.find_spec("uvloop") is None else "uvloop")(run())


if __name__ == "__main__":
    main(McpdStore)
