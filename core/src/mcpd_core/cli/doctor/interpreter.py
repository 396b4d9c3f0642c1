"""Python, SQLite, and the program that the shell finds under our name."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...findings import Finding

#: The oldest and the newest Python that is tested.
OLDEST, NEWEST = (3, 10), (3, 13)
#: The first SQLite in which two processes that write and checkpoint a database at the same instant
#: cannot damage it (https://sqlite.org/wal.html, "The WAL-Reset Bug").
SAFE_SQLITE = (3, 51, 3)


def examine() -> Iterator[Finding]:
    """Look at the interpreter that runs this."""
    yield check_python(sys.version_info[:3], platform.python_implementation(), sys.executable)
    yield check_platform(sys.platform)
    try:
        import sqlite3
    except ImportError:
        yield check_sqlite(None)
    else:
        yield check_sqlite(sqlite3.sqlite_version_info)
    yield check_command(shutil.which("mcpd"), Path(sys.executable).parent)


def check_python(version: Sequence[int], implementation: str, executable: str) -> Finding:
    """Tell whether this Python is one that is tested."""
    found = f"{implementation} {_dotted(version)} ({executable})"
    span = f"Python {_dotted(OLDEST)} to {_dotted(NEWEST)}"
    if tuple(version[:2]) < OLDEST:
        return Finding(
            "interpreter", "error", f"{found} is too old: mcpd needs {span}.", f"Install {span}."
        )
    if implementation != "CPython":
        return Finding(
            "interpreter", "warning", f"{found} is not CPython, which alone is tested.", ""
        )
    if tuple(version[:2]) > NEWEST:
        return Finding("interpreter", "note", f"{found} is newer than what is tested, {span}.", "")
    return Finding("interpreter", "ok", f"{found} is supported.")


def check_platform(name: str) -> Finding:
    """Tell whether this is a system that the daemon can run on."""
    if name == "linux":
        return Finding("platform", "ok", "Linux is supported.")
    if name == "darwin":
        return Finding("platform", "note", "mcpd is meant for macOS too, and tested on Linux.")
    return Finding(
        "platform",
        "error",
        f"mcpd needs a POSIX system with Unix sockets and file locks; this is {name}.",
        "Run it on Linux or macOS, on Windows in WSL.",
    )


def check_sqlite(version: Sequence[int] | None) -> Finding:
    """Tell what SQLite there is for durable tasks, and what its bugs mean here."""
    if version is None:
        return Finding(
            "sqlite",
            "error",
            "This Python was built without SQLite, which keeps durable tasks.",
            "Install a Python with the module sqlite3.",
        )
    if tuple(version) < SAFE_SQLITE:
        return Finding(
            "sqlite",
            "note",
            f"SQLite {_dotted(version)} can damage a database that two processes write at the same "
            f"instant (mended in {_dotted(SAFE_SQLITE)}). mcpd is not concerned: a lock keeps the "
            "file to one process, which writes from one thread.",
            "Let no other program write the files in the data directory, not even the sqlite3 "
            "shell.",
        )
    return Finding("sqlite", "ok", f"SQLite {_dotted(version)}.")


def check_command(found: str | None, programs: Path) -> Finding:
    """Tell whether the shell's ``mcpd`` is this one; other software has the name as well.

    :param found: what the shell finds.
    :param programs: the folder of this environment's programs.
    """
    ours = programs / "mcpd"
    if found is None:
        return Finding(
            "command",
            "note",
            "The shell finds no program mcpd.",
            f"Activate the environment, or use {ours} or `python -m mcpd_core`.",
        )
    if os.path.realpath(found) != os.path.realpath(ours) and not _points_to(found, programs):
        return Finding(
            "command",
            "warning",
            f"The shell's mcpd is {found}, which is not of this environment.",
            f"Activate the environment, or use {ours} or `python -m mcpd_core`.",
        )
    return Finding("command", "ok", f"The shell's mcpd is {found}.")


def _points_to(script: str, programs: Path) -> bool:
    """Whether a script, such as those that pipx and uv make, runs this environment's Python."""
    try:
        with open(script, "rb") as file:
            head = file.read(1024)
    except OSError:
        return False
    return os.fsencode(programs) in head


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
