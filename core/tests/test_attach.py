"""`mcpd attach`: the relay, and how it finds or starts a daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from mcpd_core import attach, paths

#: A daemon of the fewest lines that claims its directory, listens and echoes. It notes its starts.
DAEMON = """
import fcntl, os, signal, socket, sys
directory = sys.argv[1]
os.chdir(directory)
lock = os.open("daemon.lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
with open("starts", "a") as starts:
    starts.write(f"{os.getpid()} {os.getsid(0)}\\n")
print("a line of the daemon", flush=True)
if os.path.exists("mcpd.sock"):
    os.unlink("mcpd.sock")
listening = socket.socket(socket.AF_UNIX)
listening.bind("mcpd.sock")
listening.listen()
signal.alarm(60)
import threading
def serve(sock):
    while data := sock.recv(1 << 16):
        sock.sendall(data)
    sock.close()
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[list[str]]:
    """The command of a small daemon; every one that was started is ended afterwards."""
    script = tmp_path / "small_daemon.py"
    script.write_text(DAEMON)
    yield [sys.executable, str(script), str(tmp_path)]
    for pid in started(tmp_path):
        os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # started by another process than this one


def started(directory: Path) -> list[int]:
    try:
        lines = (directory / "starts").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [int(line.split()[0]) for line in lines]


class Server:
    """A daemon within the test: each connection is handed to the next function."""

    def __init__(self, directory: Path, *serves: Callable[[socket.socket], None]) -> None:
        self._path = directory / "mcpd.sock"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._path))
        self._listening.listen()
        self._serves = serves
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for serve in self._serves:
            sock, _ = self._listening.accept()
            with sock:
                serve(sock)
        self._listening.close()

    def close(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._path.unlink()


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def echo_once(sock: socket.socket) -> None:
    sock.sendall(sock.recv(1 << 16))


def hang_up(sock: socket.socket) -> None:
    """Leave at once, as a daemon does that was just about to."""


@contextmanager
def replaced_stdio() -> Iterator[tuple[int, int]]:
    """Replace descriptors 0 and 1; yield the other ends.

    Not a fixture, because pytest puts its own capture in their place between set-up and test.
    """
    kept = os.dup(0), os.dup(1)
    reading, client_out = os.pipe()
    client_in, writing = os.pipe()
    os.dup2(reading, 0)
    os.dup2(writing, 1)
    os.close(reading)
    os.close(writing)
    try:
        yield client_in, client_out
    finally:
        os.dup2(kept[0], 0)
        os.dup2(kept[1], 1)
        os.close(kept[0])
        os.close(kept[1])
        os.close(client_in)


def relayed(directory: Path, data: bytes, spawn: list[str] | None = None) -> tuple[int, bytes]:
    """Relay a client that says something and ends; return the status and what it was answered."""
    with replaced_stdio() as (client_in, client_out):
        os.write(client_out, data)
        os.close(client_out)
        status = attach.relay(str(directory), spawn)
        os.dup2(2, 1)  # ends the answers
        answers = b""
        while more := os.read(client_in, 1 << 16):
            answers += more
        return status, answers


# --- what it is made of ---------------------------------------------------------------------------


def test_it_imports_nothing_but_what_is_part_of_the_interpreter() -> None:
    code = (
        # `os` itself is frozen since Python 3.11; before, every interpreter reads it anyway.
        "import os, sys; before = set(sys.modules); "
        f"sys.path.insert(0, {os.path.dirname(attach.__file__)!r}); import attach; "
        "new = [sys.modules[name] for name in set(sys.modules) - before]; "
        "print([[module.__name__, module.__spec__.origin] for module in new])"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    imported = dict(json.loads(run.stdout.replace("'", '"')))
    assert imported.pop("attach").endswith("attach.py")
    assert "_socket" in imported
    for name, origin in imported.items():
        assert origin in ("built-in", "frozen") or not origin.endswith(".py"), name


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"XDG_DATA_HOME": "/somewhere/data"},
        {"XDG_DATA_HOME": "relative"},
        {"XDG_DATA_HOME": ""},
        {"HOME": "/home/of/somebody"},
        {"MCPD_DATA_DIR": "~/mine"},
        {"MCPD_DATA_DIR": "relative/../mine"},
        {"MCPD_DATA_DIR": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("flag", ["", "~/flag", "flag/./here/"])
def test_it_finds_the_data_directory_that_the_daemon_uses(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], flag: str
) -> None:
    for name in ("XDG_DATA_HOME", "MCPD_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert attach.data_dir(flag) == str(paths.data_dir(flag or None))
    if not flag and not env.get("MCPD_DATA_DIR"):
        assert attach.data_dir() == platformdirs.user_data_dir("mcpd-core", appauthor=False)


def test_on_macos_the_data_directory_is_where_its_applications_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", "/Users/me")
    for name in ("XDG_DATA_HOME", "MCPD_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    from platformdirs.macos import MacOS

    assert attach.data_dir() == "/Users/me/Library/Application Support/mcpd-core"
    assert attach.data_dir() == MacOS("mcpd-core", appauthor=False).user_data_dir


# --- arguments ------------------------------------------------------------------------------------


def test_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def relay(directory: str, spawn: list[str] | None, *, compare: bool) -> int:
        calls.append((directory, spawn is not None, compare))
        return 0

    monkeypatch.setattr(attach, "relay", relay)
    monkeypatch.setenv("MCPD_DATA_DIR", "/from/environment")
    for argv in ([], ["--data-dir", "/d"], ["--data-dir=/d", "--spawn"]):
        assert attach.main(argv) == 0
    assert calls == [("/from/environment", False, False), ("/d", False, False), ("/d", True, False)]


def test_arguments_that_are_not_understood(capfd: pytest.CaptureFixture[str]) -> None:
    for argv in (["--bogus"], ["--data-dir"], ["serve"]):
        assert attach.main(argv) == 2
        captured = capfd.readouterr()
        assert argv[0] in captured.err
        assert captured.out == ""
    assert attach.main(["--help"]) == 0
    assert capfd.readouterr().out == attach.USAGE


def test_the_daemon_is_started_with_the_settings_in_force_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MCPD_CONFIG", raising=False)
    command = attach.spawn_command("/d")
    assert command[1:4] == ["-m", "mcpd_core", "serve"]
    assert command[-3:] == ["--data-dir", "/d", "--linger"]
    (tmp_path / "mcpd.toml").write_text("")
    expected = ["--linger", "--config", str(tmp_path / "mcpd.toml")]
    assert attach.spawn_command("/d")[-3:] == expected


# --- relaying -------------------------------------------------------------------------------------


def test_what_the_client_says_is_answered_after_its_end(tmp_path: Path) -> None:
    server = Server(tmp_path, echo)
    assert relayed(tmp_path, b"one\ntwo\n") == (0, b"one\ntwo\n")
    server.close()


@pytest.mark.parametrize("flood", [b"x" * 60_000, b'"tools/call"' * 4_000], ids=["", "calls"])
def test_both_directions_may_be_full_at_once(tmp_path: Path, flood: bytes) -> None:
    server = Server(tmp_path, echo)
    data = flood * 200
    with replaced_stdio() as (client_in, client_out):

        def feed() -> None:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(client_out, rest) :]
            os.close(client_out)

        feeder = threading.Thread(target=feed)
        feeder.start()
        received: list[bytes] = []

        def read() -> None:
            time.sleep(0.05)  # a client that is slow to begin with
            while sum(map(len, received)) < len(data):
                received.append(os.read(client_in, 1 << 16))

        reader = threading.Thread(target=read)
        reader.start()
        assert attach.relay(str(tmp_path)) == 0
        reader.join(30)
        feeder.join(30)
    assert b"".join(received) == data
    server.close()


def test_a_daemon_that_dies_ends_the_session(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = Server(tmp_path, echo_once)
    with replaced_stdio() as (client_in, client_out):
        os.write(client_out, b"one\n")
        assert attach.relay(str(tmp_path)) == attach.CUT_OFF
        assert os.read(client_in, 100) == b"one\n"
        os.write(client_out, b"to nobody\n")
        os.close(client_out)
    assert "the daemon closed the connection" in capfd.readouterr().err
    server.close()


def test_a_client_that_dies_ends_the_session(tmp_path: Path) -> None:
    server = Server(tmp_path, echo)
    with replaced_stdio() as (client_in, client_out):
        os.write(client_out, b"one\n")
        os.close(client_out)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, client_in)
        os.close(null)
        assert attach.relay(str(tmp_path)) == 0
    server.close()


def test_an_interrupt_ends_it_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(attach, "_reach", interrupted)
    assert attach.relay(str(tmp_path)) == 130
    assert capfd.readouterr().err == ""


def test_requests_are_relayed_in_order_and_end_with_a_half_close() -> None:
    # In this thread, where it can be seen: `relay` runs it in one that no tool observes.
    link, daemon = socket.socketpair()
    ended = [False]
    with replaced_stdio() as (_, client_out):
        os.write(client_out, b"then this\n")
        os.close(client_out)
        attach._pump_requests(link, b"first this\n", ended)
    assert ended == [True]
    assert daemon.recv(100) == b"first this\nthen this\n"
    assert daemon.recv(100) == b""
    daemon.close()
    ended = [False]
    attach._pump_requests(link, b"to nobody", ended)
    assert ended == [False]
    link.close()


def test_what_cannot_be_sent_at_once_is_left_for_later() -> None:
    link, daemon = socket.socketpair()
    sent = attach._send_some(link, b"x" * (8 << 20))
    assert 0 < sent < 8 << 20
    assert attach._send_some(link, b"more") == 0
    daemon.close()
    assert attach._send_some(link, b"lost") == 4
    assert attach._pump_answers(link) is False
    link.close()


# --- a daemon that leaves -------------------------------------------------------------------------


def test_what_was_said_to_a_daemon_that_left_is_said_to_its_successor(tmp_path: Path) -> None:
    server = Server(tmp_path, hang_up, echo)
    with replaced_stdio() as (client_in, client_out):
        os.write(client_out, b'{"method":"initialize"}\n')
        relaying: list[int] = []
        thread = threading.Thread(target=lambda: relaying.append(attach.relay(str(tmp_path))))
        thread.start()
        assert os.read(client_in, 100) == b'{"method":"initialize"}\n'
        os.write(client_out, b"and on\n")
        assert os.read(client_in, 100) == b"and on\n"
        os.close(client_out)
        thread.join(10)
    assert relaying == [0]
    server.close()


def test_a_client_that_has_ended_meets_the_successor_too(tmp_path: Path) -> None:
    def close_unread(sock: socket.socket) -> None:
        # The client's end has arrived: it reads the end of ours only now.
        while sock.recv(100):
            pass

    server = Server(tmp_path, close_unread, echo)
    assert relayed(tmp_path, b"all of it\n") == (0, b"all of it\n")
    server.close()


def test_a_daemon_is_replaced_once_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server = Server(tmp_path, echo_once_silently, echo_once_silently)
    with replaced_stdio() as (_, client_out):
        os.write(client_out, b"one\n")
        assert attach.relay(str(tmp_path)) == attach.CUT_OFF
        os.close(client_out)
    server.close()


def echo_once_silently(sock: socket.socket) -> None:
    sock.recv(100)


@pytest.mark.parametrize("said", [b'{"method":"tools/call"}\n', b'{"method":"tools\\u002fx"}\n'])
def test_what_may_have_run_a_tool_is_never_said_twice(tmp_path: Path, said: bytes) -> None:
    server = Server(tmp_path, echo_once_silently)
    with replaced_stdio() as (_, client_out):
        os.write(client_out, said)
        assert attach.relay(str(tmp_path)) == attach.CUT_OFF
        os.close(client_out)
    server.close()


def test_a_client_that_said_nothing_ends_in_peace(tmp_path: Path) -> None:
    server = Server(tmp_path, echo)
    assert relayed(tmp_path, b"") == (0, b"")
    server.close()


# --- starting a daemon ----------------------------------------------------------------------------


def test_without_a_daemon_the_next_step_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert attach.relay(str(tmp_path)) == attach.UNAVAILABLE
    (line,) = capfd.readouterr().err.splitlines()
    assert "mcpd serve" in line
    assert str(tmp_path) in line


def test_a_socket_that_may_not_be_used_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(directory: str) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(attach, "connect", refuse)
    assert attach.relay(str(tmp_path), ["unused"]) == attach.UNAVAILABLE
    assert "Permission denied" in capfd.readouterr().err


def test_a_daemon_is_started_when_none_runs_and_is_found_the_next_time(
    tmp_path: Path, spawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert relayed(tmp_path, b"one\n", spawn) == (0, b"one\n")
    assert relayed(tmp_path, b"two\n", spawn) == (0, b"two\n")
    (line,) = (tmp_path / "starts").read_text().splitlines()
    pid, session = line.split()
    assert pid == session  # no terminal's signal reaches it
    assert (tmp_path / "daemon.log").read_text() == "a line of the daemon\n"


def test_a_stale_socket_is_no_daemon(
    tmp_path: Path, spawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "mcpd.sock"))
    assert relayed(tmp_path, b"one\n", spawn) == (0, b"one\n")


def test_many_that_need_a_daemon_start_one(tmp_path: Path, spawn: list[str]) -> None:
    code = (
        "import sys; from mcpd_core import attach; "
        "sys.exit(attach.relay(sys.argv[1], sys.argv[2:], compare=False))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), *spawn]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)
    ]
    for number, client in enumerate(clients):
        with client:
            answer, _ = client.communicate(f"{number}\n".encode(), timeout=30)
            assert answer == f"{number}\n".encode()
            assert client.returncode == 0
    assert len(started(tmp_path)) == 1


def test_a_daemon_that_dies_at_once_is_reported_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "daemon.log").write_text("something older\n")
    code = "import sys; sys.exit('\\n'.join([*(f'line {n}' for n in range(50)), 'no room']))"
    status = attach.relay(str(tmp_path), [sys.executable, "-I", "-S", "-c", code])
    assert status == attach.UNAVAILABLE
    said = capfd.readouterr().err
    assert "status 1" in said
    assert "no room" in said
    assert "line 49" in said
    assert "line 30" not in said
    assert "older" not in said


def test_a_daemon_that_says_nothing_is_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attach, "_PATIENCE", 0.05)
    command = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(3600)"]
    pids: list[int] = []
    start = attach._start

    def starting(argv: list[str], log: str) -> int:
        pids.append(start(argv, log))
        return pids[-1]

    monkeypatch.setattr(attach, "_start", starting)
    assert attach.relay(str(tmp_path), command) == attach.UNAVAILABLE
    assert f"See {tmp_path / 'daemon.log'}" in capfd.readouterr().err
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)


