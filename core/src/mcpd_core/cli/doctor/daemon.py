"""The daemon's socket: who listens, and who could."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ... import paths
from ..._version import __version__
from ...errors import DaemonError, NoDaemon
from ...findings import Finding
from ..daemon_client import DaemonClient

#: Seconds within which a daemon must shake hands.
PATIENCE = 5.0


def examine(directory: Path) -> tuple[list[Finding], bool]:
    """Look at the socket of a data directory.

    :returns: what was found, and whether a daemon listens.
    """
    path = paths.socket_path(directory)
    findings = [check_length(path, sys.platform)]
    try:
        found = path.lstat()
    except OSError:
        pid = _living(_description(directory))
        findings.append(check_absence(directory, pid))
        return findings, False
    wrong = check_file(path, found)
    if wrong is not None:
        findings.append(wrong)
        if wrong.level == "error":
            return findings, False
    problem, refused, offers = _try(path)
    if problem:
        findings.append(check_silence(path, problem, refused=refused))
    else:
        findings += check_daemon(path, _description(directory))
        findings += check_blocking(offers)
    return findings, not problem


def check_length(path: Path, system: str) -> Finding:
    """Tell whether the kernel takes a socket's path as it is.

    :param system: as `sys.platform` names it.
    """
    length, limit = len(os.fsencode(path)), 107 if system == "linux" else 103
    if length <= limit:
        return Finding("socket", "ok", f"{path} is short enough for a socket.")
    if system == "linux":
        return Finding(
            "socket",
            "note",
            f"{path} has {length} bytes, which is too long for a socket's path ({limit}). mcpd "
            "has a way around it; other programs cannot connect.",
            "Choose a shorter --data-dir if others must.",
        )
    return Finding(
        "socket",
        "error",
        f"{path} has {length} bytes, which is too long for a socket's path ({limit}).",
        "Choose a shorter --data-dir or MCPD_DATA_DIR.",
    )


def check_absence(directory: Path, pid: int | None) -> Finding:
    """Tell what it means that there is no socket.

    :param pid: the living process that the directory names as its owner, if any.
    """
    if pid is not None:
        return Finding(
            "daemon",
            "warning",
            f"Process {pid} owns {directory} and does not listen: it is starting or stopping, or "
            "its socket was removed.",
            f"If it stays so, stop it: kill {pid}",
        )
    return Finding("daemon", "ok", f"No daemon runs in {directory}; `mcpd serve` starts one.")


def check_file(path: Path, found: os.stat_result) -> Finding | None:
    """Tell what is wrong with a socket's file, if anything."""
    if not stat.S_ISSOCK(found.st_mode):
        return Finding(
            "socket",
            "error",
            f"{path} is not a socket.",
            "Move it away, or choose another --data-dir.",
        )
    if found.st_uid not in (os.geteuid(), 0):
        return Finding(
            "socket",
            "error",
            f"{path} belongs to another user ({found.st_uid}).",
            "Choose a directory of your own with --data-dir or MCPD_DATA_DIR.",
        )
    if found.st_mode & 0o077:
        return Finding(
            "socket",
            "warning",
            f"Other users may connect to {path} (mode {stat.S_IMODE(found.st_mode):04o}).",
            f"chmod 600 {path}",
        )
    return None


def check_silence(path: Path, problem: str, *, refused: bool) -> Finding:
    """Tell what it means that nobody answers on a socket.

    :param refused: whether nobody listens at all.
    """
    if refused:
        return Finding(
            "daemon",
            "note",
            f"{path} was left behind by a daemon that was killed; nobody listens.",
            "Nothing: the next `mcpd serve` replaces it.",
        )
    return Finding(
        "daemon",
        "error",
        f"What listens on {path} does not answer: {problem}",
        "Look into the daemon's log, and start it anew.",
    )


def check_daemon(path: Path, description: dict[str, Any]) -> Iterator[Finding]:
    """Tell what is known of the daemon that answers.

    :param description: what it wrote about itself.
    """
    pid, version = description.get("pid"), description.get("version")
    process = f"process {pid}, version {version}" if pid and version else "process unknown"
    plugins = description.get("plugins")
    serves = f" with --plugins {plugins}" if plugins else ""
    yield Finding("daemon", "ok", f"A daemon answers on {path} ({process}{serves}).")
    if version and version != __version__:
        yield Finding(
            "daemon",
            "warning",
            f"The daemon is version {version}; installed is {__version__}.",
            f"Start it anew: kill {pid} && mcpd serve",
        )


def check_blocking(offers: list[dict[str, Any]]) -> Iterator[Finding]:
    """Tell which tools have kept the daemon from doing anything else.

    :param offers: what the daemon has counted of each.
    """
    for offer in offers:
        blocked = offer.get("blocked")
        if blocked:
            yield Finding(
                "watchdog",
                "warning",
                f"The {offer['kind']} {offer['name']!r} of the plugin {offer['plugin']} has kept "
                f"the daemon from doing anything else {blocked['offences']} times, for up to "
                f"{blocked['longest']:g} s, at {blocked['place']}.",
                "Have it wait with await, or move it to a thread: see [watchdog] in the settings.",
            )


def _try(path: Path) -> tuple[str, bool, list[dict[str, Any]]]:
    """Shake hands with whoever listens.

    :returns: what went wrong, whether nobody listens, and what the daemon has counted.
    """
    try:
        with DaemonClient(path, patience=PATIENCE) as daemon:
            return "", False, _offers(daemon)
    except NoDaemon as error:
        return error.message, isinstance(error.__cause__, ConnectionRefusedError), []
    except DaemonError as error:
        return error.message, False, []


def _offers(daemon: DaemonClient) -> list[dict[str, Any]]:
    try:
        offers: list[dict[str, Any]] = daemon.request("mcpd/overview")["offers"]
    except DaemonError:
        # One of an earlier version does not know.
        return []
    return offers


def _description(directory: Path) -> dict[str, Any]:
    """Return what a daemon wrote about itself; nothing when there is none, or nothing legible."""
    try:
        description = json.loads(paths.read_regular(directory / "daemon.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return description if isinstance(description, dict) else {}


def _living(description: dict[str, Any]) -> int | None:
    """Return the process that a description names when it is alive."""
    pid = description.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        # An overflow: no system has numbers of processes that are this large.
        return None
    except PermissionError:
        pass
    return pid
