"""``mcpd legacy list`` and ``mcpd legacy audit``: what they print, and that they run nothing."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mcpd_core import Finding, SettingsError, ToolSpec
from mcpd_legacy_tools import checks
from mcpd_legacy_tools.cli import legacy
from mcpd_legacy_tools.placement import LOADER, LOADER_WITH_INSTALLERS
from mcpd_legacy_tools.readiness import check

#: Ends whoever runs the module.
BOMB = "import os\nos._exit(99)\n"
FILES = {
    "sea/tides.py": f"""{BOMB}import absent_tables

def read_tides(port: str) -> dict:
    \"\"\"Read the tides.\"\"\"

def list_ports() -> dict:
    \"\"\"List the ports.\"\"\"
""",
    "sea/ships.py": f"""{BOMB}
async def find_ship(name: str) -> dict:
    \"\"\"Find a ship.\"\"\"
    mock_ship = {{"name": name}}
    return mock_ship

def main() -> None:
    \"\"\"Run as a program.\"\"\"
""",
    "land/hills.py": f"""{BOMB}from .gone import height

def climb(hill: str) -> dict:
    \"\"\"Climb a hill.\"\"\"
""",
    "land/half.py": "def climb(\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with one of everything, and settings that mount it."""
    for name, text in FILES.items():
        file = tmp_path / "coast" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    mount(tmp_path, [tmp_path / "coast"])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "coast"


