"""Procrastinate on PostgreSQL, with its own worker in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from procrastinate import (  # type: ignore[import-not-found]  # in an environment of its own
    App,
    PsycopgConnector,
)

from .contestant import PATIENCE, PAYLOAD, Queue, Starts, main


class Procrastinate(Queue):
    """Every worker and every caller can have a connection of its own."""

    def __init__(self, where: str, variant: str) -> None:
        super().__init__(where, variant)
        self._started: Callable[[], object] = lambda: None

    def submit(self, count: int, callers: int) -> float:
        async def measured() -> float:
            async with self._open(callers) as (app, task):
                await app.schema_manager.apply_schema_async()

                async def call() -> None:
                    for _ in range(count // callers):
                        await task.defer_async(payload=PAYLOAD)

                begun = time.perf_counter()
                await asyncio.gather(*(call() for _ in range(callers)))
                return time.perf_counter() - begun

        return asyncio.run(measured())

    def fill(self, count: int) -> float:
        async def filled() -> None:
            async with self._open(1) as (app, task):
                await app.schema_manager.apply_schema_async()
                await task.batch_defer_async(*({"payload": PAYLOAD} for _ in range(count)))

        asyncio.run(filled())
        return 0.0

    def drain(self, count: int, workers: int) -> float:
        async def measured() -> float:
            everything = asyncio.Event()
            starts = Starts(count, everything.set)
            self._started = starts.one
            async with self._open(workers) as (app, _), _working(app, workers):
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
            async with self._open(workers) as (app, task):
                await app.schema_manager.apply_schema_async()
                async with _working(app, workers):
                    await asyncio.sleep(0.5)  # until it listens
                    for _ in range(count):
                        one.clear()
                        begun = time.perf_counter()
                        await task.defer_async(payload=PAYLOAD)
                        await one.wait()
                        found.append(at - begun)
                        await asyncio.sleep(0.005)
            return found

        return asyncio.run(measured())

    @asynccontextmanager
    async def _open(self, width: int) -> AsyncIterator[tuple[App, Any]]:
        connector = PsycopgConnector(conninfo=self.where, min_size=4, max_size=max(4, width) + 4)
        app = App(connector=connector)

        async def nothing(payload: object) -> None:
            self._started()

        task = app.task(name="nothing")(nothing)
        async with app.open_async():
            yield app, task


@asynccontextmanager
async def _working(app: App, workers: int) -> AsyncIterator[None]:
    working = asyncio.create_task(
        app.run_worker_async(concurrency=workers, install_signal_handlers=False)
    )
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


if __name__ == "__main__":
    main(Procrastinate)
