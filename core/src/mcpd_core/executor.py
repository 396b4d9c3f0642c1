"""Admission: how many calls run at once, and who is next when there are too many.

A call needs a permit. Permits are limited in total, per client and per tool. Calls that find none
wait, and the clients take turns, so that one client's thousand calls do not delay another's one:
of the calls that fit, the next is one of the client whose last turn is longest ago, and of these
the oldest. What waits is bounded: a full queue answers `Busy` at once instead of growing. Two such
sets of permits exist, one for clients and one for the workers of deferred work, so that neither can
starve the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from time import monotonic

from .errors import Busy
from .runtimes.deadlines import deadlines
from .turns import Limits, Permit, Turns, Waiting

__all__ = ["Admission", "Limits", "Permit"]


class Admission:
    """One set of permits with its fair queues. Used on the host's thread only."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._turns = Turns(limits)
        #: Seconds that a permit is held: an exponentially weighted mean, for `retry_after`.
        self._hold = 0.1

    def stats(self) -> Mapping[str, int]:
        """Return how many calls run and how many wait."""
        return {"running": self._turns.running, "waiting": self._turns.waiting}

    def admit(self, client: str, tool: str) -> Permit | None:
        """Return a permit if one is free, without waiting."""
        permit = self._turns.admit(client, tool)
        if permit is not None:
            permit.since = monotonic()
        return permit

    async def acquire(self, client: str, tool: str, *, deadline: float | None = None) -> Permit:
        """Wait for a permit; the wait can be cancelled.

        :param client: whose turn it uses.
        :param deadline: `time.monotonic` time after which the call is refused.
        :raises Busy: when the queue is full, or no permit came free before the deadline.
        """
        permit = self.admit(client, tool)
        if permit is not None:
            return permit
        turns = self._turns
        if not turns.has_room(client):
            raise self._busy("The server is busy")
        waiting = turns.wait(client, tool, asyncio.get_running_loop().create_future())
        alarm = None
        if deadline is not None:
            alarm = deadlines().at(deadline, partial(self._refuse, waiting))
        try:
            in_time = await waiting.granted
        except asyncio.CancelledError:
            turns.forget(waiting)
            # It may have been granted in the very iteration in which the caller gave up.
            self.release(waiting)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
        if not in_time:
            raise self._busy("No permit came free before the deadline")
        return waiting

    def take(self, permit: Permit) -> None:
        """Count a permit as used, even above the limits: a call that gave its permit back while it
        waited must not queue again in order to end."""
        permit.since = monotonic()
        self._turns.resume(permit)

    def release(self, permit: Permit) -> None:
        """Hand a permit back and start the next call in turn."""
        if not permit.held:
            return
        now = monotonic()
        self._hold += 0.1 * (now - permit.since - self._hold)
        turns = self._turns
        turns.end(permit)
        while turns.ready and (waiting := turns.next()) is not None:
            waiting.since = now
            waiting.granted.set_result(True)

    # --- refusals ---------------------------------------------------------------------------------

    def _refuse(self, waiting: Waiting) -> None:
        """End a wait in vain, at its deadline."""
        self._turns.forget(waiting)
        if not waiting.granted.done():
            waiting.granted.set_result(False)

    def _busy(self, problem: str) -> Busy:
        running, waiting = self._turns.running, self._turns.waiting
        rounds = 1 + waiting / self.limits.total
        return Busy(
            f"{problem}: {running} calls run and {waiting} wait.",
            retry_after=round(min(60.0, max(0.1, self._hold * rounds)), 1),
        )
