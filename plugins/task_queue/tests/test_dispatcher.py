"""The dispatcher where a real host will not go by itself: calls that raise what they should not,
and a store that fails in the middle. The store is the real one, with faults put in its way."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from mcpd_core import (
    CallResult,
    HostClosed,
    McpdError,
    Principal,
    ServiceHost,
    ServiceUnavailable,
)
from mcpd_task_queue import dispatcher as dispatcher_module
from mcpd_task_queue.attempts import Attempt
from mcpd_task_queue.bridge import Bridge
from mcpd_task_queue.errors import StoreBroken, StoreFull
from mcpd_task_queue.queue import TaskQueue
from mcpd_task_queue.records import NewTask, Task
from mcpd_task_queue.retrying import Backoff
from mcpd_task_queue.service import serving
from mcpd_task_queue.settings import TaskQueueSettings
from mcpd_task_queue.sqlite import SQLiteTaskStore, changes
from mcpd_task_queue.sqlite.transaction import Transaction

ME = Principal("local", "1000")
Tool = Callable[..., Awaitable[CallResult]]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "STORE_RETRY", Backoff(0.01, 0.02))


class Faults(SQLiteTaskStore):
    """The real store; operations that were told to fail do so that many times first."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.faults: dict[str, tuple[Exception, int]] = {}
        self.failed: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name in ("faults", "failed"):
            return found
        error, times = self.faults.get(name, (None, 0))
        if error is None or times == 0:
            return found
        self.faults[name] = (error, times - 1)
        self.failed.append(name)

        def fail(*_: Any, **__: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

        return fail


@asynccontextmanager
async def running(
    folder: Path, tools: Mapping[str, Tool], *, wrap: bool = True, **settings: Any
) -> AsyncIterator[tuple[TaskQueue, Faults]]:
    """Serve a store whose tasks call plain functions."""

    async def call(tool: str, arguments: Mapping[str, Any], **_: Any) -> CallResult:
        return await tools[tool](**arguments)

    host = SimpleNamespace(
        call=call, tool=lambda name: None, log=logging.getLogger("test.queue"), followed=False
    )
    host.resource_changed = lambda uri, **_: None
    at_close: list[Callable[[], None]] = []

    def on_closing(callback: Callable[[], None]) -> Callable[[], None]:
        at_close.append(callback)
        return lambda: at_close.remove(callback)

    host.on_closing = on_closing
    store = Faults(folder / "tasks.db")
    bridge = Bridge()
    options = TaskQueueSettings(**{"first_retry": 0.01, **settings})
    try:
        async with serving(store, cast(ServiceHost, host), bridge, options) as queue:
            yield queue, store
    finally:
        with trio.CancelScope(shield=True):
            await bridge.wait(store.close())


class Held:
    """Holds the writer of a store inside a commit, so that what comes next has to queue."""

    def __init__(self, store: SQLiteTaskStore) -> None:
        self._store = store
        self._go = threading.Event()

    async def __aenter__(self) -> None:
        inside = threading.Event()

        def operation(_: Transaction) -> None:
            inside.set()
            assert self._go.wait(20)

        self._store._writer.do(operation)
        await trio.to_thread.run_sync(inside.wait, 20)

    async def __aexit__(self, *exc_info: object) -> None:
        self._go.set()


def an_attempt(queue: TaskQueue, task: Task) -> Attempt:
    dispatcher = queue._dispatcher
    return Attempt(task, dispatcher.crew.built_in, dispatcher.new_notes())


def taken(queue: TaskQueue, store: Faults, lease: float, **options: Any) -> Task:
    """Submit a task and claim it in the dispatcher's name, but without its knowledge."""
    gate = threading.Event()
    # Both are in one batch, and operations come before the orders that wait.
    store._writer.between(lambda _: gate.wait(10))
    submitted = store.submit([NewTask("work", {}, ME, **options)])
    claimed = store.claim(queue._dispatcher._supply._owner, 1, lease)
    gate.set()
    (task,) = claimed.result(10)
    assert [answer.task_id for answer in submitted.result(10)] == [task.id]
    return task


async def submit(queue: TaskQueue, tool: str = "work", **options: Any) -> str:
    task = NewTask(tool, options.pop("arguments", {}), ME, **options)
    return (await queue.submit(task)).task_id


async def ended(queue: TaskQueue, task_id: str) -> Task:
    return (await queue.result(ME, task_id, wait=20)).task


async def done() -> CallResult:
    return CallResult("done")


async def forever() -> CallResult:
    await trio.sleep_forever()
    raise AssertionError


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.002)


