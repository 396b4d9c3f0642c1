"""The whole suite on every supported interpreter, and with the oldest and newest dependencies.

    nox                                       # all of it
    nox -s tests-3.12 -- core/tests           # one interpreter, some tests
    nox -s "trio(release='0.27')"             # the runtimes with one release of trio, or 'main'
    nox --error-on-missing-interpreters       # an interpreter that is not found is an error

Interpreters that are not found are named and left out. Each session has an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
#: The SDK's previous generation.
OLD_SDK = "mcp==1.30.*"
#: Tried when they are there, and not promised yet.
COMING = ("3.14",)
#: Every release of trio that the extra allows. trio's main branch is tried every week.
TRIOS = ("0.27", "0.28", "0.29", "0.30", "0.31", "0.32", "0.33", "0.34", "0.35")
TRIO_MAIN = "trio @ git+https://github.com/python-trio/trio"

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests", "oldest", "newest"]
# nox would make it an error wherever the variable CI is set; here whoever starts it says so.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"


def find(version: str) -> Path | None:
    """Return the folder of an interpreter that runs; a shim that only complains does not."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    for folder in [*folders, *sorted(pyenv.glob(f"{version}.*/bin"))]:
        python = shutil.which(name, path=str(folder))
        if python is not None:
            done = subprocess.run([python, "-c", ""], capture_output=True, check=False)
            if done.returncode == 0:
                return folder
    return None


found = {version: folder for version in (*VERSIONS, *COMING) if (folder := find(version))}
missing = [version for version in (*VERSIONS, *COMING) if version not in found]
if missing:
    sys.stderr.write(f"interpreters not found: {', '.join(f'python{v}' for v in missing)}\n")
# In front, so that nox takes the interpreters that were tried, and no shim before them.
os.environ["PATH"] = os.pathsep.join([*map(str, found.values()), os.environ["PATH"]])


def install(session: nox.Session, constraints: str | None) -> None:
    """Install every distribution of the repository, editable, and what their tests need."""
    dists = [
        str(path.parent.relative_to(ROOT))
        for folder in ("plugins", "examples")
        for path in sorted((ROOT / folder).glob("*/pyproject.toml"))
    ]
    editable = [part for dist in ("core[fast,trio]", *dists) for part in ("-e", dist)]
    pinned = [] if constraints is None else ["--constraint", constraints]
    # Older versions of pip know no dependency groups.
    session.install("pip>=25.1")
    session.install(*pinned, "--group", "dev", *editable)


def suite(session: nox.Session) -> None:
    """Run the tests that are named behind ``--``, or all."""
    # Clients that are tested and cannot share the session's environment.
    session.run("python", "tools/environment.py", f"{session.virtualenv.location}-mcp1", OLD_SDK)
    session.run("python", "tools/node.py", ".venv-node", "tests/node/package.json")
    session.run("python", "-m", "pytest", "-q", *session.posargs)


@nox.session(python=[*VERSIONS, *(version for version in COMING if version in found)])
def tests(session: nox.Session) -> None:
    """The whole suite with the pinned dependencies."""
    install(session, "constraints.txt")
    suite(session)


@nox.session(python=VERSIONS[0])
def oldest(session: nox.Session) -> None:
    """The whole suite with the oldest dependencies that are allowed."""
    install(session, "constraints-oldest.txt")
    suite(session)


@nox.session(python=VERSIONS[-1])
def newest(session: nox.Session) -> None:
    """The whole suite with whatever is newest today."""
    install(session, None)
    suite(session)


@nox.session(python=VERSIONS[-1])
@nox.parametrize("release", [*TRIOS, "main"])
def trio(session: nox.Session, release: str) -> None:
    """The tests of the runtimes with one release of trio, or with its main branch."""
    install(session, "constraints.txt")
    session.install(TRIO_MAIN if release == "main" else f"trio=={release}.*")
    files = [*Path("core/tests").glob("test_trio_*.py")]
    files += [Path(f"core/tests/test_{name}.py") for name in ("bridge", "runtimes", "watchdog")]
    tests = session.posargs or map(str, sorted(files))
    session.run("python", "-m", "pytest", "-q", *tests)
