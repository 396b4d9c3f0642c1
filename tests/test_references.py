"""The generated reference pages are what the code says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mcpd_core.settings import core_sections, load_settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def references() -> ModuleType:
    spec = importlib.util.spec_from_file_location("references", ROOT / "tools/references.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "hooks.md", "configuration.md"])
def test_a_page_is_up_to_date(references: ModuleType, name: str) -> None:
    written = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert written == references.pages()[name], f"{name} is out of date: run `make references`"


def test_every_setting_and_its_variable_are_described(references: ModuleType) -> None:
    page = references.configuration()
    for section, model in core_sections().items():
        for key in model.__dataclass_fields__:
            assert f"`{key}`<br>`MCPD_{section.upper()}__{key.upper()}`" in page
    assert "|  |" not in page, "a setting without a meaning"


def test_the_example_is_a_valid_settings_file(references: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "mcpd.toml"
    file.write_text(references.EXAMPLE)
    settings = load_settings(str(file), env={})
    assert settings.http.port == 9000
    assert settings.section("task_queue") == {"workers": 4}


def test_a_command_of_every_level_and_a_hook_are_described(references: ModuleType) -> None:
    pages = references.pages()
    for command in ("serve", "tools call", "plugins new", "config show"):
        assert f"## `mcpd {command}`\n" in pages["cli.md"]
    assert "`--transport` `http\\|stdio\\|socket`" in pages["cli.md"]
    assert "| --- | --- |\n\n" not in pages["cli.md"]
    assert "def mcpd_services() -> Iterable[Service]\n" in pages["hooks.md"]
    assert "registrar.add_module(" in pages["hooks.md"]


def test_the_check_names_the_page_and_the_remedy(
    references: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(references, "FOLDER", tmp_path)
    assert references.main(["--check"]) == 1
    assert "hooks.md is out of date: run `make references`" in capsys.readouterr().out
    assert references.main([]) == 0
    assert references.main(["--check"]) == 0


def test_the_pages_do_not_depend_on_the_terminal() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/references.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "40", "PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
