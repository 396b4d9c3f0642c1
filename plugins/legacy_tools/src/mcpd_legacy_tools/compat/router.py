"""The runtime router: brings each call to asyncio or to trio, and counts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from threading import RLock
from typing import Any

from .errors import RuntimeExecutionError, RuntimeNotFoundError
from .metadata import (
    RUNTIME_AUTO,
    RUNTIME_FASTAPI,
    RUNTIME_TRIO,
    ToolMetadataRegistry,
    get_registry,
    get_tool_metadata,
)
from .trio_thread import TrioThread, in_trio, run_code

RUNTIME_UNKNOWN = "unknown"

#: Parts of names by which the old router took a tool for one of trio.
_PATTERNS = ("p2p_", "workflow", "taskqueue", "peer_", "bootstrap")
#: Latencies that are kept, for the percentiles.
_KEPT = 1000
#: Calls of each runtime before the two are compared.
_ENOUGH = 10


@dataclass
class RuntimeMetrics:
    """What the calls of one runtime took, in milliseconds."""

    request_count: int = 0
    error_count: int = 0
    total_latency_ms: float = 0.0
    min_latency_ms: float = float("inf")
    max_latency_ms: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def record_request(self, latency_ms: float, error: bool = False) -> None:
        """Count a call."""
        self.request_count += 1
        self.error_count += error
        self.total_latency_ms += latency_ms
        self.min_latency_ms = min(self.min_latency_ms, latency_ms)
        self.max_latency_ms = max(self.max_latency_ms, latency_ms)
        self.latencies.append(latency_ms)
        del self.latencies[:-_KEPT]

    @property
    def avg_latency_ms(self) -> float:
        """The mean; 0 without calls."""
        return self.total_latency_ms / self.request_count if self.request_count else 0.0

    @property
    def p95_latency_ms(self) -> float:
        """What 95 % of the last calls stayed below; 0 without calls."""
        return self._percentile(0.95)

    @property
    def p99_latency_ms(self) -> float:
        """What 99 % of the last calls stayed below; 0 without calls."""
        return self._percentile(0.99)

    def _percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return them for a report, to two digits."""
        least = self.min_latency_ms if self.request_count else 0.0
        return {
            "request_count": self.request_count,
            "error_count": self.error_count,
            "avg_latency_ms": round(self.avg_latency_ms, 2),
            "min_latency_ms": round(least, 2),
            "max_latency_ms": round(self.max_latency_ms, 2),
            "p95_latency_ms": round(self.p95_latency_ms, 2),
            "p99_latency_ms": round(self.p99_latency_ms, 2),
        }


