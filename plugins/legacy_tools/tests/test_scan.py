"""What a scan finds in a tree, without importing any of it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcpd_legacy_tools.options import Options, read
from mcpd_legacy_tools.records import LegacyTool, Scan
from mcpd_legacy_tools.scan import scan
from mcpd_legacy_tools.testing import Expected, plant

from .scan_kit import Draft202012Validator, write


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    return plant(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def found(expected: Expected) -> Scan:
    return scan(mounting(expected.path), cache=False)


def mounting(path: Path, **section: object) -> Options:
    return read({"paths": [str(path)], "installed": False, **section})


def by_code(found: Scan) -> dict[tuple[str, str], LegacyTool]:
    return {(tool.file, tool.function): tool for tool in found.tools}


def test_every_tool_is_found_and_nothing_else(expected: Expected, found: Scan) -> None:
    assert {tool.key for tool in expected.tools} == set(by_code(found))
    assert len(found.tools) == len(expected.tools) == 400


def test_names_are_what_they_ought_to_be(expected: Expected, found: Scan) -> None:
    tools = by_code(found)
    assert {t.key: t.name for t in expected.tools if t.name} == {
        t.key: tools[t.key].name for t in expected.tools if t.name
    }
    names = [tool.name for tool in found.tools]
    assert names == sorted(set(names))
    assert all(len(name) <= 64 and name.isascii() for name in names)


def test_names_that_several_would_have_are_reported(expected: Expected, found: Scan) -> None:
    assert {collision.name for collision in found.collisions} == set(expected.twins)
    listed = {tool.name for tool in found.tools}
    for collision in found.collisions:
        assert collision.name not in listed
        instead = {where.partition(" ")[0] for where in collision.where}
        assert instead <= listed
        assert len(instead) == len(expected.twins[collision.name])
        places = {where.partition("(")[2].rpartition(":")[0] for where in collision.where}
        assert places == {f"legacy_server/{file}" for file in expected.twins[collision.name]}


def test_how_code_is_run_is_read_from_it(expected: Expected, found: Scan) -> None:
    tools = by_code(found)
    for told in expected.tools:
        tool = tools[told.key]
        assert (tool.kind, tool.is_async, tool.runtime) == (told.kind, told.is_async, told.runtime)


def test_schemas_are_sound_and_hold_what_the_code_takes(expected: Expected, found: Scan) -> None:
    tools = by_code(found)
    for told in expected.tools:
        schema = tools[told.key].input_schema
        Draft202012Validator.check_schema(schema)
        assert set(schema["properties"]) == told.required | told.optional, told.key
        assert set(schema.get("required", ())) == told.required, told.key
        for name, text in told.described.items():
            assert text in schema["properties"][name]["description"]


def test_the_arguments_of_every_call_fit_the_schema_or_are_for_it_to_coerce(
    expected: Expected, found: Scan
) -> None:
    tools = by_code(found)
    fitting = [
        Draft202012Validator(tools[told.key].input_schema).is_valid(dict(told.arguments))
        for told in expected.tools
        if told.arguments
    ]
    assert sum(fitting) / len(fitting) > 0.95


def test_descriptions_begin_with_the_docstring(expected: Expected, found: Scan) -> None:
    tools = by_code(found)
    for told in expected.tools:
        assert tools[told.key].description.startswith(told.summary)


def test_files_that_cannot_be_read_are_problems(expected: Expected, found: Scan) -> None:
    assert {problem.file for problem in found.problems} == {p.file for p in expected.problems}
    said = {problem.file: problem.message for problem in found.problems}
    words = {"syntax": "Python", "encoding": "UTF-8", "size": "MiB", "depth": "deeply"}
    for problem in expected.problems:
        assert words[problem.kind] in said[problem.file]


def test_what_is_left_out_has_a_reason(expected: Expected, found: Scan) -> None:
    reasons = {(each.file, each.function): each.reason for each in found.excluded}
    for told in expected.excluded:
        assert reasons[told.file, told.function]


def test_nothing_of_the_tree_is_imported(tmp_path: Path) -> None:
    bombed = plant(tmp_path / "tree", record=tmp_path / "record")
    scan(mounting(bombed.path), cache=False)
    assert bombed.imported() == []
    assert not any(name.startswith("legacy_server") for name in sys.modules)


def test_where_a_tool_is_imported_from(expected: Expected, found: Scan) -> None:
    (tree,) = found.trees
    assert (tree.root, tree.package) == (str(expected.root), "legacy_server.mcp_server.tools")
    tool = next(tool for tool in found.tools if tool.function == "press_cold")
    category = tool.category
    assert tool.module == f"legacy_server.mcp_server.tools.{category}.presses.cold"
    assert tool.source == str(expected.path / category / "presses" / "cold.py")
    assert tool.aliases == (f"{category}.press_cold",)


def test_the_same_tree_is_the_same_each_time(expected: Expected, tmp_path: Path) -> None:
    engine = "".join(f"class Mock{name}Service: ...\n" for name in "ABCDEFGH")
    names = ", ".join(f"Mock{name}Service" for name in "ABCDEFGH")
    write(
        tmp_path,
        {
            "a/serve.py": f"from .serve_engine import *\ndef serve():\n    return [{names}]\n",
            "a/serve_engine.py": engine,
        },
    )
    code = (
        "import sys\n"
        "from mcpd_legacy_tools.options import read\n"
        "from mcpd_legacy_tools.scan import scan\n"
        "print(scan(read({'paths': sys.argv[1:], 'installed': False}), cache=False))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(expected.path), str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=50,
        ).stdout
        for seed in "12"
    ]
    assert said[0] == said[1]
    assert b"MockAService" in said[0]


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_left_as_it_was(tmp_path: Path, collecting: bool) -> None:
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        scan(mounting(tmp_path), cache=False)
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()
