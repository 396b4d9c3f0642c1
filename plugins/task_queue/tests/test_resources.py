"""The resources: what is read, what is told to those who follow, and to whom it is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import anyio
import pytest

from mcpd_core import ContentFailed, Principal
from mcpd_core.host import Host

ME = Principal("local", "1000", "ada")
OTHER = Principal("local", "1001", "bob")
Start = Callable[..., AbstractAsyncContextManager[Host]]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def read(host: Host, uri: str, principal: Principal = ME) -> Any:
    content = await host.read_resource(uri, principal=principal, client="test")
    assert content.mime_type == "application/json"
    return json.loads(content.text or "")


async def ask(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> Any:
    result = await host.call(name, arguments, principal=principal, client="test")
    assert not result.is_error, result.text
    return result.structured


async def submit(host: Host, tool: str, /, principal: Principal = ME, **options: Any) -> str:
    return cast(str, (await ask(host, "submit_task", principal, tool=tool, **options))["task_id"])


class Follower:
    """Follows resources on behalf of somebody."""

    def __init__(self, host: Host, principal: Principal, *uris: str) -> None:
        self.told: list[str] = []
        for uri in uris:
            self.follow(host, principal, uri)

    def follow(self, host: Host, principal: Principal, uri: str) -> None:
        usual = host.updates.find(principal, uri)
        assert usual is not None
        host.updates.follow(usual, principal, lambda: self.told.append(uri))

    async def until(self, *uris: str) -> None:
        with anyio.fail_after(20):
            while not set(uris) <= set(self.told):
                await asyncio.sleep(0.002)
        self.told.clear()


# --- reading --------------------------------------------------------------------------------------


async def test_a_task_is_read_with_all_there_is_to_know(start: Start) -> None:
    async with start() as host:
        task_id = await submit(host, "add", arguments={"a": 1, "b": 2}, tags=["sum"])
        await ask(host, "get_task_result", task_id=task_id, wait=20)
        task = await read(host, f"tasks://tasks/{task_id}")
        status = await ask(host, "get_task_status", task_id=task_id)
        assert {key: task[key] for key in status} == status
        assert task["arguments"] == {"a": 1, "b": 2}
        assert task["structured"]["sum"] == 3
        failed = await submit(host, "flaky", arguments={"fails": 9, "retryable": False})
        await ask(host, "get_task_result", task_id=failed, wait=20)
        assert "did not answer" in (await read(host, f"tasks://tasks/{failed}"))["error"]["message"]
        waiting = await submit(host, "add", arguments={"a": 1}, delay=60)
        waits = await read(host, f"tasks://tasks/{waiting}")
        assert not {"text", "structured", "error"} & waits.keys()


async def test_queues_are_read_with_their_counts_and_tasks(start: Start) -> None:
    async with start() as host:
        task_id = await submit(host, "add", arguments={"a": 1}, queue="a/b", delay=60)
        await ask(host, "pause_queue", queue="idle", reason="later")
        assert await read(host, "tasks://queues") == await ask(host, "get_queue_stats")
        queue = await read(host, "tasks://queues/a%2Fb")
        assert (queue["queue"], queue["counts"]["scheduled"], queue["paused"]) == ("a/b", 1, None)
        assert [task["task_id"] for task in queue["tasks"]] == [task_id]
        idle = await read(host, "tasks://queues/idle")
        assert (idle["paused"]["reason"], idle["tasks"]) == ("later", [])


async def test_what_is_anothers_is_not_there(start: Start) -> None:
    async with start() as host:
        task_id = await submit(host, "add", arguments={"a": 1}, queue="mine", delay=60)
        for uri in (f"tasks://tasks/{task_id}", "tasks://queues/mine", "tasks://tasks/none"):
            with pytest.raises(ContentFailed) as caught:
                await read(host, uri, OTHER)
            assert caught.value.kind == "resource_not_found"
        assert (await read(host, "tasks://queues", OTHER))["queues"] == []


async def test_queues_and_tasks_are_completed(start: Start) -> None:
    async with start() as host:
        task_id = await submit(host, "add", arguments={"a": 1}, queue="slow", delay=60)
        await submit(host, "add", arguments={"a": 1}, queue="fast", delay=60)

        async def complete(uri: str, argument: str, value: str, who: Principal = ME) -> Any:
            spec = host.declared_resource(uri)
            found = await host.complete(spec, argument, value, {}, principal=who, client="test")
            return found.values

        assert await complete("tasks://queues/{queue}", "queue", "") == ("fast", "slow")
        assert await complete("tasks://queues/{queue}", "queue", "sl") == ("slow",)
        assert await complete("tasks://tasks/{task_id}", "task_id", task_id[:6]) == (task_id,)
        assert len(await complete("tasks://tasks/{task_id}", "task_id", "")) == 2
        assert await complete("tasks://tasks/{task_id}", "task_id", "no") == ()
        assert await complete("tasks://tasks/{task_id}", "task_id", "", OTHER) == ()


# --- following ------------------------------------------------------------------------------------


async def test_every_step_of_a_task_is_told_with_its_queue(start: Start, log: list[str]) -> None:
    async with start() as host:
        queues = ("tasks://queues", "tasks://queues/q")
        follower = Follower(host, ME, *queues)
        task_id = await submit(host, "hold", queue="q", delay=60)
        await follower.until(*queues)
        uri = f"tasks://tasks/{task_id}"
        follower.follow(host, ME, uri)
        await ask(host, "set_task_priority", task_id=task_id, priority=3)
        await follower.until(uri, *queues)
        await ask(host, "cancel_task", task_id=task_id)
        await follower.until(uri, *queues)


async def test_progress_is_told_to_those_who_follow_the_task(start: Start, log: list[str]) -> None:
    async with start() as host:
        await ask(host, "pause_queue")
        task_id = await submit(host, "hold")
        follower = Follower(host, ME, f"tasks://tasks/{task_id}")
        await ask(host, "resume_queue")
        with anyio.fail_after(20):
            while (await read(host, f"tasks://tasks/{task_id}"))["progress"] is None:
                await follower.until(f"tasks://tasks/{task_id}")
        await ask(host, "cancel_task", task_id=task_id)


async def test_a_pause_of_an_empty_queue_is_told(start: Start) -> None:
    async with start() as host:
        follower = Follower(host, ME, "tasks://queues/a%2Fb")
        await ask(host, "pause_queue", queue="a/b")
        await follower.until("tasks://queues/a%2Fb")
        await ask(host, "resume_queue", queue="a/b")
        await follower.until("tasks://queues/a%2Fb")


async def test_nobody_is_told_of_anothers_tasks(start: Start) -> None:
    async with start() as host:
        await ask(host, "pause_queue")
        task_id = await submit(host, "add", arguments={"a": 1})
        uris = ("tasks://queues", "tasks://queues/default", f"tasks://tasks/{task_id}")
        mine, others = Follower(host, ME, *uris), Follower(host, OTHER, *uris)
        await ask(host, "resume_queue")
        await ask(host, "get_task_result", task_id=task_id, wait=20)
        await mine.until(*uris)
        # Whatever was told of it would have been told by the time of this.
        await submit(host, "add", OTHER, arguments={"a": 1})
        await others.until("tasks://queues")
        assert f"tasks://tasks/{task_id}" not in others.told
