"""DBOS with a queue that it polls every 5 ms. Variants: ``postgresql``, ``sqlite``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dbos import DBOS  # type: ignore[import-not-found]  # in an environment of its own

from .contestant import PATIENCE, PAYLOAD, Queue, Starts, main

NAME = "tasks"


class DBOSWorkflows(Queue):
    """One executor, with as many workflows at once as there are workers."""

    def __init__(self, where: str, variant: str) -> None:
        super().__init__(where, variant)
        self._started: Callable[[], object] = lambda: None

    def submit(self, count: int, callers: int) -> float:
        with self._launched(0) as submit:

            def call() -> None:
                for _ in range(count // callers):
                    submit()

            threads = [threading.Thread(target=call) for _ in range(callers)]
            begun = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return time.perf_counter() - begun

    def fill(self, count: int) -> float:
        return self.submit(count // 8 * 8, 8)

    def drain(self, count: int, workers: int) -> float:
        everything = threading.Event()
        starts = Starts(count, everything.set)
        self._started = starts.one
        with self._launched(workers):
            if not everything.wait(PATIENCE):
                raise RuntimeError("not all tasks were run")
            return starts.seconds

    def start(self, count: int, workers: int) -> list[float]:
        at = 0.0
        one = threading.Event()

        def started() -> None:
            nonlocal at
            at = time.perf_counter()
            one.set()

        self._started = started
        found = []
        with self._launched(workers) as submit:
            for _ in range(count):
                one.clear()
                begun = time.perf_counter()
                submit()
                if not one.wait(PATIENCE):
                    raise RuntimeError("a task was not run")
                found.append(at - begun)
                time.sleep(0.005)
        return found

    @contextmanager
    def _launched(self, workers: int) -> Iterator[Callable[[], object]]:
        """Run DBOS; with no workers, tasks are only submitted."""
        url = self.where
        if self.variant == "sqlite":
            url = f"sqlite:///{Path(self.where) / 'dbos.db'}"
        DBOS(
            config={
                "name": "benchmark",
                "system_database_url": url,
                "log_level": "ERROR",
                "run_admin_server": False,
                "application_version": "1",
                "sys_db_pool_size": max(20, workers),
            }
        )

        def nothing(payload: object) -> None:
            self._started()

        workflow = DBOS.workflow(name="nothing")(nothing)
        logging.getLogger("dbos").setLevel(logging.ERROR)
        DBOS.launch()
        if workers:
            DBOS.register_queue(NAME, worker_concurrency=workers, polling_interval_sec=0.005)
        try:
            yield lambda: DBOS.enqueue_workflow(NAME, workflow, PAYLOAD)
        finally:
            DBOS.destroy(workflow_completion_timeout_sec=0)


if __name__ == "__main__":
    main(DBOSWorkflows)
