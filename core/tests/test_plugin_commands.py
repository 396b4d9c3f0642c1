"""Commands that plugins add to the command line: whose a name is, and what is imported for it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from mcpd_core.cli import main
from mcpd_core.cli.app import mcpd
from mcpd_core.cli.groups import OpenGroup
from mcpd_core.commands import CORE, GROUPS, assign, read_commands
from mcpd_core.contract import Problem
from mcpd_core.errors import ManifestError
from mcpd_core.inventory import PluginRow
from mcpd_core.manifest_writer import generate
from mcpd_core.spec import CommandSpec
from mcpd_core.testing import PlantedPlugin, WritePlugin

COMMAND = """
    import click
    from mcpd_core import InvalidArguments, ToolError
    from mcpd_core.commandline import FAILED, Daemon, confirm, data_dir_option, write

    @click.group()
    def sums() -> None:
        "Work with sums."

    @sums.command()
    @click.argument("numbers", type=int, nargs=-1)
    def add(numbers: tuple[int, ...]) -> int:
        "Add numbers."
        write(str(sum(numbers)))
        return FAILED if sum(numbers) < 0 else 0

    @sums.command()
    def fail() -> None:
        raise ToolError("It failed\\x1b[31m.", hint="Do not call it.")

    @sums.command()
    def misfit() -> None:
        raise InvalidArguments("It does not fit.")

    @sums.command()
    @click.option("--yes", is_flag=True)
    def forget(yes: bool) -> None:
        if confirm("Forget all sums?", yes=yes):
            write("forgotten")

    @sums.command()
    @data_dir_option
    def ask(data_dir: str | None) -> None:
        with Daemon(data_dir) as daemon:
            write(daemon.call("total", {})["text"])

    not_a_command = 3
