"""Plugins are enabled and disabled from the command line, on the running daemon and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MCPD = [sys.executable, "-m", "mcpd_core"]
#: Seconds; far more than anything here takes.
LONG = 40

Run = Callable[..., "subprocess.CompletedProcess[str]"]


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


@pytest.fixture
def serve(env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Starts a daemon and waits until it listens; every one is stopped in the end."""
    processes: list[subprocess.Popen[str]] = []

    def stop() -> None:
        for process in processes:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=LONG)
        processes.clear()

    def serve(*args: str) -> None:
        stop()
        process = subprocess.Popen(
            [*MCPD, "serve", *args],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            cwd=tmp_path,
        )
        processes.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if "listening on unix:" in line:
                return
        raise AssertionError("the daemon has not started")

    yield serve
    stop()


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def states(run: Run) -> dict[str, str]:
    return {row["name"]: row["state"] for row in answer(run("plugins", "list", "--json"))}


def test_a_daemon_drops_and_regains_tools(run: Run, serve: Callable[..., None]) -> None:
    serve()
    call = ("tools", "call", "hello_greet", "name=Ada")
    assert run(*call).returncode == 0
    done = answer(run("plugins", "disable", "hello", "--json"))
    assert (done["daemon"], done["changed"], done["enabled"]) == (True, True, False)
    refused = run(*call)
    assert refused.returncode == 2
    assert "its plugin 'hello' is disabled" in refused.stderr
    assert "mcpd plugins enable hello" in refused.stderr
    assert states(run)["hello"] == "disabled"
    assert "disabled by hand" in run("plugins", "list").stdout
    # The next daemon follows as well.
    serve()
    assert run(*call).returncode == 2
    shown = run("plugins", "enable", "hello")
    assert shown.stdout == "enabled on the running daemon: hello (mcpd-hello-plugin)\n"
    assert run(*call).returncode == 0


def test_without_a_daemon_the_choice_is_kept_for_the_next(
    run: Run, serve: Callable[..., None]
) -> None:
    shown = run("plugins", "disable", "hello")
    assert shown.stdout == "disabled for the next daemon: hello (mcpd-hello-plugin)\n"
    assert "it was disabled before" in run("plugins", "disable", "hello").stderr
    assert "hello_greet\t" not in run("tools", "list").stdout
    serve()
    assert run("tools", "call", "hello_greet", "name=Ada").returncode == 2


def test_a_choice_counts_more_than_the_deny_list(
    run: Run, env: dict[str, str], serve: Callable[..., None]
) -> None:
    env["MCPD_PLUGINS__DENY"] = "hello"
    assert states(run)["hello"] == "disabled"
    serve()
    run("plugins", "enable", "hello")
    assert run("tools", "call", "hello_greet", "name=Ada").returncode == 0
    assert states(run)["hello"] == "enabled"


def test_a_wrong_name_is_answered_with_the_closest(run: Run, serve: Callable[..., None]) -> None:
    for _ in range(2):
        done = run("plugins", "enable", "helo")
        assert (done.returncode, done.stdout) == (2, "")
        assert "No plugin 'helo' is installed." in done.stderr
        assert "Did you mean 'hello'" in done.stderr
        serve()


def test_plugins_named_at_the_start_count_more_at_the_next_start(
    run: Run, serve: Callable[..., None]
) -> None:
    serve("--plugins", "hello")
    assert "started with plugins named" in run("plugins", "disable", "hello").stderr
    assert run("tools", "call", "hello_greet", "name=Ada").returncode == 2
    serve("--plugins", "hello")
    assert run("tools", "call", "hello_greet", "name=Ada").returncode == 0


def test_queued_tasks_of_a_disabled_tool_wait_and_say_why(
    run: Run, serve: Callable[..., None]
) -> None:
    serve()
    # So that the task does not run before its plugin is disabled.
    assert run("tools", "call", "pause_queue").returncode == 0
    arguments = json.dumps({"tool": "hello_greet", "arguments": {"name": "Ada"}})
    task = answer(run("tools", "call", "submit_task", "--args", arguments, "--json"))
    run("plugins", "disable", "hello")
    assert run("tools", "call", "resume_queue").returncode == 0

    def status() -> dict[str, Any]:
        show = ("tools", "call", "get_task_status", f"task_id={task['task_id']}", "--json")
        found: dict[str, Any] = answer(run(*show))
        return found

    until = time.monotonic() + LONG
    while "its plugin 'hello' is disabled" not in json.dumps(waiting := status()):
        assert time.monotonic() < until, waiting
        time.sleep(0.05)
    assert waiting["attempts"] == 0
    run("plugins", "enable", "hello")
    while (now := status())["state"] != "succeeded":
        assert time.monotonic() < until, now
        time.sleep(0.05)
