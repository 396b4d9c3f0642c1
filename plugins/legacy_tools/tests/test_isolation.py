"""A tree in a process of its own: one for all of its tools, with their state, within its limits."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import ToolUnavailable
from mcpd_core.testing import MakeHost, PluginHost

from .running_kit import Planted, row

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("process")]

#: MiB in which the tools below have room, and a large allocation has not.
MEMORY_MB = 512

TOOLS = """
    import asyncio, os, time
    from .shared import NOTES

    def told(**more):
        return {"pid": os.getpid(), "notes": list(NOTES), **more}

    def plain(note):
        NOTES.append(note)
        return told(off=os.environ.get("IPFS_DATASETS_AUTO_INSTALL"))

    async def in_asyncio(note):
        NOTES.append(note)
        return told(task=asyncio.current_task() is not None)

    async def in_trio(note):
        import trio
        await trio.sleep(0)
        NOTES.append(note)
        return told(task=trio.lowlevel.current_task() is not None)

    def large(mebibytes):
        return {"held": len(bytearray(mebibytes << 20))}

    def endless(file):
        with open(file, "w") as note:
            note.write(str(os.getpid()))
        while True:
            time.sleep(60)

    def dies():
        os._exit(7)

    def leaves():
        raise ValueError("no such mode")
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def tree(tmp_path: Path) -> Planted:
    tree = Planted(tmp_path / "tree")
    tree.write("a/shared.py", "NOTES = []")
    tree.write("a/tools.py", TOOLS)
    return tree


def isolated(tree: Planted, function: str, name: str = "", **facts: Any) -> dict[str, Any]:
    given = {"placement": "process", "process": "tree", "memory_mb": MEMORY_MB, **facts}
    return tree.item("a/tools.py", function, name=name, **given)


async def data(host: PluginHost, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await host.call(tool, arguments)
    assert answer.structured is not None, answer
    return answer.structured


async def test_the_tools_of_a_tree_share_one_process_and_their_state(
    tree: Planted, mcpd_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IPFS_DATASETS_AUTO_INSTALL", raising=False)
    plugin = row(
        isolated(tree, "plain"),
        isolated(tree, "in_asyncio"),
        isolated(tree, "in_trio", runtime="trio"),
        isolated(tree, "plain", "apart", process="tree-640", memory_mb=640),
    )
    async with mcpd_host(plugin) as host:
        plain = await data(host, "plain", note=1)
        in_asyncio = await data(host, "in_asyncio", note=2)
        in_trio = await data(host, "in_trio", note=3)
        apart = await data(host, "apart", note=4)
    assert plain == {"pid": plain["pid"], "notes": [1], "off": "false"}
    assert in_asyncio == {"pid": plain["pid"], "notes": [1, 2], "task": True}
    assert in_trio == {"pid": plain["pid"], "notes": [1, 2, 3], "task": True}
    # Another limit is another process, and another process has another state.
    assert apart["notes"] == [4]
    assert len({os.getpid(), plain["pid"], apart["pid"]}) == 3
    assert tree.module("a/tools.py") not in sys.modules
    assert "IPFS_DATASETS_AUTO_INSTALL" not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes cannot be limited")
async def test_a_limit_that_is_hit_costs_the_state_and_not_the_next_call(
    tree: Planted, mcpd_host: MakeHost, tmp_path: Path
) -> None:
    names = ("plain", "large", "endless", "dies", "leaves")
    file = tmp_path / "pid"
    async with mcpd_host(row(*(isolated(tree, name) for name in names))) as host:
        first = await data(host, "plain", note=1)
        told = await host.call("leaves")
        assert "no such mode" in told.text
        assert (await data(host, "plain", note=2))["pid"] == first["pid"]

        too_large = (await host.call("large", {"mebibytes": 2 * MEMORY_MB})).error or {}
        assert too_large["code"] == "out_of_memory"
        second = await data(host, "plain", note=3)
        assert second["notes"] == [3]

        late = await host.call("endless", {"file": str(file)}, timeout=1.0)
        assert (late.error or {})["code"] == "deadline_exceeded"
        assert int(file.read_text()) == second["pid"]
        third = await data(host, "plain", note=4)

        assert ((await host.call("dies")).error or {})["code"] == "process_died"
        fourth = await data(host, "plain", note=5)
    pids = [found["pid"] for found in (first, second, third, fourth)]
    assert len({*pids, os.getpid()}) == 5
    assert fourth["notes"] == [5]


async def test_a_second_tree_of_the_same_name_has_a_process_to_itself(
    tree: Planted, mcpd_host: MakeHost, tmp_path: Path
) -> None:
    tree.write("a/which.py", "def which(): return {'tree': 1}")
    other = Planted(tmp_path / "other", tree.package)
    other.write("a/which.py", "def which(): return {'tree': 2}")
    apart = {"placement": "process", "process": "other"}
    plugin = row(
        tree.item("a/which.py", "which", name="one"),
        other.item("a/which.py", "which", name="refused"),
        other.item("a/which.py", "which", name="two", **apart),
    )
    async with mcpd_host(plugin) as host:
        assert await data(host, "one") == {"tree": 1}
        with pytest.raises(ToolUnavailable, match='isolation = "process"'):
            await host.call("refused")
        assert await data(host, "two") == {"tree": 2}


async def test_a_module_that_cannot_be_imported_says_so_from_there_as_well(
    tree: Planted, mcpd_host: MakeHost
) -> None:
    tree.write("a/lacking.py", "import absent_strings")
    tree.write("a/leaving.py", "import sys\nsys.exit(3)")
    apart: dict[str, Any] = {
        "placement": "process",
        "process": "tree",
        "memory_mb": MEMORY_MB,
    }
    plugin = row(
        tree.item("a/lacking.py", "lacking", **apart),
        tree.item("a/leaving.py", "leaving", **apart),
        isolated(tree, "plain"),
    )
    async with mcpd_host(plugin) as host:
        first = await data(host, "plain", note=1)
        with pytest.raises(ToolUnavailable) as refused:
            await host.call("lacking")
        assert refused.value.hint == "pip install absent_strings"
        with pytest.raises(ToolUnavailable, match=r"sys\.exit\(3\)"):
            await host.call("leaving")
        # The others keep their process, and what they have in it.
        assert await data(host, "plain", note=2) == {**first, "notes": [1, 2]}
