"""``mcpd tasks`` on a real daemon, as a person at a terminal and a script have it."""

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

@tool(read_only=True)
async def gives_up() -> str:
    "Fail, perhaps not the next time."
    raise ToolError("Nobody answers.")

@tool(read_only=True)
async def long_story() -> str:
    "Fail at length."
    raise ToolError("It all began when " + "one thing led to another, " * 20, retryable=False)

@tool
async def hangs() -> str:
    "Never end."
    await anyio.sleep(3600)
    return "never"
"""

#: What a terminal is told besides text.
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ALTERNATE, PRIMARY = "\x1b[?1049h", "\x1b[?1049l"
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Submit = Callable[..., str]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with a plugin, and a data directory of its own."""
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        garden = Garden(folder / "plugins", patch)
        plugin = garden.plant(TOOLS)
        # A terminal has a size of its own, which these would belie.
        env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("MCPD_") and key not in ("COLUMNS", "LINES")
        }
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


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command; what still runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(env: dict[str, str], *args: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*MCPD, *args], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=env
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], text: str) -> str:
    """Read lines up to the first one with a text in it."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was never said")


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


# --- changing -------------------------------------------------------------------------------------


def test_tasks_are_cancelled_and_what_is_too_late_is_said(run: Run, submit: Submit) -> None:
    waiting = submit("greet", arguments={"name": "Ada"}, delay=3600)
    ended = submit("greet", arguments={"name": "Ada"}, ended=True)
    done = run("cancel", waiting[:12])
    assert (done.returncode, done.stdout) == (0, f"{waiting}\tcancelled\n")
    done = run("cancel", ended, "no-such", waiting)
    assert done.returncode == 1
    assert f"{ended[:10]}: too late, it is succeeded." in done.stderr
    assert "There is no task 'no-such'." in done.stderr
    assert run("cancel").returncode == 2
    assert json.loads(run("cancel", waiting, "--json").stdout)[0]["outcome"] == "settled"


def test_tasks_are_tried_anew(run: Run, submit: Submit) -> None:
    task = submit("fails", ended=True)
    done = run("retry", task)
    assert (done.returncode, done.stdout) == (0, f"{task}\tready\n")
    assert run("watch", task).returncode == 1
    assert run("show", task).stdout.count("\tstarted\t") == 2
    waits = submit("greet", arguments={"name": "Ada"}, delay=3600)
    done = run("retry", waits)
    assert done.returncode == 1
    assert "cannot be tried anew" in done.stderr
    for wrong in ((), ("--dead", task), (task, "--queue", "x")):
        assert run("retry", *wrong).returncode == 2


def test_dead_tasks_are_listed_with_their_errors_and_tried_anew_after_asking(
    run: Run, submit: Submit
) -> None:
    ids = [submit("gives_up", queue="morgue", max_attempts=1, ended=True) for _ in range(2)]
    done = run("dead", "--queue", "morgue")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == list(reversed(ids))
    assert rows[0][5] == "Nobody answers."
    assert "--retry-all" in done.stderr
    assert run("dead", "--queue", "none-such").stderr == "No task is dead.\n"
    # Nobody can be asked here.
    done = run("dead", "--queue", "morgue", "--retry-all")
    assert done.returncode == 2
    assert "2 tasks are dead. Try anew? Nobody can be asked here: say --yes." in done.stderr
    assert len(listed(run, "--queue", "morgue", "--state", "dead")) == 2
    assert run("retry", "--dead", "--queue", "morgue", "--tool", "greet").returncode == 0
    done = run("retry", "--dead", "--queue", "morgue", "--yes")
    assert done.returncode == 0
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == set(ids)


def test_an_uncertain_task_is_resolved(run: Run, submit: Submit) -> None:
    task = submit("hangs", timeout=0.05, ended=True)
    assert run("show", task[:8], "--json").stdout.count('"uncertain"')
    assert run("retry", task).returncode == 2
    done = run("resolve", task[:8], "succeeded", "--note", "it is there")
    assert (done.returncode, done.stdout) == (0, f"{task}\tsucceeded\n")
    assert "it is there" in run("show", task).stdout
    done = run("resolve", task, "failed")
    assert done.returncode == 1
    assert "Only uncertain tasks can." in done.stderr


# --- taking elsewhere -----------------------------------------------------------------------------


def test_tasks_are_exported_as_lines_of_json(run: Run, submit: Submit, tmp_path: Path) -> None:
    ids = [submit("greet", arguments={"name": n}, queue="out", ended=True) for n in ("a", "b")]
    done = run("export", "--queue", "out")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["task_id"] for line in lines] == ids
    assert lines[0]["arguments"] == {"name": "a"}
    assert done.stderr == "2 tasks exported.\n"
    file = tmp_path / "tasks.jsonl"
    assert run("export", str(file), "--queue", "out", "--state", "succeeded").returncode == 0
    assert file.read_text() == done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    done = run("export", str(file))
    assert done.returncode == 2
    assert "is there already; --force replaces it." in done.stderr
    assert run("export", str(file), "--queue", "none-such", "--force").returncode == 0
    assert file.read_text() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.jsonl"]
    assert run("export", str(tmp_path / "no" / "where")).returncode == 1


def test_the_queue_is_backed_up_into_a_new_folder(run: Run, submit: Submit, tmp_path: Path) -> None:
    submit("greet", arguments={"name": "Ada"}, delay=3600)
    folder = tmp_path / "copy"
    done = run("backup", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{folder}\t")
    assert (folder / "tasks.db").stat().st_size > 0
    done = run("backup", str(folder))
    assert done.returncode != 0
    assert "error: " in done.stderr


# --- watch ----------------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_at_each_change_until_the_task_ends(
    env: dict[str, str], submit: Submit, start: Start, tmp_path: Path
) -> None:
    task = submit("follows", arguments={"folder": str(tmp_path)})
    watching = start(env, "tasks", "watch", task[:10])
    assert watching.stdout is not None
    for step in ("1", "2"):
        (tmp_path / step).touch()
        until(watching, f"{step}/3 step {step}")
    (tmp_path / "end").touch()
    until(watching, "succeeded\tattempt 1")
    assert watching.stdout.read() == ""
    assert watching.wait(LONG) == 0


def test_the_status_says_how_the_task_ended(run: Run, submit: Submit) -> None:
    assert run("watch", submit("greet", arguments={"name": "a"}, ended=True)).returncode == 0
    done = run("watch", submit("fails", ended=True), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["state"] == "failed"
    done = run("watch", "0" * 32)
    assert done.returncode == 2
    assert "There is no task" in done.stderr
    assert run("watch", "").returncode == 2


def test_without_a_task_each_change_of_any_is_a_line(
    env: dict[str, str], submit: Submit, start: Start
) -> None:
    before = submit("greet", arguments={"name": "a"}, delay=3600)
    watching = start(env, "tasks", "watch")
    until(watching, before)
    task = submit("greet", arguments={"name": "Ada"})
    line = until(watching, f"{task}\tgreet\tsucceeded")
    assert line.endswith("attempt 1\n")
    watching.send_signal(signal.SIGINT)
    assert watching.wait(LONG) == 0
    assert watching.stderr is not None
    assert watching.stderr.read() == ""


def test_a_watched_task_of_a_daemon_that_dies_is_left_to_the_next_one(
    env: dict[str, str], start: Start, tmp_path: Path
) -> None:
    env = {**env, "MCPD_DATA_DIR": str(tmp_path / "second")}
    process = serve(env)
    try:
        arguments = json.dumps({"tool": "greet", "arguments": {"name": "a"}, "delay": 3600})
        done = mcpd(env, "tools", "call", "submit_task", "--args", arguments, "--json")
        task = json.loads(done.stdout)["task_id"]
        watching = [start(env, "tasks", "watch", task), start(env, "tasks", "watch")]
        for each in watching:
            until(each, "scheduled")
        process.kill()
        told = [each.communicate(timeout=LONG)[1] for each in watching]
        assert [each.returncode for each in watching] == [2, 1]
        assert all("The daemon has ended, or does not answer any more." in text for text in told)
    finally:
        process.kill()
        process.communicate()
    # The next one in the same directory has the task.
    process = serve(env)
    try:
        watch = start(env, "tasks", "watch", task[:9])
        until(watch, "scheduled")
        assert mcpd(env, "tasks", "cancel", task).returncode == 0
        until(watch, "cancelled")
        assert watch.wait(LONG) == 1
    finally:
        stop(process)


class Terminal:
    """A terminal in which ``mcpd tasks`` runs."""

    def __init__(self, env: dict[str, str], columns: int, *args: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [*MCPD, "tasks", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            # So that Ctrl-C, typed into the terminal, becomes a signal.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.output = ""

    def read_until(self, text: str) -> None:
        deadline = time.monotonic() + LONG
        while text not in ESCAPE.sub("", self.output):
            assert time.monotonic() < deadline, self.output
            self._read(0.1)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def finish(self) -> int:
        """Wait for the end of the program; returns its status."""
        while self._read(LONG):
            pass
        return self.process.wait(LONG)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def _read(self, timeout: float) -> bool:
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # how Linux says that nobody holds the other end any more
            return False
        self.output += data.decode()
        return bool(data)


@pytest.fixture
def terminal(env: dict[str, str], daemon: subprocess.Popen[str]) -> Iterator[Callable[..., Any]]:
    opened: list[Terminal] = []

    def open_(*args: str, columns: int = 100) -> Terminal:
        opened.append(Terminal(env, columns, *args))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def test_a_terminal_shows_a_task_until_it_ends(
    terminal: Callable[..., Terminal], submit: Submit, tmp_path: Path
) -> None:
    task = submit("follows", arguments={"folder": str(tmp_path)})
    shown = terminal("watch", task[:8])
    shown.read_until(f"{task[:10]}  follows  running")
    (tmp_path / "1").touch()
    shown.read_until("1/3 step 1")
    (tmp_path / "2").touch()
    (tmp_path / "end").touch()
    shown.read_until(f"{task[:10]}  follows  succeeded")
    assert shown.finish() == 0
    assert shown.output.rindex(SHOWN) > shown.output.rindex(HIDDEN)


def test_leaving_a_task_leaves_it_alone(
    terminal: Callable[..., Terminal], run: Run, submit: Submit, tmp_path: Path
) -> None:
    task = submit("follows", arguments={"folder": str(tmp_path)})
    shown = terminal("watch", task)
    shown.read_until("running")
    shown.type("\x03")
    assert shown.finish() == 130
    assert shown.output.rindex(SHOWN) > shown.output.rindex(HIDDEN)
    assert "Traceback" not in shown.output
    assert json.loads(run("show", task, "--json").stdout)["state"] == "running"
    assert run("cancel", task).returncode == 0


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_table_follows_all_tasks_until_ctrl_c(
    terminal: Callable[..., Terminal], submit: Submit, columns: int
) -> None:
    shown = terminal("watch", columns=columns)
    shown.read_until("workers busy")
    submit("fails", queue=f"columns-{columns}")
    shown.read_until("The d" if columns == 40 else "The disk [31mis full.")
    shown.type("\x03")
    assert shown.finish() == 0
    assert shown.output.rindex(PRIMARY) > shown.output.rindex(ALTERNATE)
    # No line is longer than the terminal is wide, else it would be drawn in shambles.
    # The key is echoed wherever it is typed.
    drawn = shown.output.replace("^C", "").replace("\x1b[H", "\n").replace("\r", "")
    lines = ESCAPE.sub("", drawn).split("\n")
    assert max(map(len, lines[1:-2])) <= columns


def test_a_terminal_is_asked_before_dead_tasks_are_tried_anew(
    terminal: Callable[..., Terminal], run: Run, submit: Submit
) -> None:
    submit("gives_up", queue="asked", max_attempts=1, ended=True)
    for answer, status, dead in (("n", 1, 1), ("y", 0, 0)):
        asked = terminal("retry", "--dead", "--queue", "asked")
        asked.read_until("1 task is dead. Try anew? [y/N]")
        asked.type(f"{answer}\n")
        assert asked.finish() == status
        if dead:
            assert "Nothing was done." in asked.output
            assert len(listed(run, "--queue", "asked", "--state", "dead")) == 1
        else:
            assert "ready" in asked.output


def test_a_list_on_a_terminal_has_one_line_for_each_task(
    terminal: Callable[..., Terminal], submit: Submit
) -> None:
    task = submit("long_story", queue="stories", ended=True)
    for columns in (80, 120):
        shown = terminal("list", "--queue", "stories", columns=columns)
        assert shown.finish() == 0
        lines = [line.rstrip() for line in ESCAPE.sub("", shown.output).splitlines()]
        rows = [line for line in lines if task[:10] in line]
        assert len(rows) == 1
        assert rows[0].endswith("…")
        assert max(map(len, lines)) <= columns


# --- without a daemon -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("show", "abc"),
        ("watch",),
        ("cancel", "abc"),
        ("retry", "abc"),
        ("dead",),
        ("resolve", "abc", "failed"),
        ("export",),
        ("backup", "copy"),
    ],
    ids=lambda command: command[0],
)
def test_without_a_daemon_it_says_how_to_start_one(
    env: dict[str, str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = mcpd(env, "tasks", *command, "--data-dir", str(tmp_path))
    assert done.returncode == 1, done.stderr
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
