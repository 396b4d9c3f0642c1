"""Who reads the database through another process: what Linux tells of SQLite's locks.

A reader of a database with a write-ahead log holds a POSIX lock on one byte of the file ``-shm``
for as long as its transaction is open (https://www.sqlite.org/walformat.html, section 2.3.1). The
kernel lists such locks in ``/proc/locks`` (proc(5)). The file must not be opened to ask for them:
closing it again would give up this process's own locks on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_LOCKS = Path("/proc/locks")
#: The bytes that stand for what readers may still need, WAL_READ_LOCK(0) to (4).
FIRST_MARK, LAST_MARK = 123, 127


class Holder(NamedTuple):
    """A process that has a read transaction open.

    :ivar name: of its program; empty when it is not known.
    """

    pid: int
    name: str

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" ({self.name})" if self.name else "")


def holders_of(database: Path) -> list[Holder] | None:
    """Return the other processes that read a database at this moment.

    :returns: ``None`` where the system does not tell, such as on macOS.
    """
    try:
        inode = os.stat(f"{database}-shm").st_ino
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return [Holder(pid, _name(pid)) for pid in readers_among(lines, inode) if pid != os.getpid()]


def readers_among(lines: Iterable[str], inode: int) -> list[int]:
    """Return the processes that hold a reader's lock on a file.

    :param lines: those of ``/proc/locks``, such as
        ``1: POSIX  ADVISORY  READ  1234 08:01:5678 124 124``.
    :param inode: of the file. The device is not compared: some file systems (btrfs, overlayfs) name
        another one to `os.stat`.
    """
    found = []
    for line in lines:
        fields = line.split()
        # A process that waits for a lock has "->" before the kind.
        if len(fields) != 8 or fields[1] != "POSIX" or fields[3] != "READ":
            continue
        pid, file, start, end = fields[4:]
        if file.rpartition(":")[2] != str(inode) or not (pid.isdigit() and start.isdigit()):
            continue
        last = int(end) if end.isdigit() else LAST_MARK
        if int(start) <= LAST_MARK and last >= FIRST_MARK and int(pid) not in found:
            found.append(int(pid))
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
