"""`BlobStore`: large contents as files beside the database, each named by its own SHA-256.

A file is complete and on the disk before anybody may refer to it, and is removed only when nobody
refers to it any more. Contents that are alike share one file. What refers to the files is kept
elsewhere, and is asked for (``in_use``) before anything is removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from .errors import BlobDamaged, StoreError, StoreFull
from .syncing import sync

#: Says which of some names anything refers to. It is called without any lock held.
InUse = Callable[[Sequence[str]], Collection[str]]

#: Bytes that are read at a time.
CHUNK = 1024 * 1024
#: Contents of which it is remembered that they were checked.
CHECKED = 64
#: Names that are asked about at a time when the folder is searched for orphans.
ASKED_AT_ONCE = 500
#: Marks a file that is being written; after a crash it is nothing.
_PART = ".part"


class BlobStore:
    """Keeps contents in a folder. Its methods block, and may be called from several threads.

    :param folder: made, for its owner only, when the first content is put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        #: Names of what was put and is about to be referred to, with by how many.
        self._held: dict[str, int] = {}
        #: Names that are going to be removed unless somebody puts them meanwhile, with the removal
        #: that is going to: another one has asked at another time whether they are in use.
        self._doomed: dict[str, object] = {}
        self._parts: set[str] = set()
        #: Contents that were checked of late, with what changes when their files are touched.
        self._checked: dict[str, tuple[int, int, int]] = {}
        #: Folders whose names are known to be on the disk.
        self._lasting: set[Path] = set()
        #: For each of those who want everything to stay: what would have been removed but for them.
        self._spared: dict[object, set[str]] = {}

    def path(self, name: str) -> Path:
        """Return where a content is, or would be."""
        return blob_path(self.folder, name)

    def put(self, data: bytes) -> str:
        """Have a content on the disk; it is kept until `let_go`, whoever refers to it or not.

        :returns: its name.
        :raises StoreFull: when there is no room for it.
        :raises StoreError: when it could not be written for another reason.
        """
        name = hashlib.sha256(data).hexdigest()
        path = self.path(name)
        self._hold(name)
        try:
            self._make(path.parent)
            if not _has(path, data):
                self._write(path, data)
            # Also when it was there: who made it may have died before its name was on the disk.
            sync(path.parent)
        except OSError as error:
            self.let_go(name)
            cause = error.strerror or str(error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull(
                    f"There is no room for {len(data):,} bytes in {self.folder}: {cause}; nothing "
                    "was changed.",
                    hint="Make room on its disk; it is tried again.",
                ) from error
            raise StoreError(
                f"{len(data):,} bytes could not be written to {path}: {cause}; nothing was "
                "changed.",
                hint="Check the disk and the permissions of the folder; it is tried again.",
            ) from error
        return name

    def _hold(self, name: str) -> None:
        with self._lock:
            self._held[name] = self._held.get(name, 0) + 1
            self._doomed.pop(name, None)

    def let_go(self, name: str) -> None:
        """Leave a content that was put to whether anything refers to it."""
        with self._lock:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]

    def _make(self, folder: Path) -> None:
        """Have a folder of contents, whose name is on the disk."""
        for each in (self.folder, folder):
            # That it is there is not enough: who made it may have died, or may be a step behind.
            if each not in self._lasting or not each.is_dir():
                each.mkdir(mode=0o700, exist_ok=True)
                sync(each.parent)
                self._lasting.add(each)

    def _write(self, path: Path, data: bytes) -> None:
        part = path.with_name(secrets.token_hex(8) + _PART)
        with self._lock:
            self._parts.add(part.name)
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(descriptor)
            part.rename(path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        finally:
            with self._lock:
                self._parts.discard(part.name)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a content, or a part of it, after the whole of it was checked.

        Who reads part after part has it checked once, as long as the file is not touched: else
        sixty parts of a large one would have it read sixty times.

        :raises BlobDamaged: when it is not there, or is not what was put.
        :raises StoreError: when it cannot be read.
        """
        path = self.path(name)
        end = None if length is None else offset + length
        found = bytearray()
        touched = (0, 0, 0)
        at = 0
        try:
            with path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                touched = (status.st_ino, status.st_size, status.st_mtime_ns)
                if length is not None and self._checked.get(name) == touched:
                    return os.pread(file.fileno(), length, offset)
                digest = hashlib.sha256()
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    until = len(chunk) if end is None else max(0, end - at)
                    found += chunk[max(0, offset - at) : until]
                    at += len(chunk)
        except FileNotFoundError as error:
            raise BlobDamaged(path, "it is not there") from error
        except OSError as error:
            raise StoreError(
                f"The file {path} cannot be read: {error.strerror or error}.",
                hint="Check the disk and the permissions of the file.",
            ) from error
        if digest.hexdigest() != name:
            raise BlobDamaged(path, f"its {at:,} bytes are not those that were stored")
        with self._lock:
            self._checked[name] = touched
            while len(self._checked) > CHECKED:
                del self._checked[next(iter(self._checked))]
        return bytes(found)

    # --- removing ---------------------------------------------------------------------------------

    def collect(self, names: Sequence[str], in_use: InUse) -> int:
        """Remove those contents to which nothing refers.

        A content that is put while this goes on stays: who puts it takes its name off the list.

        :returns: how many were removed.
        """
        mine = object()
        with self._lock:
            doomed = [name for name in names if name not in self._held]
            self._doomed.update(dict.fromkeys(doomed, mine))
        removed = 0
        try:
            # Asked after the names were listed: what refers to one of them by now is seen, and who
            # is going to has to put it first.
            needed = set(in_use(doomed)) if doomed else set()
            for name in doomed:
                with self._lock:
                    if name in needed or self._doomed.get(name) is not mine:
                        continue
                    if self._spared:
                        for spared in self._spared.values():
                            spared.add(name)
                        continue
                    self._remove(self.path(name))
                    removed += 1
        finally:
            with self._lock:
                for name in doomed:
                    if self._doomed.get(name) is mine:
                        del self._doomed[name]
        return removed

    @contextmanager
    def keeping_all(self) -> Iterator[set[str]]:
        """Have no content removed for as long as this is entered.

        :returns: the names of those that would have been, to be collected afterwards.
        """
        token = object()
        with self._lock:
            self._spared[token] = spared = set[str]()
        try:
            yield spared
        finally:
            with self._lock:
                del self._spared[token]

    def sweep(self, in_use: InUse) -> int:
        """Remove what a crash left behind: contents that nothing refers to, and half-written files.

        :returns: how many were removed.
        """
        removed = 0
        names = self.names()
        while some := list(islice(names, ASKED_AT_ONCE)):
            removed += self.collect(some, in_use)
        for part in self.folder.glob(f"??/*{_PART}"):
            with self._lock:
                if part.name not in self._parts:
                    self._remove(part)
                    removed += 1
        return removed

    def names(self) -> Iterator[str]:
        """Return the names of all contents that there are."""
        for path in self.folder.glob("[0-9a-f][0-9a-f]/" + "?" * 64):
            yield path.name

    def _remove(self, path: Path) -> None:
        # One that cannot be removed is found again at the next start.
        with suppress(OSError):
            path.unlink(missing_ok=True)


def blob_path(folder: Path, name: str) -> Path:
    """Return where a content of that name is in a folder, or would be."""
    return folder / name[:2] / name


def is_name(text: str) -> bool:
    """Whether a text may be the name of a content."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _has(path: Path, data: bytes) -> bool:
    """Whether the file has this content; a damaged one is written anew."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False
