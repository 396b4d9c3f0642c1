"""``mcpd top`` and the watchdog on a real daemon, as a person at a terminal has them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpd_core.testing.planting import PlantedPlugin, WritePlugin

MCPD = [sys.executable, "-m", "mcpd_core"]
#: Seconds; far more than anything here takes.
LONG = 40

TOOLS = """
from __future__ import annotations
import threading, time
import anyio
from mcpd_core import tool

@tool
async def blocks() -> int:
    time.sleep(0.3)  # the line
    return threading.get_ident()

@tool
async def waits() -> str:
    await anyio.sleep(3600)
    return "never"
"""

#: What a terminal is told besides text.
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ALTERNATE, PRIMARY = "\x1b[?1049h", "\x1b[?1049l"
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture(params=["asyncio", "trio"])
def plugin(request: pytest.FixtureRequest, tmp_plugin: WritePlugin) -> PlantedPlugin:
    return tmp_plugin(TOOLS, runtime=request.param)


@pytest.fixture
def env(tmp_path: Path, plugin: PlantedPlugin) -> dict[str, str]:
    """An environment in which nothing is set, with a data directory of its own."""
    # A terminal has a size of its own, which these would belie.
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("MCPD_") and key not in ("COLUMNS", "LINES")
    }
    return env | {
        "MCPD_DATA_DIR": str(tmp_path / "data"),
        "MCPD_HTTP__PORT": "0",
        "MCPD_WATCHDOG__MOVE": "blocks",
        "MCPD_WATCHDOG__OFFENCES": "1",
        "PYTHONPATH": str(plugin.path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "TERM": "xterm",
    }


@pytest.fixture
def daemon(env: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A daemon with the plugin; its log can be read from where it listens on."""
    process = subprocess.Popen(
        [*MCPD, "serve", "--plugins", "planted", "--transport", "socket"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=tmp_path,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on unix:" in line:
            break
    yield process
    if process.poll() is None:
        process.terminate()
    process.communicate(timeout=LONG)


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(env: dict[str, str], tmp_path: Path) -> Run:
    """Runs a command to its end."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MCPD, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
            env=env,
            cwd=tmp_path,
        )

    return run


def told(run: Run) -> dict[str, Any]:
    done = run("top", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.usefixtures("daemon")
def test_a_tool_that_blocks_is_named_and_moved_and_both_are_shown(
    daemon: subprocess.Popen[str], run: Run, plugin: PlantedPlugin
) -> None:
    path = plugin.path / plugin.package / "tools.py"
    number = next(
        n for n, line in enumerate(path.read_text().splitlines(), 1) if "# the line" in line
    )
    first = run("tools", "call", "blocks").stdout
    assert daemon.stderr is not None
    report = daemon.stderr.readline()
    assert "The tool 'blocks' of the plugin planted has blocked the loop for 0." in report
    assert f"{path}:{number} in blocks" in report
    assert "its next calls run in a thread" in daemon.stderr.readline()
    assert run("tools", "call", "blocks").stdout != first
    answer = told(run)
    (blocks,) = answer["offers"]
    assert answer["pid"] == daemon.pid
    assert blocks["calls"] == 2
    assert blocks["blocked"]["offences"] == 1
    assert blocks["runtime"].endswith(" thread")
    shown = run("top", "--once").stdout.splitlines()
    assert shown[-1].split()[0] == "blocks"
    assert shown[-1].split()[-1] == "1"
    assert f"process {daemon.pid}" in shown[0]


class Terminal:
    """A terminal that runs ``mcpd top`` in it."""

    def __init__(self, env: dict[str, str], cwd: Path, *args: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.process = subprocess.Popen(
            [*MCPD, "top", "--interval", "0.1", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            cwd=cwd,
            # So that Ctrl-C, typed into the terminal, becomes a signal.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.output = ""

    def read_until(self, text: str) -> None:
        deadline = time.monotonic() + LONG
        while text not in ESCAPE.sub("", self.output):
            assert time.monotonic() < deadline, self.output
            if select.select([self.master], [], [], 0.1)[0]:
                self.output += os.read(self.master, 65536).decode()

    def finish(self) -> str:
        """Wait for the end of the program and return everything it has written."""
        self.process.wait(LONG)
        while select.select([self.master], [], [], 0)[0]:
            self.output += os.read(self.master, 65536).decode()
        return self.output

    def assert_restored(self) -> None:
        assert self.output.rindex(PRIMARY) > self.output.rindex(ALTERNATE)
        assert self.output.rindex(SHOWN) > self.output.rindex(HIDDEN)
        assert termios.tcgetattr(self._slave) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def terminal(
    daemon: subprocess.Popen[str], env: dict[str, str], tmp_path: Path
) -> Iterator[Terminal]:
    terminal = Terminal(env, tmp_path)
    yield terminal
    terminal.close()


def test_the_table_follows_the_daemon_until_ctrl_c(
    terminal: Terminal, env: dict[str, str], tmp_path: Path
) -> None:
    terminal.read_until("Nothing has been called yet.")
    call = subprocess.Popen(
        [*MCPD, "tools", "call", "waits"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=env,
        cwd=tmp_path,
    )
    try:
        terminal.read_until("1 in flight")
        terminal.read_until("waits")
    finally:
        call.send_signal(signal.SIGINT)
        call.communicate(timeout=LONG)
    terminal.output = ""
    terminal.read_until("0 in flight")
    terminal.output = ALTERNATE + HIDDEN
    os.write(terminal.master, b"\x03")
    terminal.finish()
    assert terminal.process.returncode == 0
    terminal.assert_restored()
    assert "Traceback" not in terminal.output


def test_a_table_that_is_told_to_end_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.read_until("Nothing has been called yet.")
    terminal.process.terminate()
    terminal.finish()
    assert terminal.process.returncode == 128 + signal.SIGTERM
    terminal.assert_restored()


def test_a_daemon_that_ends_is_told_of(terminal: Terminal, daemon: subprocess.Popen[str]) -> None:
    terminal.read_until("Nothing has been called yet.")
    daemon.terminate()
    output = ESCAPE.sub("", terminal.finish())
    assert terminal.process.returncode == 1
    assert "has ended, or does not answer any more." in output
    terminal.assert_restored()


@pytest.mark.usefixtures("daemon")
def test_the_doctor_names_tools_that_block_the_running_daemon(run: Run) -> None:
    run("tools", "call", "blocks")
    found = json.loads(run("doctor", "--json").stdout)
    (finding,) = [finding for finding in found if finding["check"] == "watchdog"]
    assert "The tool 'blocks' of the plugin planted" in finding["message"]
