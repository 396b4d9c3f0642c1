"""Promises of a task store: that its record of capabilities is true."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.capabilities import Capabilities
from mcpd_task_queue.errors import BackupFailed, TaskRefused
from mcpd_task_queue.metrics import to_json
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.store import TaskStore

from .suite import Clock, New, OpenStore, StoreSuite, claim, look, submit


class Capable(StoreSuite):
    """What the engine says it can do it does; what it says it cannot, it refuses."""

    def test_the_record_stays_the_same_while_tasks_come_and_go(
        self, open_store: OpenStore, new: New
    ) -> None:
        store = open_store()
        before = store.capabilities
        submit(store, new())
        claim(store)
        assert store.capabilities == before
        store.close().result()
        assert store.capabilities == before, "who looks at a closed store is told the same"
        assert open_store().capabilities == before

    @pytest.mark.parametrize(
        "asked",
        [
            {"delivery": "at_least_once"},
            {"delivery": "at_most_once"},
            {"priority": 1},
            {"priority": -1},
            {"delay": 5.0},
            {"run_at": 1_700_000_009.0},
            {"cron": "* * * * *"},
        ],
        ids=lambda asked: next(iter(asked)),
    )
    def test_what_is_asked_for_is_had_or_refused_and_never_left_out(
        self, store: TaskStore, me: Principal, asked: dict[str, Any]
    ) -> None:
        task = NewTask("add", {"a": 1}, me, **asked)
        if store.capabilities.lacking(task):
            with pytest.raises(TaskRefused):
                store.check(task)
            with pytest.raises(TaskRefused):
                store.submit([task._replace(delivery=self._some(store)), task])
            assert sum(store.health().counts.values()) == 0
        else:
            store.check(task)
            assert sum(store.health().counts.values()) == 0, "to check is not to store"
            stored = look(store, me, submit(store, task)[0]).task
            assert (stored.delivery, stored.priority, stored.cron) == (
                task.delivery,
                task.priority,
                task.cron,
            )
            waits = asked.keys() & {"delay", "run_at", "cron"}
            assert stored.state == ("scheduled" if waits else "ready")

    @staticmethod
    def _some(store: TaskStore) -> Any:
        return store.capabilities.delivery[0]

    def test_arguments_may_be_as_large_as_the_record_says_and_no_larger(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store(largest_arguments=2_048)
        limit = store.capabilities.payload_limit
        if limit is None:
            pytest.skip(f"the engine {store.capabilities.engine} says that it has no payload limit")
        # Bytes, not characters: a letter of this kind is two of them.
        room = limit - len(json.dumps({"a": ""}, separators=(",", ":")))
        largest = {"a": "ä" * (room // 2) + "x" * (room % 2)}
        (task_id,) = submit(store, new(arguments=largest))
        assert look(store, me, task_id).task.arguments == largest
        for refuse in (store.check, lambda task: store.submit([task])):
            with pytest.raises(TaskRefused):
                refuse(new(arguments={"a": largest["a"] + "x"}))
        assert sum(store.health().counts.values()) == 1

    def test_results_may_be_as_large_as_the_record_says(
        self, open_store: OpenStore, new: New, me: Principal
    ) -> None:
        store = open_store(largest_result=1024 * 1024)
        limit = store.capabilities.result_limit
        size = 4 * 1024 * 1024 if limit is None else limit - 256
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        result = CallResult("x" * size)
        assert store.complete(task_id, task.fence, result).result().accepted
        assert look(store, me, task_id).task.result == result
        if limit is not None:
            submit(store, new())
            (task,) = claim(store)
            with pytest.raises(TaskRefused):
                store.complete(task.id, task.fence, CallResult("x" * (limit + 1))).result()

    def test_an_idempotency_key_is_known_for_as_long_as_the_record_says(
        self, open_store: OpenStore, new: New, clock: Clock
    ) -> None:
        store = open_store(retention=100)
        window = store.capabilities.dedup_window
        (first,) = submit(store, new(idempotency_key="k"))
        (task,) = claim(store)
        store.complete(first, task.fence, CallResult("")).result()
        clock.advance(99 if window is None else min(window, 99))
        store.sweep().result()
        assert submit(store, new(idempotency_key="k")) == [first]
        if window is None:
            # Once the task is gone, its key is free.
            clock.advance(2)
            assert store.sweep().result().purged == 1
            (again,) = store.submit([new(idempotency_key="k")]).result()
            assert (again.outcome, again.task_id == first) == ("created", False)

    def test_it_is_copied_while_it_is_in_use_if_the_record_says_so(
        self, store: TaskStore, new: New, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        submit(store, new(), new())
        # Not among what belongs to the store itself.
        path = tmp_path_factory.mktemp("copies") / "first"
        if not store.capabilities.backup:
            with pytest.raises(TaskRefused):
                store.backup(path)
            assert not path.exists()
            return
        asked = [store.submit([new()]) for _ in range(20)]
        made = store.backup(path).result()
        assert all(future.result() for future in asked)
        assert (made.path, made.tasks) == (path, 22), "it has what was asked for before it"
        before = sorted(file.stat().st_mtime_ns for file in path.rglob("*"))
        with pytest.raises(BackupFailed):
            store.backup(path).result()
        assert sorted(file.stat().st_mtime_ns for file in path.rglob("*")) == before
        assert [entry.name for entry in path.parent.iterdir()] == ["first"]

    def test_it_can_be_examined_and_measured_while_it_is_in_use(
        self, store: TaskStore, new: New
    ) -> None:
        submit(store, *[new() for _ in range(3)])
        claim(store)
        found = store.examine().result()
        assert all(finding.message and finding.level == "ok" for finding in found)
        metrics = store.metrics()
        assert len({metric.name for metric in metrics}) == len(metrics), "each once"
        assert all(name.startswith("mcpd_tasks_") for name in to_json(metrics))
        assert len(claim(store, 5)) == 2, "neither is in the way"

    def test_no_more_is_said_than_the_protocol_has_operations_for(
        self, capabilities: Capabilities
    ) -> None:
        """The protocol has no operation that would complete one task and release others."""
        assert not capabilities.transactional_graph_advance
