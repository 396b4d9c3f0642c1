"""Lanes: what a limit may hold back is kept apart, so that a claim need not look past it.

All tasks of queues and tools without limits share one lane, which is always open. The others are in
the lane of their limited queue, of their limited tool, or of both. A lane is open while each of its
limits lets a task start. How many run is counted here; when the next start is expected by a rate is
stored, in the transaction of the start.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from typing import Literal, NamedTuple

from mcpd_task_queue.limits import Limit, Limits
from mcpd_task_queue.records import Hold

from .undo import UndoLog

#: The lane of all that is not limited.
OPEN = ""


class Gate(NamedTuple):
    """What a limit is of."""

    kind: Literal["queue", "tool"]
    name: str


class Lanes:
    """Knows which lanes are open. Used on the writer's thread, but for `holds` and `opening`."""

    def __init__(self, limits: Limits) -> None:
        self._limits: dict[Gate, Limit] = {
            **{Gate("queue", name): limit for name, limit in limits.queues.items()},
            **{Gate("tool", name): limit for name, limit in limits.tools.items()},
        }
        self._running: dict[Gate, int] = {}
        self._expected: dict[Gate, float] = {}
        #: Has one item at most; see `opening`.
        self._opening: dict[None, float] = {}

    @property
    def opening(self) -> float:
        """When time opens a lane that was found shut with tasks in it; infinite without."""
        return self._opening.get(None, math.inf)

    @property
    def limited(self) -> bool:
        """Whether anything is limited at all."""
        return bool(self._limits)

    def load(self, connection: sqlite3.Connection) -> None:
        """Learn how things stand, and move what is in another lane since the settings changed."""
        for queue, tool, running in connection.execute(
            "SELECT queue, tool, count(*) FROM task INDEXED BY task_leased"
            " WHERE state = 'running' GROUP BY queue, tool"
        ):
            for gate in self._gates(queue, tool):
                self._running[gate] = self._running.get(gate, 0) + running
        for kind, name, expected in connection.execute("SELECT kind, name, expected FROM rate"):
            if Gate(kind, name) in self._limits:
                self._expected[Gate(kind, name)] = expected
        self._move(connection)

    def _move(self, connection: sqlite3.Connection) -> None:
        names = "\n".join(sorted(f"{gate.kind} {gate.name}" for gate in self._limits))
        found = connection.execute("SELECT value FROM meta WHERE name = 'limited'").fetchone()
        if names == ("" if found is None else found[0]):
            return
        connection.create_function("lane", 2, self.of, deterministic=True)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE task SET lane = lane(queue, tool)"
            " WHERE state = 'ready' AND lane <> lane(queue, tool)"
        )
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('limited', ?)", (names,))
        connection.execute("COMMIT")

    def settle(self, now: float) -> None:
        """Correct what a clock that was set back between two starts would hold up for long.

        :param now: as of `Transaction.steady`.
        """
        for gate, expected in self._expected.items():
            self._expected[gate] = min(expected, self._limits[gate].latest(now))

    def of(self, queue: str, tool: str) -> str:
        """Return the lane of the tasks of a queue and a tool."""
        if not self._limits:
            return OPEN
        limited = (
            queue if Gate("queue", queue) in self._limits else "",
            tool if Gate("tool", tool) in self._limits else "",
        )
        # Neither name has a space.
        return " ".join(limited) if any(limited) else OPEN

    def _gates(self, queue: str, tool: str) -> Iterator[Gate]:
        for gate in (Gate("queue", queue), Gate("tool", tool)):
            if gate in self._limits:
                yield gate

    def gates(self, lane: str) -> tuple[Gate, ...]:
        """Return what limits the tasks of a lane."""
        return () if lane == OPEN else tuple(self._gates(*lane.split(" ")))

    def room(self, gate: Gate, now: float) -> float:
        """Return how many tasks a limit lets start now."""
        return self._limits[gate].room(
            self._running.get(gate, 0), self._expected.get(gate, -math.inf), now
        )

    def take(self, undo: UndoLog, lane: str) -> None:
        """Take note that a task of a lane runs."""
        for gate in self.gates(lane):
            undo.put(self._running, gate, self._running.get(gate, 0) + 1)

    def start(self, connection: sqlite3.Connection, undo: UndoLog, lane: str, now: float) -> None:
        """Take note that one is started: of those that are taken, some turn out to be too late."""
        for gate in self.gates(lane):
            limit = self._limits[gate]
            if limit.rate is not None:
                expected = limit.after_start(self._expected.get(gate, -math.inf), now)
                undo.put(self._expected, gate, expected)
                connection.execute(
                    "INSERT OR REPLACE INTO rate VALUES (?, ?, ?)", (*gate, expected)
                )

    def stop(self, undo: UndoLog, queue: str, tool: str) -> bool:
        """Take note that a task runs no more; returns whether one that was held back may start."""
        opens = False
        for gate in self._gates(queue, tool):
            running = self._running.get(gate, 0)
            opens = opens or running == self._limits[gate].concurrency
            undo.put(self._running, gate, running - 1)
        return opens

    def wait_for(self, undo: UndoLog, lane: str, now: float) -> None:
        """Take note that tasks of a lane wait; should it be shut until a time, remember that."""
        opens_at = -math.inf
        for gate in self.gates(lane):
            limit = self._limits[gate]
            if limit.concurrency is not None and self._running.get(gate, 0) >= limit.concurrency:
                return  # until one of those that run has ended
            opens_at = max(opens_at, limit.opens_at(self._expected.get(gate, -math.inf)))
        if now < opens_at < self.opening:
            undo.put(self._opening, None, opens_at)

    def look_again(self, undo: UndoLog, now: float) -> bool:
        """Take note that those who wait for a lane to open are told; returns whether one does."""
        opens = self.opening <= now
        if opens:
            undo.drop(self._opening, None)
        return opens

    def of_queue(self, queue: str) -> tuple[Limit | None, int | None]:
        """Return the limit of a queue, and how many run in it. May be called from any thread."""
        gate = Gate("queue", queue)
        limit = self._limits.get(gate)
        return limit, None if limit is None else self._running.get(gate, 0)

    def holds(self, queue: str, tool: str, now: float) -> list[Hold]:
        """Say what keeps a task from being started. May be called from any thread."""
        holds = []
        for gate in self._gates(queue, tool):
            limit, running = self._limits[gate], self._running.get(gate, 0)
            if limit.concurrency is not None and running >= limit.concurrency:
                holds.append(Hold(gate.kind, gate.name, running=running, most=limit.concurrency))
            opens_in = limit.opens_at(self._expected.get(gate, -math.inf)) - now
            if opens_in > 0:
                holds.append(Hold(gate.kind, gate.name, opens_in=opens_in))
        return holds


class Room:
    """How many tasks of which lanes may start in one claim."""

    def __init__(self, lanes: Lanes, now: float) -> None:
        self._lanes = lanes
        self._now = now
        self._left: dict[Gate, float] = {}

    def left(self, lane: str) -> float:
        """Return how many of a lane may start yet."""
        if lane == OPEN:
            return math.inf
        return min(self._of(gate) for gate in self._lanes.gates(lane))

    def take(self, lane: str) -> bool:
        """Use room for a task of a lane, if there is any."""
        if lane == OPEN:
            return True
        if self.left(lane) < 1:
            return False
        for gate in self._lanes.gates(lane):
            self._left[gate] -= 1
        return True

    def _of(self, gate: Gate) -> float:
        if gate not in self._left:
            self._left[gate] = self._lanes.room(gate, self._now)
        return self._left[gate]
