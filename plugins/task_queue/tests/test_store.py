"""The embedded engine keeps the promises of the `TaskStore` protocol, and says why it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.errors import StoreClosed, TaskRefused
from mcpd_task_queue.records import Filter, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.testing import New, TaskStoreConformance


class TestTheEmbeddedEngine(TaskStoreConformance):
    """The fixture ``open_store`` of this folder opens it."""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"a": "x" * 2_000}, "The arguments take 2,008 bytes as JSON; a task may have 1,024"),
        ({"a": float("nan")}, "arguments cannot be stored as JSON"),
        ({"a": {1, 2}}, "arguments cannot be stored as JSON"),
        ({"a": "\ud800"}, "arguments cannot be stored as JSON"),
    ],
)
def test_arguments_that_cannot_be_stored_are_named(
    open_store: Callable[..., SQLiteTaskStore], new: New, arguments: Any, complaint: str
) -> None:
    with pytest.raises(TaskRefused, match=complaint):
        open_store(largest_arguments=1_024).submit([new(arguments=arguments)])


def test_refusals_say_why(store: SQLiteTaskStore, me: Principal) -> None:
    with pytest.raises(TaskRefused, match="result cannot be stored as JSON"):
        store.complete("task", 1, CallResult("", {"x": object()}))
    with pytest.raises(TaskRefused, match="'x' is not a cursor"):
        store.find(me, Filter(), cursor="x")
    store.register(Worker("w", me, ("a",), (), 4), 5).result()
    with pytest.raises(TaskRefused, match="may have 5 together, and 4 are taken"):
        store.register(Worker("v", me, ("a",), (), 2), 5).result()
    store.close().result()
    with pytest.raises(StoreClosed, match="is closed"):
        store.stats(me).result()
