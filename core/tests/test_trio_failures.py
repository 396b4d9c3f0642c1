"""What becomes of calls and of the thread when the trio run, or the host's loop, ends by itself."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import pytest
import trio
import trio.lowlevel

from mcpd_core.errors import CallCancelled, ToolUnavailable
from mcpd_core.runtimes import TrioRuntime

from .runtime_kit import (
    HAS_EPOLL,
    HAS_UVLOOP,
    AnyRuntime,
    EveryRung,
    Signal,
    ThreadToo,
    library,
    started_anywhere,
    tell,
    within,
)


class TestARunThatDies(ThreadToo):
    async def test_fails_the_calls_in_flight_and_can_be_started_again(
        self, rung: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        runtime = await started_anywhere(*rung)
        inside, visited = Signal(), Signal()
        visit_ended: list[str] = []

        async def visit() -> None:
            visited.set()
            try:
                await asyncio.sleep(3600)
            finally:
                visit_ended.append(library())

        async def waits() -> None:
            inside.set()
            await trio.sleep_forever()

        async def token() -> trio.lowlevel.TrioToken:
            return trio.lowlevel.current_trio_token()

        def breaks() -> None:
            raise ValueError("an internal error of trio")

        in_flight = [
            asyncio.ensure_future(runtime.run(waits)),
            asyncio.ensure_future(runtime.run(lambda: runtime.run_in_host(visit))),
        ]
        await inside.wait()
        await visited.wait()
        way_in = await runtime.run(token)
        with caplog.at_level(logging.ERROR):
            way_in.run_sync_soon(breaks)
            results = await within(10, lambda: asyncio.gather(*in_flight, return_exceptions=True))
            while runtime.running:
                await asyncio.sleep(0.001)
        assert all(isinstance(result, (ToolUnavailable, CallCancelled)) for result in results)
        said = "ended with an error" if runtime.rung == "thread" else "ended by itself"
        assert said in caplog.text
        assert "an internal error of trio" in caplog.text
        await asyncio.sleep(0.01)
        assert visit_ended == ["asyncio"]
        assert not runtime.running
        with pytest.raises(ToolUnavailable):
            await runtime.run(trio.lowlevel.checkpoint)

        if isinstance(runtime, TrioRuntime):
            await runtime.start()
            assert runtime.rung == rung[0]
            await runtime.run(trio.lowlevel.checkpoint)
        await runtime.aclose()


async def _leaves_a_nursery() -> int:
    await trio.open_nursery().__aenter__()
    return 1


async def _leaves_a_generator_with_a_nursery() -> int:
    async def numbers() -> AsyncIterator[int]:
        async with trio.open_nursery():
            yield 1

    async for number in numbers():
        return number
    raise AssertionError


async def _leaves_a_task_that_fails() -> int:
    async def fails() -> None:
        raise ValueError("left behind")

    own = trio.lowlevel.current_task().parent_nursery
    assert own is not None
    own.start_soon(fails)
    return 1


async def _cancels_what_it_runs_in() -> int:
    own = trio.lowlevel.current_task().parent_nursery
    assert own is not None
    own.cancel_scope.cancel()
    return 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestAToolThatLeavesItsMessToTrio(ThreadToo):
    @pytest.mark.parametrize(
        ("tool", "logged"),
        [
            (_leaves_a_nursery, True),
            (_leaves_a_generator_with_a_nursery, True),
            (_leaves_a_task_that_fails, True),
            (_cancels_what_it_runs_in, False),
        ],
    )
    async def test_harms_no_other_call(
        self, runtime: AnyRuntime, tool: Any, logged: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        go, inside = trio.Event(), Signal()

        async def waits() -> str:
            inside.set()
            await go.wait()
            return "answered"

        in_flight = asyncio.ensure_future(runtime.run(waits))
        await inside.wait()
        with caplog.at_level(logging.ERROR):
            assert await runtime.run(tool) == 1
            for _ in range(3):
                await runtime.run(trio.lowlevel.checkpoint)
        if tool in (_leaves_a_nursery, _leaves_a_generator_with_a_nursery):
            # Older ones do not notice.
            logged = version("trio") >= "0.31"
        assert ("has left a task or a nursery behind" in caplog.text) == logged
        tell(runtime, go.set)
        assert await within(10, lambda: in_flight) == "answered"
        assert runtime.running
        await runtime.aclose()
        gc.collect()


class TestTheThreadOfTheHost(EveryRung):
    async def test_has_one_run_of_trio_and_says_so(self, runtime: TrioRuntime, rung: Any) -> None:
        other = TrioRuntime(rung[0])
        with pytest.raises(ToolUnavailable, match="Another run of trio"):
            await other.start()
        assert not other.running
        await runtime.aclose()
        # What the thread was doing then is not held against the driver.
        await other.start()
        assert other.rung == rung[0]
        await other.aclose()


ABANDON = """
    import asyncio, logging, sys, warnings
    import trio
    from mcpd_core.runtimes import TrioRuntime

    logging.basicConfig(format="%(message)s")
    rung, loop_name, way = sys.argv[1:]
    if loop_name == "uvloop":
        import uvloop as loops
    else:
        loops = asyncio

    async def tool():
        try:
            await trio.sleep_forever()
        finally:
            print("cleaned up")

    async def main():
        global runtime, task
        runtime = TrioRuntime(rung)
        await runtime.start()
        assert runtime.rung == rung
        assert type(asyncio.get_running_loop()).__module__.startswith(loop_name)
        task = asyncio.ensure_future(runtime.run(tool))
        await asyncio.sleep(0.05)

    if way == "run":
        if sys.version_info < (3, 12) and loop_name == "uvloop":
            loops.install()
            asyncio.run(main())
        else:
            loops.run(main())
    else:
        loop = loops.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        del loop
    print("ended")
    trio.run(trio.sleep, 0)
    print("trio runs")
