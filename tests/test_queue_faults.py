"""The task queue of a real daemon under what tools, clients and administrators do to it.

Poisonous tasks, a thousand clients that wait, one request fifty times at once, a flood, a daemon
that is stopped past its leases, two daemons for one directory, tools that change under their tasks.
``MCPD_FAULTS=all`` gives each of the thousand clients a connection of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EVERYTHING = os.environ.get("MCPD_FAULTS") == "all"
#: Seconds; far more than anything here takes.
LONG = 45.0
LEASE = 1.0
FINAL = {"succeeded", "failed", "cancelled", "dead"}

TOOLS = """
    import asyncio, os, signal, time
    from mcpd_core import tool

    def note(word):
        fd = os.open(os.environ["FAULTS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{word} {os.getpid()}\\n".encode())
        os.close(fd)

    async def until(name):
        while not os.path.exists(os.path.join(os.environ["FAULTS_FOLDER"], name)):
            await asyncio.sleep(0.01)

    @tool(idempotent=True)
    async def good(n: int) -> int:
        note(f"good-{n}")
        return n

    @tool(idempotent=True)
    async def held(name: str) -> str:
        note(f"held-{name}")
        await until(name)
        return name

    @tool
    async def stubborn(name: str) -> str:
        note(f"stubborn-{name}")
        try:
            await until("never")
        finally:
            await asyncio.shield(asyncio.ensure_future(until(name)))
        return name

    @tool(placement="process", idempotent=True)
    def crash() -> None:
        note("crash")
        os.kill(os.getpid(), signal.SIGKILL)

    @tool(placement="process", idempotent=True, memory_mb=400)
    def devour() -> int:
        note("devour")
        hoard = []
        while True:
            hoard.append(bytearray(32 << 20))

    @tool(placement="process", idempotent=True, timeout=1)
    def spin() -> None:
        note("spin")
        while True:
            pass

    @tool(idempotent=True)
    async def huge() -> str:
        note("huge")
        return "x" * (64 << 20)

    @tool(placement="process", idempotent=True)
    def odd() -> dict:
        note("odd")
        return {"lock": __import__("threading").Lock()}

    @tool(idempotent=True)
    async def raises() -> None:
        note("raises")
        raise RuntimeError("y" * 1_000_000)
"""


class Client:
    """A connection to a daemon that may have many requests under way."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(LONG)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._numbers = itertools.count(1)
        self._answers: dict[int, Any] = {}
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "faults", "version": "1"},
        }
        self.answer(self.ask("initialize", hello))
        self._send({"method": "notifications/initialized"})

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def ask(self, method: str, params: dict[str, Any]) -> int:
        """Send a request; returns its number, for `answer`."""
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": params})
        return number

    def start(self, name: str, /, **arguments: Any) -> int:
        """Call a tool without waiting for its answer."""
        return self.ask("tools/call", {"name": name, "arguments": arguments})

    def answer(self, number: int) -> Any:
        while number not in self._answers:
            line = self._lines.readline()
            if not line:
                raise ConnectionError("the daemon has gone")
            message = json.loads(line)
            if "id" in message and "method" not in message:
                self._answers[message["id"]] = message
        return self._answers.pop(number)

    def answered(self) -> bool:
        """Whether anything has come that was not asked for."""
        return bool(self._answers)

    def call(self, name: str, /, **arguments: Any) -> Any:
        message = self.answer(self.start(name, **arguments))
        result = message["result"]
        assert not result.get("isError"), result["content"][0]["text"]
        return result["structuredContent"]

    def submit(self, tool: str, *, arguments: dict[str, Any] | None = None, **options: Any) -> str:
        asked = {"tool": tool, "arguments": arguments or {}, **options}
        return str(self.call("submit_task", **asked)["task_id"])

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Place:
    """A data directory, a plugin of tools, and the daemons that were started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.socket = self.data / "mcpd.sock"
        self.log = folder / "log"
        self.output = folder / "daemon.log"
        self._package = folder / "site" / "fault_work"
        metadata = folder / "site" / "fault_work-1.0.dist-info"
        for made in (self.data, self._package, metadata):
            made.mkdir(parents=True)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: fault-work\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text(
            "[mcpd_core.plugins.asyncio]\nfault_work = fault_work.plugin\n"
        )
        (self._package / "__init__.py").write_text("")
        (self._package / "plugin.py").write_text(
            "from mcpd_core import hookimpl\n\n@hookimpl\ndef mcpd_register_tools(registrar):\n"
            "    registrar.add_module('fault_work.tools')\n"
        )
        self.write_tools(TOOLS)
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._clients: list[Client] = []

    def write_tools(self, source: str) -> None:
        (self._package / "tools.py").write_text(textwrap.dedent(source))

    def serve(self) -> subprocess.Popen[bytes]:
        """Start a daemon, without waiting for it."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("MCPD_")}
        env |= {
            "PYTHONPATH": os.pathsep.join(
                [str(self.folder / "site"), os.environ.get("PYTHONPATH", "")]
            ),
            # What was compiled of a module counts for as long as a second after it was changed.
            "PYTHONDONTWRITEBYTECODE": "1",
            "FAULTS_LOG": str(self.log),
            "FAULTS_FOLDER": str(self.folder),
            "MCPD_HTTP__PORT": "0",
            "MCPD_DAEMON__GRACE": "0",
            "MCPD_EXECUTOR__CANCEL_GRACE": str(LONG),
            "MCPD_TASK_QUEUE__FIRST_RETRY": "0.05",
            "MCPD_TASK_QUEUE__LEASE": str(LEASE),
        }
        command = [sys.executable, "-m", "mcpd_core", "serve", "--plugins", "task_queue,fault_work"]
        with self.output.open("ab") as output:
            daemon = subprocess.Popen(
                [*command, "--data-dir", str(self.data)], env=env, stderr=output
            )
        self._daemons.append(daemon)
        return daemon

    def up(self) -> subprocess.Popen[bytes]:
        """Start a daemon and wait until it answers."""
        daemon = self.serve()

        def answers() -> bool:
            assert daemon.poll() is None, self.output.read_text()[-3_000:]
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(self.socket)) == 0

        self.until(answers)
        return daemon

    def until(self, condition: Any) -> None:
        deadline = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < deadline, self.output.read_text()[-3_000:]
            time.sleep(0.01)

    def client(self) -> Client:
        client = Client(self.socket)
        self._clients.append(client)
        return client

    def starts(self) -> Counter[str]:
        """Return how often each tool began, as the tools themselves wrote it down."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter(line.split()[0] for line in lines)

    def let(self, name: str) -> None:
        """Let what waits for a name go on."""
        (self.folder / name).touch()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for daemon in self._daemons:
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait(10)


pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    # Short: the path of a Unix socket may have about a hundred characters.
    made = Place(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


POISON = ("crash", "devour", "spin", "raises", "odd", "huge")


def test_poisonous_tasks_are_buried_after_their_attempts_and_harm_no_other(place: Place) -> None:
    daemon = place.up()
    client = place.client()
    poison = {name: client.submit(name, max_attempts=2) for name in POISON}
    good = [client.submit("good", arguments={"n": n}) for n in range(20)]
    for n, task in enumerate(good):
        result = client.call("get_task_result", task_id=task, wait=LONG)
        assert (result["state"], result["structured"]) == ("succeeded", {"result": n})
    for name, task in poison.items():
        result = client.call("get_task_result", task_id=task, wait=LONG)
        assert result["state"] in ("dead", "failed"), (name, result)
        assert result["why"] or result["error"], name
        attempts = client.call("get_task_status", task_id=task)["attempts"]
        assert attempts == 2 or (attempts == 1 and result["state"] == "failed"), name
        # On a slow machine one that is cut off by its deadline may not have got as far as its note.
        assert place.starts()[name] <= attempts, name
    assert place.starts()["crash"] == 2
    # All of it was survived by one and the same daemon, which still works.
    assert daemon.poll() is None
    assert (
        client.call(
            "get_task_result", task_id=client.submit("good", arguments={"n": 99}), wait=LONG
        )["state"]
        == "succeeded"
    )


def test_a_thousand_waiting_clients_keep_nothing_from_running_and_one_request_is_one_task(
    place: Place,
) -> None:
    place.up()
    asking = place.client()
    waited_for = asking.submit("held", arguments={"name": "go"})
    connections, each = (1_000, 1) if EVERYTHING else (40, 25)
    waiting = [place.client() for _ in range(connections)]
    numbers = [
        [client.start("get_task_result", task_id=waited_for, wait=LONG) for _ in range(each)]
        for client in waiting
    ]
    # Its own call was read behind all the others of that connection.
    for client in waiting:
        assert client.call("get_task_status", task_id=waited_for)["state"] in ("ready", "running")
    quick = asking.submit("good", arguments={"n": 1})
    result = asking.call("get_task_result", task_id=quick, wait=LONG)
    assert result["state"] == "succeeded"
    assert not any(client.answered() for client in waiting), "nobody's wait was cut short"

    # Meanwhile: the same request from fifty at once.
    same = {"tool": "good", "arguments": {"n": 50}, "idempotency_key": "only once"}
    askers = list(itertools.islice(itertools.cycle(waiting), 50))
    requests = [(client, client.start("submit_task", **same)) for client in askers]
    answers = [client.answer(number)["result"]["structuredContent"] for client, number in requests]
    assert Counter(answer["outcome"] for answer in answers) == {"created": 1, "existing": 49}
    assert len({answer["task_id"] for answer in answers}) == 1
    (once,) = {answer["task_id"] for answer in answers}
    assert asking.call("get_task_result", task_id=once, wait=LONG)["state"] == "succeeded"
    assert place.starts()["good-50"] == 1

    # A flood of little importance, and one task that matters.
    flood = [{"tool": "good", "arguments": {"n": 1_000 + n}, "priority": 0} for n in range(400)]
    for start in range(0, len(flood), 100):
        asking.call("submit_tasks", tasks=flood[start : start + 100])
    urgent = asking.submit("good", arguments={"n": 7}, priority=9)
    asking.call("get_task_result", task_id=urgent, wait=LONG)
    place.let("go")
    for client, asked in zip(waiting, numbers, strict=True):
        for number in asked:
            result = client.answer(number)["result"]["structuredContent"]
            assert (result["state"], result["text"]) == ("succeeded", "go")
    assert place.starts()["held-go"] == 1


def test_a_daemon_stopped_past_its_leases_ends_its_tasks_once_and_no_other_daemon_takes_them(
    place: Place,
) -> None:
    daemon = place.up()
    client = place.client()
    task = client.submit("held", arguments={"name": "go"})
    place.until(lambda: place.starts()["held-go"])
    daemon.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    other = place.serve()
    assert other.wait(LONG) != 0, "two daemons for one directory"
    assert "is owned by" in place.output.read_text()
    place.until(lambda: time.monotonic() > stopped + LEASE + 0.5)
    place.let("go")
    daemon.send_signal(signal.SIGCONT)
    assert client.call("get_task_result", task_id=task, wait=LONG)["state"] == "succeeded"
    kinds = [e["kind"] for e in client.call("get_task_status", task_id=task)["events"]]
    assert kinds == ["submitted", "started", "succeeded"]
    assert place.starts()["held-go"] == 1


def test_a_daemon_that_is_going_starts_nothing_and_the_next_one_takes_up_what_waits(
    place: Place,
) -> None:
    """Between the two, the tools change: one is gone, one takes other arguments."""
    going = place.up()
    client = place.client()
    # As many as there are workers, so that what comes behind them waits.
    for n in range(4):
        # Neither idempotent nor read-only: interrupted, it is for a person to look at.
        client.submit("stubborn", arguments={"name": f"let go {n}"})
    place.until(lambda: sum(place.starts().values()) == 4)
    waiting = client.submit("good", arguments={"n": 1})
    gone = client.submit("held", arguments={"name": "back"})
    changed = client.submit("raises")
    going.send_signal(signal.SIGTERM)
    # It goes once each task of its own is through with cleaning up; until then it owns the place.
    coming = place.serve()
    assert coming.wait(LONG) != 0
    assert "is owned by" in place.output.read_text()
    place.let("let go 0")
    place.let("let go 1")
    place.write_tools(
        TOOLS.replace("async def held(", "async def held_no_more(").replace(
            "async def raises()", "async def raises(why: str)"
        )
    )
    for n in (2, 3):
        place.let(f"let go {n}")
    assert going.wait(LONG) == 0, place.output.read_text()[-3_000:]
    assert place.starts() == {"stubborn-let": 4}

    daemon = place.up()
    client = place.client()
    assert client.call("get_task_result", task_id=waiting, wait=LONG)["structured"] == {"result": 1}
    refused = client.call("get_task_result", task_id=changed, wait=LONG)
    assert refused["state"] == "failed"
    assert "why" in json.dumps(refused["error"])
    place.until(lambda: "held" in client.call("get_task_status", task_id=gone)["why"])
    status = client.call("get_task_status", task_id=gone)
    assert status["state"] == "scheduled"
    assert status["attempts"] == 0, "waiting for a tool costs no attempt"
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(LONG) == 0
    place.write_tools(TOOLS)
    place.let("back")
    place.up()
    client = place.client()
    assert client.call("get_task_result", task_id=gone, wait=LONG)["state"] == "succeeded"
    starts = place.starts()
    assert (starts["good-1"], starts["held-back"], starts["raises"]) == (1, 1, 0)
