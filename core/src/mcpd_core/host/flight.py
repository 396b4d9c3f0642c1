"""The calls in flight, and what becomes of them when the host shuts down."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import HostClosed, Interrupted
from ..spec import Call, CallResult
from .shaping import failure


class Flight:
    """One top-level call in flight.

    :ivar running: whether the tool has started.
    :ivar shed: whether a drain has cancelled it.
    """

    def __init__(self, call: Call, task: asyncio.Task[object]) -> None:
        self.call = call
        self.task = task
        self.running = False
        self.shed = False


class Flights:
    """All top-level calls that were accepted and not answered. Used on the host's loop."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._flights)

    @contextmanager
    def track(self, call: Call) -> Iterator[None]:
        """Count a call in flight for as long as the block runs, in the task that awaits it."""
        task = asyncio.current_task()
        assert task is not None
        self._flights[call.id] = Flight(call, task)
        self._idle.clear()
        try:
            yield
        finally:
            del self._flights[call.id]
            if not self._flights:
                self._idle.set()

    def started(self, call: Call) -> None:
        """Note that a call's tool runs from now on; calls nested in another are not noted."""
        flight = self._flights.get(call.id)
        if flight is not None:
            flight.running = True

    async def drain(self, grace: float) -> None:
        """Wait for all, then cancel what is left and wait for its clean-up.

        :param grace: seconds to wait before cancelling.
        """
        try:
            await asyncio.wait_for(self._idle.wait(), grace)
        except asyncio.TimeoutError:
            for flight in list(self._flights.values()):
                flight.shed = True
                flight.task.cancel()
            # Without a limit: each of them ends when its tool has cleaned up.
            await self._idle.wait()

    def answer_to_shed(self, call: Call) -> CallResult | None:
        """Return what a call that was cancelled answers, when a drain cancelled it.

        :returns: ``None`` when its caller cancelled it.
        :raises HostClosed: when a drain cancelled it before its tool started.
        """
        flight = self._flights[call.id]
        if not flight.shed:
            return None
        if sys.version_info >= (3, 11):
            flight.task.uncancel()
        if not flight.running:
            raise closed() from None
        return failure(
            Interrupted(
                f"The server shut down while the {call.spec.label} ran; "
                f"it was cancelled and has cleaned up.",
                hint="Call it again when the server is back, if that is safe.",
            )
        )


def closed() -> HostClosed:
    """Return the refusal of a host that is shutting down."""
    return HostClosed("The server is shutting down.", hint="Connect again in a moment.")
