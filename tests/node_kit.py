"""What the tests with Node.js clients share: where these are, and a daemon for them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MCPD = [sys.executable, "-m", "mcpd_core"]
#: Where `tools/node.py` puts Node.js and the packages of ``tests/node/package.json``.
NODE_HOME = Path(__file__).parents[1] / ".venv-node"
#: Seconds; far more than anything here takes.
LONG = 50


def node() -> str:
    """Return the interpreter, having made sure that it and its packages are there."""
    assert (NODE_HOME / ".packages").exists(), f"{NODE_HOME} is incomplete: run `make setup`"
    return str(NODE_HOME / "bin" / "node")


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing is set, with everything of mcpd's in a folder."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MCPD_")}
    path = [str(folder / "site"), *filter(None, [env.get("PYTHONPATH")])]
    return env | {
        "PYTHONPATH": os.pathsep.join(path),
        "MCPD_DATA_DIR": str(folder / "data"),
        "MCPD_HTTP__PORT": "0",
        "XDG_CONFIG_HOME": str(folder / "config"),
        # The Inspector keeps its files there.
        "HOME": str(folder),
    }


def install(folder: Path, name: str, source: str, runtime: str = "asyncio") -> None:
    """Install a plugin for the processes that have the folder's `environment`.

    :param name: of the plugin.
    :param source: of its only module.
    """
    module = f"mcpd_{name}"
    info = folder / "site" / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mcpd_core.plugins.{runtime}]\n{name} = {module}\n")
    (info.parent / f"{module}.py").write_text(textwrap.dedent(source))


class Daemon:
    """A daemon that runs.

    :ivar pid: of its process.
    :ivar url: where it serves HTTP.
    :ivar said: the lines that it has logged so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.pid = process.pid
        self.said: list[str] = []
        lines = self._heard(process.stderr)
        self.url = next((line.split()[-1] for line in lines if "listening on http" in line), "")
        assert self.url, f"the daemon ended: {self.said}"
        # So that the pipe never fills up.
        self.listener = threading.Thread(target=lambda: [*lines])
        self.listener.start()

    def _heard(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self.said.append(line)
            yield line


@contextmanager
def serving(folder: Path, plugins: str) -> Iterator[Daemon]:
    """Run a daemon that offers some plugins, with the folder's `environment`."""
    with subprocess.Popen(
        [*MCPD, "serve", "--plugins", plugins],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder),
        cwd=folder,
    ) as process:
        listener = None
        try:
            daemon = Daemon(process)
            listener = daemon.listener
            yield daemon
        finally:
            process.terminate()
            try:
                process.wait(LONG)
            except subprocess.TimeoutExpired:
                process.kill()
            if listener is not None:
                listener.join()


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with the folder's `environment`."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
        env=environment(folder),
        cwd=folder,
    )
