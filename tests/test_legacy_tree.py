"""A tree of 400 tools of every shape, with every kind of breakage: found, listed, called."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcpd_legacy_tools.options import read
from mcpd_legacy_tools.records import Scan
from mcpd_legacy_tools.scan import scan
from mcpd_legacy_tools.testing import Expected, ExpectedTool, plant

from .legacy_kit import Mounted, Session, by_code, misfits, mount, names_of, session

jsonschema: Any = importlib.import_module("jsonschema")  # it is not typed

#: What the reasons for leaving a function out say, by their kinds.
REASONS = {
    "decorator": "context manager",
    "helper": "holds helpers",
    "main": "command line",
    "private": "private",
    "re-export": "defined elsewhere",
    "registers": "registers tools",
    "type": "JSON cannot carry",
    "unnamed": "states no name",
}
#: What the problems of files say, by their kinds.
PROBLEMS = {
    "syntax": r"no valid Python|null bytes",
    "encoding": r"UTF-8|encod|decod",
    "size": r"large|MB|MiB|bytes|size",
    "depth": r"nest|deep|complex|recursion|parse",
}
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("legacy")


@pytest.fixture(scope="module")
def expected(folder: Path) -> Expected:
    return plant(folder / "tree")


@pytest.fixture(scope="module")
def mounted(folder: Path, expected: Expected) -> Mounted:
    # Long enough for whatever is imported here, apart from the module that never ends.
    return mount(folder / "mcpd", {"old": expected.path}, import_timeout=3)


@pytest.fixture(scope="module")
def found(expected: Expected) -> Scan:
    """What the scan says by itself."""
    section = {"paths": [str(expected.path)], "installed": False}
    return scan(read(section), cache=False)


@pytest.fixture(scope="module")
def calls(expected: Expected, found: Scan) -> list[tuple[ExpectedTool, str]]:
    """Every tool with its name; the one whose import takes until its limit comes second to last."""
    names = names_of(expected, found)
    hangs = expected.tool("wait_longer")
    last = expected.tools[0]
    order = [tool for tool in expected.tools if tool not in (hangs, last)] + [hangs, last]
    return [(tool, names[tool.key]) for tool in order]


@pytest.fixture(scope="module")
def served(mounted: Mounted, calls: list[tuple[ExpectedTool, str]]) -> Session:
    """What a client of the SDK is told by ``mcpd serve`` when it lists and calls every tool."""
    return session(mounted, [(name, tool.arguments) for tool, name in calls])


# --- found ----------------------------------------------------------------------------------------


def test_every_tool_of_every_category_is_found_and_nothing_else(
    expected: Expected, found: Scan
) -> None:
    keys = {tool.key for tool in expected.tools}
    assert set(by_code(found)) ^ keys == set()
    assert len(found.tools) == len(keys) == 400
    within = Counter(tool.file.rpartition("/")[0].partition("/")[0] for tool in found.tools)
    assert within == expected.categories
    assert len(within) == 61


def test_tools_are_what_their_code_says(expected: Expected, found: Scan) -> None:
    tools = by_code(found)

    def seen(read: Callable[[ExpectedTool], object]) -> dict[tuple[str, str], object]:
        return {tool.key: read(tool) for tool in expected.tools}

    assert seen(lambda t: tools[t.key].kind) == seen(lambda t: t.kind)
    assert seen(lambda t: tools[t.key].is_async) == seen(lambda t: t.is_async)
    assert seen(lambda t: tools[t.key].runtime) == seen(lambda t: t.runtime)
    assert seen(lambda t: bool(tools[t.key].marks)) == seen(lambda t: t.mocked)
    lacking = [t.key for t in expected.tools if t.summary not in tools[t.key].description]
    assert lacking == []


def test_parameters_become_a_schema(expected: Expected, found: Scan) -> None:
    tools = by_code(found)
    for tool in expected.tools:
        schema = tools[tool.key].input_schema
        properties = schema.get("properties", {})
        assert frozenset(schema.get("required", ())) == tool.required, tool.key
        assert frozenset(properties) == tool.required | tool.optional, tool.key
        for name, text in tool.described.items():
            assert text in properties[name].get("description", ""), (tool.key, name)


def test_every_schema_is_valid_and_fits_the_arguments(expected: Expected, found: Scan) -> None:
    tools = by_code(found)
    for tool in expected.tools:
        schema = dict(tools[tool.key].input_schema)
        jsonschema.Draft202012Validator.check_schema(schema)
        coerced = any(isinstance(v, str) and v.isdigit() for v in tool.arguments.values())
        if tool.runs and not coerced:
            errors = list(jsonschema.Draft202012Validator(schema).iter_errors(dict(tool.arguments)))
            assert errors == [], tool.key


def test_what_is_no_tool_is_left_out_with_a_reason(expected: Expected, found: Scan) -> None:
    excluded = {(each.file, each.function): each.reason for each in found.excluded}
    for each in expected.excluded:
        reason = excluded[each.file, each.function]
        assert re.search(REASONS[each.kind], reason, re.IGNORECASE), reason
    assert all(excluded.values())


def test_files_that_cannot_be_read_are_told_of(expected: Expected, found: Scan) -> None:
    problems = {problem.file: problem.message for problem in found.problems}
    assert set(problems) == {problem.file for problem in expected.problems}
    for problem in expected.problems:
        message = problems[problem.file]
        assert re.search(PROBLEMS[problem.kind], message, re.IGNORECASE), message


def test_one_name_for_two_tools_is_reported_and_both_are_kept(
    expected: Expected, found: Scan
) -> None:
    collisions = {collision.name: collision.where for collision in found.collisions}
    assert set(collisions) == set(expected.twins)
    for name, files in expected.twins.items():
        assert all(any(file in place for place in collisions[name]) for file in files), name
    names = Counter(tool.name for tool in found.tools)
    assert max(names.values()) == 1
    assert [name for name in names if not NAME.fullmatch(name)] == []


# --- served ---------------------------------------------------------------------------------------


def test_a_client_lists_every_tool(
    served: Session, calls: list[tuple[ExpectedTool, str]], found: Scan
) -> None:
    names = {name for _, name in calls}
    assert names <= served.names
    # What is listed besides are the plugin's own tools.
    assert all(name.startswith("tools_") for name in served.names - names)
    listed = {tool.name: tool for tool in served.listed}
    for tool in found.tools:
        schema = listed[tool.name].input_schema
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema == tool.input_schema
        assert listed[tool.name].description


def test_every_call_comes_to_what_the_tool_makes_of_it(
    served: Session, calls: list[tuple[ExpectedTool, str]]
) -> None:
    wrong = [
        f"{name}: {misfit}"
        for (tool, name), answer in zip(calls, served.answers, strict=True)
        for misfit in misfits(tool, answer)
    ]
    assert wrong == []
    succeeded = sum(not answer.is_error for answer in served.answers)
    assert succeeded == sum(tool.runs and not tool.fails for tool, _ in calls) > 300


def test_tools_that_make_their_data_up_say_so(
    served: Session, calls: list[tuple[ExpectedTool, str]]
) -> None:
    listed = {tool.name: tool for tool in served.listed}
    says_so = {name for name in listed if "made-up data" in listed[name].description}
    assert says_so == {name for tool, name in calls if tool.mocked}
