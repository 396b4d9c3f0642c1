"""`SQLiteTaskStore`: the `TaskStore` protocol on one SQLite file.

Here it is opened, watched over and closed; what is done with tasks is in `Writes` and `Reads`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

from mcpd_core import Finding, file_system_of
from mcpd_task_queue.capabilities import Capabilities
from mcpd_task_queue.errors import StoreUnusable
from mcpd_task_queue.layout import BLOBS
from mcpd_task_queue.limits import Limits
from mcpd_task_queue.metrics import Metric
from mcpd_task_queue.records import FINAL, STATES, BackedUp, Change, StoreHealth, TaskState
from mcpd_task_queue.store import Listener

from . import examining, queries
from .backup import Backups
from .connection import Durability, StoreLock, connect_reader, connect_writer, create, in_words
from .ledger import Ledger
from .log import LARGEST_LOG
from .reader import Reader
from .reads import Reads
from .results import Results
from .schema import migrate
from .threads import in_thread
from .writer import Writer
from .writes import Writes

#: Bytes of JSON that the arguments of one task may take.
LARGEST_ARGUMENTS = 1024 * 1024
#: Seconds of waiting that are worth a step of priority.
AGEING = 300.0
#: Log lines that are kept of one task.
LOG_LINES = 200
#: Bytes of JSON that the result of one task may take, and up to how many it is in the database.
LARGEST_RESULT = 64 * 1024 * 1024
INLINE_RESULT = 64 * 1024


class SQLiteTaskStore(Writes, Reads):
    """Keeps tasks in one SQLite file; the reference engine.

    One connection, on a thread of its own, makes every change, in groups that share a commit and
    its fsync, and it alone moves the write-ahead log into the database. Another one only reads.
    No other process may open the file while the store is open.

    :param path: of the database; made, with its folder, when it does not exist.
    :param durability: ``full`` (fsync before every answer) or ``normal`` (what was acknowledged in
        the last seconds before a power cut may be lost; the death of the process loses nothing).
    :param retention: seconds for which a task is kept after it has ended.
    :param retention_of: the same for those that ended in a state, where it differs.
    :param log_lines: how many lines of a task's log are kept.
    :param largest_arguments: bytes of JSON that one task's arguments may take.
    :param ageing: seconds of waiting that are worth a step of priority; 0 for none.
    :param largest_log: bytes of the write-ahead log beyond which new tasks are refused; it gets
        there only when another program keeps a transaction open.
    :param largest_result: bytes of JSON that one task's result may take.
    :param inline_result: up to how many of them a result is in the database; a larger one is a file
        in the folder ``blobs`` beside it.
    :param limits: what holds tasks back; nothing when ``None``.
    :param clock: seconds since the epoch.
    :param monotonic: seconds on a clock that nobody can set.
    :raises StoreUnusable: when the file cannot be opened, is in use, or is not for this version.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = "full",
        retention: float = 7 * 86_400.0,
        retention_of: Mapping[TaskState, float] | None = None,
        log_lines: int = LOG_LINES,
        largest_arguments: int = LARGEST_ARGUMENTS,
        largest_log: int = LARGEST_LOG,
        ageing: float = AGEING,
        largest_result: int = LARGEST_RESULT,
        inline_result: int = INLINE_RESULT,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._capabilities = Capabilities(
            engine="sqlite",
            delivery=("at_least_once", "at_most_once"),
            fsync="commit" if durability == "full" else "interval",
            priority=True,
            delay=True,
            recurring=True,
            dedup_window=None,
            payload_limit=largest_arguments,
            backup=True,
            result_limit=largest_result,
        )
        self._listener: Listener | None = None
        found = file_system_of(path)
        if found.network:
            raise StoreUnusable(
                examining.on_network(path, found.kind),
                hint="Choose a directory on a local disk with --data-dir or MCPD_DATA_DIR.",
            )
        try:
            create(path)
            self._lock = StoreLock(path)
        except OSError as error:
            raise StoreUnusable(
                f"The task store {path} cannot be opened: {error.strerror or error}.",
                hint="Check the data directory and its permissions.",
            ) from error
        try:
            writing = connect_writer(path, durability)
            try:
                self._instance = migrate(writing, path)
                self._counts = queries.counts(writing)
                ledger = Ledger(ageing, limits or Limits())
                ledger.load(writing, clock(), monotonic())
                reading = connect_reader(path)
            except BaseException:
                writing.close()
                raise
        except sqlite3.Error as error:
            self._lock.release()
            cause = in_words(path, error, "opening it")
            raise StoreUnusable(cause.message, hint=cause.hint) from error
        except BaseException:
            self._lock.release()
            raise
        writer = Writer(
            path,
            writing,
            clock=clock,
            monotonic=monotonic,
            ledger=ledger,
            committed=self._committed,
            largest_log=largest_log,
        )
        reader = Reader(path, reading, "mcpd-task-store-reader")
        results = Results(path.with_name(BLOBS), reader, inline_result, largest_result)
        Writes.__init__(
            self,
            writer,
            results,
            retention=dict.fromkeys(FINAL, retention) | dict(retention_of or {}),
            log_lines=log_lines,
            largest_arguments=largest_arguments,
        )
        Reads.__init__(self, reader, results, ledger, clock=clock, monotonic=monotonic)
        self._backups = Backups(path, writer, results.keeping_all)
        self._closed: Future[None] | None = None

    @property
    def instance(self) -> str:
        """The identity of the store itself."""
        return self._instance

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        return self._capabilities

    def listen(self, listener: Listener | None) -> None:
        """Have ``listener`` called after each commit, on the writer's thread."""
        self._listener = listener

    def _committed(self, made: Sequence[Change]) -> None:
        if not made:
            return
        # A new dict each time: `health` reads it from other threads.
        counts = dict(self._counts)
        for change in made:
            if change.before != change.after:
                if change.before is not None:
                    counts[change.before] = counts.get(change.before, 0) - 1
                if change.after is not None:
                    counts[change.after] = counts.get(change.after, 0) + 1
        self._counts = counts
        listener = self._listener
        if listener is not None:
            listener(made)

    def health(self) -> StoreHealth:
        """Say how the store is, without waiting."""
        trouble = self._writer.trouble or self._results.trouble
        counts: dict[TaskState, int] = {state: self._counts.get(state, 0) for state in STATES}
        log = self._writer.log.detail
        detail = str(trouble) if trouble is not None else log[:1].upper() + log[1:].rstrip(".")
        return StoreHealth(trouble is None, detail, counts)

    def metrics(self) -> list[Metric]:
        """Return what the engine measures, without waiting."""
        return list(self._writer.measures.metrics())

    def backup(self, path: Path) -> Future[BackedUp]:
        """Copy the whole store while it is in use."""
        return self._backups.make(path)

    def examine(self) -> Future[list[Finding]]:
        """Look whether what is stored is sound."""
        return in_thread("mcpd-task-store-check", self._examine)

    def _examine(self) -> list[Finding]:
        # On a connection of its own: it takes long, and look-ups should not wait for it.
        try:
            with closing(connect_reader(self.path)) as connection:
                return list(examining.examine(connection, self.path))
        except sqlite3.DatabaseError as error:
            return [examining.damaged(self.path, str(error))]

    def close(self) -> Future[None]:
        """Finish what was asked for, refuse the rest, and close."""
        if self._closed is None:
            self._closed = done = Future[None]()

            def unlock(_: Future[None]) -> None:
                self._lock.release()
                done.set_result(None)

            # The results first: what is on its way into a file is still to be recorded. Then the
            # reader: the last connection to close moves the log, and only one may.
            self._results.close().add_done_callback(
                lambda _: self._reader.close().add_done_callback(
                    lambda _: self._writer.close().add_done_callback(unlock)
                )
            )
        return self._closed
