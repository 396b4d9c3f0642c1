"""Admission: bounded, fair, and never leaking a permit."""

from __future__ import annotations

import asyncio
import random
import time

import anyio
import pytest

from mcpd_core.errors import Busy
from mcpd_core.executor import Admission, Limits


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def admission(
    total: int = 2, per_client: int = 2, per_tool: int = 2, queue: int = 100
) -> Admission:
    return Admission(Limits(total, per_client, per_tool, queue))


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.anyio
async def test_calls_within_the_limits_do_not_wait() -> None:
    permits = admission(total=2)
    await permits.acquire("a", "t")
    await permits.acquire("a", "t")
    assert permits.stats() == {"running": 2, "waiting": 0}


@pytest.mark.anyio
async def test_clients_take_turns_whatever_the_length_of_their_queues() -> None:
    permits = admission(total=1)
    order: list[str] = []
    first = await permits.acquire("greedy", "t")

    async def call(client: str) -> None:
        permit = await permits.acquire(client, "t")
        order.append(client)
        permits.release(permit)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(call, "greedy")
        await settle()
        group.start_soon(call, "modest")
        await settle()
        permits.release(first)
    assert order.index("modest") <= 1
    assert permits.stats() == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_a_client_at_its_limit_waits_while_others_pass() -> None:
    permits = admission(total=3, per_client=1, per_tool=3)
    mine = await permits.acquire("a", "t")
    second = asyncio.ensure_future(permits.acquire("a", "t"))
    await settle()
    assert not second.done()
    await permits.acquire("b", "t")
    permits.release(mine)
    await settle()
    assert second.done()


@pytest.mark.anyio
async def test_a_tool_at_its_limit_does_not_hold_up_the_calls_behind_it() -> None:
    permits = admission(total=3, per_client=3, per_tool=1)
    slow = await permits.acquire("a", "slow")
    blocked = asyncio.ensure_future(permits.acquire("a", "slow"))
    await settle()
    with anyio.fail_after(10):
        await permits.acquire("a", "quick")
    assert not blocked.done()
    permits.release(slow)
    await settle()
    assert blocked.done()


@pytest.mark.anyio
async def test_a_full_queue_answers_busy_with_a_time_to_try_again() -> None:
    permits = admission(total=1, queue=1)
    held = await permits.acquire("a", "t")
    waiting = asyncio.ensure_future(permits.acquire("a", "t"))
    await settle()
    with pytest.raises(Busy) as refused:
        await permits.acquire("a", "t")
    assert refused.value.retry_after > 0
    assert refused.value.data == {"retry_after": refused.value.retry_after}
    permits.release(held)
    await waiting


@pytest.mark.anyio
async def test_a_client_that_waits_for_nothing_finds_a_place_in_a_queue_others_filled() -> None:
    permits = admission(total=1, queue=2)
    held = await permits.acquire("greedy", "t")
    greedy = [asyncio.ensure_future(permits.acquire("greedy", "t")) for _ in range(2)]
    await settle()
    modest = [asyncio.ensure_future(permits.acquire(f"m{n}", "t")) for n in range(2)]
    await settle()
    assert permits.stats()["waiting"] == 4
    with pytest.raises(Busy):
        await permits.acquire("m2", "t")
    permits.release(held)
    for waiting in (greedy[0], *modest, greedy[1]):
        permits.release(await waiting)
    assert permits.stats() == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_a_call_whose_deadline_comes_before_its_turn_is_busy() -> None:
    permits = admission(total=1)
    held = await permits.acquire("a", "t")
    with pytest.raises(Busy, match="before the deadline"):
        await permits.acquire("a", "t", deadline=time.monotonic() + 0.01)
    assert permits.stats() == {"running": 1, "waiting": 0}
    permits.release(held)
    assert permits.stats() == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_a_permit_given_back_twice_counts_once() -> None:
    permits = admission(total=1)
    held = await permits.acquire("a", "t")
    permits.release(held)
    permits.release(held)
    await permits.acquire("a", "t")
    assert permits.stats()["running"] == 1


@pytest.mark.anyio
async def test_random_cancellation_leaks_neither_permits_nor_places() -> None:
    permits = admission(total=3, per_client=2, per_tool=2, queue=1000)
    dice = random.Random(3)

    async def call() -> None:
        deadline = time.monotonic() + 0.001 if dice.random() < 0.2 else None
        try:
            permit = await permits.acquire(
                f"c{dice.randrange(4)}", f"t{dice.randrange(3)}", deadline=deadline
            )
        except Busy:
            return
        try:
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)
        finally:
            permits.release(permit)

    for _ in range(20):
        tasks = [asyncio.ensure_future(call()) for _ in range(50)]
        for task in tasks:
            if dice.random() < 0.3:
                await asyncio.sleep(0)
                task.cancel()
        with anyio.fail_after(20):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert permits.stats() == {"running": 0, "waiting": 0}
    assert not permits._queues
    assert not permits._by_client
    assert not permits._by_tool
