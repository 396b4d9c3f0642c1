"""The client of the official TypeScript SDK, over HTTP and stdio, in both protocol eras."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .node_kit import MCPD, NODE_HOME, Daemon, environment, install, node, run, serving

VERSIONS = json.loads(Path(__file__).with_name("node").joinpath("package.json").read_text())
SDK = VERSIONS["dependencies"]["@modelcontextprotocol/client"]
SCRIPT = str(Path(__file__).with_name("node") / "client.mjs")

HERE = """
    import asyncio, os, sniffio
    from typing_extensions import TypedDict
    from mcpd_core import Context, Image, hookimpl, tool

    @hookimpl
    def mcpd_register_tools(registrar):
        registrar.add_module(__name__)

    class Place(TypedDict):
        pid: int
        library: str

    @tool
    async def {0}() -> Place:
        return {{"pid": os.getpid(), "library": sniffio.current_async_library()}}
"""
MORE = """
    ended = asyncio.Event()

    @tool
    async def endless(ctx: Context) -> str:
        ctx.progress(1, None, "begun")
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    @tool
    async def end_of_endless() -> str:
        await ended.wait()
        return "it was cancelled"

    @tool
    def picture() -> list[str | Image]:
        return ["A picture:", Image(b"PNG", "image/png")]
"""
#: More than fit on one page of a list.
MANY = """
    from mcpd_core import ToolSpec, hookimpl

    @hookimpl
    def mcpd_tool_metadata(plugin):
        schema = {"type": "object", "properties": {}}
        return [
            ToolSpec(f"many_{n:04}", "One of many.", schema, f"{__name__}:{plugin}", plugin)
            for n in range(2500)
        ]
