"""The power fails, at every operation on every file; and logs are cut short and damaged.

A history of everything that a store does is recorded below SQLite (`vfs_kit`); what a cut at each
point could have left (`power_kit`) is opened again. Oracle: what is found is exactly what had been
acknowledged, or that and the one change that was under way; nothing is damaged; the store works.

Some hundred cuts are tried; ``MCPD_FAULTS=all`` tries all of them. ``MCPD_FAULT_SEED`` chooses
which writes survive.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mcpd_task_queue.blobs import blob_path
from mcpd_task_queue.layout import BLOBS
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore, schema
from mcpd_task_queue.sqlite.connection import Durability
from mcpd_task_queue.sqlite.engine import INLINE_RESULT

from .power_kit import (
    ME,
    Cut,
    Disk,
    Recorder,
    Ticking,
    contents,
    large_life,
    life,
    references,
    watching_blobs,
)
from .vfs_kit import UNAVAILABLE, interposed

EVERYTHING = os.environ.get("MCPD_FAULTS") == "all"
SEED = int(os.environ.get("MCPD_FAULT_SEED", "1"))
CUTS: tuple[Cut, ...] = ("killed", "synced", "prefix", "torn")

pytestmark = [
    pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE or "it can be interposed"),
    pytest.mark.timeout(1_800 if EVERYTHING else 60),
]


@dataclass
class Aftermath:
    """Puts what a cut left where it was, and looks at it. Files that were seen before are skipped.

    :ivar tried: how many different images were looked at.
    :ivar results: how many files with results were found whole.
    """

    folder: Path
    tried: int = 0
    results: int = 0
    _seen: set[tuple[bytes, frozenset[str]]] = field(default_factory=set)

    def database(self, files: dict[str, bytes]) -> Path:
        for path in self.folder.glob("tasks.db*"):
            path.unlink()
        shutil.rmtree(self.folder / BLOBS, ignore_errors=True)
        for name, data in files.items():
            place = self.folder / Path(name).name
            if f"/{BLOBS}/" in name:
                place = self.folder / BLOBS / place.name[:2] / place.name
                place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return self.folder / "tasks.db"

    def check(self, files: dict[str, bytes], allowed: set[str], what: str) -> None:
        """Look at the tables; then, now and then, have the store itself work with them."""
        image = hashlib.sha256()
        for name, data in sorted(files.items()):
            image.update(f"{name} {len(data)} ".encode() + data)
        key = (image.digest(), frozenset(allowed))
        if key in self._seen:
            return
        self._seen.add(key)
        self.tried += 1
        found = contents(self.database(files))
        assert found in allowed, f"{what}: what is there was never acknowledged as it is"
        for name in references(self.database(files)):
            file = blob_path(self.folder / BLOBS, name)
            assert file.exists(), f"{what}: a task succeeded, and its result is not there"
            assert hashlib.sha256(file.read_bytes()).hexdigest() == name, f"{what}: half a result"
            self.results += 1
        if EVERYTHING or self.tried % 20 == 0:
            work(self.database(files), what)


def work(database: Path, what: str) -> None:
    """Have the store take over and finish what it finds."""
    clock = Ticking()
    clock.now += 1_000.0
    store = SQLiteTaskStore(
        database, durability="normal", clock=lambda: clock.now, monotonic=lambda: clock.now
    )
    try:
        store.recover("owner:9").result(10)
        store.sweep().result(10)
        while claimed := store.claim("owner:9", 100, 10.0).result(10):
            for task in claimed:
                answer = store.fail(task.id, task.fence, {"message": "no"}, "failed").result(10)
                assert answer.accepted, what
        counts = store.health().counts
        assert counts["ready"] == counts["running"] == 0, what
    finally:
        store.close().result(10)


@pytest.fixture
def aftermath(tmp_path: Path) -> Aftermath:
    folder = tmp_path / "after"
    folder.mkdir()
    return Aftermath(folder)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Recorder]:
    """Record a whole life of the store, or the first steps of one."""

    def record(
        *,
        durability: Durability = "full",
        until: str = "",
        life: Callable[..., Iterator[str]] = life,
        inline: int = INLINE_RESULT,
    ) -> Recorder:
        folder = tmp_path / "life"
        folder.mkdir(exist_ok=True)
        recorder = Recorder(folder / "tasks.db")
        clock = Ticking()
        opened: list[SQLiteTaskStore] = []

        def open_store() -> SQLiteTaskStore:
            opened.append(
                SQLiteTaskStore(
                    folder / "tasks.db",
                    durability=durability,
                    inline_result=inline,
                    clock=lambda: clock.now,
                    monotonic=lambda: clock.now,
                )
            )
            return opened[-1]

        with interposed(folder, recorder), watching_blobs(folder, recorder):
            try:
                for step in life(open_store, clock):
                    recorder.mark()
                    if step == until:
                        break
            finally:
                # What closing does is no longer of interest.
                done = len(recorder.log)
                for store in opened:
                    store.close().result(10)
                if until:
                    del recorder.log[done:]
        return recorder

    return record


def points(recorder: Recorder, start: int) -> Iterator[int]:
    """Return after which operations to cut: all, or some of each step and around each sync."""
    chance = random.Random(SEED)
    for index in range(start, len(recorder.log) + 1):
        about = {o.kind for o in recorder.log[max(0, index - 1) : index + 1]}
        if EVERYTHING or about - {"write"} or chance.random() < 0.12:
            yield index


def cuts(
    recorder: Recorder, start: int, kinds: Sequence[Cut] = CUTS, disk: Disk | None = None
) -> Iterator[tuple[int, Cut, dict[str, bytes], str]]:
    """Cut a recorded history off; also returns behind which operation, how, and both in words."""
    disk = Disk({}) if disk is None else disk
    applied = 0
    for index in points(recorder, start):
        while applied < index:
            disk.apply(recorder.log[applied])
            applied += 1
        for cut in kinds:
            chance = random.Random(f"{SEED} {index} {cut}")
            what = f"{cut} after operation {index}, MCPD_FAULT_SEED={SEED}"
            yield index, cut, disk.left(cut, chance), what


def test_whenever_the_power_fails_what_was_acknowledged_is_there(
    record: Callable[..., Recorder], aftermath: Aftermath
) -> None:
    recorder = record()
    kinds = [operation.kind for operation in recorder.log]
    assert len(recorder.marks) > 30
    assert kinds.count("sync") > 40
    moved = [o for o in recorder.log if o.kind == "write" and o.path.endswith("tasks.db")]
    assert len(moved) > 50, "the log was moved while it lived"
    for index, _, files, what in cuts(recorder, recorder.marks[0][0]):
        aftermath.check(files, recorder.allowed(index), what)
    assert aftermath.tried > 200


@pytest.mark.parametrize("left_behind", [False, True], ids=["new folders", "folders left behind"])
def test_whenever_the_power_fails_the_large_result_of_a_success_is_there(
    record: Callable[..., Recorder], aftermath: Aftermath, tmp_path: Path, left_behind: bool
) -> None:
    def led(*args: Any) -> Iterator[str]:
        if left_behind:
            # By a process that was killed before it could make their names safe.
            blobs = tmp_path / "life" / BLOBS
            for folder in (blobs, *(blobs / f"{n:02x}" for n in range(256))):
                folder.mkdir()
        yield from large_life(*args)

    recorder = record(life=led, inline=1_000)
    kinds = [operation.kind for operation in recorder.log]
    assert kinds.count("flush") >= 5
    assert kinds.count("delete") >= 4
    for index, _, files, what in cuts(recorder, recorder.marks[0][0]):
        aftermath.check(files, recorder.allowed(index), what)
    assert aftermath.results > 50


def test_less_durability_may_cost_the_latest_changes_but_no_order_and_no_sense(
    record: Callable[..., Recorder], aftermath: Aftermath
) -> None:
    recorder = record(durability="normal")
    held = {state for _, state in recorder.marks}
    lost = 0
    for index, cut, files, what in cuts(recorder, recorder.marks[0][0], ("killed", "torn")):
        if cut == "killed":
            aftermath.check(files, recorder.allowed(index), what)
            continue
        found = contents(aftermath.database(files))
        if found not in held:
            assert version(aftermath.database(files)) < len(schema.MIGRATIONS), what
        lost += found not in recorder.allowed(index)
    assert lost, "no cut cost anything: full durability is free, or the model cuts nothing"


def version(database: Path) -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def test_a_power_cut_while_the_store_is_being_made_leaves_one_that_can_be_made(
    record: Callable[..., Recorder], aftermath: Aftermath
) -> None:
    recorder = record(until="opened")
    assert len(recorder.log) > 40
    tried: set[str] = set()
    for _, _, files, what in cuts(recorder, 0):
        found = contents(aftermath.database(files))
        if EVERYTHING or found not in tried:
            work(aftermath.database(files), what)
        tried.add(found)
    assert len(tried) > 1


#: What a task of the first format had to have.
OLD_TASK = """
    INSERT INTO task (id, tool, state, principal_kind, principal_id, principal_name, client, queue,
        priority, delivery, repeatable, max_attempts, tags, digest, created_at, updated_at, events)
    VALUES (?, 'add', 'ready', 'local', '1000', 'ada', '', 'default', 0, 'at_least_once', 1, 3,
        '["gpu"]', x'00', 1.0, 1.0, 0)
