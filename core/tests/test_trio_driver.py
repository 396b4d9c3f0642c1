"""How trio is moved on: the ladder of drivers, eager steps, timers, descriptors and fairness."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import select
import socket
import sys
import threading
import time
import types
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
import trio
import trio.lowlevel

from mcpd_core.errors import ToolUnavailable
from mcpd_core.runtimes import TrioRuntime, trio_drivers, trio_private
from mcpd_core.runtimes.trio_fused import FusedDriver
from mcpd_core.runtimes.trio_private import Obstacle

from .runtime_kit import (
    AnyRuntime,
    EveryRung,
    Fused,
    ThreadToo,
    library,
    needs_epoll,
    on_uvloop,
    started,
    turns,
    within,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class TestTheLadder:
    """Which driver is chosen, and what is said about it."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(autouse=True)
    def untold(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(trio_drivers, "_told", set())
        trio_private.self_test.cache_clear()
        yield
        trio_private.self_test.cache_clear()

    @needs_epoll
    async def test_the_first_rung_is_taken_where_the_self_test_passes(self) -> None:
        assert trio_private.obstacle() is None
        runtime = await chosen()
        assert runtime.rung == "fused"
        await runtime.aclose()

    @needs_epoll
    async def test_a_failing_self_test_falls_to_guest_mode_with_one_warning(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def begin(*_: Any) -> Any:
            raise AttributeError("module 'trio._core._run' has no attribute 'setup_runner'")

        monkeypatch.setattr(trio_private, "begin", begin)
        for _ in range(2):
            runtime = await chosen()
            assert runtime.rung == "guest"
            assert await runtime.run(_library) == "trio"
            await runtime.aclose()
        (record,) = [record for record in caplog.records if record.name.startswith("mcpd")]
        assert record.levelno == logging.WARNING
        assert "the self-test failed: module 'trio._core._run' has no" in record.getMessage()
        with pytest.raises(ToolUnavailable, match="cannot be driven without a thread") as caught:
            await TrioRuntime("fused").start()
        assert "[runtimes]" in caught.value.hint

    @needs_epoll
    @pytest.mark.parametrize("version", ["0.26.2", "0.36.0", "1.0.0", "unknown"])
    async def test_an_untested_trio_runs_in_guest_mode_unless_the_operator_says_otherwise(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
    ) -> None:
        monkeypatch.setattr(trio, "__version__", version)
        runtime = await chosen()
        assert runtime.rung == "guest"
        await runtime.aclose()
        assert f"trio {version} was not tested; 0.27 up to before 0.36 was" in caplog.text
        await (await started("fused")).aclose()

    async def test_a_platform_without_epoll_runs_in_guest_mode_by_design(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(trio_private, "select", types.SimpleNamespace())
        obstacle = trio_private.obstacle()
        assert obstacle is not None
        assert obstacle.by_design
        with caplog.at_level(logging.INFO):
            runtime = await chosen()
        assert runtime.rung == "guest"
        await runtime.aclose()
        (record,) = [record for record in caplog.records if record.name.startswith("mcpd")]
        assert record.levelno == logging.INFO
        assert f"{sys.platform} has no epoll" in record.getMessage()

    @pytest.mark.parametrize(
        ("version", "tested"),
        [
            ("0.27.0", True),
            ("0.35.0+dev", True),
            ("0.26.9", False),
            ("0.36.0", False),
            ("x", False),
        ],
    )
    def test_a_release_is_tested_or_not(self, version: str, tested: bool) -> None:
        assert trio_private.was_tested(version) is tested

    @needs_epoll
    @pytest.mark.parametrize(
        ("break_it", "problem"),
        [
            ("never wakes", "a task that was started from outside did not wake the run"),
            ("never readable", "a call from another thread does not make the run readable"),
            ("never waits", "an idle run wants to be stepped"),
        ],
    )
    async def test_the_self_test_says_what_does_not_behave(
        self, monkeypatch: pytest.MonkeyPatch, break_it: str, problem: str
    ) -> None:
        begin, silent = trio_private.begin, select.epoll()

        def broken(main: Any, wake: Any) -> Any:
            run, steps = begin(main, (lambda: None) if break_it == "never wakes" else wake)
            if break_it == "never readable":
                run = trio_private.Hosted(run.queue, run.poll, silent.fileno())
            if break_it == "never waits":
                return run, _Steps(steps, lambda _: 0.0)
            return run, steps

        monkeypatch.setattr(trio_private, "begin", broken)
        obstacle = trio_private.obstacle()
        assert obstacle is not None
        assert problem in obstacle.reason
        silent.close()
        monkeypatch.undo()
        trio_private.self_test.cache_clear()
        assert trio_private.obstacle() is None

    @needs_epoll
    def test_the_self_test_takes_no_part_in_a_run_that_is_under_way(self) -> None:
        async def main() -> Obstacle | None:
            return trio_private.self_test.__wrapped__()

        obstacle = trio.run(main)
        assert obstacle is not None
        assert "run() from inside a run()" in obstacle.reason


class _Steps:
    """The steps of a run, with something done to what they yield."""

    def __init__(self, steps: Any, change: Any) -> None:
        self._steps, self._change = steps, change

    def send(self, events: Any) -> float:
        return self._change(self._steps.send(events))

    def close(self) -> None:
        self._steps.close()


async def chosen() -> TrioRuntime:
    runtime = TrioRuntime()
    await runtime.start()
    return runtime


async def _library() -> str:
    return library()


class TestEagerSteps(Fused):
    async def test_a_tool_that_waits_for_nothing_answers_without_a_turn_of_the_loop(
        self, runtime: TrioRuntime
    ) -> None:
        turned: list[bool] = []
        await turns(2)
        asyncio.get_running_loop().call_soon(turned.append, True)
        task = asyncio.current_task()
        assert await runtime.run(_library) == "trio"
        assert not turned
        assert asyncio.current_task() is task
        assert library() == "asyncio"

    async def test_the_task_is_itself_again_after_an_exception(self, runtime: TrioRuntime) -> None:
        async def fails() -> None:
            raise KeyError

        task = asyncio.current_task()
        with pytest.raises(KeyError):
            await runtime.run(fails)
        assert asyncio.current_task() is task
        assert library() == "asyncio"

    async def test_a_caller_that_calls_and_calls_lets_the_others_run(
        self, runtime: TrioRuntime
    ) -> None:
        done = False
        most = 0

        async def other() -> None:
            nonlocal most
            before = 0
            while not done:
                await asyncio.sleep(0)
                most = max(most, calls - before)
                before = calls

        calls = 0

        async def count() -> None:
            nonlocal calls
            calls += 1

        async def busy() -> None:
            for _ in range(500):
                await runtime.run(count)

        beside = asyncio.ensure_future(other())
        await busy()
        done = True
        await beside
        assert calls == 500
        assert 0 < most < 50

    async def test_a_call_made_while_a_step_runs_is_queued(self, runtime: TrioRuntime) -> None:
        loop = asyncio.get_running_loop()
        order = []

        async def inner() -> None:
            order.append("inner")

        async def tool() -> asyncio.Task[None]:
            # As an eager task factory does: the first step of an asyncio task inside one of trio.
            work = runtime.run(inner)
            pending = work.send(None)
            order.append("tool")

            @types.coroutine
            def rest() -> Generator[Any, None, None]:
                yield pending
                yield from work.__await__()

            async def task() -> None:
                await rest()

            return loop.create_task(task())

        await (await runtime.run(tool))
        assert order == ["tool", "inner"]

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
    async def test_eager_tasks_of_the_host_do_not_run_inside_of_trio(
        self, runtime: TrioRuntime
    ) -> None:
        if on_uvloop():
            pytest.skip("uvloop hands eager tasks an argument that they do not take")
        loop = asyncio.get_running_loop()
        factory = loop.get_task_factory()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        try:

            async def caller() -> str:
                return await runtime.run_in_host(_library)

            assert await asyncio.create_task(runtime.run(caller)) == "asyncio"
            assert await asyncio.create_task(runtime.run(_library)) == "trio"
            assert library() == "asyncio"
        finally:
            loop.set_task_factory(factory)

    async def test_calls_that_wait_are_started_together_after_the_first(
        self, runtime: TrioRuntime
    ) -> None:
        steps = Steps()
        await runtime.run(partial(_add_instrument, steps))
        await asyncio.gather(*(runtime.run(partial(trio.sleep, 0.01)) for _ in range(50)))
        assert steps.number < 25


class Steps(trio.abc.Instrument):
    """Counts the steps of a run."""

    def __init__(self) -> None:
        self.number = 0

    def before_io_wait(self, timeout: float) -> None:
        self.number += 1


async def _add_instrument(instrument: trio.abc.Instrument) -> None:
    trio.lowlevel.add_instrument(instrument)


class TestTimers(EveryRung):
    async def test_an_earlier_deadline_is_met_while_a_later_one_is_waited_for(
        self, runtime: TrioRuntime
    ) -> None:
        late = asyncio.ensure_future(runtime.run(partial(trio.sleep, 3600)))
        await turns(3)
        await within(10, lambda: runtime.run(partial(trio.sleep, 0.02)))
        await within(10, lambda: runtime.run(partial(trio.sleep, 0.01)))
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)

    async def test_a_deadline_can_be_moved_from_the_asyncio_side(
        self, runtime: TrioRuntime
    ) -> None:
        scopes: list[trio.CancelScope] = []
        inside = asyncio.Event()

        async def tool() -> float:
            with trio.move_on_after(3600) as scope:
                scopes.append(scope)
                inside.set()
                await trio.sleep_forever()
            return trio.current_time()

        task = asyncio.ensure_future(runtime.run(tool))
        await inside.wait()
        deadline = scopes[0].deadline
        scopes[0].deadline = deadline + 3600
        await asyncio.sleep(0.02)
        assert not task.done()
        scopes[0].deadline = wanted = trio.current_time() + 0.02
        assert await asyncio.wait_for(task, 10) >= wanted

    @pytest.mark.parametrize("seconds", [1e9, math.inf, 25 * 3600])
    async def test_very_distant_deadlines_are_waited_for(
        self, runtime: TrioRuntime, seconds: float
    ) -> None:
        async def tool() -> str:
            with trio.move_on_after(seconds):
                await runtime.run_in_host(partial(asyncio.sleep, 0.01))
                return "not cancelled"
            raise AssertionError

        assert await runtime.run(tool) == "not cancelled"

    async def test_a_sleep_is_never_too_short_and_next_to_nothing_late(
        self, runtime: TrioRuntime
    ) -> None:
        async def tool() -> float:
            start = time.monotonic()
            for _ in range(20):
                await trio.sleep(0.002)
            return time.monotonic() - start

        slept = await runtime.run(tool)
        assert 0.04 <= slept < 5


class TestDescriptors(ThreadToo):
    async def test_a_thousand_connections_come_and_go(self, runtime: AnyRuntime) -> None:
        descriptors = set()

        async def serve(stream: trio.SocketStream) -> None:
            descriptors.add(stream.socket.fileno())
            async with stream:
                await stream.send_all(await stream.receive_some(10))

        async def tool() -> int:
            answers = 0
            async with trio.open_nursery() as nursery:
                (listener,) = await nursery.start(
                    partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
                )
                port = listener.socket.getsockname()[1]
                for number in range(1000):
                    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                        await stream.send_all(b"%d" % number)
                        answers += await stream.receive_some(10) == b"%d" % number
                        # Descriptors of the host come and go with the same numbers.
                        if number % 50 == 0:
                            await runtime.run_in_host(partial(_host_connection, port))
                nursery.cancel_scope.cancel()
            return answers

        with anyio.fail_after(50):
            assert await runtime.run(tool) == 1000
        assert len(descriptors) < 100, "descriptors were not reused"


class TestTheFusedDriver(Fused):
    async def test_needs_no_thread_and_takes_no_step_while_nothing_happens(
        self, runtime: TrioRuntime
    ) -> None:
        steps = Steps()
        threads = threading.active_count()
        waiting = asyncio.ensure_future(runtime.run(trio.sleep_forever))
        await runtime.run(partial(_add_instrument, steps))
        await turns(3)
        before = steps.number
        await asyncio.sleep(0.2)
        assert steps.number == before
        assert threading.active_count() == threads
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    async def test_has_one_timer_whatever_the_deadlines(self, runtime: TrioRuntime) -> None:
        loop = asyncio.get_running_loop()
        made: list[asyncio.TimerHandle] = []
        call_later = loop.call_later

        def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            made.append(call_later(*args, **kwargs))
            return made[-1]

        driver: Any = runtime.driver
        driver._loop = _Loop(loop, counted)

        async def tool(seconds: float) -> None:
            with trio.move_on_after(seconds):
                await trio.lowlevel.checkpoint()

        for number in range(1000):
            await runtime.run(partial(tool, 30 + number))
        for number in range(10):
            await runtime.run(partial(tool, 20 - number))
        assert len([timer for timer in made if not timer.cancelled()]) <= 1
        assert len(made) < 20

    async def test_leaves_no_descriptor_behind(self, anyio_backend: Any) -> None:
        await (await started("fused")).aclose()
        before = sorted(os.listdir("/proc/self/fd"))
        for _ in range(20):
            runtime = await started("fused")
            await runtime.run(_library)
            await runtime.aclose()
            # The numbers are taken at once by somebody else, who must not be heard of.
            pair = socket.socketpair()
            pair[0].send(b"x")
            await turns(2)
            for end in pair:
                end.close()
        assert sorted(os.listdir("/proc/self/fd")) == before

    async def test_a_turn_that_comes_after_the_end_finds_nothing_to_do(
        self, runtime: TrioRuntime
    ) -> None:
        troubles: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: troubles.append(what))
        await runtime.aclose()
        assert isinstance(runtime.driver, FusedDriver)
        runtime.driver._turn()
        await turns(2)
        assert troubles == []

    async def test_neither_library_starves_the_other(self, runtime: TrioRuntime) -> None:
        stop = False
        counts = {"asyncio": 0, "trio": 0}

        async def spin(checkpoint: Any, name: str) -> None:
            while not stop:
                counts[name] += 1
                await checkpoint()

        spinners = [
            asyncio.ensure_future(spin(partial(asyncio.sleep, 0), "asyncio")) for _ in range(3)
        ] + [
            asyncio.ensure_future(runtime.run(partial(spin, trio.lowlevel.checkpoint, "trio")))
            for _ in range(3)
        ]
        await turns(5)

        async def probe() -> None:
            for _ in range(20):
                await trio.sleep(0.001)
            left, right = trio.socket.socketpair()
            for _ in range(20):
                await left.send(b"x")
                assert await right.recv(1) == b"x"
            left.close()
            right.close()

        await within(20, lambda: runtime.run(probe))
        for _ in range(20):
            await asyncio.sleep(0.001)
        stop = True
        await asyncio.gather(*spinners)
        assert min(counts.values()) * 10 > max(counts.values())

    async def test_the_turns_of_a_busy_run_do_not_multiply(self, runtime: TrioRuntime) -> None:
        """Each readable descriptor and each eager call steps a busy run out of turn."""
        steps, stop = Steps(), False

        async def spin() -> None:
            while not stop:
                await trio.lowlevel.checkpoint()

        async def chatter() -> None:
            left, right = trio.socket.socketpair()
            with left, right:
                for _ in range(200):
                    await left.send(b"x")
                    await right.recv(1)

        spinner = asyncio.ensure_future(runtime.run(spin))
        await runtime.run(chatter)
        await runtime.run(partial(_add_instrument, steps))
        before = steps.number
        await turns(100)
        assert steps.number - before <= 110
        stop = True
        await spinner


class _Loop:
    """A loop whose timers are counted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call_later: Any) -> None:
        self._loop, self.call_later = loop, call_later

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


async def _host_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"host")
    assert await reader.read(10) == b"host"
    writer.close()
    await writer.wait_closed()
