"""``mcpd plugins new``: a complete small project of a plugin, ready to be changed.

What is written is in the folder ``project``, with ``{{name}}`` where something is filled in; only
what differs between runtimes is here.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path

from ..._version import __version__
from ...errors import McpdError
from ...families import FAMILIES
from ...spec import RuntimeName

#: What the names of distributions and packages start with, as is usual for plugins of a program.
PREFIX = "mcpd"
#: The longest name: tool names start with it, and have at most 64 characters.
LONGEST = 40

#: File of the project -> its template.
_FILES = {
    ".gitignore": "gitignore.in",
    "README.md": "README.md.in",
    "pyproject.toml": "pyproject.toml.in",
    "src/{package}/__init__.py": "init.py.in",
    "src/{package}/plugin.py": "plugin.py.in",
    "src/{package}/py.typed": "",
    "src/{package}/tools.py": "tools.py.in",
    "tests/test_{plugin}.py": "checks.py.in",
}

_MARK = re.compile(r"\{\{(\w+)\}\}")


class ScaffoldError(McpdError):
    """Raised when a project cannot be made as it was asked for; nothing has been written."""

    code = "scaffold"


@dataclass(frozen=True)
class Names:
    """The names of a new plugin.

    :ivar plugin: of its entry point; tools start with it.
    :ivar distribution: what is installed.
    :ivar package: what is imported.
    """

    plugin: str
    distribution: str
    package: str


def names_for(name: str) -> Names:
    """Derive all names of a plugin from the one that a person gave it.

    ``Air-Quality``, ``air_quality`` and ``mcpd-air-quality`` are the same.

    :raises ScaffoldError: when it is no name, or is taken.
    """
    plugin = re.sub(r"[-_.\s]+", "_", name.strip().lower()).removeprefix(f"{PREFIX}_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", plugin) or len(plugin) > LONGEST:
        raise ScaffoldError(
            f"{name!r} is no name for a plugin.",
            hint="Use letters, digits and hyphens, beginning with a letter, at most "
            f"{LONGEST} of them: for example air-quality.",
        )
    names = Names(plugin, f"{PREFIX}-{plugin.replace('_', '-')}", f"{PREFIX}_{plugin}")
    taken = ""
    if plugin in FAMILIES or plugin in ("core", PREFIX):
        taken = "belongs to mcpd itself"
    elif PathFinder.find_spec(names.package) is not None:
        taken = f"is taken: there is an installed package {names.package}"
    if taken:
        raise ScaffoldError(f"The name {name!r} {taken}.", hint="Choose another name.")
    return names


def write_project(names: Names, runtime: RuntimeName, directory: Path) -> tuple[Path, ...]:
    """Write a project, its manifest included.

    :param directory: where to; it must not exist.
    :returns: the files, relative to the directory, sorted.
    :raises ScaffoldError: when the directory exists or cannot be made.
    """
    if directory.exists() or directory.is_symlink():
        raise ScaffoldError(
            f"{directory} exists already.", hint="Name another folder with --dir, or move it away."
        )
    # Made under another name and moved when it is complete: there is a whole project or none.
    making = directory.with_name(f".{directory.name}.new")
    try:
        making.mkdir(parents=True)
        try:
            for name, content in project_files(names, runtime).items():
                path = making / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
            _write_manifest(making)
            making.rename(directory)
        except BaseException:
            shutil.rmtree(making)
            raise
    except OSError as error:
        raise ScaffoldError(
            f"{directory} cannot be made: {error.strerror}.", hint="Name another with --dir."
        ) from error
    return tuple(
        sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    )


def project_files(names: Names, runtime: RuntimeName) -> dict[str, str]:
    """Return the content of the files that a person edits, by their paths in the project."""
    values = {**vars(names), "runtime": runtime, **_core(), **_differences(runtime)}
    templates = files(__package__) / "project"
    content = {}
    for name, template in _FILES.items():
        text = (templates / template).read_text(encoding="utf-8") if template else ""
        content[name.format(**vars(names))] = _MARK.sub(lambda mark: values[mark[1]], text)
    return content


def _core() -> dict[str, str]:
    major, minor = (int(part) for part in __version__.split(".")[:2])
    # Before 1.0 a minor version may change the interface.
    end = f"{major}.{minor + 1}" if major == 0 else str(major + 1)
    return {"core": "mcpd-core", "core_range": f">={major}.{minor},<{end}"}


def _differences(runtime: RuntimeName) -> dict[str, str]:
    library = {"asyncio": "asyncio", "trio": "trio", "any": "anyio"}[runtime]
    needed = [f"mcpd-core{'[trio]' if runtime == 'trio' else ''}{_core()['core_range']}"]
    if runtime == "any":
        needed.append("anyio>=4.9,<5")
    needed += ["pydantic>=2.11,<3", "typing-extensions>=4.12"]
    return {
        "library": library,
        "imports": "import asyncio\nfrom typing import Annotated\n"
        if library == "asyncio"
        else f"from typing import Annotated\n\nimport {library}",
        "extras": ",trio" if runtime == "trio" else "",
        "dependencies": "\n".join(f'    "{requirement}",' for requirement in needed),
        "comment": "Neutral code runs in its caller's runtime, whichever that is."
        if runtime == "any"
        else f"Code of this plugin may use all of {library}.",
    }


def _write_manifest(directory: Path) -> None:
    from ...manifest_writer import generate

    # What is imported here moves away: compiled files would name the wrong place.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        for file in generate(directory):
            file.write()
    finally:
        sys.dont_write_bytecode = before
