"""The life of a server: who is served, when it leaves, and what happens to calls then."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import math
import os
import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcpd_core import attach
from mcpd_core.errors import DependencyBroken, DirectoryOwned
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.schema import describe, tools_of
from mcpd_core.server import daemon, listener
from mcpd_core.server.daemon import run_daemon, run_standalone
from mcpd_core.server.directory import DataDirectory
from mcpd_core.server.lifecycle import Linger, Stop
from mcpd_core.server.listener import Listener
from mcpd_core.server.serving import _farewell
from mcpd_core.server.streams import LineChannel
from mcpd_core.settings import load_settings

TOOLS = """
    from __future__ import annotations
    import anyio
    from mcpd_core import tool

    @tool
    async def say(text: str) -> str:
        return text

    @tool
    async def wait(seconds: float) -> str:
        await anyio.sleep(seconds)
        return "waited"
"""
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which event loop the server runs on."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    else:
        pytest.importorskip("uvloop")
    name: str = request.param
    return name


class Client:
    """A client in a thread of its own, as it would be in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._socket = attach.connect(str(directory))
        self._buffer = b""
        self.sent = 0

    def send(self, method: str, params: Any = None) -> int:
        self.sent += 1
        message = {"jsonrpc": "2.0", "id": self.sent, "method": method, "params": params or {}}
        self._write(message)
        return self.sent

    def _write(self, message: Any) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[self._socket.send(data) :]

    def receive(self) -> Any:
        while b"\n" not in self._buffer:
            more = self._socket.recv(1 << 16)
            if not more:
                return None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def introduce(self) -> Client:
        self.send("initialize", HELLO)
        assert self.receive()["result"]["serverInfo"]["name"] == "mcpd"
        return self

    def call(self, tool: str, **arguments: Any) -> int:
        return self.send("tools/call", {"name": tool, "arguments": arguments})

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def make_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Host]:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"daemon_tools_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(TOOLS))
    functions = tools_of(importlib.import_module(module))
    row = PluginRow(
        name="tools",
        distribution="mcpd-tools",
        version="1.0",
        runtime="asyncio",
        state="enabled",
        entry=module,
        tools=tuple(describe(f, plugin="tools", runtime="asyncio") for f in functions),
    )

    def make() -> Host:
        settings = load_settings(config=None, env={}, overrides={})
        return Host(Inventory((row,)), settings, data_dir=tmp_path)

    return make


@pytest.fixture(autouse=True)
def _unfreeze() -> Iterator[None]:
    """Undo what suits a server and not a test run: exempting everything from collection."""
    yield
    gc.unfreeze()


class Visitor(threading.Thread):
    """Does something to a server as soon as it is ready; `check` re-raises what failed."""

    def __init__(self, visit: Callable[[], None]) -> None:
        super().__init__()
        self._visit = visit
        self._failure: BaseException | None = None
        self.places: list[str] = []

    def ready(self, places: list[str]) -> None:
        self.places = places
        self.start()

    def run(self) -> None:
        try:
            self._visit()
        except BaseException as exc:  # noqa: BLE001 - raised again in the test's thread
            self._failure = exc
            os.kill(os.getpid(), signal.SIGTERM)

    def check(self) -> None:
        self.join(10)
        if self._failure is not None:
            raise self._failure


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# --- a daemon -------------------------------------------------------------------------------------


def test_a_daemon_serves_until_it_is_told_to_stop(
    tmp_path: Path, make_host: Callable[[], Host], loop: str
) -> None:
    def visit() -> None:
        one, other = Client(tmp_path).introduce(), Client(tmp_path).introduce()
        one.close()
        other.call("say", text="hello")
        assert other.receive()["result"]["content"][0]["text"] == "hello"
        description = json.loads((tmp_path / "daemon.json").read_text())
        assert description["pid"] == os.getpid()
        with pytest.raises(DirectoryOwned):
            run_daemon(make_host, data_dir=tmp_path, ready=print)
        terminate()
        assert other.receive() is None
        other.close()

    visitor = Visitor(visit)
    assert run_daemon(make_host, data_dir=tmp_path, ready=visitor.ready, plugins="tools") == 0
    visitor.check()
    assert visitor.places == [f"unix:{tmp_path / 'mcpd.sock'}"]
    assert not (tmp_path / "mcpd.sock").exists()
    assert not (tmp_path / "daemon.json").exists()


