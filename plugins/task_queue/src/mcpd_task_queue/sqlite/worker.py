"""Two threads: `Writer`, which commits changes in groups, and `Reader`, which looks things up.

An fsync costs as much as a hundred statements, so changes that arrive while one commit is on its
way to the disk share the next one. The more callers there are, the more changes share a commit; a
single caller waits for nobody.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from mcpd_task_queue.errors import (
    LookUpTooSlow,
    StoreBroken,
    StoreClosed,
    StoreError,
    StoreFull,
)
from mcpd_task_queue.records import Change, Offered, TaskState, Whose

from .connection import connect_reader, in_words
from .ledger import Ledger
from .log import LARGEST_LOG, Log
from .measures import Measures
from .undo import UndoLog

log = logging.getLogger(__name__)

T = TypeVar("T")
C = TypeVar("C")

#: Operations that share a commit at most; it bounds how long the first one waits for the last.
LARGEST_BATCH = 512
#: Seconds that a look-up may take, and how many of SQLite's instructions it does between two looks
#: at the time: about a millisecond of them.
LONGEST_LOOK_UP = 10.0
INSTRUCTIONS = 20_000


class Transaction:
    """The open transaction that an operation works in.

    :ivar now: seconds since the epoch, the same for the whole batch.
    :ivar monotonic: the same instant on a clock that nobody can set.
    :ivar ledger: what the writer's thread remembers; change it through ``undo`` only.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: float,
        monotonic: float,
        ledger: Ledger,
    ) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.now = now
        self.monotonic = monotonic
        self.ledger = ledger
        self.undo = UndoLog()
        self.changes: list[Change] = []
        #: How long each task that was started had been ready, in seconds.
        self.waits: list[float] = []
        #: Why there is room only for what becomes of tasks that are there already, if so.
        self.full: StoreFull | None = None

    @property
    def steady(self) -> float:
        """Seconds since the epoch as far as the start of the store knew; nobody can set it."""
        return self.monotonic + self.ledger.offset

    def expect_room(self) -> None:
        """Refuse what brings new tasks while there is room only for what becomes of the old.

        :raises StoreFull: saying why.
        """
        if self.full is not None:
            raise self.full

    def note(
        self,
        task_id: str,
        before: TaskState | None,
        after: TaskState | None,
        *,
        whose: Whose,
        cancelling: bool = False,
        offered: Offered | None = None,
        timed: bool = False,
        opens: bool = False,
    ) -> None:
        """Remember a change, to be announced when it is committed."""
        change = Change(task_id, before, after, cancelling, offered, whose, timed, opens)
        self.changes.append(change)


class Apart(Generic[T]):
    """What the writer does with its connection between two commits, outside any transaction."""

    def __init__(self, function: Callable[[sqlite3.Connection], T]) -> None:
        self.function = function

    def __call__(self, _: Transaction) -> T:
        raise AssertionError("the writer takes these out of the batch")


class _Worker(Generic[C]):
    """A thread with a queue of operations, each with the future that its caller waits for."""

    def __init__(self, path: Path, connection: sqlite3.Connection, name: str) -> None:
        self._path = path
        self._connection = connection
        self._queue: SimpleQueue[tuple[Callable[[C], Any], Future[Any]] | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed: Future[None] | None = None
        self._ended = False
        # A daemon thread: a process that is told to die does not wait for a slow disk. What was not
        # committed was not acknowledged either.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, operation: Callable[[C], T]) -> Future[T]:
        """Have an operation done; it is called with what this worker's operations work on."""
        future: Future[T] = Future()
        with self._gate:
            if self._closed is None:
                self._queue.put((operation, future))
                return future
        future.set_exception(StoreClosed(f"The task store {self._path} is closed."))
        return future

    def close(self) -> Future[None]:
        """Finish what is queued, then close the connection."""
        with self._gate:
            if self._closed is None:
                self._closed = Future()
                self._queue.put(None)
            return self._closed

    def _run(self) -> None:
        while not self._ended:
            try:
                first = self._queue.get(timeout=self._rest())
            except Empty:
                self._rested()
            else:
                self._serve(first)
        try:
            self._leave()
        except sqlite3.Error as error:
            log.warning("%s", in_words(self._path, error, "closing"))
        assert self._closed is not None
        self._closed.set_result(None)

    def _rest(self) -> float | None:
        """Return the seconds without work after which there is something to be done."""
        return None

    def _rested(self) -> None:
        """Do it."""

    def _serve(self, first: tuple[Callable[[C], Any], Future[Any]] | None) -> None:
        """Do an operation, together with those that were queued meanwhile."""
        batch = [first]
        try:
            while len(batch) < LARGEST_BATCH:
                batch.append(self._queue.get_nowait())
        except Empty:
            pass
        # Nothing is queued behind the end mark.
        self._ended = batch[-1] is None
        self._work([item for item in batch if item is not None])

    def _work(self, batch: Sequence[tuple[Callable[[C], Any], Future[Any]]]) -> None:
        raise NotImplementedError

    def _leave(self) -> None:
        self._connection.close()


class Reader(_Worker[sqlite3.Connection]):
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

    def _work(
        self, batch: Sequence[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]]
    ) -> None:
        for query, future in batch:
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


