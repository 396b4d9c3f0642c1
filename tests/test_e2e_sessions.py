"""Real clients and real processes: stdio, the daemon's socket, and `mcpd attach`."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

PLUGIN = """
    from __future__ import annotations
    import os, subprocess, sys
    import anyio
    from mcpd_core import Context, hookimpl, tool

    @hookimpl
    def mcpd_register_tools(registrar):
        registrar.add_module(__name__)

    @tool
    async def echo(text: str, times: int = 1) -> str:
        return text * times

    @tool
    async def nap(seconds: float, ctx: Context) -> str:
        ctx.progress(0, 1, "napping")
        await anyio.sleep(seconds)
        return "rested"

    @tool
    async def whoami() -> dict[str, int]:
        return {"pid": os.getpid()}

    @tool
    def noise() -> str:
        print("a stray print", flush=True)
        os.write(1, b"a stray write\\n")
        subprocess.run([sys.executable, "-c", "print('a stray child')"], check=True)
        return "quiet"
"""
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
Era = Any


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["legacy", "auto"], ids=["handshake", "2026-07-28"])
def era(request: pytest.FixtureRequest) -> Era:
    """How the SDK's client connects."""
    return request.param


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with one more plugin installed, ``demo``."""
    site = tmp_path / "site"
    info = site / "mcpd_demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mcpd-demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mcpd_core.plugins.asyncio]\ndemo = mcpd_demo\n")
    (site / "mcpd_demo.py").write_text(textwrap.dedent(PLUGIN))
    env = {name: value for name, value in os.environ.items() if not name.startswith("MCPD_")}
    path = [str(site), *filter(None, [env.get("PYTHONPATH")])]
    limit = str(64 << 20)
    return {
        **env,
        "PYTHONPATH": os.pathsep.join(path),
        "MCPD_EXECUTOR__MAX_RESULT_BYTES": limit,
        "MCPD_DATA_DIR": str(tmp_path / "data"),
        "MCPD_HTTP__PORT": "0",
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


MCPD = [sys.executable, "-m", "mcpd_core"]
ATTACH = [*MCPD, "attach"]
STANDALONE = [*MCPD, "serve", "--standalone", "--plugins", "demo"]
#: What a desktop client is configured with.
STDIO = [*MCPD, "serve", "--transport", "stdio", "--plugins", "demo"]


@pytest.fixture
def run(env: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes; whatever still runs is killed afterwards."""
    with ExitStack() as stack:

        def start(command: list[str], **changes: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**env, **changes},
            )

            def end() -> None:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    assert pipe is not None
                    pipe.close()

            stack.callback(end)
            return process

        yield start


@pytest.fixture
def daemon(
    run: Callable[..., subprocess.Popen[bytes]], data: Path
) -> Callable[[], subprocess.Popen[bytes]]:
    """Start a daemon and wait until it listens."""

    def start() -> subprocess.Popen[bytes]:
        process = run([*MCPD, "serve", "--plugins", "demo"])
        assert process.stderr is not None
        for line in process.stderr:
            if b"listening on unix:" in line:
                return process
        raise AssertionError(f"the daemon ended with status {process.wait()}")

    return start