# --- calls that raise -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ZeroDivisionError("secret"), "internal", "the call raised ZeroDivisionError"),
        (McpdError("The host is confused."), "error", "The host is confused."),
    ],
)
async def test_a_call_that_raises_is_a_failed_attempt(
    tmp_path: Path, error: Exception, code: str, message: str
) -> None:
    async def work() -> CallResult:
        raise error

    async with running(tmp_path, {"work": work}) as (queue, _):
        task = await ended(queue, await submit(queue, max_attempts=2))
        assert (task.state, task.attempts) == ("dead", 2)
        assert task.error == {"code": code, "message": message}


async def test_a_result_that_cannot_be_stored_fails_the_task(tmp_path: Path) -> None:
    async def work() -> CallResult:
        return CallResult("", {"x": object()})

    async with running(tmp_path, {"work": work}) as (queue, _):
        task = await ended(queue, await submit(queue))
        assert (task.state, task.error and task.error["code"]) == ("failed", "invalid_output")


async def test_a_missing_service_is_waited_for(tmp_path: Path) -> None:
    async def work() -> CallResult:
        raise ServiceUnavailable("The service 'gpu' has been stopped.")

    async with running(tmp_path, {"work": work}) as (queue, _):
        task_id = await submit(queue)
        await eventually(lambda: queue._store.health().counts["scheduled"] == 1)
        task = (await queue.status(ME, task_id)).task
        assert (task.attempts, task.reason) == (0, "The service 'gpu' has been stopped.")


async def test_after_the_host_has_closed_nothing_is_claimed(tmp_path: Path) -> None:
    calls = []

    async def work() -> CallResult:
        calls.append(1)
        raise HostClosed("The server is shutting down.")

    async with running(tmp_path, {"work": work}, workers=1) as (queue, store):
        first, second = await submit(queue), await submit(queue)
        await eventually(lambda: len(calls) == 1 and store.health().counts["ready"] == 2)
        for task_id in (first, second):
            task = (await queue.status(ME, task_id)).task
            assert (task.state, task.attempts) == ("ready", 0)
    assert len(calls) == 1


async def test_what_was_claimed_while_the_closing_began_is_given_back(tmp_path: Path) -> None:
    calls = []

    async def work() -> CallResult:
        calls.append(1)
        return CallResult("")

    async with running(tmp_path, {"work": work}) as (queue, store):
        queue._dispatcher._runner.refused_at_close = True
        queue._dispatcher._supply.withdraw_all()
        task_id = await submit(queue)
        (task,) = store.claim(queue._dispatcher._supply._owner, 1, 30).result(10)
        await queue._dispatcher._attempt(an_attempt(queue, task))
        found = (await queue.status(ME, task_id)).task
        assert (found.state, found.attempts, found.releases) == ("ready", 0, 1)
        assert found.reason == "the server is shutting down"
    assert calls == []


async def test_a_service_that_is_torn_down_from_outside_still_records_what_it_interrupts(
    tmp_path: Path,
) -> None:
    with trio.CancelScope() as outside:
        async with running(tmp_path, {"work": forever}) as (queue, _):
            task_id = await submit(queue, repeatable=True)
            await eventually(lambda: queue.load()["busy"] == 1)
            outside.cancel()
            await trio.sleep_forever()
    async with running(tmp_path, {"work": done}) as (queue, _):
        task = await ended(queue, task_id)
        assert (task.state, task.attempts) == ("succeeded", 1)


async def test_an_attempt_that_is_cancelled_with_its_workers_is_recorded_as_interrupted(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, {"work": forever}) as (queue, store):
        await ended(queue, await submit(queue, "none", max_attempts=1))
        task = taken(queue, store, 30, repeatable=True)
        with trio.CancelScope() as workers:
            workers.cancel()
            await queue._dispatcher._attempt(an_attempt(queue, task))
        found = (await queue.status(ME, task.id)).task
        assert (found.state, found.attempts) == ("ready", 0)
        assert found.reason == "the server was stopped; it is safe to repeat"


