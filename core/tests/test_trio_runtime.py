"""The promises of the trio runtime, on every rung and every loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import warnings
import weakref
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.lowlevel
import trio.testing

from mcpd_core.errors import CallCancelled, WrongLibrary
from mcpd_core.runtimes import AsyncioRuntime, TrioRuntime
from mcpd_core.runtimes.trio_drivers import Choice
from mcpd_core.testing import RuntimeConformance

from .runtime_kit import (
    AnyRuntime,
    EveryRung,
    Signal,
    ThreadToo,
    in_trio_task,
    library,
    needs_epoll,
    started,
    started_anywhere,
    turns,
)

where = contextvars.ContextVar("where", default="nowhere")


class TestTheTrioRuntime(EveryRung, RuntimeConformance):
    def is_inside(self) -> bool:
        return library() == "trio"


class TestBothLibrariesInOneThread(ThreadToo):
    async def test_each_side_is_known_for_what_it_is_at_any_depth(
        self, runtime: AnyRuntime
    ) -> None:
        seen: list[str] = []

        async def go(level: int) -> None:
            seen.append(library())
            await anyio.lowlevel.checkpoint()
            seen.append(library())
            if level:
                cross = runtime.run if level % 2 == 0 else runtime.run_in_host
                await cross(lambda: go(level - 1))
            seen.append(library())

        await go(6)
        assert seen[:6] == ["asyncio", "asyncio", "trio", "trio", "asyncio", "asyncio"]
        assert library() == "asyncio"

    async def test_context_variables_go_to_the_host_and_do_not_come_back(
        self, runtime: AnyRuntime
    ) -> None:
        async def in_asyncio() -> str:
            seen = where.get()
            where.set("asyncio")
            await asyncio.sleep(0)
            return seen

        async def in_trio() -> tuple[str, str]:
            where.set("trio")
            return await runtime.run_in_host(in_asyncio), where.get()

        where.set("caller")
        assert await runtime.run(in_trio) == ("trio", "trio")
        assert where.get() == "caller"

    async def test_nothing_of_the_context_of_the_start_is_in_a_later_call(
        self, runtime: AnyRuntime
    ) -> None:
        async def tool() -> str:
            return where.get()

        assert await contextvars.Context().run(asyncio.ensure_future, runtime.run(tool)) == (
            "nowhere"
        )

    async def test_threads_and_processes_of_trio_work(self, runtime: AnyRuntime) -> None:
        async def tool() -> bytes:
            def in_a_thread() -> str:
                trio.from_thread.run(trio.sleep, 0.001)
                return trio.from_thread.run_sync(library)

            assert await trio.to_thread.run_sync(in_a_thread) == "trio"
            assert await anyio.to_thread.run_sync(lambda: 1) == 1
            done = await trio.run_process([sys.executable, "-c", "print(1)"], capture_stdout=True)
            return done.stdout.strip()

        assert await runtime.run(tool) == b"1"

    async def test_anyios_threads_work_in_an_asyncio_tool_beside_trio(
        self, runtime: AnyRuntime
    ) -> None:
        async def tool() -> int:
            return await anyio.to_thread.run_sync(lambda: 1)

        assert await runtime.run(lambda: runtime.run_in_host(tool)) == 1

    async def test_a_call_from_another_thread_wakes_an_idle_run(self, runtime: AnyRuntime) -> None:
        token = await runtime.run(_token)
        await asyncio.sleep(0.02)
        done = Signal()
        await asyncio.to_thread(token.run_sync_soon, done.set)
        await done.wait()

    async def test_waiting_until_all_tasks_are_blocked_works(self, runtime: AnyRuntime) -> None:
        async def tool() -> list[int]:
            seen: list[int] = []

            async def steps() -> None:
                for number in range(5):
                    await trio.lowlevel.checkpoint()
                    seen.append(number)
                await trio.sleep_forever()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(steps)
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
            return seen

        assert await runtime.run(tool) == [0, 1, 2, 3, 4]

    async def test_a_task_is_named_after_the_tool_it_runs(self, runtime: AnyRuntime) -> None:
        async def a_tool(number: int) -> str:
            return trio.lowlevel.current_task().name

        assert (await runtime.run(partial(a_tool, 1))).endswith("a_tool")


async def _token() -> Any:
    return trio.lowlevel.current_trio_token()


class TestWhatAToolRaises(ThreadToo):
    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
    async def test_an_exit_of_an_asyncio_tool_arrives_in_trio_and_the_loop_lives_on(
        self, runtime: AnyRuntime, error: BaseException
    ) -> None:
        async def leaves() -> None:
            await asyncio.sleep(0)
            raise error

        async def caller() -> bool:
            with pytest.raises(type(error)):
                await runtime.run_in_host(leaves)
            return True

        assert await runtime.run(caller)

    async def test_a_group_arrives_as_it_was_raised(self, runtime: AnyRuntime) -> None:
        async def fails(error: Exception) -> None:
            raise error

        async def tool() -> None:
            async with trio.open_nursery() as outer:
                outer.start_soon(fails, KeyError("outer"))
                async with trio.open_nursery() as inner:
                    inner.start_soon(fails, ValueError("inner"))

        error = await _raised(runtime.run(tool))
        kinds = {type(leaf) for leaf in _leaves(error)}
        assert kinds == {KeyError, ValueError}

    async def test_a_cancellation_of_trio_in_a_group_stays_in_trio(
        self, runtime: AnyRuntime
    ) -> None:
        begun = Signal()

        async def tool() -> None:
            async def fails_while_cancelled() -> None:
                begun.set()
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("in the clean-up")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails_while_cancelled)
                nursery.start_soon(trio.sleep_forever)

        task = asyncio.ensure_future(runtime.run(tool))
        await begun.wait()
        await runtime.aclose()
        error = await _raised(task)
        assert not any(isinstance(leaf, trio.Cancelled) for leaf in _leaves(error))
        assert [type(leaf) for leaf in _leaves(error)] == [ValueError]

    async def test_a_cancelled_error_of_an_asyncio_tool_never_reaches_trio(
        self, runtime: AnyRuntime
    ) -> None:
        async def tool() -> None:
            raise asyncio.CancelledError

        async def caller() -> str:
            try:
                await runtime.run_in_host(tool)
            except CallCancelled:
                return "told apart"
            return "not told"

        assert await runtime.run(caller) == "told apart"

    async def test_arguments_are_freed_without_the_garbage_collector(
        self, runtime: AnyRuntime
    ) -> None:
        class Argument:
            pass

        async def returns(_: Argument) -> None:
            await anyio.lowlevel.checkpoint()

        async def fails(_: Argument) -> None:
            await anyio.lowlevel.checkpoint()
            raise KeyError("gone")

        async def visits(argument: Argument) -> None:
            await runtime.run_in_host(partial(returns, argument))
            try:
                await runtime.run_in_host(partial(fails, argument))
            except KeyError:
                pass

        gc.collect()
        gc.disable()
        try:
            for tool in (returns, fails, visits):
                argument = Argument()
                reference = weakref.ref(argument)
                try:
                    await runtime.run(partial(tool, argument))
                except KeyError:
                    pass
                del argument
                # asyncio and trio let go of a task in the turn after its end.
                await turns(3)
                await runtime.run(trio.lowlevel.checkpoint)
                assert reference() is None, tool.__name__
        finally:
            gc.enable()

    async def test_an_error_of_the_clean_up_that_nobody_hears_of_is_freed_at_once(
        self, runtime: AnyRuntime
    ) -> None:
        class Failure(Exception):
            pass

        failures: list[weakref.ref[Failure]] = []

        begun = Signal()

        async def fails_in_its_clean_up() -> None:
            begun.set()
            try:
                await trio.sleep_forever()
            finally:
                failure = Failure()
                failures.append(weakref.ref(failure))
                try:
                    raise failure
                finally:
                    del failure

        call = asyncio.ensure_future(runtime.run(fails_in_its_clean_up))
        await begun.wait()
        gc.disable()
        try:
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            del call
            await runtime.run(trio.lowlevel.checkpoint)
            assert [failure() for failure in failures] == [None]
        finally:
            gc.enable()


async def _raised(work: Any) -> BaseException:
    try:
        await work
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return error
    raise AssertionError("nothing was raised")


def _leaves(error: BaseException) -> list[BaseException]:
    parts = getattr(error, "exceptions", None)
    return [error] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


class TestTheWrongLibrary(ThreadToo):
    async def test_asyncio_in_a_trio_tool_is_named_and_others_are_unaffected(
        self, runtime: AnyRuntime
    ) -> None:
        async def sleeps() -> None:
            await asyncio.sleep(0.01)

        async def right() -> bool:
            await trio.sleep(0.001)
            return in_trio_task()

        beside = asyncio.ensure_future(runtime.run(right))
        with pytest.raises(
            WrongLibrary, match=r"runs in trio and used asyncio in sleeps"
        ) as caught:
            await runtime.run(sleeps)
        assert "runtime='asyncio'" in caught.value.hint
        # What asyncio says depends on whether a loop of its runs in the thread.
        kind = RuntimeError if runtime.rung == "thread" else TypeError
        assert isinstance(caught.value.__cause__, kind)
        assert await beside
        assert await runtime.run(right)

    async def test_trio_in_an_asyncio_tool_is_named(self, runtime: AnyRuntime) -> None:
        async def sleeps() -> None:
            await trio.sleep(0.01)

        async def checks() -> None:
            await trio.lowlevel.cancel_shielded_checkpoint()

        for tool in (sleeps, checks):
            with pytest.raises(
                WrongLibrary, match=f"runs in asyncio and used trio in {tool.__name__}"
            ):
                await AsyncioRuntime().run(tool)
            with pytest.raises(WrongLibrary, match="runs in asyncio and used trio"):
                await runtime.run(partial(runtime.run_in_host, tool))

    async def test_an_error_that_only_looks_similar_is_left_alone(
        self, runtime: AnyRuntime
    ) -> None:
        async def fails() -> None:
            raise RuntimeError("something else")

        with pytest.raises(RuntimeError, match=r"^something else$"):
            await runtime.run(fails)


class TestTheThreadOfTheHost(EveryRung):
    @pytest.mark.parametrize("runs_in", ["asyncio", "trio"])
    async def test_a_loop_in_it_is_refused_by_name(
        self, runtime: TrioRuntime, runs_in: str
    ) -> None:
        async def runs_trio() -> None:
            trio.run(trio.sleep, 0)

        async def runs_asyncio() -> None:
            work = asyncio.sleep(0)
            try:
                asyncio.run(work)
            finally:
                work.close()

        run = runtime.run if runs_in == "trio" else AsyncioRuntime().run
        for tool, call in ((runs_trio, "trio.run"), (runs_asyncio, "asyncio.run")):
            with pytest.raises(WrongLibrary, match=rf"called {call} in the server's thread"):
                await run(tool)


class TestAsynchronousGenerators(ThreadToo):
    @pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
    async def test_what_is_abandoned_is_finalised_in_its_own_library(self, rung: Any) -> None:
        # Not the fixture: anyio runs it in another run of the loop, and each run of a loop installs
        # the hooks of asyncio anew.
        runtime = await started_anywhere(*rung)
        closed: dict[str, str] = {}

        async def numbers(name: str) -> Any:
            try:
                while True:
                    yield 1
                    await anyio.lowlevel.checkpoint()
            finally:
                closed[name] = library()

        async def abandon(name: str) -> None:
            async for _ in numbers(name):
                break

        async def caller() -> None:
            await abandon("of trio")
            await runtime.run_in_host(partial(abandon, "of a visit"))

        await runtime.run(caller)
        await abandon("of the host")
        gc.collect()
        await turns(5)
        await runtime.run(partial(trio.sleep, 0.01))
        await runtime.aclose()
        assert closed == {"of trio": "trio", "of a visit": "asyncio", "of the host": "asyncio"}


@pytest.mark.parametrize("rung", [pytest.param("fused", marks=needs_epoll), "guest"])
def test_a_generator_is_finalised_in_trio_when_the_loop_has_been_run_again(rung: Choice) -> None:
    ended_in = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended_in.append(library())

    async def tool() -> None:
        async for _ in numbers():
            break
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()

    # The loop sets hooks of its own each time that it begins to run.
    loop = asyncio.new_event_loop()
    runtime = loop.run_until_complete(started(rung))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.run_until_complete(runtime.run(tool))
    loop.run_until_complete(runtime.aclose())
    loop.close()
    assert ended_in == ["trio"]
    assert sys.get_asyncgen_hooks() == (None, None)


def test_trio_is_not_imported_before_a_runtime_starts() -> None:
    probe = (
        "import sys; from mcpd_core.runtimes import TrioRuntime; TrioRuntime();"
        "sys.exit('trio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
