"""Large results, from the tool to whoever asks for them: the files, crashes, a disk that is full,
and answers that are too small for them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_core.host import Host
from mcpd_task_queue.errors import BlobDamaged, StoreFull
from mcpd_task_queue.records import Filter, NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.testing import Clock

ME = Principal("local", "1000", "ada")
LARGE = CallResult("x" * 300_000)

New = Callable[..., NewTask]
OpenStore = Callable[..., SQLiteTaskStore]
Start = Callable[..., AbstractAsyncContextManager[Host]]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "blobs").glob("*/*"))


def start_one(store: SQLiteTaskStore, new: New) -> tuple[str, int]:
    (submitted,) = store.submit([new()]).result(10)
    (task,) = store.claim("me:1", 1, 30).result(10)
    assert task.id == submitted.task_id
    return task.id, task.fence


def complete(store: SQLiteTaskStore, new: New, result: CallResult = LARGE) -> str:
    task_id, fence = start_one(store, new)
    assert store.complete(task_id, fence, result).result(10).accepted
    return task_id


def settled(store: SQLiteTaskStore) -> None:
    """Wait until the files have been tidied: both threads of the blobs are free for this."""
    both = threading.Barrier(2, timeout=10)
    for waiting in [store._results._keeper.run(both.wait) for _ in range(2)]:
        waiting.result(10)


def get(store: SQLiteTaskStore, task_id: str) -> Any:
    snapshot = store.get(ME, task_id, payload=True).result(10)
    assert snapshot is not None
    return snapshot.task


# --- files ----------------------------------------------------------------------------------------


def test_a_small_result_is_no_file_and_a_large_one_is_not_in_the_database(
    store: SQLiteTaskStore, new: New, tmp_path: Path
) -> None:
    complete(store, new, CallResult("x" * 60_000))
    assert not (tmp_path / "blobs").exists()
    task_id = complete(store, new, CallResult("x" * 70_000))
    (file,) = files(tmp_path)
    assert json.loads(file.read_bytes()) == {"text": "x" * 70_000}
    assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
    inline = store._reader.do(
        lambda c: c.execute(
            "SELECT result, blob, blob_size FROM payload JOIN task USING (seq) WHERE id = ?",
            (task_id,),
        ).fetchone()
    ).result(10)
    assert inline == (None, file.name, file.stat().st_size)


def test_a_shared_file_goes_with_the_last_task_that_has_it(
    open_store: OpenStore, new: New, clock: Clock, tmp_path: Path
) -> None:
    store = open_store(retention=100)
    complete(store, new)
    clock.advance(60)
    second = complete(store, new)
    (file,) = files(tmp_path)
    clock.advance(60)
    assert store.sweep().result(10).purged == 1
    settled(store)
    assert files(tmp_path) == [file]
    assert get(store, second).result == LARGE
    clock.advance(60)
    assert store.sweep().result(10).purged == 1
    settled(store)
    assert files(tmp_path) == []


def test_a_result_that_came_too_late_leaves_no_file(
    store: SQLiteTaskStore, new: New, tmp_path: Path
) -> None:
    task_id, fence = start_one(store, new)
    assert not store.complete(task_id, fence + 1, LARGE).result(10).accepted
    settled(store)
    assert files(tmp_path) == []
    store.cancel(ME, task_id).result(10)
    assert store.complete(task_id, fence, LARGE).result(10).state == "cancelled"
    settled(store)
    assert files(tmp_path) == []


def test_a_damaged_file_is_named_and_harms_nothing_else(
    store: SQLiteTaskStore, new: New, tmp_path: Path
) -> None:
    task_id = complete(store, new)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BlobDamaged, match=rf"{file}, which has a task's result, is damaged"):
        get(store, task_id)
    with pytest.raises(BlobDamaged):
        store.read_result(ME, task_id, 0, 10).result(10)
    snapshot = store.get(ME, task_id).result(10)
    assert snapshot is not None
    assert snapshot.task.state == "succeeded"
    # The same result of another task mends it.
    other = complete(store, new)
    assert get(store, task_id).result == get(store, other).result == LARGE


def test_closing_waits_until_a_large_result_is_recorded(open_store: OpenStore, new: New) -> None:
    store = open_store()
    task_id, fence = start_one(store, new)
    recorded = store.complete(task_id, fence, LARGE)
    store.close().result(10)
    assert recorded.result(0).accepted
    store = open_store()
    assert get(store, task_id).result == LARGE


# --- crashes --------------------------------------------------------------------------------------

#: A process that dies at a point between the file of a result and the commit that refers to it.
DYING = """
    import os, signal, sys
    from pathlib import Path
    from mcpd_core import CallResult, Principal
    from mcpd_task_queue import blobs
    from mcpd_task_queue.records import Filter, NewTask
    from mcpd_task_queue.sqlite import SQLiteTaskStore, changes

    point = sys.argv[2]
    store = SQLiteTaskStore(Path(sys.argv[1]))
    task = NewTask("add", {}, Principal("local", "1000", "ada"), repeatable=True)
    store.submit([task]).result(10)
    (task,) = store.claim("me:1", 1, 30).result(10)

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    if point == "written":
        Path.rename = die
    elif point == "renamed":
        blobs.BlobStore.put = lambda self, data, put=blobs.BlobStore.put: (put(self, data), die())
    elif point == "committing":
        changes.succeed = lambda *of, run=changes.succeed: (run(*of), die())
    elif point == "committed":
        store.listen(die)
    store.complete(task.id, task.fence, CallResult("x" * 300_000)).result(10)
