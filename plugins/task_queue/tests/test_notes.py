"""What running tools say: bounded on its way to the store, there soon, not lost with the end."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import textwrap
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio

from mcpd_core import Principal, Progress
from mcpd_core.host import Host
from mcpd_task_queue.notes import LONGEST_LINE, Notes
from mcpd_task_queue.records import Note
from mcpd_task_queue.settings import RetentionOf, TaskQueueSettings

ME = Principal("local", "1000", "ada")
DAY = 86_400.0

Start = Callable[..., AbstractAsyncContextManager[Host]]


class Fresh:
    """Counts how often there was something new."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def messages(note: Note | None) -> list[str]:
    assert note is not None
    return [line.message for line in note.lines]


# --- before the store -----------------------------------------------------------------------------


def test_what_is_said_is_taken_once_and_announced_once() -> None:
    fresh = Fresh()
    notes = Notes(10, fresh)
    assert notes.take("task", 1) is None
    notes.on_log("info", "one")
    notes.on_progress(Progress(1, 2, "half"))
    notes.on_log("warning", "two")
    assert fresh.times == 1
    note = notes.take("task", 7)
    assert note is not None
    assert (note.task_id, note.fence, note.dropped) == ("task", 7, 0)
    assert [(line.level, line.message) for line in note.lines] == [
        ("info", "one"),
        ("warning", "two"),
    ]
    assert note.progress is not None
    assert note.progress.progress == Progress(1, 2, "half")
    assert note.progress == notes.latest
    assert notes.take("task", 7) is None
    notes.on_log("info", "three")
    assert fresh.times == 2


def test_the_last_lines_are_kept_and_the_others_counted() -> None:
    notes = Notes(3, Fresh())
    for n in range(10):
        notes.on_log("info", str(n))
    note = notes.take("task", 1)
    assert messages(note) == ["7", "8", "9"]
    assert note is not None
    assert note.dropped == 7


def test_what_could_not_be_stored_is_put_back_before_what_came_since() -> None:
    fresh = Fresh()
    notes = Notes(3, fresh)
    for n in range(4):
        notes.on_log("info", str(n))
    notes.on_progress(Progress(1))
    note = notes.take("task", 1)
    assert note is not None
    notes.on_log("info", "4")
    notes.put_back(note)
    assert fresh.times == 3
    note = notes.take("task", 1)
    assert messages(note) == ["2", "3", "4"]
    assert note is not None
    assert (note.dropped, note.progress) == (2, notes.latest)


def test_newer_progress_is_not_replaced_by_what_is_put_back() -> None:
    notes = Notes(3, Fresh())
    notes.on_progress(Progress(1))
    note = notes.take("task", 1)
    assert note is not None
    notes.on_progress(Progress(2))
    notes.put_back(note)
    note = notes.take("task", 1)
    assert note is not None
    assert note.progress is not None
    assert note.progress.progress == Progress(2)


def test_a_long_line_is_shortened_and_progress_that_is_no_number_left_out() -> None:
    fresh = Fresh()
    notes = Notes(3, fresh)
    notes.on_progress(Progress(math.nan))
    notes.on_progress(Progress(1, math.inf))
    assert fresh.times == 0
    notes.on_log("a level that nobody has heard of", "x" * 100_000)
    note = notes.take("task", 1)
    assert note is not None
    (line,) = note.lines
    assert len(line.message) == LONGEST_LINE
    assert line.message.endswith("x…")
    assert len(line.level) == 20


def test_with_no_lines_to_be_kept_none_are() -> None:
    fresh = Fresh()
    notes = Notes(0, fresh)
    notes.on_log("info", "lost")
    assert (fresh.times, notes.take("task", 1)) == (0, None)


# --- settings -------------------------------------------------------------------------------------


def test_dead_tasks_are_kept_longer_unless_the_settings_say_otherwise() -> None:
    def dead(**options: Any) -> float:
        return TaskQueueSettings(**options).retention_of_states["dead"]

    assert dead() == 30 * DAY
    assert dead(retention=90 * DAY) == 90 * DAY
    assert dead(retention_of=RetentionOf(dead=DAY)) == DAY
    assert TaskQueueSettings(
        retention=5.0, retention_of=RetentionOf(failed=7.0)
    ).retention_of_states == {
        "succeeded": 5.0,
        "failed": 7.0,
        "cancelled": 5.0,
        "dead": 30 * DAY,
    }


# --- from the tool to who asks --------------------------------------------------------------------

