"""The runtimes of one host, and the ways between them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ToolUnavailable
from ..importer import Importer, expect_trio
from ..runtimes import (
    AsyncioRuntime,
    Outcome,
    Runtime,
    ThreadBridge,
    ThreadRuntime,
    TrioRuntime,
    capture,
)
from .binding import Bound
from .lane import Lane
from .scope import Scope

if TYPE_CHECKING:
    from ..runtimes.processes import ProcessRuntime
    from ..settings import Settings
    from .content_binding import BoundContent

T = TypeVar("T")


class Lanes:
    """Owns the runtimes and runs functions in them. Made on the host's loop.

    :ivar loop: the host's loop.
    :ivar trio: trio, on the host's thread too.
    """

    def __init__(self, importer: Importer, settings: Settings) -> None:
        limits = settings.executor
        self._importer = importer
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._pool = ThreadRuntime(limits.concurrency + limits.workers, limits.cancel_grace)
        self.loop = AsyncioRuntime()
        self.trio = TrioRuntime(settings.runtimes.trio)
        #: The threads of plugins, by plugin and library; one that can be used no more is replaced.
        self._threads: dict[tuple[str, str], ThreadBridge] = {}
        #: Those that were replaced, by plugin: they end by themselves, after what still runs there.
        self._replaced: list[tuple[str, ThreadBridge]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._starting: dict[Lane, asyncio.Task[None]] = {}
        self._trio_task: Callable[[], Any] = lambda: None
        self._closed = False

    @cached_property
    def processes(self) -> ProcessRuntime:
        """The pool of worker processes: imported and made for the first tool that needs one."""
        from ..runtimes.processes import ProcessRuntime

        limits = self._settings.executor
        return ProcessRuntime(
            self._settings.processes,
            patience=limits.cancel_grace,
            import_timeout=limits.import_timeout,
            max_result_bytes=limits.max_result_bytes,
        )

    def dismiss(self, plugin: str) -> None:
        """Let the threads and the worker processes of a plugin end, if there are any."""
        for key in [key for key in self._threads if key[0] == plugin]:
            self._end(self._threads.pop(key))
        for owner, bridge in self._replaced:
            if owner == plugin:
                self._end(bridge)
        if "processes" in self.__dict__:
            self.processes.dismiss(plugin)

    # --- which lane ---------------------------------------------------------------------------

    def of(self, bound: Bound | BoundContent, origin: Lane) -> Lane | None:
        """Return the lane that a tool's code runs in.

        :param origin: that of its caller.
        :returns: ``None`` for a ``def`` that runs in a worker thread.
        """
        if bound.target == "thread":
            return None
        if isinstance(bound, Bound) and bound.own_thread:
            return self._thread_of(bound.declared.plugin, bound.target)
        if bound.target == "any":
            return origin
        return self.trio if bound.target == "trio" else self.loop

    def beside(self, lane: Lane | None) -> Lane:
        """Return the lane in which the host's own code is awaited on behalf of code in ``lane``:
        that one, where it shares the host's thread."""
        return self.trio if lane is self.trio else self.loop

    def _thread_of(self, plugin: str, target: str) -> ThreadBridge:
        # One for all of a plugin's tools, whose modules may share what must not be used by two
        # threads at once.
        library = "trio" if target == "trio" else "asyncio"
        bridge = self._threads.get((plugin, library))
        if bridge is None or not bridge.usable:
            if bridge is not None:
                self._replaced = [left for left in self._replaced if not left[1].ended]
                self._replaced.append((plugin, bridge))
            patience = self._settings.executor.cancel_grace
            bridge = ThreadBridge(library, patience=patience, label=f"the plugin {plugin}")
            self._threads[plugin, library] = bridge
        return bridge

    def _end(self, bridge: ThreadBridge) -> None:
        task = self._loop.create_task(bridge.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    @property
    def loop_name(self) -> str:
        """Which event loop the host runs on, such as ``uvloop``."""
        return type(self._loop).__module__.partition(".")[0]

    def started(self) -> list[tuple[str, str]]:
        """Return the name and the rung of each place where code can run at the moment.

        The names are those of `mcpd_core.host.overview.runs_in`.
        """
        places = [(self.loop.name, self.loop.rung)]
        if self.trio.running:
            places.append((self.trio.name, self.trio.rung))
        threads = {f"{library} thread": lane.rung for (_, library), lane in self._threads.items()}
        places += sorted(threads.items())
        places.append((self._pool.name, self._pool.rung))
        if "processes" in self.__dict__:
            places.append(("process", self.processes.rung))
        return places

    # --- into lanes and out of them -----------------------------------------------------------

    async def runtime(self, name: str, *, deadline: float | None = None) -> Lane:
        """Return a runtime on the host's thread, started if need be; awaited on the host's loop.

        :param deadline: `time.monotonic` time until which to wait for its start.
        :raises McpdError: when it cannot be started, or not in time.
        """
        if name != "trio":
            return self.loop
        await self._started(self.trio, deadline)
        return self.trio

    async def _started(self, lane: Lane, deadline: float | None) -> None:
        if isinstance(lane, AsyncioRuntime):
            return
        assert isinstance(lane, (TrioRuntime, ThreadBridge))
        if not lane.running:
            starting = self._starting.get(lane)
            if starting is None:
                starting = self._starting[lane] = self._loop.create_task(self._start(lane))
                starting.add_done_callback(partial(self._on_start, lane))
            problem = f"The {lane.name} runtime has not started in time."
            await before(deadline, starting, problem)

    def _on_start(self, lane: Lane, start: asyncio.Task[None]) -> None:
        del self._starting[lane]
        if not start.cancelled():
            # Whoever waited for it is told; nobody may have waited for so long.
            start.exception()

    async def _start(self, lane: TrioRuntime | ThreadBridge) -> None:
        if lane.name == "trio":
            expect_trio()
            for module in ("trio", "mcpd_core.runtimes.trio_fused"):
                await asyncio.wrap_future(self._importer.load(module))
        if self._closed:
            raise ToolUnavailable("The server is closing.")
        await lane.start()
        if lane is self.trio:
            from ..runtimes.trio_private import task_seen_from_outside  # trio is imported by now

            self._trio_task = task_seen_from_outside()

    def trio_task(self) -> Any:
        """Return the task of trio that runs in the host's thread, if one does; any thread may ask.

        :returns: a `trio.lowlevel.Task`, or ``None``.
        """
        return self._trio_task()

    async def run_tool(
        self, bound: Bound | BoundContent, scope: Scope, arguments: dict[str, Any], lane: Lane
    ) -> Any:
        """Run a tool where it belongs.

        :param lane: in which this is awaited, on the host's thread.
        :raises Expired: when the call's deadline passed.
        """
        run = partial(bound.function.function, **arguments)
        deadline = scope.call.deadline
        if scope.lane is None:
            threaded = partial(
                self._pool.run,
                run,
                deadline=deadline,
                on_cancel=scope.cancel,
                patience=scope.call.cancel_grace,
            )
            return await lane.run_in_host(threaded)
        function = run if bound.function.is_async else partial(_as_async, run)
        if scope.lane is lane:
            parent = scope.call.parent
            if parent is None:
                return await lane.run(function, deadline=deadline)
            # The parent's own deadline is enforced where the parent is waited for.
            own = None if deadline == parent.deadline else deadline
            return await lane.run_here(function, deadline=own)
        return await lane.run_in_host(partial(self._enter, scope.lane, function, deadline))

    async def _enter(
        self, lane: Lane, function: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        await self._started(lane, deadline)
        return await lane.run(function, deadline=deadline)

    async def in_host(self, lane: Lane, function: Callable[[], Awaitable[T]]) -> T:
        """Await the host's own code, which expects the host's thread, coming from a lane."""
        if self.beside(lane) is lane:
            return await function()
        return await lane.run_in_host(function)

    async def cross(self, lane: Lane, to: Runtime, function: Callable[[], Awaitable[T]]) -> T:
        """Run a function in another runtime; awaited in a lane."""
        inside = function if to is self.loop else partial(to.run, function)
        return await lane.run_in_host(inside)

    def submit(
        self,
        function: Callable[[], Coroutine[Any, Any, T]],
        on_start: Callable[[asyncio.Task[Outcome[T]]], None],
    ) -> concurrent.futures.Future[Outcome[T]]:
        """Run a function in a task on the host's loop, coming from a worker thread.

        :param on_start: is given the task, on the host's thread; it may cancel it.
        :returns: a future that is done when the task has ended, clean-up included. It cannot be
            cancelled itself: that would let the thread run on before the clean-up.
        """
        future: concurrent.futures.Future[Outcome[T]] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()

        def finish(task: asyncio.Task[Outcome[T]]) -> None:
            self._pool.resume()
            future.set_result(Outcome(cancelled=True) if task.cancelled() else task.result())

        def start() -> None:
            self._pool.wait()
            task = self._loop.create_task(capture(function))
            task.add_done_callback(finish)
            on_start(task)

        self._loop.call_soon_threadsafe(start)
        return future

    def on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the host's thread: now when this is it, else soon."""
        if threading.get_ident() == self._thread:
            function(*arguments)
        else:
            self._loop.call_soon_threadsafe(function, *arguments)

    async def aclose(self) -> None:
        """Close the runtimes, the threads of plugins first: what they run may be in the midst of a
        call to the others."""
        # What is still being imported starts no more, although nobody waits for the import.
        self._closed = True
        for bridge in [*self._threads.values(), *(bridge for _, bridge in self._replaced)]:
            self._end(bridge)
        if self._ending:
            await asyncio.wait(self._ending)
        await self.trio.aclose()
        await self._pool.aclose()
        if "processes" in self.__dict__:
            await self.processes.aclose()


async def before(deadline: float | None, work: asyncio.Future[T], problem: str) -> T:
    """Wait for something that goes on without us, until a deadline.

    :param deadline: `time.monotonic` time.
    :raises ToolUnavailable: with ``problem`` when the deadline passed.
    """
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    await asyncio.wait([work], timeout=timeout)
    if not work.done():
        raise ToolUnavailable(problem, hint="Try again: the work that was waited for goes on.")
    return work.result()


async def _as_async(function: Callable[[], T]) -> T:
    return function()