"""
#: What offers what is called here, and the example.
PLUGINS = "hello,task_queue,here,there"


class NodeClient:
    """A client in a process of its own.

    :param server: the URL of one, or the command that it is started with.
    :param era: ``legacy`` for the handshake, a revision, or ``auto``.
    :ivar met: what the two are.
    """

    def __init__(self, folder: Path, server: str | list[str], era: str) -> None:
        if isinstance(server, str):
            how: dict[str, Any] = {"url": server}
        else:
            how = {"command": server[0], "args": server[1:]}
        self.process = subprocess.Popen(
            [node(), SCRIPT, str(NODE_HOME), json.dumps({**how, "era": era})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(folder),
            cwd=folder,
        )
        self.met: dict[str, Any] = {}

    def meet(self) -> None:
        """Wait until it is connected."""
        self.met = self._hear()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Have something done; return its ``answer`` or its ``error``."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._hear()

    def answer(self, **request: Any) -> Any:
        """Have something done that succeeds."""
        said = self.ask(**request)
        assert "answer" in said, said
        return said["answer"]

    def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool; return the result."""
        result: dict[str, Any] = self.answer(call={"name": tool, "arguments": arguments})
        return result

    def data(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool that succeeds; return its structured content."""
        result = self.call(tool, **arguments)
        assert not result.get("isError"), result
        data: dict[str, Any] = result["structuredContent"]
        return data

    def leave(self) -> int:
        """End the session; return the exit status."""
        self.process.communicate()
        return self.process.returncode

    def _hear(self) -> dict[str, Any]:
        # No deadline of its own: the test's time limit ends the processes.
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the client ended with status {self.process.wait()}"
        said: dict[str, Any] = json.loads(line)
        return said


Connect = Callable[..., NodeClient]


def installed(folder: Path) -> Path:
    """Install the plugins of these tests for a folder's processes."""
    install(folder, "here", HERE.format("here") + MORE)
    install(
        folder, "there", HERE.format("there").replace("import asyncio, os", "import os"), "trio"
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    """The daemon that most tests share."""
    with serving(folder, PLUGINS) as daemon:
        yield daemon


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Starts clients, as `NodeClient` is made; whatever still runs is killed afterwards."""
    with ExitStack() as stack:

        def connect(*args: Any) -> NodeClient:
            client = NodeClient(*args)
            stack.callback(client.process.communicate)
            stack.callback(client.process.kill)
            client.meet()
            return client

        yield connect


@pytest.fixture(params=["legacy", "2026-07-28"], ids=["handshake", "2026-07-28"])
def era(request: pytest.FixtureRequest) -> str:
    """How the client connects."""
    era: str = request.param
    return era


@pytest.fixture(params=["http", "stdio"])
def transport(request: pytest.FixtureRequest) -> str:
    """How the client reaches the daemon."""
    transport: str = request.param
    return transport


def server_of(daemon: Daemon, transport: str) -> str | list[str]:
    return daemon.url if transport == "http" else [*MCPD, "attach"]


@pytest.fixture
def client(daemon: Daemon, folder: Path, connect: Connect, transport: str, era: str) -> NodeClient:
    """A client of the shared daemon."""
    client = connect(folder, server_of(daemon, transport), era)
    assert (client.met["server"], client.met["sdk"]) == ("mcpd", SDK)
    assert client.met["protocol"] == (era if era != "legacy" else "2025-11-25")
    return client


def test_a_client_that_finds_out_itself_takes_the_later_era(
    folder: Path, daemon: Daemon, connect: Connect, transport: str
) -> None:
    client = connect(folder, server_of(daemon, transport), "auto")
    assert client.met["protocol"] == "2026-07-28"
    assert client.data("here")["pid"] == daemon.pid


def test_tools_of_either_runtime_are_listed_and_called(client: NodeClient, daemon: Daemon) -> None:
    assert {"hello_greet", "submit_task", "here", "there", "picture"} <= {*client.answer(list=True)}
    greeted = client.call("hello_greet", name="Ada")
    assert greeted["content"] == [{"type": "text", "text": "Hello, Ada!"}]
    assert client.data("here") == {"pid": daemon.pid, "library": "asyncio"}
    assert client.data("there") == {"pid": daemon.pid, "library": "trio"}
    assert client.met["pid"] != daemon.pid
    shown = client.call("picture")["content"]
    assert shown[0] == {"type": "text", "text": "A picture:"}
    assert shown[1] == {"type": "image", "data": "UE5H", "mimeType": "image/png"}


def test_tasks_are_submitted_and_their_results_fetched(client: NodeClient) -> None:
    submitted = client.data("submit_task", tool="hello_greet", arguments={"name": "Grace"})
    result = client.data("get_task_result", task_id=submitted["task_id"], wait=30)
    assert (result["state"], result["text"]) == ("succeeded", "Hello, Grace!")


def test_failures_are_results_and_refusals_are_errors(client: NodeClient) -> None:
    failed = client.call("hello_digest", path="/nothing/here")
    assert failed["isError"]
    assert "/nothing/here cannot be read" in failed["content"][0]["text"]
    misfit = client.call("hello_greet", nam="Ada")
    assert misfit["isError"]
    assert "name" in misfit["content"][0]["text"]
    error = client.ask(call={"name": "hello_greets", "arguments": {}})["error"]
    assert (error["kind"], error["code"]) == ("ProtocolError", -32602)
    assert "hello_greet" in error["message"]


def test_progress_is_reported_and_a_call_can_be_given_up(client: NodeClient) -> None:
    progress = client.call("hello_wait", seconds=0.1)["progress"]
    assert progress[0][:2] == [0, 10]
    assert progress == sorted(progress)
    given_up = client.answer(call={"name": "endless", "arguments": {}}, abort=1)
    assert given_up["progress"] == [[1, None, "begun"]]
    assert client.call("end_of_endless")["content"][0]["text"] == "it was cancelled"


def test_clients_are_told_when_plugins_are_switched(
    tmp_path: Path, connect: Connect, era: str
) -> None:
    with serving(installed(tmp_path), PLUGINS) as daemon:
        clients = [
            connect(tmp_path, server_of(daemon, transport), era) for transport in ("http", "stdio")
        ]
        for client in clients:
            assert "there" in client.answer(list=True)
        for change in ("disable", "enable"):
            done = run(tmp_path, *MCPD, "plugins", change, "there")
            assert done.returncode == 0, done.stderr
            for client in clients:
                tools = client.answer(changed=True)
                assert "here" in tools
                assert ("there" in tools) is (change == "enable")
        for client in clients:
            assert client.data("there")["pid"] == daemon.pid


@pytest.mark.parametrize(
    "command", [["serve", "--transport", "stdio", "--plugins", "here"], ["attach", "--spawn"]]
)
def test_a_client_over_stdio_starts_the_daemon_that_the_next_one_finds(
    tmp_path: Path, connect: Connect, era: str, command: list[str]
) -> None:
    first = connect(installed(tmp_path), [*MCPD, *command], era)
    pid = first.data("here")["pid"]
    try:
        assert pid != first.met["pid"]
        assert first.leave() == 0
        second = connect(tmp_path, [*MCPD, *command], era)
        assert second.data("here")["pid"] == pid
    finally:
        os.kill(pid, signal.SIGTERM)


def test_a_client_collects_all_pages_of_a_long_list(
    tmp_path: Path, connect: Connect, transport: str, era: str
) -> None:
    install(tmp_path, "many", MANY)
    with serving(tmp_path, "many") as daemon:
        client = connect(tmp_path, server_of(daemon, transport), era)
        names = client.answer(list=True)
        assert names == [f"many_{n:04}" for n in range(2500)]
        page = client.answer(page=None)
        assert (page["names"], bool(page["next"])) == (names[:1000], True)
        page = client.answer(page=page["next"])
        assert page["names"] == names[1000:2000]
        page = client.answer(page=page["next"])
        assert (page["names"], page["next"]) == (names[2000:], None)
