"""The distributions as users get them: built, installed into a clean environment, and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The wheels are built once.
pytestmark = pytest.mark.xdist_group("packaging")

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = sorted(
    path.parent
    for folder in ("plugins", "examples")
    for path in (ROOT / folder).glob("*/pyproject.toml")
)
DISTS = [ROOT / "core", *PLUGINS]
#: The core brings a plugin in a package of its own.
PACKAGES = {
    dist: sorted(path.parent for path in (dist / "src").glob("*/__init__.py")) for dist in DISTS
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("dist", DISTS, ids=name_of)
def test_every_distribution_has_the_same_shape(dist: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        assert (dist / name).is_file(), name
    for name in ("src", "tests"):
        assert (dist / name).is_dir(), name
    assert (dist / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for package in PACKAGES[dist]:
        assert (package / "py.typed").is_file()


def test_constraints_name_versions_and_nothing_else() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        requirement = line.partition(" ;")[0]
        assert line.startswith("#") or requirement.count("==") == 1, line
        assert "/" not in line, line


# --- built ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """A wheel of each distribution, built from its source distribution."""
    built = {}
    for dist in DISTS:
        out = tmp_path_factory.mktemp(dist.name)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(dist)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=out)
        assert done.returncode == 0, done.stdout + done.stderr
        (built[dist],) = out.glob("*.whl")
        assert list(out.glob("*.tar.gz"))
    return built


@pytest.mark.packaging
@pytest.mark.timeout(300)
@pytest.mark.parametrize("dist", DISTS, ids=name_of)
def test_a_wheel_holds_what_it_must_and_no_tests(wheels: Mapping[Path, Path], dist: Path) -> None:
    with zipfile.ZipFile(wheels[dist]) as wheel:
        names = wheel.namelist()
    assert {f"{package.name}/py.typed" for package in PACKAGES[dist]} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    # `mcpd_core.testing` is for the tests of others and belongs in.
    assert not any(re.search(r"(^|/)(tests/|test_|conftest\.py)", name) for name in names)
    kinds = ("*.py", "*.in")  # modules, and the templates of `mcpd plugins new`
    sources = {
        str(path.relative_to(dist / "src"))
        for package in PACKAGES[dist]
        for kind in kinds
        for path in package.rglob(kind)
    }
    assert sources <= set(names)
    # One package of each offers tools.
    assert sum(name.endswith("/mcpd_plugin.json") for name in names) == 1


# --- installed ------------------------------------------------------------------------------------


@dataclass
class Environment:
    """A clean environment with the wheels in it."""

    bin: Path
    env: dict[str, str]

    def run(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.env,
            cwd=self.bin.parent,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run a daemon that serves the socket of the data directory."""
        daemon = subprocess.Popen(
            [self.bin / "mcpd", "serve", "--transport", "socket"],
            env=self.env,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert daemon.stderr is not None
        with daemon, daemon.stderr:
            said = []
            for line in daemon.stderr:
                said.append(line)
                if "listening on" in line:
                    break
            else:
                raise AssertionError("".join(said))
            try:
                yield
            finally:
                daemon.terminate()


@pytest.fixture(scope="module")
def clean(wheels: Mapping[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "env", with_pip=True)
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MCPD_", "PYTHON", "COVERAGE_"))
    }
    env["MCPD_DATA_DIR"] = str(folder / "data")
    command = [str(folder / "env/bin/python"), "-m", "pip", "install", "--quiet"]
    command += ["--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(
        [*command, *map(str, wheels.values())], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Environment(folder / "env/bin", env)


@pytest.mark.packaging
@pytest.mark.timeout(600)
def test_the_wheels_work_in_a_clean_environment(clean: Environment) -> None:
    clean.run("python", "-m", "pip", "check")
    rows = json.loads(clean.run("mcpd", "plugins", "list", "--json"))
    # The core is one of them: it brings the catalog tools.
    assert {row["distribution"] for row in rows} == {
        "mcpd-" + dist.name.replace("_", "-") for dist in DISTS
    }
    for row in rows:
        assert row["state"] == "enabled", row
        assert row["tools"] > 0, row
        assert row["editable"] is False
    for row in rows:
        clean.run("mcpd", "plugins", "check", row["name"])
    assert clean.run("python", "-m", "mcpd_core", "--version") == clean.run("mcpd", "--version")


@pytest.mark.packaging
@pytest.mark.timeout(600)
def test_a_stdio_session_runs_in_a_clean_environment(clean: Environment) -> None:
    client = {"name": "test", "version": "1"}
    messages: list[dict[str, Any]] = [
        {
            "id": 1,
            "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client},
        },
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {
            "id": 3,
            "method": "tools/call",
            "params": {"name": "hello_greet_all", "arguments": {"names": ["Ada"]}},
        },
    ]
    session = "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages)
    out = clean.run("mcpd", "serve", "--standalone", stdin=session)
    answers = {message["id"]: message["result"] for message in map(json.loads, out.splitlines())}
    assert answers[1]["serverInfo"]["name"] == "mcpd"
    offered = {tool["name"] for tool in answers[2]["tools"]}
    listed = {tool["name"] for tool in json.loads(clean.run("mcpd", "tools", "list", "--json"))}
    assert offered == listed
    # A trio tool that calls an asyncio tool.
    assert answers[3]["structuredContent"] == {"result": ["Hello, Ada!"]}


@pytest.mark.packaging
@pytest.mark.timeout(600)
def test_a_new_plugin_is_built_installed_beside_ours_served_and_called(
    clean: Environment, tmp_path: Path
) -> None:
    project = tmp_path / "mcpd-air-quality"
    clean.run("mcpd", "plugins", "new", "air-quality", "--runtime", "trio", "--dir", str(project))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*build, str(project)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    pip = ["python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Its dependencies are there already; should they not be, nothing is fetched for it.
    clean.run(*pip, "install", "--no-index", str(wheel))
    try:
        clean.run("python", "-m", "pip", "check")
        clean.run("mcpd", "plugins", "check", "air_quality")
        with clean.serving():
            counted = clean.run("mcpd", "tools", "call", "air_quality_count", "text=a b", "--json")
            assert json.loads(counted) == {"words": 2, "longest": "a"}
            waited = clean.run("mcpd", "tools", "call", "air_quality_wait", "seconds=0.01")
            assert waited == "waited 0.01 s\n"
            greeted = clean.run("mcpd", "tools", "call", "hello_greet", "name=Ada")
            assert greeted == "Hello, Ada!\n"
            report = json.loads(clean.run("mcpd", "doctor", "--json"))
            assert any("A daemon answers" in finding["message"] for finding in report)
    finally:
        clean.run(*pip, "uninstall", "--yes", "mcpd-air-quality")
