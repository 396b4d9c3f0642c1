"""The host's own loop as a runtime."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from ..errors import CallCancelled
from .base import Expired, Gate, Outcome, name_of, supervise
from .mistakes import explain

T = TypeVar("T")


async def capture(function: Callable[[], Awaitable[T]]) -> Outcome[T]:
    """Run a function and return how it ended, whatever it raised.

    asyncio lets SystemExit and KeyboardInterrupt of a task stop the whole loop, so they must not
    leave the task as exceptions.
    """
    try:
        return Outcome(value=await function())
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - the boundary: handed to the caller
        return Outcome(error=explain(error, "asyncio"))


def _ask(task: asyncio.Task[Any]) -> None:
    task.cancel()


class AsyncioRuntime:
    """Runs asyncio code in a task of its own on the host's loop.

    The task of its own gives the code asyncio's cancellation, delivered once, even when the caller
    sits in an anyio scope, which would deliver it at every await of the clean-up.
    """

    name = "asyncio"
    rung = "loop"

    async def run(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """See `Runtime.run`."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(capture(function))
        expired = await supervise(
            task, partial(_ask, task), deadline=deadline, name=partial(name_of, function)
        )
        if task.cancelled():
            if expired:
                raise Expired
            raise CallCancelled("The call was cancelled from within.")
        return task.result().unwrap()

    async def run_here(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """Run a function for a caller that runs on this loop already: a plain await, unless it
        needs a deadline of its own.

        :raises Expired: when the deadline passed.
        """
        if deadline is not None:
            return await self.run(function, deadline=deadline)
        try:
            return await function()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            # Before Python 3.11 nobody can tell whether the task itself was cancelled.
            if sys.version_info >= (3, 11) and task is not None and not task.cancelling():
                raise CallCancelled("The call was cancelled from within.") from None
            raise

    async def run_in_host(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a function on the host's loop, which is this one: a plain await."""
        return await function()

    def gate(self) -> Gate:
        """See `Runtime.gate`."""
        return _AsyncioGate()

    async def aclose(self) -> None:
        """Do nothing: each call's task ends with the call, and the loop is the host's."""


class _AsyncioGate:
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def open(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
