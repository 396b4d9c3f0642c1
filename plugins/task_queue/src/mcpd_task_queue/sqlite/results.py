"""`Results`: small results are in their rows, large ones are files beside the database.

What a call with a small result costs is what it cost without this: the same statements on the same
thread. A large one is encoded, written and synced on a thread of the blobs before the writer hears
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar

from mcpd_core import CallResult, Principal
from mcpd_task_queue.blobs import BlobStore
from mcpd_task_queue.errors import StoreError, TaskRefused
from mcpd_task_queue.keeping import Blob, BlobKeeper
from mcpd_task_queue.records import Exported, LargeResult, Recorded, ResultPart, Snapshot

from . import queries
from .reader import Reader
from .rows import result_from, result_text

T = TypeVar("T")


class Results:
    """Where the results of tasks are kept.

    :param folder: of the large ones.
    :param inline: bytes of JSON up to which a result is in its row.
    :param largest: bytes of JSON that a result may take at all.
    """

    def __init__(self, folder: Path, reader: Reader, inline: int, largest: int) -> None:
        self._reader = reader
        self._inline = inline
        self._largest = largest
        self._keeper = BlobKeeper(BlobStore(folder), self._in_use)
        if folder.exists():
            self._keeper.sweep()

    def _in_use(self, names: Sequence[str]) -> set[str]:
        return self._reader.do(partial(queries.blobs_in_use, names=names)).result()

    @property
    def trouble(self) -> StoreError | None:
        """Why the latest large result could not be stored; ``None`` when it was."""
        return self._keeper.trouble

    def complete(
        self, result: CallResult, record: Callable[[str | Blob], Future[Recorded]]
    ) -> Future[Recorded]:
        """Have a success recorded.

        :param record: asks for the commit, with the JSON of the result or the file that has it.
        :raises TaskRefused: at once or by the future, when it is not JSON or is too large.
        """
        text: str | None = None
        if len(result.text) <= self._inline:
            text = self._checked(result)
            if len(text) <= self._inline:
                return record(text)

        def encode() -> bytes:
            return (self._checked(result) if text is None else text).encode("ascii")

        # The answer of an attempt that is too late, or of a task that was to be cancelled, is not.
        return self._keeper.put(encode, record, lambda done: done == Recorded(True, "succeeded"))

    def _checked(self, result: CallResult) -> str:
        text = result_text(result)
        if len(text) > self._largest:
            raise TaskRefused(
                f"The tool answered, but its result takes {len(text):,} bytes as JSON; the result "
                f"of a task may have {self._largest:,}.",
                hint="Have the tool answer less, or store the data elsewhere and answer where; or "
                "have the owner of this server raise `largest_result` of [task_queue].",
            )
        return text

    def fill(self, found: Future[Snapshot | None], largest: int | None) -> Future[Snapshot | None]:
        """Read the result of a task that was looked up, if it is a file and no larger than that."""

        def step(snapshot: Snapshot | None) -> Future[Snapshot | None] | None:
            large = None if snapshot is None else snapshot.task.large
            if snapshot is None or large is None or (largest is not None and large.size > largest):
                return None
            return self._keeper.run(lambda: self._filled(snapshot, large))

        return _then(found, step)

    def _filled(self, snapshot: Snapshot, large: LargeResult) -> Snapshot:
        text = self._keeper.blobs.read(large.sha256).decode("ascii")
        return snapshot._replace(task=snapshot.task._replace(result=result_from(text), large=None))

    def fill_all(self, found: Future[Exported]) -> Future[Exported]:
        """Read the results of tasks of a page that are files; what is damaged is told."""

        def step(page: Exported) -> Future[Exported] | None:
            if all(snapshot.task.large is None for snapshot in page.snapshots):
                return None
            return self._keeper.run(lambda: self._all_filled(page))

        return _then(found, step)

    def _all_filled(self, page: Exported) -> Exported:
        snapshots, problems = [], {}
        for snapshot in page.snapshots:
            if snapshot.task.large is not None:
                try:
                    snapshot = self._filled(snapshot, snapshot.task.large)
                except StoreError as error:
                    problems[snapshot.task.id] = error.message
            snapshots.append(snapshot)
        return page._replace(snapshots=tuple(snapshots), problems=problems)

    def part(
        self, principal: Principal, task_id: str, offset: int, length: int
    ) -> Future[ResultPart | None]:
        """Read a part of the JSON of a result."""

        def step(part: ResultPart | None) -> Future[ResultPart | None] | None:
            if part is None or part.text or not length or offset >= part.whole.size:
                return None
            return self._keeper.run(lambda: self._read(part, length))

        found = self._reader.do(
            lambda connection: queries.read_result(connection, principal, task_id, offset, length)
        )
        return _then(found, step)

    def _read(self, part: ResultPart, length: int) -> ResultPart:
        text = self._keeper.blobs.read(part.whole.sha256, part.offset, length)
        return part._replace(text=text.decode("ascii"))

    def forget(self, change: Future[T], names: Sequence[str]) -> Future[T]:
        """Have files removed after a change, as far as no task refers to them any more.

        :param names: filled by the change.
        """

        def step(_: T) -> None:
            if names:
                self._keeper.collect(names)

        return _then(change, step)

    def keeping_all(self) -> AbstractContextManager[None]:
        """Remove no file for as long as this is entered."""
        return self._keeper.keeping_all()

    def close(self) -> Future[None]:
        """Finish what was asked for, refuse the rest; to be closed before reader and writer."""
        return self._keeper.close()


def _then(future: Future[T], step: Callable[[T], Future[T] | None]) -> Future[T]:
    """Go on with what a future has come to; ``None`` leaves it at that."""
    answer: Future[T] = Future()

    def settle(done: Future[T]) -> None:
        error = done.exception()
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())

    def proceed(done: Future[T]) -> None:
        following = None if done.exception() is not None else step(done.result())
        if following is None:
            settle(done)
        else:
            following.add_done_callback(settle)

    future.add_done_callback(proceed)
    return answer
