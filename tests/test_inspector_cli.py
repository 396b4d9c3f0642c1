"""The command line of the MCP Inspector, over HTTP and stdio, in both protocol eras."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .node_kit import MCPD, NODE_HOME, Daemon, install, node, run, serving

PACKAGE = NODE_HOME / "node_modules" / "@modelcontextprotocol" / "inspector"
INSPECTOR = str(PACKAGE / "clients" / "launcher" / "build" / "index.js")
#: With what the Inspector ends.
UNREACHABLE, TOOL_FAILED = 4, 5
HERE = """
    import os
    from mcpd_core import hookimpl, tool

    @hookimpl
    def mcpd_register_tools(registrar):
        registrar.add_module(__name__)

    @tool
    async def here(times: int) -> dict[str, int]:
        return {"pid": os.getpid(), "times": times}
"""


class Inspector:
    """Runs the Inspector, once for each request.

    :param server: how it reaches the server.
    """

    def __init__(self, folder: Path, *server: str) -> None:
        self._folder = folder
        self._server = server

    def ask(self, method: str, *args: str, status: int = 0) -> tuple[dict[str, Any], str]:
        """Make a request; return the result and what is said on stderr."""
        command = (node(), INSPECTOR, "--cli", *self._server, "--method", method, *args)
        done = run(self._folder, *command)
        assert done.returncode == status, (done.stdout, done.stderr)
        return json.loads(done.stdout or "{}"), done.stderr

    def result(self, method: str, *args: str) -> dict[str, Any]:
        """Make a request that succeeds without a remark."""
        result, remarks = self.ask(method, *args)
        assert not remarks
        return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    install(folder, "here", HERE)
    return folder


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    with serving(folder, "hello,task_queue,here") as daemon:
        yield daemon


@pytest.fixture(params=["http", "stdio"])
def server(request: pytest.FixtureRequest, daemon: Daemon, folder: Path) -> tuple[str, ...]:
    """How the daemon is reached."""
    if request.param == "http":
        return (daemon.url,)
    # The Inspector hands no variables on.
    return (*MCPD, "attach", "--data-dir", str(folder / "data"))


@pytest.fixture(params=["legacy", "modern"])
def inspector(request: pytest.FixtureRequest, folder: Path, server: tuple[str, ...]) -> Inspector:
    return Inspector(folder, *server, "--protocol-era", request.param)


def test_tools_are_listed_with_portable_schemas_and_called(
    inspector: Inspector, daemon: Daemon
) -> None:
    # `--strict` makes a schema that some client could not use an error.
    tools = {tool["name"] for tool in inspector.result("tools/list", "--strict")["tools"]}
    assert {"hello_greet", "submit_task", "get_task_result", "here"} <= tools
    call = ("--tool-name", "here", "--tool-arg", "times=3")
    answer = inspector.result("tools/call", *call)["structuredContent"]
    assert answer == {"pid": daemon.pid, "times": 3}


def test_a_tool_that_fails_is_told_from_one_that_is_not_there(inspector: Inspector) -> None:
    call = ("--tool-name", "hello_digest", "--tool-arg", "path=/nothing/here")
    result, remarks = inspector.ask("tools/call", *call, status=TOOL_FAILED)
    assert result["isError"]
    assert "/nothing/here cannot be read" in result["content"][0]["text"]
    assert json.loads(remarks)["error"]["code"] == "tool_is_error"
    _, remarks = inspector.ask("tools/call", "--tool-name", "nothing", status=TOOL_FAILED)
    assert json.loads(remarks)["error"]["code"] == "tool_not_found"


def test_resources_and_prompts_are_listed_and_read(folder: Path, server: tuple[str, ...]) -> None:
    inspector = Inspector(folder, *server)
    resources = inspector.result("resources/list")["resources"]
    assert "hello://languages" in {resource["uri"] for resource in resources}
    (read,) = inspector.result("resources/read", "--uri", "hello://greetings/de")["contents"]
    assert read["text"] == "Hallo"
    prompts = inspector.result("prompts/list")["prompts"]
    assert "hello_letter" in {prompt["name"] for prompt in prompts}
    letter = ("--prompt-name", "hello_letter", "--prompt-args", "name=Ada")
    messages = inspector.result("prompts/get", *letter)["messages"]
    assert "Ada" in messages[0]["content"]["text"]


def test_a_server_that_is_not_there_is_named_as_such(folder: Path, daemon: Daemon) -> None:
    nowhere = daemon.url.replace("127.0.0.1", "127.0.0.99")
    _, remarks = Inspector(folder, nowhere).ask("tools/list", status=UNREACHABLE)
    assert json.loads(remarks)["error"]["code"] == "unreachable"
