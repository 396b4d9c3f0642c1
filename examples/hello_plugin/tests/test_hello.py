"""The example's tools, called as anybody calls them: through the command line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp_types import (
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from mcpd_hello_plugin import tools

PROJECT = Path(__file__).parent.parent


def mcpd(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcpd_core", *args],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def call(tool: str, *pairs: str) -> subprocess.CompletedProcess[str]:
    options = ["--local", "--plugins", "hello,hello-trio", "--json"]
    return mcpd("tools", "call", tool, *pairs, *options)


def answer(tool: str, *pairs: str) -> Any:
    done = call(tool, *pairs)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["legacy", "auto"], ids=["handshake", "2026-07-28"])
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Client]:
    """An MCP client of either era, connected to a server of its own."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "mcpd_core", "serve", "--standalone", "--plugins", "hello"],
        env={**os.environ, "MCPD_DATA_DIR": str(tmp_path)},
    )
    async with Client(server, mode=request.param) as connected:
        yield connected


@pytest.mark.anyio
async def test_a_tool_is_still_a_function() -> None:
    assert await tools.hello_greet("Ada", greeting="Good day") == "Good day, Ada!"


def test_the_asyncio_tool() -> None:
    assert answer("hello_greet", "name=Ada") == {"text": "Hello, Ada!"}


def test_the_tool_in_a_thread(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    assert answer("hello_digest", f"path={file}") == {
        "path": str(file),
        "sha256": hashlib.sha256(b"content").hexdigest(),
        "bytes": 7,
    }


def test_a_failure_says_what_to_do_next(tmp_path: Path) -> None:
    done = call("hello_digest", f"path={tmp_path / 'missing'}")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["message"].endswith("cannot be read: No such file or directory.")
    assert error["hint"]
    assert error["retryable"] is False


def test_the_neutral_tool_reports_progress() -> None:
    done = call("hello_wait", "seconds=0.01")
    assert json.loads(done.stdout) == {"text": "waited 0.01 s"}
    assert done.stderr.splitlines() == [f"{step}/10" for step in range(10)]


def test_the_trio_tool_runs_everything_at_once() -> None:
    assert answer("hello_race", "seconds=[0.2, 0, 0.1]") == {"result": [1, 2, 0]}


def test_a_trio_tool_calls_an_asyncio_tool() -> None:
    assert answer("hello_greet_all", 'names=["Ada", "Grace"]') == {
        "result": ["Hello, Ada!", "Hello, Grace!"]
    }


def test_what_the_called_tool_refuses_is_reported_by_the_caller() -> None:
    done = call("hello_greet_all", 'names=["Ada", ""]')
    assert done.returncode == 1
    message = json.loads(done.stdout)["error"]["message"]
    assert message.startswith("Not everybody could be greeted. '': The arguments do not fit")


@pytest.mark.anyio
async def test_the_resources_are_read(client: Client) -> None:
    listed = (await client.list_resources()).resources
    assert [resource.uri for resource in listed] == ["hello://languages"]
    (template,) = (await client.list_resource_templates()).resource_templates
    assert template.uri_template == "hello://greetings/{language}"
    for uri, mime_type, text in (
        ("hello://languages", "application/json", '["de","en","eo","es","fr"]'),
        ("hello://greetings/fr", "text/plain", "Bonjour"),
    ):
        (content,) = (await client.read_resource(uri)).contents
        assert isinstance(content, TextResourceContents)
        assert (content.mime_type, content.text) == (mime_type, text)
    try:
        await client.read_resource("hello://greetings/xx")
    except MCPError as error:
        assert error.message == "There is no greeting in 'xx'."
    else:
        raise AssertionError("it was found")


@pytest.mark.anyio
async def test_languages_are_completed(client: Client) -> None:
    for ref in (
        ResourceTemplateReference(uri="hello://greetings/{language}"),
        PromptReference(name="hello_letter"),
    ):
        found = await client.complete(ref, {"name": "language", "value": "e"})
        assert found.completion.values == ["en", "eo", "es"]


@pytest.mark.anyio
async def test_the_prompt_is_written(client: Client) -> None:
    (prompt,) = (await client.list_prompts()).prompts
    assert [argument.name for argument in prompt.arguments or []] == ["name", "language"]
    written = await client.get_prompt("hello_letter", {"name": "Ada", "language": "eo"})
    assert [(message.role, message.content) for message in written.messages] == [
        ("user", TextContent(text="Write a short letter to Ada. Its language is 'eo'.")),
        ("assistant", TextContent(text="Saluton, Ada,")),
    ]


def test_the_manifest_fits_the_code() -> None:
    done = mcpd("plugins", "manifest", str(PROJECT), "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("plugin", ["hello", "hello-trio"])
def test_the_plugins_pass_the_check(plugin: str) -> None:
    done = mcpd("plugins", "check", plugin)
    assert done.returncode == 0, done.stderr
