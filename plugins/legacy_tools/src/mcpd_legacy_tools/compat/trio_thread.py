"""A trio loop in a thread, for callers that run in asyncio.

It is for code outside a server. Tools of a server run in the server's own trio, which shares a
thread with asyncio; see `Context.call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from .errors import RuntimeExecutionError, RuntimeNotFoundError

T = TypeVar("T")


def in_trio() -> bool:
    """Whether the caller is awaited in trio."""
    trio: Any = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


async def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, and await what it returns if that can be awaited."""
    value = function(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


async def run_in_trio(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function in trio, and await there what it returns: here, if this is trio.

    Elsewhere a loop is started for the one call, in a thread of its own. Cancelling the caller
    cancels the code in trio, and returns once that has cleaned up.

    :raises RuntimeNotFoundError: when trio is not installed.
    """
    if in_trio():
        return await called(func, *args, **kwargs)
    with TrioThread() as thread:
        return await thread.call(func, *args, **kwargs)


class TrioThread:
    """Runs code in trio, in a thread that lives as long as the context manager is open.

    :raises RuntimeNotFoundError: on entering, when trio is not installed.
    :raises RuntimeExecutionError: on entering, when trio does not start.
    """

    def __enter__(self) -> TrioThread:
        try:
            import trio
        except ImportError as error:
            raise RuntimeNotFoundError("trio") from error
        self._trio = trio
        self._failures: list[BaseException] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mcpd-legacy-trio", daemon=True)
        self._thread.start()
        # Only the start of a loop is waited for, which runs no code of others.
        self._ready.wait()
        if self._failures:
            raise RuntimeExecutionError(
                f"trio does not start: {self._failures[0]}"
            ) from self._failures[0]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        # The calls in it have ended, since each is waited for by whoever made it.
        self._thread.join()

    def _run(self) -> None:
        try:
            self._trio.run(self._serve)
        except Exception as error:  # noqa: BLE001 - who waits for the loop is told
            self._failures.append(error)
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        async with self._trio.open_nursery() as self._nursery:
            self._token = self._trio.lowlevel.current_trio_token()
            self._ready.set()
            await self._trio.sleep_forever()

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function there; awaited in asyncio.

        :raises BaseException: whatever the code raises.
        """
        run = _Run(self._trio, asyncio.get_running_loop())
        self._token.run_sync_soon(
            self._nursery.start_soon, run.run, lambda: called(function, *args, **kwargs)
        )
        try:
            # Not the future itself: cancelling the wait must not cancel what tells of the end.
            await asyncio.wait([run.future])
        except asyncio.CancelledError:
            self._token.run_sync_soon(run.cancel)
            # Whoever cancels again, and again, waits for the clean-up all the same.
            while not run.future.done():
                with anyio.CancelScope(shield=True), contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([run.future])
            run.future.exception()  # it has been asked for, and the cancellation counts more
            raise
        return run.future.result()


class _Run:
    """One call on its way through trio."""

    def __init__(self, trio: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()
        self._loop = loop
        self._trio = trio
        self._scope = trio.CancelScope()

    def cancel(self) -> None:
        self._scope.cancel()

    async def run(self, code: Callable[[], Any]) -> None:
        result: Any = None
        failure: BaseException | None = None
        with self._scope:
            try:
                result = await code()
            except self._trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and goes there
                failure = error
        if self._scope.cancelled_caught:
            failure = RuntimeError("The code was cancelled.")
        # A loop that was closed waits for nothing any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, result, failure)

    def _tell(self, result: Any, failure: BaseException | None) -> None:
        if self.future.done():
            return
        if failure is None:
            self.future.set_result(result)
        elif isinstance(failure, StopIteration):
            # A future does not take it.
            self.future.set_exception(RuntimeError("The code raised StopIteration."))
        else:
            self.future.set_exception(failure)


async def run_code(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    thread: TrioThread | None = None,
    in_trio_loop: bool = False,
) -> Any:
    """Run code once, where it belongs: ``async def`` in its loop, anything else in a thread.

    :param thread: a trio loop to use, for a caller in asyncio; without one, one is started.
    :param in_trio_loop: whether a coroutine is trio's; otherwise it is awaited right here.
    """
    if not inspect.iscoroutinefunction(inspect.unwrap(function)):
        value = await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))
        if not inspect.isawaitable(value):
            return value
        return await run_code(_awaited, (value,), {}, thread=thread, in_trio_loop=in_trio_loop)
    if not in_trio_loop or in_trio():
        return await called(function, *args, **kwargs)
    if thread is not None:
        return await thread.call(function, *args, **kwargs)
    return await run_in_trio(function, *args, **kwargs)


async def _awaited(value: Any) -> Any:
    return await value
