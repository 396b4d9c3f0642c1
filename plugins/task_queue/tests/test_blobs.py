"""Large contents as files: what is on the disk, when it is removed, and what a damaged one says."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcpd_task_queue.blobs import BlobStore
from mcpd_task_queue.errors import BlobDamaged, StoreClosed, StoreError, StoreFull
from mcpd_task_queue.keeping import Blob, BlobKeeper

DATA = b"all that there is to know" * 100
NAME = hashlib.sha256(DATA).hexdigest()


def nothing(_: Sequence[str]) -> Collection[str]:
    return ()


def everything(names: Sequence[str]) -> Collection[str]:
    return names


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- writing and reading --------------------------------------------------------------------------


def test_a_content_is_a_file_for_its_owner_only_named_by_its_hash(blobs: BlobStore) -> None:
    assert blobs.put(DATA) == NAME
    path = blobs.folder / NAME[:2] / NAME
    assert path.read_bytes() == DATA
    assert [mode(p) for p in (blobs.folder, path.parent, path)] == [0o700, 0o700, 0o600]
    assert list(blobs.names()) == [NAME]
    assert os.listdir(path.parent) == [NAME]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, None), (0, 10), (7, 5), (2_490, 100), (2_500, 1), (9_999, None)]
)
def test_any_part_of_it_can_be_read(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, offset: int, length: int | None
) -> None:
    monkeypatch.setattr("mcpd_task_queue.blobs.CHUNK", 11)
    blobs.put(DATA)
    end = None if length is None else offset + length
    assert blobs.read(NAME, offset, length) == DATA[offset:end]


def test_the_file_and_then_its_name_are_on_the_disk_before_it_is_said_to_be(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", fsync)
    blobs.put(DATA)
    folders = ["blobs", NAME[:2]]
    assert synced[:2] == [blobs.folder.parent.name, "blobs"]
    assert synced[2].endswith(".part")
    assert synced[3:] == folders[1:]
    # What somebody else has made may not have its name on the disk yet.
    synced.clear()
    blobs.put(DATA)
    assert synced == folders[1:]


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda path: path.unlink(), "it is not there"),
        (lambda path: path.write_bytes(DATA[:-1]), "its 2,499 bytes are not those"),
        (lambda path: path.write_bytes(b"X" + DATA[1:]), "its 2,500 bytes are not those"),
    ],
)
def test_a_damaged_one_is_named_and_is_mended_by_putting_it_again(
    blobs: BlobStore, harm: Callable[[Path], Any], problem: str
) -> None:
    blobs.put(DATA)
    harm(blobs.path(NAME))
    with pytest.raises(BlobDamaged, match=problem) as raised:
        blobs.read(NAME, 5, 1)
    assert str(blobs.path(NAME)) in str(raised.value)
    blobs.put(DATA)
    assert blobs.read(NAME) == DATA


def test_part_after_part_is_checked_once_and_anew_when_the_file_was_touched(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpd_task_queue.blobs.CHECKED", 2)
    others = [blobs.put(f"other {n}".encode()) for n in range(2)]
    blobs.put(DATA)
    checks: list[str] = []

    def counted() -> Any:
        checks.append(NAME)
        return hashlib.new("sha256")

    monkeypatch.setattr("mcpd_task_queue.blobs.hashlib", SimpleNamespace(sha256=counted))
    parts = [blobs.read(NAME, offset, 7) for offset in range(0, len(DATA) + 7, 7)]
    assert b"".join(parts) == DATA
    assert len(checks) == 1
    assert blobs.read(NAME) == DATA
    assert len(checks) == 2, "all of it is always checked"
    for name in others:
        blobs.read(name, 0, 1)
    blobs.read(NAME, 0, 1)
    assert len(checks) == 5, "no more than so many are remembered"
    path = blobs.path(NAME)
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(BlobDamaged, match="are not those that were stored"):
        blobs.read(NAME, 0, 7)


def test_what_cannot_be_read_is_named(blobs: BlobStore) -> None:
    blobs.path(NAME).mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be read: Is a directory"):
        blobs.read(NAME)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreError)],
)
def test_one_that_cannot_be_written_leaves_nothing_and_can_be_tried_again(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[StoreError]
) -> None:
    blobs.put(b"makes the folders")

    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(error, match=os.strerror(number)) as raised:
            blobs.put(DATA)
    assert type(raised.value) is error
    assert "2,500 bytes" in raised.value.message
    assert list(blobs.folder.glob("*/*.part")) == []
    assert NAME not in blobs.names()
    assert blobs.read(blobs.put(DATA)) == DATA


# --- removing -------------------------------------------------------------------------------------


def test_only_what_nothing_refers_to_is_removed(blobs: BlobStore) -> None:
    names = [blobs.put(data) for data in (b"one", b"two", b"three")]
    for name in names:
        blobs.let_go(name)
    assert blobs.collect(names, lambda _: names[:1]) == 2
    assert list(blobs.names()) == names[:1]


def test_what_is_about_to_be_referred_to_stays(blobs: BlobStore) -> None:
    blobs.put(DATA)
    blobs.put(DATA)
    assert blobs.sweep(nothing) == 0
    blobs.let_go(NAME)
    assert blobs.sweep(nothing) == 0
    blobs.let_go(NAME)
    assert blobs.sweep(nothing) == 1


def test_what_is_put_while_it_is_being_removed_stays(blobs: BlobStore) -> None:
    """It is put after the question, and referred to after the answer, which is then out of date."""
    blobs.let_go(blobs.put(DATA))

    def in_use(names: Sequence[str]) -> Collection[str]:
        blobs.let_go(blobs.put(DATA))
        return ()

    assert blobs.collect([NAME], in_use) == 0
    assert blobs.read(NAME) == DATA


def test_what_is_put_while_it_is_being_removed_stays_though_another_removal_has_begun(
    blobs: BlobStore,
) -> None:
    """Each removal goes by the answer to its own question; that of the first is out of date."""
    blobs.let_go(blobs.put(DATA))
    asked, answered = threading.Event(), threading.Event()
    removed: list[int] = []

    def known(names: Sequence[str]) -> Collection[str]:
        asked.set()
        assert answered.wait(30)
        return names

    second = threading.Thread(target=lambda: removed.append(blobs.collect([NAME], known)))

    def in_use(names: Sequence[str]) -> Collection[str]:
        blobs.let_go(blobs.put(DATA))
        second.start()
        assert asked.wait(30)
        return ()

    removed.append(blobs.collect([NAME], in_use))
    answered.set()
    second.join(30)
    assert removed == [0, 0]
    assert blobs.read(NAME) == DATA


def test_a_sweep_removes_what_a_crash_left_and_asks_in_small_numbers(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpd_task_queue.blobs.ASKED_AT_ONCE", 3)
    names = sorted(blobs.put(bytes([n])) for n in range(7))
    for name in names:
        blobs.let_go(name)
    half = blobs.folder / names[0][:2] / "0123.part"
    half.write_bytes(b"ha")
    (blobs.folder / "not ours").write_text("")
    asked = []

    def in_use(some: Sequence[str]) -> Collection[str]:
        asked.append(len(some))
        return names[:2]

    assert blobs.sweep(in_use) == 6
    assert asked == [3, 3, 1]
    assert sorted(blobs.names()) == names[:2]
    assert not half.exists()
    assert (blobs.folder / "not ours").exists()


# --- in step with commits -------------------------------------------------------------------------


@pytest.fixture
def keeper(blobs: BlobStore) -> BlobKeeper:
    return BlobKeeper(blobs, everything)


def test_nothing_is_referred_to_before_it_is_on_the_disk_and_on_no_thread_of_the_caller(
    keeper: BlobKeeper, blobs: BlobStore
) -> None:
    seen = []

    def refer(blob: Blob) -> Any:
        seen.append((blob, blobs.read(blob.name), threading.current_thread()))
        return keeper.run(lambda: "recorded")

    assert keeper.put(lambda: DATA, refer, bool).result(10) == "recorded"
    ((blob, data, thread),) = seen
    assert (blob, data) == (Blob(NAME, len(DATA)), DATA)
    assert thread is not threading.current_thread()
    keeper.close().result(10)


def test_what_is_given_up_before_its_turn_is_not_written(
    keeper: BlobKeeper, blobs: BlobStore
) -> None:
    go = threading.Event()
    held = [keeper.run(lambda: go.wait(10)) for _ in range(2)]
    given_up: Any = keeper.put(lambda: DATA, lambda _: keeper.run(bool), bool)
    assert given_up.cancel()
    go.set()
    assert all(future.result(10) for future in held)
    keeper.close().result(10)
    assert list(blobs.names()) == []


def test_closing_waits_for_what_is_under_way_and_refuses_the_rest(keeper: BlobKeeper) -> None:
    go = threading.Event()
    last = keeper.run(lambda: go.wait(10))
    closing = keeper.close()
    assert not closing.done()
    with pytest.raises(StoreClosed):
        keeper.run(bool).result(10)
    go.set()
    closing.result(10)
    assert last.result(0)
    assert keeper.close() is closing
    keeper.sweep()
