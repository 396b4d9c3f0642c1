"""What plugins have `mcpd doctor` look at: asked of each alone, with the daemon or without."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import FileSystem, Finding, file_system_of
from mcpd_core.cli.doctor import checks
from mcpd_core.hooks import Hooks
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.settings import Settings

from .test_hooks import plugin

HEAD = """
    from mcpd_core import Finding, hookimpl
"""
TIDES = (
    HEAD
    + """
    @hookimpl
    def mcpd_doctor_checks(data_dir, ask):
        yield Finding("tides", "ok", f"The tables in {data_dir.name} are there.")
        yield Finding("tides", "note", "Nobody to ask." if ask is None else "There is a daemon.")
"""
)
BROKEN = (
    HEAD
    + """
    @hookimpl
    def mcpd_doctor_checks(data_dir):
        raise OSError("no tables")
"""
)
NO_PLUGIN = "raise ImportError('no such library')"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Inventory]:
    """Make enabled plugins with checks, of source code by their names."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(hooks: tuple[str, ...] = ("mcpd_doctor_checks",), **sources: str) -> Inventory:
        found = []
        for name, source in sources.items():
            module = f"{name}_{tmp_path.name.replace('-', '_')}"
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
            found.append(
                PluginRow(
                    name=name,
                    distribution=f"acme-{name}",
                    version="1.0",
                    runtime="asyncio",
                    state="enabled",
                    entry=module,
                    hooks=hooks,
                )
            )
        return Inventory(tuple(found))

    return make


def look(inventory: Inventory, directory: Path) -> list[tuple[str, str, str]]:
    found = checks.examine(inventory, directory, running=False)
    return [(finding.check, finding.level, finding.message) for finding in found]


def test_a_plugin_says_what_it_finds(rows: Callable[..., Inventory], tmp_path: Path) -> None:
    assert look(rows(tides=TIDES), tmp_path / "data") == [
        ("tides", "ok", "The tables in data are there."),
        ("tides", "note", "Nobody to ask."),
    ]


def test_a_plugin_sees_its_section_of_the_settings(
    rows: Callable[..., Inventory], tmp_path: Path
) -> None:
    source = f"""{HEAD}
    @hookimpl
    def mcpd_doctor_checks(section):
        yield Finding("tides", "ok", str(section("tides")))
    """
    inventory, settings = rows(tides=source), Settings(extra={"tides": {"port": "Kiel"}})
    (found,) = checks.examine(inventory, tmp_path, running=False, settings=settings)
    assert found.message == "{'port': 'Kiel'}"
    assert look(inventory, tmp_path) == [("tides", "ok", "{}")]


def test_one_that_fails_is_reported_and_the_others_are_asked(
    rows: Callable[..., Inventory], tmp_path: Path
) -> None:
    found = look(rows(broken=BROKEN, missing=NO_PLUGIN, tides=TIDES), tmp_path)
    by_plugin = {check: (level, message) for check, level, message in found}
    assert by_plugin["broken"][0] == by_plugin["missing"][0] == "error"
    assert "no tables" in by_plugin["broken"][1]
    assert by_plugin["tides"][0] == "note"
    assert len(found) == 4


def test_a_plugin_without_checks_is_not_imported(
    rows: Callable[..., Inventory], tmp_path: Path
) -> None:
    assert look(rows(("mcpd_services",), missing=NO_PLUGIN), tmp_path) == []


def test_a_daemon_that_has_just_gone_is_no_obstacle(
    rows: Callable[..., Inventory], tmp_path: Path
) -> None:
    found = list(checks.examine(rows(tides=TIDES), tmp_path, running=True))
    assert [finding.check for finding in found] == ["daemon", "tides", "tides"]
    assert found[-1].message == "Nobody to ask."


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (["all is well"], "'all is well', which is no Finding"),
        ([Finding("x", "fine", "")], "the level 'fine'"),  # type: ignore[arg-type]
        (7, "cannot be read"),
    ],
)
def test_what_is_no_finding_breaks_its_plugin(answer: Any, complaint: str, tmp_path: Path) -> None:
    hooks = Hooks()
    hooks.register(plugin(mcpd_doctor_checks=lambda: answer), "p")
    assert hooks.doctor_checks(tmp_path, None, lambda name: {}) == []
    assert complaint in hooks.broken["p"]


def test_the_file_system_of_a_path_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    assert file_system_of(tmp_path / "not" / "there") == file_system_of(tmp_path)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("nfs4", (True, False, False)),
        ("fuse.sshfs", (True, False, False)),
        ("fuse.other", (False, True, False)),
        ("virtiofs", (False, True, False)),
        ("tmpfs", (False, False, True)),
        ("ext4", (False, False, False)),
        ("", (False, False, False)),
    ],
)
def test_kinds_of_file_systems_are_told_apart(kind: str, what: tuple[bool, bool, bool]) -> None:
    found = FileSystem(kind)
    assert (found.network, found.shared, found.volatile) == what
