"""`mcpd doctor`: every check, with what it is about made so; and the round as a whole."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import file_systems
from mcpd_core.cli import main
from mcpd_core.cli.doctor import (
    configuration,
    daemon,
    examination,
    interpreter,
    libraries,
    plugins,
    ports,
    storage,
)
from mcpd_core.cli.doctor.libraries import Requirement
from mcpd_core.faults import DistributionFault
from mcpd_core.findings import Finding
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.settings import Settings, load_settings


def says(finding: Finding, level: str, *words: str) -> None:
    """Assert a finding's level and what it mentions; trouble comes with what to do."""
    assert finding.level == level, finding
    for word in words:
        assert word in f"{finding.message} {finding.fix}", finding
    if level == "error":
        assert finding.fix, finding
    assert finding.message.endswith((".", "!")) or ":" in finding.message, finding


# --- interpreter ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "implementation", "level", "word"),
    [
        ((3, 9, 18), "CPython", "error", "too old"),
        ((3, 10, 0), "CPython", "ok", "supported"),
        ((3, 13, 1), "CPython", "ok", "supported"),
        ((3, 14, 0), "CPython", "note", "newer than what is tested"),
        ((3, 11, 9), "PyPy", "warning", "not CPython"),
    ],
)
def test_the_interpreter(
    version: tuple[int, ...], implementation: str, level: str, word: str
) -> None:
    says(interpreter.check_python(version, implementation, "/bin/python"), level, word)


@pytest.mark.parametrize(
    ("name", "level"), [("linux", "ok"), ("darwin", "note"), ("win32", "error")]
)
def test_the_platform(name: str, level: str) -> None:
    says(interpreter.check_platform(name), level)


def test_an_sqlite_with_the_wal_bug_is_a_note_because_there_is_one_writer() -> None:
    says(interpreter.check_sqlite((3, 51, 2)), "note", "3.51.3", "one process")
    says(interpreter.check_sqlite((3, 51, 3)), "ok", "3.51.3")
    says(interpreter.check_sqlite(None), "error", "without SQLite")


def test_another_programs_mcpd_is_told_from_ours(tmp_path: Path) -> None:
    programs = tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    ours = programs / "mcpd"
    ours.write_text("#!")
    shim = tmp_path / "shim"
    shim.write_text(f"#!{programs}/python\n")
    stranger = tmp_path / "stranger"
    stranger.write_text("#!/bin/sh\n")
    link = tmp_path / "link"
    link.symlink_to(ours)
    for good in (ours, shim, link):
        says(interpreter.check_command(str(good), programs), "ok", str(good))
    says(interpreter.check_command(str(stranger), programs), "warning", str(stranger), str(ours))
    says(interpreter.check_command(str(tmp_path / "gone"), programs), "warning")
    says(interpreter.check_command(None, programs), "note", "finds no program")


# --- libraries ------------------------------------------------------------------------------------


def test_requirements_are_read_from_the_distributions_own_metadata() -> None:
    found = libraries.parse_requirements(
        [
            "mcp<2.4,>=2.3",
            "Rich>=13.7",
            "tomli>=2; python_version < '3.11'",
            "uvloop>=0.21; sys_platform != 'win32' and extra == 'fast'",
            "trio (<0.36,>=0.27) ; extra == 'trio'",
            "anyio[trio]>=4",
            "?",
        ]
    )
    assert found == {
        "mcp": Requirement("mcp", "<2.4,>=2.3"),
        "rich": Requirement("rich", ">=13.7"),
        "tomli": Requirement("tomli", ">=2", marker="python_version < '3.11'"),
        "uvloop": Requirement("uvloop", ">=0.21", "fast", "sys_platform != 'win32'"),
        "trio": Requirement("trio", "<0.36,>=0.27", "trio"),
        "anyio": Requirement("anyio", ">=4"),
    }


