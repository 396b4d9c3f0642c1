"""What all runtimes share: their interface, and how the host waits for the other side."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import anyio

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


@dataclass
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


async def until(done: asyncio.Future[Any]) -> None:
    """Wait for a future without taking it down when the waiting task is cancelled.

    As `asyncio.shield` does, with one turn of the loop less.
    """
    if done.done():
        return
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    done.add_done_callback(wake)
    try:
        await waiter
    finally:
        done.remove_done_callback(wake)


async def supervise(
    done: asyncio.Future[Any],
    cancel: Callable[[], None],
    *,
    deadline: float | None,
    patience: float | None = None,
    name: str = "A function",
) -> bool:
    """Wait until ``done``; at the deadline or when the waiting task is cancelled, cancel the work
    and wait on for its clean-up.

    :param done: is done, always, when the side that works has ended: set by it, or its task.
    :param cancel: asks that side to stop; called at most once.
    :param deadline: `time.monotonic` time.
    :param patience: seconds to wait for the clean-up; ``None`` waits for as long as it takes, so
        that nothing ever runs on unseen; the log names what takes long.
    :param name: what is waited for.
    :returns: whether the deadline passed before ``done``.
    :raises asyncio.CancelledError: when the waiting task was cancelled.
    """
    asked = expired = False
    reminder: asyncio.TimerHandle | None = None

    def ask() -> None:
        nonlocal asked
        if not asked and not done.done():
            asked = True
            cancel()
            remind(0.0)

    def remind(seconds: float) -> None:
        nonlocal reminder
        if seconds:
            _log.warning("%s has not ended %g s after it was cancelled.", name, seconds)
        reminder = loop.call_later(REMINDER, remind, seconds + REMINDER)

    def expire() -> None:
        nonlocal expired
        if not asked and not done.done():
            expired = True
            ask()
            if patience is not None:
                loop.call_later(patience, give_up)

    def give_up() -> None:
        if not done.done():
            done.set_result(None)

    loop = asyncio.get_running_loop()
    timer = None
    if deadline is not None:
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), expire)
    try:
        await until(done)
    except asyncio.CancelledError:
        ask()
        if patience is not None:
            loop.call_later(patience, give_up)
        # An unshielded wait inside a cancelled anyio scope is cancelled again on every iteration
        # of the loop, which would spin for as long as the clean-up takes.
        with anyio.CancelScope(shield=True):
            while not done.done():
                try:
                    await until(done)
                except asyncio.CancelledError:
                    # A further request to do what is under way already.
                    continue
        raise
    finally:
        for handle in (timer, reminder):
            if handle is not None:
                handle.cancel()
    return expired


def name_of(function: object) -> str:
    """Return the name of a function for the log, without the arguments it is bound to."""
    while isinstance(function, partial):
        inner = next((a for a in function.args if callable(a)), None)
        function = function.func if inner is None else inner
    return getattr(function, "__qualname__", type(function).__name__)
