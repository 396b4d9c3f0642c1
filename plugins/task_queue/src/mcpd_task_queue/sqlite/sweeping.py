"""What happens without anybody asking for it: recovery at the start, and the sweep."""

from __future__ import annotations

from collections.abc import Mapping

from mcpd_task_queue.records import Swept, TaskState

from .failures import cut_off, expire
from .purging import PURGE_LIMIT, purge
from .schedules import fire
from .transaction import Transaction
from .transitions import Leases, Row, move, select
from .whole import settle

#: Tasks that one sweep moves at most, of each kind, so that no sweep holds up a commit for long.
SWEEP_LIMIT = 1_000


def recover(tx: Transaction, leases: Leases, owner: str) -> Swept:
    """Interrupt what other owners left running; try again at once what waited for the host."""
    tally = _Tally()
    some = f"ORDER BY seq LIMIT {SWEEP_LIMIT}"
    left = select(tx, f"state = 'running' AND owner <> ? {some}", (owner,))
    for row in left:
        tally.add(cut_off(tx, leases, row, "the process that ran it died", row.attempts))
    # A restart is when a missing tool comes back.
    released = select(tx, f"state = 'scheduled' AND releases > 0 {some}", ())
    for row in released:
        tally.add(move(tx, row, "ready", "readied", "the server was restarted", run_at=None))
    settled = settle(tx, SWEEP_LIMIT)
    return tally.swept(more=SWEEP_LIMIT in (len(left), len(released), settled))


def sweep(
    tx: Transaction, leases: Leases, retention: Mapping[TaskState, float], freed: list[str]
) -> Swept:
    """Make due tasks ready and recurring ones into tasks, bury those whose deadline passed,
    interrupt those whose lease ran out, purge the old ones.

    :param retention: see `purging.purge`.
    :param freed: receives the names of the files that purged tasks referred to.
    """
    tally = _Tally()
    buried = expire(tx, SWEEP_LIMIT)
    tally.add("dead", buried)
    tx.opens |= tx.ledger.lanes.look_again(tx.undo, tx.steady)
    due = select(
        tx,
        f"state = 'scheduled' AND run_at <= ? ORDER BY run_at, seq LIMIT {SWEEP_LIMIT}",
        (tx.now,),
    )
    for row in due:
        if row.cron is not None:
            tally.add(fire(tx, row))
        else:
            tally.add(move(tx, row, "ready", "due", run_at=None))
    for row in _expired(tx, leases):
        tally.add(cut_off(tx, leases, row, "its lease ran out", row.attempts))
    purged = purge(tx, retention, freed)
    more = SWEEP_LIMIT in (buried, len(due)) or purged == PURGE_LIMIT
    return tally.swept(purged=purged, more=more)


def _expired(tx: Transaction, leases: Leases) -> list[Row]:
    """Find the tasks whose lease has run out: ours by the monotonic clock, others' by the wall."""
    rows = [
        row
        for row in select(tx, "state = 'running' AND lease_until < ?", (tx.now,))
        if not leases.ours(row.seq)
    ]
    for seq in leases.expired(tx.monotonic):
        leases.end(tx.undo, seq)
        rows += select(tx, "state = 'running' AND seq = ?", (seq,))
    return sorted(rows)


class _Tally:
    """Counts what became of tasks."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, state: TaskState, count: int = 1) -> None:
        self._counts[state] = self._counts.get(state, 0) + count

    def swept(self, *, purged: int = 0, more: bool = False) -> Swept:
        return Swept(
            readied=self._counts.get("ready", 0) + self._counts.get("paused", 0),
            parked=self._counts.get("uncertain", 0),
            buried=self._counts.get("dead", 0),
            cancelled=self._counts.get("cancelled", 0),
            purged=purged,
            more=more,
        )
