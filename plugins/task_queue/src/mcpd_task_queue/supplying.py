"""`Supply`: the standing orders by which a store has tasks for the slots that are free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .bridge import Bridge
from .records import Task
from .slots import Slots
from .store import TaskStore


class Supply:
    """Keeps an order with the store for each worker that has free slots.

    :param owner: in whose name tasks are started, and ``lease``, for how many seconds.
    :param arrived: called on the trio thread with what was started for slots, which may be nothing,
        before anything that happened to it later is heard of there.
    :param failed: called there with why nothing could be started.
    :param landed: called there when an order is withdrawn, and everything by it has arrived.
    """

    def __init__(
        self,
        store: TaskStore,
        bridge: Bridge,
        owner: str,
        lease: float,
        *,
        arrived: Callable[[Slots, Sequence[Task]], None],
        failed: Callable[[BaseException], None],
        landed: Callable[[], None],
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._owner = owner
        self._lease = lease
        self._arrived = arrived
        self._failed = failed
        self._landed = landed
        #: Also those of workers that were dismissed.
        self._ordering: set[Slots] = set()

    @property
    def pending(self) -> bool:
        """Whether tasks may be on their way."""
        return bool(self._ordering)

    def order(self, slots: Slots) -> None:
        """Have tasks started for the slots that are free, as soon as there are any."""
        more = slots.free
        if not more or slots.leaving:
            return
        if slots.order is None:
            slots.ordered(
                self._store.order(
                    self._owner,
                    self._lease,
                    slots.worker,
                    lambda tasks: self._bridge.post(partial(self._arrived, slots, tasks)),
                    lambda error: self._bridge.post(partial(self._failed, error)),
                )
            )
            self._ordering.add(slots)
        assert slots.order is not None
        slots.wanted += more
        slots.order.want(more)

    def look(self) -> None:
        """Have it looked once more whether anything can be started."""
        for slots in self._ordering:
            if slots.order is not None and not slots.leaving:
                slots.order.want(0)

    def withdraw(self, slots: Slots) -> None:
        """Have nothing more started for slots, after what is on its way."""
        order = slots.order
        if order is not None and not slots.leaving:
            slots.leaving = True
            done = partial(self._bridge.post, partial(self._withdrawn, slots))
            order.withdraw().add_done_callback(lambda _: done())

    def withdraw_all(self) -> None:
        """Do that for all slots. May be called on any thread."""
        for slots in tuple(self._ordering):
            self.withdraw(slots)

    def _withdrawn(self, slots: Slots) -> None:
        slots.withdrawn()
        self._ordering.discard(slots)
        self._landed()
