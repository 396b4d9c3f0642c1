"""constraints-oldest.txt names the lower bound of every range of ours."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = [ROOT / "core", *(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def required() -> dict[str, list[Requirement]]:
    """Everything that our distributions depend on, extras included; those of tests are not."""
    found: dict[str, list[Requirement]] = {}
    for project in PROJECTS:
        table: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        extras = table.get("optional-dependencies", {})
        lines = [*table["dependencies"]]
        lines += [line for name, extra in extras.items() if name != "testing" for line in extra]
        for requirement in map(Requirement, lines):
            if not requirement.name.startswith("mcpd-"):
                found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_every_dependency_is_pinned_to_its_lower_bound_or_says_why_not() -> None:
    pins = {}
    for line in (ROOT / "constraints-oldest.txt").read_text().splitlines():
        match = re.fullmatch(r"([\w.-]+)==([\w.]+)(  # .+)?", line)
        assert match or line.startswith("#"), line
        if match:
            pins[match[1]] = (Version(match[2]), match[3])
    wanted = required()
    assert sorted(pins) == sorted(wanted)
    for name, requirements in wanted.items():
        version, reason = pins[name]
        bounds = [
            Version(part.version)
            for requirement in requirements
            for part in requirement.specifier
            if part.operator == ">="
        ]
        for requirement in requirements:
            assert requirement.specifier.contains(version), f"{name} {version}: {requirement}"
        if reason is None:
            assert version == max(bounds), name
        else:
            assert version > max(bounds), f"{name} needs no reason any more"
