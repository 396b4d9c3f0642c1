"""`mcpd plugins new`: what it writes passes its own tests, types and manifest check as written."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest


class Author:
    """Somebody with a folder and an environment of their own, in which mcpd is installed.

    The environment sees what this one has, and can be installed into.

    :ivar said: what the last command wrote beside its output.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "env/bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
        packages = next((folder / "env/lib").glob("python*/site-packages"))
        seen = [path for path in site.getsitepackages() if Path(path).is_dir()]
        lines = [f"import site; site.addsitedir({path!r})" for path in seen]
        (packages / "_seen.pth").write_text("\n".join(lines) + "\n")
        self._environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MCPD_", "PYTHON", "XDG_", "COVERAGE_"))
        }
        self._environment["HOME"] = str(folder)
        self.said = ""

    def run(self, *arguments: str, at: Path | None = None) -> str:
        """Run a module of Python's and return what it prints."""
        done = subprocess.run(
            [self.python, "-m", *arguments],
            cwd=at or self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
        self.said = done.stderr
        return done.stdout

    def mcpd(self, *arguments: str, at: Path | None = None) -> str:
        return self.run("mcpd_core", *arguments, at=at)


@pytest.fixture(scope="module")
def type_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy knows of the libraries that all the plugins use."""
    return tmp_path_factory.mktemp("types")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("new_plugin")
@pytest.mark.parametrize("runtime", ["asyncio", "trio", "any"])
def test_a_new_plugin_passes_its_own_checks(runtime: str, tmp_path: Path, type_cache: Path) -> None:
    author = Author(tmp_path)
    name, plugin = f"air-{runtime}", f"air_{runtime}"
    written = author.mcpd("plugins", "new", name, "--runtime", runtime)
    project = tmp_path / f"mcpd-{name}"
    assert sorted(written.splitlines()) == sorted(
        str(path.relative_to(tmp_path)) for path in project.rglob("*") if path.is_file()
    )
    install = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    assert "pip install --editable '.[dev]' && pytest" in author.said
    author.run("pip", "install", *install, "--editable", ".[dev]", at=project)
    assert "4 passed" in author.run("pytest", "-q", at=project)
    author.run("mypy", f"--cache-dir={type_cache}", "src", "tests", at=project)
    for command in (["check"], ["format", "--check"]):
        author.run("ruff", *command, "--isolated", "--line-length=100", ".", at=project)
    author.run("ruff", "check", "--isolated", "--select=I,B,UP,SIM,RUF,D1", "src", at=project)
    author.mcpd("plugins", "manifest", ".", "--check", at=project)
    author.mcpd("plugins", "check", name)
    rows = json.loads(author.mcpd("plugins", "list", "--json"))
    (row,) = (row for row in rows if row["distribution"] == f"mcpd-{name}")
    assert (row["name"], row["state"], row["runtime"]) == (plugin, "enabled", runtime)
    assert (row["tools"], row["editable"]) == (2, True)
    call = ["tools", "call", f"{plugin}_count", "text=a bee", "--local", "--json"]
    assert json.loads(author.mcpd(*call)) == {"words": 2, "longest": "bee"}
    waited = author.mcpd("tools", "call", f"{plugin}_wait", "seconds=0.01", "--local")
    assert waited == "waited 0.01 s\n"
