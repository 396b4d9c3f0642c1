"""What the suites of a task store's promises share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import pytest

from mcpd_core import CallResult, Principal
from mcpd_task_queue.capabilities import Capabilities
from mcpd_task_queue.records import NewTask, Snapshot, Task, Worker
from mcpd_task_queue.store import TaskStore

#: Opens the store of the test, anew after it was closed, or another one by its name. Takes
#: ``retention`` and ``ageing`` in seconds, ``retention_of`` with seconds by state,
#: ``largest_arguments`` and ``largest_result`` in bytes, and ``log_lines``, a number.
OpenStore: TypeAlias = Callable[..., TaskStore]
#: Makes a `NewTask` of which only what matters is said.
New: TypeAlias = Callable[..., NewTask]

#: Somebody else than the one whose tasks a test is about.
OTHER = Principal("local", "1001")


class Clock:
    """Two clocks under the test's control: one that anybody can set, one that nobody can.

    :ivar wall: seconds since 1970, for what `time.time` is asked for.
    :ivar steady: seconds, for what `time.monotonic` is asked for.
    """

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


class StoreSuite:
    """The fixtures of the suites; a subclass defines ``open_store``, of the type `OpenStore`."""

    #: The record of each engine, by the class that tests it: asked for once.
    _records: ClassVar[dict[type, Capabilities]] = {}

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def me(self) -> Principal:
        return Principal("local", "1000", "ada")

    @pytest.fixture
    def store(self, open_store: OpenStore, capabilities: Capabilities) -> TaskStore:
        # After its record was looked up: a store can be open once.
        return open_store()

    @pytest.fixture
    def capabilities(self, open_store: OpenStore) -> Capabilities:
        """What the engine says of itself."""
        if type(self) not in self._records:
            store = open_store()
            self._records[type(self)] = store.capabilities
            store.close().result()
        return self._records[type(self)]

    @pytest.fixture
    def new(self, me: Principal, capabilities: Capabilities) -> New:
        """Make tasks; a test that needs one which the engine says it cannot keep is skipped."""

        def make(tool: str = "add", **options: Any) -> NewTask:
            options.setdefault("arguments", {"a": 1})
            options.setdefault("principal", me)
            task = NewTask(tool=tool, **options)
            if lacking := capabilities.lacking(task):
                pytest.skip(f"the engine {capabilities.engine} says that it has no {lacking}")
            return task

        return make


def submit(store: TaskStore, *tasks: NewTask) -> list[str]:
    """Submit tasks and return their ids."""
    return [submitted.task_id for submitted in store.submit(tasks).result()]


def claim(
    store: TaskStore, limit: int = 1, worker: Worker | None = None, *, lease: float = 30.0
) -> list[Task]:
    """Claim tasks as some owner, perhaps for a registered worker."""
    return store.claim("owner:1", limit, lease, worker).result()


def look(store: TaskStore, principal: Principal, task_id: str) -> Snapshot:
    """Return everything that is known of a task that exists."""
    snapshot = store.get(principal, task_id, payload=True, events=100, failures=True).result()
    assert snapshot is not None
    return snapshot


def kinds(snapshot: Snapshot) -> list[str]:
    """Return what happened to a task, in order."""
    return [event.kind for event in snapshot.events]


def ended(store: TaskStore, task: NewTask, state: str) -> str:
    """Submit a task and bring it into a state."""
    (task_id,) = submit(store, task)
    if state == "cancelled":
        store.cancel(task.principal, task_id).result()
        return task_id
    (started,) = claim(store)
    assert started.id == task_id
    if state == "succeeded":
        store.complete(task_id, started.fence, CallResult("done")).result()
    elif state == "uncertain":
        store.interrupt(task_id, started.fence, "cut", count_attempt=True).result()
    elif state != "running":
        verdict: Any = state
        store.fail(task_id, started.fence, {"message": "no"}, verdict).result()
    return task_id
