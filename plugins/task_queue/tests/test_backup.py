"""A backup is made while the store is in use, is there whole or not at all, and can be put back."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcpd_core import CallResult, McpdError, Principal
from mcpd_core.host import Host
from mcpd_task_queue.errors import BackupFailed, StoreClosed
from mcpd_task_queue.records import Filter, NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.sqlite.backup import Backups
from mcpd_task_queue.sqlite.transaction import Transaction
from mcpd_task_queue.testing import Clock

New = Callable[..., NewTask]
OpenStore = Callable[..., SQLiteTaskStore]

ME = Principal("local", "1000", "ada")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a backup is to be made: a folder that is not there, outside the store's."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere" / "monday"


@pytest.fixture
def live(open_store: OpenStore) -> SQLiteTaskStore:
    return open_store("live/tasks.db")


def held(store: SQLiteTaskStore) -> threading.Event:
    """Keep the writer in a commit until the event is set."""
    go, inside = threading.Event(), threading.Event()

    def wait(_: Transaction) -> None:
        inside.set()
        assert go.wait(20)

    store._writer.do(wait)
    assert inside.wait(20)
    return go


def left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# --- making one ---------------------------------------------------------------------------------


def test_a_backup_has_what_was_acknowledged_before_it_and_stays_a_store_of_its_own(
    live: SQLiteTaskStore, open_store: OpenStore, new: New, place: Path
) -> None:
    ids = [submitted.task_id for submitted in live.submit([new() for _ in range(500)]).result(10)]
    (task,) = live.claim("owner:1", 1, 30).result(10)
    live.complete(task.id, task.fence, CallResult("kept")).result(10)
    made = live.backup(place).result(10)
    live.submit([new()]).result(10)
    assert left_in(place) == ["tasks.db"], "one file: the log is in it"
    assert (made.path, made.tasks, made.blobs) == (place, 500, 0)
    assert made.bytes == (place / "tasks.db").stat().st_size
    copy = open_store("elsewhere/monday/tasks.db")
    assert copy.instance == live.instance
    assert copy.count(ME, Filter()).result(10) == 500
    snapshot = copy.get(ME, ids[0], payload=True).result(10)
    assert snapshot is not None
    assert snapshot.task.result == CallResult("kept")


def test_a_submitter_that_never_rests_neither_holds_it_up_nor_grows_the_log(
    live: SQLiteTaskStore, open_store: OpenStore, new: New, place: Path
) -> None:
    for _ in range(40):
        live.submit([new(arguments={"a": "x" * 2_000}) for _ in range(50)]).result(10)
    log = Path(f"{live.path}-wal")
    before, enough = log.stat().st_size, threading.Event()
    acknowledged: list[str] = []

    def submit() -> None:
        while not enough.is_set():
            acknowledged.append(live.submit([new()]).result(20)[0].task_id)

    submitter = threading.Thread(target=submit)
    submitter.start()
    while not acknowledged:
        time.sleep(0.001)
    early = list(acknowledged)
    made = live.backup(place).result(40)
    grown = log.stat().st_size
    during = len(acknowledged)
    enough.set()
    submitter.join(20)
    assert len(early) < during, "somebody was served meanwhile"
    assert 2_000 + len(early) <= made.tasks <= 2_001 + during
    copy = open_store("elsewhere/monday/tasks.db")
    assert all(copy.get(ME, task_id).result(10) for task_id in early)
    assert grown <= max(before, 16 << 20)


def test_nobody_else_can_read_it(live: SQLiteTaskStore, place: Path) -> None:
    previous = os.umask(0)
    try:
        live.backup(place).result(10)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "tasks.db").stat().st_mode) == 0o600


def put_large(store: SQLiteTaskStore, new: New) -> Path:
    """Have a task succeed with a result that is a file; returns where that is."""
    before = blobs_of(store)
    store.submit([new()]).result(10)
    (task,) = store.claim("owner:1", 1, 30).result(10)
    store.complete(task.id, task.fence, CallResult(f"{task.id} " * 4_000)).result(10)
    (file,) = blobs_of(store) - before
    return file


def blobs_of(store: SQLiteTaskStore) -> set[Path]:
    return {file for file in store.path.parent.glob("blobs/??/*") if len(file.name) == 64}


def test_large_results_are_taken_along_and_unfinished_ones_are_not(
    live: SQLiteTaskStore, new: New, place: Path
) -> None:
    file = put_large(live, new)
    (file.parent / "0123456789abcdef.part").write_text("half")
    assert live.backup(place).result(10).blobs == 1
    copied = place / "blobs" / file.parent.name
    assert left_in(copied) == [file.name]
    assert (copied / file.name).samefile(file)


def test_on_another_file_system_large_results_are_copied(
    live: SQLiteTaskStore, new: New, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put_large(live, new)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert live.backup(place).result(10).blobs == 1
    copied = place / "blobs" / file.parent.name / file.name
    assert copied.read_bytes() == file.read_bytes()
    assert not copied.samefile(file)


def test_a_result_that_is_new_and_purged_while_it_is_made_is_in_it(
    open_store: OpenStore,
    new: New,
    place: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = open_store("live/tasks.db", retention=60.0)
    copy, made = Backups._copy, list[Path]()

    def settled() -> None:
        keeper = live._results._keeper
        while keeper._pending:
            time.sleep(0.001)

    def copy_between(self: Backups, path: Path) -> None:
        made.append(put_large(live, new))
        copy(self, path)
        clock.advance(61)
        assert live.sweep().result(10).purged == 1
        settled()

    monkeypatch.setattr(Backups, "_copy", copy_between)
    assert live.backup(place).result(20).blobs == 1
    settled()
    (file,) = made
    assert not file.exists(), "it is removed once the backup has it"
    copied = open_store("elsewhere/monday/tasks.db", retention=60.0)
    (task,) = copied.find(ME, Filter()).result(10).tasks
    snapshot = copied.get(ME, task.id, payload=True).result(10)
    assert snapshot is not None
    assert snapshot.task.result == CallResult(f"{task.id} " * 4_000)


def test_a_result_that_the_store_has_lost_holds_no_backup_up(
    live: SQLiteTaskStore, new: New, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost, kept = put_large(live, new), put_large(live, new)
    lost.unlink()
    made = live.backup(place).result(10)
    assert (made.tasks, made.blobs) == (2, 1)
    assert (place / "blobs" / kept.parent.name / kept.name).exists()
    assert f"{lost} is missing" in caplog.text


# --- not making one -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ("elsewhere", "exists already"),
        ("elsewhere/file", "exists already"),
        ("nowhere/monday", "nowhere is no folder"),
        ("live/monday", "is in the folder of the store itself"),
    ],
)
def test_a_place_that_will_not_do_is_refused_and_stays_as_it_is(
    live: SQLiteTaskStore, place: Path, tmp_path: Path, where: str, complaint: str
) -> None:
    (tmp_path / "elsewhere" / "file").write_text("precious")
    before = left_in(tmp_path / "live")
    with pytest.raises(BackupFailed, match=complaint):
        live.backup(tmp_path / where).result(10)
    assert left_in(tmp_path) == ["elsewhere", "live"]
    assert left_in(tmp_path / "live") == before
    assert (tmp_path / "elsewhere" / "file").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_named(live: SQLiteTaskStore) -> None:
    with pytest.raises(BackupFailed, match="/proc/monday was not made: "):
        live.backup(Path("/proc/monday")).result(10)


def test_one_at_a_time(live: SQLiteTaskStore, place: Path) -> None:
    go = held(live)
    first = live.backup(place)
    with pytest.raises(BackupFailed, match="being made already"):
        live.backup(place.with_name("tuesday")).result(10)
    go.set()
    assert first.result(10).path == place
    assert live.backup(place.with_name("tuesday")).result(10).tasks == 0


def test_a_store_that_closes_does_not_wait_for_it(live: SQLiteTaskStore, place: Path) -> None:
    go = held(live)
    queued = live._writer._queue.qsize()
    making = live.backup(place)
    while live._writer._queue.qsize() == queued:
        time.sleep(0.001)
    closing = live.close()
    while live._writer._closed is None:
        time.sleep(0.001)
    go.set()
    with pytest.raises(StoreClosed):
        making.result(10)
    closing.result(10)
    assert left_in(place.parent) == []


def test_a_damaged_store_makes_no_backup_that_looks_like_one(
    open_store: OpenStore, new: New, place: Path
) -> None:
    store = open_store("live/tasks.db")
    store.submit([new(arguments={"a": "x" * 3_000}) for _ in range(200)]).result(10)
    store.close().result(10)
    # A page of arguments, which nobody reads before the copy does.
    at = store.path.read_bytes().rindex(b"x" * 1_000)
    with open(store.path, "r+b") as file:
        file.seek(at // 4_096 * 4_096)
        file.write(b"\xff" * 4_096)
    with pytest.raises(BackupFailed, match="damaged"):
        open_store("live/tasks.db").backup(place).result(10)
    assert left_in(place.parent) == []


# --- for the owner of a server ------------------------------------------------------------------


async def back_up(host: Host, path: object) -> Any:
    return await host.extras.rpc_methods()["task_queue/backup"]({"path": path}, ME)


async def ask(host: Host, tool: str, /, **arguments: Any) -> dict[str, Any]:
    answer = await host.call(tool, arguments, principal=ME, client="test")
    assert answer.structured is not None, answer
    return answer.structured


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_backup_is_put_in_place_of_the_store_and_the_work_goes_on(
    start: Callable[..., Any], tmp_path: Path, place: Path, log: list[str]
) -> None:
    async with start() as host:
        done = (await ask(host, "submit_task", tool="add", arguments={"a": 2}))["task_id"]
        assert (await ask(host, "get_task_result", task_id=done, wait=20))["ready"]
        held = (await ask(host, "submit_task", tool="hold"))["task_id"]
        safe = (await ask(host, "submit_task", tool="hold_safely"))["task_id"]
        later = await ask(host, "submit_task", tool="add", arguments={"a": 3}, delay=1e6)
        while log.count("started") < 2:
            await anyio.sleep(0.005)
        answer = await back_up(host, str(place))
        assert (answer["path"], answer["tasks"], answer["blobs"]) == (str(place), 4, 0)
        # What comes after the backup is lost with the store.
        lost = (await ask(host, "submit_task", tool="add", arguments={"a": 4}))["task_id"]
    shutil.rmtree(tmp_path / "task_queue")
    shutil.copytree(place, tmp_path / "task_queue")
    async with start() as host:
        assert (await ask(host, "get_task_result", task_id=done))["structured"]["sum"] == 2
        states = {
            name: (await ask(host, "get_task_status", task_id=task_id))["state"]
            for name, task_id in (("held", held), ("later", later["task_id"]))
        }
        assert states == {"held": "uncertain", "later": "scheduled"}
        # It may be run again without asking anybody, so it is.
        again = await ask(host, "get_task_status", task_id=safe)
        assert [event["kind"] for event in again["events"]][:3] == [
            "submitted",
            "started",
            "interrupted",
        ]
        unknown = await host.call("get_task_status", {"task_id": lost}, principal=ME, client="test")
        assert unknown.error is not None
        assert unknown.error["code"] == "unknown_task"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("path", [None, 7, "relative/folder"])
async def test_a_place_is_given_from_the_root_on(
    start: Callable[..., Any], path: object, tmp_path: Path
) -> None:
    async with start() as host:
        before: Sequence[str] = left_in(tmp_path)
        with pytest.raises(McpdError, match="is no absolute path") as caught:
            await back_up(host, path)
        assert caught.value.code == "backup_failed"
        assert left_in(tmp_path) == before
