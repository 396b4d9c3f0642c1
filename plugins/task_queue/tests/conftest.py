"""What the tests of the task queue share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import Principal
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore

OpenStore = Callable[..., SQLiteTaskStore]


class Clock:
    """Two clocks under the test's control: one that anybody can set, one that nobody can."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.steady = 1_000.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.steady += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back, while no time passes."""
        self.wall += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def me() -> Principal:
    return Principal("local", "1000", "ada")


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock) -> Iterator[OpenStore]:
    """Open a store in this test's folder, on the test's clock; it is closed at the end."""
    opened: list[SQLiteTaskStore] = []

    def open_(name: str = "tasks.db", **options: Any) -> SQLiteTaskStore:
        store = SQLiteTaskStore(
            tmp_path / name,
            clock=lambda: clock.wall,
            monotonic=lambda: clock.steady,
            **options,
        )
        opened.append(store)
        return store

    yield open_
    for store in opened:
        store.close().result(10)


@pytest.fixture
def store(open_store: OpenStore) -> SQLiteTaskStore:
    return open_store()


@pytest.fixture
def new(me: Principal) -> Callable[..., NewTask]:
    """Make a `NewTask` of which only what matters is said."""

    def make(tool: str = "add", **options: Any) -> NewTask:
        options.setdefault("arguments", {"a": 1})
        options.setdefault("principal", me)
        return NewTask(tool=tool, **options)

    return make
