"""A client of the previous generation, the SDK 1.30 from an environment of its own, is served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MCPD = [sys.executable, "-m", "mcpd_core"]
PLUGINS = ("--plugins", "hello,task_queue")
OLD_PYTHON = Path(f"{sys.prefix}-mcp1") / "bin" / "python"
#: Seconds; far more than anything here takes.
LONG = 40


class OldClient:
    """A client process and the server that it started.

    :param command: the server.
    """

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        assert OLD_PYTHON.exists(), f"{OLD_PYTHON} is missing: run `make setup`"
        script = Path(__file__).with_name("old_sdk_client.py")
        self.process = subprocess.Popen(
            [str(OLD_PYTHON), str(script), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=cwd,
        )
        self.met = self._hear()

    def tools(self) -> list[str]:
        names: list[str] = self._ask(None)
        return names

    def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool that succeeds; return its structured content."""
        answer = self._ask([tool, arguments])
        assert not answer["error"], answer["text"]
        structured: dict[str, Any] = answer["structured"]
        return structured

    def refusal(self, tool: str, /, **arguments: Any) -> str:
        """Call a tool that fails; return what it says about it."""
        answer = self._ask([tool, arguments])
        assert answer["error"], answer
        text: str = answer["text"]
        return text

    def text(self, tool: str, /, **arguments: Any) -> str:
        """Call a tool that succeeds; return its text."""
        answer = self._ask([tool, arguments])
        assert not answer["error"], answer["text"]
        text: str = answer["text"]
        return text

    def leave(self) -> None:
        """End the session; the client closes its server's input."""
        self.process.communicate(timeout=LONG)
        assert self.process.returncode == 0

    def _ask(self, request: object) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        # No deadline of its own: the test's time limit kills the processes.
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the client ended with status {self.process.wait(LONG)}"
        return json.loads(line)


Connect = Callable[..., OldClient]
StartDaemon = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing is set, with a data directory of its own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MCPD_")}
    return env | {
        "MCPD_DATA_DIR": str(tmp_path / "data"),
        "MCPD_HTTP__PORT": "0",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


@pytest.fixture
def connect(env: dict[str, str], tmp_path: Path) -> Iterator[Connect]:
    """Starts an old client of ``mcpd`` with some arguments."""
    clients: list[OldClient] = []

    def connect(*args: str) -> OldClient:
        clients.append(OldClient([*MCPD, *args], env, tmp_path))
        return clients[-1]

    yield connect
    for client in clients:
        _end(client.process)


@pytest.fixture
def start_daemon(env: dict[str, str], tmp_path: Path) -> Iterator[StartDaemon]:
    """Starts a daemon and waits until it listens."""
    daemons: list[subprocess.Popen[str]] = []

    def start_daemon() -> subprocess.Popen[str]:
        daemon = subprocess.Popen(
            [*MCPD, "serve", *PLUGINS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd=tmp_path,
        )
        daemons.append(daemon)
        assert daemon.stdout is not None
        said = []
        for line in daemon.stdout:
            said.append(line)
            if "listening on" in line:
                return daemon
        raise AssertionError(f"the daemon ended: {said}")

    yield start_daemon
    for daemon in daemons:
        _end(daemon)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.closed:
        return  # it was waited for
    process.terminate()
    try:
        process.communicate(timeout=LONG)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def is_the_old_sdk(client: OldClient) -> bool:
    """Whether the client is of the release in question and speaks a handshake revision."""
    sdk, protocol = client.met["sdk"], client.met["protocol"]
    return client.met["server"] == "mcpd" and sdk.startswith("1.30.") and protocol < "2026"


def test_an_old_client_works_with_a_standalone_server(connect: Connect) -> None:
    client = connect("serve", "--transport", "stdio", "--standalone", *PLUGINS)
    assert is_the_old_sdk(client)
    assert {"hello_greet", "submit_task", "get_task_result"} <= set(client.tools())
    assert client.text("hello_greet", name="Ada") == "Hello, Ada!"
    assert "name" in client.refusal("hello_greet")

    submitted = client.call("submit_task", tool="hello_greet", arguments={"name": "Grace"})
    result = client.call("get_task_result", task_id=submitted["task_id"], wait=20)
    assert (result["state"], result["ready"]) == ("succeeded", True)
    assert result["text"] == "Hello, Grace!"
    client.leave()


def test_an_old_client_attaches_and_finds_its_tasks_after_the_daemon_was_killed(
    connect: Connect, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon()
    client = connect("attach")
    assert is_the_old_sdk(client)
    assert {"hello_greet", "submit_task", "get_task_result"} <= set(client.tools())
    assert client.text("hello_greet", name="Ada") == "Hello, Ada!"
    done = client.call("submit_task", tool="hello_greet", arguments={"name": "Grace"})["task_id"]
    assert client.call("get_task_result", task_id=done, wait=20)["state"] == "succeeded"
    later = client.call("submit_task", tool="hello_greet", arguments={"name": "Alan"}, delay=3600)
    other = client.call("submit_task", tool="hello_wait", arguments={"seconds": 3000})["task_id"]
    assert client.call("cancel_task", task_id=other)["task_id"] == other
    assert client.call("get_task_result", task_id=other, wait=20)["state"] == "cancelled"

    daemon.kill()
    daemon.wait(LONG)
    restarted = start_daemon()
    assert restarted.pid != daemon.pid

    client = connect("attach")
    listed = {task["task_id"]: task["state"] for task in client.call("list_tasks")["tasks"]}
    assert listed == {done: "succeeded", later["task_id"]: "scheduled", other: "cancelled"}
    assert client.call("get_task_result", task_id=done)["text"] == "Hello, Grace!"
    client.leave()
