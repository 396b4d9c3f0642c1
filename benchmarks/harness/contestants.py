"""The servers that are compared, each with the same tools."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from .toolset import PLUGIN, install_plugin

BENCHMARKS = Path(__file__).resolve().parent.parent
REPOSITORY = BENCHMARKS.parent
#: Where FastMCP is installed, whose dependencies must not meddle with ours. Ignored by git.
FASTMCP_ENVIRONMENT = REPOSITORY / ".venv-fastmcp"

#: Every contestant, in the order in which they run, and what is shown for each.
LABELS = {
    "sdk": "SDK low-level server, SDK stdio",
    "fastmcp": "FastMCP, stdio",
    "standalone": "mcpd serve --standalone",
    "standalone-all": "mcpd serve --standalone, all plugins",
    "attach": "mcpd attach, warm daemon",
    "attach-lean": "python -I -S attach.py, warm daemon",
    "serve": "mcpd serve --transport stdio, warm daemon",
    "serve-cold": "mcpd serve --transport stdio, no daemon",
}
BASE = "sdk"

#: Seconds that a daemon may take to come up or to leave.
PATIENCE = 60.0


@dataclass(frozen=True)
class Contestant:
    """One way to be answered.

    :ivar key: its key in `LABELS`.
    :ivar command: what a client spawns.
    :ivar env: the environment of what it spawns.
    :ivar cwd: the folder in which it spawns that.
    :ivar daemon: process id of the daemon that its clients share.
    :ivar start_only: whether only its start is of interest.
    :ivar settle: called after each client, to wait until the next one finds what this one found.
    """

    key: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    daemon: int | None = None
    start_only: bool = False
    settle: Callable[[], None] = field(default=lambda: None)


@contextmanager
def contestants(
    keys: Collection[str], *, tools: int, python: str, fastmcp: str | None
) -> Iterator[list[Contestant]]:
    """Set the contestants up, and what they need, for as long as the block runs.

    :param keys: those wanted.
    :param tools: how many tools each offers.
    :param python: the interpreter that has mcpd and the SDK.
    :param fastmcp: the interpreter that has FastMCP, if there is one.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="mcpd-bench-")))
        site = folder / "site"
        install_plugin(site, tools)
        env = environment(folder)
        ours = {**env, "PYTHONPATH": str(site)}
        mcpd = console_script(python)
        only = ("--plugins", PLUGIN)

        def contestant(key: str, *command: str, **more: object) -> Contestant:
            return Contestant(key, command, **{"env": ours, "cwd": str(folder), **more})  # type: ignore[arg-type]

        found: list[Contestant] = []
        count = ("--tools", str(tools))
        if "sdk" in keys:
            script = str(BENCHMARKS / "sdk_server.py")
            found.append(contestant("sdk", python, script, *count, env=env))
        if "fastmcp" in keys and fastmcp is not None:
            script = str(BENCHMARKS / "fastmcp_server.py")
            found.append(contestant("fastmcp", fastmcp, script, *count, env=env))
        alone = (*mcpd, "serve", "--transport", "stdio", "--standalone", "--data-dir")
        if "standalone" in keys:
            found.append(contestant("standalone", *alone, str(folder / "alone"), *only))
        if "standalone-all" in keys:
            found.append(contestant("standalone-all", *alone, str(folder / "all")))
        shared = str(folder / "shared")
        stdio = (*mcpd, "serve", "--transport", "stdio", *only, "--data-dir")
        ways = {
            "attach": (*mcpd, "attach", "--data-dir", shared),
            "attach-lean": (python, "-I", "-S", _attach_file(python), "--data-dir", shared),
            "serve": (*stdio, shared),
        }
        if not ways.keys().isdisjoint(keys):
            serve = (*mcpd, "serve", "--transport", "socket", *only, "--data-dir", shared)
            pid = stack.enter_context(_daemon(serve, Path(shared), ours, folder))
            found += [
                contestant(key, *command, daemon=pid)
                for key, command in ways.items()
                if key in keys
            ]
        if "serve-cold" in keys:
            cold = folder / "cold"
            found.append(
                contestant(
                    "serve-cold",
                    *stdio,
                    str(cold),
                    # Its daemon leaves soon after the client, so that the next one starts another.
                    env={**ours, "MCPD_DAEMON__LINGER": "1"},
                    start_only=True,
                    settle=lambda: _await_departure(cold),
                )
            )
        yield found


def environment(folder: Path) -> dict[str, str]:
    """Return the present environment without what would change how Python or mcpd start.

    :param folder: stands for the user's home, so that no settings of theirs are read.
    """
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "MCPD_", "XDG_"))
    }
    return {**env, "HOME": str(folder)}


def console_script(python: str) -> tuple[str, ...]:
    """Return the command ``mcpd`` of an interpreter's environment."""
    script = Path(python).with_name("mcpd")
    return (str(script),) if script.exists() else (python, "-m", "mcpd_core")


def fastmcp_python(*, install: bool) -> str | None:
    """Return an interpreter that has FastMCP; say why not when there is none.

    :param install: whether to make its environment when it is not there.
    """
    return python_of(FASTMCP_ENVIRONMENT, ("fastmcp",), "FastMCP", install=install)


def python_of(
    environment: Path, requirements: Sequence[str], what: str, *, install: bool
) -> str | None:
    """Return the interpreter of an environment; say why not when there is none.

    :param requirements: what is installed there.
    :param what: is measured with it, for messages.
    :param install: whether to make the environment when it is not there.
    """
    python = environment / "bin" / "python"
    if not install:
        if python.exists():
            return str(python)
        print(f"skipped: {what}, whose environment a run without --quick makes.")
        return None
    maker = str(REPOSITORY / "tools" / "environment.py")
    done = subprocess.run(
        [sys.executable, maker, str(environment), *requirements],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"skipped: {what}, which could not be installed (see above).")
        return None
    return done.stdout.strip()


def _attach_file(python: str) -> str:
    where = "import importlib.util as u; print(u.find_spec('mcpd_core.attach').origin)"
    done = subprocess.run(
        [python, "-c", where], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@contextmanager
def _daemon(
    command: tuple[str, ...], directory: Path, env: Mapping[str, str], cwd: Path
) -> Iterator[int]:
    with TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(env), cwd=cwd
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while not _listens(directory / "mcpd.sock"):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read().decode(errors="replace")
                    raise RuntimeError(f"{' '.join(command)} does not listen. It said:\n{said}")
                time.sleep(0.02)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)


def _await_departure(directory: Path) -> None:
    """Wait until no daemon owns a data directory any more.

    By its lock, because a connection would count as another client, for whom it stays.
    """
    deadline = time.monotonic() + PATIENCE
    with open(directory / "daemon.lock", "rb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the daemon of {directory} stays although its last client has left"
                    ) from None
                time.sleep(0.02)
            else:
                return


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(path))
        except OSError:
            return False
    return True