TALKERS = """
    from __future__ import annotations
    import threading
    import anyio
    import anyio.lowlevel
    from mcpd_core import Context, tool

    go_on = threading.Event()

    @tool(read_only=True)
    async def talk(ctx: Context, lines: int) -> str:
        ctx.progress(1, 2, "talking")
        for n in range(lines):
            ctx.log("info", f"line {n}")
        while not go_on.is_set():
            await anyio.sleep(0.002)
        ctx.progress(2, 2, "said it")
        ctx.log("warning", "the last word")
        return "said"

    @tool(read_only=True)
    async def chatter(ctx: Context, lines: int) -> str:
        for n in range(lines):
            ctx.log("debug", f"line {n} " + "x" * 1000)
            if n % 100 == 0:
                await anyio.lowlevel.checkpoint()
        return "said"

    @tool(read_only=True)
    async def pass_on(ctx: Context) -> str:
        ctx.log("info", "outer")
        await ctx.call("chatter", {"lines": 1})
        return "said"
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def talkers(work: str, tmp_path: Path) -> Any:
    """Have tools that say much in place of the usual ones."""
    import importlib
    import sys

    (tmp_path / f"{work}.py").write_text(textwrap.dedent(TALKERS))
    sys.modules.pop(work, None)
    importlib.invalidate_caches()
    return importlib.import_module(work)


async def ask(host: Host, name: str, /, **arguments: Any) -> Any:
    result = await host.call(name, arguments, principal=ME, client="test")
    assert not result.is_error, result.text
    return result.structured


async def submit(host: Host, tool: str, **arguments: Any) -> str:
    return str((await ask(host, "submit_task", tool=tool, arguments=arguments))["task_id"])


def stored(folder: Path, task_id: str) -> Any:
    """Look into the file: progress, and the number of log lines."""
    connection = sqlite3.connect(folder / "task_queue" / "tasks.db")
    try:
        return connection.execute(
            "SELECT progress_message, (SELECT count(*) FROM log_line WHERE seq = task.seq)"
            " FROM task WHERE id = ?",
            (task_id,),
        ).fetchone()
    finally:
        connection.close()


@pytest.mark.anyio
@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_what_a_running_tool_says_is_stored_long_before_its_lease_is_renewed(
    start: Start, talkers: Any, tmp_path: Path, runtime: str
) -> None:
    async with start(runtime=runtime, task_queue={"lease": 86_400}) as host:
        task_id = await submit(host, "talk", lines=3)
        while stored(tmp_path, task_id) != ("talking", 3):
            await asyncio.sleep(0.01)
        answer = await ask(host, "get_task_status", task_id=task_id)
        assert (answer["state"], answer["progress"]["message"]) == ("running", "talking")
        assert answer["started_at"] <= answer["progress"]["at"] <= answer["logs"][0]["at"]
        assert [line["message"] for line in answer["logs"]] == ["line 0", "line 1", "line 2"]
        talkers.go_on.set()
        await ask(host, "get_task_result", task_id=task_id, wait=60)
        # What is said last is stored with the end, and not after it.
        answer = await ask(host, "get_task_status", task_id=task_id, log_lines=1)
        assert (answer["state"], answer["logged"]) == ("succeeded", 4)
        (line,) = answer["logs"]
        assert (line["level"], line["message"], line["attempt"]) == ("warning", "the last word", 1)
        assert answer["progress"]["message"] == "said it"


@pytest.mark.anyio
async def test_a_tool_that_logs_in_a_loop_neither_fills_memory_nor_the_store(
    start: Start, talkers: Any, tmp_path: Path
) -> None:
    async with start(task_queue={"log_lines": 50}) as host:
        writer = (await service(host))._store._writer
        await ask(host, "get_task_result", task_id=await submit(host, "chatter", lines=1), wait=60)
        before = writer.commits
        tracemalloc.start()
        try:
            task_id = await submit(host, "chatter", lines=20_000)
            await ask(host, "get_task_result", task_id=task_id, wait=120)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        answer = await ask(host, "get_task_status", task_id=task_id, log_lines=1000)
        assert answer["logged"] == 20_000
        assert [line["message"].split()[1] for line in answer["logs"]] == [
            str(n) for n in range(19_950, 20_000)
        ]
        assert stored(tmp_path, task_id) == (None, 50)
        # The text of all these lines alone takes twice as much.
        assert peak < 10_000_000
        assert writer.commits - before < 200


@pytest.mark.anyio
async def test_what_a_called_tool_logs_is_its_callers_affair(start: Start, talkers: Any) -> None:
    async with start() as host:
        task_id = await submit(host, "pass_on")
        await ask(host, "get_task_result", task_id=task_id, wait=60)
        answer = await ask(host, "get_task_status", task_id=task_id)
        assert [line["message"] for line in answer["logs"]] == ["outer"]


async def service(host: Host) -> Any:
    proxy = await host.service("task_queue", host.lanes.loop)
    return proxy._running.object


@pytest.mark.anyio
async def test_what_cannot_be_stored_yet_is_stored_later(
    start: Start, talkers: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from concurrent.futures import Future

    from mcpd_task_queue.errors import StoreFull

    async with start() as host:
        store = (await service(host))._store
        note = store.note
        refused = trio.Event()

        def full(_: Any) -> Future[Any]:
            refused.set()
            future: Future[Any] = Future()
            future.set_exception(StoreFull("The store is full."))
            return future

        store.note = full
        task_id = await submit(host, "talk", lines=3)
        while not refused.is_set():
            await asyncio.sleep(0.01)
        assert stored(tmp_path, task_id) == (None, 0)
        store.note = note
        while stored(tmp_path, task_id) != ("talking", 3):
            await asyncio.sleep(0.01)
        talkers.go_on.set()
        await ask(host, "get_task_result", task_id=task_id, wait=60)
    assert "Progress and log lines cannot be stored: The store is full." in caplog.text
