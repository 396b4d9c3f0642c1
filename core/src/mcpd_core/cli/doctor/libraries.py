"""The libraries that mcpd uses, by what its own distribution asks of them.

None is imported but trio, because how it can be driven takes a test to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ...findings import Finding
from ...text import error_text

if TYPE_CHECKING:
    from ...runtimes.trio_drivers import Choice

CORE = "mcpd-core"

#: What works without, and what it is for.
OPTIONAL = {
    "uvloop": ("fast", "the daemon runs on asyncio's own loop, which is slower"),
    "httptools": ("fast", "HTTP is parsed in Python, which is slower"),
    "trio": ("trio", "plugins for trio are left out"),
}

_REQUIREMENT = re.compile(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?\Z")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")
_CLAUSE = re.compile(r"(>=|<=|==|!=|~=|<|>)\s*([\w.*+!-]+)")


@dataclass(frozen=True)
class Requirement:
    """One library that a distribution asks for.

    :ivar versions: the range, such as ``>=1,<2``.
    :ivar extra: the optional feature that needs it; empty when everything does.
    :ivar marker: the rest of its condition; empty when there is none.
    """

    name: str
    versions: str
    extra: str = ""
    marker: str = ""


def examine(choice: Choice = "auto") -> Iterator[Finding]:
    """Look at the libraries of this environment.

    :param choice: how trio is to be driven, as the settings say.
    """
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        wanted = parse_requirements(requires(CORE) or [])
    except PackageNotFoundError:
        yield Finding(
            "library",
            "warning",
            f"The distribution {CORE} is not installed; what it needs is not known.",
            f"Install it: pip install {CORE}",
        )
        wanted = {}
    installed: dict[str, str] = {}
    for name in {*wanted, *OPTIONAL}:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            if find_spec(name.replace("-", "_")) is not None:
                installed[name] = ""
    yield from check_required(wanted, installed)
    for name in OPTIONAL:
        yield check_optional(name, wanted.get(name), installed.get(name), choice)


def parse_requirements(lines: list[str]) -> dict[str, Requirement]:
    """Read the requirements of a distribution, by the library's name."""
    found: dict[str, Requirement] = {}
    for line in lines:
        matched = _REQUIREMENT.match(line)
        if matched is None:
            continue
        marker = matched[3] or ""
        extra = _EXTRA.search(marker)
        rest = _EXTRA.sub("", marker).replace("and", "").strip(" ()")
        found[matched[1].lower()] = Requirement(
            matched[1].lower(), matched[2].strip(), extra[1] if extra else "", rest
        )
    return found


def check_required(
    wanted: Mapping[str, Requirement], installed: Mapping[str, str]
) -> Iterator[Finding]:
    """Compare what must be there with what is there."""
    fine = []
    for name, requirement in sorted(wanted.items()):
        # A condition of another Python or system; pip has decided it.
        if requirement.extra or (requirement.marker and name not in installed):
            continue
        needed = f"{name}{requirement.versions}"
        if name not in installed:
            problem = f"{name} is not installed; mcpd needs {needed}."
        elif not within(installed[name], requirement.versions):
            problem = f"{name} {installed[name]} is installed; mcpd needs {needed}."
        else:
            fine.append(f"{name} {installed[name]}".strip())
            continue
        yield Finding("library", "error", problem, f"pip install '{needed}'")
    if fine:
        yield Finding("library", "ok", f"{', '.join(fine)}.")


def check_optional(
    name: str, wanted: Requirement | None, installed: str | None, choice: Choice = "auto"
) -> Finding:
    """Tell whether a library that mcpd can do without is there, and of a version that was tested.

    :param wanted: the tested range, when it is known.
    :param installed: its version, empty when that is not known, ``None`` when it is missing.
    :param choice: how trio is to be driven.
    """
    extra, without = OPTIONAL[name]
    if installed is None:
        return Finding(
            name,
            "note",
            f"{name} is not installed: {without}.",
            f"pip install '{CORE}[{extra}]'" if wanted else f"pip install {name}",
        )
    found = f"{name} {installed}".strip()
    if wanted is not None and not within(installed, wanted.versions):
        return Finding(
            name,
            "warning",
            f"{found} is not in the range that was tested, {wanted.versions}.",
            f"pip install '{name}{wanted.versions}'",
        )
    if name == "trio":
        return check_trio(found, choice)
    return Finding(name, "ok", f"{found} is used.")


def check_trio(found: str, choice: Choice) -> Finding:
    """Tell how trio will be driven, by the test that a server makes when it starts trio.

    :param choice: what the settings say.
    """
    if choice == "guest":
        return Finding("trio", "ok", f"{found} is driven in guest mode, as the settings say.")
    try:
        # Imported late: it brings libraries that a damaged distribution may have broken.
        from ...runtimes.trio_private import obstacle

        problem = obstacle(untested=choice == "fused")
    except Exception as error:  # noqa: BLE001 - whatever an import raises is the finding
        return Finding(
            "trio",
            "error",
            f"{found} cannot be imported: {error_text(error)}.",
            "pip install --force-reinstall trio",
        )
    if problem is None:
        return Finding("trio", "ok", f"{found} is driven in fused mode, without a thread.")
    if choice == "fused":
        return Finding(
            "trio",
            "error",
            f"{found} cannot be driven in fused mode, as the settings say: {problem.reason}.",
            'Set trio = "auto" in the section [runtimes].',
        )
    slower = f"{found} is driven in guest mode, which is slower: {problem.reason}."
    if problem.by_design:
        return Finding("trio", "note", slower)
    return Finding("trio", "warning", slower, "Install a release of trio that was tested.")


def within(version: str, versions: str) -> bool:
    """Tell whether a version is in a range; one that cannot be read is taken to be.

    :param versions: clauses such as ``>=1.2,<2``; suffixes like ``rc1`` do not count.
    """
    return all(
        _fits(version, operator, bound) for operator, bound in _CLAUSE.findall(versions) if version
    )


def _fits(version: str, operator: str, bound: str) -> bool:
    wildcard = bound.endswith(".*")
    have, want = _release(version), _release(bound.removesuffix(".*"))
    if operator == "~=":
        return have >= want and have[: len(want) - 1] == want[:-1]
    if wildcard:
        same = have[: len(want)] == want
        return same if operator == "==" else not same
    length = max(len(have), len(want))
    have += (0,) * (length - len(have))
    want += (0,) * (length - len(want))
    return {
        ">=": have >= want,
        "<=": have <= want,
        "==": have == want,
        "!=": have != want,
        "<": have < want,
        ">": have > want,
    }[operator]


def _release(version: str) -> tuple[int, ...]:
    matched = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in matched[1].split(".")) if matched else ()
