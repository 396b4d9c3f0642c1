"""`Writer`: the thread that commits changes, in groups.

An fsync costs as much as a hundred statements, so changes that arrive while one commit is on its
way to the disk share the next one. The more callers there are, the more changes share a commit; a
single caller waits for nobody.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from queue import Empty
from typing import Any, Generic, NamedTuple, TypeVar

from mcpd_task_queue.errors import StoreBroken, StoreClosed, StoreError
from mcpd_task_queue.records import Change, Task

from .connection import connect_reader, in_words
from .connection_thread import ConnectionThread, Item
from .ledger import Ledger
from .log import LARGEST_LOG, Log
from .measures import Measures
from .orders import Order, Orders
from .transaction import Transaction

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Done(NamedTuple):
    """What became of a batch, as soon as it is committed.

    :ivar answers: of each operation, and how it failed.
    :ivar filled: the orders that were looked for, with what each of them is given.
    :ivar unfilled: why none was.
    """

    answers: Sequence[tuple[Future[Any], Any, Exception | None]]
    filled: Sequence[tuple[Order, Sequence[Task]]]
    unfilled: Exception | None


class Apart(Generic[T]):
    """What the writer does with its connection between two commits, outside any transaction."""

    def __init__(self, function: Callable[[sqlite3.Connection], T]) -> None:
        self.function = function

    def __call__(self, _: Transaction) -> T:
        raise AssertionError("the writer takes these out of the batch")


class Ahead:
    """What is done with the orders before the next transaction; see `Writer.tell_orders`."""

    def __init__(self, function: Callable[[Orders], None]) -> None:
        self.function = function

    def __call__(self, _: Transaction) -> None:
        raise AssertionError("the writer takes these out of the batch")


class Writer(ConnectionThread[Transaction]):
    """Runs changes, a group of them per commit, and answers after the commit.

    One operation that fails is undone alone; a commit that fails undoes, and fails, all of them.
    For the former, operations of a group may be called a second time after everything that they did
    to the transaction was undone; what else they do must bear that.

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
        self._orders = Orders()
        super().__init__(path, connection, "mcpd-task-store")

    def between(self, function: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Have something done with the writer's connection between two commits.

        :param function: leaves no transaction open. What takes long calls `serve` now and then.
        """
        return self.do(Apart(function))

    def tell_orders(self, function: Callable[[Orders], None]) -> None:
        """Have the standing orders changed, ahead of the changes that share a batch with this.

        :raises StoreClosed: when it is too late for that.
        """
        self.tell(Ahead(function))

    def ask_orders(self, function: Callable[[Orders], None]) -> Future[None]:
        """Do what `tell_orders` does.

        :returns: resolved after the commit of that batch.
        """
        return self.do(Ahead(function))

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

    def _work(self, batch: Sequence[Item[Transaction]]) -> None:
        changes, ahead, apart = [], [], []
        for operation, future in batch:
            if future is not None and not future.set_running_or_notify_cancel():
                continue
            if isinstance(operation, Ahead):
                operation.function(self._orders)
                if future is not None:
                    ahead.append(future)
                continue
            assert future is not None
            if isinstance(operation, Apart):
                apart.append((operation, future))
            else:
                changes.append((operation, future))
        if changes or self._orders.unlooked:
            self._change(changes)
        for future in ahead:
            future.set_result(None)
        for operation, future in apart:
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
            self._refuse(self.trouble, live)
            return
        transaction = Transaction(self._connection, self._clock(), self._monotonic(), self._ledger)
        try:
            transaction.full = self.log.before()
            self._connection.execute("BEGIN IMMEDIATE")
            done = self._at_once(live, transaction)
            if done is None:
                transaction = transaction.anew()
                self._connection.execute("BEGIN IMMEDIATE")
                done = self._one_by_one(live, transaction)
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the boundary: nobody may be left waiting
            transaction.undo.back_to(0)
            self._undo_all(error, live)
            return
        answers, filled, unfilled = done
        if transaction.changes or answers or unfilled is not None:
            # A look in vain writes nothing, and so says nothing of the disk.
            failures = (*(failure for _, _, failure in answers), unfilled)
            self.trouble = next((e for e in failures if isinstance(e, StoreError)), None)
        operations = len(answers) + len(filled)
        self.log.after(operations)
        self.commits += 1
        self.measures.committed(
            operations, self._monotonic() - transaction.monotonic, transaction.waits
        )
        self._tell(transaction.changes, filled)
        if unfilled is not None:
            log.error("nothing can be started: %s", unfilled)
            self._orders.failed(unfilled)
        for future, answer, failure in answers:
            if failure is None:
                future.set_result(answer)
            else:
                future.set_exception(failure)

    def _tell(
        self, changes: Sequence[Change], filled: Sequence[tuple[Order, Sequence[Task]]]
    ) -> None:
        """Announce what was committed, and deliver what was started."""
        try:
            self._committed(changes)
        except Exception:
            log.exception("a listener of the task store raised")
        for order, tasks in filled:
            try:
                order.deliver(tasks)
            except Exception:
                log.exception("whoever ordered tasks of the task store raised")

    def _at_once(
        self,
        live: Sequence[tuple[Callable[[Transaction], Any], Future[Any]]],
        transaction: Transaction,
    ) -> _Done | None:
        """Run operations without anything to undo one of them alone by, then fill the orders.

        A savepoint for each makes a submit in a group a sixth dearer, since SQLite copies every
        page that is changed after one; and hardly any operation ever fails.

        :returns: ``None`` when one of them failed, after all were undone: they are to be run again,
            one by one.
        :raises sqlite3.Error: when the disk failed. What failed to be written once is not tried
            again: see `_change`.
        """
        try:
            answers = [(future, operation(transaction), None) for operation, future in live]
            return _Done(answers, self._orders.fill(transaction), None)
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite gave the whole transaction up (out of room, most often)
            if isinstance(error, sqlite3.Error) and isinstance(
                in_words(self._path, error, "making a change"), StoreBroken
            ):
                raise
            transaction.undo.back_to(0)
            self._connection.execute("ROLLBACK")
            return None

    def _one_by_one(
        self,
        live: Sequence[tuple[Callable[[Transaction], Any], Future[Any]]],
        transaction: Transaction,
    ) -> _Done:
        """Do what `_at_once` does, so that each is undone alone if it fails."""
        answers = [(future, *self._attempt(operation, transaction)) for operation, future in live]
        filled, failure = self._attempt(self._orders.fill, transaction)
        return _Done(answers, filled or [], failure)

    def _attempt(
        self, operation: Callable[[Transaction], T], transaction: Transaction
    ) -> tuple[T | None, Exception | None]:
        """Run one operation; when it fails, undo it and let the rest of the batch go on."""
        before = transaction.mark()
        self._connection.execute("SAVEPOINT operation")
        answer: T | None = None
        failure: Exception | None = None
        try:
            answer = operation(transaction)
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite gave the whole transaction up (out of room, most often)
            self._connection.execute("ROLLBACK TO operation")
            transaction.back_to(before)
            failure = error
            if isinstance(error, sqlite3.Error):
                failure = in_words(self._path, error, "making a change")
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
        self._refuse(failure, batch)

    def _refuse(
        self,
        failure: Exception,
        batch: Sequence[tuple[Callable[[Transaction], Any], Future[Any]]],
    ) -> None:
        self._orders.failed(failure)
        for _, future in batch:
            future.set_exception(failure)

    def _leave(self) -> None:
        if isinstance(self.trouble, StoreBroken):
            self._leave_alone()
            return
        self._orders.failed(StoreClosed(f"The task store {self._path} is closed."))
        try:
            # Moves the log into the database and empties it, so that a copy of the one file is a
            # copy of everything.
            self.log.empty()
        finally:
            self._connection.close()

    def _leave_alone(self) -> None:
        """Close without writing or syncing anything more; see `_change` for why."""
        # The last connection that closes moves the log, unless it cannot write.
        with closing(self._connection), closing(connect_reader(self._path)) as last:
            last.execute("SELECT 1 FROM sqlite_schema").fetchall()
            self._connection.close()
