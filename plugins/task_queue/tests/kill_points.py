"""Kills real processes with SIGKILL, each at another operation of SQLite on its files.

A program, run as ``python -m plugins.task_queue.tests.kill_points``: it forks, which only a process
without threads may. Each child lives the same life (`power_kit.life`) with ids that are counted
instead of drawn, so that what it held after each step is known from a child that was not killed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.sqlite.ids import Ids

from .power_kit import Recorder, Ticking, contents, life
from .vfs_kit import Kill, Watcher, interposed


def lead(folder: Path, watcher: Watcher, acknowledged: Callable[[], object]) -> None:
    """Live a life in a folder; it may end at any moment."""
    clock = Ticking()
    with interposed(folder, watcher):
        for _ in life(
            lambda: SQLiteTaskStore(
                folder / "tasks.db", clock=lambda: clock.now, monotonic=lambda: clock.now
            ),
            clock,
        ):
            acknowledged()


def forked(child: Callable[[], None]) -> int:
    """Have a child do something; returns the signal that ended it, or 0."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "the child failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def whole_life(folder: Path) -> tuple[int, list[str]]:
    """Return how many operations a life takes, and what is held after each of its steps."""
    report = folder.with_suffix(".json")

    def child() -> None:
        recorder = Recorder(folder / "tasks.db")
        lead(folder, recorder, recorder.mark)
        report.write_text(json.dumps([len(recorder.log), [held for _, held in recorder.marks]]))

    folder.mkdir()
    forked(child)
    operations, held = json.loads(report.read_text())
    return operations, held


def cut_lives(folder: Path, numbers: list[int]) -> Iterator[dict[str, object]]:
    """Kill a child at each of these operations, before or after it, and look at what it left."""
    operations, held = whole_life(folder / "whole")
    chosen = numbers or list(range(operations))
    for number in chosen:
        number %= operations
        after = number % 2 == 1
        place = folder / "cut"
        place.mkdir()
        log = place / "acknowledged"

        def child(place: Path = place, log: Path = log, number: int = number) -> None:
            descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            kill = Kill(number, after=number % 2 == 1)
            lead(place, kill, lambda: os.write(descriptor, b"."))

        killed = forked(child) == signal.SIGKILL
        steps = log.stat().st_size if log.exists() else 0
        found = contents(place / "tasks.db")
        # Before the first acknowledgement any of the formats on the way may be found.
        right = steps == 0 or found in held[steps - 1 : steps + 1]
        yield {"operation": number, "after": after, "killed": killed, "steps": steps, "ok": right}
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=0, help="how many; all when 0")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    counter = itertools.count(1)
    secrets.token_hex = lambda nbytes=None: f"{next(counter):0{2 * (nbytes or 32)}x}"
    Ids.new = lambda *_: f"{next(counter):032x}"  # type: ignore[method-assign]
    chance = random.Random(arguments.seed)
    numbers = [chance.randrange(10**6) for _ in range(arguments.kills)]
    for line in cut_lives(arguments.folder, numbers):
        print(json.dumps(line), flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
