"""What a scan reads again, and what it makes of a cache that is no good and of several trees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpd_legacy_tools.testing import Expected, plant

from .legacy_kit import LONG, mount, session

#: Scans in a process of its own; prints which files of the tree it opened, and what it found.
SCAN = """
import json, sys
opened = []

def notice(event, args):
    if event == "open" and str(args[0]).startswith(tree) and str(args[0]).endswith(".py"):
        opened.append(str(args[0]))

tree, cache = sys.argv[1:]
sys.addaudithook(notice)
from mcpd_legacy_tools.options import read
from mcpd_legacy_tools.scan import scan
found = scan(read({"paths": [tree], "installed": False, "cache": cache}))
tools = {tool.name: [tool.description, tool.input_schema] for tool in found.tools}
print(json.dumps({"opened": sorted(set(opened)), "tools": tools, "modules": sorted(sys.modules)}))
"""


@pytest.fixture
def expected(tmp_path: Path) -> Expected:
    return plant(tmp_path / "tree")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "scan.cache"


def scanned(expected: Expected, cache: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SCAN, str(expected.path), str(cache)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_scan_needs_nothing_but_the_standard_library(expected: Expected, cache: Path) -> None:
    found = scanned(expected, cache)
    heavy = {"pydantic", "mcp", "trio", "anyio", "jsonschema", "asyncio"}
    assert heavy.isdisjoint(found["modules"])
    assert not any(name.startswith("legacy_server") for name in found["modules"])


def test_an_unchanged_tree_is_not_read_again(expected: Expected, cache: Path) -> None:
    first = scanned(expected, cache)
    assert len(first["opened"]) > 240
    again = scanned(expected, cache)
    assert again["opened"] == []
    assert again["tools"] == first["tools"]


def test_one_edited_file_is_read_again_and_no_other(expected: Expected, cache: Path) -> None:
    before = scanned(expected, cache)
    file = expected.path / expected.tool("note_000").file
    file.write_text(file.read_text().replace("Take note number 0.", "Take the first note."))
    after = scanned(expected, cache)
    assert after["opened"] == [str(file)]
    changed = {name for name in after["tools"] if after["tools"][name] != before["tools"][name]}
    assert changed == {"admin_tools__note_000"}
    assert after["tools"]["admin_tools__note_000"][0].startswith("Take the first note.")


def test_a_file_that_is_gone_takes_its_tools_with_it(expected: Expected, cache: Path) -> None:
    before = scanned(expected, cache)
    (expected.path / expected.tool("note_000").file).unlink()
    after = scanned(expected, cache)
    gone = set(before["tools"]) - set(after["tools"])
    assert "admin_tools__note_000" in gone
    assert all(name.startswith("admin_tools__note_") for name in gone)
    assert after["opened"] == []


def test_a_cache_that_cannot_be_read_is_made_again(expected: Expected, cache: Path) -> None:
    first = scanned(expected, cache)
    good = cache.read_bytes()
    for spoilt in (b"", b"\0" * 100, b"garbage", b"[]", b'{"version": 0}', good[: len(good) // 2]):
        cache.write_bytes(spoilt)
        again = scanned(expected, cache)
        assert again["tools"] == first["tools"], spoilt[:20]
        assert again["opened"] == first["opened"], spoilt[:20]
    assert scanned(expected, cache)["opened"] == []


def test_a_cache_that_cannot_be_written_costs_only_time(expected: Expected, tmp_path: Path) -> None:
    # A directory in its place cannot be written, whoever runs this.
    place = tmp_path / "taken"
    place.mkdir()
    first = scanned(expected, place)
    assert scanned(expected, place)["opened"] == first["opened"]
    assert len(first["tools"]) == 400


# --- several trees ------------------------------------------------------------------------------


def test_trees_are_served_side_by_side_and_do_not_get_into_each_other(tmp_path: Path) -> None:
    """Two of one package as well, when one of them has a process of its own."""
    one = plant(tmp_path / "one")
    other = plant(tmp_path / "other", package="other_server")
    alike = plant(tmp_path / "alike")
    for tree, number in ((other, '"other"'), (alike, '"alike"')):
        file = tree.path / tree.tool("note_000").file
        file.write_text(file.read_text().replace('"number": 0,', f'"number": {number},'))
    trees = {"one": one.path, "other": other.path, "alike": alike.path}
    mounted = mount(tmp_path / "mcpd", trees)
    config = mounted.config.read_text()
    isolated = config.replace('name = "alike"', 'name = "alike"\nisolation = "process"')
    mounted.config.write_text(isolated)

    names = [f"{tree}__admin_tools__note_000" for tree in trees]
    told = session(mounted, [(name, {"text": "n"}) for name in names])
    assert len({name for name in told.names if not name.startswith("tools_")}) == 1200
    assert [answer.structured["number"] for answer in told.answers] == [0, "other", "alike"]
    (row,) = (row for row in mounted.json("plugins", "list") if row["name"] == "legacy_tools")
    assert row["state"] == "enabled"
    assert "would have been several tools" in row["reason"]


def test_the_cache_is_the_same_file_for_every_command(tmp_path: Path) -> None:
    expected = plant(tmp_path / "tree")
    mounted = mount(tmp_path / "mcpd", {"old": expected.path})
    mounted.run("tools", "list", "--json")
    written = os.stat(mounted.cache).st_mtime_ns
    mounted.run("plugins", "list", "--json")
    assert os.stat(mounted.cache).st_mtime_ns == written
