"""The data directory and its one owner."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mcpd_core import attach
from mcpd_core.errors import DaemonError, DirectoryOwned
from mcpd_core.server.directory import DataDirectory

ANOTHER = """
import sys
from pathlib import Path
from mcpd_core.server.directory import DataDirectory
directory = DataDirectory(Path(sys.argv[1]))
directory.claim()
directory.bind()
print("claimed", flush=True)
sys.stdin.read()
"""


def test_a_directory_has_one_owner_who_is_named_to_the_next(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", ANOTHER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        assert owner.stdout.readline() == "claimed\n"
        with pytest.raises(DirectoryOwned) as refused:
            DataDirectory(tmp_path).claim()
        assert refused.value.data == {"pid": owner.pid}
        assert str(owner.pid) in str(refused.value)
        # Killed, it leaves lock file and socket behind, and neither is in the way.
        owner.kill()
        owner.wait()
        assert (tmp_path / "mcpd.sock").exists()
        directory = DataDirectory(tmp_path)
        directory.claim(wait=10)
        sock = directory.bind()
        attach.connect(str(tmp_path)).close()
        sock.close()
        directory.release()


def test_a_claim_can_wait_for_an_owner_that_is_about_to_leave(tmp_path: Path) -> None:
    owner, successor = DataDirectory(tmp_path), DataDirectory(tmp_path)
    owner.claim()
    with pytest.raises(DirectoryOwned):
        successor.claim(wait=0.06)
    leaving = threading.Timer(0.1, owner.release)
    leaving.start()
    successor.claim(wait=10)
    leaving.join()
    successor.release()


def test_a_lock_without_a_readable_owner_is_a_lock_all_the_same(tmp_path: Path) -> None:
    owner = DataDirectory(tmp_path)
    owner.claim()
    (tmp_path / "daemon.lock").write_text("")
    with pytest.raises(DirectoryOwned, match="another process") as refused:
        DataDirectory(tmp_path).claim()
    assert refused.value.data == {}
    owner.release()


def test_only_its_owner_can_look_into_the_directory_or_connect(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    directory = DataDirectory(path)
    directory.claim()
    with directory.bind():
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((path / "mcpd.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE((path / "daemon.lock").stat().st_mode) == 0o600
    directory.release()


def test_other_users_access_is_taken_away(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    directory = DataDirectory(tmp_path)
    directory.claim()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    directory.release()


def test_a_directory_that_everybody_writes_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(DaemonError, match="shared with other users"):
        DataDirectory(tmp_path).claim()


def test_a_file_in_its_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(DaemonError, match=str(path)):
        DataDirectory(path).claim()


def test_a_lock_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "daemon.lock").mkdir()
    with pytest.raises(DaemonError, match="cannot be used"):
        DataDirectory(tmp_path).claim()


def test_a_file_system_without_locks_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("mcpd_core.server.directory.fcntl.flock", flock)
    with pytest.raises(DaemonError, match="Operation not supported"):
        DataDirectory(tmp_path).claim()


def test_a_path_that_is_too_long_for_the_kernel_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30) / ("longer" * 20)
    directory = DataDirectory(path)
    directory.claim()
    if sys.platform != "linux":
        with pytest.raises(DaemonError, match="has more than"):
            directory.bind()
        return
    with directory.bind() as listening:
        client = attach.connect(str(path))
        accepted, _ = listening.accept()
        accepted.sendall(b"hello")
        assert client.recv(5) == b"hello"
        accepted.close()
        client.close()
    directory.release()
    assert not (path / "mcpd.sock").exists()


def test_elsewhere_a_path_that_is_too_long_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = DataDirectory(tmp_path / ("long" * 30))
    directory.claim()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(DaemonError, match="has more than"):
        directory.bind()
    directory.release()


def test_the_owner_describes_itself_and_cleans_up(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.claim()
    directory.describe(plugins="a,b", argv=["mcpd", "serve"])
    description = json.loads((tmp_path / "daemon.json").read_text())
    assert description["pid"] == os.getpid()
    assert description["argv"] == ["mcpd", "serve"]
    assert description["plugins"] == "a,b"
    assert (tmp_path / "daemon.plugins").read_text() == "a,b\n"
    directory.bind().close()
    directory.release()
    directory.release()
    assert [path.name for path in tmp_path.iterdir()] == ["daemon.lock"]