"""


@pytest.mark.parametrize("old", range(1, len(schema.MIGRATIONS)))
def test_a_power_cut_during_a_migration_leaves_one_of_the_formats_with_every_task(
    tmp_path: Path, aftermath: Aftermath, old: int
) -> None:
    path = tmp_path / "tasks.db"

    def migrate(versions: int) -> str:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        schema.migrate(connection, path, schema.MIGRATIONS[:versions])
        if versions == old:
            for number in range(20):
                seq = connection.execute(OLD_TASK, (f"{number:032}",)).lastrowid
                connection.execute("INSERT INTO payload (seq, arguments) VALUES (?, '{}')", (seq,))
        connection.close()
        return contents(path)

    held = {migrate(old)}
    before = {str(path): path.read_bytes()}
    held |= {migrate(version) for version in range(old + 1, len(schema.MIGRATIONS) + 1)}
    newest = contents(path)
    path.write_bytes(before[str(path)])
    recorder = Recorder(path)
    with interposed(tmp_path, recorder):
        SQLiteTaskStore(path).close().result(10)
    tried = set()
    for _, _, files, what in cuts(recorder, 0, disk=Disk(before)):
        found = contents(aftermath.database(files))
        assert found in held, what
        if found not in tried or EVERYTHING:
            # Started again, it becomes what it was going to be.
            store = SQLiteTaskStore(aftermath.database(files))
            assert store.health().counts["ready"] == 20, what
            store.close().result(10)
            assert contents(store.path) == newest, what
        tried.add(found)
    assert tried == held


@pytest.fixture
def left_log(tmp_path: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return what a process left that died with all of it in the log, and what it had held after
    each submit."""
    folder = tmp_path / "life"
    folder.mkdir()
    recorder = Recorder(folder / "tasks.db")
    with interposed(folder, recorder):
        store = SQLiteTaskStore(folder / "tasks.db")
        recorder.mark()
        for number in range(8):
            store.submit([NewTask("add", {"n": number, "blob": "x" * 3_000}, ME)]).result(10)
            recorder.mark()
        files = {
            path.name: path.read_bytes()
            for path in folder.glob("tasks.db*")
            if path.suffix in (".db", ".db-wal")
        }
        store.close().result(10)
    return files, [state for _, state in recorder.marks]


