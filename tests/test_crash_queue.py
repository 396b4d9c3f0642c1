"""The task queue end to end, with everything that can die dying at random, over and over.

A daemon runs tasks; a producer, a process of its own, submits and cancels them over the daemon's
socket and notes what was acknowledged. Both are killed with SIGKILL and started again. At the end:
every acknowledged task is there, it has exactly one final state (or is parked as ``uncertain``), no
more than one outcome of it was recorded, and nothing ran more often than it may.

Set ``MCPD_CRASH_SEED`` to repeat the moments of the kills, and ``MCPD_CRASH_SECONDS`` to go on for
longer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = float(os.environ.get("MCPD_CRASH_SECONDS", "8"))
FINAL = {"succeeded", "failed", "cancelled", "dead"}

TOOLS = """
    import asyncio, os
    from mcpd_core import ToolError, tool

    def note(word, key):
        # One write of one short line with O_APPEND: whole, or not there at all.
        fd = os.open(os.environ["CRASH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{word} {key} {os.getpid()}\\n".encode())
        os.close(fd)

    async def work(key, seconds):
        note("start", key)
        await asyncio.sleep(seconds)
        note("end", key)
        return key

    @tool(idempotent=True)
    async def crash_safe(key: str, seconds: float) -> str:
        return await work(key, seconds)

    @tool
    async def crash_unsafe(key: str, seconds: float) -> str:
        return await work(key, seconds)

    @tool(idempotent=True)
    async def crash_shaky(key: str, seconds: float) -> str:
        await work(key, seconds)
        if hash(os.urandom(1)) % 2:
            raise ToolError("It did not work this time.")
        return key
"""

CLIENT = """
    import json, socket

    class Client:
        def __init__(self, path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(20)
            self.socket.connect(path)
            self.lines = self.socket.makefile("rb")
            self.number = 0
            self.request("initialize", {
                "protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": {"name": "crash", "version": "1"}})
            self.send({"method": "notifications/initialized"})

        def send(self, message):
            self.socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\\n")

        def request(self, method, params):
            self.number += 1
            self.send({"id": self.number, "method": method, "params": params})
            for line in self.lines:
                answer = json.loads(line)
                if answer.get("id") == self.number:
                    return answer["result"]
            raise ConnectionError("the daemon has gone")

        def call(self, name, **arguments):
            result = self.request("tools/call", {"name": name, "arguments": arguments})
            if result.get("isError"):
                raise RuntimeError(result["content"][0]["text"])
            return result["structuredContent"]
"""

PRODUCER = """
    import os, random, sys, time
    from crash_client import Client

    path, life = sys.argv[1:]
    ready = open(os.environ["CRASH_ACKS"], "ab", buffering=0)
    number = 0

    def acknowledge(*words):
        ready.write((" ".join(words) + "\\n").encode())

    client = None
    while True:
        number += 1
        key = f"{life}-{number}"
        kind = random.choice(["safe", "safe", "unsafe", "shaky"])
        delivery = random.choice(["at_least_once", "at_least_once", "at_most_once"])
        request = dict(
            tool=f"crash_{kind}", arguments={"key": key, "seconds": random.choice([0, 0, 0.02])},
            delivery=delivery, idempotency_key=key, max_attempts=4,
            delay=random.choice([0, 0, 0.2]), priority=random.randrange(3))
        while True:
            try:
                if client is None:
                    client = Client(path)
                # After a reconnect the same request again: the key makes it one task.
                task = client.call("submit_task", **request)["task_id"]
                acknowledge("submitted", task, key, kind, delivery)
                if number % 10 == 0:
                    outcome = client.call("cancel_task", task_id=task)["outcome"]
                    if outcome != "settled":
                        acknowledge("cancelled", task)
                break
            except (OSError, ValueError, RuntimeError, KeyError):
                # Killed in the middle, not up yet, or on its way down.
                client = None
                time.sleep(0.02)
"""


class Playground:
    """The files of one run, and the processes that live there."""

    def __init__(self, folder: Path) -> None:
        self.acks = folder / "acks"
        self.acks.touch()
        self.log = folder / "log"
        self.data = folder / "data"
        self.socket = self.data / "mcpd.sock"
        self.daemon_log = folder / "daemon.log"
        self.site = folder / "site"
        self.daemon_pids: list[int] = []
        self._children: list[subprocess.Popen[bytes]] = []
        package = self.site / "crash_work"
        metadata = self.site / "crash_work-1.0.dist-info"
        for made in (self.data, package, metadata):
            made.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: crash-work\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text(
            "[mcpd_core.plugins.asyncio]\ncrash_work = crash_work.plugin\n"
        )
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(
            "from mcpd_core import hookimpl\n\n@hookimpl\ndef mcpd_register_tools(registrar):\n"
            "    registrar.add_module('crash_work.tools')\n"
        )
        (package / "tools.py").write_text(textwrap.dedent(TOOLS))
        (self.site / "crash_client.py").write_text(textwrap.dedent(CLIENT))
        (self.site / "crash_producer.py").write_text(textwrap.dedent(PRODUCER))
        self._env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.site), os.environ.get("PYTHONPATH", "")]),
            "CRASH_LOG": str(self.log),
            "CRASH_ACKS": str(self.acks),
            "MCPD_HTTP__PORT": "0",
            "MCPD_TASK_QUEUE__FIRST_RETRY": "0.05",
            "MCPD_TASK_QUEUE__LEASE": "2",
            "MCPD_TASK_QUEUE__WORKERS": "8",
        }

    def start_daemon(self) -> subprocess.Popen[bytes]:
        with self.daemon_log.open("ab") as log:
            daemon = self._spawn(
                "-m",
                "mcpd_core",
                "serve",
                "--plugins",
                "task_queue,crash_work",
                "--data-dir",
                str(self.data),
                stderr=log,
            )
        self.daemon_pids.append(daemon.pid)
        self.wait_until(self._answers, daemon)
        return daemon

    def start_producer(self, life: int) -> subprocess.Popen[bytes]:
        return self._spawn("-m", "crash_producer", str(self.socket), f"p{life}")

    def _spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, *arguments], env=self._env, **options)
        self._children.append(child)
        return child

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            return True

    def wait_until(
        self, condition: Callable[[], bool], daemon: subprocess.Popen[bytes], seconds: float = 25
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert daemon.poll() is None, self.daemon_log.read_text()[-3_000:]
            assert time.monotonic() < deadline, self.daemon_log.read_text()[-3_000:]
            time.sleep(0.02)

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        child.kill()
        assert child.wait(10) == -signal.SIGKILL

    def close(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait(10)

    def acknowledged(self) -> tuple[dict[str, list[str]], set[str]]:
        """Return what was submitted, as task id -> [key, kind, delivery], and what cancelled."""
        submitted: dict[str, list[str]] = {}
        cancelled: set[str] = set()
        for line in self.acks.read_text().splitlines(keepends=True):
            words = line.split()
            if line.endswith("\n") and words[0] == "submitted":
                submitted[words[1]] = words[2:]
            elif line.endswith("\n"):
                cancelled.add(words[1])
        return submitted, cancelled

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database itself; only while no daemon runs."""
        connection = sqlite3.connect(self.data / "task_queue" / "tasks.db")
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()


@pytest.fixture
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    # Short: the path of a Unix socket may have about a hundred characters.
    made = Playground(tmp_path_factory.mktemp("crash"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(90 + 2 * SECONDS)
def test_whatever_dies_no_acknowledged_task_is_lost_or_done_twice(playground: Playground) -> None:
    seed = int(os.environ.get("MCPD_CRASH_SEED", random.randrange(10**6)))
    print(f"MCPD_CRASH_SEED={seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    daemon = playground.start_daemon()
    producer = playground.start_producer(0)
    kills: Counter[str] = Counter()
    deadline = time.monotonic() + SECONDS
    # On a slow machine until there is enough to be judged.
    while (
        time.monotonic() < deadline
        or len(playground.acknowledged()[0]) < 30
        or (kills["daemon"] < 3)
    ):
        time.sleep(chance.uniform(0.05, 0.8))  # when it dies is the point
        if chance.random() < 0.7:
            playground.kill(daemon)
            kills["daemon"] += 1
            daemon = playground.start_daemon()
        else:
            playground.kill(producer)
            kills["producer"] += 1
            producer = playground.start_producer(kills["producer"])
    playground.kill(producer)
    submitted, cancelled = playground.acknowledged()
    settle(playground, daemon)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0, playground.daemon_log.read_text()[-3_000:]

    assert kills["daemon"] >= 3
    assert len(set(playground.daemon_pids)) == kills["daemon"] + 1
    assert len(submitted) >= 30
    check_database(playground, submitted, cancelled)
    check_starts(playground, submitted)


def settle(playground: Playground, daemon: subprocess.Popen[bytes]) -> None:
    """Wait, as a client would, until nothing is left to be done."""
    script = (
        "import sys, time; from crash_client import Client; client = Client(sys.argv[1])\n"
        "while True:\n"
        "    counts = client.call('get_queue_stats')['counts']\n"
        "    if not counts['scheduled'] + counts['ready'] + counts['running']: break\n"
        "    time.sleep(0.05)\n"
    )
    waiting = playground._spawn("-c", script, str(playground.socket))
    playground.wait_until(lambda: waiting.poll() is not None, daemon, seconds=50)
    assert waiting.returncode == 0


def check_database(
    playground: Playground, submitted: dict[str, list[str]], cancelled: set[str]
) -> None:
    assert playground.query("PRAGMA integrity_check") == [("ok",)]
    states = dict(playground.query("SELECT id, state FROM task"))
    missing = submitted.keys() - states.keys()
    assert not missing, "acknowledged, and gone"
    assert set(states.values()) <= FINAL | {"uncertain"}
    # One event per final state that was entered, and one result per success.
    finals = Counter(
        task_id
        for task_id, state in playground.query(
            "SELECT task.id, event.state FROM event JOIN task USING (seq)"
        )
        if state in FINAL
    )
    for task_id, state in states.items():
        assert finals[task_id] == (state in FINAL), task_id
    results = dict(
        playground.query(
            "SELECT id, result FROM payload JOIN task USING (seq) WHERE result IS NOT NULL"
        )
    )
    assert results.keys() == {task_id for task_id, state in states.items() if state == "succeeded"}
    for task_id, (key, _, _) in submitted.items():
        if task_id in results:
            assert json.loads(results[task_id])["text"] == key
    assert all(states[task_id] == "cancelled" for task_id in cancelled)
    keys = [key for (key,) in playground.query("SELECT idempotency_key FROM task")]
    assert len(keys) == len(set(keys)), "one request became two tasks"


def check_starts(playground: Playground, submitted: dict[str, list[str]]) -> None:
    """Check what really ran, as the tools themselves wrote it down."""
    lines = [line.split() for line in playground.log.read_text().splitlines()]
    starts = Counter(key for word, key, _ in lines if word == "start")
    ends = Counter(key for word, key, _ in lines if word == "end")
    ran_in = {int(pid) for _, _, pid in lines}
    assert len(ran_in) >= 2
    assert ran_in <= set(playground.daemon_pids)
    attempts = {
        key: (state, count)
        for key, state, count in playground.query(
            "SELECT idempotency_key, state, attempts FROM task"
        )
    }
    for key, kind, delivery in submitted.values():
        state, counted = attempts[key]
        assert starts[key] <= counted <= 4
        if kind == "unsafe" or delivery == "at_most_once":
            assert starts[key] <= 1, f"{key} ran twice"
        if state == "succeeded":
            assert ends[key] >= 1, f"{key} succeeded without having run"