async def test_a_task_is_cancelled_although_it_is_still_on_its_way(tmp_path: Path) -> None:
    async with running(tmp_path, {"work": forever, "first": done}) as (queue, store):
        await ended(queue, await submit(queue, "first"))
        task_id = store.submit([NewTask("work", {}, ME)]).result(10)[0].task_id
        # This thread has not been told of its start, and the store has both done by then.
        cancelled = store.cancel(ME, task_id).result(10)
        assert cancelled is not None
        assert cancelled.outcome == "cancelling"
        assert task_id not in queue._dispatcher.attempts
        assert (await ended(queue, task_id)).state == "cancelled"


# --- a store that fails ---------------------------------------------------------------------------


def failing_starts(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> list[int]:
    """Have starts fail that many times; returns a list with an item for each that did."""
    failed: list[int] = []
    claim = changes.claim

    def fail(*arguments: Any) -> list[Task]:
        if len(failed) < times:
            failed.append(1)
            raise error
        return claim(*arguments)

    monkeypatch.setattr(changes, "claim", fail)
    return failed


async def test_a_start_is_tried_again_when_the_store_comes_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, {"work": done}) as (queue, _):
        await ended(queue, await submit(queue))
        # The first submit is run with a start that fails, and then without any.
        failed = failing_starts(monkeypatch, StoreFull("The store is full."), 5)
        assert (await ended(queue, await submit(queue))).state == "succeeded"
        assert len(failed) == 5
    assert "No task can be started: The store is full." in caplog.text


async def test_a_broken_store_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, {"work": done}) as (queue, store):
        await ended(queue, await submit(queue))
        failed = failing_starts(monkeypatch, StoreBroken("The disk failed."), 100)
        task_id = await submit(queue)
        assert failed
        del failed[:]
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(store._writer.trouble, StoreBroken)
        assert (await queue.status(ME, task_id)).task.state == "ready"
        assert failed == []


async def test_an_outcome_is_recorded_once_the_store_comes_round(tmp_path: Path) -> None:
    async with running(tmp_path, {"work": done}) as (queue, store):
        store.faults["complete"] = (StoreFull("The store is full."), 3)
        assert (await ended(queue, await submit(queue))).state == "succeeded"
        assert store.failed == ["complete"] * 3


async def test_a_shutdown_does_not_wait_for_a_store_that_fails(tmp_path: Path) -> None:
    started = trio.Event()

    async def work() -> CallResult:
        started.set()
        return await forever()

    async with running(tmp_path, {"work": work}) as (queue, store):
        store.faults["interrupt"] = (StoreFull("The store is full."), 100)
        task_id = await submit(queue, repeatable=True)
        await started.wait()
    assert store.failed == ["interrupt"]
    async with running(tmp_path, {"work": done}) as (queue, _):
        task = await ended(queue, task_id)
        assert (task.state, task.attempts) == ("succeeded", 2)


async def test_a_renewal_that_fails_is_made_up_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, {"work": forever}, lease=1) as (queue, store):
        store.faults["renew"] = (StoreFull("The store is full."), 1)
        task_id = await submit(queue)
        await eventually(lambda: store.failed == ["renew"])
        await trio.sleep(1.2)  # past the first lease
        assert (await queue.status(ME, task_id)).task.state == "running"
        await queue.cancel(ME, task_id)
        assert (await ended(queue, task_id)).state == "cancelled"
    assert "Leases cannot be renewed" in caplog.text


async def test_due_tasks_start_although_looking_and_sweeping_failed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatcher_module, "LONGEST_NAP", 0.05)
    async with running(tmp_path, {"work": done}) as (queue, store):
        store.faults["next_due"] = (StoreFull("Cannot look."), 1)
        store.faults["sweep"] = (StoreFull("Cannot sweep."), 1)
        assert (await ended(queue, await submit(queue, delay=0.02))).state == "succeeded"
        assert sorted(store.failed) == ["next_due", "sweep"]
    assert "The next due time cannot be read: Cannot look." in caplog.text
    assert "The store cannot be swept: Cannot sweep." in caplog.text


async def test_a_sweep_that_fails_for_an_unknown_reason_does_not_end_the_sweeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatcher_module, "LONGEST_NAP", 0.05)
    async with running(tmp_path, {"work": done}) as (queue, store):
        store.faults["sweep"] = (KeyError("a defect"), 1)
        assert (await ended(queue, await submit(queue, delay=0.02))).state == "succeeded"
        assert store.failed == ["sweep"]
    assert "The store cannot be swept: The task store has a defect (KeyError" in caplog.text


