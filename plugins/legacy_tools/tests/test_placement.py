"""Where the tools of a tree run, as their contracts say it."""

from __future__ import annotations

from typing import Any

from mcpd_legacy_tools.options import Confinement, read
from mcpd_legacy_tools.placement import LOADER, LOADER_WITH_INSTALLERS, placed
from mcpd_legacy_tools.records import LegacyTool


def tool(**facts: Any) -> LegacyTool:
    given: dict[str, Any] = {
        "name": "a__t",
        "tool": "t",
        "tree": "old",
        "category": "a",
        "file": "a/t.py",
        "line": 1,
        "function": "t",
        "kind": "function",
        "is_async": True,
        "runtime": "asyncio",
        "description": "",
        "input_schema": {"type": "object"},
        "parameters": (),
        "returns": "",
        "marks": (),
        "source": "/srv/old/a/t.py",
        "module": "old.a.t",
    }
    return LegacyTool(**{**given, **facts})


def test_a_tool_runs_in_the_server_unless_its_tree_is_isolated() -> None:
    found = placed(tool(), Confinement(isolation="none", memory_mb=512), auto_install=False)
    assert found == {
        "runtime": "asyncio",
        "placement": "loop",
        "loader": LOADER,
        "source": "/srv/old/a/t.py",
    }
    plain = placed(tool(is_async=False, runtime="trio"), Confinement(), auto_install=True)
    assert (plain["placement"], plain["runtime"]) == ("thread", "trio")
    assert plain["loader"] == LOADER_WITH_INSTALLERS


def test_the_isolated_tools_of_a_tree_share_a_process() -> None:
    options = read(
        {
            "isolation": "process",
            "cpu_seconds": 9,
            "categories": {"big": {"memory_mb": 4096}, "trusted": {"isolation": "none"}},
        }
    )
    one, other, big, trusted = (
        placed(tool(category=name), options.confined(None, name), auto_install=False)
        for name in ("a", "b", "big", "trusted")
    )
    assert one["placement"] == other["placement"] == "process"
    assert one["process"] == other["process"] == "old"
    assert one["cpu_seconds"] == 9
    assert "memory_mb" not in one
    # A limit is a process's, so that what has one of its own needs a process of its own.
    assert (big["process"], big["memory_mb"]) == ("old-4096", 4096)
    assert trusted["placement"] == "loop"
    assert "process" not in trusted


def test_the_operators_time_limit_counts_more_than_the_codes() -> None:
    assert placed(tool(timeout=5.0), Confinement(), auto_install=False)["timeout"] == 5
    assert placed(tool(timeout=5.0), Confinement(timeout=9), auto_install=False)["timeout"] == 9
    assert "timeout" not in placed(tool(), Confinement(), auto_install=False)
