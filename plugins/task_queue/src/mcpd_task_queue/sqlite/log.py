"""`Log`: the write-ahead log of the database, and what keeps it small.

Each commit appends to the log. SQLite moves it into the database after every thousand pages or so
and then writes it anew from the start, but not past what somebody may still read: a transaction
that another program leaves open, such as that of a forgotten `sqlite3` shell, pins it, and it grows
with every commit until the disk is full. Here it is moved when the store is idle; when it grows
all the same, whoever pins it is named; and beyond a limit new tasks are refused, while what runs
can still be recorded.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mcpd_task_queue.errors import StoreFull

from .holders import Holder, holders_of

_log = logging.getLogger(__name__)

#: Bytes that the log may have before new tasks are refused.
LARGEST_LOG = 256 * 1024 * 1024
#: Seconds without a commit after which the log is emptied, and the longest wait between two
#: attempts at that while somebody pins it.
IDLE, LONGEST_IDLE = 1.0, 60.0
#: Bytes that the file keeps when the log is emptied at rest. A commit that overwrites is synced in
#: two thirds of the time of one that makes the file longer.
KEPT = 4 * 1024 * 1024
#: Operations after which the size of a small log is asked for.
SELDOM = 8


class Log:
    """The log of one database. Used on the writer's thread; what is said of it, on any.

    :param path: of the database.
    :param largest: bytes beyond which new tasks are refused, and beyond five quarters of which
        everything is.
    :ivar detail: who pins it, once it is a quarter as large as it may be; else empty.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, largest: int = LARGEST_LOG
    ) -> None:
        self._path = path
        self._file = f"{path}-wal"
        self._connection = connection
        self.largest = largest
        self.reserve = largest // 4
        self._notable = largest // 4
        self._looked_at = 0
        self._size = self.size
        self._unseen = 0
        # What a process that died left in it is moved as well.
        self._wait: float | None = IDLE
        self.detail = ""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        try:
            return os.stat(self._file).st_size
        except OSError:
            return 0

    # --- with each commit -------------------------------------------------------------------------

    def before(self) -> StoreFull | None:
        """Make room, if need be, before a commit.

        :returns: why new tasks are to be refused, if so.
        :raises StoreFull: when nothing can be stored any more.
        :raises sqlite3.Error: when the disk fails.
        """
        # What the file had after the last commit: nobody else writes it.
        size = self._size
        if size <= self.largest:
            return None
        if self.empty():
            return None
        exhausted = size > self.largest + self.reserve
        holders = holders_of(self._path)
        if holders == [] and not exhausted:
            # It is our own reader: its look-up ends soon.
            return None
        self.detail = _sentence(self._path, size, holders)
        full = StoreFull(
            f"The task store {self._path} takes no {'changes' if exhausted else 'new tasks'}: "
            f"{self.detail}",
            hint=_mend(holders),
        )
        if exhausted:
            raise full
        return full

    def after(self, operations: int) -> None:
        """Take note of a commit that so many operations shared."""
        self._wait = IDLE
        self._unseen += operations
        if self._unseen < SELDOM and self._size < self._notable // 2:
            # Far from being large, and asking for its size costs as much as an operation.
            return
        self._unseen = 0
        size = self._size = self.size
        if size < self._notable:
            self._looked_at = 0
            self.detail = ""
        elif size >= self._looked_at + self._notable // 4:
            # Now and then is enough: to look takes longer than a commit does.
            self._looked_at = size
            self._look(size)

    def _look(self, size: int) -> None:
        """Find out whether the log is large because somebody pins it, or after a burst."""
        if self.empty():
            return
        holders = holders_of(self._path)
        if holders == []:
            return  # our own reader, for a moment
        if not self.detail:
            _log.warning("%s", _sentence(self._path, size, holders))
        self.detail = _sentence(self._path, size, holders)

    # --- when nothing is done ---------------------------------------------------------------------

    @property
    def wait(self) -> float | None:
        """Seconds of rest after which to call `rested`; ``None`` when there is nothing to move."""
        return self._wait

    def rested(self) -> None:
        """Empty the log, since there is time for it; what is left of its file is written anew.

        :raises sqlite3.Error: when the disk fails.
        """
        if self.empty(kept=KEPT):
            self._wait = None
        else:
            # Whoever pins it may be gone the next time; until then nothing is lost but room.
            self._wait = min((self._wait or IDLE) * 2, LONGEST_IDLE)

    def empty(self, kept: int = 0) -> bool:
        """Move all of the log into the database and write it from the start, if nobody pins it.

        :param kept: bytes of the file above which it is cut off; it is otherwise left as it is.
        :raises sqlite3.Error: when the disk fails.
        """
        execute = self._connection.execute
        # Nobody is waited for: whoever reads goes on reading, and the commits go on meanwhile.
        (patience,) = execute("PRAGMA busy_timeout").fetchone()
        execute("PRAGMA busy_timeout = 0")
        size = self.size
        mode = "TRUNCATE" if size > kept else "RESTART"
        try:
            (pinned, _, _) = execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            execute(f"PRAGMA busy_timeout = {patience}")
        if pinned:
            return False
        self._size = 0 if size > kept else size
        self._looked_at = 0
        self.detail = ""
        return True


def _sentence(path: Path, size: int, holders: Sequence[Holder] | None) -> str:
    who = " and ".join(map(str, holders or ())) or "a program that is not known"
    return (
        f"the log {path.name}-wal has {size / (1 << 20):,.0f} MiB, because {who} keeps a "
        f"transaction of {path.name} open."
    )


def _mend(holders: Sequence[Holder] | None) -> str:
    if holders:
        pids = " ".join(str(holder.pid) for holder in holders)
        return f"Close that program's connection, or end it: kill {pids}"
    return "Find the program with `fuser` or `lsof` on the file, and close its connection."
