"""Limits, turns and full queues through a real host: what runs, what waits, and what is said."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from pydantic import ValidationError

from mcpd_core import CallRefused, CallResult, Principal
from mcpd_core.host import Host
from mcpd_task_queue.limits import Bound, Limit
from mcpd_task_queue.records import WAITING, Filter
from mcpd_task_queue.rooms import Rooms
from mcpd_task_queue.settings import TaskQueueSettings
from mcpd_task_queue.sqlite import SQLiteTaskStore

T = TypeVar("T")
ME = Principal("local", "1000", "ada")
Start = Callable[..., AbstractAsyncContextManager[Host]]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def call(host: Host, name: str, /, client: str = "test", **arguments: Any) -> CallResult:
    return await host.call(name, arguments, principal=ME, client=client)


async def ask(host: Host, name: str, /, client: str = "test", **arguments: Any) -> Any:
    result = await call(host, name, client, **arguments)
    assert not result.is_error, result.text
    return result.structured


async def submit(host: Host, tool: str, /, client: str = "test", **options: Any) -> str:
    answer = await ask(host, "submit_task", client, tool=tool, **options)
    assert answer["outcome"] == "created"
    return cast(str, answer["task_id"])


async def refusal(host: Host, name: str, /, **arguments: Any) -> dict[str, Any]:
    """Call in vain; returns what was answered as the error."""
    try:
        answer = await call(host, name, **arguments)
    except CallRefused as refused:
        return {**refused.data, "code": refused.code, "message": str(refused)}
    assert answer.error is not None, answer.text
    return dict(answer.error)


async def result(host: Host, task_id: str, wait: float = 20) -> Any:
    return await ask(host, "get_task_result", task_id=task_id, wait=wait)


async def why(host: Host, task_id: str) -> str:
    return cast(str, (await ask(host, "get_task_status", task_id=task_id))["why"])


async def logged(log: list[str], entry: str, times: int = 1) -> None:
    while log.count(entry) < times:
        await asyncio.sleep(0.002)


# --- limits ---------------------------------------------------------------------------------------


async def test_a_task_that_ends_makes_room_for_the_next_one_of_its_queue(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"queues": {"gpu": {"concurrency": 1}}}) as host:
        holds = await submit(host, "hold_safely", queue="gpu")
        await logged(log, "started")
        waiting = [await submit(host, "add", arguments={"a": n}, queue="gpu") for n in range(2)]
        free = await submit(host, "add", arguments={"a": 9})
        assert (await result(host, free))["state"] == "succeeded", "the others hold nothing up"
        assert await why(host, waiting[0]) == "its queue 'gpu' runs its 1 of 1; it is next"
        assert await why(host, waiting[1]) == "its queue 'gpu' runs its 1 of 1; 1 ahead of it"
        await ask(host, "cancel_task", task_id=holds)
        for task_id in waiting:
            assert (await result(host, task_id))["state"] == "succeeded"


async def test_a_rate_opens_by_itself(start: Start, log: list[str]) -> None:
    async with start(task_queue={"tools": {"add": {"rate": 20, "per": 1}}}) as host:
        ids = [await submit(host, "add", arguments={"a": n}) for n in range(4)]
        for task_id in ids:
            assert (await result(host, task_id))["state"] == "succeeded"
        assert log == [f"add {n}" for n in range(4)]


async def test_a_task_that_a_rate_holds_back_says_for_how_long(start: Start) -> None:
    async with start(task_queue={"tools": {"add": {"rate": 1, "per": 3_600}}}) as host:
        first, second = [await submit(host, "add", arguments={"a": n}) for n in range(2)]
        await result(host, first)
        said = await why(host, second)
        assert re.fullmatch(
            r"the rate limit of the tool 'add' opens in 3[56]\d\d\.\d s; it is next", said
        )


async def test_connections_have_their_turns_and_a_key_goes_before_them(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        holds = await submit(host, "hold_safely")
        await logged(log, "started")
        for n in range(3):
            await submit(host, "add", "first", arguments={"a": n})
        other = await submit(host, "add", "second", arguments={"a": 10})
        keyed = await submit(host, "add", "first", arguments={"a": 20}, fairness_key="project")
        place = await ask(host, "get_task_status", task_id=other)
        assert place["position"] == 2
        await ask(host, "cancel_task", task_id=holds)
        for task_id in (other, keyed):
            await result(host, task_id)
        assert {"add 0", "add 10", "add 20"} == set(log[2:5])


# --- full queues ----------------------------------------------------------------------------------


async def rooms_of(host: Host) -> Rooms:
    proxy = await host.service("task_queue", host.lanes.loop)
    return cast(Rooms, proxy._running.object._rooms)


async def in_line(host: Host, queue: str, number: int) -> None:
    """Wait until so many wait for room in a queue."""
    rooms = await rooms_of(host)
    while len(rooms._lines[queue].tickets if queue in rooms._lines else ()) != number:
        await asyncio.sleep(0.002)


def bounded(most: int, overflow: str, **more: Any) -> dict[str, Any]:
    return {"queues": {"q": {"most_tasks": most, "overflow": overflow, **more}}}


async def test_a_submit_to_a_full_queue_is_told_what_is_full(start: Start) -> None:
    async with start(task_queue=bounded(1, "reject")) as host:
        await ask(host, "pause_queue", queue="q")
        await submit(host, "add", queue="q", arguments={"a": 1})
        error = await refusal(host, "submit_task", tool="add", queue="q", arguments={"a": 2})
        assert error["code"] == "queue_full"
        assert "The queue 'q' is full: 1 of 1 tasks wait in it." in error["message"]
        assert (error["limit"], error["most"], error["waiting_tasks"]) == ("tasks", 1, 1)
        assert error["retry_after"] is None, "nothing has left it yet: nobody can tell"
        answer = await ask(
            host,
            "submit_tasks",
            tasks=[{"tool": "add", "arguments": {"a": n}, "queue": q} for n, q in enumerate("qr")],
        )
        assert (answer["rejected"], answer["created"]) == (1, 1)
        assert answer["tasks"][0]["error"]["code"] == "queue_full"
        assert (answer["tasks"][1]["queue"], answer["tasks"][1]["spilled_from"]) == ("r", None)


async def test_it_is_told_when_to_come_back_once_tasks_leave_the_queue(start: Start) -> None:
    async with start(task_queue=bounded(2, "reject")) as host:
        for n in range(6):
            await result(host, await submit(host, "add", queue="q", arguments={"a": n}))
        await ask(host, "pause_queue", queue="q")
        for _ in range(2):
            await submit(host, "add", queue="q", arguments={"a": 1})
        error = await refusal(host, "submit_task", tool="add", queue="q", arguments={"a": 2})
        assert error["retry_after"] > 0


async def test_a_task_that_is_larger_than_its_queue_is_not_told_to_come_back(start: Start) -> None:
    settings = {"queues": {"q": {"most_bytes": 20, "overflow": "block"}}}
    async with start(task_queue=settings) as host:
        arguments = {"text": "x" * 30}
        error = await refusal(host, "submit_task", tool="shout", queue="q", arguments=arguments)
        assert (error["code"], error["limit"], error["most"]) == ("queue_full", "bytes", 20)
        assert "It never fits in there" in error["message"] or "never" in str(error.get("hint"))


async def test_submits_wait_for_room_first_come_first_served(start: Start, log: list[str]) -> None:
    async with start(task_queue=bounded(1, "block"), executor={"concurrency": 2}) as host:
        await ask(host, "pause_queue", queue="q")
        first = await submit(host, "add", queue="q", arguments={"a": 0})
        async with _Tasks() as tasks:
            waiting = []
            for n in range(1, 4):
                waiting.append(tasks.start(submit(host, "add", queue="q", arguments={"a": n})))
                await in_line(host, "q", n)
            # More of them wait than there are permits, and other calls go on.
            free = await submit(host, "add", arguments={"a": 9})
            assert (await result(host, free))["state"] == "succeeded"
            waiting[1].cancel()
            await in_line(host, "q", 2)
            error = await refusal(
                host, "submit_task", tool="add", queue="q", arguments={"a": 8}, wait=0
            )
            assert error["code"] == "queue_full"
            for place in (0, 2):
                assert not waiting[place].done()
                await ask(host, "cancel_task", task_id=first)
                first = await waiting[place]
        assert (await rooms_of(host))._lines == {}


async def test_those_who_wait_for_room_are_told_at_once_when_the_server_stops(
    start: Start,
) -> None:
    async with start(task_queue=bounded(1, "block")) as host:
        await ask(host, "pause_queue", queue="q")
        await submit(host, "add", queue="q", arguments={"a": 0})
        rooms = await rooms_of(host)
        asked: dict[str, Any] = {"tool": "add", "queue": "q", "arguments": {"a": 1}}
        async with _Tasks() as tasks:
            alone = [tasks.start(refusal(host, "submit_task", **asked)) for _ in range(3)]
            batch = [{**asked, "queue": queue} for queue in "qr"]
            together = tasks.start(ask(host, "submit_tasks", tasks=batch))
            await in_line(host, "q", 4)
            host.stop_accepting()
            for error in await asyncio.gather(*alone):
                assert (error["code"], error["queue"]) == ("shutting_down", "q")
                assert "Nothing was stored" in error["message"]
            first, second = (await together)["tasks"]
            assert first["error"]["code"] == "shutting_down"
            assert second["outcome"] == "created", "what was stored before is told of"
        assert rooms._lines == {}


async def test_when_the_server_stops_what_is_acknowledged_is_stored_and_nothing_else(
    start: Start, tmp_path: Path
) -> None:
    """Room for one after the other is being made at that very moment."""
    asked: dict[str, Any] = {"tool": "add", "queue": "q", "arguments": {"a": 1}}
    async with start(task_queue=bounded(10, "block")) as host:
        await ask(host, "pause_queue", queue="q")
        full = [await submit(host, "add", queue="q", arguments={"a": 0}) for _ in range(10)]
        async with _Tasks() as tasks:
            waiting = [tasks.start(call(host, "submit_task", **asked)) for _ in range(20)]
            await in_line(host, "q", 20)
            leaving = [tasks.start(call(host, "cancel_task", task_id=id_)) for id_ in full]
            await leaving[0]
            host.stop_accepting()
            told = await asyncio.gather(*waiting)
            await asyncio.gather(*leaving, return_exceptions=True)
    codes = [answer.error["code"] for answer in told if answer.error is not None]
    acknowledged = {(answer.structured or {})["task_id"] for answer in told if answer.error is None}
    assert set(codes) == {"shutting_down"}
    assert len(acknowledged) + len(codes) == 20
    store = SQLiteTaskStore(tmp_path / "task_queue" / "tasks.db")
    try:
        found = store.find(ME, Filter(states=tuple(WAITING)), limit=99).result(10).tasks
        assert {task.id for task in found} == acknowledged
    finally:
        store.close().result(10)


async def test_a_submit_waits_for_as_long_as_it_said(start: Start) -> None:
    async with start(task_queue=bounded(1, "block")) as host:
        await ask(host, "pause_queue", queue="q")
        await submit(host, "add", queue="q", arguments={"a": 0}, idempotency_key="k")
        batch = [
            {"tool": "add", "arguments": {"a": n}, "queue": queue} for n, queue in enumerate("qrq")
        ]
        answer = await ask(host, "submit_tasks", tasks=batch, wait=0.05)
        assert [task["outcome"] for task in answer["tasks"]] == ["rejected", "created", "rejected"]
        async with _Tasks() as tasks:
            waits = tasks.start(submit(host, "add", queue="q", arguments={"a": 1}))
            await in_line(host, "q", 1)
            again = await ask(
                host,
                "submit_task",
                tool="add",
                queue="q",
                arguments={"a": 0},
                idempotency_key="k",
            )
            assert again["outcome"] == "existing", "what is stored already need not wait in line"
            await ask(host, "resume_queue", queue="q")
            assert (await result(host, await waits))["state"] == "succeeded"


async def test_what_has_no_room_spills_and_the_answer_says_so(start: Start) -> None:
    async with start(task_queue=bounded(1, "spill", spill_to="r")) as host:
        await ask(host, "pause_queue", queue="q")
        await submit(host, "add", queue="q", arguments={"a": 0})
        answer = await ask(host, "submit_task", tool="add", queue="q", arguments={"a": 1})
        assert (answer["queue"], answer["spilled_from"]) == ("r", "q")
        assert (await result(host, answer["task_id"]))["state"] == "succeeded"


async def test_the_statistics_say_how_full_a_queue_is_and_what_it_may_have(start: Start) -> None:
    settings = bounded(5, "spill", spill_to="r", concurrency=2, rate=3, per=60)
    async with start(task_queue=settings) as host:
        await ask(host, "pause_queue", queue="q")
        await submit(host, "add", queue="q", arguments={"a": 1})
        await result(host, await submit(host, "add", arguments={"a": 1}))
        queues = {
            queue["queue"]: queue["load"]
            for queue in (await ask(host, "get_queue_stats"))["queues"]
        }
        assert queues["q"] == {
            "waiting_tasks": 1,
            "most_tasks": 5,
            "waiting_bytes": 7,
            "most_bytes": 1024**3,
            "overflow": "spill",
            "spill_to": "r",
            "running": 0,
            "concurrency": 2,
            "rate": 3,
            "per": 60,
            "burst": 1,
        }
        assert (queues["default"]["most_tasks"], queues["default"]["running"]) == (1_000_000, None)


class _Tasks:
    """Tasks that end with the block at the latest."""

    async def __aenter__(self) -> _Tasks:
        self._tasks: list[asyncio.Task[Any]] = []
        return self

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.append(task)
        return task

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


# --- settings -------------------------------------------------------------------------------------


def test_limits_are_read_from_tables_of_their_own() -> None:
    settings = TaskQueueSettings.model_validate(
        {
            "queues": {"gpu": {"concurrency": 2}, "mail": {"rate": 60, "per": 3600, "burst": 5}},
            "tools": {"fetch": {"rate": 2.5}, "add": {}},
        }
    )
    limits = settings.limits()
    assert limits.queues == {"gpu": Limit(2), "mail": Limit(None, 60, 3600, 5)}
    assert limits.tools == {"fetch": Limit(rate=2.5)}
    assert settings.has_rates
    assert limits.bound_of("gpu") == Bound(1_000_000, 1024**3, "reject", None)


def test_a_queue_has_the_common_bounds_but_for_its_own() -> None:
    settings = TaskQueueSettings.model_validate(
        {
            "most_tasks": 50,
            "overflow": "spill",
            "spill_to": "rest",
            "queues": {"q": {"most_bytes": 9, "overflow": "block"}},
        }
    )
    limits = settings.limits()
    assert limits.bound_of("q") == Bound(50, 9, "block", "rest")
    assert limits.bound_of("other") == Bound(50, 1024**3, "spill", "rest")
    assert not TaskQueueSettings().has_rates


@pytest.mark.parametrize(
    "wrong",
    [
        {"queues": {"no such name": {}}},
        {"queues": {"q": {"concurrency": 0}}},
        {"queues": {"q": {"rate": -1}}},
        {"tools": {"fetch": {"speed": 1}}},
        {"tools": {"a b": {}}},
        {"overflow": "spill"},
        {"queues": {"q": {"overflow": "spill"}}},
        {"queues": {"q": {"overflow": "spill", "spill_to": "q"}}},
        {"queues": {"q": {"most_tasks": 0}}},
    ],
)
def test_limits_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskQueueSettings.model_validate(wrong)