@pytest.mark.parametrize(
    ("version", "versions", "fits"),
    [
        ("2.3.0", ">=2.3,<2.4", True),
        ("2.3", ">=2.3.0", True),
        ("2.4.0", ">=2.3,<2.4", False),
        ("2.10", ">2.9", True),
        ("0.36.0rc1", "<0.36", False),
        ("1!3.0", "<=3", True),
        ("1.4.7", "~=1.4.2", True),
        ("1.5", "~=1.4.2", False),
        ("1.4.9", "==1.4.*", True),
        ("1.4.9", "!=1.4.*", False),
        ("1.4", "==1.4.0", True),
        ("1.4", "!=1.4.0", False),
        ("", ">=9", True),
        ("2", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, versions: str, fits: bool) -> None:
    assert libraries.within(version, versions) is fits


def test_a_library_that_mcpd_needs_must_be_there_and_fit() -> None:
    wanted = {
        "mcp": Requirement("mcp", ">=2.3,<2.4"),
        "rich": Requirement("rich", ">=13"),
        "click": Requirement("click", ">=8"),
        "tomli": Requirement("tomli", ">=2", marker="python_version < '3.11'"),
        "trio": Requirement("trio", ">=0.27", "trio"),
    }
    click, rich, fine = libraries.check_required(wanted, {"mcp": "2.3.1", "rich": "12"})
    says(click, "error", "click is not installed", "pip install 'click>=8'")
    says(rich, "error", "rich 12 is installed", "rich>=13")
    says(fine, "ok", "mcp 2.3.1")


def test_a_library_that_mcpd_can_do_without_is_a_note_when_missing() -> None:
    wanted = Requirement("trio", ">=0.27,<0.36", "trio")
    says(libraries.check_optional("trio", wanted, None), "note", "mcpd-core[trio]")
    says(libraries.check_optional("httptools", None, None), "note", "pip install httptools")
    says(libraries.check_optional("trio", wanted, "0.40"), "warning", "range", ">=0.27,<0.36")
    says(libraries.check_optional("trio", wanted, "0.30.0"), "ok", "fused mode")
    says(libraries.check_optional("uvloop", None, "0.23"), "ok", "uvloop 0.23")


def test_how_trio_is_driven_is_told_as_the_settings_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mcpd_core.runtimes import trio_private
    from mcpd_core.runtimes.trio_private import Obstacle

    says(libraries.check_trio("trio 0.35", "guest"), "ok", "guest mode, as the settings say")
    says(libraries.check_trio("trio 0.35", "fused"), "ok", "fused mode")
    monkeypatch.setattr(trio_private, "obstacle", lambda **_: Obstacle("it fails"))
    says(libraries.check_trio("trio 0.35", "fused"), "error", "it fails", 'trio = "auto"')
    says(libraries.check_trio("trio 0.35", "auto"), "warning", "it fails", "was tested")


def test_this_environment_has_what_mcpd_needs() -> None:
    found = list(libraries.examine())
    assert not [finding for finding in found if finding.level in ("error", "warning")]
    assert {"library", "trio", "uvloop", "httptools"} == {finding.check for finding in found}


def test_a_core_without_metadata_is_reported_and_the_rest_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libraries, "CORE", "no-such-distribution")
    first, *rest = libraries.examine()
    says(first, "warning", "is not installed")
    assert {finding.check for finding in rest} == {"trio", "uvloop", "httptools"}


# --- plugins --------------------------------------------------------------------------------------


def row(name: str = "weather", state: Any = "enabled", **facts: Any) -> PluginRow:
    return PluginRow(name, f"mcpd-{name}", "1.0", "asyncio", state, **facts)


def test_plugins_that_do_not_work_are_warnings_with_their_reason() -> None:
    says(plugins.check_plugin(row()), "ok", "weather (mcpd-weather 1.0, asyncio) is enabled, 0")
    says(plugins.check_plugin(row(state="disabled", reason="It is denied.")), "ok", "disabled")
    for state in ("broken", "conflict", "missing-runtime"):
        says(plugins.check_plugin(row(state=state, reason="Mend it.")), "warning", "Mend it.")


def test_a_plugin_without_manifest_is_a_note() -> None:
    says(plugins.check_manifest(row(dynamic=True)), "note", "mcpd plugins manifest")
    path = Path("/somewhere/mcpd_plugin.json")
    says(plugins.check_manifest(row(manifest_path=path)), "ok", str(path))


def test_no_plugins_and_missing_members_of_a_bundle_are_told() -> None:
    (nothing,) = plugins.examine(Inventory())
    says(nothing, "warning", "no tool to offer", "pip install")
    found = list(plugins.examine(Inventory((row(),), notes=("Bundle p2p: not installed: x.",))))
    assert [finding.level for finding in found] == ["ok", "ok", "note"]


def test_damaged_distributions_are_named_and_tried_out() -> None:
    fault = DistributionFault("sad", "/x/sad.dist-info", "it has no METADATA", "Reinstall sad.")
    (found,) = plugins.examine_distributions([fault])
    says(found, "warning", "sad is damaged", "Reinstall sad.")
    (fine,) = plugins.examine_distributions([])
    says(fine, "ok")

    def read() -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    (broken,) = plugins.check_entry_points(read)
    says(broken, "error", "UnicodeDecodeError", "pydantic")


# --- settings -------------------------------------------------------------------------------------


def test_a_settings_file_that_others_can_write_is_a_warning() -> None:
    says(configuration.check_mode("mcpd.toml", 0o100644), "ok", "is valid")
    for mode in (0o100664, 0o100646):
        says(configuration.check_mode("mcpd.toml", mode), "warning", "chmod go-w")


def test_sections_that_nobody_reads_are_found() -> None:
    inventory = Inventory(
        (
            row("task_queue", hooks=("mcpd_settings",)),
            row("dynamic", dynamic=True),
            row("plain"),
            row("off", state="disabled"),
        )
    )
    sections: dict[str, object] = {
        name: {} for name in ("task_queue", "dynamic", "plain", "off", "excutor", "zz")
    }
    origins = {"excutor.queue": "MCPD_EXCUTOR__QUEUE"}
    found = list(configuration.check_sections(sections, origins, inventory))
    levels = [finding.level for finding in found]
    assert levels == ["ok", "ok", "warning", "note", "warning", "warning"]
    says(found[2], "warning", "has no settings")
    says(found[4], "warning", "[excutor] (MCPD_EXCUTOR__QUEUE)", "Did you mean [executor]?")
    says(found[5], "warning", "mcpd config schema")


# --- data directory -------------------------------------------------------------------------------


def status(mode: int, uid: int | None = None) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, os.geteuid() if uid is None else uid, 0, 0, 0, 0, 0))


