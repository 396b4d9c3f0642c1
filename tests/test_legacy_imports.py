"""Nothing of a tree is imported before one of its tools is called, and then only what it needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd_legacy_tools.options import read
from mcpd_legacy_tools.scan import scan
from mcpd_legacy_tools.testing import Expected, ExpectedTool, plant

from .legacy_kit import Mounted, mount, names_of, session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bombs")


@pytest.fixture(scope="module")
def bombs(folder: Path) -> Expected:
    """A tree of which every file raises when it is imported, after having written that down."""
    return plant(folder / "tree", record=folder / "record")


@pytest.fixture(scope="module")
def mined(folder: Path, bombs: Expected) -> Mounted:
    return mount(folder / "mcpd", {"old": bombs.path})


@pytest.mark.parametrize(
    "command",
    [
        ("tools", "list", "--json"),
        ("tools", "show", "admin_tools__note_000"),
        ("tools", "search", "note"),
        ("plugins", "list", "--json"),
        ("doctor",),
        ("legacy", "list"),
        ("legacy", "list", "--excluded"),
        ("legacy", "audit"),
    ],
    ids=" ".join,
)
def test_a_command_imports_nothing(
    mined: Mounted, bombs: Expected, command: tuple[str, ...]
) -> None:
    # Both say by their status that they found something, as they do here.
    done = mined.run(*command, check=command[-1] not in ("doctor", "audit"))
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr
    assert bombs.imported() == []


def test_a_server_imports_nothing_until_a_tool_is_called(tmp_path: Path) -> None:
    bombs = plant(tmp_path / "tree", record=tmp_path / "record")
    mounted = mount(tmp_path / "mcpd", {"old": bombs.path})
    imported: list[list[str]] = []
    note = {"category": "admin_tools", "tool": "note_000"}
    called = session(
        mounted,
        [
            ("tools_list_categories", {"include_count": True}),
            ("tools_list_tools", {"category": "admin_tools"}),
            ("tools_get_schema", note),
            ("admin_tools__note_000", {"text": "n"}),
        ],
        once_listed=lambda: imported.append(bombs.imported()),
    )
    assert len(called.listed) >= 400
    assert imported == [[]]
    *told, answer = called.answers
    assert [each.is_error for each in told] == [False] * 3
    assert "note_000" in told[-1].text
    assert answer.is_error
    assert "an import bomb went off" in answer.text
    # The outermost package is imported first, and went off.
    assert bombs.imported() == ["legacy_server/__init__.py"]


def apart(expected: Expected) -> Iterator[ExpectedTool]:
    """Yield tools that run, one of each kind of file."""
    running = [tool for tool in expected.tools if tool.runs]
    kind = {Path(tool.file).name: tool for tool in running}
    yield from itertools.islice(kind.values(), 30)


def test_a_call_imports_exactly_what_its_module_imports(tmp_path: Path) -> None:
    expected = plant(tmp_path / "tree", record=tmp_path / "record", raising=False)
    mounted = mount(tmp_path / "mcpd", {"old": expected.path})
    section = {"paths": [str(expected.path)], "installed": False}
    names = names_of(expected, scan(read(section), cache=False))
    tools = list(apart(expected))
    told = session(mounted, [(names[tool.key], tool.arguments) for tool in tools])
    assert [a.is_error for a in told.answers] == [tool.fails for tool in tools]
    imported = expected.imported()
    assert len(imported) == len(set(imported)), "a file was imported twice"
    assert set(imported) == frozenset().union(*(tool.imports for tool in tools))