"""

Plant = Callable[..., PlantedPlugin]


@pytest.fixture
def plant(tmp_plugin: WritePlugin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plant:
    """Writes a plugin with commands: their names, and where each is in its module."""
    for name in [name for name in os.environ if name.startswith("MCPD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MCPD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def plant(name: str = "planted", **commands: str) -> PlantedPlugin:
        plugin = tmp_plugin("", name=name, plugin="", manifest=False)
        tables = "".join(
            f'[tool.mcpd.commands."{command}"]\nentry = "{plugin.package}.cli:{attribute}"\n'
            f'help = "Work with {command}."\n'
            for command, attribute in commands.items()
        )
        project = plugin.project / "pyproject.toml"
        project.write_text(project.read_text() + tables)
        source = "from __future__ import annotations\n" + textwrap.dedent(COMMAND)
        (plugin.path / plugin.package / "cli.py").write_text(source)
        for described in generate(plugin.project):
            described.write()
        return plugin

    return plant


# --- what a plugin declares -----------------------------------------------------------------------


def test_the_manifest_repeats_what_the_project_declares(plant: Plant) -> None:
    plugin = plant(sums="sums")
    (described,) = json.loads(plugin.manifest.read_text())["plugins"].values()
    assert described["commands"] == [
        {"name": "sums", "entry": f"{plugin.package}.cli:sums", "help": "Work with sums."}
    ]


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ({}, "c: must be an array"),
        ([1], "c[0]: must be an object, not 1"),
        ([{"entry": "a:b"}], "c[0]: has no name"),
        ([{"name": "a"}], "c[0]: has no entry"),
        ([{"name": "A b", "entry": "a:b"}], 'c[0].name: "A b" is not a name of a command'),
        ([{"name": "a b c", "entry": "a:b"}], 'c[0].name: "a b c" is not a name of a command'),
        ([{"name": "a", "entry": "a"}], 'c[0].entry: "a" is not of the form'),
        ([{"name": "a", "entry": "a:b", "help": 1}], "c[0].help: must be a string"),
        ([{"name": "a", "entry": "a:b"}] * 2, "c[1]: the command 'a' is declared twice"),
    ],
)
def test_a_command_that_is_not_declared_properly_is_refused(items: object, problem: str) -> None:
    with pytest.raises(Problem) as caught:
        read_commands(items, "c", "planted")
    assert problem in str(caught.value)


def test_a_misspelt_key_of_the_project_is_refused(plant: Plant) -> None:
    plugin = plant(sums="sums")
    project = plugin.project / "pyproject.toml"
    project.write_text(project.read_text() + 'entri = "x"\n')
    with pytest.raises(ManifestError, match=r"commands.sums\]: has the unknown key 'entri'"):
        generate(plugin.project)


def test_what_a_later_version_adds_to_a_manifest_is_no_trouble() -> None:
    item = {"name": "a", "entry": "m:a", "hidden": True}
    assert read_commands([item], "c", "p") == (CommandSpec("a", "m:a", "", "p"),)


# --- who gets a name ------------------------------------------------------------------------------


def row(name: str, *commands: str, state: str = "enabled") -> PluginRow:
    specs = tuple(CommandSpec(command, f"{name}:x", plugin=name) for command in commands)
    return PluginRow(name, f"dist-{name}", "1", "any", state, commands=specs)  # type: ignore[arg-type]


def test_the_names_of_the_core_are_those_of_its_commands() -> None:
    assert tuple(mcpd.lazy) == CORE


def test_the_groups_of_the_core_are_those_that_take_commands_of_plugins() -> None:
    ctx = click.Context(mcpd)
    groups = {name: mcpd.get_command(ctx, name) for name in mcpd.lazy}
    taking = {name: group for name, group in groups.items() if isinstance(group, OpenGroup)}
    assert {name: set(group.commands) for name, group in taking.items()} == {
        name: set(below) for name, below in GROUPS.items()
    }


def test_below_its_groups_the_core_wins_too_and_elsewhere_nothing_can_be() -> None:
    one = row("one", "config show", "config sums", "top sums", "sums", "sums add")
    assigned = assign([one, row("two", "config sums"), row("three", "tools sums")])
    assert list(assigned.free) == ["sums", "tools sums"]
    assert [spec.group for spec in assigned.free.values()] == ["", "tools"]
    assert assigned.contested == {"config sums": ["dist-one:one", "dist-two:two"]}
    groups = "those are config, plugins, tools."
    assert assigned.refused["dist-one:one"] == [
        "Its command 'config show' cannot be run: `mcpd config show` is the core's own.",
        (
            "Its command 'config sums' cannot be run: dist-two:two has one of that name too. "
            "Disable one of them."
        ),
        f"Its command 'sums add' cannot be run: `mcpd sums` is no group of the core's; {groups}",
        f"Its command 'top sums' cannot be run: `mcpd top` is no group of the core's; {groups}",
    ]


def test_the_core_wins_and_of_two_plugins_neither() -> None:
    assigned = assign([row("one", "tools", "sums"), row("two", "sums", "lone"), row("three", "b")])
    assert list(assigned.free) == ["b", "lone"]
    assert assigned.contested == {"sums": ["dist-one:one", "dist-two:two"]}
    rival = "Its command 'sums' cannot be run: {} has one of that name too. Disable one of them."
    core = "Its command 'tools' cannot be run: `mcpd tools` is the core's own."
    assert assigned.refused == {
        "dist-one:one": [rival.format("dist-two:two"), core],
        "dist-two:two": [rival.format("dist-one:one")],
    }


def test_a_plugin_that_is_not_enabled_claims_nothing() -> None:
    assert list(assign([row("one", "sums"), row("two", "sums", state="disabled")]).free) == ["sums"]


def test_a_name_that_is_taken_is_reported_wherever_somebody_looks(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant("one", tools="sums", sums="sums")
    plant("two", sums="sums")
    assert main(["--help"]) == 0
    told = capsys.readouterr()
    assert "Work with" not in told.out
    assert "one: Its command 'tools' cannot be run: `mcpd tools` is the core's own." in told.err
    assert main(["plugins", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["one"]["state"] == listed["two"]["state"] == "enabled"
    assert "Its command 'sums' cannot be run" in listed["one"]["reason"]
    assert "Its command 'sums' cannot be run" in listed["two"]["reason"]
    assert main(["doctor", "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert any("Its command 'sums' cannot be run" in str(finding) for finding in found)
    assert main(["sums", "add", "1"]) == 2
    assert "Several plugins have a command 'sums'" in capsys.readouterr().err
    assert main(["tools", "--help"]) == 0
    assert "search and call tools" in capsys.readouterr().out


# --- running one ----------------------------------------------------------------------------------


def test_a_command_is_run_and_its_status_counts(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(sums="sums")
    assert main(["sums", "add", "1", "2"]) == 0
    assert capsys.readouterr().out == "3\n"
    assert main(["sums", "add", "--", "-1"]) == 1
    assert main(["sums", "add", "x"]) == 2
    assert "mcpd sums add --help says more." in capsys.readouterr().err


def test_a_command_below_a_group_of_the_core_is_run_and_named_there(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(**{"config sums": "sums", "config show": "sums"})
    assert main(["config", "sums", "add", "1", "2"]) == 0
    assert capsys.readouterr().out == "3\n"
    assert main(["config", "sums", "add", "x"]) == 2
    assert "mcpd config sums add --help says more." in capsys.readouterr().err
    assert main(["config", "--help"]) == 0
    told = capsys.readouterr()
    assert "Work with config sums." in told.out
    assert "Work with config show." not in told.out
    assert "Its command 'config show' cannot be run" in told.err
    assert main(["--help"]) == 0
    assert "sums" not in capsys.readouterr().out
    assert main(["config", "show", "--json"]) == 0
    assert "settings" in json.loads(capsys.readouterr().out)
    assert main(["sums"]) == 2
    assert main(["config", "smus"]) == 2
    assert "No such command 'smus'" in capsys.readouterr().err


def test_its_errors_are_printed_as_those_of_the_core(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(sums="sums")
    assert main(["sums", "fail"]) == 1
    assert capsys.readouterr().err == "error: It failed[31m.\n  Do not call it.\n"
    assert main(["sums", "misfit"]) == 2


def test_without_a_daemon_it_says_how_to_start_one(
    plant: Plant, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plant(sums="sums")
    assert main(["sums", "ask", "--data-dir", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert f"No daemon listens on {tmp_path}/mcpd.sock." in told
    assert "`mcpd serve`" in told
    assert "--local" not in told


def test_nobody_is_asked_where_there_is_no_terminal(
    plant: Plant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(sums="sums")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["sums", "forget"]) == 2
    assert "Forget all sums? Nobody can be asked here: say --yes." in capsys.readouterr().err
    assert main(["sums", "forget", "--yes"]) == 0
    assert capsys.readouterr().out == "forgotten\n"


def test_a_command_of_a_disabled_plugin_says_why_it_is_not_there(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(sums="sums")
    assert main(["plugins", "disable", "planted"]) == 0
    assert main(["sums", "add", "1"]) == 2
    told = capsys.readouterr().err
    assert "is of the plugin" in told
    assert "which is disabled:" in told
    assert main(["--help"]) == 0
    assert "sums" not in capsys.readouterr().out


def test_what_cannot_be_imported_or_is_no_command_is_told(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = plant(sums="sums", gone="gone", three="not_a_command")
    assert main(["gone"]) == 1
    assert f"{plugin.package}.cli:gone: AttributeError" in capsys.readouterr().err
    assert main(["three"]) == 1
    assert "is no click command" in capsys.readouterr().err
    assert main(["plugins", "check", "planted"]) == 1
    told = capsys.readouterr().err
    assert "The command 'gone' of the plugin 'planted' cannot be imported" in told
    assert "'sums'" not in told


def test_with_wrong_settings_the_help_still_comes(
    plant: Plant, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plant(sums="sums")
    (tmp_path / "mcpd.toml").write_text("[serve]\nplugins = ['no-such-plugin']\n")
    assert main(["--help"]) == 0
    told = capsys.readouterr()
    assert "serve" in told.out
    assert "the commands of plugins are not known: " in told.err
    assert main(["sums", "add"]) == 2
    assert "no-such-plugin" in capsys.readouterr().err


def test_no_command_of_that_name(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant(sums="sums")
    assert main(["smus"]) == 2
    assert "No such command 'smus'" in capsys.readouterr().err


# --- what is imported, and completed --------------------------------------------------------------


PROBE = """
import json, sys
from mcpd_core.cli import main
main(json.loads(sys.argv[1]))
sys.stdout.flush()
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def ran(plugin: PlantedPlugin, *command: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(plugin.path), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def imported(plugin: PlantedPlugin, *args: str) -> tuple[str, set[str]]:
    """Run a command; return what it says, and the modules that are loaded in the end."""
    said, _, modules = ran(plugin, "-c", PROBE, json.dumps(args)).rstrip().rpartition("\n")
    return said, set(json.loads(modules))


def test_the_help_names_commands_without_importing_them(plant: Plant) -> None:
    plugin = plant(sums="sums")
    said, modules = imported(plugin, "--help")
    assert "Work with sums." in said
    assert plugin.package not in modules


def test_a_command_imports_its_own_module_and_nothing_of_the_server(plant: Plant) -> None:
    plugin = plant(sums="sums")
    said, modules = imported(plugin, "sums", "--help")
    assert "Add numbers." in said
    assert f"{plugin.package}.cli" in modules
    heavy = {"mcp", "trio", "anyio", "asyncio", "pydantic", "pluggy", "rich"}
    assert not modules & {f"{plugin.package}.plugin", *heavy}


def test_a_shell_completes_them(plant: Plant) -> None:
    plugin = plant(**{"sums": "sums", "gone": "gone", "config sums": "sums"})

    def completed(words: str, last: str) -> list[str]:
        env = {
            "_MCPD_COMPLETE": "bash_complete",
            "COMP_WORDS": f"mcpd {words} {last}",
            "COMP_CWORD": str(1 + len(words.split())),
        }
        lines = ran(plugin, "-m", "mcpd_core", **env).splitlines()
        return [line.partition(",")[2] for line in lines]

    assert completed("", "su") == ["sums"]
    assert completed("config", "s") == ["schema", "show", "sums"]
    assert completed("config sums", "ad") == ["add"]
    assert completed("sums", "a") == ["add", "ask"]
    # What cannot be imported must not spoil what the shell shows.
    assert "sums" in completed("gone", "")
