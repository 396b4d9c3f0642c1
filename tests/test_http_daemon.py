"""The daemon over HTTP, as the process that a person starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client

MCPD = [sys.executable, "-m", "mcpd_core"]
#: Seconds; far more than anything here takes.
LONG = 40

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the daemon with the example plugin; what still runs in the end is killed."""
    processes: list[subprocess.Popen[str]] = []
    env = {key: value for key, value in os.environ.items() if not key.startswith("MCPD_")}
    env |= {
        "MCPD_DATA_DIR": str(tmp_path / "data"),
        "MCPD_HTTP__PORT": "0",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*MCPD, "serve", "--plugins", "hello", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            cwd=tmp_path,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    """Read stderr until the daemon says where it serves HTTP."""
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on http" in line:
            return line.rsplit(" ", 1)[1].strip()
    raise AssertionError("HTTP is not served")


@pytest.mark.anyio
@pytest.mark.parametrize("era", ["legacy", "auto"], ids=["handshake", "modern"])
async def test_a_daemon_is_used_over_http_without_any_settings(start: Start, era: Any) -> None:
    url = url_of(start("--path", "/tools"))
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/tools")
    async with Client(url, mode=era) as client:
        answer = await client.call_tool("hello_greet", {"name": "Ada"})
        assert answer.content[0].text == "Hello, Ada!"  # type: ignore[union-attr]
    async with httpx2.AsyncClient() as probe:
        root = url.removesuffix("/tools")
        assert (await probe.get(f"{root}/health/ready")).json() == {"status": "ok"}


@pytest.mark.anyio
@pytest.mark.parametrize("era", ["legacy", "auto"], ids=["handshake", "modern"])
async def test_calls_in_flight_are_answered_before_the_daemon_ends(start: Start, era: Any) -> None:
    process = start()
    async with Client(url_of(process), mode=era) as client:
        # So that the client needs nothing more of the server after the answer.
        await client.list_tools()
        begun = asyncio.Event()

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            begun.set()

        call = asyncio.ensure_future(
            client.call_tool("hello_wait", {"seconds": 1}, progress_callback=hear)
        )
        await asyncio.wait_for(begun.wait(), LONG)
        process.send_signal(signal.SIGTERM)
        assert not (await call).is_error
    assert await asyncio.to_thread(process.wait, LONG) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def test_a_port_that_is_taken_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start("--port", port)
        _, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    said = " ".join(err.split())
    assert f"Port {port} of 127.0.0.1 is taken by another program" in said
    assert "--port" in said
    assert "Traceback" not in said


def test_an_address_that_others_reach_needs_insistence(start: Start) -> None:
    process = start("--host", "0.0.0.0")
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert "--insecure-bind" in err
    assert "Traceback" not in err
    insisting = start("--host", "0.0.0.0", "--insecure-bind")
    assert url_of(insisting).startswith("http://0.0.0.0:")
