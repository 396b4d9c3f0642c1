"""Promises of a task store: cancelling, looking, keeping and closing."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import StoreClosed, TaskRefused
from mcpd_task_queue.records import (
    Cancelled,
    Change,
    Filter,
    QueueStats,
    Recorded,
    Swept,
    Whose,
)
from mcpd_task_queue.store import TaskStore

from .suite import Clock, New, OpenStore, StoreSuite, claim, kinds, look, submit


class Looking(StoreSuite):
    """Cancelling, looking, keeping and closing."""

    # --- cancelling -------------------------------------------------------------------------------

    @pytest.mark.parametrize("delay", [0, 60])
    def test_a_waiting_task_is_cancelled_at_once(
        self, store: TaskStore, new: New, me: Principal, delay: float, clock: Clock
    ) -> None:
        (task_id,) = submit(store, new(delay=delay))
        assert store.cancel(me, task_id).result() == Cancelled("cancelled", "cancelled")
        assert store.cancel(me, task_id).result() == Cancelled("settled", "cancelled")
        clock.advance(61)
        assert store.sweep().result() == Swept()
        assert claim(store) == []

    def test_a_running_task_that_is_to_be_cancelled_never_succeeds(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        ids = submit(store, *[new() for _ in range(4)])
        tasks = claim(store, 4)
        for task_id in ids:
            for _ in range(2):
                assert store.cancel(me, task_id).result() == Cancelled("cancelling", "running")
        assert look(store, me, ids[0]).task.cancelling
        a, b, c, d = ((task.id, task.fence) for task in tasks)
        for answer in (
            store.complete(*a, CallResult("finished all the same")),
            store.fail(*b, {"message": "failed all the same"}, "retry"),
            store.release(*c, "not started at all"),
            store.interrupt(*d, "it was interrupted", count_attempt=True),
        ):
            assert answer.result() == Recorded(True, "cancelled")
        for task_id in ids:
            snapshot = look(store, me, task_id)
            assert (snapshot.task.state, snapshot.task.result) == ("cancelled", None)
            assert kinds(snapshot) == ["submitted", "started", "cancel_requested", "cancelled"]

    def test_a_task_that_was_being_cancelled_when_its_process_died_is_cancelled(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new(repeatable=True))
        claim(store)
        store.cancel(me, task_id).result()
        assert store.recover("owner:2").result() == Swept(cancelled=1)
        assert look(store, me, task_id).task.state == "cancelled"

    def test_an_uncertain_task_is_not_cancelled(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new())
        claim(store)
        store.recover("owner:2").result()
        assert store.cancel(me, task_id).result() == Cancelled("settled", "uncertain")

    # --- looking ----------------------------------------------------------------------------------

    def test_nobody_sees_or_cancels_the_tasks_of_another(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new())
        for other in (Principal("local", "1001"), Principal("peer", "1000")):
            assert store.get(other, task_id).result() is None
            assert store.cancel(other, task_id).result() is None
            assert store.find(other, Filter()).result().tasks == ()
            assert store.stats(other).result() == []
        assert look(store, me, task_id).task.state == "ready"

    def test_a_list_goes_from_new_to_old_in_pages(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        ids = submit(store, *[new() for _ in range(5)])
        cursor, seen = None, []
        for size in (2, 2, 1):
            page = store.find(me, Filter(), cursor=cursor, limit=2).result()
            assert len(page.tasks) == size
            seen += [task.id for task in page.tasks]
            cursor = page.cursor
            submit(store, new())  # what comes in between shifts nothing
        assert (seen, cursor) == (ids[::-1], None)

    def test_a_list_can_be_narrowed(self, store: TaskStore, new: New, me: Principal) -> None:
        a, b, c = submit(
            store,
            new("one", queue="x", tags=("red", "green")),
            new("two", queue="x", tags=("redder",)),
            new("one", queue="y", delay=5),
        )

        def found(**wanted: Any) -> list[str]:
            return [task.id for task in store.find(me, Filter(**wanted)).result().tasks]

        assert found(tool="one") == [c, a]
        assert found(queue="x") == [b, a]
        assert found(state="scheduled") == [c]
        assert found(tag="red") == [a]
        assert found(tag="red", tool="two") == []

    @pytest.mark.parametrize("cursor", ["", "-1", "1_0", " 7", "x", "1" * 30, "\u0661"])
    def test_what_is_not_a_cursor_is_refused(
        self, store: TaskStore, me: Principal, cursor: str
    ) -> None:
        with pytest.raises(TaskRefused):
            store.find(me, Filter(), cursor=cursor)

    def test_statistics_count_by_queue_and_state(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        submit(store, new(queue="b"), new(queue="a", delay=9), new(queue="a", delay=9))
        claim(store)
        assert store.stats(me).result() == [
            QueueStats("a", {"scheduled": 2}),
            QueueStats("b", {"running": 1}),
        ]

    def test_of_a_long_life_the_first_and_the_latest_events_are_kept(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        (task_id,) = submit(store, new())
        for n in range(150):
            (task,) = claim(store)
            store.release(task_id, task.fence, f"release {n}").result()
        snapshot = store.get(me, task_id, events=1_000).result()
        assert snapshot is not None
        assert len(snapshot.events) == 200
        assert snapshot.events[0].kind == "submitted"
        assert snapshot.events[-1].detail == "release 149"

    # --- keeping and closing ----------------------------------------------------------------------

    def test_finished_tasks_are_purged_after_their_retention_and_uncertain_ones_never(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(retention=100)
        done, parked, waiting = submit(store, new(), new(), new(delay=1_000, idempotency_key="w"))
        first, _ = claim(store, 2, lease=10)
        assert first.id == done
        store.complete(done, first.fence, CallResult("")).result()
        clock.advance(60)
        assert store.sweep().result() == Swept(parked=1)
        clock.advance(60)
        assert store.sweep().result() == Swept(purged=1)
        assert store.get(me, done).result() is None
        assert look(store, me, parked).task.state == "uncertain"
        assert look(store, me, waiting).task.state == "scheduled"
        assert {s: n for s, n in store.health().counts.items() if n} == {
            "scheduled": 1,
            "uncertain": 1,
        }

    def test_a_sweep_does_a_bounded_amount_and_says_that_there_is_more(
        self, store: TaskStore, new: New, clock: Clock
    ) -> None:
        submit(store, *[new(delay=1) for _ in range(1_200)])
        clock.advance(2)
        assert store.sweep().result() == Swept(readied=1_000, more=True)
        assert store.sweep().result() == Swept(readied=200)

    def test_changes_are_announced_once_they_are_committed(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        heard: list[Change] = []
        store.listen(heard.extend)
        (task_id,) = submit(store, new())
        claim(store)
        store.cancel(me, task_id).result()
        assert [(c.task_id, c.before, c.after, c.cancelling) for c in heard] == [
            (task_id, None, "ready", False),
            (task_id, "ready", "running", False),
            (task_id, "running", "running", True),
        ]
        # Whoever passes a change on must not tell the wrong people.
        assert {change.whose for change in heard} == {Whose(me.kind, me.id, "default")}
        store.listen(None)
        submit(store, new())
        assert len(heard) == 3

    def test_everything_is_found_again_after_closing(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store()
        instance = store.instance
        ids = submit(store, *[new() for _ in range(3)])
        closing = store.close()
        assert store.close() is closing
        closing.result()
        with pytest.raises(StoreClosed):
            store.submit([new()]).result()
        with pytest.raises(StoreClosed):
            store.stats(me).result()
        store = open_store()
        assert store.instance == instance
        assert store.health().counts["ready"] == 3
        assert [task.id for task in claim(store, 5)] == ids
