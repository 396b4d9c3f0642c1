"""``mcpd tasks`` on a real daemon, as a person at a terminal and a script have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpd_core.testing.planting import Garden

MCPD = [sys.executable, "-m", "mcpd_core"]
#: Seconds; far more than anything here takes.
LONG = 40

TOOLS = """
from __future__ import annotations
from pathlib import Path
import anyio
from mcpd_core import Context, ToolError, tool

@tool(read_only=True)
async def greet(name: str) -> str:
    "Greet somebody."
    return f"Hello, {name}!"

@tool(read_only=True)
async def fails() -> str:
    "Fail for good."
    raise ToolError("The disk \\x1b[31mis full.", hint="Empty it.", retryable=False)

@tool(read_only=True)
async def follows(folder: str, ctx: Context) -> str:
    "Do a step for each file that appears: 1, 2 and then end."
    for step in ("1", "2", "end"):
        while not (Path(folder) / step).exists():
            await anyio.sleep(0.01)
        ctx.progress(float(step if step != "end" else 3), 3, f"step {step}")
    return "followed"
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Submit = Callable[..., str]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with a plugin, and a data directory of its own."""
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        garden = Garden(folder / "plugins", patch)
        plugin = garden.plant(TOOLS)
        env = {key: value for key, value in os.environ.items() if not key.startswith("MCPD_")}
        yield env | {
            "MCPD_DATA_DIR": str(folder / "data"),
            "MCPD_HTTP__PORT": "0",
            "MCPD_SERVE__PLUGINS": '["task_queue", "planted"]',
            "PYTHONPATH": str(plugin.path),
            "XDG_CONFIG_HOME": str(folder),
            "TERM": "xterm",
            "TZ": "UTC",
        }
        garden.clear()


def serve(env: dict[str, str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*MCPD, "serve", "--transport", "socket"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on unix:" in line:
            break
    return process


def stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    process.communicate(timeout=LONG)


@pytest.fixture(scope="module")
def daemon(env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = serve(env)
    yield process
    stop(process)


def mcpd(env: dict[str, str], *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MCPD, *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
        env=env,
    )


@pytest.fixture
def run(env: dict[str, str], daemon: subprocess.Popen[str]) -> Run:
    """Runs a ``mcpd tasks`` command to its end."""
    return lambda *args, **options: mcpd(env, "tasks", *args, **options)


@pytest.fixture
def submit(env: dict[str, str], daemon: subprocess.Popen[str]) -> Submit:
    """Submits a task and returns its id; with ``ended`` once it has ended."""

    def submit(tool: str, *, ended: bool = False, **facts: Any) -> str:
        arguments = {"tool": tool, **facts}
        whole = json.dumps(arguments)
        done = mcpd(env, "tools", "call", "submit_task", "--args", whole, "--json")
        assert done.returncode == 0, done.stderr
        task_id: str = json.loads(done.stdout)["task_id"]
        if ended:
            wait = ("get_task_result", f"task_id={task_id}", "wait=30", "--json")
            assert json.loads(mcpd(env, "tools", "call", *wait).stdout)["ready"]
        return task_id

    return submit


def listed(run: Run, *args: str) -> list[dict[str, Any]]:
    done = run("list", "--json", *args)
    assert done.returncode == 0, done.stderr
    tasks: list[dict[str, Any]] = json.loads(done.stdout)
    return tasks


# --- list -----------------------------------------------------------------------------------------


def test_tasks_are_listed_by_every_filter(run: Run, submit: Submit) -> None:
    later = submit("greet", arguments={"name": "Ada"}, queue="lists", delay=3600, tags=["slow"])
    failed = submit("fails", queue="lists", ended=True)
    assert [t["task_id"] for t in listed(run, "--queue", "lists")] == [failed, later]
    for option, value, task in (
        ("--state", "scheduled", later),
        ("--state", "failed", failed),
        ("--tool", "fails", failed),
        ("--tag", "slow", later),
    ):
        found = listed(run, "--queue", "lists", option, value)
        assert [t["task_id"] for t in found] == [task], (option, value)
    assert listed(run, "--queue", "lists", "--recurring") == []
    assert len(listed(run, "--queue", "lists", "--no-recurring")) == 2
    assert listed(run, "--queue", "lists", "--schedule", later) == []
    assert run("list", "--state", "lost").returncode == 2


def test_a_pipe_gets_whole_ids_and_no_ornaments(run: Run, submit: Submit) -> None:
    task = submit("fails", queue="pipes", ended=True)
    done = run("list", "--queue", "pipes")
    row = done.stdout.rstrip("\n").split("\t")
    assert row[:5] == [task, "failed", "fails", "pipes", "1/3"]
    assert row[6] == "The disk [31mis full."
    assert "\x1b" not in done.stdout


def test_what_is_left_out_is_said(run: Run, submit: Submit) -> None:
    for _ in range(3):
        submit("greet", arguments={"name": "Ada"}, queue="many", delay=3600)
    done = run("list", "--queue", "many", "--limit", "2")
    assert len(done.stdout.splitlines()) == 2
    assert "the newest 2 are shown; --limit N or --all shows more." in done.stderr
    done = run("list", "--queue", "many", "--all")
    assert len(done.stdout.splitlines()) == 3
    assert not done.stderr
    assert run("list", "--queue", "none-such").stderr == "No task fits.\n"


# --- show -----------------------------------------------------------------------------------------


def test_everything_about_a_task_is_shown(run: Run, submit: Submit) -> None:
    task = submit("greet", arguments={"name": "Ada"}, queue="shows", tags=["a", "b"], ended=True)
    done = run("show", task[:8])
    assert done.returncode == 0, done.stderr
    facts = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line[:12])
    assert facts["task"].strip() == task
    assert facts["state"].strip() == "succeeded"
    assert facts["queue"].strip() == "shows, priority 0"
    assert facts["tags"].strip() == "a, b"
    assert facts["attempts"].strip() == "1 of 3"
    assert facts["result"].strip() == "Hello, Ada!"
    steps = [line.split("\t")[1:3] for line in done.stdout.splitlines() if "\t" in line]
    assert steps == [["submitted", "ready"], ["started", "running"], ["succeeded"] * 2]


def test_why_a_task_waits_and_how_it_failed_is_shown(run: Run, submit: Submit) -> None:
    waits = submit("greet", arguments={"name": "Ada"}, delay=3600)
    assert "scheduled: due in 3" in run("show", waits).stdout
    failed = run("show", submit("fails", ended=True)).stdout
    assert "error:     The disk [31mis full." in failed
    assert "Empty it." in failed
    assert "\x1b" not in failed


def test_a_beginning_that_is_not_one_task_is_told(
    run: Run, env: dict[str, str], daemon: subprocess.Popen[str]
) -> None:
    tasks = json.dumps([{"tool": "greet", "arguments": {"name": "Ada"}, "delay": 3600}] * 17)
    done = mcpd(env, "tools", "call", "submit_tasks", f"tasks={tasks}", "--json")
    ids = [item["task_id"] for item in json.loads(done.stdout)["tasks"]]
    # Of seventeen ids two begin with the same digit.
    first = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    done = run("show", first)
    assert done.returncode == 2
    assert f"Several tasks have ids that begin with '{first}'" in done.stderr
    done = run("show", "0" * 31)
    assert done.returncode == 1
    assert "There is no task whose id begins with '000" in done.stderr
    done = run("show", "no-such-task")
    assert done.returncode == 1
    assert "There is no task 'no-such-task'." in done.stderr


# --- without a daemon -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("list",), ("show", "abc")])
def test_without_a_daemon_it_says_how_to_start_one(
    env: dict[str, str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = mcpd(env, "tasks", *command, "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert f"No daemon listens on {tmp_path}/mcpd.sock." in done.stderr
    assert "`mcpd serve`" in done.stderr


def test_the_commands_import_neither_the_store_nor_a_server(env: dict[str, str]) -> None:
    probe = """
import json, sys
from mcpd_core.cli import main
main(["tasks", "list", "--data-dir", "/nonexistent"])
print(json.dumps(sorted(sys.modules)))
"""
    # What measures coverage imports some of these.
    env = {key: value for key, value in env.items() if not key.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=env
    )
    modules = set(json.loads(done.stdout))
    assert "mcpd_task_queue.cli" in modules
    heavy = {"anyio", "asyncio", "mcp", "pluggy", "pydantic", "rich", "sqlite3", "trio"}
    assert not modules & {*heavy, "mcpd_task_queue.service", "mcpd_task_queue.models"}
