"""Redis and PostgreSQL, started for a run in folders of their own and ended with it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from .contestant import PATIENCE

#: Where Debian puts the programs of a PostgreSQL that are not commands of users.
_POSTGRESQL = "/usr/lib/postgresql/*/bin"
_DATABASE_OWNER = "postgres"


class Unavailable(Exception):
    """Raised when something cannot be measured here; says why."""


class Server(ABC):
    """A server that runs, on a Unix socket that nobody else may use."""

    @abstractmethod
    def place(self, number: int) -> str:
        """Return the address of an empty part of it."""


class Redis(Server):
    """:param socket: where it listens."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def place(self, number: int) -> str:
        """Return the address of the server, emptied."""
        self.ask(b"FLUSHALL\r\n")
        return f"unix://{self._socket}"

    def ask(self, command: bytes) -> bytes:
        """Send a command; return the answer to it."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(PATIENCE)
            link.connect(str(self._socket))
            link.sendall(command)
            return link.recv(4096)


class PostgreSQL(Server):
    """:param folder: that of its socket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, number: int) -> str:
        """Return the address of a new database."""
        name = f"place_{time.monotonic_ns()}"
        command = ["psql", "-h", str(self._folder), "-U", _DATABASE_OWNER, "-qc"]
        subprocess.run([*command, f"CREATE DATABASE {name}"], check=True, timeout=PATIENCE)
        return f"postgresql://{_DATABASE_OWNER}@/{name}?host={self._folder}"


@contextmanager
def redis(appendfsync: str) -> Iterator[Redis]:
    """Run Redis with its append-only file.

    :param appendfsync: ``everysec`` (its default: a second may be lost) or ``always``.
    """
    program = shutil.which("redis-server") or _install("redis-server", "redis-server")
    with TemporaryDirectory(prefix="mcpd-redis-") as folder:
        path = Path(folder) / "redis.sock"
        options = {
            "port": "0",
            "unixsocket": str(path),
            "unixsocketperm": "700",
            "dir": folder,
            "appendonly": "yes",
            "appendfsync": appendfsync,
            # Snapshots would write beside the append-only file; neither is what is compared.
            "save": "",
        }
        command = [
            program,
            *(word for key, value in options.items() for word in (f"--{key}", value)),
        ]
        server = Redis(path)
        with _running(command, lambda: server.ask(b"PING\r\n").startswith(b"+PONG")):
            yield server


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run PostgreSQL as ``initdb`` leaves it, with ``fsync`` and ``synchronous_commit`` on."""
    initdb, postgres = _postgresql_program("initdb"), _postgresql_program("postgres")
    with TemporaryDirectory(prefix="mcpd-postgresql-") as folder:
        # It refuses to run as root.
        user = _DATABASE_OWNER if os.getuid() == 0 else None
        data = Path(folder) / "data"
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        command = [
            initdb,
            "-D",
            str(data),
            "-U",
            _DATABASE_OWNER,
            "-A",
            "trust",
            "--no-instructions",
        ]
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        subprocess.run(
            command, check=True, user=user, cwd=folder, env=env, stdout=subprocess.DEVNULL
        )
        options = {"listen_addresses": "", "unix_socket_directories": folder}
        command = [postgres, "-D", str(data)]
        command += [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        ready = ["pg_isready", "-q", "-h", folder]

        def listens() -> bool:
            return subprocess.run(ready, check=False).returncode == 0

        with _running(command, listens, user=user, cwd=folder):
            yield PostgreSQL(Path(folder))


#: The servers by the names that `field.KINDS` uses.
SERVERS: Mapping[str, Callable[[], AbstractContextManager[Server]]] = {
    "redis, everysec": partial(redis, "everysec"),
    "redis, always": partial(redis, "always"),
    "postgresql": postgresql,
}


@contextmanager
def _running(
    command: Sequence[str],
    listens: Callable[[], bool],
    *,
    user: str | None = None,
    cwd: str | None = None,
) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=user,
        cwd=cwd,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not _tried(listens):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"{command[0]} does not come up (status {process.poll()}).")
            time.sleep(0.05)
        yield
    finally:
        # Both save what they have and end when they are asked like this.
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tried(listens: Callable[[], bool]) -> bool:
    try:
        return listens()
    except OSError:
        return False


def _postgresql_program(name: str) -> str:
    def find() -> str | None:
        found = sorted(Path("/").glob(f"{_POSTGRESQL[1:]}/{name}"))
        return str(found[-1]) if found else shutil.which(name)

    return find() or _install("postgresql", name, find)


def _install(package: str, program: str, find: Callable[[], str | None] | None = None) -> str:
    """Install a package of Debian's; return the path of a program that is in it.

    :raises Unavailable: when that is not possible here.
    """
    apt = shutil.which("apt-get")
    if apt is None or os.getuid() != 0:
        raise Unavailable(f"there is no {program}; install the package {package}, as root.")
    done = subprocess.run(
        [apt, "install", "-y", "-q", package],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    found = find() if find is not None else shutil.which(program)
    if done.returncode or found is None:
        raise Unavailable(f"apt-get could not install {package}: {done.stderr.strip()[-300:]}")
    return found
