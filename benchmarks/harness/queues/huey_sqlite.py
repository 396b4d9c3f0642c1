"""Huey on SQLite. Variants: ``full`` (an fsync per change), ``normal`` (its default, none).

Each worker does what the threads of Huey's consumer do. Huey deletes a task when it hands it out,
so that running one is one change, and what runs when the process dies is lost.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from huey import SqliteHuey  # type: ignore[import-not-found]  # in an environment of its own

from .contestant import PATIENCE, PAYLOAD, Queue, main


class HueySqlite(Queue):
    """`SqliteHuey` with threads."""

    def __init__(self, where: str, variant: str) -> None:
        super().__init__(where, variant)
        fsync = variant == "full"
        self._huey = SqliteHuey(filename=str(Path(where) / "huey.db"), fsync=fsync)
        self._started: list[float] = []
        self._all = threading.Event()
        self._wanted = 0
        self._task = self._huey.task()(self._nothing)

    def _nothing(self, payload: object) -> None:
        self._started.append(time.perf_counter())
        if len(self._started) == self._wanted:
            self._all.set()

    def submit(self, count: int, callers: int) -> float:
        def call() -> None:
            for _ in range(count // callers):
                self._task(PAYLOAD)

        begun = time.perf_counter()
        if callers == 1:
            call()
        else:
            threads = [threading.Thread(target=call) for _ in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return time.perf_counter() - begun

    def fill(self, count: int) -> float:
        """Threads only wait for each other's locks."""
        return self.submit(count, 1)

    def drain(self, count: int, workers: int) -> float:
        def work() -> None:
            while (task := self._huey.dequeue()) is not None:
                self._huey.execute(task)

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        if len(self._started) != count:
            raise RuntimeError(f"{len(self._started)} of {count} tasks were run")
        return time.perf_counter() - min(self._started)

    def start(self, count: int, workers: int) -> list[float]:
        # The shortest wait that its consumer takes by default.
        consumer = self._huey.create_consumer(workers=workers, periodic=False, initial_delay=0.1)
        consumer.start()
        seconds = []
        for number in range(count):
            self._wanted = number + 1
            self._all.clear()
            begun = time.perf_counter()
            self._task(PAYLOAD)
            if not self._all.wait(PATIENCE):
                raise RuntimeError("a task was not run")
            seconds.append(self._started[-1] - begun)
            time.sleep(0.005)
        consumer.stop()
        return seconds


if __name__ == "__main__":
    main(HueySqlite)
