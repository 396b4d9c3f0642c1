"""The calls in flight, and what becomes of them when the host shuts down."""

from __future__ import annotations

import asyncio
import sys

from ..errors import HostClosed, Interrupted
from ..spec import Call, CallResult
from .shaping import failure


class Flight:
    """One top-level call in flight, for as long as the block runs of which this is the context
    manager.

    :ivar running: whether the tool has started.
    :ivar shed: whether a drain has cancelled it.
    """

    __slots__ = ("_flights", "call", "running", "shed", "task")

    def __init__(self, flights: Flights, call: Call, task: asyncio.Task[object]) -> None:
        self._flights = flights
        self.call = call
        self.task = task
        self.running = False
        self.shed = False

    def __enter__(self) -> Flight:
        self._flights.add(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._flights.remove(self)

    def answer(self) -> CallResult | None:
        """Return what the call, which was cancelled, answers when a drain has cancelled it.

        :returns: ``None`` when its caller cancelled it.
        :raises HostClosed: when a drain cancelled it before its tool started.
        """
        if not self.shed:
            return None
        if sys.version_info >= (3, 11):
            self.task.uncancel()
        if not self.running:
            raise closed() from None
        return failure(
            Interrupted(
                f"The server shut down while the {self.call.spec.label} ran, and cancelled it.",
                hint="Call it again when the server is back, if that is safe.",
            )
        )


class Flights:
    """All top-level calls that were accepted and not answered. Used on the host's loop."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._flights)

    def track(self, call: Call) -> Flight:
        """Return what counts a call in flight; used in the task that awaits the call."""
        task = asyncio.current_task()
        assert task is not None
        return Flight(self, call, task)

    def add(self, flight: Flight) -> None:
        """Count a call from now on."""
        self._flights[flight.call.id] = flight
        self._idle.clear()

    def remove(self, flight: Flight) -> None:
        """Count a call no longer."""
        del self._flights[flight.call.id]
        if not self._flights:
            self._idle.set()

    def started(self, call: Call) -> None:
        """Note that a call's tool runs from now on; calls nested in another are not noted."""
        if call.parent is None:
            flight = self._flights.get(call.id)
            if flight is not None:
                flight.running = True
        if call.on_start is not None:
            call.on_start()

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


def closed() -> HostClosed:
    """Return the refusal of a host that is shutting down."""
    return HostClosed("The server is shutting down.", hint="Connect again in a moment.")
