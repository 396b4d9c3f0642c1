"""What running tools say of themselves: their progress, and the last of their log lines."""

from __future__ import annotations

import sqlite3

from mcpd_task_queue.records import LogLine, Note

from .rows import shorten
from .transaction import Transaction
from .transitions import Row


def keep(tx: Transaction, row: Row, note: Note, most: int) -> None:
    """Store what the attempt that owns a task has said.

    :param most: log lines that are kept of a task, over all its attempts.
    """
    if note.progress is not None:
        progress, at = note.progress
        tx.execute(
            "UPDATE task SET progress_done = ?, progress_total = ?, progress_message = ?,"
            " progress_at = ? WHERE seq = ?",
            (progress.done, progress.total, shorten(progress.message), at, row.seq),
        )
    if note.lines:
        _append(tx, row, note, most)


def _append(tx: Transaction, row: Row, note: Note, most: int) -> None:
    (last,) = tx.execute(
        "SELECT coalesce(max(n), 0) FROM log_line WHERE seq = ?", (row.seq,)
    ).fetchone()
    # Lines are numbered as if all had been stored, so that the numbers say how many were not.
    first = last + note.dropped + 1
    tx.executemany(
        "INSERT INTO log_line VALUES (?, ?, ?, ?, ?, ?)",
        [
            (row.seq, n, line.at, row.attempts, shorten(line.level), shorten(line.message))
            for n, line in enumerate(note.lines, start=first)
        ],
    )
    tx.execute(
        "DELETE FROM log_line WHERE seq = ? AND n <= ?",
        (row.seq, first + len(note.lines) - 1 - most),
    )


def read(connection: sqlite3.Connection, seq: int, most: int) -> tuple[tuple[LogLine, ...], int]:
    """Return the last log lines of a task, oldest first, and how many there were in all."""
    rows = connection.execute(
        "SELECT at, level, message, attempt, n FROM log_line WHERE seq = ? ORDER BY n DESC LIMIT ?",
        (seq, most),
    ).fetchall()
    said = rows[0][4] if rows else 0
    return tuple(LogLine(*row[:4]) for row in reversed(rows)), said
