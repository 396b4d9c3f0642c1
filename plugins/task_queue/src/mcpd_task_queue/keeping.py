"""`BlobKeeper`: the work of a blob store, on threads of its own, in step with the commits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .blobs import BlobStore, InUse
from .errors import StoreClosed, StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Contents that are written or read at the same time.
THREADS = 2


class Blob(NamedTuple):
    """A content that is on the disk.

    :ivar size: in bytes.
    """

    name: str
    size: int


class BlobKeeper:
    """Writes contents before the commits that refer to them, and removes them after the last one.

    Nothing here blocks its caller. No thread is started before there is something to do.

    :param in_use: see `blobs.InUse`; asked on a thread of the keeper.
    """

    def __init__(self, blobs: BlobStore, in_use: InUse) -> None:
        self.blobs = blobs
        self._in_use = in_use
        self._threads = ThreadPoolExecutor(THREADS, "mcpd-task-blobs")
        self._lock = threading.Lock()
        self._pending = 0
        self._closed: Future[None] | None = None
        #: Why the last content could not be written; ``None`` when it was.
        self.trouble: StoreError | None = None

    def put(
        self,
        encode: Callable[[], bytes],
        refer: Callable[[Blob], Future[T]],
        kept: Callable[[T], bool],
    ) -> Future[T]:
        """Put a content, then have it referred to; the future has what came of that.

        :param encode: makes the content; what it raises fails the future.
        :param refer: asks for the commit that refers to the content.
        :param kept: whether the answer says that the content is referred to.
        """
        answer: Future[T] = Future()
        self._do(answer, partial(self._put, encode, refer, kept, answer))
        return answer

    def _put(
        self,
        encode: Callable[[], bytes],
        refer: Callable[[Blob], Future[T]],
        kept: Callable[[T], bool],
        answer: Future[T],
    ) -> None:
        data = encode()
        try:
            name = self.blobs.put(data)
        except StoreError as error:
            self.trouble = error
            raise
        self.trouble = None

        def referred(future: Future[T]) -> None:
            self.blobs.let_go(name)
            if future.exception() is not None or not kept(future.result()):
                self.collect([name])
            _pass_on(future, answer)

        refer(Blob(name, len(data))).add_done_callback(referred)

    def run(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called on a thread of the keeper."""
        answer: Future[T] = Future()
        self._do(answer, lambda: answer.set_result(function()))
        return answer

    def collect(self, names: Sequence[str]) -> None:
        """Remove those contents, soon, to which nothing refers any more."""
        self._tidy(partial(self.blobs.collect, names))

    @contextmanager
    def keeping_all(self) -> Iterator[None]:
        """Remove nothing for as long as this is entered; what was to be removed is afterwards."""
        spared = set[str]()
        try:
            with self.blobs.keeping_all() as spared:
                yield
        finally:
            if spared:
                self.collect(sorted(spared))

    def sweep(self) -> None:
        """Remove, soon, what a crash left behind."""
        self._tidy(self.blobs.sweep)

    def _tidy(self, remove: Callable[[InUse], int]) -> None:
        def tidy() -> None:
            try:
                remove(self._still_in_use)
            except StoreClosed:
                pass  # the next start finds them
            except (StoreError, OSError) as error:
                log.warning("What no task refers to could not be removed: %s", error)

        self.run(tidy)

    def _still_in_use(self, names: Sequence[str]) -> Any:
        if self._closed is not None:
            raise StoreClosed("The store closes.")
        return self._in_use(names)

    def close(self) -> Future[None]:
        """Finish what was asked for, refuse the rest."""
        with self._lock:
            if self._closed is None:
                self._closed = Future()
                self._threads.shutdown(wait=False)
                if not self._pending:
                    self._closed.set_result(None)
            return self._closed

    def _do(self, answer: Future[T], work: Callable[[], None]) -> None:
        """Do some work that resolves the answer sooner or later, or raises."""

        def attempt() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the boundary: it belongs to the caller
                answer.set_exception(error)

        with self._lock:
            if self._closed is None:
                self._pending += 1
                answer.add_done_callback(self._done)
                self._threads.submit(attempt)
                return
        answer.set_exception(StoreClosed(f"The task store beside {self.blobs.folder} is closed."))

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self._pending -= 1
            closed = self._closed if not self._pending else None
        if closed is not None:
            closed.set_result(None)


def _pass_on(future: Future[T], answer: Future[T]) -> None:
    error = future.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(future.result())
