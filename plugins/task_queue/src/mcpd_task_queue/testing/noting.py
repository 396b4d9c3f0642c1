"""Promises of a task store: progress and log lines of running tasks, and how long all is kept."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import Principal, Progress
from mcpd_task_queue.records import LogLine, Note, Recorded, Reported, Snapshot
from mcpd_task_queue.store import TaskStore

from .suite import Clock, New, OpenStore, StoreSuite, claim, ended, look, submit

DAY = 86_400.0


def lines(*numbers: int) -> tuple[LogLine, ...]:
    """Return log lines that can be told apart."""
    return tuple(LogLine(1_000.0 + n, "info", f"line {n}") for n in numbers)


def logs(store: TaskStore, principal: Principal, task_id: str, most: int = 100) -> Snapshot:
    """Return a task with the last of its log lines."""
    snapshot = store.get(principal, task_id, logs=most).result()
    assert snapshot is not None
    return snapshot


def messages(snapshot: Snapshot) -> list[str]:
    return [line.message for line in snapshot.logs]


class Noting(StoreSuite):
    """What running tasks say, and how long all is kept."""

    def test_the_latest_progress_is_kept_with_its_time(
        self, store: TaskStore, new: New, me: Principal, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        assert look(store, me, task_id).task.progress is None
        first = Reported(Progress(1.0, 3.0, "step 1"), clock.wall + 1)
        second = Reported(Progress(2.5, None, "step 2"), clock.wall + 2)
        for reported in (first, second):
            note = Note(task_id, task.fence, reported)
            assert store.note([note]).result() == [Recorded(True, "running")]
            assert look(store, me, task_id).task.progress == reported
        store.note([Note(task_id, task.fence, None, lines(1))]).result()
        assert look(store, me, task_id).task.progress == second

    def test_progress_is_forgotten_when_the_task_is_started_again(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        store.note([Note(task_id, task.fence, Reported(Progress(1, 2), 5.0))]).result()
        store.interrupt(task_id, task.fence, "cut", count_attempt=True).result()
        assert look(store, me, task_id).task.progress == Reported(Progress(1, 2), 5.0)
        store.retry(me, task_id).result()
        claim(store)
        assert look(store, me, task_id).task.progress is None

    def test_log_lines_are_kept_in_order_with_the_attempt_that_wrote_them(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new(repeatable=True))
        (task,) = claim(store)
        store.note([Note(task_id, task.fence, None, lines(1, 2))]).result()
        store.note([Note(task_id, task.fence, None, lines(3))]).result()
        store.interrupt(task_id, task.fence, "cut", count_attempt=True).result()
        (task,) = claim(store)
        store.note([Note(task_id, task.fence, None, lines(4))]).result()
        snapshot = logs(store, me, task_id)
        assert messages(snapshot) == ["line 1", "line 2", "line 3", "line 4"]
        assert [line.attempt for line in snapshot.logs] == [1, 1, 1, 2]
        assert snapshot.logs[0] == LogLine(1_001.0, "info", "line 1", 1)
        assert messages(logs(store, me, task_id, 2)) == ["line 3", "line 4"]
        assert logs(store, me, task_id, 0).logs == ()

    def test_the_last_lines_are_kept_and_all_are_counted(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store(log_lines=3)
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        store.note([Note(task_id, task.fence, None, lines(1, 2))]).result()
        snapshot = logs(store, me, task_id)
        assert (messages(snapshot), snapshot.logged) == (["line 1", "line 2"], 2)
        store.note([Note(task_id, task.fence, None, lines(3, 4))]).result()
        snapshot = logs(store, me, task_id)
        assert (messages(snapshot), snapshot.logged) == (["line 2", "line 3", "line 4"], 4)
        # Some were dropped before they got here.
        store.note([Note(task_id, task.fence, None, lines(100, 101), dropped=95)]).result()
        snapshot = logs(store, me, task_id)
        assert (messages(snapshot), snapshot.logged) == (["line 100", "line 101"], 101)

    def test_who_no_longer_owns_a_task_says_nothing_about_it(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        mine, lost = submit(store, new(), new())
        claim(store, 2)
        notes = [
            Note(lost, 99, Reported(Progress(1), 1.0), lines(1)),
            Note("nothing", 1, None, lines(1)),
            Note(mine, 1, None, lines(2)),
        ]
        assert store.note(notes).result() == [
            Recorded(False, "running"),
            Recorded(False, None),
            Recorded(True, "running"),
        ]
        assert look(store, me, lost).task.progress is None
        assert logs(store, me, lost).logs == ()
        assert messages(logs(store, me, mine)) == ["line 2"]

    def test_odd_texts_are_kept_as_far_as_they_can_be(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        line = LogLine(1.0, "odd \ud800", "x" * 10_000 + "\ud800")
        reported = Reported(Progress(1, None, "\ud800"), 1.0)
        store.note([Note(task_id, task.fence, reported, (line,))]).result()
        (kept,) = logs(store, me, task_id).logs
        assert 100 < len(kept.message) <= 10_000

    # --- how long all is kept ---------------------------------------------------------------------

    @pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "dead"])
    def test_how_long_a_task_is_kept_depends_on_how_it_ended(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock, state: Any
    ) -> None:
        store = open_store(retention=DAY, retention_of={state: 3 * DAY, "running": 0.0})
        others = [s for s in ("succeeded", "failed", "cancelled", "dead") if s != state]
        kept = ended(store, new(), state)
        gone = [ended(store, new(), other) for other in others]
        forever = [ended(store, new(), other) for other in ("uncertain", "running")]
        clock.advance(DAY + 1)
        assert store.sweep().result().purged == 3
        assert [store.get(me, task_id).result() for task_id in gone] == [None] * 3
        assert look(store, me, kept).task.state == state
        clock.advance(2 * DAY)
        assert store.sweep().result().purged == 1
        assert store.get(me, kept).result() is None
        clock.advance(365 * DAY)
        assert store.sweep().result().purged == 0
        assert look(store, me, forever[0]).task.state == "uncertain"

    def test_many_are_removed_a_few_at_a_time(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(retention=DAY)
        ids = submit(store, *(new() for _ in range(600)))
        for future in [store.cancel(me, task_id) for task_id in ids]:
            future.result()
        clock.advance(DAY + 1)
        purged = []
        while True:
            swept = store.sweep().result()
            purged.append(swept.purged)
            if not swept.more:
                break
        assert sum(purged) == 600
        assert max(purged) < 600
        assert sum(store.health().counts.values()) == 0