def test_a_log_that_is_cut_short_anywhere_is_read_as_far_as_it_goes(
    left_log: tuple[dict[str, bytes], list[str]], aftermath: Aftermath
) -> None:
    files, held = left_log
    log = files["tasks.db-wal"]
    reached = set()
    for size in range(len(log), 0, -101 if EVERYTHING else -1_999):
        found = contents(aftermath.database({**files, "tasks.db-wal": log[:size]}))
        if found in held:
            reached.add(held.index(found))
        else:
            # Before the first submit: the tables were not all made yet.
            assert 0 in reached, f"{size} bytes of the log"
        assert reached == set(range(min(reached), len(held))), "a submit is missing in between"
    assert min(reached) == 0


def test_a_log_that_is_damaged_anywhere_is_read_up_to_the_damage(
    left_log: tuple[dict[str, bytes], list[str]], aftermath: Aftermath
) -> None:
    files, held = left_log
    chance = random.Random(SEED)
    log = files["tasks.db-wal"]
    reached = set()
    for _ in range(2_000 if EVERYTHING else 60):
        damaged = bytearray(log)
        place = chance.randrange(len(log))
        damaged[place] ^= 1 << chance.randrange(8)
        found = contents(aftermath.database({**files, "tasks.db-wal": bytes(damaged)}))
        if found in held:
            reached.add(held.index(found))
    assert len(reached) > len(held) // 2
    assert len(held) - 1 not in reached, "a damaged log was believed in whole"
