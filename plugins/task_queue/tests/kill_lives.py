"""Kills whole hosts with SIGKILL, each at a named moment in the life of its tasks.

A program, run as ``python -m plugins.task_queue.tests.kill_lives``: it forks, which only a process
without threads may. A child is a host with a task queue; it submits tasks, notes what was
acknowledged, and is killed where it was told to be. The next child takes over and finishes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mcpd_core import Principal
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory
from mcpd_core.settings import load_settings
from mcpd_task_queue.dispatcher import Dispatcher
from mcpd_task_queue.records import FINAL, Change
from mcpd_task_queue.sqlite import SQLiteTaskStore, changes, sweeping
from mcpd_task_queue.tools import MODULES

from .conftest import row
from .kill_points import forked

ME = Principal("local", "1", "me")
TOOLS = """
    import asyncio, os, signal
    from mcpd_core import tool

    async def work(key, seconds):
        fd = os.open(os.environ["LIVES_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{key}\\n".encode())
        os.close(fd)
        if os.environ.get("LIVES_POINT") == "in the middle of a body":
            os.kill(os.getpid(), signal.SIGKILL)
        # Who finishes what others have left behind has no time to lose.
        await asyncio.sleep(seconds if os.environ["LIVES_POINT"] else 0.0)
        return key

    @tool(idempotent=True)
    async def safe(key: str, seconds: float) -> str:
        return await work(key, seconds)

    @tool
    async def unsafe(key: str, seconds: float) -> str:
        return await work(key, seconds)
"""


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(module: Any, name: str) -> Callable[[], None]:
    """Die where this is called; of an operation of the store: before its commit."""
    assert hasattr(module, name), f"{module.__name__} has no {name} any more"
    return lambda: setattr(module, name, die)


def on_commit(what: Callable[[Change], bool]) -> Callable[[], None]:
    """Die behind the first commit with such a change, before anybody is told of it."""

    def install() -> None:
        real = SQLiteTaskStore._committed

        def committed(self: SQLiteTaskStore, made: Sequence[Change]) -> None:
            if any(what(change) for change in made):
                die()
            real(self, made)

        SQLiteTaskStore._committed = committed  # type: ignore[method-assign]

    return install


POINTS: dict[str, Callable[[], None]] = {
    "before a submit is committed": before(changes, "_submit"),
    "behind a submit that nobody was told of": on_commit(lambda c: c.before is None),
    "before a claim is committed": before(changes, "_taken"),
    "behind a claim, before the body": on_commit(lambda c: c.after == "running"),
    "in the middle of a body": lambda: None,
    "behind the body, before it is recorded": before(changes, "complete"),
    "behind the record, before the reply": on_commit(lambda c: c.after == "succeeded"),
    "while leases are renewed": before(changes, "renew"),
    "while it sweeps": before(sweeping, "_expired"),
    "at the beginning of the shutdown": before(Dispatcher, "stop"),
    "while it records what the shutdown cut off": before(changes, "interrupt"),
    "while it takes over": before(sweeping, "recover"),
}


async def live(folder: Path, *, submits: bool) -> None:
    """Be a host until every task has ended, or until it is killed."""
    settings = load_settings(
        config=None, env={}, overrides={"task_queue": {"first_retry": 0.01, "lease": 1.0}}
    )
    hooks = ("mcpd_http_routes", "mcpd_rpc_methods", "mcpd_services", "mcpd_settings")
    rows = (
        row("task_queue", "mcpd_task_queue.plugin", MODULES, "trio", hooks),
        row("work", "lives_work", ["lives_work"], "asyncio", ()),
    )

    async def ask(name: str, /, **arguments: Any) -> Any:
        answer = await host.call(name, arguments, principal=ME, client="test")
        assert answer.error is None, answer.text
        return answer.structured

    async with Host(Inventory(rows), settings, data_dir=folder) as host:
        await host.start_services()
        if submits:
            with (folder / "acknowledged").open("a", buffering=1) as acknowledged:
                for n in range(8):
                    key = f"{n}"
                    submitted = await ask(
                        "submit_task",
                        tool="unsafe" if n % 4 == 3 else "safe",
                        # The last ones are at it when the host is told to stop.
                        arguments={"key": key, "seconds": 60.0 if n >= 6 else 0.0},
                        delivery="at_most_once" if n % 2 else "at_least_once",
                        idempotency_key=key,
                    )
                    acknowledged.write(f"{submitted['task_id']}\n")
            first = (folder / "acknowledged").read_text().split()[0]
            await ask("get_task_result", task_id=first, wait=20.0)
            while not {"6", "7"} <= set((folder / "log").read_text().split()):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)  # leases are renewed meanwhile
            return
        while True:
            counts = (await ask("get_queue_stats"))["counts"]
            if not counts["scheduled"] + counts["ready"] + counts["running"]:
                return
            await asyncio.sleep(0.01)


def child(folder: Path, point: str, *, submits: bool) -> int:
    """Have one life; returns the signal that ended it, or 0."""

    def body() -> None:
        os.environ["LIVES_POINT"] = point
        if point:
            POINTS[point]()
        asyncio.run(live(folder, submits=submits))

    return forked(body)


def try_point(folder: Path, point: str) -> dict[str, object]:
    """Let a host die at a point and others finish; return what was found."""
    folder.mkdir()
    os.environ["LIVES_LOG"] = str(folder / "log")
    (folder / "log").touch()
    if point == "while it takes over":
        killed = child(folder, "in the middle of a body", submits=True) == signal.SIGKILL
        killed = killed and child(folder, point, submits=False) == signal.SIGKILL
    else:
        killed = child(folder, point, submits=True) == signal.SIGKILL
    ended = child(folder, "", submits=False) == 0
    connection = sqlite3.connect(folder / "task_queue" / "tasks.db")
    tasks = connection.execute("SELECT id, state, idempotency_key, attempts FROM task").fetchall()
    integrity = connection.execute("PRAGMA integrity_check").fetchall()
    finals = Counter(
        task_id
        for task_id, state in connection.execute(
            "SELECT task.id, event.state FROM event JOIN task USING (seq)"
        )
        if state in FINAL
    )
    connection.close()
    path = folder / "acknowledged"
    acknowledged = set(path.read_text().split()) if path.exists() else set()
    starts = Counter((folder / "log").read_text().split())
    wrong = []
    if integrity != [("ok",)]:
        wrong.append("the database is damaged")
    if not acknowledged <= {task_id for task_id, *_ in tasks}:
        wrong.append("acknowledged, and gone")
    for task_id, state, key, attempts in tasks:
        if finals[task_id] != (state in FINAL) or state not in FINAL | {"uncertain"}:
            wrong.append(f"{key} is {state} and ended {finals[task_id]} times")
        if starts[key] > (1 if int(key) % 2 else 1 + attempts):
            wrong.append(f"{key} was started {starts[key]} times")
    return {"point": point, "killed": killed, "ended": ended, "wrong": wrong, "tasks": len(tasks)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("points", nargs="*")
    arguments = parser.parse_args()
    (arguments.folder / "lives_work.py").write_text(textwrap.dedent(TOOLS))
    sys.path.insert(0, str(arguments.folder))
    for n, point in enumerate(arguments.points or POINTS):
        found = try_point(arguments.folder / f"life{n}", point)
        print(json.dumps(found), flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
