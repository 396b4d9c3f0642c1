"""`Notes`: what a running tool says of itself, bounded until the store has it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from mcpd_core import Progress

from .records import LogLine, Note, Reported

#: Characters kept of a log line's text, and of its level.
LONGEST_LINE, LONGEST_LEVEL = 500, 20


class Notes:
    """The latest progress of an attempt and its latest log lines.

    A tool may say more than any disk could take: of what is said between two visits to the store,
    the latest progress and the last lines are kept, and how many more lines there were.

    :param lines: how many are kept.
    :param fresh: called when there is something to be stored and was nothing before. Like the
        reports themselves it may come on any thread.
    """

    def __init__(self, lines: int, fresh: Callable[[], None]) -> None:
        self._fresh = fresh
        self._lock = threading.Lock()
        self._lines: deque[LogLine] = deque(maxlen=lines)
        self._dropped = 0
        self._unsaid: Reported | None = None
        #: The latest progress, stored or not.
        self.latest: Reported | None = None

    def on_progress(self, progress: Progress) -> None:
        """Take a report; one that is not a number is none."""
        total = progress.total
        if not math.isfinite(progress.done) or not (total is None or math.isfinite(total)):
            return
        reported = Reported(progress, time.time())
        with self._lock:
            was = self._empty
            self.latest = self._unsaid = reported
        if was:
            self._fresh()

    def on_log(self, level: str, message: str) -> None:
        """Take a log line."""
        if self._lines.maxlen == 0:
            return
        line = LogLine(time.time(), level[:LONGEST_LEVEL], _shortened(message))
        with self._lock:
            was = self._empty
            self._append(line)
        if was:
            self._fresh()

    @property
    def _empty(self) -> bool:
        return self._unsaid is None and not self._lines

    def _append(self, line: LogLine) -> None:
        self._dropped += len(self._lines) == self._lines.maxlen
        self._lines.append(line)

    def take(self, task_id: str, fence: int) -> Note | None:
        """Return what is to be stored, and keep it no longer; ``None`` when there is nothing."""
        with self._lock:
            if self._empty:
                return None
            note = Note(task_id, fence, self._unsaid, tuple(self._lines), self._dropped)
            self._lines.clear()
            self._dropped, self._unsaid = 0, None
        return note

    def put_back(self, note: Note) -> None:
        """Have something stored after all that `take` gave, as far as nothing newer replaces it."""
        with self._lock:
            newer = list(self._lines)
            self._lines.clear()
            self._dropped += note.dropped
            for line in (*note.lines, *newer):
                self._append(line)
            self._unsaid = self._unsaid or note.progress
        self._fresh()


def _shortened(message: str) -> str:
    return message if len(message) <= LONGEST_LINE else f"{message[: LONGEST_LINE - 1]}…"
