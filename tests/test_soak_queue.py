"""A daemon that works through tasks of every kind for a long time, and grows in nothing.

Clients that come and go submit what succeeds, fails, is tried again, waits, recurs, is cancelled,
and answers little or much; old tasks are purged meanwhile. Once it is in its stride, the daemon's
memory, descriptors and threads, and the files of its tasks, have to stay as they are: the last
third of the time is compared with the third before it, by medians, which no single peak moves.

``make soak`` takes an hour (``MCPD_SOAK_MINUTES``). In the suite time is compressed to seconds,
which shows that the soak works and finds what leaks fast.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SECONDS = float(os.environ.get("MCPD_SOAK_MINUTES", "0.1")) * 60
#: Tasks are kept for so long, so that there are as many of them in the second third as in the last.
RETENTION = max(0.5, SECONDS / 20)
CLIENTS = 3
SAMPLES = 60
MiB = 1 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux has /proc")

TOOLS = """
    import asyncio
    from mcpd_core import Context, ToolError, tool

    seen = {}

    @tool(idempotent=True)
    async def soak_quick(n: int) -> dict[str, int]:
        return {"n": n}

    @tool(read_only=True)
    def soak_thread(n: int) -> str:
        return str(n)

    @tool(read_only=True)
    async def soak_large(n: int) -> str:
        return "x" * n

    @tool(idempotent=True)
    async def soak_flaky(key: str) -> str:
        seen[key] = seen.get(key, 0) + 1
        if seen[key] < 2:
            raise ToolError("Not this time.")
        del seen[key]
        return "done"

    @tool
    async def soak_bad(n: int) -> str:
        raise ToolError("Never.", retryable=False)

    @tool(idempotent=True)
    async def soak_hold(ctx: Context) -> str:
        for step in range(1000):
            ctx.progress(step, 1000, "holding")
            await asyncio.sleep(0.05)
        return "held"
"""


@dataclass(frozen=True)
class Sample:
    """How large everything is at one moment. Sizes are in bytes."""

    memory: int
    descriptors: int
    threads: int
    database: int
    log: int


class Daemon:
    """A real daemon process with the task queue and the tools above."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.socket = self.data / "mcpd.sock"
        self.log = folder / "daemon.log"
        package, metadata = (
            folder / "site" / "soak_work",
            folder / "site" / "soak_work-1.0.dist-info",
        )
        for made in (self.data, package, metadata):
            made.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: soak-work\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(
            "[mcpd_core.plugins.asyncio]\nsoak_work = soak_work.plugin\n"
        )
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(
            "from mcpd_core import hookimpl\n\n@hookimpl\ndef mcpd_register_tools(registrar):\n"
            "    registrar.add_module('soak_work.tools')\n"
        )
        (package / "tools.py").write_text(textwrap.dedent(TOOLS))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")]),
            "MCPD_HTTP__PORT": "0",
            "MCPD_TASK_QUEUE__FIRST_RETRY": "0.01",
            "MCPD_TASK_QUEUE__LEASE": "3",
            "MCPD_TASK_QUEUE__RETENTION": str(RETENTION),
            "MCPD_TASK_QUEUE__WORKERS": "8",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mcpd_core", "serve"),
                    *("--plugins", "task_queue,soak_work", "--data-dir", str(self.data)),
                ],
                env=environment,
                stderr=log,
            )
        self.wait_until(self.socket.exists)

    def wait_until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not true():
            assert self.process.poll() is None, self.log.read_text()[-3_000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3_000:]
            time.sleep(0.02)

    def sample(self) -> Sample:
        """Look at the process and at its files."""
        proc = Path(f"/proc/{self.process.pid}")
        pages = int((proc / "statm").read_text().split()[1])
        files = self.data / "task_queue"
        return Sample(
            memory=pages * os.sysconf("SC_PAGE_SIZE"),
            descriptors=len(os.listdir(proc / "fd")),
            threads=len(os.listdir(proc / "task")),
            database=sum(_size(f) for f in files.rglob("*") if not f.name.endswith("-wal")),
            log=_size(files / "tasks.db-wal"),
        )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()[-3_000:]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0  # purged this moment


