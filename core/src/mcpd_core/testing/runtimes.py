"""The promises of a runtime, as tests to inherit.

A runtime of your own is tested by a subclass that says how to get one::

    class TestMyRuntime(RuntimeConformance):
        @pytest.fixture
        async def runtime(self) -> AsyncIterator[Runtime]:
            runtime = MyRuntime()
            await runtime.start()
            yield runtime
            await runtime.aclose()

        def is_inside(self) -> bool:
            return sniffio.current_async_library() == "trio"

The host's side of every test is asyncio. The code that runs inside the runtime waits with anyio,
which therefore has to know the library that the runtime drives.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from ..errors import CallCancelled, ToolUnavailable
from ..runtimes import Expired, Runtime

Run = Callable[..., Coroutine[Any, Any, Any]]

where = contextvars.ContextVar("where", default="nowhere")


async def shielded_sleep(seconds: float) -> None:
    """Clean up for some time, undisturbed by what was cancelled."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(seconds)


@dataclass(frozen=True)
class Way:
    """A way from code on the host's loop to code in a runtime.

    :ivar run: takes a function and a ``deadline``, as `Runtime.run` does.
    :ivar is_inside: tells, in the function, whether it runs where it should.
    :ivar clean_up: takes some seconds although the function was cancelled.
    """

    run: Run
    is_inside: Callable[[], bool]
    clean_up: Callable[[float], Awaitable[None]] = shielded_sleep


class CallConformance:
    """What is promised to whoever runs a function in a runtime; a subclass defines ``way``."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def test_a_value_comes_back_from_the_library_it_was_made_in(self, way: Way) -> None:
        async def tool() -> tuple[bool, str]:
            await anyio.lowlevel.checkpoint()
            return way.is_inside(), "value"

        assert await way.run(tool) == (True, "value")

    async def test_an_error_arrives_with_its_traceback_and_the_tool_ran_once(
        self, way: Way
    ) -> None:
        runs = []

        async def the_tool_that_fails() -> None:
            runs.append(1)
            await anyio.lowlevel.checkpoint()
            raise KeyError("lost")

        with pytest.raises(KeyError, match="lost") as caught:
            await way.run(the_tool_that_fails)
        assert "the_tool_that_fails" in "".join(traceback.format_tb(caught.value.__traceback__))
        assert runs == [1]

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
    async def test_an_exit_of_a_tool_is_an_error_like_any_and_the_runtime_lives_on(
        self, way: Way, error: BaseException
    ) -> None:
        async def leaves() -> None:
            raise error

        async def stays() -> bool:
            return way.is_inside()

        with pytest.raises(type(error)):
            await way.run(leaves)
        assert await way.run(stays)

    async def test_context_variables_go_in_and_do_not_come_out(self, way: Way) -> None:
        where.set("caller")

        async def tool() -> str:
            seen = where.get()
            where.set("tool")
            return seen

        async def caller() -> tuple[str, str]:
            return await way.run(tool), where.get()

        seen, after = await caller()
        assert seen == "caller"
        assert after == "caller"

    async def test_cancelling_returns_only_after_the_clean_up_without_spinning(
        self, way: Way
    ) -> None:
        started, cleaned = _Signal(), []

        async def tool() -> None:
            started.set()
            try:
                await anyio.sleep(3600)
            finally:
                await way.clean_up(0.1)
                cleaned.append(True)

        async with anyio.create_task_group() as group:
            # An anyio scope cancels again and again whatever waits unshielded inside it.
            group.start_soon(partial(way.run, tool))
            await started.wait()
            cpu = time.process_time()
            group.cancel_scope.cancel()
        assert cleaned == [True]
        assert time.process_time() - cpu < 0.09, "the wait used up the processor"

    async def test_a_second_cancellation_does_not_cut_the_clean_up_short(self, way: Way) -> None:
        started, cleaned = _Signal(), []

        async def tool() -> None:
            started.set()
            try:
                await anyio.sleep(3600)
            finally:
                await way.clean_up(0.05)
                cleaned.append(True)

        task = asyncio.ensure_future(way.run(tool))
        await started.wait()
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == [True]

    async def test_a_deadline_cancels_the_tool_and_is_told_from_a_cancellation(
        self, way: Way
    ) -> None:
        cleaned = []

        async def tool() -> None:
            try:
                await anyio.sleep(3600)
            finally:
                await way.clean_up(0.02)
                cleaned.append(True)

        with pytest.raises(Expired):
            await way.run(tool, deadline=time.monotonic() + 0.02)
        assert cleaned == [True]

    async def test_a_tool_that_ends_before_its_deadline_is_left_alone(self, way: Way) -> None:
        async def tool() -> str:
            await anyio.lowlevel.checkpoint()
            return "done"

        assert await way.run(tool, deadline=time.monotonic() + 60) == "done"


class RuntimeConformance(CallConformance, ABC):
    """What is promised of a `Runtime`; a subclass defines the fixture ``runtime``, which yields a
    started one, and `is_inside`."""

    @abstractmethod
    def is_inside(self) -> bool:
        """Tell whether the calling code runs in the runtime; asked of the library it drives."""

    @pytest.fixture
    async def way(self, runtime: Runtime) -> Way:
        return Way(runtime.run, self.is_inside)

    async def test_it_says_what_it_is_and_how_it_is_driven(self, runtime: Runtime) -> None:
        assert runtime.name
        assert runtime.rung

    async def test_a_gate_lets_pass_what_waits_inside(self, runtime: Runtime) -> None:
        gate = runtime.gate()
        task = asyncio.ensure_future(runtime.run(gate.wait))
        await asyncio.sleep(0)
        assert not task.done()
        gate.open()
        with anyio.fail_after(10):
            await task

    async def test_a_gate_that_was_opened_before_lets_pass_at_once(self, runtime: Runtime) -> None:
        gate = runtime.gate()
        gate.open()
        with anyio.fail_after(10):
            await runtime.run(gate.wait)

    async def test_closing_cancels_what_runs_and_refuses_what_comes_after(
        self, runtime: Runtime
    ) -> None:
        started, cleaned = _Signal(), []

        async def tool() -> None:
            started.set()
            try:
                await anyio.sleep(3600)
            finally:
                await shielded_sleep(0.02)
                cleaned.append(True)

        task = asyncio.ensure_future(runtime.run(tool))
        await started.wait()
        await runtime.aclose()
        await runtime.aclose()
        with pytest.raises(CallCancelled):
            await task
        assert cleaned == [True]
        with pytest.raises(ToolUnavailable):
            await runtime.run(tool)


class _Signal:
    """An event of the host's loop that any thread may set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        with anyio.fail_after(10):
            await self._event.wait()
