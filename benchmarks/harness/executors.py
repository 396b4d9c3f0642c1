"""Many calls at once, through the executor and by other means; runs in a process of its own.

    python -m harness.executors asyncio 1000

Prints one JSON object: for each quantity, one value per means. What is called does nothing, so that
the time is what the means themselves cost. Needs Python 3.11 for `asyncio.TaskGroup`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio

from mcpd_core.executor import Admission, Limits
from mcpd_core.runtimes import ThreadRuntime
from mcpd_core.runtimes.deadlines import deadlines

from .figures import quantile
from .loops import runner

Work = Callable[[], Coroutine[Any, Any, None]]

#: Calls that may run at once, clients among whom they are shared, and seconds that each may take.
LIMIT, CLIENTS, DEADLINE = 64, 8, 30.0
NAMES = [f"client {number}" for number in range(CLIENTS)]
#: How many calls are made at once.
COUNTS = (100, 1_000, 10_000)
QUEUED = f"{COUNTS[1]:,} calls at once that queue, us each"
#: Callers at once where the rate of worker threads is measured.
CALLERS = 16

# mypy, which checks for the oldest Python, takes the rest for unreachable.
# mypy: disable-error-code="unreachable"
if sys.version_info < (3, 11):
    sys.exit("The standard library has task groups from Python 3.11 on.")


async def nothing() -> None:
    """What a call does that ends before the next one begins, so that none of them queues."""


async def one_turn() -> None:
    """What a call does that waits for a turn of the loop, so that all beyond the limit queue."""
    await asyncio.sleep(0)


def nothing_in_thread() -> int:
    """The same for worker threads."""
    return 1


async def task_group(count: int, work: Work) -> None:
    """The least that running many tasks can cost."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())


async def task_group_with_limit_and_timeout(count: int, work: Work) -> None:
    """The standard library's limit and deadline; its semaphore is fair to calls, not to clients."""
    semaphore = asyncio.Semaphore(LIMIT)

    async def one() -> None:
        async with semaphore, asyncio.timeout(DEADLINE):
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())


async def anyio_with_limit_and_deadline(count: int, work: Work) -> None:
    """The same with anyio."""
    limiter = anyio.CapacityLimiter(LIMIT)

    async def one() -> None:
        async with limiter:
            with anyio.fail_after(DEADLINE):
                await work()

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)


async def mcpd(count: int, work: Work) -> None:
    """What every call of mcpd goes through: a permit in the client's turn, and a deadline."""
    admission = Admission(Limits(LIMIT, LIMIT, LIMIT, count))
    alarms = deadlines()

    async def one(client: str) -> None:
        deadline = time.monotonic() + DEADLINE
        permit = admission.admit(client, "tool")
        if permit is None:
            permit = await admission.acquire(client, "tool", deadline=deadline)
        task = asyncio.current_task()
        assert task is not None
        alarm = alarms.at(deadline, lambda: cancel(task))
        try:
            await work()
        finally:
            alarm.cancel()
            admission.release(permit)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(NAMES[number % CLIENTS]))


def cancel(task: asyncio.Task[None]) -> None:
    """Cancel the task of a call at its deadline."""
    task.cancel()


MEANS: dict[str, Callable[[int, Work], Awaitable[None]]] = {
    "asyncio.TaskGroup, bare": task_group,
    "mcpd: limit, deadline, fair turns": mcpd,
    "TaskGroup, Semaphore, timeout": task_group_with_limit_and_timeout,
    "anyio: CapacityLimiter, fail_after": anyio_with_limit_and_deadline,
}


async def executors(count: int, work: Work) -> dict[str, float]:
    """Return what each means costs per call, in microseconds."""
    found = {}
    for name, run in MEANS.items():
        await run(100, work)
        seconds = []
        for _ in range(max(1, 5_000 // count)):
            gc.collect()
            begun = time.perf_counter()
            await run(count, work)
            seconds.append(time.perf_counter() - begun)
        found[name] = quantile(seconds, 0.5) / count * 1e6
    return found


async def threads(calls: int) -> dict[str, float]:
    """Return how many ``def`` functions per second each means runs in threads."""
    pool = ThreadRuntime(CALLERS, patience=5.0)
    means: dict[str, Callable[[], Awaitable[int]]] = {
        "asyncio.to_thread": lambda: asyncio.to_thread(nothing_in_thread),
        "mcpd": lambda: pool.run(nothing_in_thread),
    }
    found = {}
    for name, run in means.items():

        async def caller(run: Callable[[], Awaitable[int]] = run) -> None:
            for _ in range(max(1, calls // CALLERS)):
                await run()

        await asyncio.gather(*(run() for _ in range(CALLERS)))
        begun = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        found[name] = max(1, calls // CALLERS) * CALLERS / (time.perf_counter() - begun)
    await pool.aclose()
    return found


async def measured(calls: int) -> dict[str, dict[str, float]]:
    """Measure everything on the loop that runs this."""
    found = {
        f"{count:,} calls at once, us each": await executors(count, nothing) for count in COUNTS
    }
    found[QUEUED] = await executors(COUNTS[1], one_turn)
    found[f"def functions, {CALLERS} callers, calls/s"] = await threads(calls * 5)
    return found


def main() -> None:
    """Measure with the loop and the number of calls that are named."""
    loop, calls = sys.argv[1], int(sys.argv[2])
    print(json.dumps(runner(loop)(measured(calls))))


if __name__ == "__main__":
    main()
