"""`mcpd plugins new`: names, files and refusals. That what it writes works is tested elsewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd_core.cli import main, scaffold
from mcpd_core.cli.scaffold import Names, ScaffoldError, names_for, project_files, write_project
from mcpd_core.testing import check_manifest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = Names("air_quality", "mcpd-air-quality", "mcpd_air_quality")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What is generated is imported once, to describe it; the next test generates it elsewhere."""
    yield
    for name in [name for name in sys.modules if name.startswith(NAMES.package)]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["air-quality", "Air_Quality", "air.quality", "mcpd-air-quality"])
def test_one_name_gives_all_of_them(name: str) -> None:
    assert names_for(name) == NAMES


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "is no name"),
        ("1air", "is no name"),
        ("air/quality", "is no name"),
        ("luft-qualität", "is no name"),
        ("-air", "is no name"),
        ("mcpd", "belongs to mcpd itself"),
        ("a" * 41, "is no name"),
        ("core", "belongs to mcpd itself"),
        ("task-queue", "belongs to mcpd itself"),
        ("hello-plugin", "there is an installed package mcpd_hello_plugin"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_what_can(name: str, complaint: str) -> None:
    with pytest.raises(ScaffoldError, match=complaint) as caught:
        names_for(name)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("runtime", "requirement"),
    [
        ("asyncio", "mcpd-core>=0.1,<0.2"),
        ("trio", "mcpd-core[trio]>=0.1,<0.2"),
        ("any", "anyio>=4.9,<5"),
    ],
)
def test_a_project_declares_its_runtime_and_needs_its_library(
    runtime: str, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaffold, "__version__", "0.1.7")
    files = project_files(NAMES, runtime)  # type: ignore[arg-type]
    assert not [name for name, text in files.items() if re.search(r"\{\{|\}\}", text)]
    project = tomllib.loads(files["pyproject.toml"])
    assert requirement in project["project"]["dependencies"]
    assert project["project"]["entry-points"] == {
        f"mcpd_core.plugins.{runtime}": {"air_quality": "mcpd_air_quality.plugin"}
    }
    library = "anyio" if runtime == "any" else runtime
    assert f"await {library}.sleep" in files["src/mcpd_air_quality/tools.py"]


def test_the_core_is_bounded_by_its_next_incompatible_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaffold, "__version__", "2.3.1")
    assert '"mcpd-core>=2.3,<3"' in project_files(NAMES, "asyncio")["pyproject.toml"]


def test_a_project_is_written_with_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "air-quality", "--runtime", "any"]) == 0
    out, err = capsys.readouterr()
    project = tmp_path / "mcpd-air-quality"
    assert "mcpd-air-quality/src/mcpd_air_quality/mcpd_plugin.json" in out.splitlines()
    assert "cd mcpd-air-quality && pip install" in err
    assert os.listdir(tmp_path) == ["mcpd-air-quality"]
    assert not list(project.rglob("__pycache__"))
    for name in [name for name in sys.modules if name.startswith(NAMES.package)]:
        del sys.modules[name]
    check_manifest(project)


def test_a_folder_that_is_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    command = ["plugins", "new", "air-quality", "--runtime", "trio", "--dir", str(folder)]
    assert main(command) == 1
    assert "there exists already" in capsys.readouterr().err
    folder.rmdir()
    folder.symlink_to(tmp_path / "nowhere")
    assert main(command) == 1
    assert os.listdir(tmp_path) == ["there"]


def test_a_project_that_cannot_be_completed_is_not_there_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: Path) -> None:
        assert (directory / "pyproject.toml").exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scaffold, "_write_manifest", fail)
    with pytest.raises(ScaffoldError, match="cannot be made: No space left on device"):
        write_project(NAMES, "asyncio", tmp_path / "new")
    assert not list(tmp_path.iterdir())
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ScaffoldError, match="Not a directory"):
        write_project(NAMES, "asyncio", file / "new")
