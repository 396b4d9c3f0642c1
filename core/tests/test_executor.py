"""Admission: bounded, fair, and never leaking a permit."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcpd_core.errors import Busy
from mcpd_core.executor import Admission, Limits, Permit


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
    assert_nothing_is_kept(permits)


@pytest.mark.anyio
async def test_a_caller_cancelled_in_the_iteration_of_its_grant_hands_the_permit_on() -> None:
    permits = admission(total=1)
    held = await permits.acquire("a", "t")
    first, second = (asyncio.ensure_future(permits.acquire("a", "t")) for _ in range(2))
    await settle()
    permits.release(held)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await settle()
    assert second.done()
    assert permits.stats() == {"running": 1, "waiting": 0}
    permits.release(second.result())
    assert_nothing_is_kept(permits)


@pytest.mark.anyio
async def test_a_caller_cancelled_before_the_grant_loses_its_client_no_turn() -> None:
    permits = admission(total=1)
    held = await permits.acquire("x", "t")
    order: list[str] = []

    async def call(name: str) -> None:
        permit = await permits.acquire(name[0], "t")
        order.append(name)
        permits.release(permit)

    tasks = [asyncio.ensure_future(call(name)) for name in ("a1", "b1", "a2")]
    await settle()
    # The future is cancelled at once, and its task has yet to run when the permit comes free.
    tasks[0].cancel()
    permits.release(held)
    await asyncio.wait(tasks)
    assert order == ["a2", "b1"]
    assert_nothing_is_kept(permits)


@pytest.mark.anyio
async def test_a_client_whose_turn_it_is_may_ask_for_a_tool_that_others_wait_for_already() -> None:
    permits = admission(total=2, per_client=2, per_tool=1)
    held = [await permits.acquire("x", "at its limit"), await permits.acquire("y", "u")]
    order: list[str] = []

    async def call(client: str, tool: str) -> None:
        permit = await permits.acquire(client, tool)
        order.append(f"{client} {tool}")
        permits.release(permit)

    tasks = []
    # The second call of `a` comes last, and is before those of `b` and `c` in turn.
    for client, tool in (("a", "at its limit"), ("c", "v"), ("b", "t"), ("a", "t")):
        tasks.append(asyncio.ensure_future(call(client, tool)))
        await settle()
    permits.release(held[1])
    await asyncio.wait(tasks[1:])
    assert order == ["a t", "c v", "b t"]
    permits.release(held[0])
    await tasks[0]
    assert_nothing_is_kept(permits)


@pytest.mark.anyio
async def test_a_permit_that_is_free_is_given_without_waiting() -> None:
    permits = admission(total=3, per_client=2, per_tool=2)
    mine = [permits.admit("a", "t"), permits.admit("a", "t")]
    assert None not in mine
    assert permits.admit("a", "u") is None
    assert permits.admit("b", "t") is None
    last = permits.admit("b", "u")
    assert last is not None
    assert permits.admit("c", "v") is None
    for permit in (*mine, last):
        assert permit is not None
        permits.release(permit)
    assert_nothing_is_kept(permits)


@pytest.mark.anyio
async def test_a_release_does_not_look_at_every_call_that_waits_in_vain() -> None:
    """Counted and not timed: lines that are looked at, for a thousand calls of a tool that is at
    its limit, of one client and of a thousand."""
    for clients in (1, 1000):
        permits = admission(total=100, per_client=2000, per_tool=1, queue=2000)
        slow = await permits.acquire("other", "slow")
        waiting = [
            asyncio.ensure_future(permits.acquire(f"c{n % clients}", "slow")) for n in range(1000)
        ]
        await settle()
        looked = 0
        first = permits._turns._first

        def counted(tool: Any, first: Any = first) -> Any:
            nonlocal looked
            looked += 1 + len(tool.lines)
            line = first(tool)
            looked -= len(tool.lines)
            return line

        permits._turns._first = counted  # type: ignore[method-assign]
        for _ in range(100):
            permits.release(await permits.acquire("c0", "quick"))
        assert looked == 0
        permits.release(slow)
        assert looked <= 2
        for task in waiting:
            permits.release(await task)
        assert looked <= 4 * 1000
        del permits._turns._first
        assert_nothing_is_kept(permits)


@pytest.mark.anyio
async def test_calls_that_come_and_give_up_leave_nothing_behind_while_others_wait() -> None:
    permits = admission(total=1, queue=10)
    held = await permits.acquire("a", "t")
    patient = asyncio.ensure_future(permits.acquire("a", "t"))
    await settle()
    for _ in range(500):
        hasty = asyncio.ensure_future(permits.acquire("a", "t"))
        await asyncio.sleep(0)
        hasty.cancel()
        await asyncio.wait([hasty])
    assert permits.stats() == {"running": 1, "waiting": 1}
    assert len(permits._turns.clients["a"].lines["t"].calls) <= 2
    permits.release(held)
    permits.release(await patient)
    assert_nothing_is_kept(permits)


@pytest.mark.anyio
async def test_clients_and_tools_that_come_once_are_forgotten_and_those_in_use_are_not() -> None:
    permits = admission(total=2, per_client=1, per_tool=2)
    busy = permits.admit("busy", "t")
    lent = permits.admit("lent", "u")
    assert busy is not None
    assert lent is not None
    permits.release(lent)
    for number in range(100_000):
        permit = permits.admit(f"c{number}", f"t{number}")
        assert permit is not None
        permits.release(permit)
    assert len(permits._turns.clients) < 200
    assert len(permits._turns.tools) < 200
    assert permits.admit("busy", "t") is None
    # It gave its permit back, was forgotten, and counts for its client again.
    permits.take(lent)
    permits.release(busy)
    assert permits.admit("lent", "v") is None
    permits.release(lent)
    assert_nothing_is_kept(permits)


@pytest.mark.anyio
async def test_each_call_is_refused_at_its_own_deadline_without_a_look_at_the_others() -> None:
    permits = admission(total=1, queue=2000)
    held = await permits.acquire("a", "t")
    now = time.monotonic()
    late = [
        asyncio.ensure_future(permits.acquire("a", "t", deadline=now + number / 10_000))
        for number in range(1000)
    ]
    patient = [
        asyncio.ensure_future(permits.acquire("a", "t", deadline=deadline))
        for deadline in (None, float("inf"), now + 3600)
    ]
    refused = await asyncio.gather(*late, return_exceptions=True)
    assert all(isinstance(each, Busy) for each in refused)
    assert permits.stats() == {"running": 1, "waiting": 3}
    permits.release(held)
    for waiting in patient:
        permits.release(await waiting)
    assert_nothing_is_kept(permits)


def assert_nothing_is_kept(permits: Admission) -> None:
    """Assert that an admission that is not used counts nothing and keeps no call."""
    assert permits.stats() == {"running": 0, "waiting": 0}
    turns = permits._turns
    assert turns.ready == []
    for client in turns.clients.values():
        assert (client.running, client.waiting, client.lines, client.aside) == (0, 0, {}, [])
    for tool in turns.tools.values():
        assert (tool.running, tool.count, tool.lines, tool.key) == (0, 0, [], None)


# --- against a model ------------------------------------------------------------------------------


@dataclass
class Modelled:
    """A call in the model."""

    client: str
    tool: str
    number: int
    task: asyncio.Task[Permit]


class Model(RuleBasedStateMachine):
    """Admission beside a model that looks at every call each time: of the calls that fit, the next
    is the oldest one of the client whose turn is longest ago."""

    @initialize(total=st.integers(1, 4), client=st.integers(1, 4), tool=st.integers(1, 4))
    def start(self, total: int, client: int, tool: int) -> None:
        self.limits = Limits(total, client, tool, 6)
        self.permits = Admission(self.limits)
        self.loop = asyncio.new_event_loop()
        self.running: list[Modelled] = []
        self.waiting: list[Modelled] = []
        self.lent: list[Modelled] = []
        self.turns: dict[str, int] = {}
        self.clock = 0

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        for call in [*self.waiting]:
            self.cancel_waiting(call)
        for call in [*self.running]:
            self.finish(call)
        assert_nothing_is_kept(self.permits)
        self.loop.close()

    # --- the model

    def fits(self, client: str, tool: str) -> bool:
        return (
            len(self.running) < self.limits.total
            and sum(c.client == client for c in self.running) < self.limits.per_client
            and sum(c.tool == tool for c in self.running) < self.limits.per_tool
        )

    def grant(self) -> list[Modelled]:
        granted = []
        while fitting := [c for c in self.waiting if self.fits(c.client, c.tool)]:
            call = min(fitting, key=lambda c: (self.turns[c.client], c.number))
            self.waiting.remove(call)
            self.running.append(call)
            self.clock = self.turns[call.client] = self.clock + 1
            granted.append(call)
        return granted

    def settle(self) -> None:
        self.loop.run_until_complete(settle())

    # --- what happens

    @rule(client=st.sampled_from("abc"), tool=st.sampled_from("tuv"), late=st.booleans())
    def arrive(self, client: str, tool: str, late: bool) -> None:
        deadline = time.monotonic() - 1 if late else None
        task = self.loop.create_task(self.permits.acquire(client, tool, deadline=deadline))
        self.settle()
        self.clock += 1
        call = Modelled(client, tool, self.clock, task)
        others = [c for c in self.waiting if c.client == client]
        if self.fits(client, tool):
            self.running.append(call)
            return
        if late or len(self.waiting) >= self.limits.queue * (1 if others else 2):
            assert isinstance(task.exception(), Busy)
            return
        self.waiting.append(call)
        if not others:
            self.turns[client] = self.clock

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(self.running)))

    def finish(self, call: Modelled) -> None:
        self.permits.release(call.task.result())
        self.running.remove(call)
        self.grant()
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.cancel_waiting(data.draw(st.sampled_from(self.waiting)))

    def cancel_waiting(self, call: Modelled) -> None:
        call.task.cancel()
        self.waiting.remove(call)
        self.settle()
        assert call.task.cancelled()

    @precondition(lambda self: self.running and self.waiting)
    @rule(data=st.data())
    def end_and_cancel_who_is_granted(self, data: st.DataObject) -> None:
        ending = data.draw(st.sampled_from(self.running))
        self.permits.release(ending.task.result())
        self.running.remove(ending)
        for call in self.grant():
            call.task.cancel()
            self.running.remove(call)
            self.settle()
            assert call.task.cancelled()
            self.grant()
            break
        self.settle()

    @precondition(lambda self: self.running and self.waiting)
    @rule(data=st.data())
    def cancel_and_end_in_one_iteration(self, data: st.DataObject) -> None:
        cancelled = data.draw(st.sampled_from(self.waiting))
        ending = data.draw(st.sampled_from(self.running))
        cancelled.task.cancel()
        self.waiting.remove(cancelled)
        self.finish(ending)
        assert cancelled.task.cancelled()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def lend(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.running))
        self.finish(call)
        self.lent.append(call)

    @precondition(lambda self: self.lent)
    @rule()
    def take_back(self) -> None:
        call = self.lent.pop()
        self.permits.take(call.task.result())
        self.running.append(call)

    # --- what holds

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "loop"):
            return
        held = {c.number for c in self.running if c.task.result().held}
        assert held == {c.number for c in self.running}
        assert not any(c.task.done() for c in self.waiting)
        counts = {"running": len(self.running), "waiting": len(self.waiting)}
        assert self.permits.stats() == counts
        assert not any(self.fits(c.client, c.tool) for c in self.waiting)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
