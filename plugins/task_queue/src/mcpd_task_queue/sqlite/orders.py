"""Standing orders: claims that wait with the writer for something to claim.

A task that becomes ready while somebody waits for one is started in the transaction that makes it
ready. So the two share a commit, and its fsync, and nobody need hear of the one to ask for the
other. Whoever asked, for either, hears of it after that commit and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import NamedTuple, TypeAlias

from mcpd_task_queue.errors import StoreClosed
from mcpd_task_queue.records import Change, Task, Worker
from mcpd_task_queue.store import Deliver, NotStarted

from .transaction import Transaction

#: Starts up to so many tasks.
Claim: TypeAlias = Callable[[Transaction, int], list[Task]]


class Order:
    """What one worker wants; see `mcpd_task_queue.store.Order`.

    :param claim: starts tasks for it.
    :param tell: has something done to the orders before the next transaction; ``ask`` says when.
    """

    def __init__(
        self,
        worker: Worker | None,
        claim: Claim,
        deliver: Deliver,
        not_started: NotStarted,
        tell: Callable[[Callable[[Orders], None]], None],
        ask: Callable[[Callable[[Orders], None]], Future[None]],
    ) -> None:
        self.worker = worker
        self.claim = claim
        self.deliver = deliver
        self.not_started = not_started
        self._tell = tell
        self._ask = ask
        #: Whether it is withdrawn, as the writer's thread sees it.
        self.withdrawn = False

    def want(self, more: int) -> None:
        """Want further tasks."""
        try:
            self._tell(lambda orders: orders.want(self, more))
        except StoreClosed as closed:
            self.not_started(closed)

    def withdraw(self) -> Future[None]:
        """Want nothing any more."""
        return self._ask(lambda orders: orders.withdraw(self))


class _Standing(NamedTuple):
    """How an order stands.

    :ivar wanted: how many tasks it is still to be given.
    :ivar behind: whether it may have left tasks behind that wait, when it was looked for last.
    """

    wanted: int
    behind: bool


class Orders:
    """Those that stand. Used on the writer's thread only."""

    def __init__(self) -> None:
        self._standing: dict[Order, _Standing] = {}

    def want(self, order: Order, more: int) -> None:
        """Take note of how much more is wanted; with nothing more, that it is to be looked anew."""
        if order.withdrawn:
            return
        wanted, behind = self._standing.get(order, (0, True))
        self._standing[order] = _Standing(wanted + more, behind or not more)

    def withdraw(self, order: Order) -> None:
        """Forget an order; it is given nothing from now on."""
        order.withdrawn = True
        self._standing.pop(order, None)

    @property
    def unlooked(self) -> bool:
        """Whether there may be something for one of them, whatever changes."""
        return any(wanted and behind for wanted, behind in self._standing.values())

    def fill(self, tx: Transaction) -> list[tuple[Order, list[Task]]]:
        """Start what a transaction makes ready, or what was left behind, for those who want it.

        Registered workers come first: what they take leaves the built-in one free for everybody.

        :returns: each order that was looked for, with what it is given.
        """
        filled = []
        for order in sorted(self._standing, key=lambda order: order.worker is None):
            wanted, behind = self._standing[order]
            if wanted and (behind or tx.opens or (tx.readies and _takes(order.worker, tx.changes))):
                tasks = order.claim(tx, wanted)
                left = _Standing(wanted - len(tasks), len(tasks) == wanted)
                tx.undo.put(self._standing, order, left)
                filled.append((order, tasks))
        return filled

    def failed(self, error: Exception) -> None:
        """Tell those who want something that it could not be looked for."""
        for order, (wanted, _) in list(self._standing.items()):
            if wanted:
                self._standing[order] = _Standing(wanted, True)
                order.not_started(error)


def _takes(worker: Worker | None, changes: Iterable[Change]) -> bool:
    """Whether changes make a task ready that a worker takes."""
    return worker is None or any(
        change.offered is not None and worker.takes(change.offered) for change in changes
    )
