"""What listing asks the plugin for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcpd_legacy_tools import provider
from mcpd_legacy_tools.options import OptionsError, read
from mcpd_legacy_tools.records import Mark
from mcpd_legacy_tools.scan import scan


def provided(path: Path, **section: Any) -> dict[str, Any]:
    return provider.tools(
        "legacy_tools",
        {"paths": [str(path)], "installed": False, "cache": str(path / "cache"), **section},
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "take.py").write_text('def take_note(text: str):\n    """Take one."""\n')
    return tmp_path


def test_a_tool_is_told_as_a_manifest_would_hold_it(tree: Path) -> None:
    (item,) = provided(tree)["tools"]
    assert item["name"] == "notes__take_note"
    assert item["aliases"] == ["notes.take_note"]
    assert item["category"] == "notes"
    assert item["description"] == "Take one."
    assert item["placement"] == "thread"
    assert item["entry"].endswith(".notes.take:take_note")
    assert item["source"] == str(tree / "notes" / "take.py")
    assert item["input_schema"] == {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    }
    json.dumps(item)


def test_a_category_can_be_confined(tree: Path) -> None:
    confined = {"notes": {"isolation": "process", "memory_mb": 256}}
    (item,) = provided(tree, categories=confined, timeout=5)["tools"]
    assert (item["placement"], item["memory_mb"], item["timeout"]) == ("process", 256, 5)


def test_all_is_well_without_a_note(tree: Path) -> None:
    assert provided(tree)["note"] == ""


def test_a_note_tells_of_what_could_not_be_read_and_of_names(tree: Path) -> None:
    (tree / "notes" / "again.py").write_text("def take_note(): pass\n")
    (tree / "notes" / "broken.py").write_text("def (\n")
    note = provided(tree)["note"]
    assert "1 file could not be read: notes/broken.py." in note
    assert "1 name would have been several tools'" in note
    assert "notes__take_note" in note


def test_a_note_says_what_is_wrong_with_a_tree_itself(tmp_path: Path) -> None:
    note = provided(tmp_path / "nowhere")["note"]
    assert note == (
        f"The tree {tmp_path / 'nowhere'} does not exist; see [legacy_tools] paths. "
        "See `mcpd legacy list --problems`."
    )


def test_a_setting_that_cannot_be_is_an_error_that_names_it(tree: Path) -> None:
    with pytest.raises(OptionsError, match=r"\[legacy_tools\] selektion"):
        provided(tree, selektion="all")


def test_a_description_says_that_data_is_made_up(tree: Path) -> None:
    (tool,) = scan(read({"paths": [str(tree)], "installed": False}), cache=False).tools
    marked = replace(tool, marks=(Mark("notes/take.py", 7, 'return {"mock": 1}'),))
    text = provider.described(marked)
    assert text == "Its code shows made-up data (notes/take.py, line 7). Take one."


def test_a_tool_without_docstring_is_described_by_its_name(tree: Path) -> None:
    (tree / "notes" / "take.py").write_text("def take_note(): pass\n")
    (item,) = provided(tree)["tools"]
    assert item["description"] == "The tool take_note of notes, which has no docstring."


def test_listing_needs_the_standard_library_alone(tree: Path) -> None:
    code = (
        "import sys\n"
        "from mcpd_legacy_tools import provider\n"
        f"provider.tools('legacy_tools', {{'paths': [{str(tree)!r}], 'installed': False,"
        f" 'cache': {str(tree / 'cache')!r}}})\n"
        "import json\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    heavy = {"pydantic", "mcp", "trio", "anyio", "jsonschema", "asyncio", "yaml", "click"}
    assert heavy.isdisjoint(json.loads(done.stdout))
