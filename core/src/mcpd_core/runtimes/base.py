"""What all runtimes share: their interface, and how the host waits for the other side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import anyio

from .deadlines import Alarm, deadlines

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Seconds after which, and again after which, the log names what does not end.
REMINDER = 5.0


class Expired(Exception):
    """Raised by `Runtime.run` when the deadline passed; the function has been cancelled and has
    cleaned up."""


class Gate(Protocol):
    """A one-way signal from the host to code that waits in a runtime."""

    def open(self) -> None:
        """Let the waiting code pass; called on the host's thread."""
        ...

    async def wait(self) -> None:
        """Wait until the gate is open; awaited inside the runtime."""
        ...


class Runtime(Protocol):
    """A place where ``async def`` code runs."""

    @property
    def name(self) -> str:
        """What manifests call it."""
        ...

    @property
    def rung(self) -> str:
        """By which mechanism it is driven, for tests, logs and diagnosis."""
        ...

    async def run(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """Run a function inside the runtime; awaited on the host's loop.

        :param deadline: `time.monotonic` time at which it is cancelled.
        :raises Expired: when the deadline passed.
        """
        ...

    def gate(self) -> Gate:
        """Return a new, closed gate."""
        ...

    async def aclose(self) -> None:
        """Cancel what still runs, wait for its clean-up, and end the runtime."""
        ...


@dataclass(slots=True)
class Outcome(Generic[T]):
    """How a function that ran elsewhere ended: a value, an error, or neither (cancelled)."""

    value: T | None = None
    error: BaseException | None = None
    cancelled: bool = False

    def unwrap(self) -> T:
        if self.error is not None:
            try:
                raise self.error
            finally:
                # Otherwise the traceback refers to this frame, and this frame to the error.
                self.error = None
        return self.value  # type: ignore[return-value]


class Completion:
    """Whether work has ended, and one task's wait for that. Used on the host's thread.

    A future alone would not tell: it is done as soon as the task that waits for it is cancelled,
    and work that ends in that very iteration would find nobody to tell that it has.

    :ivar ended: whether `settle` was called, whatever became of the wait.
    """

    __slots__ = ("_loop", "_waiter", "ended")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self.ended = False

    @classmethod
    def of(cls, future: asyncio.Future[Any]) -> Completion:
        """Return the completion of work that ends when a future is done."""
        completion = cls(future.get_loop())
        if future.done():
            completion.ended = True
        else:
            future.add_done_callback(completion.settle)
        return completion

    def settle(self, _: object = None) -> None:
        """Tell that the work has ended."""
        self.ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until the work has ended.

        :raises asyncio.CancelledError: when the waiting task was cancelled, which the work does not
            notice; it may be waited for again.
        """
        while not self.ended:
            self._waiter = self._loop.create_future()
            await self._waiter


async def until(done: asyncio.Future[Any]) -> None:
    """Wait for a future without taking it down when the waiting task is cancelled."""
    await Completion.of(done).wait()


async def supervise(
    done: Completion | asyncio.Future[Any],
    cancel: Callable[[], None],
    *,
    deadline: float | None,
    patience: float | None = None,
    name: str | Callable[[], str] = "A function",
) -> bool:
    """Wait until ``done``; at the deadline or when the waiting task is cancelled, cancel the work
    and wait on for its clean-up.

    Nothing but the wait itself is set up until the call has a deadline or is cancelled.

    :param done: is done, always, when the side that works has ended: set by it, or its task.
    :param cancel: asks that side to stop; called at most once.
    :param deadline: `time.monotonic` time.
    :param patience: seconds to wait for the clean-up; ``None`` waits for as long as it takes, so
        that nothing ever runs on unseen; the log names what takes long.
    :param name: what is waited for, or what tells it when it is to be logged.
    :returns: whether the deadline passed before ``done``.
    :raises asyncio.CancelledError: when the waiting task was cancelled.
    """
    completion = done if isinstance(done, Completion) else Completion.of(done)
    stop: _Stop | None = None
    if deadline is not None:
        stop = _Stop(done, completion, cancel, patience, name)
        stop.at(deadline)
    try:
        await completion.wait()
    except asyncio.CancelledError:
        if stop is None:
            stop = _Stop(done, completion, cancel, patience, name)
        stop.ask()
        # An unshielded wait inside a cancelled anyio scope is cancelled again on every iteration
        # of the loop, which would spin for as long as the clean-up takes.
        with anyio.CancelScope(shield=True):
            while not completion.ended:
                try:
                    await completion.wait()
                except asyncio.CancelledError:
                    # A further request to do what is under way already.
                    continue
        raise
    finally:
        if stop is not None:
            stop.close()
    return stop is not None and stop.expired


class _Stop:
    """The request to stop some work: made once, then waited for with patience and reminders.

    :ivar expired: whether the deadline was what made it.
    """

    def __init__(
        self,
        done: Completion | asyncio.Future[Any],
        completion: Completion,
        cancel: Callable[[], None],
        patience: float | None,
        name: str | Callable[[], str],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._done = done
        self._completion = completion
        self._cancel = cancel
        self._patience = patience
        self._name = name
        self._asked = False
        self._timers: dict[str, Alarm | asyncio.TimerHandle] = {}
        self.expired = False

    def at(self, deadline: float) -> None:
        """Make the request at a `time.monotonic` time."""
        self._timers["deadline"] = deadlines().at(deadline, self._expire)

    def ask(self) -> None:
        """Make the request now, unless the work has ended or was asked before."""
        if self._asked or self._completion.ended:
            return
        self._asked = True
        self._cancel()
        self._remind(0.0)
        if self._patience is not None:
            self._timers["patience"] = self._loop.call_later(self._patience, self._give_up)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def _expire(self) -> None:
        if not self._asked and not self._completion.ended:
            self.expired = True
            self.ask()

    def _remind(self, seconds: float) -> None:
        if seconds:
            name = self._name if isinstance(self._name, str) else self._name()
            _log.warning("%s has not ended %g s after it was cancelled.", name, seconds)
        self._timers["reminder"] = self._loop.call_later(REMINDER, self._remind, seconds + REMINDER)

    def _give_up(self) -> None:
        if isinstance(self._done, asyncio.Future):
            if not self._done.done():
                self._done.set_result(None)
        else:
            self._done.settle()


def name_of(function: object) -> str:
    """Return the name of a function for the log, without the arguments it is bound to."""
    while isinstance(function, partial):
        inner = next((a for a in function.args if callable(a)), None)
        function = function.func if inner is None else inner
    return getattr(function, "__qualname__", type(function).__name__)
