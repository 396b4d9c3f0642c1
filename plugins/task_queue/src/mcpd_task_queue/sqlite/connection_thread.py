"""`ConnectionThread`: what `Reader` and `Writer` have in common."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from mcpd_task_queue.errors import StoreClosed

from .connection import in_words

log = logging.getLogger(__name__)

T = TypeVar("T")
C = TypeVar("C")
#: An operation with the future that its caller waits for, if anybody does.
Item: TypeAlias = "tuple[Callable[[C], Any], Future[Any] | None]"

#: Operations that are taken from the queue together at most; it bounds how long the first one waits
#: for the last.
LARGEST_BATCH = 512


class ConnectionThread(Generic[C]):
    """A connection on a thread of its own, with a queue of operations.

    Each operation comes with the future that its caller waits for.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, name: str) -> None:
        self._path = path
        self._connection = connection
        self._queue: SimpleQueue[Item[C] | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed: Future[None] | None = None
        self._ended = False
        # A daemon thread: a process that is told to die does not wait for a slow disk. What was not
        # committed was not acknowledged either.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def tell(self, operation: Callable[[C], None]) -> None:
        """Have an operation done that cannot fail, and of which nobody need hear.

        :raises StoreClosed: when it is too late for that.
        """
        with self._gate:
            if self._closed is not None:
                raise StoreClosed(f"The task store {self._path} is closed.")
            self._queue.put((operation, None))

    def do(self, operation: Callable[[C], T]) -> Future[T]:
        """Have an operation done; it is called with what the operations of this thread work on."""
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

    def _serve(self, first: Item[C] | None) -> None:
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

    def _work(self, batch: Sequence[Item[C]]) -> None:
        raise NotImplementedError

    def _leave(self) -> None:
        self._connection.close()