@pytest.fixture(autouse=True)
def _no_daemon_survives(data: Path) -> Iterator[None]:
    yield
    try:
        pid = json.loads((data / "daemon.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        pass


def parameters(command: list[str], env: dict[str, str]) -> StdioServerParameters:
    return StdioServerParameters(command=command[0], args=command[1:], env=env)


def request(number: int, method: str, params: Any) -> bytes:
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(message).encode() + b"\n"


def call(number: int, tool: str, **arguments: Any) -> bytes:
    return request(number, "tools/call", {"name": tool, "arguments": arguments})


def introduce(process: subprocess.Popen[bytes]) -> None:
    say(process, request(0, "initialize", HELLO))
    assert hear(process)["id"] == 0


def say(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    return json.loads(line) if line else None


def ask(process: subprocess.Popen[bytes], number: int, tool: str, **arguments: Any) -> Any:
    say(process, call(number, tool, **arguments))
    answer = hear(process)
    assert answer["id"] == number
    return answer["result"]


def text(result: Any) -> str:
    block: str = result.content[0].text
    return block


# --- the SDK's client -----------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("command", [STANDALONE, STDIO], ids=["standalone", "through a daemon"])
async def test_a_client_that_starts_the_server_can_use_it(
    env: dict[str, str], era: Era, command: list[str]
) -> None:
    with anyio.fail_after(50):
        async with Client(parameters(command, env), mode=era) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == ["echo", "nap", "noise", "whoami"]
            assert text(await client.call_tool("echo", {"text": "ho", "times": 3})) == "hohoho"
            reports: list[str | None] = []

            async def on_progress(
                progress: float, total: float | None, message: str | None
            ) -> None:
                reports.append(message)

            await client.call_tool("nap", {"seconds": 0}, progress_callback=on_progress)
            assert text(await client.call_tool("noise", {})) == "quiet"
            assert text(await client.call_tool("echo", {"text": "still there"})) == "still there"
            assert reports == ["napping"]


@pytest.mark.anyio
async def test_two_clients_share_a_daemon_and_either_may_leave(
    env: dict[str, str], era: Era
) -> None:
    with anyio.fail_after(50):
        async with Client(parameters(STDIO, env), mode=era) as stays:
            async with Client(parameters(STDIO, env), mode="legacy") as leaves:
                pids = [await client.call_tool("whoami", {}) for client in (stays, leaves)]
                assert pids[0].structured_content == pids[1].structured_content
            assert text(await stays.call_tool("echo", {"text": "here"})) == "here"


# --- standalone -----------------------------------------------------------------------------------


def test_requests_piped_into_a_standalone_server_are_answered(
    run: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = run(STANDALONE)
    lines = [
        request(0, "initialize", HELLO),
        b"garbage\n",
        call(1, "noise"),
        call(2, "nap", seconds=0.2),
    ]
    out, err = process.communicate(b"".join(lines), timeout=50)
    answers = [json.loads(line) for line in out.splitlines()]
    assert {answer["id"] for answer in answers if "id" in answer} == {0, 1, 2}
    assert process.returncode == 0
    for stray in (b"a stray print", b"a stray write", b"a stray child"):
        assert stray in err
        assert stray not in out


def test_files_and_the_null_device_serve_as_stdio(env: dict[str, str], tmp_path: Path) -> None:
    source, sink = tmp_path / "requests", tmp_path / "answers"
    source.write_bytes(request(0, "initialize", HELLO) + call(1, "echo", text="from a file"))
    with source.open("rb") as stdin, sink.open("wb") as stdout:
        subprocess.run(STANDALONE, stdin=stdin, stdout=stdout, env=env, check=True, timeout=50)
    assert "from a file" in sink.read_text()
    subprocess.run(STANDALONE, stdin=subprocess.DEVNULL, env=env, check=True, timeout=50)


def test_a_standalone_server_and_a_daemon_cannot_share_a_directory(
    run: Callable[..., subprocess.Popen[bytes]], daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    owner = daemon()
    for command in (STANDALONE, [*MCPD, "serve"]):
        process = run(command)
        _, err = process.communicate(timeout=50)
        assert process.returncode not in (0, None)
        assert f"process {owner.pid}".encode() in err
    attached = run(ATTACH)
    introduce(attached)
    assert ask(attached, 1, "whoami")["structuredContent"] == {"pid": owner.pid}


# --- through attach -------------------------------------------------------------------------------


def test_large_messages_pass_in_both_directions(
    run: Callable[..., subprocess.Popen[bytes]], daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    daemon()
    process = run(ATTACH)
    introduce(process)
    blob = "x" * (8 << 20)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sent = pool.submit(say, process, call(1, "echo", text=blob, times=2))
        answer = hear(process)
        sent.result()
    assert answer["result"]["content"][0]["text"] == blob * 2


def test_thousands_of_pipelined_calls_survive_a_slow_reader(
    run: Callable[..., subprocess.Popen[bytes]], daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    daemon()
    process = run(ATTACH)
    introduce(process)
    calls = b"".join(call(number, "echo", text="y" * 2000) for number in range(3000))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sent = pool.submit(say, process, calls)
        time.sleep(0.3)  # what makes the reader slow
        answered = set()
        for _ in range(3000):
            answer = hear(process)
            assert answer["result"]["content"][0]["text"] == "y" * 2000
            answered.add(answer["id"])
        sent.result()
    assert len(answered) == 3000


def test_calls_in_flight_are_answered_after_a_half_close(
    run: Callable[..., subprocess.Popen[bytes]], daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    daemon()
    process = run(ATTACH)
    calls = b"".join(call(number, "echo", text=str(number)) for number in range(1, 20))
    naps = call(20, "nap", seconds=0.2)
    out, _ = process.communicate(request(0, "initialize", HELLO) + calls + naps, timeout=50)
    assert {json.loads(line)["id"] for line in out.splitlines()} == set(range(21))
    assert process.returncode == 0


def test_a_killed_shim_ends_its_session_and_no_other(
    run: Callable[..., subprocess.Popen[bytes]], daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    daemon()
    victim, other = run(ATTACH), run(ATTACH)
    for process in (victim, other):
        introduce(process)
    say(victim, call(1, "nap", seconds=60))
    victim.kill()
    assert hear(victim) is None
    assert ask(other, 1, "echo", text="alive")["content"][0]["text"] == "alive"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_shim_quietly(
    run: Callable[..., subprocess.Popen[bytes]],
    daemon: Callable[[], subprocess.Popen[bytes]],
    number: signal.Signals,
) -> None:
    daemon()
    process = run(ATTACH)
    introduce(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=50)
    assert process.returncode != 0
    assert err == b""


def test_a_killed_daemon_ends_the_session_and_can_be_started_again(
    run: Callable[..., subprocess.Popen[bytes]], daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    owner = daemon()
    process = run(ATTACH)
    introduce(process)
    owner.kill()
    assert hear(process) is None
    assert process.wait(50) == 1
    gone = run(ATTACH)
    _, err = gone.communicate(timeout=50)
    assert gone.returncode == 69
    assert b"mcpd serve" in err
    successor = daemon()
    process = run(ATTACH)
    introduce(process)
    assert ask(process, 1, "whoami")["structuredContent"] == {"pid": successor.pid}


def test_a_daemon_that_is_told_to_stop_finishes_its_calls(
    run: Callable[..., subprocess.Popen[bytes]],
    daemon: Callable[[], subprocess.Popen[bytes]],
    data: Path,
) -> None:
    owner = daemon()
    process = run(ATTACH)
    introduce(process)
    for number in range(1, 6):
        say(process, call(number, "nap", seconds=0.3))
    say(process, call(6, "echo", text="they have begun"))
    assert hear(process)["id"] == 6
    owner.terminate()
    answers = [hear(process) for _ in range(5)]
    assert {answer["result"]["content"][0]["text"] for answer in answers} == {"rested"}
    assert hear(process) is None
    assert owner.wait(50) == 0
    assert not (data / "mcpd.sock").exists()


# --- a daemon on demand ---------------------------------------------------------------------------


def test_many_clients_at_once_start_one_daemon_which_leaves_after_them(
    run: Callable[..., subprocess.Popen[bytes]], data: Path
) -> None:
    clients = [run([*ATTACH, "--spawn"], MCPD_DAEMON__LINGER="0.2") for _ in range(8)]
    pids = set()
    for client in clients:
        introduce(client)
        pids.add(ask(client, 1, "whoami")["structuredContent"]["pid"])
    assert len(pids) == 1
    for client in clients:
        assert client.stdin is not None
        client.stdin.close()
        assert client.wait(50) == 0
    deadline = time.monotonic() + 30
    while (data / "mcpd.sock").exists():
        assert time.monotonic() < deadline, "the daemon did not leave"
        time.sleep(0.01)


def test_a_daemon_with_other_plugins_is_pointed_out(
    run: Callable[..., subprocess.Popen[bytes]], daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    daemon()
    process = run([*MCPD, "serve", "--transport", "stdio", "--plugins", "hello"])
    introduce(process)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(50) == 0
    assert process.stderr is not None
    assert b"--plugins demo, not with --plugins hello" in process.stderr.read()


def test_a_daemon_that_cannot_start_says_why(
    run: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = run([*MCPD, "serve", "--transport", "stdio"], MCPD_EXECUTOR__CONCURRENCY="none")
    _, err = process.communicate(timeout=50)
    assert process.returncode != 0
    assert b"concurrency" in err.lower()