class RuntimeRouter:
    """Runs the code of tools in the runtime that it is written for.

    Unlike the old one: what is marked for trio runs in trio, in one loop for as long as the router
    is started; what only has a name or a module that suggests trio is counted as trio's, and runs
    where it is awaited, as it always did; code that fails is never run a second time; without trio
    a call of trio's code is refused.

    :param default_runtime: of tools that nothing is known about.
    :param enable_memory_tracking: accepted and without effect, as before.
    :param metadata_registry: in place of the one of this process.
    """

    def __init__(
        self,
        default_runtime: str = RUNTIME_FASTAPI,
        enable_metrics: bool = True,
        enable_memory_tracking: bool = False,
        metadata_registry: ToolMetadataRegistry | None = None,
    ) -> None:
        self.default_runtime = default_runtime
        self.enable_metrics = enable_metrics
        self.enable_memory_tracking = enable_memory_tracking
        self._registry = get_registry() if metadata_registry is None else metadata_registry
        self._metrics: dict[str, RuntimeMetrics] = {}
        self._lock = RLock()
        self._runtimes: dict[str, str] = {}
        self._trio: TrioThread | None = None
        self._is_running = False
        self.reset_metrics()

    async def startup(self) -> None:
        """Make the router ready for calls; trio is started for the first one that needs it."""
        self._is_running = True

    async def shutdown(self) -> None:
        """Stop trio. Calls that run have to be waited for, or cancelled, before."""
        self._is_running = False
        thread, self._trio = self._trio, None
        if thread is not None:
            thread.__exit__(None, None, None)

    @asynccontextmanager
    async def runtime_context(self) -> AsyncIterator[RuntimeRouter]:
        """Start the router, and shut it down in the end."""
        await self.startup()
        try:
            yield self
        finally:
            await self.shutdown()

    def detect_runtime(self, tool_name: str, tool_func: Callable[..., Any] | None) -> str:
        """Return the runtime of a tool: what was registered for its name, what its code is marked
        with, what its module or its name suggests, or the default."""
        return self._stated(tool_name, tool_func) or self._guessed(tool_name, tool_func)

    def _stated(self, tool_name: str, tool_func: Callable[..., Any] | None) -> str:
        """Return what somebody has said about the runtime; nothing when nobody has."""
        if tool_func is None:
            return ""
        stated = [
            self._runtimes.get(tool_name),
            getattr(self._registry.get(tool_name), "runtime", None),
            getattr(get_tool_metadata(tool_func), "runtime", None),
            getattr(tool_func, "_mcp_runtime", None),
        ]
        known = (RUNTIME_FASTAPI, RUNTIME_TRIO)
        return next((runtime for runtime in stated if runtime in known), "")

    def _guessed(self, tool_name: str, tool_func: Callable[..., Any] | None) -> str:
        module = getattr(tool_func, "__module__", None) or ""
        if "mcplusplus" in module or "trio" in module:
            return RUNTIME_TRIO
        if any(pattern in (tool_name or "").lower() for pattern in _PATTERNS):
            return RUNTIME_TRIO
        return self.default_runtime

    def register_tool_runtime(self, tool_name: str, runtime: str) -> None:
        """State the runtime of a tool.

        :raises ValueError: when there is no such runtime.
        """
        if runtime not in (RUNTIME_FASTAPI, RUNTIME_TRIO):
            raise ValueError(f"Invalid runtime: {runtime}")
        self._runtimes[tool_name] = runtime

    def bulk_register_tools_from_metadata(self) -> int:
        """State the runtimes that the registry has, and return how many those are."""
        stated = [each for each in self._registry.list_all() if each.runtime != RUNTIME_AUTO]
        self._runtimes.update((each.name, each.runtime) for each in stated)
        return len(stated)

    async def route_tool_call(
        self, tool_name: str, tool_func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the code of a tool once, in its runtime; a ``def`` runs in a thread.

        :raises RuntimeError: when the router was not started.
        :raises RuntimeNotFoundError: when the code is trio's and trio is not installed.
        :raises RuntimeExecutionError: when the code raises; that is its cause.
        """
        if not self._is_running:
            raise RuntimeError("RuntimeRouter not started - call startup() first")
        stated = self._stated(tool_name, tool_func)
        runtime = stated or self._guessed(tool_name, tool_func)
        began = time.perf_counter()
        failed = True
        try:
            thread = self._thread_for(tool_func) if stated == RUNTIME_TRIO else None
            result = await run_code(
                tool_func, args, kwargs, thread=thread, in_trio_loop=stated == RUNTIME_TRIO
            )
            failed = False
            return result
        except (RuntimeExecutionError, RuntimeNotFoundError):
            raise
        except (TypeError, ValueError) as error:
            raise RuntimeExecutionError(f"Invalid parameters for '{tool_name}': {error}") from error
        except Exception as error:
            raise RuntimeExecutionError(
                f"Failed to route tool '{tool_name}' to {runtime}: {error}"
            ) from error
        finally:
            if self.enable_metrics:
                self._record(runtime, (time.perf_counter() - began) * 1000, failed)

    def _record(self, runtime: str, latency_ms: float, failed: bool) -> None:
        with self._lock:
            counted = self._metrics.get(runtime) or self._metrics[RUNTIME_UNKNOWN]
            counted.record_request(latency_ms, failed)

    def _thread_for(self, tool_func: Callable[..., Any]) -> TrioThread | None:
        if find_spec("trio") is None:
            raise RuntimeNotFoundError(RUNTIME_TRIO)
        if in_trio():
            return None
        if self._trio is None:
            self._trio = TrioThread().__enter__()
        return self._trio

    def get_metrics(self) -> dict[str, dict[str, Any]]:
        """Return what was counted, for each runtime."""
        with self._lock:
            return {runtime: each.to_dict() for runtime, each in self._metrics.items()}

    def get_runtime_stats(self) -> dict[str, Any]:
        """Return the counts of all runtimes together, and what share each has."""
        with self._lock:
            requests = sum(each.request_count for each in self._metrics.values())
            errors = sum(each.error_count for each in self._metrics.values())
            return {
                "total_requests": requests,
                "total_errors": errors,
                "error_rate": errors / requests * 100 if requests else 0.0,
                "by_runtime": {
                    runtime: {
                        "requests": each.request_count,
                        "percentage": each.request_count / requests * 100,
                        "avg_latency_ms": round(each.avg_latency_ms, 2),
                    }
                    for runtime, each in self._metrics.items()
                    if each.request_count
                },
                "latency_improvement": self._improvement(),
            }

    def _improvement(self) -> float | None:
        """Return by how many per cent the calls in trio were shorter, once there are enough."""
        ours, theirs = self._metrics[RUNTIME_TRIO], self._metrics[RUNTIME_FASTAPI]
        if min(ours.request_count, theirs.request_count) < _ENOUGH or not theirs.avg_latency_ms:
            return None
        return round((1 - ours.avg_latency_ms / theirs.avg_latency_ms) * 100, 1)

    def reset_metrics(self) -> None:
        """Begin to count anew."""
        with self._lock:
            runtimes = (RUNTIME_FASTAPI, RUNTIME_TRIO, RUNTIME_UNKNOWN)
            self._metrics = {runtime: RuntimeMetrics() for runtime in runtimes}

    def get_tool_runtime(self, tool_name: str) -> str | None:
        """Return the runtime that was registered for a name."""
        return self._runtimes.get(tool_name)

    def list_tools_by_runtime(self, runtime: str) -> list[str]:
        """Return the names that were registered for a runtime."""
        return [name for name, own in self._runtimes.items() if own == runtime]

    def get_metadata_registry_stats(self) -> dict[str, Any] | None:
        """Return the statistics of the registry."""
        return self._registry.get_statistics()

    def __repr__(self) -> str:
        return (
            f"RuntimeRouter(default={self.default_runtime}, running={self._is_running}, "
            f"tools={len(self._runtimes)})"
        )


async def create_router(
    default_runtime: str = RUNTIME_FASTAPI, enable_metrics: bool = True
) -> RuntimeRouter:
    """Return a router that is started."""
    router = RuntimeRouter(default_runtime=default_runtime, enable_metrics=enable_metrics)
    await router.startup()
    return router