def test_a_command_that_does_not_exist_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert attach.relay(str(tmp_path), ["/no/such/command"]) == attach.UNAVAILABLE
    assert "/no/such/command" in capfd.readouterr().err


def test_a_directory_that_cannot_be_made_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert attach.relay(str(tmp_path / "file" / "data"), ["unused"]) == attach.UNAVAILABLE
    assert "cannot start a daemon" in capfd.readouterr().err


def test_a_long_log_begins_anew(
    tmp_path: Path, spawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attach, "_MAX_LOG", 5)
    (tmp_path / "daemon.log").write_text("something older\n")
    relayed(tmp_path, b"one\n", spawn)
    assert (tmp_path / "daemon.log").read_text() == "a line of the daemon\n"
    assert (tmp_path / "daemon.log.old").read_text() == "something older\n"


def test_a_log_that_cannot_be_read_is_not_quoted(tmp_path: Path) -> None:
    assert attach._tail(str(tmp_path / "none"), 0) == ""


@pytest.mark.parametrize(
    ("running", "wanted", "said"),
    [
        ("a,b", "a,b", ""),
        ("a,b", "a", "--plugins a,b, not with --plugins a;"),
        ("", "a", "all plugins, not with --plugins a;"),
        ("a", "", "--plugins a, not with all plugins;"),
        (None, "a", ""),
    ],
)
def test_other_plugins_than_asked_for_are_pointed_out(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    running: str | None,
    wanted: str,
    said: str,
) -> None:
    if running is not None:
        (tmp_path / "daemon.plugins").write_text(running + "\n")
    server = Server(tmp_path, echo)
    relayed(tmp_path, b"x", ["mcpd", "serve", *(["--plugins", wanted] if wanted else [])])
    server.close()
    lines = capfd.readouterr().err.splitlines()
    assert (said in lines[0]) if said else (lines == [])


def test_nobody_has_to_listen_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("mcpd_core.attach.os.write", closed)
    attach._say("nobody hears this")
