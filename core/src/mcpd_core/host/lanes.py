"""The runtimes of one host, and the ways between them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from ..importer import Importer
from ..runtimes import AsyncioRuntime, Runtime, ThreadRuntime, TrioRuntime
from .binding import Bound
from .scope import Library, Scope

T = TypeVar("T")


class Lanes:
    """Owns the runtimes and runs functions in them. Made on the host's loop.

    :param threads: the greatest number of worker threads.
    :param patience: seconds to wait for a cancelled function in a thread.
    """

    def __init__(self, importer: Importer, *, threads: int, patience: float) -> None:
        self._importer = importer
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._asyncio = AsyncioRuntime()
        self._threads = ThreadRuntime(threads, patience)
        self.trio = TrioRuntime()
        self._trio_starting = asyncio.Lock()

    async def runtime(self, name: str) -> Runtime:
        """Return a runtime, started if need be; awaited on the host's loop.

        :raises McpdError: when it cannot be started.
        """
        if name != "trio":
            return self._asyncio
        async with self._trio_starting:
            if not self.trio.running:
                await asyncio.wrap_future(self._importer.load("trio"))
                await self.trio.start()
        return self.trio

    async def run_tool(
        self, bound: Bound, scope: Scope, arguments: dict[str, Any], library: Library
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
        runtime = await self.runtime(name)
        return await runtime.run(function, deadline=deadline)

    async def from_library(self, library: Library, function: Callable[[], Awaitable[T]]) -> T:
        """Await on the host's loop, coming from code that runs in ``library``."""
        if library == "trio":
            return await self.trio.run_in_host(function)
        return await function()

    def submit(
        self, function: Callable[[], Coroutine[Any, Any, T]]
    ) -> concurrent.futures.Future[T]:
        """Run a function on the host's loop, coming from a worker thread."""
        return asyncio.run_coroutine_threadsafe(function(), self._loop)

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


async def _as_async(function: Callable[[], T]) -> T:
    return function()
