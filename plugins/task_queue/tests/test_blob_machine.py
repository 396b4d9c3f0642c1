"""Large results against a simple model: whatever ends, is purged, is read or dies in whatever
order, each task has its result, and there is a file for each that a task has, and no other."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mcpd_core import CallResult, Principal
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore

ME = Principal("local", "1", "me")
RETENTION = 100.0
#: Two large ones, which tasks come to share, and a small one.
RESULTS = ("x" * 900, "y" * 5_000, "small")


class BlobMachine(RuleBasedStateMachine):
    """Ends tasks with results, and has them purged."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mcpd-blobs-"))
        self.now = 1_000_000.0
        #: When each task ended, and its result.
        self.tasks: dict[str, tuple[float, str]] = {}
        self.open()

    def open(self) -> None:
        self.store = SQLiteTaskStore(
            self.folder / "tasks.db",
            durability="normal",
            retention=RETENTION,
            inline_result=100,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def teardown(self) -> None:
        self.store.close().result()
        shutil.rmtree(self.folder)

    def started(self, count: int) -> list[tuple[str, int]]:
        self.store.submit([NewTask("add", {}, ME) for _ in range(count)]).result()
        tasks = self.store.claim("me:1", count, 1e9).result()
        return [(task.id, task.fence) for task in tasks]

    @rule(results=st.lists(st.sampled_from(RESULTS), min_size=1, max_size=4))
    def end(self, results: list[str]) -> None:
        """Several at once, so that the same content is written by two threads."""
        claims = self.started(len(results))
        futures = [
            self.store.complete(*claim, CallResult(result))
            for claim, result in zip(claims, results, strict=True)
        ]
        for (task_id, _), result, future in zip(claims, results, futures, strict=True):
            assert future.result().accepted
            self.tasks[task_id] = (self.now, result)

    @rule(result=st.sampled_from(RESULTS))
    def end_too_late(self, result: str) -> None:
        ((task_id, fence),) = self.started(1)
        assert not self.store.complete(task_id, fence + 1, CallResult(result)).result().accepted
        self.store.fail(task_id, fence, {"message": "no"}, "failed").result()

    @rule(seconds=st.sampled_from([30.0, 60.0, 101.0]), result=st.sampled_from(RESULTS))
    def purge_while_another_ends(self, seconds: float, result: str) -> None:
        ((task_id, fence),) = self.started(1)
        self.now += seconds
        swept = self.store.sweep()
        recorded = self.store.complete(task_id, fence, CallResult(result))
        swept.result()
        assert recorded.result().accepted
        self.tasks = {
            known: (at, kept)
            for known, (at, kept) in self.tasks.items()
            if at + RETENTION >= self.now
        }
        self.tasks[task_id] = (self.now, result)

    @rule(orphan=st.booleans())
    def restart(self, orphan: bool) -> None:
        self.store.close().result()
        if orphan:
            # As a crash between a file and its commit leaves it.
            folder = self.folder / "blobs" / "ab"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ("ab" * 32)).write_text("nobody's")
            (folder / "0123.part").write_text("half")
        self.open()

    def tidied(self) -> None:
        """Wait until no thread of the blobs has anything left to do."""
        both = threading.Barrier(2, timeout=30)
        for waiting in [self.store._results._keeper.run(both.wait) for _ in range(2)]:
            waiting.result()

    @invariant()
    def every_task_has_its_result(self) -> None:
        for task_id, (_, result) in self.tasks.items():
            snapshot = self.store.get(ME, task_id, payload=True).result()
            assert snapshot is not None
            assert snapshot.task.result == CallResult(result)

    @invariant()
    def there_is_a_file_for_each_large_result_and_no_other(self) -> None:
        self.tidied()
        large = {result for _, result in self.tasks.values() if len(result) > 100}
        found = {path.read_text() for path in (self.folder / "blobs").glob("*/*")}
        assert found == {f'{{"text":"{result}"}}' for result in large}


TestBlobMachine = BlobMachine.TestCase
TestBlobMachine.settings = settings(
    max_examples=15,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
pytestmark = pytest.mark.timeout(120)