class Client:
    """A client over the daemon's socket, in lines of JSON."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._number = 0
        self._request(
            "initialize",
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "soak", "version": "1"},
            },
        )
        self._send({"method": "notifications/initialized"})

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def _request(self, method: str, params: dict[str, Any]) -> Any:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        for line in self._lines:
            answer = json.loads(line)
            if answer.get("id") == self._number:
                return answer["result"]
        raise ConnectionError("the daemon has gone")

    def call(self, tool: str, /, **arguments: Any) -> Any:
        result = self._request("tools/call", {"name": tool, "arguments": arguments})
        assert not result.get("isError"), result
        return result["structuredContent"]

    def submit(self, tool: str, arguments: dict[str, Any] | None = None, **options: Any) -> str:
        task: str = self.call("submit_task", tool=tool, arguments=arguments or {}, **options)[
            "task_id"
        ]
        return task


class Life:
    """What one client does, over and over, until it is told to stop."""

    def __init__(self, name: int, path: Path, stop: threading.Event) -> None:
        self.done: Counter[str] = Counter()
        self.problem: BaseException | None = None
        self._chance = random.Random(name)
        self._name = name
        self._path = path
        self._stop = stop

    def run(self) -> None:
        try:
            while not self._stop.is_set():
                with closing(Client(self._path)) as client:
                    for _ in range(20):
                        self._one(client)
                self.done["connections"] += 1
        except BaseException as error:  # noqa: BLE001 - told to the test, which waits for this thread
            self.problem = error
            self._stop.set()

    def _one(self, client: Client) -> None:
        what = self._chance.choice(["quick"] * 6 + ["thread", "large", "flaky", "bad", "later"] * 2)
        if self._chance.random() < 0.1:
            what = self._chance.choice(["hold", "recurring", "many"])
        self.done[what] += 1
        number = self.done.total()
        if what == "hold":
            task = client.submit("soak_hold")
            client.call("get_task_result", task_id=task, wait=0.05)
            client.call("cancel_task", task_id=task)
        elif what == "recurring":
            task = client.call(
                "schedule_task", tool="soak_quick", arguments={"n": 1}, cron="0 0 1 1 *"
            )["task_id"]
            client.call("cancel_task", task_id=task)
        elif what == "many":
            call = {"tool": "soak_quick", "arguments": {"n": number}}
            client.call("submit_tasks", tasks=[call] * 50)
        elif what == "later":
            client.submit("soak_quick", {"n": number}, delay=0.05)
        else:
            if what == "flaky":
                task = client.submit("soak_flaky", {"key": f"{self._name}-{number}"})
            else:
                size = self._chance.choice([1_000, 100_000]) if what == "large" else number
                task = client.submit(f"soak_{what}", {"n": size})
            answer = client.call("get_task_result", task_id=task, wait=30)
            assert answer["state"] == ("failed" if what == "bad" else "succeeded"), answer


@contextmanager
def lives(daemon: Daemon) -> Iterator[list[Life]]:
    """Have clients at work."""
    stop = threading.Event()
    working = [Life(n, daemon.socket, stop) for n in range(CLIENTS)]
    threads = [threading.Thread(target=life.run) for life in working]
    for thread in threads:
        thread.start()
    try:
        yield working
    finally:
        stop.set()
        for thread in threads:
            thread.join(90)
    for life in working:
        if life.problem is not None:
            raise life.problem


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("soak"))
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait(10)


@pytest.mark.slow
@pytest.mark.timeout(180 + 1.5 * SECONDS)
def test_a_daemon_that_works_for_long_grows_in_nothing(daemon: Daemon) -> None:
    samples: list[Sample] = []
    with lives(daemon) as working:
        while len(samples) < SAMPLES and all(life.problem is None for life in working):
            time.sleep(SECONDS / SAMPLES)  # how long it lasts is the point
            samples.append(daemon.sample())
    with closing(Client(daemon.socket)) as client:
        counted = client.call("get_queue_stats")["metrics"]
    daemon.stop()

    done = sum((life.done for life in working), Counter[str]())
    print(f"{dict(done)}\n{judge(samples)}")  # noqa: T201 - shown by `make soak`
    assert done["connections"] >= CLIENTS
    ended = counted["mcpd_tasks_attempts_total"]
    assert min(ended[how] for how in ("succeeded", "retried", "failed", "cancelled")) > 0
    assert counted["mcpd_tasks_lease_losses_total"] == 0
    assert counted["mcpd_tasks"]["succeeded"] < ended["succeeded"], "nothing was purged"
    assert judge(samples) == []
    assert max(sample.log for sample in samples) <= 32 * MiB
    assert (daemon.data / "task_queue" / "tasks.db").exists()
    assert not (daemon.data / "task_queue" / "tasks.db-wal").exists()


def judge(samples: list[Sample]) -> list[str]:
    """Say what was larger in the last third of the time than in the one before."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    # How much more may be: a share, and an amount. In seconds, caches are still being filled.
    short = SECONDS < 600
    allowed = {
        "memory": (0.15 if short else 0.05, 24 * MiB if short else 8 * MiB),
        "descriptors": (0.0, CLIENTS + 2),
        "threads": (0.0, 2),
        "database": (0.25 if short else 0.1, 8 * MiB if short else 4 * MiB),
        "log": (0.0, 16 * MiB),
    }
    grown = []
    for name, (share, amount) in allowed.items():
        before = statistics.median(getattr(sample, name) for sample in middle)
        after = statistics.median(getattr(sample, name) for sample in last)
        if after > before * (1 + share) + amount:
            grown.append(f"{name}: from {before:,.0f} to {after:,.0f}")
    return grown


def test_what_grows_is_found_and_a_peak_is_none() -> None:
    flat = [Sample(80 * MiB, 40, 12, 20 * MiB, 4 * MiB)] * 29
    assert judge([*flat, Sample(900 * MiB, 400, 120, 200 * MiB, 30 * MiB)]) == []
    leaking = [
        Sample(80 * MiB + n * 40 * MiB, 40 + n, 12 + n, 20 * MiB + n * 20 * MiB, 4 * MiB)
        for n in range(30)
    ]
    assert [line.partition(":")[0] for line in judge(leaking)] == [
        "memory",
        "descriptors",
        "threads",
        "database",
    ]
