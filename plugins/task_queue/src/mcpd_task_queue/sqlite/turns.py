"""Whose turn it is among the tasks of one priority.

Self-clocked fair queueing (S. J. Golestani, "A self-clocked fair queueing scheme for broadband
applications", INFOCOM 1994), each task being of unit length: a task that becomes ready gets the
turn after the later of two, the last one given to its client and the one that was served last. So
clients are served round robin however many tasks each of them has, a client that was away has saved
nothing up, and one that comes anew waits for at most one task of each of the others.

Start-time fair queueing (Goyal, Vin and Cheng, 1996), which would let a new client take part in
the turn that is being served, starves: one new client after the other comes before the second task
of an older one.

Nothing of this is stored but the turn of each task: what else there is to know follows from the
ready ones.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from .undo import UndoLog


class Flow(NamedTuple):
    """Tasks that take turns with those of others.

    :ivar lane: what the limits of its queue and its tool keep apart; see `lanes`.
    :ivar key: the fairness key.
    """

    lane: str
    priority: int
    principal_kind: str
    principal_id: str
    key: str


class _Waiting(NamedTuple):
    """The ready tasks of a flow.

    :ivar last: the last turn that one of them was given.
    """

    tasks: int
    last: int


class Turns:
    """Gives turns. Used on the writer's thread only.

    :ivar latest_ready_at: the newest `ready_at` that was found.
    """

    def __init__(self) -> None:
        #: By lane and priority: the turn that was served last.
        self._served: dict[tuple[str, int], int] = {}
        #: By priority: the same in whichever lane is farthest.
        self._farthest: dict[int, int] = {}
        #: Those that have ready tasks.
        self._flows: dict[Flow, _Waiting] = {}
        self.latest_ready_at = 0.0

    def load(self, connection: sqlite3.Connection) -> None:
        """Learn how things stand from the tasks that are ready."""
        for *of, tasks, first, last, ready_at in connection.execute(
            "SELECT lane, priority, principal_kind, principal_id, fairness_key, count(*),"
            " min(turn), max(turn), max(ready_at) FROM task INDEXED BY task_ready"
            " WHERE state = 'ready'"
            " GROUP BY lane, priority, principal_kind, principal_id, fairness_key"
        ):
            flow = Flow(*of)
            self._flows[flow] = _Waiting(tasks, last)
            where = flow.lane, flow.priority
            self._served[where] = min(self._served.get(where, first - 1), first - 1)
            self.latest_ready_at = max(self.latest_ready_at, ready_at)
        for (_, priority), served in self._served.items():
            self._farthest[priority] = max(self._farthest.get(priority, served), served)

    def join(
        self, connection: sqlite3.Connection, undo: UndoLog, flow: Flow, before: int | None = None
    ) -> int:
        """Give a turn to a task that becomes ready.

        :param before: the turn that it was given and made no use of: it is next.
        """
        where = flow.lane, flow.priority
        served = self._served.get(where, 0)
        farthest = self._farthest.get(flow.priority, 0)
        # A lane that was held back goes on where it was; one that was empty has nothing to make
        # up for.
        if served < farthest and not _any_ready(connection, where):
            undo.put(self._served, where, farthest)
            served = farthest
        waiting = self._flows.get(flow) or _Waiting(0, served)
        turn = max(served, waiting.last) + 1 if before is None else min(before, served)
        undo.put(self._flows, flow, _Waiting(waiting.tasks + 1, max(turn, waiting.last)))
        return turn

    def leave(self, undo: UndoLog, flow: Flow) -> None:
        """Take note that a task is not ready any more, for whatever reason."""
        waiting = self._flows[flow]
        if waiting.tasks > 1:
            undo.put(self._flows, flow, _Waiting(waiting.tasks - 1, waiting.last))
        else:
            undo.drop(self._flows, flow)

    def served(self, undo: UndoLog, lane: str, priority: int, turn: int) -> None:
        """Take note that a task is started, and that nothing of an earlier turn waits."""
        if turn > self._served.get((lane, priority), 0):
            undo.put(self._served, (lane, priority), turn)
            if turn > self._farthest.get(priority, 0):
                undo.put(self._farthest, priority, turn)


def _any_ready(connection: sqlite3.Connection, where: tuple[str, int]) -> bool:
    found = connection.execute(
        "SELECT 1 FROM task WHERE state = 'ready' AND lane = ? AND priority = ? LIMIT 1", where
    ).fetchone()
    return found is not None
