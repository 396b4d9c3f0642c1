"""What is on its way between the host's loop and trio: one object for each function.

Both are settled in the host's thread, by the very task that ran the function, and both can be asked
to stop. Whoever waits hears of the end and of nothing before it.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import types
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .base import Completion, Outcome, name_of
from .mistakes import explain

if TYPE_CHECKING:
    from .trio_berths import Berth

T = TypeVar("T")


class Crossing(Completion, Generic[T]):
    """One function on its way from the host into trio and back.

    :ivar berth: the nursery that it runs in alone; ``None`` until there is one.
    :ivar value: what it returned.
    :ivar error: what it raised.
    :ivar cancelled: whether it neither returned nor raised.
    """

    __slots__ = ("_asked", "_function", "_trio", "berth", "cancelled", "error", "value")

    value: T

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        trio: Any,
        function: Callable[[], Awaitable[T]],
        berth: Berth | None,
    ) -> None:
        self._loop = loop
        self._waiter = None
        self._trio = trio
        self._function = function
        self.berth = berth
        self._asked = False
        self.ended = False
        self.cancelled = True
        self.error: BaseException | None = None

    async def run(self) -> None:
        """Run the function; awaited in trio, in a task of its own."""
        try:
            # What was cancelled before its first step never starts.
            if not self._asked:
                self.value = await self._function()
                self.cancelled = False
        except BaseException as error:  # noqa: BLE001 - the boundary: handed to the caller
            self.error = without_cancellation(error, self._trio.Cancelled)
            if self.error is error:
                self.error = explain(error, "trio")
        finally:
            assert self.berth is not None
            if self._asked:
                self.berth.cancel()
            else:
                self.berth.leave()
            self.settle()

    def cancel(self) -> None:
        """Ask the function to stop; called on the host's side."""
        if self.ended:
            return
        self._asked = True
        if self.berth is not None:
            self.berth.cancel()

    def fail(self, error: BaseException) -> None:
        """End the wait with an error, because the function will never return."""
        if not self.ended:
            self.error = error
            self.settle()

    def take_error(self) -> BaseException:
        """Return the error, once: its traceback leads to frames that lead here."""
        error, self.error = self.error, None
        assert error is not None
        return error

    def describe(self) -> str:
        """Name the function for the log."""
        return name_of(self._function)


def without_cancellation(
    error: BaseException, cancelled: type[BaseException]
) -> BaseException | None:
    """Return what is left of an exception for asyncio, which knows nothing of trio's Cancelled."""
    # Exception groups are built in from Python 3.11 on, and backported before.
    split = getattr(error, "split", None)
    if split is not None:
        remaining: BaseException | None = split(cancelled)[1]
        return remaining
    return None if isinstance(error, cancelled) else error


class Visit(Generic[T]):
    """One function on its way from trio to the host's loop and back.

    :param on_end: called on the host's side when the function has ended; it lets go on who waits.
    :ivar outcome: how it ended, when it was not cancelled.
    :ivar cancelled: whether it was.
    """

    __slots__ = ("_on_end", "cancelled", "outcome", "task")

    outcome: Outcome[T]

    def __init__(self, on_end: Callable[[Visit[T]], None]) -> None:
        self._on_end = on_end
        self.cancelled = False

    def start(
        self, loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[T]]
    ) -> asyncio.Task[None]:
        """Start the task that runs the function; called in trio."""
        work = self._run(function)
        # Up to its first yield, so that it ends through its own clean-up even if its task is
        # cancelled before the first step.
        work.send(None)
        # Made directly: a task factory may run tasks at once (`asyncio.eager_task_factory`), which
        # must not happen inside a step of trio.
        if sys.version_info >= (3, 11):
            self.task = asyncio.Task(work, loop=loop, context=contextvars.copy_context())
        else:
            self.task = contextvars.copy_context().run(partial(asyncio.Task, work, loop=loop))
        return self.task

    async def _run(self, function: Callable[[], Awaitable[T]]) -> None:
        try:
            await _turn()
            self.outcome = Outcome(value=await function())
        except asyncio.CancelledError:
            self.cancelled = True
        except BaseException as error:  # noqa: BLE001 - the boundary: handed to the caller
            self.outcome = Outcome(error=explain(error, "asyncio"))
        finally:
            # The last thing that the task does, in place of a callback in a turn of its own.
            self._on_end(self)


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Let the loop run other tasks."""
    yield
