"""The command line as processes: the daemon it runs, the calls it makes, the signals it gets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MCPD = [sys.executable, "-m", "mcpd_core"]
HELLO = ("--plugins", "hello,hello-trio")
#: Seconds; far more than anything here takes.
LONG = 40


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing is set, with a data directory of its own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MCPD_")}
    return env | {
        "MCPD_DATA_DIR": str(tmp_path / "data"),
        "MCPD_HTTP__PORT": "0",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(env: dict[str, str], tmp_path: Path) -> Run:
    """Runs a command to its end."""

    def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MCPD, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
            env=env,
            cwd=tmp_path,
        )

    return run


@pytest.fixture
def start(env: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts a command; what still runs in the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*args: str, **kwargs: Any) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*MCPD, *args],
            **{"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **kwargs},
            text=True,
            env=env,
            cwd=tmp_path,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read stderr until a line that contains the text."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"{text!r} did not come: {lines}")


@pytest.fixture
def daemon(start: Start) -> subprocess.Popen[str]:
    process = start("serve", *HELLO)
    read_until(process, "listening on")
    return process


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LONG)
    return process.returncode, out, err


# --- serve ----------------------------------------------------------------------------------------


def test_serve_says_what_is_enabled_and_where_it_listens(start: Start, tmp_path: Path) -> None:
    process = start("serve", "--plugins", "hello")
    lines = read_until(process, "listening on")
    assert any("enabled: hello (mcpd-hello-plugin 0.1.0, asyncio): 3 tools" in s for s in lines)
    assert lines[-1].endswith(f"listening on unix:{tmp_path}/data/mcpd.sock")
    assert not any("hello-trio" in line for line in lines)
    status, out, err = interrupted(process)
    assert (status, out) == (0, "")
    assert "Traceback" not in err


def test_serve_logs_json_for_programs(start: Start) -> None:
    process = start("serve", *HELLO, "--log-format", "json", "--log-level", "debug")
    entries = [json.loads(line) for line in read_until(process, "listening on")]
    enabled = [entry for entry in entries if entry["message"].startswith("enabled: ")]
    assert len(enabled) == 2
    _, _, err = interrupted(process)
    for line in err.splitlines():
        json.loads(line)


def test_serve_names_what_is_broken_and_why(
    start: Start, env: dict[str, str], tmp_path: Path
) -> None:
    info = tmp_path / "site" / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mcpd_core.plugins.twisted]\nodd = odd.plugin\n")
    env["PYTHONPATH"] = str(tmp_path / "site")
    process = start("serve", "--log-level", "debug")
    lines = read_until(process, "listening on")
    assert any("warning" in line and "broken: odd (odd 1.0, twisted)" in line for line in lines)
    assert any("enabled: hello (" in line for line in lines)
    assert interrupted(process)[0] == 0


def test_serve_names_the_damaged_distribution_that_keeps_it_from_starting(
    run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    info = tmp_path / "site" / "damaged-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(b"[x]\n\xff = y\n")
    env["PYTHONPATH"] = str(tmp_path / "site")
    done = run("serve", *HELLO)
    assert (done.returncode, done.stdout) == (1, "")
    assert "distribution damaged" in done.stderr
    assert "pip install --force-reinstall damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_has_one_owner(daemon: subprocess.Popen[str], run: Run) -> None:
    done = run("serve", *HELLO)
    assert done.returncode == 1
    assert f"is owned by process {daemon.pid}" in done.stderr.replace("\n", " ")
    assert "mcpd attach" in done.stderr


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--transport", "http", "--transport", "stdio"), "use --transport stdio alone"),
        (("--port", "65536"), "65536"),
        (("--standalone", "--transport", "socket"), "--standalone serves stdio and nothing else"),
        (("--plugins", "no-such-plugin"), "'no-such-plugin'"),
        (("--log-level", "loud"), "'loud' is not one of"),
    ],
)
def test_serve_refuses_what_makes_no_sense(run: Run, args: tuple[str, ...], complaint: str) -> None:
    done = run("serve", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_http_can_be_left_out(start: Start) -> None:
    process = start("serve", *HELLO, "--transport", "socket")
    read_until(process, "listening on unix:")
    status, _, err = interrupted(process)
    assert status == 0
    assert "http" not in err


# --- stdio ----------------------------------------------------------------------------------------


def lines(*messages: dict[str, Any]) -> str:
    return "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages)


SESSION = lines(
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    },
    {"method": "notifications/initialized"},
    {
        "id": 2,
        "method": "tools/call",
        "params": {"name": "hello_greet", "arguments": {"name": "Ada"}},
    },
)


def answers(text: str) -> dict[int, Any]:
    return {message["id"]: message["result"] for message in map(json.loads, text.splitlines())}


def test_standalone_serves_stdio_in_this_process(run: Run) -> None:
    done = run("serve", "--standalone", *HELLO, stdin=SESSION)
    assert done.returncode == 0, done.stderr
    assert answers(done.stdout)[2]["content"][0]["text"] == "Hello, Ada!"
    assert "listening on stdio" in done.stderr


def test_stdio_alone_is_a_relay_to_a_daemon_with_the_same_settings(
    start: Start, run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mcpd.toml").write_text("[daemon]\nlinger = 0.5\n[executor]\nqueue = 7\n")
    process = start(
        "serve", "--transport", "stdio", "--log-format", "json", *HELLO, stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(SESSION)
    process.stdin.flush()
    first, second = (json.loads(process.stdout.readline()) for _ in range(2))
    assert {first["id"], second["id"]} == {1, 2}
    owner = json.loads((tmp_path / "data" / "daemon.json").read_text())
    assert owner["pid"] != process.pid  # the client does not own the server
    assert owner["plugins"] == "hello,hello-trio"
    command = owner["argv"]
    assert command[command.index("--config") + 1] == str(tmp_path / "mcpd.toml")
    assert "--linger" in command  # how long is in the settings, which the daemon reads too
    assert command[command.index("--log-format") + 1] == "json"
    # A command finds the same daemon.
    assert run("tools", "call", "hello_greet", "name=Bob").stdout == "Hello, Bob!\n"
    process.stdin.close()
    process.stdin = None
    assert process.wait(LONG) == 0
    deadline = time.monotonic() + LONG
    while (tmp_path / "data" / "daemon.json").exists():
        assert time.monotonic() < deadline, "the daemon did not leave after its last client"
        time.sleep(0.05)


# --- tools call -----------------------------------------------------------------------------------


def test_a_call_through_the_daemon(daemon: subprocess.Popen[str], run: Run) -> None:
    done = run("tools", "call", "hello_wait", "seconds=0.01")
    assert (done.returncode, done.stdout) == (0, "waited 0.01 s\n")
    assert done.stderr.splitlines() == [f"{step}/10" for step in range(10)]
    done = run("tools", "call", "hello_race", "seconds=[0.1, 0]", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"result": [1, 0]})


@pytest.mark.parametrize(
    ("args", "status", "code"),
    [
        (("hello_digest", "path=/no/such/file"), 1, "tool_failed"),
        (("hello_wait", "seconds=-1"), 2, "invalid_arguments"),
        (("hello_wait", "seconds=soon"), 2, "invalid_arguments"),
        (("hello_wai", "seconds=1"), 2, "unknown_tool"),
    ],
)
def test_the_exit_status_tells_failed_from_not_called(
    daemon: subprocess.Popen[str], run: Run, args: tuple[str, ...], status: int, code: str
) -> None:
    done = run("tools", "call", *args)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("error: ")
    done = run("tools", "call", *args, "--json")
    assert done.returncode == status
    assert json.loads(done.stdout)["error"]["code"] == code


@pytest.mark.parametrize("where", [(), ("--local", *HELLO)], ids=["daemon", "local"])
def test_an_interrupt_cancels_the_call_and_exits_130(
    daemon: subprocess.Popen[str], start: Start, run: Run, where: tuple[str, ...]
) -> None:
    process = start("tools", "call", "hello_wait", "seconds=3000", *where)
    read_until(process, "0/10")
    status, out, err = interrupted(process)
    assert (status, out) == (130, "")
    assert "Traceback" not in err
    assert run("tools", "call", "hello_greet", "name=Ada").returncode == 0


def test_a_daemon_that_dies_during_a_call_is_reported(
    daemon: subprocess.Popen[str], start: Start
) -> None:
    process = start("tools", "call", "hello_wait", "seconds=3000")
    read_until(process, "0/10")
    daemon.kill()
    out, err = process.communicate(timeout=LONG)
    # It started, so it is not "could not be called".
    assert (process.returncode, out) == (1, "")
    assert "ended the connection before it answered" in err


# --- pipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_ends_the_command_quietly(
    start: Start, env: dict[str, str], unbuffered: str
) -> None:
    env["PYTHONUNBUFFERED"] = unbuffered
    reading, writing = os.pipe()
    os.close(reading)
    process = start("tools", "list", "--json", stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 141
    assert err == ""


def test_attach_is_dispatched_without_the_rest_of_the_command_line(run: Run) -> None:
    done = run("attach", "--help")
    assert done.returncode == 0
    assert "mcpd attach" in done.stdout
    done = run("attach")
    assert done.returncode != 0
    assert re.search(r"mcpd serve", done.stderr)


def test_the_version(run: Run) -> None:
    from mcpd_core import __version__

    assert run("--version").stdout == f"mcpd {__version__}\n"
