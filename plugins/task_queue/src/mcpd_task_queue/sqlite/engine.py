"""`SQLiteTaskStore`: the `TaskStore` protocol on one SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

from mcpd_core import CallResult, Finding, Principal, file_system_of
from mcpd_task_queue import cron
from mcpd_task_queue.capabilities import Capabilities
from mcpd_task_queue.errors import StoreUnusable
from mcpd_task_queue.limits import Limits
from mcpd_task_queue.metrics import Metric
from mcpd_task_queue.records import (
    FINAL,
    STATES,
    Activity,
    BackedUp,
    Cancelled,
    Change,
    Changed,
    Exported,
    Filter,
    NewTask,
    Note,
    Page,
    Pause,
    QueueChanged,
    QueueStats,
    Recorded,
    Renewal,
    ResultPart,
    Snapshot,
    StoreHealth,
    Submitted,
    Swept,
    Task,
    TaskState,
    Worker,
)
from mcpd_task_queue.store import Listener, Resolution, Verdict

from . import changes, examining, exporting, managing, queries, sweeping, workers
from .apart import in_thread
from .backup import Backups
from .connection import Durability, StoreLock, connect_reader, connect_writer, create, in_words
from .ledger import Ledger
from .log import LARGEST_LOG
from .results import Results
from .rows import arguments_text, digest, error_text, shorten
from .schema import migrate
from .transitions import Leases
from .worker import Reader, Writer

#: Bytes of JSON that the arguments of one task may take.
LARGEST_ARGUMENTS = 1024 * 1024
#: Seconds of waiting that are worth a step of priority.
AGEING = 300.0
#: Log lines that are kept of one task.
LOG_LINES = 200
#: Bytes of JSON that the result of one task may take, and up to how many it is in the database.
LARGEST_RESULT = 64 * 1024 * 1024
INLINE_RESULT = 64 * 1024


class SQLiteTaskStore:
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
        self._retention = dict.fromkeys(FINAL, retention) | dict(retention_of or {})
        self._log_lines = log_lines
        self._largest = largest_arguments
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
        self._clock = clock
        self._monotonic = monotonic
        self._leases = Leases()
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
                self._ledger = ledger = Ledger(ageing, limits or Limits())
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
        self._writer = Writer(
            path,
            writing,
            clock=clock,
            monotonic=monotonic,
            ledger=ledger,
            committed=self._committed,
            largest_log=largest_log,
        )
        self._reader = Reader(path, reading, "mcpd-task-store-reader")
        self._backups = Backups(path, self._writer)
        self._results = Results(
            path.with_name("blobs"), self._reader, inline_result, largest_result
        )
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

    # --- changes ----------------------------------------------------------------------------------

    def submit(self, batch: Sequence[NewTask]) -> Future[list[Submitted]]:
        """Store new tasks, all of them or none."""
        # Encoding happens on the caller's thread: the writer has better things to do.
        encoded = [self._encoded(new) for new in batch]
        return self._writer.do(lambda tx: changes.submit(tx, batch, encoded))

    def check(self, task: NewTask) -> None:
        """Raise what `submit` would raise at once for this task."""
        self._encoded(task)

    def _encoded(self, new: NewTask) -> tuple[str, list[bytes]]:
        text = arguments_text(new.arguments, self._largest)
        zones = [new.timezone]
        if new.cron is not None:
            cron.check(new.cron, new.timezone)
            # No zone is this one; which of the two a stored digest was made of is not known.
            if new.timezone in (None, "UTC"):
                zones.append("UTC" if new.timezone is None else None)
        return text, [digest(new.tool, new.arguments, new.cron, zone) for zone in zones]

    def claim(
        self, owner: str, limit: int, lease: float, worker: Worker | None = None
    ) -> Future[list[Task]]:
        """Start up to ``limit`` ready tasks, best first."""
        return self._writer.do(
            lambda tx: changes.claim(tx, self._leases, owner, limit, lease, worker)
        )

    def renew(self, renewals: Sequence[Renewal], lease: float) -> Future[list[Recorded]]:
        """Prolong leases."""
        return self._writer.do(lambda tx: changes.renew(tx, self._leases, renewals, lease))

    def note(self, notes: Sequence[Note]) -> Future[list[Recorded]]:
        """Store what attempts have said."""
        return self._writer.do(lambda tx: changes.note(tx, notes, self._log_lines))

    def complete(self, task_id: str, fence: int, result: CallResult) -> Future[Recorded]:
        """Record that a task succeeded."""
        return self._results.complete(
            result,
            lambda stored: self._writer.do(
                lambda tx: changes.complete(tx, self._leases, task_id, fence, stored)
            ),
        )

    def fail(
        self,
        task_id: str,
        fence: int,
        error: Mapping[str, object],
        verdict: Verdict,
        retry_in: float = 0.0,
    ) -> Future[Recorded]:
        """Record that an attempt failed."""
        message, text = shorten(str(error.get("message", ""))), error_text(error)
        return self._writer.do(
            lambda tx: changes.fail(
                tx, self._leases, task_id, fence, message, text, verdict, retry_in
            )
        )

    def release(
        self, task_id: str, fence: int, reason: str, retry_in: float = 0.0
    ) -> Future[Recorded]:
        """Give back a task that was claimed but not started."""
        return self._writer.do(
            lambda tx: changes.release(tx, self._leases, task_id, fence, reason, retry_in)
        )

    def interrupt(
        self, task_id: str, fence: int, reason: str, *, count_attempt: bool
    ) -> Future[Recorded]:
        """Record that an attempt was cut off."""
        return self._writer.do(
            lambda tx: changes.interrupt(tx, self._leases, task_id, fence, reason, count_attempt)
        )

    def cancel(self, principal: Principal, task_id: str) -> Future[Cancelled | None]:
        """Cancel a waiting task, or ask for a running one to be cancelled."""
        return self._writer.do(lambda tx: changes.cancel(tx, principal, task_id))

    def retry(
        self, principal: Principal, task_id: str, max_attempts: int | None = None
    ) -> Future[Changed | None]:
        """Have a task tried anew."""
        return self._writer.do(lambda tx: managing.retry(tx, principal, task_id, max_attempts))

    def retry_many(
        self, principal: Principal, task_ids: Sequence[str], max_attempts: int | None = None
    ) -> Future[list[Changed | None]]:
        """Have tasks tried anew."""
        ids = tuple(task_ids)
        return self._writer.do(
            lambda tx: [managing.retry(tx, principal, id_, max_attempts) for id_ in ids]
        )

    def resolve(
        self, principal: Principal, task_id: str, resolution: Resolution, note: str
    ) -> Future[Changed | None]:
        """Record what a person found out about an uncertain task."""
        return self._writer.do(
            lambda tx: managing.resolve(tx, principal, task_id, resolution, note)
        )

    def prioritise(
        self, principal: Principal, task_id: str, priority: int
    ) -> Future[Changed | None]:
        """Give a task another priority."""
        return self._writer.do(lambda tx: managing.prioritise(tx, principal, task_id, priority))

    def pause(self, principal: Principal, queue: str, reason: str) -> Future[QueueChanged]:
        """Start nothing more of one queue of the principal."""
        return self._writer.do(lambda tx: managing.pause(tx, principal, queue, shorten(reason)))

    def resume(self, principal: Principal, queue: str) -> Future[QueueChanged]:
        """End the pause of a queue."""
        return self._writer.do(lambda tx: managing.resume(tx, principal, queue))

    def clear(
        self, principal: Principal, queue: str, *, recurring: bool = False
    ) -> Future[QueueChanged]:
        """Cancel what waits in one queue of the principal."""
        return self._writer.do(lambda tx: managing.clear(tx, principal, queue, recurring))

    def register(self, worker: Worker, most_slots: int) -> Future[Worker]:
        """Keep a worker."""
        return self._writer.do(lambda tx: workers.register(tx, worker, most_slots))

    def unregister(self, principal: Principal, name: str) -> Future[Worker | None]:
        """Forget a worker."""
        return self._writer.do(lambda tx: workers.unregister(tx, principal, name))

    def recover(self, owner: str) -> Future[Swept]:
        """Take over what every other owner left running."""
        return self._writer.do(lambda tx: sweeping.recover(tx, self._leases, owner))

    def sweep(self) -> Future[Swept]:
        """Make due tasks ready, interrupt those whose lease has run out, purge old ones."""
        freed: list[str] = []
        swept = self._writer.do(lambda tx: sweeping.sweep(tx, self._leases, self._retention, freed))
        return self._results.forget(swept, freed)

    # --- look-ups ---------------------------------------------------------------------------------

    def get(
        self,
        principal: Principal,
        task_id: str,
        *,
        payload: bool = False,
        events: int = 0,
        logs: int = 0,
        largest: int | None = None,
        failures: bool = False,
    ) -> Future[Snapshot | None]:
        """Look one task up."""
        found = self._reader.do(
            lambda connection: queries.get(
                connection,
                principal,
                task_id,
                payload,
                events,
                failures,
                self._ledger,
                self._steady(),
                largest,
                logs,
            )
        )
        return self._results.fill(found, largest) if payload else found

    def read_result(
        self, principal: Principal, task_id: str, offset: int, length: int
    ) -> Future[ResultPart | None]:
        """Read a part of the JSON text of a result."""
        return self._results.part(principal, task_id, offset, length)

    def _steady(self) -> float:
        return self._monotonic() + self._ledger.offset

    def find_key(self, principal: Principal, key: str) -> Future[str | None]:
        """Return the id of the principal's task with that idempotency key."""
        return self._reader.do(lambda connection: queries.find_key(connection, principal, key))

    def find(
        self,
        principal: Principal,
        wanted: Filter,
        *,
        cursor: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Future[Page]:
        """List the principal's tasks, newest first."""
        before = queries.place_of(cursor)
        return self._reader.do(
            lambda connection: queries.find(connection, principal, wanted, before, limit, offset)
        )

    def count(self, principal: Principal, wanted: Filter) -> Future[int]:
        """Count the tasks that `find` would list."""
        return self._reader.do(lambda connection: queries.count(connection, principal, wanted))

    def export(
        self,
        principal: Principal | None,
        wanted: Filter,
        *,
        cursor: str | None = None,
        size: int = 1024 * 1024,
    ) -> Future[Exported]:
        """Read tasks with everything about them, oldest first."""
        after = queries.place_of(cursor, 0)
        page = self._reader.do(
            lambda connection: exporting.read(connection, principal, wanted, after, size)
        )
        return self._results.fill_all(page)

    def activity(self, principal: Principal, seconds: float) -> Future[Activity]:
        """Say what the principal's tasks were like that ended in the last seconds."""
        return self._reader.do(
            lambda connection: queries.activity(connection, principal, self._clock() - seconds)
        )

    def pauses(self, principal: Principal) -> Future[list[Pause]]:
        """Return the principal's paused queues."""
        return self._reader.do(lambda connection: queries.pauses(connection, principal))

    def workers(self) -> Future[list[Worker]]:
        """Return the kept workers of everybody."""
        return self._reader.do(workers.read)

    def tally(self, principal: Principal) -> Future[dict[str, dict[TaskState, int]]]:
        """Count the principal's tasks by worker and state."""
        return self._reader.do(lambda connection: queries.tally(connection, principal))

    def stats(self, principal: Principal) -> Future[list[QueueStats]]:
        """Count the principal's tasks, per queue."""
        return self._reader.do(
            lambda connection: queries.stats(connection, principal, self._ledger)
        )

    def next_due(self) -> Future[float | None]:
        """Return the seconds until the next scheduled task is due, or a rate lets one start."""
        return self._reader.do(
            lambda connection: queries.next_due(
                connection, self._clock(), self._ledger.lanes.opening - self._steady()
            )
        )

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

    # --- keeping ----------------------------------------------------------------------------------

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

    # --- the end ----------------------------------------------------------------------------------

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
