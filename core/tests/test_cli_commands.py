"""``mcpd plugins`` and ``mcpd tools``, on a plugin that is planted into the environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpd_core.cli import main

TOOLS = '''
from typing import Annotated, Literal
from pydantic import Field
from mcpd_core import Context, ToolError, tool

print("imported", __name__)

@tool(category="sums", aliases=["plus"], tags=["arithmetic"], timeout=5, read_only=True)
async def add(
    a: Annotated[int, Field(description="One number.")],
    b: int = 1,
    sign: Literal["+", "-"] = "+",
    weights: list[float] | None = None,
) -> int:
    """Add two numbers.

    The second line is not in the listing."""
    print("adding")
    return a + b

@tool(destructive=True, idempotent=True)
def fail(ctx: Context) -> str:
    """Fail."""
    ctx.progress(1, None, "now")
    raise ToolError("It failed\\x1b[31m.", hint="Do not call it.")
'''

PLUGIN = """
from mcpd_core import hookimpl

print("imported", __name__)

@hookimpl
def mcpd_register_tools(registrar):
    registrar.add_module("planted.tools")
"""


def forget() -> None:
    """Let the plugin be imported anew, from where the next test plants it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "planted"]:
        del sys.modules[name]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project of a plugin ``planted`` with a manifest, installed where Python looks."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MCPD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    project = tmp_path / "project"
    package = project / "src" / "planted"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tools.py").write_text(TOOLS)
    (package / "plugin.py").write_text(PLUGIN)
    (project / "pyproject.toml").write_text(
        textwrap.dedent(
            """
            [project]
            name = "planted-dist"
            [project.entry-points."mcpd_core.plugins.asyncio"]
            planted = "planted.plugin"
            [tool.mcpd]
            bundles = ["garden"]
            """
        )
    )
    info = project / "src" / "planted_dist-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-dist\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[mcpd_core.plugins.asyncio]\nplanted = planted.plugin\n"
    )
    monkeypatch.syspath_prepend(str(project / "src"))
    monkeypatch.setenv("PYTHONPATH", str(project / "src"))
    assert main(["plugins", "manifest", str(project)]) == 0
    forget()
    yield project
    forget()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(planted: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process; returns exit status, stdout and stderr."""
    capsys.readouterr()

    def run(*args: str) -> tuple[int, str, str]:
        status = main(args)
        out, err = capsys.readouterr()
        return status, out, err

    return run


# --- plugins --------------------------------------------------------------------------------------


def row(text: str, name: str = "planted") -> dict[str, Any]:
    found: list[dict[str, Any]] = [row for row in json.loads(text) if row["name"] == name]
    assert len(found) == 1
    return found[0]


def test_plugins_list_json(run: Run) -> None:
    status, out, _ = run("plugins", "list", "--json")
    assert status == 0
    assert row(out) == {
        "name": "planted",
        "distribution": "planted-dist",
        "version": "1.2",
        "runtime": "asyncio",
        "state": "enabled",
        "tools": 2,
        "bundles": ["garden"],
        "reason": "",
        "editable": False,
    }
    assert not any(name.startswith("planted") for name in sys.modules)


def test_plugins_list_for_a_pipe_is_tab_separated_data(run: Run) -> None:
    status, out, _ = run("plugins", "list")
    assert status == 0
    assert "planted\tenabled\tasyncio\t2\tplanted-dist 1.2\tgarden\t\n" in out


def test_plugins_list_on_a_terminal_is_a_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    status, out, _ = run("plugins", "list")
    assert status == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert re.search(
        r"^ *plugin +state +runtime +tools +installed as +bundles +reason", plain, re.M
    )
    assert re.search(r"^ *planted +enabled +asyncio +2 +planted-dist 1\.2 +garden", plain, re.M)


def test_plugins_list_shows_why_a_plugin_that_was_asked_for_is_missing(run: Run) -> None:
    status, out, err = run("plugins", "list", "--plugins", "plantd", "--json")
    assert status == 0
    assert row(out)["state"] == "enabled"
    assert "'plantd'" in err
    assert "Did you mean 'planted'" in err


def test_plugins_list_names_damaged_distributions(run: Run, planted: Path) -> None:
    broken = planted / "src" / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_bytes(b"[x]\n\xff\xfe = y\n")
    status, out, err = run("plugins", "list", "--json")
    assert status == 0
    assert row(out)["state"] == "enabled"
    assert "warning: damaged distribution broken" in err


def test_plugins_list_says_when_there_is_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    status, out, err = run("plugins", "list")
    assert (status, out) == (0, "")
    assert "No plugin is installed" in err


def test_plugins_list_marks_a_plugin_without_manifest(run: Run, planted: Path) -> None:
    (planted / "src/planted/mcpd_plugin.json").unlink()
    _, out, _ = run("plugins", "list")
    assert "planted\tenabled\tasyncio\t?\tplanted-dist 1.2\t" in out
    _, _, err = run("tools", "list")
    assert "note: the tools of planted are known when it is served" in err


def test_plugins_check_is_silent_about_a_good_plugin(run: Run) -> None:
    status, out, err = run("plugins", "check", "planted")
    assert (status, out) == (0, "planted: nothing is wrong.\n")
    assert "imported planted.tools" in err  # what it prints does not get into the data


def test_plugins_check_finds_a_stale_manifest(run: Run, planted: Path) -> None:
    manifest = planted / "src/planted/mcpd_plugin.json"
    manifest.write_text(manifest.read_text().replace("One number.", "Another number."))
    status, out, err = run("plugins", "check", "planted")
    assert (status, out) == (1, "")
    assert "error: planted: The manifest is stale: tool 'add' differs in input_schema." in err
    status, out, _ = run("plugins", "check", "planted", "--json")
    assert status == 1
    (finding,) = json.loads(out)
    assert finding["plugin"] == "planted"
    assert finding["level"] == "error"
    assert finding["hint"] == "Make it anew: mcpd plugins manifest DIR"


def test_plugins_check_of_an_unknown_name_is_a_usage_error(run: Run) -> None:
    status, _, err = run("plugins", "check", "plantd")
    assert status == 2
    assert "Did you mean 'planted'" in err


def test_plugins_manifest_writes_what_is_stale_and_only_that(run: Run, planted: Path) -> None:
    file = planted / "src/planted/mcpd_plugin.json"
    good = file.read_bytes()
    assert run("plugins", "manifest", str(planted))[:2] == (0, f"up to date: {file}\n")
    assert run("plugins", "manifest", str(planted), "--check") == (0, "", "")
    file.write_bytes(good.replace(b"One number.", b"Another number."))
    status, out, err = run("plugins", "manifest", str(planted), "--check")
    assert (status, out) == (1, "")
    assert "error: stale: tool 'add' of plugin 'planted' has changed" in err
    assert f"mcpd plugins manifest {planted}" in err
    assert run("plugins", "manifest", str(planted))[:2] == (0, f"written: {file}\n")
    assert file.read_bytes() == good


def test_plugins_manifest_of_a_folder_without_plugin_fails(run: Run, tmp_path: Path) -> None:
    status, _, err = run("plugins", "manifest", str(tmp_path))
    assert status == 1
    assert "pyproject.toml cannot be read" in err


# --- tools ----------------------------------------------------------------------------------------

ONLY = ("--plugins", "planted")


def test_tools_list_json(run: Run) -> None:
    status, out, _ = run("tools", "list", "--json", *ONLY)
    assert status == 0
    add, fail = json.loads(out)
    assert add == {
        "name": "add",
        "plugin": "planted",
        "category": "sums",
        "runtime": "asyncio",
        "placement": "loop",
        "description": "Add two numbers.\n\nThe second line is not in the listing.",
    }
    assert fail["placement"] == "thread"


def test_tools_list_for_a_pipe(run: Run) -> None:
    status, out, _ = run("tools", "list", "--plugins", "garden")
    assert status == 0
    assert out.splitlines() == [
        "add\tplanted\tsums\tasyncio\tAdd two numbers.",
        "fail\tplanted\t\tthread\tFail.",
    ]


def test_a_tool_that_is_not_listed_is_shown_when_it_is_asked_for(run: Run, planted: Path) -> None:
    code = planted / "src/planted/tools.py"
    code.write_text(code.read_text().replace("@tool(destructive=True,", "@tool(listed=False,"))
    forget()
    assert run("plugins", "manifest", str(planted))[0] == 0
    assert [tool["name"] for tool in json.loads(run("tools", "list", "--json", *ONLY)[1])] == [
        "add"
    ]
    _, out, _ = run("tools", "list", "--all", "--json", *ONLY)
    assert [tool["name"] for tool in json.loads(out)] == ["add", "fail"]
    _, out, _ = run("tools", "show", "fail", *ONLY)
    assert "listed:    no; it can be called by its name" in out
    assert row(run("plugins", "list", "--json")[1])["tools"] == 1


def test_tools_show_for_a_person(run: Run) -> None:
    status, out, _ = run("tools", "show", "plus", *ONLY)
    assert status == 0
    assert out.splitlines()[0] == "add  (Add)"
    for part in (
        "The second line",
        "aliases:   plus",
        "tags:      arithmetic",
        "timeout:   5 s",
        "effects:   changes nothing; reaches beyond this machine",
        "  a: integer, required\n      One number.",
        "  b: integer, default 1",
        '  sign: one of "+", "-", default "+"',
        "  weights: array of number or null, default null",
    ):
        assert part in out
    _, out, _ = run("tools", "show", "fail", *ONLY)
    assert "no arguments" in out
    assert "changes things, perhaps destructively; doing it again changes nothing more" in out


def test_tools_show_json_is_the_whole_contract(run: Run) -> None:
    status, out, _ = run("tools", "show", "add", "--json", *ONLY)
    assert status == 0
    spec = json.loads(out)
    assert spec["entry"] == "planted.tools:add"
    assert spec["input_schema"]["required"] == ["a"]
    assert spec["annotations"]["read_only"] is True


def test_tools_show_of_an_unknown_tool_names_the_close_ones(run: Run) -> None:
    status, out, err = run("tools", "show", "ad", *ONLY)
    assert (status, out) == (2, "")
    assert "Did you mean 'add'?" in err
    _, _, err = run("tools", "show", "zzzzzzzz", *ONLY)
    assert "See `mcpd tools list`" in err


def test_tools_search(run: Run) -> None:
    status, out, _ = run("tools", "search", "add", "numbers", "--json", *ONLY)
    assert status == 0
    assert [tool["name"] for tool in json.loads(out)] == ["add"]
    status, out, err = run("tools", "search", "zzzzzzzz", *ONLY)
    assert (status, out) == (1, "")
    assert "No tool matches" in err


def test_a_tool_is_called_in_this_process(run: Run) -> None:
    status, out, err = run("tools", "call", "add", "a=2", "--local", *ONLY)
    assert (status, out) == (0, '{"result":3}\n')
    assert "adding" in err  # what it prints does not get into the result
    status, out, _ = run("tools", "call", "plus", "b=3", "--args", '{"a": 2}', "--local", "--json")
    assert (status, json.loads(out)) == (0, {"result": 5})


def test_a_tool_that_fails_is_exit_status_1(run: Run) -> None:
    status, out, err = run("tools", "call", "fail", "--local", *ONLY)
    assert (status, out) == (1, "")
    assert err.splitlines()[-2:] == ["1 now", "error: It failed[31m. Do not call it."]
    status, out, _ = run("tools", "call", "fail", "--local", "--json", *ONLY)
    assert status == 1
    assert json.loads(out)["error"]["code"] == "tool_failed"


@pytest.mark.parametrize(
    ("args", "code", "complaint"),
    [
        (("ad", "--local", *ONLY), "unknown_tool", "Did you mean 'add'"),
        (("add", "a=x", "--local", *ONLY), "invalid_arguments", "'a' takes a whole number"),
        (("add", "c=1", "--local", *ONLY), "invalid_arguments", "unknown argument"),
        (("add", "a=1", "--local", "--plugins", "zzzz"), "selection", "'zzzz'"),
        (("add", "a=1", "--data-dir", "/nonexistent"), "no_daemon", "No daemon listens on"),
    ],
)
def test_a_tool_that_could_not_be_called_is_exit_status_2(
    run: Run, args: tuple[str, ...], code: str, complaint: str
) -> None:
    status, out, err = run("tools", "call", *args)
    assert (status, out) == (2, "")
    assert complaint in err
    status, out, _ = run("tools", "call", *args, "--json")
    assert status == 2
    assert json.loads(out)["error"]["code"] == code


def test_calling_without_any_plugin_says_where_to_look(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpd_core.installed.installed", lambda *args: iter(()))
    monkeypatch.setattr("mcpd_core.discovery.installed", lambda *args: iter(()))
    status, _, err = run("tools", "call", "add", "--local")
    assert status == 2
    assert "mcpd plugins list" in err


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("tools", "call", "add", "--local", "--data-dir", "d"), "--local uses none"),
        (("tools", "call", "add", "--plugins", "planted"), "--plugins goes with --local"),
        (("tools", "list", "--plugins", " , "), "names no plugin"),
        (("tools", "cal"), "No such command 'cal'"),
        (("nonsense",), "No such command 'nonsense'"),
        (("plugins", "manifest", "missing"), "'missing' does not exist"),
    ],
)
def test_usage_errors_are_exit_status_2(run: Run, args: tuple[str, ...], complaint: str) -> None:
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert complaint in err
    assert "--help says more" in err


@pytest.mark.parametrize("args", [(), ("tools",), ("plugins",)])
def test_a_group_without_subcommand_shows_its_help(run: Run, args: tuple[str, ...]) -> None:
    status, out, err = run(*args)
    assert (status == 2 and err.startswith("Usage: mcpd")) or (
        status == 0 and out.startswith("Usage: mcpd")  # click before 8.2
    )
    assert "\nCommands:\n" in out + err


def test_attach_is_a_command_like_any_other(
    planted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # `__main__` dispatches it before anything is imported; here it is reached the long way.
    assert main(["attach", "--help"]) == 0
    assert "usage: mcpd attach" in capfd.readouterr().out


def test_a_settings_error_is_told_without_traceback(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mcpd.toml").write_text("[executor]\nqeue = 1\n")
    status, out, err = run("tools", "list")
    assert (status, out) == (2, "")
    assert err == "error: mcpd.toml: [executor] has no setting 'qeue'.\n  Did you mean 'queue'?\n"


def test_settings_choose_the_plugins(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text('[plugins]\ndeny = ["planted"]\n')
    _, out, _ = run("plugins", "list", "--json", "--config", str(file))
    assert row(out)["state"] == "disabled"
    _, out, _ = run("tools", "list", "--config", str(file))
    assert "planted" not in out


# --- what is imported -----------------------------------------------------------------------------

PROBE = """
import json, sys
from mcpd_core.cli import main
main(json.loads(sys.argv[1]))
sys.stdout.flush()
print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["plugins", "list"],
        ["plugins", "list", "--json"],
        ["tools", "list"],
        ["tools", "show", "add"],
        ["tools", "search", "numbers"],
        ["tools", "call", "add", "a=1", "--data-dir", "/nonexistent"],
    ],
)
def test_commands_that_only_look_import_nothing_heavy(planted: Path, args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(args)],
        capture_output=True,
        text=True,
        check=True,
        cwd=planted,
    )
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert "mcpd_core" in imported
    heavy = {"mcp", "mcp_types", "pydantic", "pluggy", "rich", "anyio", "asyncio", "trio", "libp2p"}
    assert not imported & (heavy | {"planted"})