def test_calls_in_flight_are_finished_when_the_server_stops(
    tmp_path: Path, make_host: Callable[[], Host], loop: str
) -> None:
    answers: list[Any] = []

    def visit() -> None:
        client = Client(tmp_path).introduce()
        slow = {client.call("wait", seconds=0.3) for _ in range(3)}
        client.call("say", text="they have begun")
        assert client.receive()["id"] not in slow
        terminate()
        while (tmp_path / "mcpd.sock").exists():
            time.sleep(0.001)
        late = client.call("say", text="too late")
        while (answer := client.receive()) is not None:
            answers.append(answer)
        refused = [answer for answer in answers if answer["id"] == late]
        assert refused[0]["error"]["data"]["code"] == "host_closed"
        finished = [answer for answer in answers if answer["id"] in slow]
        assert [each["result"]["content"][0]["text"] for each in finished] == ["waited"] * 3
        client.close()

    visitor = Visitor(visit)
    run_daemon(make_host, data_dir=tmp_path, ready=visitor.ready, grace=10)
    visitor.check()


def test_calls_that_outlast_the_grace_are_cancelled_and_answered(
    tmp_path: Path, make_host: Callable[[], Host]
) -> None:
    def visit() -> None:
        client = Client(tmp_path).introduce()
        client.call("wait", seconds=60)
        client.call("say", text="it has begun")
        client.receive()
        terminate()
        assert client.receive()["result"]["isError"] is True
        assert client.receive() is None
        client.close()

    visitor = Visitor(visit)
    run_daemon(make_host, data_dir=tmp_path, ready=visitor.ready, grace=0.05)
    visitor.check()


def test_a_daemon_that_lingers_leaves_after_its_last_client(
    tmp_path: Path, make_host: Callable[[], Host], loop: str
) -> None:
    def visit() -> None:
        client = Client(tmp_path).introduce()
        client.close()

    visitor = Visitor(visit)
    run_daemon(make_host, data_dir=tmp_path, ready=visitor.ready, linger=0.05)
    visitor.check()
    assert not (tmp_path / "mcpd.sock").exists()


def test_a_daemon_that_lingers_leaves_although_nobody_ever_came(
    tmp_path: Path, make_host: Callable[[], Host]
) -> None:
    run_daemon(make_host, data_dir=tmp_path, ready=lambda _: None, linger=0.01)


