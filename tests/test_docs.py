"""Every command in the documentation is run, on a terminal, and its output compared.

In a page, a fence with ``title="path"`` is a file to write; a ``console`` fence holds commands
behind ``$ `` with the output that a person sees, where ``...`` stands for anything and white space
does not count; a line ``[exit status 2]`` is the status of the command above it.
``<!-- starts: COMMAND -->`` starts a command and waits until it listens. The port 8765 stands for
one that is free.
"""

from __future__ import annotations

import doctest
import fcntl
import os
import pty
import re
import signal
import site
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    "README.md",
    "docs/tutorial/first-steps.md",
    "docs/tutorial/first-plugin.md",
    "docs/how-to/configure.md",
    "docs/how-to/find-blocking-tools.md",
    "docs/how-to/place-tools.md",
    "docs/how-to/publish-a-plugin.md",
    "docs/how-to/run-several-tools.md",
    "docs/how-to/run-tools-in-processes.md",
    "docs/how-to/serve-over-http.md",
    "docs/how-to/switch-plugins.md",
    "docs/how-to/test-a-plugin.md",
    "docs/how-to/watch-a-daemon.md",
]

PART = re.compile(
    r'^```\w+ title="(?P<title>[^"]+)"\n(?P<content>.*?)^```$'
    r"|^```console\n(?P<console>.*?)^```$"
    r"|^<!-- starts: (?P<starts>.+?) -->$",
    re.MULTILINE | re.DOTALL,
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MARK = "@@status:"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Reader:
    """A person with a terminal, a folder and an environment, who follows a page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Somebody may be using the usual one.
        self.port = free_port()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("MCPD_", "PYTHON"))},
            "MCPD_DATA_DIR": str(folder / "data"),
            "MCPD_HTTP__PORT": str(self.port),
            "PATH": f"{folder / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "TERM": "xterm",
            "NO_COLOR": "1",
        }
        self.background: list[subprocess.Popen[bytes]] = []

    def install(self) -> None:
        """Make an environment that sees what this one has, and can be installed into."""
        env = self.folder / "env"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
        packages = next((env / "lib").glob("python*/site-packages"))
        seen = [path for path in site.getsitepackages() if Path(path).is_dir()]
        lines = [f"import site; site.addsitedir({path!r})" for path in seen]
        (packages / "_seen.pth").write_text("\n".join(lines) + "\n")
        for name, module in (("mcpd", "mcpd_core"), ("pip", "pip")):
            script = env / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "{env}/bin/python" -m {module} "$@"\n')
            script.chmod(0o755)

    def run(self, block: str) -> Iterator[tuple[str, str, str]]:
        """Yield each command of a block with the output that is wanted and the output it gave."""
        commands = re.findall(r"^\$ (.+(?:(?<=\\)\n.+)*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
        assert commands, f"a console block without commands: {block!r}"
        lines = [f"{command}\nstatus=$?; echo; echo {MARK}$status" for command, _ in commands]
        output = self._on_terminal("\n".join(lines))
        parts = re.split(rf"\n?{MARK}(\d+)\n", output)
        for index, (command, wanted) in enumerate(commands):
            given, status = parts[2 * index], parts[2 * index + 1]
            if status != "0":
                given = f"{given.rstrip()}\n[exit status {status}]\n"
            yield command, wanted, given

    def _on_terminal(self, script: str) -> str:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        output = b""
        try:
            while data := os.read(master, 65536):
                output += data
        except OSError:
            pass  # Linux reports the end of a terminal so
        os.close(master)
        process.wait()
        return ESCAPE.sub("", output.decode().replace("\r\n", "\n"))

    def start(self, command: str) -> None:
        """Start a command and wait until it says that it listens."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.background.append(process)
        assert process.stderr is not None
        heard = b""
        for line in process.stderr:
            heard += line
            if b"listening on" in line:
                return
        raise AssertionError(f"{command} ended: {heard.decode()}")

    def stop(self) -> None:
        for process in self.background:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            assert process.stderr is not None
            process.stderr.close()
        lock = self.folder / "data" / "daemon.lock"
        if lock.exists() and (self.folder / "data" / "mcpd.sock").exists():
            # One that a client of the page has started.
            os.kill(int(lock.read_text().split()[0]), signal.SIGTERM)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    reader.install()
    yield reader
    reader.stop()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_what_happens(page: str, reader: Reader) -> None:
    checker = doctest.OutputChecker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    shown = 0
    text = (ROOT / page).read_text().replace("8765", str(reader.port))
    for part in PART.finditer(text):
        if part["title"]:
            path = reader.folder / part["title"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(part["content"])
            if path.suffix == ".py" and path.parent.name != reader.folder.name:
                (path.parent / "__init__.py").touch()
        elif part["starts"]:
            reader.start(part["starts"])
        else:
            for command, wanted, given in reader.run(part["console"]):
                shown += 1
                assert checker.check_output(wanted, given, flags), (
                    f"{page}: $ {command}\n--- shown\n{wanted}--- given\n{given}"
                )
    assert shown, f"{page} shows no command"
