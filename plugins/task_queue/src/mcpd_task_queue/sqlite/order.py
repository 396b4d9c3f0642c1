"""Which ready tasks are started next.

Inside a priority it is the order of turns (see `turns`), then that in which they became ready. Of
the priorities, the one whose first task has the highest ``priority + waited / ageing`` comes next.
The difference between two tasks does not change while both wait, so that it can be told from when
they became ready.

What is looked at are ranges of indexes, each of which has the tasks of one lane in that order, by
priority. Of each range the first of each priority is read, one look-up for each, and then as many
as are asked for; neither depends on how many there are.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

from .worker import Transaction

#: Tasks that are counted at most of those ahead of one.
FARTHEST = 10_000

_BEST = "ORDER BY priority DESC, turn, ready_at, seq LIMIT"


class Range(NamedTuple):
    """Ready tasks that an index has in order.

    :ivar source: the end of a SELECT, up to its conditions.
    :ivar parameters: of the conditions.
    """

    lane: str
    source: str
    parameters: tuple[Any, ...]


class Ready(NamedTuple):
    """A task that may be started."""

    priority: int
    turn: int
    ready_at: float
    seq: int
    lane: str


def lane(name: str) -> Range:
    """Return the range of all ready tasks of a lane."""
    source = "FROM task INDEXED BY task_ready WHERE state = 'ready' AND lane = ?"
    return Range(name, source, (name,))


def best(tx: Transaction, ranges: Iterable[Range], limit: int) -> list[Ready]:
    """Return the first ready tasks of some ranges, in the order in which they are to be started."""
    ranges = list(ranges)
    if len(ranges) == 1:
        # Almost always it is this simple.
        chosen = _of_one_priority(tx, ranges[0], limit)
        if chosen is not None:
            return chosen
    heads = [(head, where) for where in ranges for head in _heads(tx.connection, where)]
    if limit > 1:
        # Of the others, none comes before each of as many tasks as are wanted has been taken.
        first: dict[int, Ready] = {}
        for head, _ in heads:
            first[head.priority] = min(head, first.get(head.priority, head))
        ranked = sorted(first.values(), key=lambda head: _rank(head, tx.ledger.ageing))
        considered = {head.priority for head in ranked[:limit]}
        candidates = {
            ready
            for head, where in heads
            if head.priority in considered
            for ready in _rows(tx, where, head.priority, limit)
        }
    else:
        candidates = {head for head, _ in heads}
    return _merged(candidates, limit, tx.ledger.ageing)


def _of_one_priority(tx: Transaction, where: Range, limit: int) -> list[Ready] | None:
    """Return the first tasks of a range; ``None`` when several priorities compete."""
    rows = tx.execute(
        "SELECT priority, turn, ready_at, seq, EXISTS"
        f" (SELECT 1 {where.source} AND priority < best.priority) FROM"
        f" (SELECT priority, turn, ready_at, seq {where.source} {_BEST} ?) AS best LIMIT ?",
        (*where.parameters, *where.parameters, limit, limit),
    ).fetchall()
    if rows and rows[0][4] and tx.ledger.ageing:
        return None
    return [Ready(priority, turn, at, seq, where.lane) for priority, turn, at, seq, _ in rows]


def _heads(connection: sqlite3.Connection, where: Range) -> list[Ready]:
    """Read the first task of each priority."""
    columns = "seq, priority, turn, ready_at"
    rows = connection.execute(
        f"WITH RECURSIVE head ({columns}) AS ("
        f" SELECT * FROM (SELECT {columns} {where.source} {_BEST} 1)"
        " UNION ALL SELECT next.seq, next.priority, next.turn, next.ready_at"
        " FROM head CROSS JOIN task AS next ON next.seq ="
        f" (SELECT seq {where.source} AND priority < head.priority {_BEST} 1)"
        ") SELECT * FROM head",
        where.parameters * 2,
    )
    return [Ready(priority, turn, at, seq, where.lane) for seq, priority, turn, at in rows]


def _rows(tx: Transaction, where: Range, priority: int, limit: int) -> list[Ready]:
    rows = tx.execute(
        f"SELECT priority, turn, ready_at, seq {where.source} AND priority = ?"
        " ORDER BY turn, ready_at, seq LIMIT ?",
        (*where.parameters, priority, limit),
    )
    return [Ready(priority, turn, at, seq, where.lane) for priority, turn, at, seq in rows]


def _rank(ready: Ready, ageing: float) -> tuple[float, int]:
    """Return by what the first tasks of two priorities are compared; the lower one is better."""
    since = ready.ready_at - ready.priority * ageing if ageing else 0.0
    return since, -ready.priority


def _merged(candidates: Iterable[Ready], limit: int, ageing: float) -> list[Ready]:
    waiting: dict[int, list[Ready]] = {}
    # The last of each list is to be the first one.
    for ready in sorted(candidates, reverse=True):
        waiting.setdefault(ready.priority, []).append(ready)
    chosen: list[Ready] = []
    while waiting and len(chosen) < limit:
        level = min((tasks[-1] for tasks in waiting.values()), key=lambda r: _rank(r, ageing))
        chosen.append(waiting[level.priority].pop())
        if not waiting[level.priority]:
            del waiting[level.priority]
    return chosen


def ahead_of(connection: sqlite3.Connection, task: Ready, ageing: float) -> int:
    """Count the ready tasks that are going to be started before one of them, if none comes anew.

    Of another priority those count that go first where both are the first of theirs.
    """
    where = lane(task.lane)
    ahead = 0
    for head in _heads(connection, where):
        source = f"SELECT ready_at {where.source} AND priority = ?"
        parameters = (*where.parameters, head.priority)
        until = math.inf
        if head.priority == task.priority:
            source += " AND (turn, ready_at, seq) < (?, ?, ?)"
            parameters = (*parameters, task.turn, task.ready_at, task.seq)
        elif ageing:
            until = task.ready_at + (head.priority - task.priority) * ageing
        elif head.priority < task.priority:
            continue
        # Counting further than this would tell nobody more.
        (found,) = connection.execute(
            f"SELECT count(*) FROM ({source} ORDER BY turn, ready_at, seq LIMIT {FARTHEST})"
            f" WHERE ready_at {'<' if head.priority < task.priority else '<='} ?",
            (*parameters, until),
        ).fetchone()
        ahead += found
    return min(ahead, FARTHEST)


def lowest(tx: Transaction, lane: str, priority: int) -> int | None:
    """Return the lowest turn that waits in a lane, at a priority."""
    row = tx.execute(
        "SELECT turn FROM task INDEXED BY task_ready WHERE state = 'ready' AND lane = ?"
        " AND priority = ? ORDER BY turn LIMIT 1",
        (lane, priority),
    ).fetchone()
    return None if row is None else int(row[0])
