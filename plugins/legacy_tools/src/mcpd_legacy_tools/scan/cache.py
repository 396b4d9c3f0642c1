"""What was found in files, kept from one listing to the next.

One file of JSON: it loads faster than what it saves costs, any Python can read it, and reading it
runs nothing, as a pickle would. What is kept of a file holds as long as its size, its modification
time, the scanner and the Python that parses are the same; what cannot be read is scanned again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from collections.abc import Mapping
from typing import Any

from ..opening import never_waiting
from ..records import Tree
from .found import FileScan, Found

#: To be raised with every change of what a scan finds in the same file.
VERSION = 6
_KEY = f"mcpd-legacy-scan {VERSION} {sys.version_info[0]}.{sys.version_info[1]}"

#: What is kept of one file: size, modification time, problem, other files, what was found.
_Entry = list[Any]


def default_path(trees: list[Tree], env: Mapping[str, str]) -> str:
    """Return the file that the scan of some trees is kept in, in the user's cache directory."""
    named = "\0".join(tree.path for tree in trees).encode(errors="surrogateescape")
    file = f"legacy-tools-{zlib.crc32(named):08x}.json"
    return os.path.join(_user_cache(env), "mcpd-core", file)


def _user_cache(env: Mapping[str, str]) -> str:
    # As platformdirs has it, which would cost more to import than reading the cache takes.
    stated = env.get("XDG_CACHE_HOME", "")
    if os.path.isabs(stated):
        return stated
    home = os.path.expanduser("~")
    return os.path.join(home, *(("Library", "Caches") if sys.platform == "darwin" else (".cache",)))


class Cache:
    """The kept scans of files.

    :param path: the file; ``None`` keeps nothing.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._old: dict[str, _Entry] = {} if path is None else _loaded(path)
        self._new: dict[str, _Entry] = {}
        self._changed = False

    def get(self, source: str, size: int, mtime_ns: int) -> FileScan | None:
        """Return what is kept of a file, if it still holds."""
        entry = self._old.get(source)
        if entry is None or entry[0] != size or entry[1] != mtime_ns:
            return None
        if entry[3] and not all(_unchanged(*each) for each in entry[3]):
            return None
        self._new[source] = entry
        return FileScan([Found(*row) for row in entry[4]], entry[2], entry[3])

    def put(self, source: str, size: int, mtime_ns: int, scan: FileScan) -> None:
        """Keep what was found in a file."""
        rows = [each.row() for each in scan.found]
        self._new[source] = [size, mtime_ns, scan.problem, scan.depends, rows]
        self._changed = True

    def save(self) -> None:
        """Write what is kept, unless nothing has changed; where that is not possible, do without.

        Of several processes the last one wins; each writes a whole file.
        """
        if self._path is None or not (self._changed or self._new.keys() != self._old.keys()):
            return
        import tempfile

        body = json.dumps(self._new, ensure_ascii=False, separators=(",", ":")).encode(
            errors="surrogatepass"
        )
        with contextlib.suppress(OSError):
            folder = os.path.dirname(self._path)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            # Readable by its owner only: it holds texts of the user's own code.
            descriptor, made = tempfile.mkstemp(dir=folder, prefix=".legacy-tools-")
            try:
                with open(descriptor, "wb") as file:
                    file.write(f"{_KEY} {zlib.crc32(body):08x}\n".encode())
                    file.write(body)
                os.replace(made, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(made)
                raise


def _unchanged(path: str, size: int, mtime_ns: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return size < 0
    return status.st_size == size and status.st_mtime_ns == mtime_ns


def _loaded(path: str) -> dict[str, _Entry]:
    """Return what a file keeps; nothing when it is not ours, of another version, or damaged."""
    try:
        with open(path, "rb", opener=never_waiting) as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return {}
            content = file.read()
    except OSError:
        return {}
    head, _, body = content.partition(b"\n")
    if head != f"{_KEY} {zlib.crc32(body):08x}".encode():
        return {}
    try:
        loaded = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