def test_pending_work_and_running_calls_keep_a_daemon(
    tmp_path: Path, make_host: Callable[[], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Working(Host):
        def pending(self) -> list[str]:
            asked.append(1)
            return ["2 tasks running"] if len(asked) < 3 else []

        @property
        def in_flight(self) -> int:
            return 1 if len(asked) < 5 else 0

    def make() -> Host:
        host = make_host()
        host.__class__ = Working
        return host

    run_daemon(make, data_dir=tmp_path, ready=lambda _: None, linger=0.01)
    assert len(asked) == 5


def test_a_client_that_comes_at_the_moment_of_leaving_is_served(
    tmp_path: Path, make_host: Callable[[], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    retire = DataDirectory.retire
    late: list[Client] = []

    def slow(directory: DataDirectory) -> None:
        # The client connects before the path is gone, and the loop has not looked yet.
        if not late:
            late.append(Client(tmp_path))
        retire(directory)

    monkeypatch.setattr(DataDirectory, "retire", slow)

    def visit() -> None:
        while not late:
            time.sleep(0.001)
        late[0].introduce()
        # And the daemon listens again.
        Client(tmp_path).introduce().close()
        late[0].close()

    visitor = Visitor(visit)
    run_daemon(make_host, data_dir=tmp_path, ready=visitor.ready, linger=0.05)
    visitor.check()
    assert len(late) == 1


def test_services_that_cannot_be_started_are_logged_and_disturb_nobody(
    tmp_path: Path, make_host: Callable[[], Host], caplog: pytest.LogCaptureFixture
) -> None:
    class Unlucky(Host):
        async def start_services(self) -> None:
            raise RuntimeError("no services today")

    def make() -> Host:
        host = make_host()
        host.__class__ = Unlucky
        return host

    def visit() -> None:
        Client(tmp_path).introduce().close()
        terminate()

    visitor = Visitor(visit)
    run_daemon(make, data_dir=tmp_path, ready=visitor.ready)
    visitor.check()
    assert "no services today" in caplog.text


def test_services_that_are_still_starting_do_not_hold_the_server_up(
    tmp_path: Path, make_host: Callable[[], Host]
) -> None:
    class Slow(Host):
        async def start_services(self) -> None:
            await asyncio.sleep(3600)

    def make() -> Host:
        host = make_host()
        host.__class__ = Slow
        return host

    run_daemon(make, data_dir=tmp_path, ready=lambda _: terminate())


def test_a_failure_at_the_start_leaves_the_directory_to_the_next(tmp_path: Path) -> None:
    def fail() -> Host:
        raise RuntimeError("no host")

    for run in (run_daemon, run_standalone):
        with pytest.raises(RuntimeError, match="no host"):
            run(fail, data_dir=tmp_path, ready=print)
    directory = DataDirectory(tmp_path)
    directory.claim()
    directory.release()


@pytest.mark.parametrize("explained", [True, False])
def test_an_sdk_that_cannot_be_imported_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explained: bool
) -> None:
    monkeypatch.setitem(sys.modules, "mcpd_core.server.serving", None)
    monkeypatch.delattr("mcpd_core.server.serving", raising=False)
    answer = DependencyBroken("The distribution x is damaged.") if explained else None
    monkeypatch.setattr("mcpd_core.faults.explain_import_failure", lambda exc: answer)
    expected: Any = DependencyBroken if explained else ImportError
    with pytest.raises(expected):
        run_daemon(lambda: None, data_dir=tmp_path, ready=print)  # type: ignore[arg-type,return-value]


def test_tasks_that_are_left_over_are_cancelled(loop: str) -> None:
    ended: list[str] = []

    async def leave_something() -> str:
        async def leftover() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("leftover")

        task = asyncio.create_task(leftover())
        await asyncio.sleep(0)
        assert not task.done()
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    assert daemon._run(leave_something()) == loop
    assert ended == ["leftover"]


# --- standalone -----------------------------------------------------------------------------------


@contextmanager
def replaced_stdio() -> Iterator[tuple[int, int]]:
    """Replace descriptors 0 and 1; yield the other ends.

    Not a fixture, because pytest puts its own capture in their place between set-up and test.
    """
    kept = os.dup(0), os.dup(1)
    reading, client_out = os.pipe()
    client_in, writing = os.pipe()
    os.dup2(reading, 0)
    os.dup2(writing, 1)
    os.close(reading)
    os.close(writing)
    try:
        yield client_in, client_out
    finally:
        os.dup2(kept[0], 0)
        os.dup2(kept[1], 1)
        os.close(kept[0])
        os.close(kept[1])
        os.close(client_in)


def requests(*messages: tuple[str, Any]) -> bytes:
    lines = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(messages, 1)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def call(tool: str, **arguments: Any) -> tuple[str, Any]:
    return "tools/call", {"name": tool, "arguments": arguments}


def test_requests_that_are_piped_in_are_all_answered(
    tmp_path: Path, make_host: Callable[[], Host], loop: str
) -> None:
    slow = call("wait", seconds=0.2)
    places: list[str] = []
    with replaced_stdio() as (client_in, client_out):
        os.write(client_out, requests(("initialize", HELLO), slow, call("say", text="hello")))
        os.close(client_out)
        assert run_standalone(make_host, data_dir=tmp_path, ready=places.extend) == 0
        answers = [json.loads(line) for line in os.read(client_in, 1 << 16).splitlines()]
    assert [answer["id"] for answer in answers] == [1, 3, 2]
    assert places == ["stdio"]


def test_a_standalone_server_owns_its_directory(
    tmp_path: Path, make_host: Callable[[], Host]
) -> None:
    refused: list[Any] = []

    def visit() -> None:
        with pytest.raises(DirectoryOwned) as caught:
            DataDirectory(tmp_path).claim()
        refused.append(caught.value.data["pid"])
        os.close(client_out)

    visitor = Visitor(visit)
    with replaced_stdio() as (_, client_out):
        run_standalone(make_host, data_dir=tmp_path, ready=visitor.ready)
        visitor.check()
    assert refused == [os.getpid()]


def test_a_standalone_server_finishes_its_calls_when_it_is_told_to_stop(
    tmp_path: Path, make_host: Callable[[], Host]
) -> None:
    answers: list[Any] = []

    def visit() -> None:
        while len(answers) < 2:
            answers.extend(os.read(client_in, 1 << 16).splitlines())
        terminate()
        answers.extend(os.read(client_in, 1 << 16).splitlines())

    visitor = Visitor(visit)
    with replaced_stdio() as (client_in, client_out):
        slow, quick = call("wait", seconds=0.3), call("say", text="it has begun")
        os.write(client_out, requests(("initialize", HELLO), slow, quick))
        run_standalone(make_host, data_dir=tmp_path, ready=visitor.ready)
        visitor.check()
        os.close(client_out)
    assert [json.loads(answer)["id"] for answer in answers] == [1, 3, 2]
    assert json.loads(answers[2])["result"]["content"][0]["text"] == "waited"


def test_a_session_that_ignores_the_end_is_cancelled(
    tmp_path: Path,
    make_host: Callable[[], Host],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mcpd_core.server import serving

    async def deaf(self: Any, channel: LineChannel, session: Any) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr("mcpd_core.server.mcp.McpServer.serve", deaf)
    monkeypatch.setattr(serving, "FAREWELL", 0.01)
    with replaced_stdio() as (_, client_out):
        run_standalone(make_host, data_dir=tmp_path, ready=lambda _: terminate())
        os.close(client_out)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_second_signal_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr("mcpd_core.server.lifecycle.os._exit", exits.append)
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(stop.wait(), 10)
        stop.request("a later reason")
        assert exits == []
        os.kill(os.getpid(), signal.SIGTERM)
        while not exits:
            await asyncio.sleep(0.001)
    assert exits == [128 + signal.SIGTERM]


@pytest.mark.anyio
async def test_a_client_that_comes_back_in_time_keeps_the_server() -> None:
    left = asyncio.Event()
    linger = Linger(0.05, needed=list, leave=left.set)
    linger.clients(0)
    linger.clients(1)
    await asyncio.sleep(0.1)
    assert not left.is_set()
    linger.clients(0)
    await asyncio.wait_for(left.wait(), 10)


# --- the listener ---------------------------------------------------------------------------------


async def idle(channel: LineChannel, session: Any) -> None:
    await channel.line()


def bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    sock.setblocking(False)
    return sock


async def until(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), 10)


@pytest.mark.anyio
async def test_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    served = Listener(idle, counts.append)
    served.listen(bound(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        monkeypatch.setattr(listener, "peer_uid", lambda _: os.geteuid() + 1)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, str(tmp_path / "s"))
        assert await asyncio.wait_for(loop.sock_recv(client, 1), 10) == b""
    await served.close(1)
    assert counts == []


def test_the_kernel_says_who_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    assert listener.peer_uid(one) == os.geteuid()
    monkeypatch.setattr(sys, "platform", "other")
    assert listener.peer_uid(one) == os.geteuid()
    one.close()
    other.close()


@pytest.mark.anyio
async def test_a_session_that_fails_is_logged_and_disturbs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(channel: LineChannel, session: Any) -> None:
        if session.client == "socket:1":
            raise RuntimeError("a broken session")
        await channel.line()

    counts: list[int] = []
    served = Listener(serve, counts.append)
    served.listen(bound(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.connect(str(tmp_path / "s"))
        await until(lambda: counts == [1, 0])
        other.connect(str(tmp_path / "s"))
        await until(lambda: counts == [1, 0, 1])
        await served.close(10)
    assert counts == [1, 0, 1, 0]
    assert "a broken session" in caplog.text


@pytest.mark.anyio
async def test_a_session_that_ignores_the_end_of_the_listener_is_cancelled(tmp_path: Path) -> None:
    cancelled: list[bool] = []

    async def deaf(channel: LineChannel, session: Any) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.append(True)

    counts: list[int] = []
    served = Listener(deaf, counts.append)
    served.listen(bound(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        await until(lambda: counts == [1])
        await served.close(0.01)
    assert cancelled == [True]
    await served.close(0.01)


@pytest.mark.anyio
async def test_a_client_that_does_not_read_is_cut_off_with_its_session(tmp_path: Path) -> None:
    async def talkative(channel: LineChannel, session: Any) -> None:
        channel.write(b"y" * (8 << 20))
        await channel.line()
        await channel.drain()

    counts: list[int] = []
    served = Listener(talkative, counts.append)
    served.listen(bound(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        await until(lambda: counts == [1])
        with anyio.fail_after(3):
            # Its session would wait for five seconds more, by itself.
            await served.close(0.01)
    assert counts == [1, 0]


@pytest.mark.parametrize(
    ("left", "seconds"), [(100.0, 5.0), (3.0, 3.0), (0.2, 1.0), (-9.0, 1.0), (math.inf, 5.0)]
)
def test_clients_take_their_last_answers_in_what_is_left_of_the_grace(
    left: float, seconds: float
) -> None:
    assert _farewell(left) == seconds


class Accepting:
    """A listening socket whose `accept` fails as it is told to."""

    def __init__(self, sock: socket.socket, failures: list[OSError]) -> None:
        self._sock = sock
        self._failures = failures
        self.fileno = sock.fileno
        self.close = sock.close

    def accept(self) -> Any:
        if self._failures:
            raise self._failures.pop(0)
        return self._sock.accept()


@pytest.mark.anyio
async def test_running_out_of_descriptors_makes_clients_wait_and_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "_REST", 0.01)
    counts: list[int] = []
    served = Listener(idle, counts.append)
    failures = [ConnectionAbortedError(), OSError(24, "Too many open files")]
    served.listen(Accepting(bound(tmp_path / "s"), failures))  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        await until(lambda: counts == [1])
        await served.close(10)
    assert "Too many open files" in caplog.text


@pytest.mark.anyio
async def test_a_listener_that_rests_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger("mcpd_core").setLevel(logging.CRITICAL)
    served = Listener(idle, lambda _: None)
    failures = [OSError(24, "Too many open files")]
    served.listen(Accepting(bound(tmp_path / "s"), failures))  # type: ignore[arg-type]
    assert served.backlog() == 0
    served.stop()
    served.stop()
    assert served.backlog() == 0
    logging.getLogger("mcpd_core").setLevel(logging.NOTSET)
