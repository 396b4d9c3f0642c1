"""The data directory: owned by one daemon at a time, and where its socket is."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .._version import __version__
from ..errors import DaemonError, DirectoryOwned

log = logging.getLogger(__name__)

LOCK = "daemon.lock"
SOCKET = "mcpd.sock"
DESCRIPTION = "daemon.json"
PLUGINS = "daemon.plugins"

#: Bytes of a socket path that the kernel takes, without the terminating zero (``sun_path``).
_MAX_PATH = 107 if sys.platform == "linux" else 103
_LOCK_RETRY = 0.05


class DataDirectory:
    """Claims a data directory for this process and binds the socket in it.

    The claim is a lock on a file that is never unlinked (two processes could otherwise lock two
    files of one name) and that the kernel releases when the process ends, however it ends.

    :param path: the directory; it is created when it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self._lock: int | None = None

    @property
    def socket_path(self) -> Path:
        """Where clients connect."""
        return self.path / SOCKET

    def claim(self, wait: float = 0.0) -> None:
        """Make this process the owner until `release` or its end.

        :param wait: seconds to wait for an owner that may be about to leave.
        :raises DirectoryOwned: when another process owns the directory.
        :raises DaemonError: when the directory cannot be used.
        """
        self._prepare()
        try:
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise _unusable(self.path, exc) from exc
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_LOCK_RETRY)
                    continue
                owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
                os.close(lock)
                raise _owned(self.path, owner) from None
            except OSError as exc:
                os.close(lock)
                raise _unusable(self.path, exc) from exc
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def bind(self) -> socket.socket:
        """Listen on the socket, replacing one that a dead owner left behind.

        :returns: the listening, non-blocking socket; only its owner may connect.
        :raises DaemonError: when the socket cannot be made.
        """
        assert self._lock is not None, "a stale socket may only be replaced by the owner"
        with suppress(FileNotFoundError):
            self.socket_path.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = None
        # From the first moment on: a mode set after binding would leave a gap.
        umask = os.umask(0o177)
        try:
            address = str(self.socket_path)
            if len(os.fsencode(address)) > _MAX_PATH:
                folder, address = _short_address(self.path)
            sock.bind(address)
            sock.listen(128)
            sock.setblocking(False)
        except OSError as exc:
            sock.close()
            raise DaemonError(
                f"The socket {self.socket_path} cannot be made: {exc.strerror or exc}.",
                hint="Choose another --data-dir, on a local file system.",
            ) from exc
        finally:
            os.umask(umask)
            if folder is not None:
                os.close(folder)
        return sock

    def retire(self) -> None:
        """Unlink the socket, so that nobody else can begin to connect."""
        with suppress(FileNotFoundError):
            self.socket_path.unlink()

    def describe(self, *, plugins: str, argv: Sequence[str]) -> None:
        """Write down who owns the directory, for people and for `mcpd attach`.

        :param plugins: the ``--plugins`` argument as it was given; empty for all plugins.
        :param argv: the command line of this process.
        """
        description = {
            "pid": os.getpid(),
            "version": __version__,
            "argv": list(argv),
            "plugins": plugins,
            "socket": str(self.socket_path),
        }
        self._write(DESCRIPTION, json.dumps(description, indent=2) + "\n")
        # Beside it as plain text: the attach shim reads it and imports no JSON.
        self._write(PLUGINS, plugins + "\n")

    def release(self) -> None:
        """Leave the directory to the next owner."""
        if self._lock is None:
            return
        self.retire()
        for name in (DESCRIPTION, PLUGINS):
            with suppress(FileNotFoundError):
                (self.path / name).unlink()
        os.close(self._lock)
        self._lock = None

    def _prepare(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid not in (os.geteuid(), 0) or (found.st_mode & 0o1000):
                raise DaemonError(
                    f"The data directory {self.path} is shared with other users.",
                    hint="Choose a --data-dir of your own.",
                )
            if found.st_mode & 0o077:
                # Tasks and their arguments are kept here: they are nobody else's business.
                self.path.chmod(0o700)
                log.info("took other users' access to %s away", self.path)
        except OSError as exc:
            raise _unusable(self.path, exc) from exc

    def _write(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o600)
        temporary.replace(self.path / name)


def _owned(path: Path, owner: str) -> DirectoryOwned:
    who = f"process {owner}" if owner else "another process"
    return DirectoryOwned(
        f"The data directory {path} is owned by {who}.",
        hint="Attach to it with `mcpd attach`, stop it, or choose another --data-dir.",
        data={"pid": int(owner)} if owner.isdigit() else None,
    )


def _unusable(path: Path, exc: OSError) -> DaemonError:
    return DaemonError(
        f"The data directory {path} cannot be used: {exc.strerror or exc}.",
        hint="Choose another --data-dir, on a local file system.",
    )


def _short_address(path: Path) -> tuple[int, str]:
    """Name the socket in a directory whose path is too long for the kernel.

    :returns: a descriptor of the directory, which must stay open while the address is used.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENAMETOOLONG, f"its path has more than {_MAX_PATH} bytes")
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY)
    return folder, f"/proc/self/fd/{folder}/{SOCKET}"
