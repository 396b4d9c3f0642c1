"""Promises of a task store: results of any size, whole and in parts, until nobody has them."""

from __future__ import annotations

import hashlib
import json

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import Recorded
from mcpd_task_queue.store import TaskStore

from .suite import OTHER, Clock, New, OpenStore, StoreSuite, claim, ended, look, submit

#: Where an engine may begin to keep a result elsewhere, it does so below this many bytes.
LARGE = 200_000


def complete(store: TaskStore, new: New, result: CallResult) -> str:
    """Have a task end with a result."""
    (task_id,) = submit(store, new())
    (task,) = claim(store)
    assert store.complete(task_id, task.fence, result).result(30) == Recorded(True, "succeeded")
    return task_id


class Results(StoreSuite):
    """Results of any size, whole and in parts."""

    @pytest.mark.parametrize(
        "result",
        [
            CallResult("x" * LARGE),
            CallResult("é" * LARGE),
            CallResult("", {"rows": [{"n": n} for n in range(LARGE // 10)]}),
            CallResult("in words", {"x": "y" * LARGE}),
            CallResult("a picture", content=({"type": "image", "data": "A" * LARGE},)),
        ],
        ids=["text", "not ascii", "data", "data and other text", "blocks"],
    )
    def test_a_large_result_is_kept_like_a_small_one(
        self, open_store: OpenStore, new: New, me: Principal, result: CallResult
    ) -> None:
        store = open_store()
        task_id = complete(store, new, result)
        assert look(store, me, task_id).task.result == result
        store.close().result()
        assert look(open_store(), me, task_id).task.result == result

    @pytest.mark.parametrize("size", [10, LARGE])
    def test_a_result_can_be_read_in_parts(
        self, store: TaskStore, new: New, me: Principal, size: int
    ) -> None:
        task_id = complete(store, new, CallResult('"quoted" é' * (size // 10)))
        parts, offset = [], 0
        while True:
            part = store.read_result(me, task_id, offset, size // 3).result()
            assert part is not None
            assert part.offset == offset
            if not part.text:
                break
            assert len(part.text) <= size // 3
            parts.append(part.text)
            offset += len(part.text)
        text = "".join(parts)
        assert json.loads(text)["text"] == '"quoted" é' * (size // 10)
        assert text.isascii()
        assert part.whole.size == offset == len(text)
        assert part.whole.sha256 == hashlib.sha256(text.encode()).hexdigest()

    @pytest.mark.parametrize("size", [10, LARGE])
    def test_of_a_result_that_is_larger_than_asked_for_the_size_is_said(
        self, store: TaskStore, new: New, me: Principal, size: int
    ) -> None:
        task_id = complete(store, new, CallResult("x" * size))
        snapshot = store.get(me, task_id, payload=True, largest=size).result()
        assert snapshot is not None
        part = store.read_result(me, task_id, 0, 1).result()
        assert part is not None
        assert (snapshot.task.result, snapshot.task.large) == (None, part.whole)
        snapshot = store.get(me, task_id, payload=True, largest=part.whole.size).result()
        assert snapshot is not None
        assert snapshot.task.result == CallResult("x" * size)

    def test_there_is_no_part_of_what_is_not_there(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        assert store.read_result(me, "nothing", 0, 10).result() is None
        for state in ("running", "failed"):
            assert store.read_result(me, ended(store, new(), state), 0, 10).result() is None
        task_id = complete(store, new, CallResult("x" * LARGE))
        assert store.read_result(OTHER, task_id, 0, 10).result() is None

    @pytest.mark.parametrize("text", ["x" * 2_000, "\x01" * 500])
    def test_a_result_that_is_too_large_is_refused_with_its_size_and_the_limit(
        self, open_store: OpenStore, new: New, me: Principal, text: str
    ) -> None:
        store = open_store(largest_result=1_024)
        (task_id,) = submit(store, new())
        (task,) = claim(store)
        with pytest.raises(TaskRefused, match=r"takes [23],0\d\d bytes .* may have 1,024"):
            store.complete(task_id, task.fence, CallResult(text)).result()
        assert look(store, me, task_id).task.state == "running"

    def test_an_outcome_that_does_not_count_leaves_no_result(
        self, store: TaskStore, new: New, me: Principal
    ) -> None:
        large = CallResult("x" * LARGE)
        task_id = ended(store, new(), "running")
        assert not store.complete(task_id, 99, large).result(30).accepted
        store.cancel(me, task_id).result()
        assert store.complete(task_id, 1, large).result(30) == Recorded(True, "cancelled")
        assert look(store, me, task_id).task.result is None
        assert store.read_result(me, task_id, 0, 10).result() is None

    def test_two_tasks_with_the_same_result_each_keep_it_for_as_long_as_they_are_kept(
        self, open_store: OpenStore, new: New, me: Principal, clock: Clock
    ) -> None:
        store = open_store(retention=100.0)
        result = CallResult("x" * LARGE)
        first = complete(store, new, result)
        clock.advance(60)
        second = complete(store, new, result)
        clock.advance(60)
        assert store.sweep().result().purged == 1
        assert store.get(me, first).result() is None
        assert look(store, me, second).task.result == result
        clock.advance(60)
        assert store.sweep().result().purged == 1
        # A later one with the same result has it, whatever became of the former two.
        third = complete(store, new, result)
        assert look(store, me, third).task.result == result
