"""`Measures`: what the writer of the database counts, for whoever looks after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mcpd_task_queue.metrics import OPERATIONS, SECONDS, Distribution, Metric


class Measures:
    """Counted on the writer's thread, read on any.

    :param path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._operations = Distribution(OPERATIONS)
        self._seconds = Distribution(SECONDS)
        self._waits = Distribution(SECONDS)

    def committed(self, operations: int, seconds: float, waits: list[float]) -> None:
        """Note a commit.

        :param operations: how many shared it.
        :param seconds: from the beginning of its transaction until it was durable.
        :param waits: how long each task that it started had been ready, in seconds.
        """
        self._operations.observe(operations)
        self._seconds.observe(seconds)
        for wait in waits:
            self._waits.observe(wait)

    def metrics(self) -> Iterator[Metric]:
        """Return what was counted, and how large the files are."""
        yield Metric.single(
            "mcpd_tasks_wait_seconds",
            "histogram",
            "From when a task was ready to the start of its attempt.",
            self._waits.read(),
        )
        yield Metric.single(
            "mcpd_tasks_commit_operations",
            "histogram",
            "Operations that shared a commit.",
            self._operations.read(),
        )
        yield Metric.single(
            "mcpd_tasks_commit_seconds",
            "histogram",
            "From the beginning of a transaction until it was durable.",
            self._seconds.read(),
        )
        for name, file, text in (
            ("database", str(self._path), "Size of the database file."),
            ("log", f"{self._path}-wal", "Size of the write-ahead log."),
        ):
            yield Metric.single(f"mcpd_tasks_{name}_bytes", "gauge", text, _size(file))


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return 0