def test_the_data_directory_must_be_the_users_own(tmp_path: Path) -> None:
    check = storage.check_directory
    says(check(tmp_path, status(stat.S_IFDIR | 0o700), True), "ok", "alone")
    says(check(tmp_path, status(stat.S_IFDIR | 0o755), True), "note", "0755", "chmod 700")
    says(check(tmp_path, status(stat.S_IFDIR | 0o700, 12345), True), "error", "12345")
    says(check(tmp_path, status(stat.S_IFDIR | 0o1777), True), "error", "shared")
    says(check(tmp_path, status(stat.S_IFDIR | 0o500), False), "error", "cannot be written")
    says(check(tmp_path, status(stat.S_IFREG | 0o600), True), "error", "not a directory")
    says(check(tmp_path, None, True), "ok", "made by the first")
    says(check(tmp_path, None, False), "error", "cannot be made")


def test_a_full_disk_is_found() -> None:
    says(storage.check_room(Path("/x"), 0), "error", "0 MiB")
    says(storage.check_room(Path("/x"), 50 << 20), "warning", "50 MiB")
    says(storage.check_room(Path("/x"), 5000 << 20), "ok", "5,000 MiB")


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("ext4", "ok"),
        ("nfs", "error"),
        ("nfs4", "error"),
        ("fuse.sshfs", "error"),
        ("fuse.other", "warning"),
        ("9p", "warning"),
        ("tmpfs", "note"),
        ("", "note"),
    ],
)
def test_a_network_file_system_is_an_error(kind: str, level: str) -> None:
    says(storage.check_file_system(Path("/data"), kind), level, "/data", kind)