"""

PLACES = [
    pytest.param(
        rung,
        loop,
        id=f"{rung}-{loop}",
        marks=pytest.mark.skipif(
            (loop == "uvloop" and not HAS_UVLOOP) or (rung == "fused" and not HAS_EPOLL),
            reason="cannot be had here",
        ),
    )
    for rung in ("fused", "guest")
    for loop in ("asyncio", "uvloop")
]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(("rung", "loop"), PLACES)
def test_a_host_that_ends_without_closing_the_runtime_is_told_and_tools_clean_up(
    rung: str, loop: str
) -> None:
    done = run(ABANDON, rung, loop, "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["cleaned up", "ended", "trio runs"]
    assert "The host's loop ends while the trio runtime runs" in done.stderr


@pytest.mark.skipif(not HAS_EPOLL, reason="the fused driver needs epoll")
@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=PLACES[1].marks)])
def test_a_loop_that_is_closed_under_a_fused_run_leaves_the_thread_able_to_run_trio(
    loop: str,
) -> None:
    done = run(ABANDON, "fused", loop, "close")
    assert {"ended", "trio runs"} <= set(done.stdout.splitlines()), done.stderr
    assert "Trio guest run got abandoned" in done.stderr
    assert "The host's loop was closed before the trio runtime was" in done.stderr


def test_a_loop_that_is_closed_under_a_run_in_guest_mode_does_not_keep_the_runtime_started() -> (
    None
):
    again = """
    async def again():
        try:
            await runtime.start()
        except Exception as error:
            print(type(error).__name__, error)
    asyncio.run(again())
    """
    program = ABANDON.partition('    print("ended")')[0] + again
    done = run(program, "guest", "asyncio", "close")
    # trio's guest mode leaves the thread behind as if it were in the run still.
    assert done.stdout.startswith("ToolUnavailable Another run of trio"), done.stderr


DIES = """
    import asyncio, sys
    import trio
    from mcpd_core.runtimes import TrioRuntime

    rung, loop_name, when = sys.argv[1:]

    async def main():
        runtime = TrioRuntime(rung)
        await runtime.start()
        assert runtime.rung == rung
        assert type(asyncio.get_running_loop()).__module__.startswith(loop_name)
        inside, visited = asyncio.Event(), asyncio.Event()

        async def visit():
            visited.set()
            try:
                await asyncio.sleep(3600)
            finally:
                print("the visit was cancelled")

        async def waits():
            inside.set()
            await trio.sleep_forever()

        async def breaks():
            with trio.CancelScope() as scope:
                if when == "at once":
                    scope.cancel()
                else:
                    scope.deadline = trio.current_time() + 0.01
                # What trio calls to abort the wait has to answer whether it did.
                await trio.lowlevel.wait_task_rescheduled(lambda _: None)

        gate = runtime.gate()
        calls = [waits, lambda: runtime.run_in_host(visit), gate.wait]
        tasks = [asyncio.ensure_future(runtime.run(call)) for call in calls]
        await inside.wait()
        await visited.wait()
        tasks.append(asyncio.ensure_future(runtime.run(breaks)))
        for result in await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20):
            print(type(result).__name__, "ended by itself" in str(result))
        assert not runtime.running
        await runtime.start()
        # Whoever waits for it belongs to the run that died.
        gate.open()
        await runtime.run(trio.lowlevel.checkpoint)
        await runtime.aclose()
        print("runs again")

    if loop_name == "uvloop":
        import uvloop
        uvloop.install()
    asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize(("rung", "loop"), PLACES)
def test_a_run_that_dies_within_a_step_lets_nobody_wait_for_the_tasks_that_it_left(
    rung: str, loop: str, when: str
) -> None:
    # In a process of its own: what is left of such a run complains when it is collected.
    done = run(DIES, rung, loop, when)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said.count("ToolUnavailable True") == 4
    assert "the visit was cancelled" in said
    assert said[-1] == "runs again"
