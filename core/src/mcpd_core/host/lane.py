"""What a runtime is to the code that runs in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from ..runtimes import Runtime

T = TypeVar("T")


class Lane(Runtime, Protocol):
    """A runtime with the way from one function in it to the next, and the way back to the host.

    Two calls run in the same lane if and only if their lanes are one object; such code may be
    awaited directly. `Runtime.name` is the library that it waits with.
    """

    async def run_here(
        self, function: Callable[[], Awaitable[T]], *, deadline: float | None = None
    ) -> T:
        """Run a function for a caller in this lane; awaited in it.

        :param deadline: `time.monotonic` time at which it is cancelled.
        :raises Expired: when the deadline passed.
        """
        ...

    async def run_in_host(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a function on the host's loop; awaited in this lane."""
        ...