def test_the_file_system_is_that_of_the_innermost_mount() -> None:
    mounts = "\n".join(
        [
            "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
            "22 21 0:21 / /home rw - nfs4 server:/home rw",
            "23 22 0:22 / /home/ada\\040b rw master:2 - tmpfs tmpfs rw",
            "24 22 0:23 / /home/ada\\040b rw - xfs /dev/sdb rw",
            "25 21 0:24 / /homework rw - btrfs /dev/sdc rw",
            "a line that is none",
        ]
    )
    for path, kind in {
        "/": "ext4",
        "/var": "ext4",
        "/home": "nfs4",
        "/home/grace": "nfs4",
        "/home/ada b/data": "xfs",
        "/homework/x": "btrfs",
    }.items():
        assert file_systems.kind_at(path, mounts) == kind
    assert file_systems.kind_at("/", "") == ""


def test_a_directory_that_does_not_exist_is_judged_by_the_folder_above(tmp_path: Path) -> None:
    found = list(storage.examine(tmp_path / "a" / "b"))
    says(found[0], "ok", "made by the first")
    assert {finding.check for finding in found} == {"data directory", "room", "file system"}
    assert not (tmp_path / "a").exists()


def test_a_system_without_a_list_of_mounts_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_systems, "MOUNTS", tmp_path / "missing")
    says(list(storage.examine(tmp_path))[-1], "note", "not known")


def test_a_name_that_no_file_system_takes_is_an_error(tmp_path: Path) -> None:
    (found,) = storage.examine(tmp_path / ("x" * 300))
    says(found, "error", "File name too long", "--data-dir")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (found,) = storage.examine(loop)
    says(found, "error", "cannot be a directory")


# --- the daemon's socket --------------------------------------------------------------------------


