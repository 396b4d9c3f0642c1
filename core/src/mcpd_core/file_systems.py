"""What kind of file system a path is on, as far as the system tells."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

#: Those on which another machine may write as well: neither file locks nor SQLite's shared memory
#: can be relied on.
_NETWORK = frozenset(
    [
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
        "fuse.ceph",
        "fuse.davfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
    ]
)
#: Those that a machine shares with its host or a program, with the promises of the other side.
_SHARED = frozenset(["9p", "drvfs", "fuse", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"])
_VOLATILE = frozenset(["ramfs", "tmpfs"])

#: Linux's list of mounts, see proc(5).
MOUNTS = Path("/proc/self/mountinfo")
# How it writes white space; the backslash itself comes last.
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


@dataclass(frozen=True)
class FileSystem:
    """A kind of file system.

    :ivar kind: as ``mount`` names it; empty where the system does not tell, such as on macOS.
    """

    kind: str

    @property
    def network(self) -> bool:
        """Whether another machine may write on it, so that locks cannot be relied on."""
        return self.kind in _NETWORK

    @property
    def shared(self) -> bool:
        """Whether it is another system's, or a program's, which need not keep what a disk does."""
        return not self.network and self.kind.partition(".")[0] in _SHARED

    @property
    def volatile(self) -> bool:
        """Whether it is in memory."""
        return self.kind in _VOLATILE


def file_system_of(path: Path) -> FileSystem:
    """Return the file system that a path is on, or the nearest folder above it that exists."""
    existing = path.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return FileSystem("")
    return FileSystem(kind_at(os.path.realpath(existing), mounts))


def kind_at(path: str, mounts: str) -> str:
    """Return the type of the file system that holds a path; empty when it is not known.

    :param path: absolute, without symbolic links.
    :param mounts: the content of Linux's ``/proc/self/mountinfo`` (see proc(5)).
    """
    kind, longest = "", -1
    for line in mounts.splitlines():
        fields, dash, rest = line.partition(" - ")
        parts = fields.split(" ")
        if not dash or len(parts) < 5:
            continue
        point = parts[4]
        for escape, character in _ESCAPES.items():
            point = point.replace(escape, character)
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two at the same place, the later one covers the other.
        if inside and len(point) >= longest:
            kind, longest = rest.split(" ", 1)[0], len(point)
    return kind