async def test_a_defect_of_the_store_takes_nobody_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, {"work": done}) as (queue, store):
        store.faults["complete"] = (KeyError("a defect"), 2)
        failed = failing_starts(monkeypatch, KeyError("a defect"), 4)
        assert (await ended(queue, await submit(queue))).state == "succeeded"
        assert (len(failed), store.failed) == (4, ["complete", "complete"])
        # Nor does one that does not take note of what the store tells.
        taking = queue._dispatcher.on_changes
        queue._dispatcher.on_changes = lambda changes: taking(changes[: 1 // 0])  # type: ignore[method-assign]
        second = await submit(queue)
        queue._dispatcher.on_changes = taking  # type: ignore[method-assign]
        await queue.cancel(ME, second)
        assert (await ended(queue, await submit(queue))).state == "succeeded"
    assert "No task can be started: The task store has a defect (KeyError" in caplog.text
    assert "cannot be recorded: The task store has a defect (KeyError" in caplog.text
    assert "what the task store has told was not taken note of" in caplog.text


async def test_what_a_lost_claim_left_running_is_found_by_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatcher_module, "LONGEST_NAP", 0.05)
    async with running(tmp_path, {"work": done}) as (queue, store):
        lost = taken(queue, store, 0.01).id
        # The naps are short while something is scheduled.
        await submit(queue, delay=60)
        assert (await ended(queue, lost)).state == "uncertain"
    assert "Leases ran out, or deadlines: 1 tasks are uncertain now, 0 are dead." in caplog.text


# --- the bridge -----------------------------------------------------------------------------------


async def test_what_happens_close_together_crosses_together_and_in_order() -> None:
    bridge = Bridge()
    seen: list[int] = []
    crossings = 0
    original = bridge._cross

    def cross() -> None:
        nonlocal crossings
        crossings += 1
        original()

    bridge._cross = cross  # type: ignore[method-assign]
    for n in range(10):
        bridge.post(lambda n=n: seen.append(n))  # type: ignore[misc]
    await eventually(lambda: len(seen) == 10)
    assert (seen, crossings) == (list(range(10)), 1)


def test_what_happens_after_the_end_is_nobodys_business() -> None:
    async def main() -> Bridge:
        return Bridge()

    bridge = trio.run(main)
    bridge.post(lambda: pytest.fail("called after the end"))


async def test_what_the_host_brings_across_late_is_not_taken_for_that_of_another_run() -> None:
    """The loop of the host outlives a run of trio, and may have another one by then."""
    asked: list[Callable[[], object]] = []

    async def make() -> Bridge:
        return Bridge(asked.append)

    bridge = await trio.to_thread.run_sync(trio.run, make)
    bridge.post(lambda: pytest.fail("called in another run"))
    (cross,) = asked
    cross()
    await trio.to_thread.run_sync(cross)


async def test_a_future_that_is_done_is_answered_at_once() -> None:
    future: Future[int] = Future()
    future.set_result(7)
    assert await Bridge().wait(future) == 7


# --- the end --------------------------------------------------------------------------------------


async def test_nothing_is_started_for_those_who_wait_once_the_server_stops(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, {"work": done}) as (queue, store):
        assert (await ended(queue, await submit(queue))).state == "succeeded"
        async with Held(store):
            # Idle workers have an order, and the submit comes before its end.
            submitted = store.submit([NewTask("work", {}, ME)])
            await trio.to_thread.run_sync(queue.drain)
        (made,) = await trio.to_thread.run_sync(submitted.result, 20)
        await trio.testing.wait_all_tasks_blocked(0.01)
        snapshot = await queue.status(ME, made.task_id)
        assert [event.kind for event in snapshot.events] == ["submitted"]
        await submit(queue)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert store.health().counts["running"] == 0


async def test_what_runs_when_the_server_stops_may_end(tmp_path: Path) -> None:
    began, go = trio.Event(), trio.Event()

    async def held() -> CallResult:
        began.set()
        await go.wait()
        return CallResult("done")

    async with running(tmp_path, {"work": held}, workers=1) as (queue, _):
        first, second = await submit(queue), await submit(queue)
        await began.wait()
        queue.drain()
        go.set()
        assert (await ended(queue, first)).state == "succeeded"
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await queue.status(ME, second)).task.state == "ready"
        assert [event.kind for event in (await queue.status(ME, second)).events] == ["submitted"]