@contextmanager
def listening(path: Path, *, answers: bool) -> Iterator[None]:
    """Listen as a daemon does, one that shakes hands or one that hangs up."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen()

        def serve() -> None:
            try:
                client, _ = sock.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                request = json.loads(stream.readline())
                if answers:
                    reply = {"jsonrpc": "2.0", "id": request["id"], "result": {}}
                    stream.write(json.dumps(reply).encode() + b"\n")
                    stream.flush()
                    stream.readline()

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


def test_no_socket_is_no_daemon(tmp_path: Path) -> None:
    (_, found), runs = daemon.examine(tmp_path)
    says(found, "ok", "No daemon runs")
    assert not runs


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b'{"pid": "x"}',
        b'{"pid": 0}',
        b'{"pid": 1%s}' % (b"0" * 30),
        b"[" * 100_000,
    ],
    ids=range(6),
)
def test_what_a_directory_says_about_its_owner_is_taken_with_care(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "daemon.json").write_bytes(content)
    says(daemon.examine(tmp_path)[0][-1], "ok", "No daemon runs")


@pytest.mark.parametrize("name", ["daemon.json", "plugins.json"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(at: Path, name: str) -> None:
    data = at / "data"
    data.mkdir(mode=0o700)
    os.mkfifo(data / name)
    done = subprocess.run(
        [sys.executable, "-m", "mcpd_core", "doctor"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == (1 if name == "plugins.json" else 0), done
    assert ("it is not a regular file" in done.stdout) == (name == "plugins.json")
    assert "Traceback" not in done.stderr


def test_choices_that_are_nested_too_deeply_are_an_error_that_names_the_file(at: Path) -> None:
    (at / "plugins.json").write_bytes(b"[" * 100_000)
    found = examination.examine(config=None, wanted=None, directory=at)
    assert any("plugins.json" in f.message and f.level == "error" for f in found)
    assert not any("authors of mcpd" in finding.fix for finding in found)


def test_an_owner_that_does_not_listen_is_named_while_it_lives(tmp_path: Path) -> None:
    description = tmp_path / "daemon.json"
    for pid in (os.getpid(), 1):
        description.write_text(json.dumps({"pid": pid}))
        says(daemon.examine(tmp_path)[0][-1], "warning", f"Process {pid}", f"kill {pid}")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    description.write_text(json.dumps({"pid": ended.pid}))
    says(daemon.examine(tmp_path)[0][-1], "ok", "No daemon runs")


def test_a_stale_socket_is_a_note(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    path.chmod(0o600)
    found, runs = daemon.examine(tmp_path)
    says(found[-1], "note", "left behind", "replaces it")
    assert not runs


def test_a_daemon_that_answers_is_described(tmp_path: Path) -> None:
    description = {"pid": 42, "version": "0.0.1", "plugins": "p2p"}
    (tmp_path / "daemon.json").write_text(json.dumps(description))
    with listening(tmp_path / "mcpd.sock", answers=True):
        (_, found, old), runs = daemon.examine(tmp_path)
    says(found, "ok", "process 42, version 0.0.1", "--plugins p2p")
    says(old, "warning", "version 0.0.1; installed is", "kill 42")
    assert runs


def test_tools_that_block_the_daemon_are_named() -> None:
    blocked = {"offences": 3, "seconds": 2.5, "longest": 1.25, "place": "tools.py:42 in slow"}
    facts = {"kind": "tool", "plugin": "acme"}
    fast = {**facts, "name": "fast", "blocked": None}
    slow = {**facts, "name": "slow", "blocked": blocked}
    (found,) = daemon.check_blocking([fast, slow])
    says(found, "warning", "tool 'slow' of the plugin acme", "3 times", "1.25 s", "tools.py:42")


def test_what_listens_and_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with listening(tmp_path / "mcpd.sock", answers=False):
        found, runs = daemon.examine(tmp_path)
    says(found[-1], "error", "does not answer")
    assert not runs


def test_the_sockets_file_must_be_a_socket_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.sock"
    assert daemon.check_file(path, status(stat.S_IFSOCK | 0o600)) is None
    for mode, uid, level, word in (
        (stat.S_IFREG | 0o600, None, "error", "not a socket"),
        (stat.S_IFSOCK | 0o600, 12345, "error", "another user"),
        (stat.S_IFSOCK | 0o666, None, "warning", "chmod 600"),
    ):
        found = daemon.check_file(path, status(mode, uid))
        assert found is not None
        says(found, level, word)
    path.write_text("")
    found_all, runs = daemon.examine(tmp_path)
    says(found_all[-1], "error", "not a socket")
    assert not runs


def test_an_open_socket_is_a_warning_and_still_tried(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.sock"
    with listening(path, answers=True):
        path.chmod(0o666)
        (_, mode, found), runs = daemon.examine(tmp_path)
    says(mode, "warning", "0666")
    says(found, "ok", "process unknown")
    assert runs


def test_a_long_path_is_a_note_on_linux_and_an_error_elsewhere() -> None:
    long = Path("/" + "x" * 120) / "mcpd.sock"
    says(daemon.check_length(long, "linux"), "note", "131 bytes")
    says(daemon.check_length(long, "darwin"), "error", "103")
    says(daemon.check_length(Path("/x/mcpd.sock"), "darwin"), "ok")


# --- the HTTP port --------------------------------------------------------------------------------


class Page(http.server.BaseHTTPRequestHandler):
    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web(content: bytes) -> Iterator[int]:
    page = type("Given", (Page,), {"content": content})
    with http.server.HTTPServer(("127.0.0.1", 0), page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_port_is_free_ours_or_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    with web(b'{"status": "ok"}') as port:
        assert ports.look("127.0.0.1", port)[0] == "mcpd"
    assert ports.look("127.0.0.1", port) == ("free", "")
    for content in (b"<html>", b"[]", b'{"status": "fine"}'):
        with web(content) as port:
            assert ports.look("127.0.0.1", port)[0] == "other"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen()
        monkeypatch.setattr(ports, "PATIENCE", 0.05)
        assert ports.look("127.0.0.1", silent.getsockname()[1])[0] == "other"
    assert ports.look("192.0.2.1", 8765)[0] == "unknown"
    assert ports.look("no.such.host.invalid", 8765)[0] == "unknown"


@contextmanager
def raw(answer: bytes, *, pause: float = 0.0) -> Iterator[int]:
    """Answer with these bytes: at once, or one at a time for ever."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                if not pause:
                    client.sendall(answer)
                    return
                try:
                    client.sendall(answer)
                    while not over.wait(pause):
                        client.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join(10)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nx-", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_what_answers_a_byte_at_a_time_is_not_heard_out(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(ports, "PATIENCE", 0.3)
    begun = time.monotonic()
    with raw(head, pause=0.05) as port:
        assert ports.look("127.0.0.1", port)[0] == "other"
    assert time.monotonic() - begun < 5


