"""An old tree of tools, served by a real `mcpd serve` to a real client."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

pytestmark = pytest.mark.anyio

#: An import bomb, which tells what was imported.
BOMB = """
import os, pathlib
with open(os.environ["IMPORTED"], "a") as record:
    record.write(f"{__name__}\\n")
"""
FILES = {
    "__init__.py": BOMB,
    "server/__init__.py": BOMB,
    "server/tools/__init__.py": BOMB,
    "server/tools/shared.py": BOMB + "CALLS = []\n",
    "server/tools/notes/__init__.py": BOMB,
    "server/tools/notes/take.py": BOMB
    + """
        import threading
        from old_server.server.tools.shared import CALLS

        def take_note(text: str, times: int = 1) -> dict:
            '''Take a note.'''
            print("a stray print", flush=True)
            os.write(1, b"a stray write\\n")
            CALLS.append(text)
            return {"success": True, "notes": CALLS * times, "pid": os.getpid(),
                    "off": os.environ["IPFS_DATASETS_AUTO_INSTALL"],
                    "thread": threading.current_thread() is not threading.main_thread()}
    """,
    "server/tools/notes/find.py": BOMB
    + """
        import asyncio
        from ..shared import CALLS

        async def find_note(text: str) -> dict:
            '''Find a note.'''
            await asyncio.sleep(0)
            if text not in CALLS:
                return {"status": "error", "error": f"no note {text!r}"}
            return {"status": "success", "found": CALLS.index(text), "pid": os.getpid()}
    """,
    "server/tools/notes/share.py": BOMB
    + """
        import trio
        from ..shared import CALLS

        async def share_notes() -> dict:
            '''Share all notes.'''
            await trio.sleep(0)
            return {"ok": True, "shared": len(CALLS), "pid": os.getpid()}

        share_notes._mcp_runtime = "trio"
    """,
    "server/tools/notes/never.py": BOMB + "def never_called(): return {}\n",
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for file, source in FILES.items():
        path = tmp_path / "lies/anywhere/old_server" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        head, _, rest = source.partition("\n        ")
        path.write_text(head + "\n" + textwrap.dedent("        " + rest if rest else ""))
    return tmp_path / "lies/anywhere/old_server/server/tools"


@asynccontextmanager
async def served(tmp_path: Path, tree: Path, **section: Any) -> Any:
    """Connect a client to a server of its own with nothing but the tree."""
    (tmp_path / "mcpd.toml").write_text(
        "\n".join(
            [
                "[legacy_tools]",
                f"paths = ['{tree}']",
                "installed = false",
                f"cache = '{tmp_path}/scan.cache'",
                *(f'{key} = "{value}"' for key, value in section.items()),
            ]
        )
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MCPD_", "IPFS_"))}
    env = {**kept, "IMPORTED": str(tmp_path / "imported")}
    arguments = ["-m", "mcpd_core", "serve", "--transport", "stdio", "--standalone"]
    arguments += ["--plugins", "legacy_tools", "--config", str(tmp_path / "mcpd.toml")]
    arguments += ["--data-dir", str(tmp_path / "data")]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=env)
    async with Client(server) as client:
        yield client


def imported(tmp_path: Path) -> list[str]:
    record = tmp_path / "imported"
    return record.read_text().splitlines() if record.exists() else []


def data(answer: Any) -> Mapping[str, Any]:
    assert answer.structured_content is not None, answer
    found: Mapping[str, Any] = answer.structured_content
    return found


@pytest.mark.parametrize("isolation", ["none", "process"])
async def test_a_client_calls_the_tools_of_a_tree(
    tmp_path: Path, tree: Path, isolation: str
) -> None:
    async with served(tmp_path, tree, isolation=isolation) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        assert {"notes__take_note", "notes__find_note", "notes__share_notes"} <= listed
        assert imported(tmp_path) == []

        taken = data(await client.call_tool("notes__take_note", {"text": "a", "times": "2"}))
        assert taken["notes"] == ["a", "a"]
        assert taken["off"] == "false"
        assert taken["thread"] is (isolation == "none")
        missed = await client.call_tool("notes__find_note", {"text": "b"})
        assert missed.is_error
        assert data(missed) == {"status": "error", "error": "no note 'b'"}
        found = data(await client.call_tool("notes__find_note", {"text": "a"}))
        shared = data(await client.call_tool("notes__share_notes"))
        assert (found["found"], shared["shared"]) == (0, 1)
        # One process has all of the state, whichever it is.
        assert taken["pid"] == found["pid"] == shared["pid"]
        misfit = await client.call_tool("notes__take_note", {"txt": "a"})
        assert misfit.is_error
        assert "did you mean 'text'" in str(misfit.content)
    package = "old_server.server.tools"
    assert imported(tmp_path) == [
        "old_server",
        "old_server.server",
        package,
        f"{package}.notes",
        f"{package}.notes.take",
        f"{package}.shared",
        f"{package}.notes.find",
        f"{package}.notes.share",
    ]
