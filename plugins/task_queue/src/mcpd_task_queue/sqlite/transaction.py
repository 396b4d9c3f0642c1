"""`Transaction`: what an operation of the writer works in."""

from __future__ import annotations

import sqlite3

from mcpd_task_queue.errors import StoreFull
from mcpd_task_queue.records import Change, Offered, TaskState, Whose

from .ledger import Ledger
from .undo import UndoLog


class Transaction:
    """The open transaction that an operation works in.

    :ivar now: seconds since the epoch, the same for the whole batch.
    :ivar monotonic: the same instant on a clock that nobody can set.
    :ivar ledger: what the writer's thread remembers; change it through ``undo`` only.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: float,
        monotonic: float,
        ledger: Ledger,
    ) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.now = now
        self.monotonic = monotonic
        self.ledger = ledger
        self.undo = UndoLog()
        self.changes: list[Change] = []
        #: How long each task that was started had been ready, in seconds.
        self.waits: list[float] = []
        #: Whether it makes tasks ready, and whether it lets a limit go on.
        self.readies = False
        self.opens = False
        #: Why there is room only for what becomes of tasks that are there already, if so.
        self.full: StoreFull | None = None

    def anew(self) -> Transaction:
        """Return a transaction of the same instant, in which nothing has been done."""
        fresh = Transaction(self.connection, self.now, self.monotonic, self.ledger)
        fresh.full = self.full
        return fresh

    def mark(self) -> tuple[int, int, int]:
        """Return the present point in time, for `back_to`."""
        return self.undo.mark(), len(self.changes), len(self.waits)

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Forget what was remembered since that point; the tables are the caller's business."""
        remembered, changes, waits = mark
        self.undo.back_to(remembered)
        del self.changes[changes:]
        del self.waits[waits:]

    @property
    def steady(self) -> float:
        """Seconds since the epoch as far as the start of the store knew; nobody can set it."""
        return self.monotonic + self.ledger.offset

    def expect_room(self) -> None:
        """Refuse what brings new tasks while there is room only for what becomes of the old.

        :raises StoreFull: saying why.
        """
        if self.full is not None:
            raise self.full

    def note(
        self,
        task_id: str,
        before: TaskState | None,
        after: TaskState | None,
        *,
        whose: Whose,
        cancelling: bool = False,
        offered: Offered | None = None,
        timed: bool = False,
        opens: bool = False,
    ) -> None:
        """Remember a change, to be announced when it is committed."""
        change = Change(task_id, before, after, cancelling, offered, whose, timed, opens)
        self.changes.append(change)
        self.opens |= opens
        self.readies |= after == "ready"
