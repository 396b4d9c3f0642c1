"""The data directory and the file system under it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ...file_systems import FileSystem, file_system_of
from ...findings import Finding

#: Bytes: with less, nothing can be stored, or not for long.
NO_ROOM, LITTLE_ROOM = 1 << 20, 100 << 20

_CHECK = "data directory"


def examine(directory: Path) -> Iterator[Finding]:
    """Look at a data directory, which need not exist."""
    existing = directory
    while not os.path.exists(existing) and existing != existing.parent:
        existing = existing.parent
    writable = os.access(existing, os.W_OK | os.X_OK)
    try:
        found = directory.stat()
    except OSError as error:
        found = None
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            yield check_path(directory, error)
            return
    yield check_directory(directory, found, writable)
    yield check_room(existing, shutil.disk_usage(existing).free)
    yield check_file_system(directory, file_system_of(existing).kind)


def check_path(directory: Path, problem: OSError) -> Finding:
    """Tell that a path can never be a directory's."""
    return Finding(
        _CHECK,
        "error",
        f"{directory} cannot be a directory: {problem.strerror}.",
        "Choose another with --data-dir or MCPD_DATA_DIR.",
    )


def check_directory(directory: Path, found: os.stat_result | None, writable: bool) -> Finding:
    """Tell whether a daemon can own a directory.

    :param found: ``None`` when it does not exist.
    :param writable: whether this user can write to it, or to the nearest folder above it.
    """
    elsewhere = "Choose another with --data-dir or MCPD_DATA_DIR."
    if found is None:
        if not writable:
            return Finding(_CHECK, "error", f"{directory} cannot be made by this user.", elsewhere)
        return Finding(_CHECK, "ok", f"{directory} is made by the first `mcpd serve`.")
    if not stat.S_ISDIR(found.st_mode):
        return Finding(_CHECK, "error", f"{directory} is not a directory.", elsewhere)
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_ISVTX:
        return Finding(
            _CHECK,
            "error",
            f"{directory} is shared with other users (owner {found.st_uid}).",
            "Choose one of your own with --data-dir or MCPD_DATA_DIR.",
        )
    if not writable:
        return Finding(
            _CHECK,
            "error",
            f"{directory} cannot be written by this user.",
            f"chmod u+rwx {directory}",
        )
    if found.st_mode & 0o077:
        return Finding(
            _CHECK,
            "note",
            f"{directory} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}).",
            f"`mcpd serve` closes it; now: chmod 700 {directory}",
        )
    return Finding(_CHECK, "ok", f"{directory} belongs to this user alone.")


def check_room(directory: Path, free: int) -> Finding:
    """Tell whether there is room to store anything.

    :param free: bytes that this user may still write.
    """
    left = f"{free / (1 << 20):,.0f} MiB are free in {directory}"
    if free < NO_ROOM:
        return Finding("room", "error", f"{left}: nothing can be stored.", "Make room.")
    if free < LITTLE_ROOM:
        return Finding("room", "warning", f"{left}, which is little.", "Make room.")
    return Finding("room", "ok", f"{left}.")


def check_file_system(directory: Path, kind: str) -> Finding:
    """Tell whether a file system keeps what durable tasks rely on.

    :param kind: as ``mount`` names it; empty when it is not known.
    """
    local = "Choose a directory on a local disk with --data-dir or MCPD_DATA_DIR."
    found = FileSystem(kind)
    if not kind:
        return Finding(
            "file system",
            "note",
            f"The file system of {directory} is not known on this system.",
            "Make sure that it is a local one, not NFS.",
        )
    if found.network:
        return Finding(
            "file system",
            "error",
            f"{directory} is on a network file system ({kind}), where locks and shared memory "
            "cannot be relied on: two daemons could own it, and tasks could be lost.",
            local,
        )
    if found.shared:
        return Finding(
            "file system",
            "warning",
            f"{directory} is on {kind}, which need not keep locks and flushed writes.",
            local,
        )
    if found.volatile:
        return Finding(
            "file system",
            "note",
            f"{directory} is in memory ({kind}): tasks are gone when the machine restarts.",
            local,
        )
    return Finding("file system", "ok", f"{directory} is on {kind}.")
