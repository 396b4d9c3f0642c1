"""`mcpd doctor` about the stored tasks: with a daemon and without, sound and damaged."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import DaemonError, Finding, Principal, file_system_of
from mcpd_core import FileSystem as Kind
from mcpd_task_queue.checks import examine
from mcpd_task_queue.errors import StoreUnusable
from mcpd_task_queue.records import Filter, NewTask
from mcpd_task_queue.salvage import main, salvage
from mcpd_task_queue.sqlite import SQLiteTaskStore, engine, examining
from mcpd_task_queue.sqlite.connection import connect_reader

New = Callable[..., NewTask]
OpenStore = Callable[..., SQLiteTaskStore]

ME = Principal("local", "1000", "ada")
PLACE = "data/task_queue/tasks.db"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def stored(open_store: OpenStore, new: New) -> Path:
    """A store with tasks in it, closed; returns the file."""
    store = open_store(PLACE)
    store.submit([new(arguments={"a": "x" * 3_000}) for _ in range(200)]).result(10)
    store.close().result(10)
    return store.path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(path: Path) -> None:
    """Overwrite a page of arguments, which nobody reads when the store is opened."""
    at = path.read_bytes().rindex(b"x" * 1_000)
    with open(path, "r+b") as file:
        file.seek(at // 4_096 * 4_096)
        file.write(b"\xff" * 4_096)


def only(findings: Any) -> Finding:
    (finding,) = findings
    assert isinstance(finding, Finding)
    assert finding.check == "task_queue"
    return finding


# --- no daemon runs -----------------------------------------------------------------------------


def test_before_the_first_task_there_is_nothing_to_look_at(data: Path) -> None:
    finding = only(examine(data, None))
    assert finding.level == "ok"
    assert "No task has been stored yet" in finding.message
    assert not data.exists()


def test_a_sound_store_is_said_to_be_and_nothing_is_changed(data: Path, stored: Path) -> None:
    before = files(data)
    finding = only(examine(data, None))
    assert (finding.level, finding.fix) == ("ok", "")
    assert finding.message.startswith(f"{stored} (")
    assert finding.message.endswith("is sound.")
    assert files(data) == before


def test_what_a_killed_daemon_left_in_the_log_is_read_as_well(
    data: Path, open_store: OpenStore, new: New, tmp_path: Path
) -> None:
    store = open_store(PLACE)
    store.submit([new() for _ in range(20)]).result(10)
    left = tmp_path / "left"
    shutil.copytree(data, left)
    (left / "task_queue" / "tasks.db-shm").unlink()
    assert (left / "task_queue" / "tasks.db-wal").stat().st_size > 0
    before = files(left)
    assert only(examine(left, None)).level == "ok"
    after = {path: content for path, content in files(left).items() if not path.endswith("-shm")}
    assert after == before


def test_of_a_damaged_store_the_advice_can_be_followed(data: Path, stored: Path) -> None:
    damage(stored)
    finding = only(examine(data, None))
    assert finding.level == "error"
    assert f"{stored} is damaged: " in finding.message
    assert "cp -a BACKUP" in finding.fix
    keep, _, rest = finding.fix.partition("keep what is there: ")[2].partition(". Then put")
    save = rest.partition("save what can be read: ")[2].partition(". Then start")[0]
    subprocess.run(shlex.split(keep), check=True)
    assert not stored.exists()
    done = subprocess.run(shlex.split(save), check=True, capture_output=True, text=True)
    assert "tasks were saved" in done.stdout
    assert only(examine(data, None)).level == "ok"
    saved = SQLiteTaskStore(stored)
    tasks = saved.find(ME, Filter(), limit=500).result(10).tasks
    states = Counter(task.state for task in tasks)
    assert states["ready"] >= 150, "most had nothing to do with the damage"
    assert states["dead"] <= 20, "none is run with arguments that it was not given"
    again = saved.claim("owner:1", 500, 30).result(10)
    assert {len(str(task.arguments)) for task in again} == {3_000 + len("{'a': ''}")}
    saved.close().result(10)


def test_what_is_not_damaged_is_saved_as_it_was(data: Path, stored: Path, tmp_path: Path) -> None:
    before = SQLiteTaskStore(stored)
    expected = before.find(ME, Filter(), limit=500).result(10)
    before.close().result(10)
    (data / "task_queue" / "blobs" / "01").mkdir(parents=True)
    (data / "task_queue" / "blobs" / "01" / "ab").write_text("large")
    kept = files(data)
    saved = salvage(data / "task_queue", tmp_path / "new")
    assert (saved["task"], saved["payload"]) == (200, 200)
    assert files(data) == kept
    assert (tmp_path / "new" / "blobs" / "01" / "ab").read_text() == "large"
    after = SQLiteTaskStore(tmp_path / "new" / "tasks.db")
    assert after.instance == before.instance
    assert after.find(ME, Filter(), limit=500).result(10) == expected
    after.close().result(10)


def test_nothing_is_saved_over_anything(
    data: Path, stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(data / "task_queue"), str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["one"]) == 2
    stored.write_bytes(b"not a database at all" * 1_000)
    assert main([str(data / "task_queue"), str(tmp_path / "new")]) == 1
    assert "Nothing can be read of" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_no_database_is_damaged(data: Path, stored: Path) -> None:
    stored.write_bytes(b"not a database at all" * 1_000)
    finding = only(examine(data, None))
    assert finding.level == "error"
    assert "file is not a database" in finding.message


@pytest.mark.parametrize(
    ("statement", "words", "fix"),
    [
        ("PRAGMA user_version = 999", "written by a newer mcpd-task-queue", "pip install"),
        ("PRAGMA application_id = 7", "not a task store", "Move it away"),
    ],
)
def test_a_file_that_is_not_for_this_version_is_told(
    data: Path, stored: Path, statement: str, words: str, fix: str
) -> None:
    connection = sqlite3.connect(stored)
    connection.execute(statement)
    connection.close()
    finding = only(examine(data, None))
    assert finding.level == "error"
    assert words in finding.message
    assert fix in finding.fix


def test_whoever_uses_it_without_being_a_daemon_is_named(
    data: Path, stored: Path, open_store: OpenStore
) -> None:
    open_store(PLACE)
    finding = only(examine(data, None))
    assert finding.level == "warning"
    assert f"Process {os.getpid()} uses {stored}" in finding.message


def test_a_daemon_that_starts_meanwhile_makes_the_looking_void(
    data: Path, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> list[Finding]:
        Path(f"{stored}-wal").touch()
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(examining, "examine", start)
    finding = only(examine(data, None))
    assert (finding.level, finding.fix) == ("note", "Run this again.")


# --- a daemon runs ------------------------------------------------------------------------------


def asked(store: SQLiteTaskStore) -> Callable[[str, Mapping[str, Any]], Mapping[str, Any]]:
    """Ask as `mcpd doctor` would, without the way between."""

    def ask(method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        assert (method, params) == ("task_queue/check", {})
        return {"findings": [finding.to_json() for finding in store.examine().result(20)]}

    return ask


def test_the_daemon_looks_itself(data: Path, stored: Path, open_store: OpenStore) -> None:
    finding = only(examine(data, asked(open_store(PLACE))))
    assert (finding.level, finding.message.endswith("is sound.")) == ("ok", True)


def test_the_daemon_finds_damage_as_well(data: Path, stored: Path, open_store: OpenStore) -> None:
    damage(stored)
    assert only(examine(data, asked(open_store(PLACE)))).level == "error"


def test_a_daemon_that_cannot_say_is_reported(data: Path) -> None:
    def ask(*_: object) -> Mapping[str, Any]:
        raise DaemonError("Method not found.")

    finding = only(examine(data, ask))
    assert finding.level == "warning"
    assert "Method not found" in finding.message


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_owner_asks_a_server(start: Callable[..., Any]) -> None:
    async with start() as host:
        answer = await host.extras.rpc_methods()["task_queue/check"]({}, ME)
        (finding,) = answer["findings"]
        assert Finding(**finding).level == "ok"


# --- single checks ------------------------------------------------------------------------------


def test_a_file_that_others_may_open_is_a_warning(stored: Path) -> None:
    stored.chmod(0o644)
    finding = only(examining.examine_surroundings(stored))
    assert (finding.level, finding.fix) == ("warning", f"chmod 600 {stored}")


def test_a_large_log_is_a_warning_that_names_whoever_holds_it(
    open_store: OpenStore, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(PLACE)
    store.submit([new()]).result(10)
    monkeypatch.setattr(examining, "LARGE_LOG", 1_024)
    assert "It is emptied when" in only(examining.examine_surroundings(store.path)).fix
    if sys.platform == "linux":
        reading = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        reading += "c.execute('BEGIN'); c.execute('SELECT 1 FROM task').fetchall()\n"
        reading += "print('reading', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", reading, str(store.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            finding = only(examining.examine_surroundings(store.path))
            assert finding.fix == f"End it: kill {process.pid}"
            process.kill()


def test_a_disk_without_room_for_a_backup_is_a_note(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(stored.parent)._replace(free=4_096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    finding = only(examining.examine_surroundings(stored))
    assert finding.level == "note"
    assert "no room for a backup" in finding.message


def test_a_store_too_large_to_be_read_in_time_is_a_note(stored: Path) -> None:
    connection = connect_reader(stored)
    finding = only(examining.examine(connection, stored, limit=-1.0))
    connection.close()
    assert finding.level == "note"
    assert "not looked at to the end" in finding.message
    assert "PRAGMA quick_check" in finding.fix


def test_a_store_on_a_network_file_system_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Path
) -> None:
    assert not file_system_of(tmp_path).network
    monkeypatch.setattr(engine, "file_system_of", lambda _: Kind("nfs4"))
    monkeypatch.setattr(examining, "file_system_of", lambda _: Kind("nfs4"))
    with pytest.raises(StoreUnusable, match=r"on a network file system \(nfs4\)") as caught:
        SQLiteTaskStore(tmp_path / "new" / "tasks.db")
    assert "--data-dir" in caught.value.hint
    assert not (tmp_path / "new").exists()
    assert only(examining.examine_surroundings(stored)).level == "error"
