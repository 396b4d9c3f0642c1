"""What the writer's thread remembers of the tasks, so that no operation has to count them."""

from __future__ import annotations

import sqlite3

from mcpd_task_queue.limits import Limits
from mcpd_task_queue.records import QueueLoad, Whose

from .ids import Ids
from .lanes import Lanes
from .loads import Loads
from .turns import Turns


class Ledger:
    """Follows the tables: each change of it is made, and undone, with one of theirs.

    :param ageing: seconds of waiting that are worth a step of priority; 0 for none.
    :param limits: what holds tasks back.
    :ivar offset: what has to be added to the monotonic clock for the time of `Transaction.steady`.
    """

    def __init__(self, ageing: float, limits: Limits) -> None:
        self.ageing = ageing
        self.ids = Ids()
        self.turns = Turns()
        self.lanes = Lanes(limits)
        self.loads = Loads(limits)
        #: The queues that are paused.
        self.paused: dict[Whose, None] = {}
        self.offset = 0.0

    def load(self, connection: sqlite3.Connection, now: float, monotonic: float) -> None:
        """Learn how things stand.

        :param now: seconds since the epoch.
        :param monotonic: the same instant on a clock that nobody can set.
        """
        self.loads.load(connection)
        self.lanes.load(connection)
        self.turns.load(connection)
        rows = connection.execute("SELECT principal_kind, principal_id, queue FROM pause")
        self.paused = {Whose(*row): None for row in rows}
        # What became ready under a clock that was set back since must not seem to come last.
        self.offset = max(now, self.turns.latest_ready_at) - monotonic
        self.lanes.settle(self.offset + monotonic)

    def of(self, queue: str) -> QueueLoad:
        """Say how full a queue is. May be called from any thread."""
        waiting = self.loads.of(queue)
        limit, running = self.lanes.of_queue(queue)
        bound = self.loads.bound_of(queue)
        return QueueLoad(waiting.tasks, waiting.bytes, bound, running, limit)