def mount(directory: Path, paths: Sequence[Path], more: str = "") -> None:
    listed = json.dumps([str(path) for path in paths])
    (directory / "mcpd.toml").write_text(
        f"[legacy_tools]\npaths = {listed}\ninstalled = false\n"
        f'cache = "{directory}/cache.json"\n{more}'
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(legacy, arguments, standalone_mode=False)


def rows(*arguments: str) -> list[list[str]]:
    return [line.split("\t") for line in run(*arguments).stdout.splitlines()]


@pytest.mark.usefixtures("tree")
def test_tools_are_listed_with_their_place_what_they_lack_and_whether_they_make_things_up() -> None:
    assert rows("list") == [
        ["land__climb", "land/hills.py:5", "thread", "no: its tree is incomplete", ""],
        ["sea__find_ship", "sea/ships.py:4", "asyncio", "yes", "made up"],
        ["sea__list_ports", "sea/tides.py:8", "thread", "pip install absent_tables", ""],
        ["sea__read_tides", "sea/tides.py:5", "thread", "pip install absent_tables", ""],
    ]
    assert "4 tools in 2 categories" in run("list").stderr


@pytest.mark.usefixtures("tree")
def test_as_json_it_tells_everything() -> None:
    (ship,) = json.loads(run("list", "--json", "--category", "sea").stdout)["tools"][:1]
    assert ship["name"] == "sea__find_ship"
    assert ship["ready"] is True
    assert ship["marks"][0] == {
        "file": "sea/ships.py",
        "line": 6,
        "text": 'mock_ship = {"name": name}',
    }
    tides = json.loads(run("list", "--json").stdout)["tools"][-1]
    assert tides["missing"] == ["absent_tables"]
    assert tides["install"] == "pip install absent_tables"
    assert tides["reason"] == "It needs the module absent_tables, missing here."


@pytest.mark.usefixtures("tree")
def test_what_is_left_out_and_what_cannot_be_read_is_told_with_the_reason() -> None:
    ((function, place, reason),) = rows("list", "--excluded")
    assert (function, place) == ("main", "sea/ships.py:9")
    assert reason
    assert json.loads(run("list", "--excluded", "--json").stdout)[0]["function"] == "main"
    ((file, problem),) = rows("list", "--problems")
    assert file == "coast/land/half.py"
    assert "no valid Python" in problem
    found = json.loads(run("list", "--problems", "--json").stdout)
    assert [each["file"] for each in found["problems"]] == ["land/half.py"]
    assert rows("list", "--problems", "--category", "sea") == []


def test_several_trees_are_told_apart(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "more"
    (other / "sea").mkdir(parents=True)
    (other / "sea/ships.py").write_text(FILES["sea/ships.py"])
    mount(tmp_path, [tree, other])
    assert [row[1] for row in rows("list", "--tree", "more")] == ["sea/ships.py:4"]
    assert sorted(row[1] for row in rows("list", "--category", "sea") if "find_ship" in row[0]) == [
        "coast/sea/ships.py:4",
        "more/sea/ships.py:4",
    ]
    assert "sea__find_ship" in {row[0] for row in rows("list", "--problems")}


@pytest.mark.usefixtures("tree")
def test_a_part_that_does_not_exist_is_refused_with_those_that_do() -> None:
    for option, known in (("--tree", "coast"), ("--category", "land, sea")):
        error = run("list", option, "nope").exception
        assert error is not None
        assert f"'nope'; there is: {known}." in str(error)


def test_without_a_tree_it_says_how_to_name_one(tmp_path: Path, tree: Path) -> None:
    mount(tmp_path, [])
    assert "[legacy_tools]\npaths = " in run("list").stderr
    mount(tmp_path, [tmp_path / "gone"])
    assert str(tmp_path / "gone") in run("audit").stderr
    mount(tmp_path, [tree], "selection = 'some'\n")
    assert isinstance(run("list").exception, SettingsError)


def test_audit_shows_each_line_and_says_so_with_its_exit_status(tree: Path) -> None:
    found = run("audit")
    assert found.return_value == 1
    assert found.stdout.splitlines()[0] == (
        'sea__find_ship\tsea/ships.py:6\tmock_ship = {"name": name}'
    )
    (ship,) = json.loads(run("audit", "--json").stdout)
    assert [mark["line"] for mark in ship["marks"]] == [6, 7]
    honest = run("audit", "--category", "land")
    assert honest.return_value == 0
    assert honest.stdout == ""
    assert "Made-up data shows in 0 of 1 tool." in honest.stderr


@pytest.mark.usefixtures("tree")
def test_in_a_narrow_terminal_each_tool_is_a_paragraph() -> None:
    shown = in_terminal(60, "list", "--category", "sea")
    assert "sea__find_ship\r\n    sea/ships.py:4 | asyncio | yes | made up\r\n" in shown
    assert "──" in in_terminal(160, "list", "--category", "sea")


def in_terminal(columns: int, *arguments: str) -> str:
    """Run the command in a terminal of some width, and return what it shows."""
    near, far = pty.openpty()
    code = "import sys; from mcpd_legacy_tools.cli import legacy; legacy(sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=far,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
    ):
        os.close(far)
        shown = b""
        try:
            while part := os.read(near, 65536):
                shown += part
        except OSError:
            pass  # how Linux tells that the other end is closed
    os.close(near)
    return shown.decode()


# --- readiness and doctor ------------------------------------------------------------------------


def spec(tree: Path, name: str, file: str, loader: str = LOADER) -> ToolSpec:
    module = f"mcpd_legacy_tree_coast.{file.replace('/', '.').removesuffix('.py')}"
    return ToolSpec(
        name=name,
        description="",
        input_schema={},
        entry=f"{module}:f",
        plugin="legacy_tools",
        loader=loader,
        source=str(tree / file),
    )


def test_the_host_is_told_which_tools_cannot_run(tree: Path) -> None:
    told = check(
        [
            spec(tree, "tides", "sea/tides.py"),
            spec(tree, "ports", "sea/tides.py"),
            spec(tree, "ship", "sea/ships.py"),
            # Its tree installs what it lacks.
            spec(tree, "installer", "sea/tides.py", LOADER_WITH_INSTALLERS),
        ]
    )
    reason = "It needs the module absent_tables, missing here: pip install absent_tables"
    assert told == {"tides": reason, "ports": reason}


def findings(section: dict[str, Any]) -> list[Finding]:
    return list(checks.examine({"installed": False, **section}))


def test_the_doctor_tells_what_the_trees_hold_and_lack(tree: Path, tmp_path: Path) -> None:
    section = {"paths": [str(tree)], "cache": str(tmp_path / "cache.json")}
    told = {finding.message: finding for finding in findings(section)}
    (held,) = [message for message in told if message.startswith("The tree coast at ")]
    assert "4 tools in 2 categories; 1 public function left out" in held
    assert "the code of 1 tool shows made-up data" in held
    unread = told["1 file cannot be read: coast/land/half.py."]
    assert unread.level == "warning"
    lacking = told["2 tools cannot run without absent_tables: sea__list_ports, sea__read_tides."]
    assert lacking.fix == "pip install absent_tables"
    assert not [f for f in findings({**section, "auto_install": True}) if "cannot run" in f.message]


def test_the_doctor_says_what_is_wrong_with_the_settings_and_that_there_is_nothing() -> None:
    (wrong,) = findings({"pahts": []})
    assert wrong.level == "error"
    assert "pahts" in wrong.message
    (nothing,) = findings({})
    assert nothing.message == "No tree of tools is mounted."
    (gone,) = findings({"paths": ["/nowhere/at/all"]})
    assert gone.level == "warning"


def test_each_set_of_missing_modules_is_one_finding_with_one_command() -> None:
    from mcpd_legacy_tools.requirements import Missing

    needs = {
        "a": Missing(modules=("PIL",), programs=("ffmpeg (ffmpeg)",)),
        "b": Missing(modules=("PIL",)),
        "c": Missing(modules=("absent_x", "cv2")),
        "d": Missing(broken=("f.py:1 imports x, which the tree lacks.",)),
    }
    told = [(finding.message, finding.fix) for finding in checks.check_needs(needs)]
    assert told == [
        ("2 tools cannot run without PIL: a, b.", "pip install pillow"),
        ("1 tool cannot run without absent_x, cv2: c.", "pip install absent_x opencv-python"),
        (
            "All 3 tools that lack a library have theirs with one command.",
            "pip install absent_x opencv-python pillow",
        ),
        (
            "1 tool cannot run (d): f.py:1 imports x, which the tree lacks.",
            "Complete the tree, or mend it.",
        ),
        (
            "1 tool may need the program ffmpeg (ffmpeg), which is not in PATH: a.",
            "Install it if they are to be used.",
        ),
    ]
