"""Asking the tools of the task queue through a real host, as a client would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from mcpd_core import CallResult, Principal
from mcpd_core.host import Host

ME = Principal("local", "1000", "ada")


async def call(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> CallResult:
    return await host.call(name, arguments, principal=principal, client="test")


async def ask(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> Any:
    result = await call(host, name, principal, **arguments)
    assert not result.is_error, result.text
    return result.structured


async def submit(host: Host, tool: str, /, **options: Any) -> str:
    answer = await ask(host, "submit_task", tool=tool, **options)
    assert answer["outcome"] == "created"
    return cast(str, answer["task_id"])


async def result(host: Host, task_id: str, wait: float = 20) -> Any:
    return await ask(host, "get_task_result", task_id=task_id, wait=wait)


async def status(host: Host, task_id: str) -> Any:
    return await ask(host, "get_task_status", task_id=task_id)


def kinds(answer: Any) -> list[str]:
    return [event["kind"] for event in answer["events"]]


async def until(host: Host, task_id: str, done: Callable[[Any], bool]) -> Any:
    """Wait for a state that is no end, so that nothing announces it."""
    while True:
        answer = await status(host, task_id)
        if done(answer):
            return answer
        await asyncio.sleep(0.002)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that nothing announces."""
    while not condition():
        await asyncio.sleep(0.002)
