"""Whole calls through `Host.call`, and what a runtime costs while nobody calls; in a process of its
own.

    python -m harness.calls asyncio 2000

Prints one JSON object: for each quantity, one value per kind of tool.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from mcpd_core import Principal
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.runtimes import TrioRuntime
from mcpd_core.schema import describe, tools_of
from mcpd_core.settings import load_settings
from mcpd_core.spec import CallResult

from .figures import quantile
from .loops import runner

#: Calls at once, and clients among whom they are shared; permits that are free when memory counts.
CROWD, CLIENTS, LIMIT = 1_000, 8, 64
#: Seconds for which an idle runtime is watched.
IDLE = 2.0
MODULE = "benchmark_tools"
TOOLS = '''
"""Tools that do nothing."""

from mcpd_core import tool


@tool(runtime="asyncio")
async def asyncio_tool() -> None:
    """Do nothing."""


@tool(runtime="trio")
async def trio_tool() -> None:
    """Do nothing."""


@tool
def def_tool() -> None:
    """Do nothing."""
'''

Call = Callable[..., Awaitable[CallResult]]


async def measured(calls: int) -> dict[str, dict[str, float]]:
    """Measure everything on the loop that runs this."""
    found: dict[str, dict[str, float]] = {"idle": await idle()}
    functions = tools_of(__import__(MODULE))
    specs = tuple(describe(each, plugin="benchmark", runtime="any") for each in functions)
    row = PluginRow("benchmark", "benchmark", "1", "any", "enabled", entry=MODULE, tools=specs)
    principal = Principal("local", str(os.getuid()))
    async with Host(Inventory((row,)), load_settings(None, env={}), data_dir=None) as host:
        for spec in specs:
            call = partial(host.call, spec.name, {}, principal=principal)
            for quantity, value in (await whole(call, calls)).items():
                found.setdefault(quantity, {})[spec.name] = value
        call = partial(host.call, "asyncio_tool", {}, principal=principal)
        found["bytes per waiting call"] = {"asyncio_tool": await waiting(host, call)}
    return found


async def whole(call: Call, calls: int) -> dict[str, float]:
    """Measure calls from their look-up to their answer."""
    for _ in range(calls // 10 + 1):
        await call(client="one")
    seconds = []
    for _ in range(calls):
        begun = time.perf_counter()
        await call(client="one")
        seconds.append(time.perf_counter() - begun)
    gc.collect()
    begun = time.perf_counter()
    answers = await asyncio.gather(*(call(client=f"c{n % CLIENTS}") for n in range(CROWD)))
    took = time.perf_counter() - begun
    if any(answer.is_error for answer in answers):
        raise RuntimeError("a call failed")
    return {
        "Host.call, p50, us": quantile(seconds, 0.5) * 1e6,
        f"Host.call, {CROWD:,} at once, calls/s": CROWD / took,
    }


async def waiting(host: Host, call: Call) -> float:
    """Return the bytes of memory that a call takes while it waits for a permit, with its task."""
    admission = host._admission["client"]
    held = [await admission.acquire(f"holder {n}", f"tool {n}") for n in range(LIMIT)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = [asyncio.ensure_future(call(client=f"c{n % CLIENTS}")) for n in range(CROWD)]
    # The first turn of the loop starts them all, and none of them gets further than to wait.
    await asyncio.sleep(0)
    if admission.stats()["waiting"] != CROWD:
        raise RuntimeError(f"not all calls wait: {admission.stats()}")
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for permit in held:
        admission.release(permit)
    if any(answer.is_error for answer in await asyncio.gather(*tasks)):
        raise RuntimeError("a call failed")
    return size / CROWD


async def idle() -> dict[str, float]:
    """Watch the loop alone, then with an idle trio runtime beside it."""
    bare = await wake_ups()
    begun = time.perf_counter()
    import trio  # noqa: F401

    import mcpd_core.runtimes.trio_fused  # noqa: F401 - imported beforehand in the host as well

    imported = time.perf_counter()
    first, again = TrioRuntime(), TrioRuntime()
    await first.start()
    tested = time.perf_counter()
    await first.aclose()
    closed = time.perf_counter()
    await again.start()
    started = time.perf_counter()
    threads = threading.active_count()
    beside = await wake_ups()
    await again.aclose()
    return {
        "wake-ups per second, the loop alone": bare,
        "wake-ups per second, with trio": beside,
        "threads, with trio": threads,
        "import of trio and the driver, ms": (imported - begun) * 1e3,
        "first start, with the self-test, ms": (tested - imported) * 1e3,
        "start of the runtime, ms": (started - closed) * 1e3,
    }


async def wake_ups() -> float:
    """Return how often per second the threads of this process wake up from a wait."""
    before = _switches()
    await asyncio.sleep(IDLE)
    return (_switches() - before) / IDLE


def _switches() -> int:
    counted = 0
    for task in Path("/proc/self/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                counted += int(line.split()[1])
    return counted


def main() -> None:
    """Measure with the loop and the number of calls that are named."""
    loop, calls = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="mcpd-bench-") as folder:
        Path(folder, f"{MODULE}.py").write_text(TOOLS)
        sys.path.insert(0, folder)
        print(json.dumps(runner(loop)(measured(calls))))


if __name__ == "__main__":
    main()
