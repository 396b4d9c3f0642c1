"""The tree that everything else is tested on is what it says it is."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mcpd_legacy_tools.testing import CATEGORIES, SHAPES, TOOLS, Expected, plant
from mcpd_legacy_tools.testing.broken import LARGE


def content(expected: Expected) -> dict[str, bytes]:
    root = expected.root
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def run(expected: Expected, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that has nothing but the standard library and the tree."""
    code = f"import sys; sys.path.insert(0, sys.argv[1]); {code}"
    return subprocess.run(
        [sys.executable, "-S", "-c", code, str(expected.root)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def module(expected: Expected, file: str) -> str:
    return f"{expected.package}.{file.removesuffix('.py').replace('/', '.')}"


def test_it_has_400_tools_in_60_categories_and_beside_them(tmp_path: Path) -> None:
    expected = plant(tmp_path)
    assert len(expected.tools) == TOOLS == 400
    assert len({tool.key for tool in expected.tools}) == 400
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 60
    assert set(expected.categories) == {*CATEGORIES, ""}
    named = Counter(tool.name for tool in expected.tools if tool.name)
    assert max(named.values()) == 1


def test_every_file_that_it_tells_of_is_there(tmp_path: Path) -> None:
    expected = plant(tmp_path)
    files = {tool.file for tool in expected.tools} | {each.file for each in expected.excluded}
    files |= {problem.file for problem in expected.problems}
    assert [file for file in sorted(files) if not (expected.path / file).is_file()] == []
    planted = {shape.name for shape in SHAPES}
    assert len(planted) == len(SHAPES) >= 35
    (large,) = (problem for problem in expected.problems if problem.kind == "size")
    assert (expected.path / large.file).stat().st_size >= LARGE == 5 << 20


def test_it_is_the_same_wherever_it_is_planted(tmp_path: Path) -> None:
    one, other = plant(tmp_path / "one"), plant(tmp_path / "other")
    assert content(one) == content(other)
    assert one.tools == other.tools


def test_only_what_it_calls_unreadable_cannot_be_parsed(tmp_path: Path) -> None:
    expected = plant(tmp_path)
    unreadable = set()
    for file in expected.path.rglob("*.py"):
        try:
            compile(file.read_bytes(), file, "exec", dont_inherit=True)
        except (MemoryError, RecursionError, SyntaxError, ValueError):
            unreadable.add(file.relative_to(expected.path).as_posix())
    assert unreadable == {p.file for p in expected.problems if p.kind != "size"}


def test_an_import_records_exactly_the_files_that_are_expected_of_it(tmp_path: Path) -> None:
    expected = plant(tmp_path / "tree", record=tmp_path / "record", raising=False)
    files = {tool.file: tool for tool in expected.tools if tool.runs}
    # One file of each kind: the same text is in many categories.
    for tool in {Path(file).name: tool for file, tool in files.items()}.values():
        (tmp_path / "record").unlink(missing_ok=True)
        done = run(expected, f"import {module(expected, tool.file)}")
        assert done.returncode == 0, done.stderr
        assert sorted(expected.imported()) == sorted(tool.imports), tool.file


@pytest.mark.parametrize("function", ["hatch_chicken", "leave_late", "refuse_more", "play_piece"])
def test_what_it_says_does_not_run_cannot_be_imported(tmp_path: Path, function: str) -> None:
    expected = plant(tmp_path)
    tool = expected.tool(function)
    assert not tool.runs
    done = run(expected, f"import {module(expected, tool.file)}; print('imported')")
    assert done.returncode != 0
    assert "imported" not in done.stdout


def test_a_bomb_goes_off_in_every_file(tmp_path: Path) -> None:
    expected = plant(tmp_path / "tree", record=tmp_path / "record")
    assert expected.imported() == []
    unreadable = {expected.path / p.file for p in expected.problems if p.kind != "size"}
    for file in expected.root.rglob("*.py"):
        assert file in unreadable or b"raise ImportError(" in file.read_bytes(), file
    done = run(expected, f"import {expected.package}")
    assert "an import bomb went off" in done.stderr
    assert expected.imported() == ["legacy_server/__init__.py"]
