"""How much waits in each queue, so that a submit need not count it."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from mcpd_task_queue.limits import Bound, Limits
from mcpd_task_queue.records import Full

from .undo import UndoLog


class Load(NamedTuple):
    """What waits in a queue: how many tasks, and the bytes of their arguments."""

    tasks: int
    bytes: int


_NOTHING = Load(0, 0)

#: By the indexes that have the tasks that wait, so that those that have ended are not read.
_READY = (
    "SELECT queue, count(*), sum(size) FROM task INDEXED BY task_ready"
    " WHERE state = 'ready' GROUP BY queue"
)
_SCHEDULED = (
    "SELECT queue, count(*), sum(size) FROM task INDEXED BY task_due"
    " WHERE state = 'scheduled' GROUP BY queue"
)
_PAUSED = (
    "SELECT task.queue, count(*), sum(size) FROM pause CROSS JOIN task INDEXED BY task_paused"
    " ON task.principal_kind = pause.principal_kind AND task.principal_id = pause.principal_id"
    " AND task.queue = pause.queue AND task.state = 'paused' GROUP BY task.queue"
)


class Loads:
    """Counts what waits. Changed on the writer's thread only; `of` may be called from any."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loads: dict[str, Load] = {}

    def load(self, connection: sqlite3.Connection) -> None:
        """Learn how things stand."""
        for statement in (_READY, _SCHEDULED, _PAUSED):
            for queue, tasks, size in connection.execute(statement):
                before = self.of(queue)
                self._loads[queue] = Load(before.tasks + tasks, before.bytes + size)

    def of(self, queue: str) -> Load:
        """Return what waits in a queue."""
        return self._loads.get(queue, _NOTHING)

    def bound_of(self, queue: str) -> Bound:
        """Return how much may wait in a queue."""
        return self._limits.bound_of(queue)

    def add(self, undo: UndoLog, queue: str, size: int) -> None:
        """Take note that a task waits."""
        load = self.of(queue)
        undo.put(self._loads, queue, Load(load.tasks + 1, load.bytes + size))

    def remove(self, undo: UndoLog, queue: str, size: int) -> None:
        """Take note that a task does not wait any more."""
        load = self._loads[queue]
        if load.tasks > 1:
            undo.put(self._loads, queue, Load(load.tasks - 1, load.bytes - size))
        else:
            undo.drop(self._loads, queue)

    def refusal(self, queue: str, size: int) -> Full | None:
        """Say why there is no room in a queue for a task, if there is none.

        :param size: bytes of its arguments.
        """
        bound, load = self.bound_of(queue), self.of(queue)
        if bound.most_tasks is not None and load.tasks >= bound.most_tasks:
            return Full(
                queue, "tasks", bound.most_tasks, load.tasks, load.bytes, size, bound.overflow
            )
        if bound.most_bytes is not None and load.bytes + size > bound.most_bytes:
            return Full(
                queue, "bytes", bound.most_bytes, load.tasks, load.bytes, size, bound.overflow
            )
        return None

    def room_for(self, queue: str, size: int) -> tuple[str, Full | None]:
        """Choose the queue of a new task: its own, or the one that it spills to.

        :returns: the queue, and why it has no room either.
        """
        full = self.refusal(queue, size)
        if full is None or full.overflow != "spill":
            return queue, full
        spill_to = self.bound_of(queue).spill_to
        if spill_to is None or spill_to == queue:
            return queue, full
        if self.refusal(spill_to, size) is None:
            return spill_to, None
        return queue, full._replace(spilled_to=spill_to)
