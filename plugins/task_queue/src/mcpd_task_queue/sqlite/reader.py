"""`Reader`: the thread that looks things up."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from mcpd_task_queue.errors import LookUpTooSlow

from .connection import in_words
from .connection_thread import ConnectionThread, Item

#: Seconds that a look-up may take, and how many of SQLite's instructions it does between two looks
#: at the time: about a millisecond of them.
LONGEST_LOOK_UP = 10.0
INSTRUCTIONS = 20_000


class Reader(ConnectionThread[sqlite3.Connection]):
    """Runs queries on a connection of its own, so that none holds up a commit.

    Each query is one short read transaction, so that none keeps the log from being moved; one that
    takes too long is given up.

    :param limit: seconds that a query may take.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        name: str,
        *,
        limit: float = LONGEST_LOOK_UP,
    ) -> None:
        self._limit = limit
        self._deadline = math.inf
        connection.set_progress_handler(self._overdue, INSTRUCTIONS)
        super().__init__(path, connection, name)

    def _overdue(self) -> bool:
        return time.monotonic() > self._deadline

    def _work(self, batch: Sequence[Item[sqlite3.Connection]]) -> None:
        for query, future in batch:
            assert future is not None, "a query is made by somebody"
            if not future.set_running_or_notify_cancel():
                continue
            try:
                self._connection.execute("BEGIN")
                self._deadline = time.monotonic() + self._limit
                try:
                    answer = query(self._connection)
                finally:
                    self._deadline = math.inf
                    self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                future.set_exception(
                    LookUpTooSlow(self._limit)
                    if str(error) == "interrupted"
                    else in_words(self._path, error, "reading")
                )
            except Exception as error:  # noqa: BLE001 - the boundary: it belongs to the caller
                future.set_exception(error)
            else:
                future.set_result(answer)
