"""What the tests of legacy trees share: settings that mount trees, commands, and whole sessions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

from mcpd_legacy_tools.records import LegacyTool, Scan
from mcpd_legacy_tools.testing import Expected, ExpectedTool

MCPD = [sys.executable, "-m", "mcpd_core"]
#: Seconds; far more than anything here takes.
LONG = 50


@dataclass(frozen=True)
class Mounted:
    """Trees that settings mount.

    :ivar folder: holds the settings, and everything that mcpd writes.
    """

    folder: Path
    config: Path

    @property
    def cache(self) -> Path:
        return self.folder / "scan.cache"

    @property
    def env(self) -> dict[str, str]:
        """An environment in which nothing else is set."""
        unset = ("MCPD_", "XDG_", "IPFS_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(unset)}
        return env | {"HOME": str(self.folder), "MCPD_DATA_DIR": str(self.folder / "data")}

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of mcpd with these settings."""
        command, options = [*MCPD, *args], ("--config", str(self.config))
        done = subprocess.run(
            [*command, *options],
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
            env=self.env,
            cwd=self.folder,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def json(self, *args: str) -> Any:
        """Run a command and return the JSON that it prints."""
        return json.loads(self.run(*args, "--json").stdout)

    def server(self) -> StdioServerParameters:
        """Return what starts a server of its own for one client."""
        serve = ("serve", "--transport", "stdio", "--standalone", "--plugins", "legacy_tools")
        command = [*MCPD, *serve, "--config", str(self.config)]
        return StdioServerParameters(
            command=command[0], args=command[1:], env=self.env, cwd=self.folder
        )


def mount(
    folder: Path,
    trees: Mapping[str, Path],
    *,
    import_timeout: float = 30,
    **section: object,
) -> Mounted:
    """Write settings that mount trees by their names.

    :param section: further keys of ``[legacy_tools]``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "mcpd.toml"
    mounted = Mounted(folder, config)
    keys = {"installed": False, "cache": str(mounted.cache), **section}
    lines = ["[executor]", f"import_timeout = {import_timeout}", "[legacy_tools]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    for name, path in trees.items():
        lines += ["[[legacy_tools.trees]]", f'name = "{name}"', f"path = {json.dumps(str(path))}"]
    config.write_text("\n".join([*lines, ""]))
    return mounted


def by_code(found: Scan) -> dict[tuple[str, str], LegacyTool]:
    """Return the tools of a scan by their file and function."""
    return {(tool.file, tool.function): tool for tool in found.tools}


@dataclass(frozen=True)
class Answer:
    """What came of a call.

    :ivar refused: whether the host said that it did not get as far as the tool's code, which is an
        error of JSON-RPC and no result.
    """

    is_error: bool
    text: str
    structured: Any = None
    refused: bool = False


@dataclass(frozen=True)
class Session:
    """What a client of the SDK was told.

    :ivar listed: ``tools/list``, all pages.
    :ivar answers: in the order of the calls.
    """

    listed: tuple[Any, ...]
    answers: tuple[Answer, ...]

    @property
    def names(self) -> set[str]:
        return {tool.name for tool in self.listed}


def session(
    mounted: Mounted,
    calls: Sequence[tuple[str, Mapping[str, Any]]] = (),
    *,
    once_listed: Callable[[], None] = lambda: None,
    patience: float = LONG,
) -> Session:
    """Connect the SDK's client to a server, list the tools, and make calls one after the other.

    :param once_listed: called between the two.
    :param patience: seconds that all of it may take.
    """

    async def converse() -> Session:
        with anyio.fail_after(patience):
            async with Client(mounted.server(), mode="legacy") as client:
                page = await client.list_tools()
                listed = list(page.tools)
                while page.next_cursor:
                    page = await client.list_tools(cursor=page.next_cursor)
                    listed += page.tools
                once_listed()
                answers = [await ask(client, name, given) for name, given in calls]
        return Session(tuple(listed), tuple(answers))

    return anyio.run(converse)


async def ask(client: Client, name: str, arguments: Mapping[str, Any]) -> Answer:
    """Call a tool."""
    try:
        result = await client.call_tool(name, dict(arguments))
    except MCPError as error:
        return Answer(True, str(error), refused=True)
    text = "\n".join(getattr(block, "text", "") for block in result.content)
    return Answer(bool(result.is_error), text, result.structured_content)


def misfits(expected: ExpectedTool, answer: Answer) -> Iterator[str]:
    """Say what about an answer is not as expected."""
    said = answer.text[:300]
    if answer.is_error != (expected.fails or not expected.runs):
        yield f"isError is {answer.is_error}: {said}"
    for words in (expected.says, *expected.missing):
        if words not in answer.text:
            yield f"{words!r} is not in the text: {said}"
    if not expected.runs or expected.answer is None:
        return
    if isinstance(expected.answer, dict):
        if answer.structured != expected.answer:
            yield f"structuredContent is {answer.structured}: {said}"
    elif isinstance(expected.answer, str):
        if answer.text != expected.answer:
            yield f"the text is {said!r}"
    elif json.loads(answer.text) != expected.answer:
        yield f"the text is {said!r}"


def names_of(expected: Expected, found: Scan) -> dict[tuple[str, str], str]:
    """Return what each tool of a planted tree is served as, having checked those that are known."""
    tools = by_code(found)
    names = {tool.key: tools[tool.key].name for tool in expected.tools}
    assert {tool.key: tool.name or names[tool.key] for tool in expected.tools} == names
    return names
