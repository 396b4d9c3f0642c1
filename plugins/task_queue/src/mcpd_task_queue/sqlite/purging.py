"""Removing what was kept for long enough."""

from __future__ import annotations

from collections.abc import Mapping

from mcpd_task_queue.records import TaskState, Whose

from .transaction import Transaction

#: Tasks that are removed at a time. Each may have hundreds of events and log lines.
PURGE_LIMIT = 250
#: What there is of a task besides its payload.
_TABLES = ("task", "event", "attempt", "log_line")


def purge(tx: Transaction, retention: Mapping[TaskState, float], freed: list[str]) -> int:
    """Remove tasks that ended long enough ago, with everything about them.

    :param retention: seconds for which tasks are kept that ended in a state. Those of states that
        are not named are kept for ever.
    :param freed: receives the names of the files that they referred to.
    :returns: how many were removed; there may be more when these are `PURGE_LIMIT`.
    """
    old: list[tuple[int, str, TaskState, str, str, str]] = []
    for state, seconds in retention.items():
        old += tx.execute(
            "SELECT seq, id, state, principal_kind, principal_id, queue FROM task"
            " WHERE state = ? AND finished_at IS NOT NULL AND finished_at < ?"
            " ORDER BY finished_at LIMIT ?",
            (state, tx.now - seconds, PURGE_LIMIT - len(old)),
        ).fetchall()
    for table in _TABLES:
        tx.executemany(f"DELETE FROM {table} WHERE seq = ?", [(seq,) for seq, *_ in old])
    for seq, task_id, state, *whose in old:
        for (blob,) in tx.execute("DELETE FROM payload WHERE seq = ? RETURNING blob", (seq,)):
            if blob is not None:
                freed.append(blob)
        tx.note(task_id, state, None, whose=Whose(*whose))
    return len(old)
