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
from ..importer import Importer
from ..runtimes import (
    AsyncioRuntime,
    Outcome,
    Runtime,
    ThreadRuntime,
    TrioRuntime,
    capture,
)
from .binding import Bound
from .scope import Library, Scope

if TYPE_CHECKING:
    from ..runtimes.processes import ProcessRuntime
    from ..settings import Settings
    from .content_binding import BoundContent

T = TypeVar("T")


class Lanes:
    """Owns the runtimes and runs functions in them. Made on the host's loop."""

    def __init__(self, importer: Importer, settings: Settings) -> None:
        limits = settings.executor
        self._importer = importer
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._asyncio = AsyncioRuntime()
        self._threads = ThreadRuntime(limits.concurrency + limits.workers, limits.cancel_grace)
        self.trio = TrioRuntime()
        self._starting: asyncio.Task[None] | None = None

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
        """Let the worker processes of a plugin go, if there are any."""
        if "processes" in self.__dict__:
            self.processes.dismiss(plugin)

    async def runtime(self, name: str, *, deadline: float | None = None) -> Runtime:
        """Return a runtime, started if need be; awaited on the host's loop.

        :param deadline: `time.monotonic` time until which to wait for its start.
        :raises McpdError: when it cannot be started, or not in time.
        """
        if name != "trio":
            return self._asyncio
        if not self.trio.running:
            if self._starting is None or self._starting.done():
                self._starting = self._loop.create_task(self._start_trio())
            await before(deadline, self._starting, "The trio runtime has not started in time.")
        return self.trio

    async def _start_trio(self) -> None:
        await asyncio.wrap_future(self._importer.load("trio"))
        await self.trio.start()

    async def run_tool(
        self, bound: Bound | BoundContent, scope: Scope, arguments: dict[str, Any], library: Library
    ) -> Any:
        """Run a tool where it belongs; awaited in the library of its caller.

        :raises Expired: when the call's deadline passed.
        """
        run = partial(bound.function.function, **arguments)
        deadline = scope.call.deadline
        if scope.library == "thread":
            threaded = partial(self._threads.run, run, deadline=deadline, on_cancel=scope.cancel)
            return await self.from_library(library, threaded)
        function = run if bound.function.is_async else partial(_as_async, run)
        if scope.call.parent is not None and scope.library == library:
            # The parent's own deadline is enforced where the parent is waited for.
            own = None if deadline == scope.call.parent.deadline else deadline
            here = self.trio if library == "trio" else self._asyncio
            return await here.run_here(function, deadline=own)
        return await self.from_library(
            library, partial(self._run_in, scope.library, function, deadline)
        )

    async def _run_in(
        self, name: str, function: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        runtime = await self.runtime(name, deadline=deadline)
        return await runtime.run(function, deadline=deadline)

    async def from_library(self, library: Library, function: Callable[[], Awaitable[T]]) -> T:
        """Await on the host's loop, coming from code that runs in ``library``."""
        if library == "trio":
            return await self.trio.run_in_host(function)
        return await function()

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
            future.set_result(Outcome(cancelled=True) if task.cancelled() else task.result())

        def start() -> None:
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
        """Close the runtimes."""
        await self.trio.aclose()
        await self._threads.aclose()
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