class Writer(_Worker[Transaction]):
    """Runs changes, a group of them per commit, and answers after the commit.

    One operation that fails is undone alone; a commit that fails undoes, and fails, all of them.

    :param clock: returns seconds since the epoch.
    :param monotonic: returns seconds on a clock that nobody can set.
    :param ledger: what operations remember beside the tables.
    :param largest_log: bytes of the write-ahead log beyond which new tasks are refused.
    :param committed: called with the changes of each commit, before any future is resolved.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        ledger: Ledger,
        committed: Callable[[Sequence[Change]], None],
        largest_log: int = LARGEST_LOG,
    ) -> None:
        self.log = Log(path, connection, largest_log)
        self._clock = clock
        self._monotonic = monotonic
        self._ledger = ledger
        self._committed = committed
        #: Why the last batch, or a change in it, could not be stored; ``None`` when all were.
        self.trouble: StoreError | None = None
        self.measures = Measures(path)
        self.commits = 0
        super().__init__(path, connection, "mcpd-task-store")

    def between(self, function: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Have something done with the writer's connection between two commits.

        :param function: leaves no transaction open. What takes long calls `serve` now and then.
        """
        return self.do(Apart(function))

    def serve(self) -> None:
        """Do what was asked for meanwhile; for a function given to `between`.

        :raises StoreClosed: when the store is being closed and the function must end.
        """
        if not self._ended:
            try:
                self._serve(self._queue.get_nowait())
            except Empty:
                pass
        if self._ended:
            raise StoreClosed(f"The task store {self._path} is being closed.")

    def _rest(self) -> float | None:
        return None if isinstance(self.trouble, StoreBroken) else self.log.wait

    def _rested(self) -> None:
        try:
            self.log.rested()
        except sqlite3.Error as error:
            self._fault(in_words(self._path, error, "emptying its log"))

    def _fault(self, failure: StoreError) -> None:
        self.trouble = failure
        log.error("%s", failure)

    def _work(self, batch: Sequence[tuple[Callable[[Transaction], Any], Future[Any]]]) -> None:
        live = [item for item in batch if item[1].set_running_or_notify_cancel()]
        changes = [item for item in live if not isinstance(item[0], Apart)]
        if changes:
            self._change(changes)
        for operation, future in live:
            if isinstance(operation, Apart):
                self._do_apart(operation, future)

    def _do_apart(self, operation: Apart[T], future: Future[T]) -> None:
        if isinstance(self.trouble, StoreBroken):
            future.set_exception(self.trouble)
            return
        try:
            answer = operation.function(self._connection)
        except sqlite3.Error as error:
            future.set_exception(in_words(self._path, error, "looking after it"))
        except Exception as error:  # noqa: BLE001 - the boundary: it belongs to the caller
            future.set_exception(error)
        else:
            future.set_result(answer)

    def _change(self, live: Sequence[tuple[Callable[[Transaction], Any], Future[Any]]]) -> None:
        if isinstance(self.trouble, StoreBroken):
            # After a failed write the kernel may have dropped what it could not write, and a second
            # fsync would call that a success: only replaying the log can tell what is there.
            for _, future in live:
                future.set_exception(self.trouble)
            return
        transaction = Transaction(self._connection, self._clock(), self._monotonic(), self._ledger)
        answers: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            transaction.full = self.log.before()
            self._connection.execute("BEGIN IMMEDIATE")
            alone = len(live) == 1
            for operation, future in live:
                answers.append((future, *self._attempt(operation, transaction, alone)))
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the boundary: nobody may be left waiting
            transaction.undo.back_to(0)
            self._undo_all(error, live)
            return
        self.trouble = next((e for _, _, e in answers if isinstance(e, StoreError)), None)
        self.log.after(len(answers))
        self.commits += 1
        self.measures.committed(
            len(answers), self._monotonic() - transaction.monotonic, transaction.waits
        )
        try:
            self._committed(transaction.changes)
        except Exception:
            log.exception("a listener of the task store raised")
        for future, answer, failure in answers:
            if failure is None:
                future.set_result(answer)
            else:
                future.set_exception(failure)

    def _attempt(
        self, operation: Callable[[Transaction], Any], transaction: Transaction, alone: bool
    ) -> tuple[Any, Exception | None]:
        """Run one operation; when it fails, undo it and let the rest of the batch go on.

        :param alone: there is no rest, so that the whole transaction can be undone.
        """
        noted = len(transaction.changes)
        remembered = transaction.undo.mark()
        if not alone:
            self._connection.execute("SAVEPOINT operation")
        try:
            answer = operation(transaction)
            failure = None
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite gave the whole transaction up (out of room, most often)
            self._connection.execute("ROLLBACK" if alone else "ROLLBACK TO operation")
            del transaction.changes[noted:]
            transaction.undo.back_to(remembered)
            answer = None
            failure = error
            if isinstance(error, sqlite3.Error):
                failure = in_words(self._path, error, "making a change")
        if not alone:
            self._connection.execute("RELEASE operation")
        return answer, failure

    def _undo_all(
        self,
        error: Exception,
        batch: Sequence[tuple[Callable[[Transaction], Any], Future[Any]]],
    ) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("the task store %s could not undo a failed change", self._path)
        failure: Exception = error
        if isinstance(error, sqlite3.Error):
            failure = in_words(self._path, error, "committing a change")
        if isinstance(failure, StoreError):
            self.trouble = failure
        log.error("%s", failure)
        for _, future in batch:
            future.set_exception(failure)

    def _leave(self) -> None:
        if isinstance(self.trouble, StoreBroken):
            self._leave_alone()
            return
        try:
            # Moves the log into the database and empties it, so that a copy of the one file is a
            # copy of everything.
            self.log.empty()
        finally:
            self._connection.close()

    def _leave_alone(self) -> None:
        """Close without writing or syncing anything more; see `_work` for why."""
        # The last connection that closes moves the log, unless it cannot write.
        with closing(self._connection), closing(connect_reader(self._path)) as last:
            last.execute("SELECT 1 FROM sqlite_schema").fetchall()
            self._connection.close()
