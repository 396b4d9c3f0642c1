"""Promises of a task store: everything about many tasks, a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import STATES, Exported, Filter, Snapshot
from mcpd_task_queue.store import TaskStore

from .results import LARGE, complete
from .suite import OTHER, Clock, New, OpenStore, StoreSuite, ended, look, submit


def pages(
    store: TaskStore,
    principal: Principal | None,
    wanted: Filter | None = None,
    *,
    size: int = 1024 * 1024,
    meanwhile: Callable[[], Any] = lambda: None,
) -> list[Exported]:
    """Export to the end.

    :param meanwhile: called between two pages.
    """
    found: list[Exported] = []
    cursor: str | None = None
    while True:
        page = store.export(principal, wanted or Filter(), cursor=cursor, size=size).result(30)
        found.append(page)
        cursor = page.cursor
        if cursor is None:
            return found
        meanwhile()


def exported(*arguments: Any, **options: Any) -> list[Snapshot]:
    """Export to the end; returns the tasks."""
    return [snapshot for page in pages(*arguments, **options) for snapshot in page.snapshots]


class Exporting(StoreSuite):
    """Everything about many tasks."""

    def test_an_export_has_everything_in_the_order_of_submission(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        ids = [
            ended(store, new(arguments={"n": n}), state)
            for n, state in enumerate(("succeeded", "failed", "cancelled", "uncertain"))
        ]
        ids += submit(store, new(arguments={"n": 4}, tags=("x",)), new(arguments={"n": 5}))
        found = exported(store, me)
        assert [snapshot.task.id for snapshot in found] == ids
        for n, snapshot in enumerate(found):
            whole = look(store, me, ids[n])
            assert snapshot.task == whole.task
            assert snapshot.task.arguments == {"n": n}
            assert snapshot.events == whole.events

    def test_an_export_is_of_ones_own_tasks_or_of_everybodys(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        mine, others = submit(store, new(), new(principal=OTHER))
        assert [snapshot.task.id for snapshot in exported(store, me)] == [mine]
        assert [snapshot.task.id for snapshot in exported(store, OTHER)] == [others]
        assert [snapshot.task.id for snapshot in exported(store, None)] == [mine, others]

    def test_an_export_is_of_what_a_list_with_that_filter_has(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        for number, state in enumerate(("succeeded", "failed", "cancelled", "running")):
            ended(store, new(queue=f"q{number % 2}", tags=("odd",) * (number % 2)), state)
        filters = [Filter(state=state) for state in STATES]
        for wanted in (*filters, Filter(queue="q1"), Filter(tag="odd"), Filter(tool="other")):
            listed = store.find(me, wanted).result().tasks
            found = exported(store, me, wanted)
            assert [s.task.id for s in found] == [task.id for task in reversed(listed)]

    def test_a_page_has_no_more_than_was_asked_for_and_one_task_at_least(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        sizes = [10, 5_000, 10, 10, 3_000, 3_000]
        ids = submit(store, *(new(arguments={"a": "x" * size}) for size in sizes))
        found = [
            [snapshot.task.id for snapshot in page.snapshots]
            for page in pages(store, me, size=4_000)
            if page.snapshots
        ]
        assert found == [ids[:1], ids[1:2], ids[2:5], ids[5:]]

    def test_an_export_has_large_results_too(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        results = [CallResult("x" * LARGE), CallResult("", {"small": 1}), CallResult("y" * LARGE)]
        for result in results:
            complete(store, new, result)
        assert [s.task.result for s in exported(store, me, size=1)] == results

    def test_what_comes_during_an_export_is_at_its_end_and_what_goes_is_left_out(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(retention=10)
        first = submit(store, new(), new())
        store.cancel(me, first[1]).result()
        later: list[str] = []

        def meanwhile() -> None:
            if not later:
                clock.advance(11)
                assert store.sweep().result().purged == 1
                later.extend(submit(store, new()))

        found = exported(store, me, size=1, meanwhile=meanwhile)
        assert [snapshot.task.id for snapshot in found] == [first[0], *later]

    def test_many_tasks_are_exported_whole(self, store: TaskStore, new: New, me: Principal) -> None:
        ids = submit(store, *(new(arguments={"n": n}) for n in range(450)))
        assert [snapshot.task.id for snapshot in exported(store, me)] == ids

    @pytest.mark.parametrize("cursor", ["", "x", "-1", "1_0"])
    def test_a_cursor_that_is_none_is_refused(
        self, store: TaskStore, me: Principal, cursor: str
    ) -> None:
        with pytest.raises(TaskRefused):
            store.export(me, Filter(), cursor=cursor)
