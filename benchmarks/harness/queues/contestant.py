"""What every queue is asked to do."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from harness.figures import quantile

#: What a task is given: about as much as a call of a tool.
PAYLOAD = {"text": "x" * 160, "repeat": 3, "upper": False}
#: Seconds that one measurement may take; a queue that loses a task would never be done.
PATIENCE = 120.0
#: Times of starts that are not counted: connections are made, statements are prepared.
WARM_UP = 20


class Queue(ABC):
    """One queue, in a process that does one thing with it and ends.

    :param where: the folder or the server of its tasks, empty at first.
    :param variant: which settings it has, where there is a choice.
    """

    def __init__(self, where: str, variant: str) -> None:
        self.where = where
        self.variant = variant

    @abstractmethod
    def submit(self, count: int, callers: int) -> float:
        """Submit tasks, each caller one after the other; return the seconds until the last answer.

        A queue has answered when it holds the task as durably as it promises to.
        """

    def fill(self, count: int) -> float:
        """Submit tasks for another process to run, as fast as it goes."""
        return self.submit(count, 64)

    @abstractmethod
    def drain(self, count: int, workers: int) -> float:
        """Run the tasks that wait, which do nothing; return the seconds from the first start on."""

    @abstractmethod
    def start(self, count: int, workers: int) -> list[float]:
        """Submit one task at a time to idle workers of this very process.

        :returns: the seconds from before each submit until the task had started.
        """

    def claim(self, count: int) -> float:
        """Return the seconds that a claim of one task takes."""
        raise NotImplementedError


class Starts:
    """Counts the starts of tasks that do nothing, and knows when the first was and the last.

    :param done: called when all have started.
    """

    def __init__(self, count: int, done: Callable[[], object]) -> None:
        self._left = count
        self._done = done
        self._first = 0.0

    def one(self) -> None:
        """Note a start."""
        if not self._first:
            self._first = time.perf_counter()
        self._left -= 1
        if not self._left:
            self._done()

    @property
    def seconds(self) -> float:
        """Those since the first start."""
        return time.perf_counter() - self._first


def main(make: Callable[[str, str], Queue], arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says: what, where, how many, how many at once, the variant."""
    what, where, count, width, variant = arguments or sys.argv[1:]
    queue = make(where, variant)
    found: dict[str, float] = {}
    if what == "start":
        seconds = queue.start(int(count) + WARM_UP, int(width))[WARM_UP:]
        found = {"p50": quantile(seconds, 0.5) * 1e3, "p99": quantile(seconds, 0.99) * 1e3}
    elif what == "fill":
        queue.fill(int(count))
    elif what == "claim":
        found = {"p50": queue.claim(int(count)) * 1e3}
    else:
        do = {"submit": queue.submit, "drain": queue.drain}[what]
        found = {"rate": int(count) / do(int(count), int(width))}
    print(json.dumps(found))
