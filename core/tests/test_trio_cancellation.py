"""Cancellation and deadlines between the host's loop and trio, on every rung and every loop.

``MCPD_STORM`` sets how many calls each storm makes in each direction; ``make soak`` makes 100,000.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.lowlevel

from mcpd_core.errors import CallCancelled, ToolUnavailable
from mcpd_core.runtimes import Expired, TrioRuntime
from mcpd_core.runtimes.trio_berths import MOST_KEPT

from .runtime_kit import (
    STARTED,
    STORM,
    STORM_LIMIT,
    AnyRuntime,
    EveryRung,
    Signal,
    ThreadToo,
    library,
    nothing_is_left,
    started,
    started_anywhere,
    tell,
    turns,
    within,
)

AT_ONCE = 100


class Load:
    """A tool that takes some turns, and the count of those that run."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.running = 0

    async def tool(self, steps: int) -> int:
        self.running += 1
        try:
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            return steps
        finally:
            try:
                # A clean-up that waits, and may itself be met by a second cancellation.
                if steps == 3:
                    with anyio.CancelScope(shield=True):
                        await anyio.lowlevel.checkpoint()
            finally:
                self.running -= 1


@pytest.mark.timeout(STORM_LIMIT)
class TestAStormOfRandomCancellations(ThreadToo):
    async def test_from_asyncio_leaves_nothing_behind(self, runtime: AnyRuntime, rung: Any) -> None:
        load = Load(7)
        ends = {"returned": 0, "cancelled": 0}

        async def one() -> None:
            steps = load.dice.randrange(5)
            task = asyncio.ensure_future(runtime.run(partial(load.tool, steps)))
            # Before the first step, while it runs, in the turn of its end, and in its clean-up.
            for _ in range(load.dice.randrange(8)):
                await asyncio.sleep(0)
            for _ in range(load.dice.choice((0, 1, 1, 2))):
                task.cancel()
                await asyncio.sleep(0)
            try:
                assert await task == steps
                ends["returned"] += 1
            except asyncio.CancelledError:
                ends["cancelled"] += 1

        for _ in range(STORM // AT_ONCE):
            await within(60, lambda: asyncio.gather(*(one() for _ in range(AT_ONCE))))
        assert sum(ends.values()) == STORM // AT_ONCE * AT_ONCE
        assert all(ends.values())
        assert load.running == 0
        assert nothing_is_left(runtime)
        living = await runtime.run(_tasks)
        await runtime.aclose()
        idle = await started_anywhere(*rung)
        assert living == await idle.run(_tasks)
        await idle.aclose()

    async def test_from_trio_leaves_nothing_behind(self, runtime: AnyRuntime) -> None:
        load = Load(11)
        ends = {"returned": 0, "cancelled": 0}

        async def one() -> None:
            steps = load.dice.randrange(5)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_some_time, scope)
                    assert await runtime.run_in_host(partial(load.tool, steps)) == steps
                    nursery.cancel_scope.cancel()
            ends["cancelled" if scope.cancelled_caught else "returned"] += 1

        async def cancel_some_time(scope: trio.CancelScope) -> None:
            for _ in range(load.dice.randrange(8)):
                await trio.lowlevel.checkpoint()
            if load.dice.random() < 0.7:
                scope.cancel()

        async def storm() -> None:
            for _ in range(STORM // AT_ONCE):
                with trio.fail_after(60):
                    async with trio.open_nursery() as nursery:
                        for _ in range(AT_ONCE):
                            nursery.start_soon(one)

        await runtime.run(storm)
        assert sum(ends.values()) == STORM // AT_ONCE * AT_ONCE
        assert all(ends.values())
        assert load.running == 0
        assert nothing_is_left(runtime)

    async def test_through_both_borders_leaves_nothing_behind(self, runtime: AnyRuntime) -> None:
        load = Load(13)

        async def there_and_back(steps: int) -> int:
            return await runtime.run_in_host(partial(load.tool, steps))

        async def one() -> None:
            steps = load.dice.randrange(4)
            work = partial(there_and_back, steps)
            deadline = time.monotonic() + load.dice.choice((0.0, 0.001, 60.0))
            task = asyncio.ensure_future(runtime.run(work, deadline=deadline))
            await turns(load.dice.randrange(10))
            if load.dice.random() < 0.5:
                task.cancel()
            try:
                assert await task == steps
            except (asyncio.CancelledError, Expired):
                pass

        for _ in range(STORM // AT_ONCE // 2):
            await within(60, lambda: asyncio.gather(*(one() for _ in range(AT_ONCE))))
        assert load.running == 0
        assert nothing_is_left(runtime)


async def _tasks() -> int:
    living = trio.lowlevel.current_statistics().tasks_living
    # What is kept for later calls is bounded.
    root = trio.lowlevel.current_root_task()
    assert root is not None
    kept = [task for task in _below(root) if task.name.endswith("Berths._hold")]
    assert len(kept) <= MOST_KEPT + 1
    return living - len(kept)


def _below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _below(child)


class TestCancellationAndCompletionInOneTurn(ThreadToo):
    @pytest.mark.parametrize("order", ["cancel first", "complete first", "cancel in the next turn"])
    async def test_the_caller_is_cancelled_and_hears_of_the_end(
        self, runtime: AnyRuntime, order: str
    ) -> None:
        loop = asyncio.get_running_loop()
        ended = []
        event, inside = trio.Event(), Signal()
        go = partial(tell, runtime, event.set)

        async def tool() -> None:
            try:
                inside.set()
                await event.wait()
            finally:
                ended.append(True)

        task = asyncio.ensure_future(runtime.run(tool))
        await inside.wait()
        if order == "cancel first":
            # The future that the caller waits for is done now, and the tool ends all the same.
            task.cancel()
            go()
        elif order == "complete first":
            go()
            task.cancel()
        else:
            go()
            loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert ended == [True]
        assert await runtime.run(_yes)

    @pytest.mark.parametrize("cancel_first", [True, False])
    async def test_a_visit_that_ends_as_it_is_cancelled_is_heard_of(
        self, runtime: AnyRuntime, cancel_first: bool
    ) -> None:
        go = asyncio.Event()
        scopes = []

        async def visit() -> str:
            await go.wait()
            return "done"

        async def caller() -> str:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                return await runtime.run_in_host(visit)
            return "cancelled"

        task = asyncio.ensure_future(runtime.run(caller))
        await turns(4)
        while not scopes:
            await asyncio.sleep(0.001)
        steps: list[Callable[[], Any]] = [partial(tell, runtime, scopes[0].cancel), go.set]
        for step in steps if cancel_first else reversed(steps):
            step()
        assert await asyncio.wait_for(task, 10) in ("done", "cancelled")
        assert nothing_is_left(runtime)


class TestAVisitThatHasNotBegun(EveryRung):
    async def test_and_is_cancelled_lets_its_caller_go_on(self, runtime: TrioRuntime) -> None:
        ran = []

        async def visit() -> None:
            ran.append(True)

        async def caller() -> bool:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(runtime.run_in_host, visit)
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    # Its task exists by now, and the host's loop has not turned.
                    scope.cancel()
            return scope.cancelled_caught

        assert await asyncio.wait_for(runtime.run(caller), 10)
        assert not runtime._visits


async def _yes() -> bool:
    return True


class TestDeadlinesAcrossTheBorder(ThreadToo):
    @pytest.mark.parametrize("way", ["wait_for", "anyio", "runtime"])
    async def test_on_the_asyncio_side_cancel_the_trio_tool(
        self, runtime: AnyRuntime, way: str
    ) -> None:
        raised: list[type[BaseException]] = []

        async def tool() -> None:
            try:
                await trio.sleep_forever()
            except BaseException as error:
                raised.append(type(error))
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.01)
                raised.append(type(error))
                raise

        if way == "wait_for":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(runtime.run(tool), STARTED)
        elif way == "anyio":
            with pytest.raises(TimeoutError):
                with anyio.fail_after(STARTED):
                    await runtime.run(tool)
        else:
            with pytest.raises(Expired):
                await runtime.run(tool, deadline=time.monotonic() + STARTED)
        assert raised == [trio.Cancelled, trio.Cancelled]

    async def test_on_the_trio_side_cancel_the_asyncio_tool(self, runtime: AnyRuntime) -> None:
        raised: list[type[BaseException]] = []

        async def visit() -> None:
            try:
                await asyncio.sleep(3600)
            except BaseException as error:
                await asyncio.sleep(0.01)
                raised.append(type(error))
                raise

        async def too_slow() -> bool:
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(STARTED):
                    await runtime.run_in_host(visit)
            return True

        async def move_on() -> bool:
            with trio.move_on_after(STARTED) as scope:
                await runtime.run_in_host(visit)
            return scope.cancelled_caught

        assert await runtime.run(too_slow)
        assert await runtime.run(move_on)
        assert raised == [asyncio.CancelledError] * 2

    async def test_of_a_caller_in_trio_bound_what_it_runs_in_trio(
        self, runtime: AnyRuntime
    ) -> None:
        async def caller() -> bool:
            with pytest.raises(Expired):
                await runtime.run_here(trio.sleep_forever, deadline=time.monotonic() + 0.02)
            return True

        assert await runtime.run(caller)

    async def test_that_have_passed_still_cancel_through_the_tool(
        self, runtime: AnyRuntime
    ) -> None:
        with pytest.raises(Expired):
            await runtime.run(trio.sleep_forever, deadline=time.monotonic() - 1)


class TestWaitingForTheCleanUp(ThreadToo):
    async def test_of_a_visit_does_not_use_up_the_processor(self, runtime: AnyRuntime) -> None:
        cleaned = []
        cpu = 0.0

        async def visit() -> None:
            nonlocal cpu
            try:
                await asyncio.sleep(3600)
            finally:
                cpu = time.process_time()
                await asyncio.sleep(0.1)
                cpu = time.process_time() - cpu
                cleaned.append(True)

        async def caller() -> bool:
            with trio.move_on_after(0.01) as scope:
                await runtime.run_in_host(visit)
            return scope.cancelled_caught

        assert await runtime.run(caller)
        assert cleaned == [True]
        assert cpu < 0.09, "the wait used up the processor"

    async def test_calls_nest_a_hundred_deep_and_cancelling_the_outermost_unwinds_all(
        self, runtime: AnyRuntime
    ) -> None:
        depth, unwound, bottom = 100, [], asyncio.Event()

        async def go(level: int) -> None:
            assert library() == ("trio" if level % 2 else "asyncio")
            try:
                if level == depth:
                    bottom.set()
                    await anyio.sleep(3600)
                elif level % 2:
                    await runtime.run_in_host(lambda: go(level + 1))
                else:
                    await runtime.run(lambda: go(level + 1))
            finally:
                unwound.append(level)

        task = asyncio.ensure_future(go(0))
        await within(20, bottom.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert unwound == list(range(depth, -1, -1))

    async def test_calls_nest_a_hundred_deep_and_answer(self, runtime: AnyRuntime) -> None:
        async def go(level: int) -> int:
            if level == 100:
                return level
            cross = runtime.run_in_host if level % 2 else runtime.run
            return await cross(lambda: go(level + 1))

        assert await go(0) == 100


class TestClosing(ThreadToo):
    async def test_waits_for_all_in_flight_and_for_one_that_ignores_its_cancellation(
        self, rung: Any
    ) -> None:
        runtime = await started_anywhere(*rung)
        ended: list[str] = []

        async def listens(name: str, wait: Callable[[], Awaitable[Any]]) -> None:
            try:
                await wait()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                ended.append(name)

        async def ignores() -> str:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
            ended.append("ignored")
            return "kept its word"

        async def visits() -> None:
            await runtime.run_in_host(partial(listens, "visit", partial(asyncio.sleep, 3600)))

        tasks = [
            asyncio.ensure_future(runtime.run(partial(listens, "call", trio.sleep_forever)))
            for _ in range(50)
        ]
        tasks.append(asyncio.ensure_future(runtime.run(visits)))
        stubborn = asyncio.ensure_future(runtime.run(ignores))
        await turns(5)
        await asyncio.sleep(0.02)
        await within(20, runtime.aclose)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {CallCancelled}
        assert await stubborn == "kept its word"
        assert sorted(ended) == ["call"] * 50 + ["ignored", "visit"]
        assert not runtime.running

    async def test_twice_and_at_the_same_time_is_closing_once(self, rung: Any) -> None:
        runtime = await started_anywhere(*rung)
        await asyncio.gather(runtime.aclose(), runtime.aclose())
        await runtime.aclose()
        with pytest.raises(ToolUnavailable, match="not running"):
            await runtime.run(_yes)


class TestStartingAgain(EveryRung):
    async def test_is_possible_after_each_close(self, rung: Any) -> None:
        runtime = await started(*rung)
        for _ in range(3):
            with pytest.raises(ToolUnavailable, match="has been started"):
                await runtime.start()
            assert await runtime.run(_yes)
            await runtime.aclose()
            await runtime.start()
        assert await runtime.run(_yes)
        await runtime.aclose()

    async def test_is_possible_after_a_close_during_the_start(self, rung: Any) -> None:
        runtime = TrioRuntime(rung[0])
        task = asyncio.ensure_future(runtime.start())
        while runtime.driver is None:
            await asyncio.sleep(0)
        await within(10, runtime.aclose)
        await asyncio.gather(task, return_exceptions=True)
        assert not runtime.running
        await runtime.start()
        assert await runtime.run(_yes)
        await runtime.aclose()

    async def test_is_possible_after_a_start_that_was_cancelled(self, rung: Any) -> None:
        runtime = TrioRuntime(rung[0])
        task = asyncio.ensure_future(runtime.start())
        while runtime.driver is None:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await within(10, runtime.aclose)
        assert not runtime.running
        await runtime.start()
        assert await runtime.run(_yes)
        await runtime.aclose()

    async def test_nothing_runs_before_the_start(self) -> None:
        runtime = TrioRuntime()
        assert runtime.rung == "none"
        with pytest.raises(ToolUnavailable):
            await runtime.run(_yes)
        await runtime.aclose()
        gc.collect()
