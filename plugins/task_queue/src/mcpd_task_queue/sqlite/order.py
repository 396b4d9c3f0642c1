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
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .lanes import OPEN, Room
from .transaction import Transaction

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


def in_lane(name: str) -> Range:
    """Return the range of all ready tasks of a lane."""
    source = "FROM task INDEXED BY task_ready WHERE state = 'ready' AND lane = ?"
    return Range(name, source, (name,))


def everything(tx: Transaction) -> list[Range]:
    """Return the ranges of all ready tasks, one for each lane that has any."""
    if not tx.ledger.lanes.limited:
        return [in_lane(OPEN)]
    return [in_lane(name) for name in occupied(tx.connection)]


def occupied(connection: sqlite3.Connection) -> list[str]:
    """Return the lanes that have ready tasks, one look-up for each."""
    ready = "FROM task INDEXED BY task_ready WHERE state = 'ready'"
    rows = connection.execute(
        f"WITH RECURSIVE found (lane) AS (SELECT min(lane) {ready}"
        f" UNION ALL SELECT (SELECT min(lane) {ready} AND lane > found.lane)"
        " FROM found WHERE found.lane IS NOT NULL"
        ") SELECT lane FROM found WHERE lane IS NOT NULL"
    )
    return [name for (name,) in rows]


def best(tx: Transaction, ranges: Sequence[Range], limit: int) -> list[Ready]:
    """Return the tasks that are to be started first, of what limits let start, in their order.

    A lane that is shut is not looked into.
    """
    if len(ranges) == 1 and not tx.ledger.lanes.limited:
        # Almost always it is this simple.
        chosen = _of_one_priority(tx, ranges[0], limit)
        if chosen is not None:
            return chosen
    room = Room(tx.ledger.lanes, tx.steady)
    ranges = [where for where in ranges if room.left(where.lane) >= 1]
    heads = [(head, where) for where in ranges for head in _heads(tx.connection, where)]
    candidates = {head for head, _ in heads}
    if limit > 1:
        if not tx.ledger.lanes.limited:
            heads = _foremost(heads, limit, tx.ledger.ageing)
        for head, where in heads:
            candidates.update(_rows(tx, where, head.priority, limit))
    return _merged(candidates, limit, tx.ledger.ageing, room)


def _foremost(
    heads: Sequence[tuple[Ready, Range]], limit: int, ageing: float
) -> list[tuple[Ready, Range]]:
    """Leave out the priorities that cannot win before as many tasks are taken as are wanted."""
    first: dict[int, Ready] = {}
    for head, _ in heads:
        first[head.priority] = min(head, first.get(head.priority, head))
    ranked = sorted(first.values(), key=lambda head: _rank(head, ageing))
    foremost = {head.priority for head in ranked[:limit]}
    return [(head, where) for head, where in heads if head.priority in foremost]


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


def _merged(candidates: Iterable[Ready], limit: int, ageing: float, room: Room) -> list[Ready]:
    waiting: dict[int, list[Ready]] = {}
    # The last of each list is to be the first one.
    for ready in sorted(candidates, reverse=True):
        waiting.setdefault(ready.priority, []).append(ready)
    chosen: list[Ready] = []
    while waiting and len(chosen) < limit:
        level = min((tasks[-1] for tasks in waiting.values()), key=lambda r: _rank(r, ageing))
        ready = waiting[level.priority].pop()
        if room.take(ready.lane):
            chosen.append(ready)
        if not waiting[level.priority]:
            del waiting[level.priority]
    return chosen


def ahead_of(
    connection: sqlite3.Connection, task: Ready, ageing: float, lanes: Iterable[str]
) -> int:
    """Count the ready tasks of some lanes that are going to be started before one of them.

    Of another priority those count that go first where both are the first of theirs.
    """
    ahead = 0
    for where in map(in_lane, lanes):
        ahead += _ahead_in(connection, task, ageing, where)
    return min(ahead, FARTHEST)


def _ahead_in(connection: sqlite3.Connection, task: Ready, ageing: float, where: Range) -> int:
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
    return ahead


def lowest(tx: Transaction, lane: str, priority: int) -> int | None:
    """Return the lowest turn that waits in a lane, at a priority."""
    row = tx.execute(
        "SELECT turn FROM task INDEXED BY task_ready WHERE state = 'ready' AND lane = ?"
        " AND priority = ? ORDER BY turn LIMIT 1",
        (lane, priority),
    ).fetchone()
    return None if row is None else int(row[0])
