"""mcpd's daemon over HTTP: ``submit_task``, and tasks that call a tool which echoes a text."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.contestants import console_script, environment
from harness.http_client import HttpClient
from harness.toolset import ARGUMENTS, PLUGIN, install_plugin, name

from .contestant import PATIENCE, Queue, main

TASK = {"tool": name(0), "arguments": ARGUMENTS}


class McpdHttp(Queue):
    """A daemon of this process's own, with the plugin and one tool."""

    def submit(self, count: int, callers: int) -> float:
        """While the workers run what has been submitted."""
        with self._daemon(workers=4) as client:
            return count / client.throughput("submit_task", TASK, count, callers, PATIENCE)

    def fill(self, count: int) -> float:
        """Nothing: what is drained is submitted then."""
        return 0.0

    def drain(self, count: int, workers: int) -> float:
        """From the first submit, by 64 connections, until the last task has ended."""
        with self._daemon(workers) as client:
            begun = time.perf_counter()
            client.throughput("submit_task", TASK, count, 64, PATIENCE)
            while _succeeded(client) < count:
                if time.perf_counter() - begun > PATIENCE:
                    raise RuntimeError("not all tasks were run")
                time.sleep(0.02)
            return time.perf_counter() - begun

    def start(self, count: int, workers: int) -> list[float]:
        raise NotImplementedError("a client cannot see when a task starts")

    @contextmanager
    def _daemon(self, workers: int) -> Iterator[HttpClient]:
        folder = Path(self.where)
        install_plugin(folder / "site", 1)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        env = {
            **environment(folder),
            "PYTHONPATH": str(folder / "site"),
            "MCPD_TASK_QUEUE__WORKERS": str(workers),
            "MCPD_EXECUTOR__WORKERS": str(workers),
        }
        command = [*console_script(sys.executable), "serve", "--plugins", f"task_queue,{PLUGIN}"]
        command += ["--data-dir", str(folder / "data"), "--port", str(port)]
        log = folder / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, cwd=folder
            )
        try:
            until = time.monotonic() + PATIENCE
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the daemon does not listen:\n{log.read_text()}")
                time.sleep(0.02)
            client = HttpClient(port, "/mcp", era="handshake")
            client.hello()
            # What is imported at the first call is no part of it.
            client.throughput("submit_task", TASK, 1, 1, PATIENCE)
            yield client
            client.close()
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _succeeded(client: HttpClient) -> int:
    """Return how many tasks have, the one that warmed the daemon up apart."""
    answer = client.ask("tools/call", {"name": "get_queue_stats", "arguments": {}})
    found: dict[str, Any] = answer["structuredContent"]
    return sum(int(queue["counts"].get("succeeded", 0)) for queue in found["queues"]) - 1


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main(McpdHttp)
