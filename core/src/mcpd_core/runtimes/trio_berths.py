"""A nursery for each call to run in alone, kept for the next call.

A call needs a scope that cancels it and nothing else, and somebody to whom the failure goes of what
it leaves behind in trio: a task, or a nursery that it never closed. A nursery is both. To open one
costs more than the call's task does, but after a call that was not cancelled it is as good as new.
The task is new for every call, so that no call inherits what another has left in it.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .trio_crossings import without_cancellation

if TYPE_CHECKING:
    import trio

_log = logging.getLogger(__name__)

#: How many nurseries are kept, at most, while no call uses them.
MOST_KEPT = 128


class Guest(Protocol):
    """What runs in a berth."""

    berth: Berth | None

    async def run(self) -> None:
        """Do it; awaited in trio."""
        ...


class Berth:
    """A nursery for one call at a time, held open by a task of its own.

    :ivar nursery: is no other call's until `leave`.
    """

    __slots__ = ("_free", "nursery")

    def __init__(self, nursery: trio.Nursery, free: list[Berth]) -> None:
        self.nursery = nursery
        self._free = free

    def cancel(self) -> None:
        """Cancel what runs in it, and keep it no longer."""
        self.nursery.cancel_scope.cancel()

    def leave(self) -> None:
        """Let the next call have it, unless this one leaves tasks behind: they end with it."""
        # The task that leaves is a child still.
        if len(self._free) < MOST_KEPT and len(self.nursery.child_tasks) <= 1:
            self._free.append(self)
        else:
            self.cancel()


class Berths:
    """The nurseries of one run of trio. Used in its thread.

    :param outer: the nursery of the tasks that hold them open.
    """

    def __init__(self, trio: Any, outer: trio.Nursery) -> None:
        self._trio = trio
        self._outer = outer
        self._free: list[Berth] = []

    def take(self) -> Berth | None:
        """Return one that is free, if any is."""
        while self._free:
            berth = self._free.pop()
            # The last call may have left something behind that has failed since.
            if not berth.nursery.cancel_scope.cancel_called:
                return berth
        return None

    def open_for(self, guest: Guest, name: str) -> None:
        """Open one more and start a call in it, in a copy of the current context."""
        context = contextvars.copy_context()

        def start(berth: Berth) -> None:
            guest.berth = berth
            context.run(partial(berth.nursery.start_soon, guest.run, name=name))

        # The nursery outlives the call, whose context it must not keep.
        contextvars.Context().run(partial(self._outer.start_soon, self._hold, start))

    async def open_one(self) -> None:
        """Open the first one, so that the first call finds it; awaited in trio."""
        opened = self._trio.Event()

        def keep(berth: Berth) -> None:
            berth.leave()
            opened.set()

        self._outer.start_soon(self._hold, keep)
        await opened.wait()

    async def _hold(self, begin: Callable[[Berth], None]) -> None:
        berth: Berth | None = None
        try:
            async with self._trio.open_nursery() as nursery:
                berth = Berth(nursery, self._free)
                begin(berth)
                # It may stay for as long as the run, and the first call must be free to go.
                del begin
                await self._trio.sleep_forever()
        except BaseException as error:  # noqa: BLE001 - the boundary: no call is told of it any more
            # The run lives on, and with it the calls of others.
            failure = without_cancellation(error, self._trio.Cancelled)
            if failure is not None:
                _log.error(
                    "A tool of trio has left a task or a nursery behind, which failed afterwards.",
                    exc_info=failure,
                )
        finally:
            if berth in self._free:
                self._free.remove(berth)
