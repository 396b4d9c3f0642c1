"""Limits, turns and full queues through a real host: what runs, what waits, and what is said."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest
from pydantic import ValidationError

from mcpd_core import CallRefused, CallResult, Principal
from mcpd_core.host import Host
from mcpd_task_queue.limits import Limit
from mcpd_task_queue.settings import TaskQueueSettings

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
    assert not TaskQueueSettings().has_rates


@pytest.mark.parametrize(
    "wrong",
    [
        {"queues": {"no such name": {}}},
        {"queues": {"q": {"concurrency": 0}}},
        {"queues": {"q": {"rate": -1}}},
        {"tools": {"fetch": {"speed": 1}}},
        {"tools": {"a b": {}}},
    ],
)
def test_limits_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskQueueSettings.model_validate(wrong)