"""


@pytest.mark.parametrize("point", ["written", "renamed", "committing", "committed"])
def test_a_process_that_dies_between_file_and_commit_leaves_the_task_to_be_done_again(
    open_store: OpenStore, tmp_path: Path, point: str
) -> None:
    script = tmp_path / "dying.py"
    script.write_text(textwrap.dedent(DYING))
    command = [sys.executable, str(script), str(tmp_path / "tasks.db"), point]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    (file,) = files(tmp_path)
    assert (file.suffix == ".part") == (point == "written")
    store = open_store()
    settled(store)
    if point == "committed":
        assert files(tmp_path) == [file]
        (task_id,) = (task.id for task in store.find(ME, Filter()).result(10).tasks)
        assert get(store, task_id).result == LARGE
        return
    assert files(tmp_path) == []
    assert store.recover("me:2").result(10).readied == 1
    (task,) = store.claim("me:2", 1, 30).result(10)
    assert store.complete(task.id, task.fence, LARGE).result(10).accepted
    assert get(store, task.id).result == LARGE


def test_a_commit_that_fails_after_the_file_was_written_leaves_none(
    store: SQLiteTaskStore, new: New, tmp_path: Path
) -> None:
    task_id, fence = start_one(store, new)
    store._writer.do(
        lambda tx: tx.execute(
            "CREATE TEMP TRIGGER full BEFORE UPDATE OF blob ON payload"
            " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    ).result(10)
    with pytest.raises(StoreFull):
        store.complete(task_id, fence, LARGE).result(10)
    settled(store)
    assert files(tmp_path) == []
    store._writer.do(lambda tx: tx.execute("DROP TRIGGER full")).result(10)
    assert store.complete(task_id, fence, LARGE).result(10).accepted


# --- through the host -----------------------------------------------------------------------------


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ask(host: Host, name: str, /, **arguments: Any) -> Any:
    result = await host.call(name, arguments, principal=ME, client="test")
    assert not result.is_error, result.text
    return result.structured


async def submit(host: Host, tool: str, **arguments: Any) -> str:
    return str((await ask(host, "submit_task", tool=tool, arguments=arguments))["task_id"])


async def fetch(host: Host, task_id: str) -> str:
    """Get a result part by part, as a client is told to."""
    parts = []
    offset: int | None = 0
    while offset is not None:
        answer = await ask(host, "get_task_result", task_id=task_id, offset=offset)
        assert answer["part"]["offset"] == offset
        parts.append(answer["part"]["text"])
        offset = answer["part"]["next_offset"]
    return "".join(parts)


@pytest.mark.anyio
async def test_a_result_of_20_mb_is_described_and_fetched_in_parts(start: Start) -> None:
    async with start() as host:
        task_id = await submit(host, "big", size=20_000_000)
        answer = await ask(host, "get_task_result", task_id=task_id, wait=60)
        assert (answer["state"], "text" in answer) == ("succeeded", False)
        large = answer["large"]
        assert large["size"] == 20_000_011
        assert "Call get_task_result with offset=0" in large["how"]
        text = await fetch(host, task_id)
        assert json.loads(text) == {"text": "x" * 20_000_000}
        assert hashlib.sha256(text.encode()).hexdigest() == large["sha256"]


@pytest.mark.anyio
@pytest.mark.parametrize("text", ['"\\' * 5_000, "plain" * 5_000, "é" * 20_000])
async def test_whatever_a_result_has_its_parts_fit_into_answers(start: Start, text: str) -> None:
    async with start(executor={"max_result_bytes": 10_000}) as host:
        task_id = await submit(host, "shout", text=text)
        assert "large" in await ask(host, "get_task_result", task_id=task_id, wait=60)
        assert json.loads(await fetch(host, task_id)) == {"text": text.upper()}
        answer = await ask(host, "get_task_result", task_id=task_id, offset=2, length=4)
        assert (answer["part"]["text"], answer["part"]["next_offset"]) == ("text", 6)


@pytest.mark.anyio
async def test_a_result_that_just_fits_is_answered_whole(start: Start) -> None:
    # Stored, each of these takes six bytes; in an answer, two.
    async with start(executor={"max_result_bytes": 10_000}) as host:
        task_id = await submit(host, "shout", text="É" * 4_500)
        answer = await ask(host, "get_task_result", task_id=task_id, wait=60)
        assert answer["text"] == "É" * 4_500


@pytest.mark.anyio
async def test_a_part_of_no_result_is_why_there_is_none(start: Start) -> None:
    async with start() as host:
        answer = await ask(host, "submit_task", tool="shout", arguments={"text": ""}, delay=60)
        answer = await ask(host, "get_task_result", task_id=answer["task_id"], offset=0)
        assert (answer["ready"], "part" in answer) == (False, False)
        assert answer["why"].startswith("due in")


@pytest.mark.anyio
async def test_the_older_tool_says_where_a_large_result_is(start: Start) -> None:
    async with start() as host:
        task_id = await submit(host, "big", size=2_000_000)
        await ask(host, "get_task_result", task_id=task_id, wait=60)
        answer = await host.call("task_result", {"task_id": task_id}, principal=ME, client="test")
        assert answer.is_error
        assert "get_task_result gives it in parts" in answer.text


@pytest.mark.anyio
async def test_a_disk_that_is_full_delays_the_outcome_and_is_reported(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No room for the file: the tool is not called again, its answer is kept and tried again."""
    tries = []
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".part"):
            tries.append(descriptor)
            if len(tries) <= 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    async with start() as host:
        task_id = await submit(host, "big", size=300_000)
        answer = await ask(host, "get_task_result", task_id=task_id, wait=60)
        assert (answer["state"], len(answer["text"])) == ("succeeded", 300_000)
        assert (await ask(host, "get_task_status", task_id=task_id))["attempts"] == 1
        assert (await ask(host, "get_queue_stats"))["healthy"]
    assert len(tries) == 3
    assert "There is no room for 300,011 bytes" in caplog.text
