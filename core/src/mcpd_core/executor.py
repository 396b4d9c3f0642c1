"""Admission: how many calls run at once, and who is next when there are too many.

A call needs a permit. Permits are limited in total, per client and per tool. Calls that find none
wait in a queue of their client, and the clients take turns, so that one client's thousand calls do
not delay another's one. The queues are bounded: a full one answers `Busy` at once instead of
growing. Two such sets of permits exist, one for clients and one for the workers of deferred work,
so that neither can starve the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import Busy


@dataclass(frozen=True)
class Limits:
    """How many calls may run and wait.

    :ivar total: running at once.
    :ivar per_client: running at once for one client.
    :ivar per_tool: running at once of one tool.
    :ivar queue: waiting, of all clients together; as many again for clients that have none waiting.
    """

    total: int
    per_client: int
    per_tool: int
    queue: int


class Permit:
    """The right of one call to run. Hand it back with `Admission.release`."""

    __slots__ = ("client", "held", "since", "tool")

    def __init__(self, client: str, tool: str) -> None:
        self.client = client
        self.tool = tool
        self.held = False
        self.since = 0.0


class Admission:
    """One set of permits with its fair queues. Used on the host's thread only."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._running = 0
        self._by_client: Counter[str] = Counter()
        self._by_tool: Counter[str] = Counter()
        #: The first client is the next in turn.
        self._queues: OrderedDict[str, deque[tuple[Permit, asyncio.Future[None]]]] = OrderedDict()
        self._waiting = 0
        #: Seconds that a permit is held: an exponentially weighted mean, for `retry_after`.
        self._hold = 0.1

    def stats(self) -> Mapping[str, int]:
        """Return how many calls run and how many wait."""
        return {"running": self._running, "waiting": self._waiting}

    async def acquire(self, client: str, tool: str, *, deadline: float | None = None) -> Permit:
        """Wait for a permit; the wait can be cancelled.

        :param client: whose turn it uses.
        :param deadline: `time.monotonic` time after which the call is refused.
        :raises Busy: when the queue is full, or no permit came free before the deadline.
        """
        permit = Permit(client, tool)
        # Overtakes nobody: a waiting call that fits would have been granted by the last release.
        if self._fits(permit):
            self.take(permit)
            return permit
        # A client that waits for nothing yet finds a place even when others fill the queue.
        places = self.limits.queue * (1 if client in self._queues else 2)
        if self._waiting >= places:
            raise Busy(
                f"The server is busy: {self._running} calls run and {self._waiting} wait.",
                retry_after=self._retry_after(),
            )
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()
        self._queues.setdefault(client, deque()).append((permit, granted))
        self._waiting += 1
        timer = None
        if deadline is not None:
            timer = loop.call_later(
                max(0.0, deadline - time.monotonic()), self._expire, permit, granted
            )
        try:
            await granted
        except asyncio.CancelledError:
            self._forget(permit, granted)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return permit

    def take(self, permit: Permit) -> None:
        """Count a permit as used, even above the limits: a call that gave its permit back while it
        waited must not queue again in order to end."""
        permit.held = True
        permit.since = time.monotonic()
        self._running += 1
        self._by_client[permit.client] += 1
        self._by_tool[permit.tool] += 1

    def release(self, permit: Permit) -> None:
        """Hand a permit back and start the next call in turn."""
        if not permit.held:
            return
        permit.held = False
        self._hold += 0.1 * (time.monotonic() - permit.since - self._hold)
        self._running -= 1
        for counter, key in ((self._by_client, permit.client), (self._by_tool, permit.tool)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self._grant()

    def _fits(self, permit: Permit) -> bool:
        return (
            self._running < self.limits.total
            and self._by_client[permit.client] < self.limits.per_client
            and self._by_tool[permit.tool] < self.limits.per_tool
        )

    def _grant(self) -> None:
        """Give permits to waiting calls, one per client and round, for as long as any fits."""
        granted = True
        while granted and self._waiting and self._running < self.limits.total:
            granted = False
            for client in list(self._queues):
                if self._running >= self.limits.total:
                    break
                if self._grant_one(client):
                    granted = True

    def _grant_one(self, client: str) -> bool:
        queue = self._queues[client]
        # Not only the first: a call of a tool that is at its limit must not hold up the others.
        for index, (permit, granted) in enumerate(queue):
            # A future that is done here belongs to a caller that was cancelled and has yet to run.
            if not granted.done() and self._fits(permit):
                del queue[index]
                self._waiting -= 1
                if queue:
                    self._queues.move_to_end(client)
                else:
                    del self._queues[client]
                self.take(permit)
                granted.set_result(None)
                return True
        return False

    def _expire(self, permit: Permit, granted: asyncio.Future[None]) -> None:
        if not granted.done():
            self._forget(permit, granted)
            granted.set_exception(
                Busy(
                    f"No permit came free before the deadline: {self._running} calls run and "
                    f"{self._waiting} wait.",
                    retry_after=self._retry_after(),
                )
            )

    def _forget(self, permit: Permit, granted: asyncio.Future[None]) -> None:
        """Undo a wait that ended without its permit being used."""
        queue = self._queues.get(permit.client)
        entry = (permit, granted)
        if queue is not None and entry in queue:
            queue.remove(entry)
            self._waiting -= 1
            if not queue:
                del self._queues[permit.client]
        else:
            # It was granted in the very iteration in which the caller gave up.
            self.release(permit)

    def _retry_after(self) -> float:
        rounds = 1 + self._waiting / self.limits.total
        return round(min(60.0, max(0.1, self._hold * rounds)), 1)