def test_an_answer_that_is_nested_too_deeply_is_another_programs() -> None:
    with raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 4096) as port:
        assert ports.look("127.0.0.1", port)[0] == "other"


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example"])
def test_a_host_that_can_be_no_name_is_an_error_of_the_settings(tmp_path: Path, host: str) -> None:
    (tmp_path / "empty.toml").touch()
    (found,) = ports.examine(load(tmp_path / "empty.toml", http__host=host), running=False)
    says(found, "error", "no address", "Correct [http] host")


def test_a_port_that_only_the_administrator_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert ports.look("127.0.0.1", 80) == ("refused", "Permission denied")


@pytest.mark.parametrize(
    ("use", "running", "level", "word"),
    [
        ("free", False, "ok", "is free"),
        ("free", True, "note", "does without"),
        ("mcpd", True, "ok", "answers"),
        ("mcpd", False, "warning", "another data directory"),
        ("other", False, "error", "--port"),
        ("other", True, "warning", "--port"),
        ("refused", False, "error", "may not"),
        ("unknown", False, "error", "no address"),
    ],
)
def test_what_a_port_means(use: Any, running: bool, level: str, word: str) -> None:
    says(ports.check_port("127.0.0.1", 8765, use, running=running), level, word)
    says(ports.check_port("127.0.0.1", 0, "free", running=False), "ok", "free port")


def test_an_address_that_others_reach_is_refused_unless_it_is_meant() -> None:
    for host, address in (("localhost", "127.0.0.1"), ("::1", "::1"), ("unknown", "")):
        assert not list(ports.check_exposure(host, address, insecure=False))
    (refused,) = ports.check_exposure("0.0.0.0", "0.0.0.0", insecure=False)
    says(refused, "error", "refuses")
    (warned,) = ports.check_exposure("0.0.0.0", "0.0.0.0", insecure=True)
    says(warned, "warning", "Anybody")


