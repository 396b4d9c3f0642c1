"""Taskiq with its broker on Redis Streams, and its own receiver in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from taskiq.receiver import Receiver  # type: ignore[import-not-found]  # in an environment of its own
from taskiq_redis import RedisStreamBroker  # type: ignore[import-not-found]  # likewise

from .contestant import PATIENCE, PAYLOAD, Queue, Starts, main


class TaskiqRedis(Queue):
    """No result is kept."""

    def __init__(self, where: str, variant: str) -> None:
        super().__init__(where, variant)
        self._started: Callable[[], object] = lambda: None
        self._broker = RedisStreamBroker(where, queue_name="tasks", consumer_group_name="workers")

        async def nothing(payload: object) -> None:
            self._started()

        self._task = self._broker.task(task_name="nothing")(nothing)

    def submit(self, count: int, callers: int) -> float:
        async def measured() -> float:
            await self._broker.startup()

            async def call() -> None:
                for _ in range(count // callers):
                    await self._task.kiq(PAYLOAD)

            begun = time.perf_counter()
            await asyncio.gather(*(call() for _ in range(callers)))
            seconds = time.perf_counter() - begun
            await self._broker.shutdown()
            return seconds

        return asyncio.run(measured())

    def drain(self, count: int, workers: int) -> float:
        async def measured() -> float:
            everything = asyncio.Event()
            starts = Starts(count, everything.set)
            self._started = starts.one
            async with self._working(workers):
                await asyncio.wait_for(everything.wait(), PATIENCE)
                return starts.seconds

        return asyncio.run(measured())

    def start(self, count: int, workers: int) -> list[float]:
        async def measured() -> list[float]:
            at = 0.0
            one = asyncio.Event()

            def started() -> None:
                nonlocal at
                at = time.perf_counter()
                one.set()

            self._started = started
            found = []
            async with self._working(workers):
                for _ in range(count):
                    one.clear()
                    begun = time.perf_counter()
                    await self._task.kiq(PAYLOAD)
                    await one.wait()
                    found.append(at - begun)
                    await asyncio.sleep(0.005)
            return found

        return asyncio.run(measured())

    @asynccontextmanager
    async def _working(self, workers: int) -> AsyncIterator[None]:
        self._broker.is_worker_process = True
        await self._broker.startup()
        finish = asyncio.Event()
        with ThreadPoolExecutor(workers) as pool:
            receiver = Receiver(
                self._broker, executor=pool, max_async_tasks=workers, run_startup=False
            )
            listening = asyncio.create_task(receiver.listen(finish))
            try:
                yield
            finally:
                # Cancelled beside that, it may wait for ever for a message that it has put back.
                finish.set()
                await asyncio.wait([listening], timeout=0.2)
        await self._broker.shutdown()


if __name__ == "__main__":
    main(TaskiqRedis)
