"""Several tools at once: the old executor."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from .metadata import RUNTIME_TRIO
from .trio_thread import run_code

#: A function and its arguments by name.
Work = tuple[Callable[..., Any], dict[str, Any]]


@dataclass
class ExecutionResult:
    """What became of one call."""

    success: bool
    result: Any = None
    error: str | None = None
    execution_time_ms: float = 0.0
    tool_name: str = ""
    cancelled: bool = False
    timed_out: bool = False


@dataclass
class ExecutorMetrics:
    """What was executed, and how it went."""

    total_executions: int = 0
    successful_executions: int = 0
    failed_executions: int = 0
    cancelled_executions: int = 0
    timed_out_executions: int = 0
    total_execution_time_ms: float = 0.0

    def record_execution(self, result: ExecutionResult) -> None:
        """Count a result."""
        self.total_executions += 1
        self.total_execution_time_ms += result.execution_time_ms
        self.successful_executions += result.success
        self.failed_executions += not result.success
        self.cancelled_executions += result.cancelled
        self.timed_out_executions += result.timed_out

    @property
    def success_rate(self) -> float:
        """The share of the calls that succeeded; 0 without calls."""
        return self.successful_executions / self.total_executions if self.total_executions else 0.0

    @property
    def avg_execution_time_ms(self) -> float:
        """The mean; 0 without calls."""
        count = self.total_executions
        return self.total_execution_time_ms / count if count else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for a report."""
        return {
            **self.__dict__,
            "success_rate": self.success_rate,
            "avg_execution_time_ms": self.avg_execution_time_ms,
        }


class StructuredConcurrencyExecutor:
    """Runs functions, so many at once, each with a time limit.

    It works in asyncio and in trio. Unlike the old one: `execute_parallel` returns when the calls
    have ended, with a result for each; a ``def`` runs in a thread, where a time limit is only
    noticed once it returns; a function that ``tool_metadata`` marks for trio runs in trio.

    :param default_timeout: seconds.
    """

    def __init__(
        self, max_concurrent: int = 10, default_timeout: float = 30.0, enable_metrics: bool = True
    ) -> None:
        self.max_concurrent = max_concurrent
        self.default_timeout = default_timeout
        self.enable_metrics = enable_metrics
        self.metrics = ExecutorMetrics()
        self._limiter: anyio.Semaphore | None = None

    @asynccontextmanager
    async def runtime_context(self) -> AsyncIterator[StructuredConcurrencyExecutor]:
        """Make several calls possible; none of them outlives it."""
        self._limiter = anyio.Semaphore(self.max_concurrent)
        try:
            yield self
        finally:
            self._limiter = None

    async def execute_single(
        self,
        tool_func: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        timeout: float | None = None,
        tool_name: str | None = None,
    ) -> ExecutionResult:
        """Run one function; what it raises becomes part of the result.

        :param timeout: seconds; the default's when ``None``.
        """
        limit = timeout or self.default_timeout
        name = tool_name or str(getattr(tool_func, "__name__", "unknown"))
        result = ExecutionResult(success=False, tool_name=name)
        trio = getattr(tool_func, "_mcp_runtime", None) == RUNTIME_TRIO
        began = time.perf_counter()
        try:
            with anyio.move_on_after(limit) as scope:
                result.result = await run_code(
                    tool_func, tuple(args or ()), kwargs or {}, in_trio_loop=trio
                )
            result.success = not scope.cancelled_caught
            if scope.cancelled_caught:
                result.timed_out = True
                result.error = f"Tool execution timed out after {limit}s"
        except anyio.get_cancelled_exc_class():
            result.cancelled = True
            result.error = "Tool execution was cancelled"
            raise
        except Exception as error:  # noqa: BLE001 - it becomes the result
            result.error = str(error)
        finally:
            result.execution_time_ms = (time.perf_counter() - began) * 1000
            if self.enable_metrics:
                self.metrics.record_execution(result)
        return result

    async def execute_parallel(
        self,
        tasks: Sequence[Work],
        timeout: float | None = None,
    ) -> list[ExecutionResult]:
        """Run several functions and return their results, in their order.

        :param timeout: seconds for each of them.
        :raises RuntimeError: outside `runtime_context`.
        """
        limiter = self._limiter
        if limiter is None:
            raise RuntimeError("Executor not active - use within runtime_context()")
        results: dict[int, ExecutionResult] = {}

        async def run(index: int, work: Work) -> None:
            async with limiter:
                results[index] = await self.execute_single(work[0], kwargs=work[1], timeout=timeout)

        async with anyio.create_task_group() as group:
            for index, work in enumerate(tasks):
                group.start_soon(run, index, work)
        return [results[index] for index in range(len(tasks))]

    async def execute_batch(
        self,
        tool_func: Callable[..., Any],
        batch_kwargs: Sequence[dict[str, Any]],
        timeout: float | None = None,
    ) -> list[ExecutionResult]:
        """Run one function with several sets of arguments; see `execute_parallel`."""
        return await self.execute_parallel([(tool_func, each) for each in batch_kwargs], timeout)

    def get_metrics(self) -> dict[str, Any]:
        """Return what was counted."""
        return self.metrics.to_dict()

    def reset_metrics(self) -> None:
        """Begin to count anew."""
        self.metrics = ExecutorMetrics()


async def execute_parallel_tools(
    tasks: Sequence[Work],
    max_concurrent: int = 10,
    timeout: float = 30.0,
) -> list[ExecutionResult]:
    """Run several functions with an executor of their own."""
    executor = StructuredConcurrencyExecutor(max_concurrent, timeout)
    async with executor.runtime_context():
        return await executor.execute_parallel(tasks)


async def execute_batch_tool(
    tool_func: Callable[..., Any],
    batch_kwargs: Sequence[dict[str, Any]],
    max_concurrent: int = 10,
    timeout: float = 30.0,
) -> list[ExecutionResult]:
    """Run one function with several sets of arguments, with an executor of its own."""
    executor = StructuredConcurrencyExecutor(max_concurrent, timeout)
    async with executor.runtime_context():
        return await executor.execute_batch(tool_func, batch_kwargs)