def test_the_settings_say_where_http_is(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    (found,) = ports.examine(
        Settings(serve=load(empty, serve__transports=["socket"]).serve), running=False
    )
    says(found, "ok", "not asked for")
    with web(b"") as port:
        (found,) = ports.examine(load(empty, http__port=port), running=False)
    says(found, "error", str(port))
    found, _ = ports.examine(load(empty, http__host="192.0.2.1"), running=False)
    says(found, "error", "refuses")
    (found,) = ports.examine(load(empty, http__host="no.such.host.invalid"), running=False)
    says(found, "error", "no address")


def load(file: Path, **values: Any) -> Settings:
    overrides: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _, key = path.partition("__")
        overrides.setdefault(section, {})[key] = value
    return load_settings(file, env={}, overrides=overrides)


# --- the round ------------------------------------------------------------------------------------


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MCPD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MCPD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MCPD_HTTP__PORT", "0")
    return tmp_path


def test_a_healthy_installation_has_no_errors(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    findings = json.loads(out)
    assert {"check", "level", "message", "fix"} == set(findings[0])
    checks = {finding["check"] for finding in findings}
    assert {"interpreter", "sqlite", "library", "trio", "settings", "plugin", "manifest"} <= checks
    assert {"data directory", "file system", "socket", "daemon", "http"} <= checks
    assert "0 errors" in err
    assert not (at / "data").exists(), "looking must not change anything"
    assert main(["doctor"]) == 0
    assert "ok\tinterpreter\t" in capsys.readouterr().out


def test_a_terminal_gets_paragraphs_with_what_to_do() -> None:
    from mcpd_core.cli.doctor import _paragraph

    finding = Finding("sqlite", "note", "word " * 20, "Do this.\x1b[31m")
    lines = _paragraph(finding, 80).splitlines()
    assert lines[0].startswith("note     sqlite          word word")
    assert lines[1].startswith(" " * 25 + "word")
    assert lines[-1] == " " * 25 + "=> Do this.[31m"
    assert all(len(line) <= 80 for line in lines)


def run_doctor(
    *flags: str, shell: str = "", cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own; `shell` is what comes after the command."""
    command = shlex.join([sys.executable, "-m", "mcpd_core", "doctor", *flags])
    return subprocess.run(
        ["bash", "-c", f"{command} {shell}"],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        encoding="latin-1",
        timeout=60,
    )


def test_a_relative_data_directory_in_a_folder_that_is_gone_is_an_error(at: Path) -> None:
    gone = at / "gone"
    gone.mkdir()
    command = f"rmdir {gone}; exec {sys.executable} -P -m mcpd_core doctor --data-dir data"
    if sys.version_info < (3, 11):
        command = command.replace(" -P", "")
    done = subprocess.run(["bash", "-c", command], cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2, done
    assert "error: The data directory 'data' cannot be found: No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_of_nobody_is_an_error(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data-dir", "~nobody-of-this-name/x"]) == 2
    assert "cannot be found" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [(), ("--json",), ("--help",)])
@pytest.mark.parametrize("shell", [">/dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_an_error(
    at: Path, flags: tuple[str, ...], shell: str
) -> None:
    if shell == ">/dev/full" and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    done = run_doctor(*flags, shell=shell)
    assert done.returncode == 1, done
    assert "error: The output cannot be written: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_without_any_output_there_is_still_a_status(at: Path) -> None:
    assert run_doctor(shell=">&- 2>&-").returncode == 1
    assert run_doctor("--no-such-flag", shell=">&- 2>&-").returncode == 2


def test_characters_that_the_output_lacks_are_escaped(at: Path) -> None:
    for flags in ((), ("--json",)):
        done = run_doctor("--data-dir", str(at / "数据"), *flags, PYTHONIOENCODING="latin-1")
        assert done.returncode == 0, done
        assert "\\u6570\\u636e" in done.stdout


def test_errors_make_the_status_1(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "mcpd.toml").write_text("[executor]\nqeue = 1\n")
    assert main(["doctor", "--json"]) == 1
    out, err = capsys.readouterr()
    (wrong,) = (finding for finding in json.loads(out) if finding["level"] == "error")
    assert wrong["check"] == "settings"
    assert "Did you mean 'queue'?" in wrong["fix"]
    assert "1 error," in err


def test_a_plugin_that_was_asked_for_and_is_missing_is_an_error(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json", "--plugins", "task_queu"]) == 1
    found = json.loads(capsys.readouterr().out)
    (wrong,) = (finding for finding in found if finding["level"] == "error")
    assert "Nothing can be served" in wrong["message"]
    assert "task_queue" in wrong["fix"]
    # The rest is examined all the same.
    assert any("hello" in finding["message"] for finding in found if finding["check"] == "plugin")


def test_choices_made_by_hand_count_and_must_be_legible(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugins", "disable", "hello"]) == 0
    capsys.readouterr()
    assert main(["doctor", "--json"]) == 0
    messages = [finding["message"] for finding in json.loads(capsys.readouterr().out)]
    assert any(m.startswith("hello (") and m.endswith("is disabled, 3 tools.") for m in messages)
    (at / "data" / "plugins.json").write_text("{")
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (wrong,) = (finding for finding in found if finding["level"] == "error")
    assert wrong["fix"] == "Remove the file to forget every choice."


def test_a_settings_file_is_examined_with_its_sections(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (at / "mcpd.toml").write_text("[task-queue]\n[weather]\nunit = 'C'\n")
    (at / "mcpd.toml").chmod(0o600)
    assert main(["doctor", "--json"]) == 0
    found = [f for f in json.loads(capsys.readouterr().out) if f["check"] == "settings"]
    assert [finding["level"] for finding in found] == ["ok", "ok", "warning"]


def test_a_check_that_fails_itself_does_not_end_the_round(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(interpreter, "examine", fail)
    found = examination.examine(config=None, wanted=None, directory=at)
    says(found[0], "error", "could not be examined (ZeroDivisionError: oops)")
    assert len(found) > 10


def test_of_plugins_only_those_with_checks_are_imported_and_the_sdk_is_not(at: Path) -> None:
    probe = (
        "import sys; from mcpd_core.cli import main; main(['doctor']);"
        "print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))
    assert not imported & {"mcp", "uvicorn", "mcpd_hello_plugin"}
