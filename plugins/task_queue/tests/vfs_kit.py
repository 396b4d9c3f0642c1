"""A layer between SQLite and its files that sees every operation on them, and can make one fail.

It is a VFS (https://www.sqlite.org/vfs.html) made with ctypes: a copy of the default one in which
opening and deleting go through Python first. Of the files that it opens, writing, truncating,
syncing and closing do so too; everything else stays SQLite's own machine code. While `interposed`
it is the default VFS of the process, so that the engine under test needs to know nothing of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

SQLITE_OK = 0
SQLITE_FULL = 13
SQLITE_IOERR_WRITE = 10 | (3 << 8)
SQLITE_IOERR_FSYNC = 10 | (4 << 8)
SQLITE_IOERR_TRUNCATE = 10 | (6 << 8)

#: Of the flags of ``xOpen``: databases, rollback journals and write-ahead logs. Files for sorting
#: and the like do not outlive the process.
_KEPT = 0x100 | 0x800 | 0x80000

_Int, _Pointer, _Offset = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
_Open = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Pointer, _Int, _Pointer)
_Delete = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Int)
_Close = ctypes.CFUNCTYPE(_Int, _Pointer)
_Write = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Int, _Offset)
_Truncate = ctypes.CFUNCTYPE(_Int, _Pointer, _Offset)
_Sync = ctypes.CFUNCTYPE(_Int, _Pointer, _Int)


class _VFS(ctypes.Structure):
    # mypy wants the list that ctypes wants.
    _fields_ = [
        ("version", _Int),
        ("file_size", _Int),
        ("longest_path", _Int),
        ("next", _Pointer),
        ("name", ctypes.c_char_p),
        ("data", _Pointer),
        ("open", _Open),
        ("delete", _Delete),
        ("others", _Pointer * 14),
    ]


class _Methods(ctypes.Structure):
    _fields_ = [
        ("version", _Int),
        ("close", _Close),
        ("read", _Pointer),
        ("write", _Write),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("others", _Pointer * 13),
    ]


class Operation(NamedTuple):
    """Something that SQLite does to a file, or (the last four kinds) the store of large results.

    :ivar kind: ``sync`` is of a file with its name, as SQLite does it; ``flush`` of its content
        alone, ``names`` of the names in a folder.
    :ivar offset: where a write begins; the new size, when it is cut.
    :ivar lasting: of an opening: the file was there already; of a deletion: the directory is
        synced.
    :ivar to: what it is renamed to.
    """

    kind: Literal[
        "open", "write", "truncate", "sync", "delete", "folder", "flush", "names", "rename"
    ]
    path: str
    offset: int = 0
    data: bytes = b""
    lasting: bool = False
    to: str = ""


class Watcher:
    """Is told of every operation on the files of one folder. Derive from it."""

    def before(self, operation: Operation) -> int | tuple[int, int]:
        """Decide about an operation.

        :returns: ``SQLITE_OK`` to have it done, or the error that SQLite is to see; with a number
            of bytes, that much of a write is done all the same.
        """
        return SQLITE_OK

    def after(self, operation: Operation) -> None:
        """Take note of an operation that succeeded."""


class Fail(Watcher):
    """Makes operations of one kind fail, from the ``first`` one on, ``times`` in a row.

    :ivar seen: the operations of that kind so far.
    :ivar failed: those of them that were made to fail.
    :ivar later: everything that was asked for after the first failure.
    """

    def __init__(
        self,
        kind: str,
        error: int,
        *,
        first: int = 0,
        times: int = 10**9,
        suffix: str = "",
        written: int | None = None,
    ) -> None:
        self._kind = kind
        self._error = error
        self._suffix = suffix
        self._written = written
        self._first = first
        self._last = first + times
        self.seen = 0
        self.failed: list[Operation] = []
        self.later: list[Operation] = []

    def before(self, operation: Operation) -> int | tuple[int, int]:
        if self.failed:
            self.later.append(operation)
        if operation.kind != self._kind or not operation.path.endswith(self._suffix):
            return SQLITE_OK
        number = self.seen
        self.seen += 1
        if not self._first <= number < self._last:
            return SQLITE_OK
        self.failed.append(operation)
        return self._error if self._written is None else (self._error, self._written)

    def mend(self) -> None:
        """Let nothing fail any more."""
        self._last = 0


class Kill(Watcher):
    """Kills this process before, or right after, an operation, whichever its kind."""

    def __init__(self, number: int, *, after: bool) -> None:
        self._left = number
        self._after = after

    def before(self, operation: Operation) -> int:
        if not self._after:
            self._count()
        return SQLITE_OK

    def after(self, operation: Operation) -> None:
        if self._after:
            self._count()

    def _count(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


class _Layer:
    """The VFS of this process; made once, since SQLite keeps pointers into it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_VFS)
        library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
        for function in (library.sqlite3_vfs_register, library.sqlite3_vfs_unregister):
            function.restype = _Int
        library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_VFS), _Int]
        library.sqlite3_vfs_unregister.argtypes = [ctypes.POINTER(_VFS)]
        self._library = library
        self._real = library.sqlite3_vfs_find(None)
        self._vfs = _VFS.from_buffer_copy(self._real.contents)
        self._vfs.name = b"watched"
        self._open_callback = self._vfs.open = _Open(self._open)
        self._delete_callback = self._vfs.delete = _Delete(self._delete)
        self._tables: dict[int, tuple[_Methods, _Methods]] = {}
        #: Of each open file, by its address: its path, the real methods, who watches.
        self._files: dict[int, tuple[str, _Methods, Watcher]] = {}
        self._watched: list[tuple[str, Watcher]] = []

    @contextmanager
    def watching(self, folder: Path, watcher: Watcher) -> Iterator[None]:
        entry = (str(folder), watcher)
        self._watched.append(entry)
        assert self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) == SQLITE_OK
        try:
            yield
        finally:
            self._watched.remove(entry)
            if not self._watched:
                self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    def _watcher(self, path: str) -> Watcher | None:
        return next((w for folder, w in self._watched if path.startswith(folder)), None)

    def _open(self, _: int, name: int | None, file: int, flags: int, out: int) -> int:
        real = self._real.contents
        path = "" if name is None else os.fsdecode(ctypes.string_at(name))
        watcher = self._watcher(path) if path and flags & _KEPT else None
        if watcher is None:
            return int(real.open(ctypes.addressof(real), name, file, flags, out))
        operation = Operation("open", path, lasting=Path(path).exists())

        def do() -> int:
            return int(real.open(ctypes.addressof(real), name, file, flags, out))

        code = self._do(watcher, operation, do)
        if code == SQLITE_OK:
            methods = ctypes.cast(file, ctypes.POINTER(_Pointer))
            mine, original = self._table(methods[0])
            methods[0] = ctypes.addressof(mine)
            self._files[file] = (path, original, watcher)
        return code

    def _table(self, address: int) -> tuple[_Methods, _Methods]:
        """Return the methods that go through Python, for the real ones at an address."""
        if address not in self._tables:
            original = _Methods.from_address(address)
            mine = _Methods.from_buffer_copy(original)
            mine.close = _Close(self._close)
            mine.write = _Write(self._write)
            mine.truncate = _Truncate(self._truncate)
            mine.sync = _Sync(self._sync)
            self._tables[address] = (mine, original)
        return self._tables[address]

    def _close(self, file: int) -> int:
        _, methods, _ = self._files.pop(file)
        return int(methods.close(file))

    def _write(self, file: int, data: int, size: int, offset: int) -> int:
        path, methods, watcher = self._files[file]
        operation = Operation("write", path, offset, ctypes.string_at(data, size))
        return self._do(
            watcher,
            operation,
            lambda: methods.write(file, data, size, offset),
            lambda written: methods.write(file, data, written, offset),
        )

    def _truncate(self, file: int, size: int) -> int:
        path, methods, watcher = self._files[file]
        operation = Operation("truncate", path, size)
        return self._do(watcher, operation, lambda: methods.truncate(file, size))

    def _sync(self, file: int, flags: int) -> int:
        path, methods, watcher = self._files[file]
        return self._do(watcher, Operation("sync", path), lambda: methods.sync(file, flags))

    def _delete(self, _: int, name: int, sync: int) -> int:
        real = self._real.contents
        path = os.fsdecode(ctypes.string_at(name))

        def do() -> int:
            return int(real.delete(ctypes.addressof(real), name, sync))

        watcher = self._watcher(path)
        if watcher is None:
            return do()
        return self._do(watcher, Operation("delete", path, lasting=bool(sync)), do)

    @staticmethod
    def _do(
        watcher: Watcher,
        operation: Operation,
        do: Callable[[], int],
        do_part: Callable[[int], int] | None = None,
    ) -> int:
        decision = watcher.before(operation)
        if isinstance(decision, tuple):
            code, written = decision
            if do_part is not None and written:
                do_part(written)
            return code
        if decision != SQLITE_OK:
            return decision
        code = int(do())
        if code == SQLITE_OK:
            watcher.after(operation)
        return code


def _library() -> ctypes.CDLL:
    """Load the SQLite that this Python's `sqlite3` uses.

    :raises OSError: when it cannot be found.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        raise OSError("there is no /proc/self/maps to find SQLite's library by")
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "/" in line}
    for path in sorted(paths):
        if Path(path).name.startswith("libsqlite3."):
            return ctypes.CDLL(path)
    raise OSError("this Python has SQLite built in, where ctypes cannot reach it")


def _make() -> tuple[_Layer | None, str]:
    try:
        library = _library()
    except OSError as error:
        return None, str(error)
    library.sqlite3_libversion.restype = ctypes.c_char_p
    assert library.sqlite3_libversion().decode() == sqlite3.sqlite_version
    return _Layer(library), ""


_layer, UNAVAILABLE = _make()


@contextmanager
def interposed(folder: Path, watcher: Watcher) -> Iterator[Any]:
    """Have a watcher told of every operation on the database files in a folder.

    Connections that are opened in the block must be closed in it.
    """
    assert _layer is not None, UNAVAILABLE
    with _layer.watching(folder, watcher):
        yield watcher
