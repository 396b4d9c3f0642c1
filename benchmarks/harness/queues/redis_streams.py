"""Redis Streams with a consumer group, by the client of Redis's own with its C parser.

Each worker reads one entry, and acknowledges it when it has done nothing. The server decides how
durable that is.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from redis.asyncio import Redis  # type: ignore[import-not-found]  # in an environment of its own

from .contestant import PATIENCE, PAYLOAD, Queue, Starts, main

STREAM, GROUP = "tasks", "workers"


class RedisStreams(Queue):
    """A stream that is read to its end."""

    def submit(self, count: int, callers: int) -> float:
        async def measured() -> float:
            clients = [await self._client() for _ in range(callers)]

            async def call(client: Redis) -> None:
                for _ in range(count // callers):
                    await client.xadd(STREAM, {"payload": json.dumps(PAYLOAD)})

            begun = time.perf_counter()
            await asyncio.gather(*map(call, clients))
            seconds = time.perf_counter() - begun
            for client in clients:
                await client.aclose()
            return seconds

        return asyncio.run(measured())

    def drain(self, count: int, workers: int) -> float:
        async def measured() -> float:
            acknowledged = asyncio.Event()
            last = Starts(count, acknowledged.set)
            starts = Starts(count, lambda: None)
            working = await self._work(workers, starts.one, last.one)
            await asyncio.wait_for(acknowledged.wait(), PATIENCE)
            seconds = starts.seconds
            await _end(working)
            return seconds

        return asyncio.run(measured())

    def start(self, count: int, workers: int) -> list[float]:
        async def measured() -> list[float]:
            at = 0.0
            acknowledged = asyncio.Event()

            def started() -> None:
                nonlocal at
                at = time.perf_counter()

            client = await self._client()
            working = await self._work(workers, started, lambda: acknowledged.set())
            found = []
            for _ in range(count):
                acknowledged = asyncio.Event()
                begun = time.perf_counter()
                await client.xadd(STREAM, {"payload": json.dumps(PAYLOAD)})
                await acknowledged.wait()
                found.append(at - begun)
            await client.aclose()
            await _end(working)
            return found

        return asyncio.run(measured())

    async def _client(self) -> Redis:
        client = Redis.from_url(self.where)
        await client.ping()
        return client

    async def _work(
        self, workers: int, started: Callable[[], object], acknowledged: Callable[[], object]
    ) -> list[asyncio.Task[None]]:
        client = await self._client()
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        await client.aclose()

        async def work(name: str) -> None:
            client = await self._client()
            while True:
                for _, entries in await client.xreadgroup(
                    GROUP, name, {STREAM: ">"}, count=1, block=0
                ):
                    for ident, fields in entries:
                        json.loads(fields[b"payload"])
                        started()
                        await client.xack(STREAM, GROUP, ident)
                        acknowledged()

        return [asyncio.create_task(work(f"worker-{number}")) for number in range(workers)]


async def _end(working: list[asyncio.Task[None]]) -> None:
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)


if __name__ == "__main__":
    main(RedisStreams)
