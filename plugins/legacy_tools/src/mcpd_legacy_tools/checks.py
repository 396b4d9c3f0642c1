"""What `mcpd doctor` looks at: the trees, what of them cannot be read, and what tools lack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcpd_core import Finding

from . import options
from .readiness import needs_of
from .records import Scan
from .requirements import Missing, install_line
from .scan import scan

_CHECK = "legacy_tools"
#: Names that a finding spells out before it only counts.
_MOST_NAMED = 3


def examine(section: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at the trees. Nothing of them is imported.

    :param section: the section ``[legacy_tools]`` of the settings, as it is written.
    """
    try:
        chosen = options.read(section)
    except options.OptionsError as error:
        yield Finding(_CHECK, "error", f"{error}.", "Correct it: see `mcpd config show`.")
        return
    found = scan(chosen)
    yield from check_trees(found)
    yield from check_problems(found)
    needs = {} if chosen.auto_install else needs_of(found.tools)
    yield from check_needs(needs)


def check_trees(found: Scan) -> Iterator[Finding]:
    """Tell which trees there are, and what they hold."""
    if not found.trees and not found.problems:
        yield Finding(
            _CHECK,
            "note",
            "No tree of tools is mounted.",
            'Name one in mcpd.toml: [legacy_tools] paths = ["/path/to/mcp_server/tools"]',
        )
    for tree in found.trees:
        tools = [tool for tool in found.tools if tool.tree == tree.name]
        left_out = sum(each.tree == tree.name for each in found.excluded)
        made_up = sum(bool(tool.marks) for tool in tools)
        told = (
            f"The tree {tree.name} at {tree.path} has {_counted(len(tools), 'tool')} in "
            f"{_counted(len({tool.category for tool in tools}), 'category')}; "
            f"{_counted(left_out, 'public function')} left out"
        )
        if made_up:
            told += f"; the code of {_counted(made_up, 'tool')} shows made-up data"
        fix = "`mcpd legacy audit` shows where." if made_up else ""
        yield Finding(_CHECK, "note" if made_up or not tools else "ok", f"{told}.", fix)


def check_problems(found: Scan) -> Iterator[Finding]:
    """Tell what cannot be read, and which names several tools would have had."""
    for problem in found.problems:
        if not problem.file:
            yield Finding(_CHECK, "warning", f"{problem.tree}: {problem.message}")
    files = [problem for problem in found.problems if problem.file]
    if files:
        names = [f"{each.tree}/{each.file}" for each in files]
        yield Finding(
            _CHECK,
            "warning",
            f"{_counted(len(files), 'file')} cannot be read: {_listed(names)}.",
            "`mcpd legacy list --problems` says why.",
        )
    if found.collisions:
        names = [each.name for each in found.collisions]
        yield Finding(
            _CHECK,
            "note",
            f"{_counted(len(names), 'name')} would have been several tools', which have longer "
            f"names now: {_listed(names)}.",
            "`mcpd legacy list --problems` tells which.",
        )


def check_needs(needs: Mapping[str, Missing]) -> Iterator[Finding]:
    """Tell which tools cannot run, one finding for each set of missing modules.

    :param needs: by name, what a tool needs and does not find.
    """
    lacking: dict[tuple[str, ...], list[str]] = {}
    broken: dict[str, list[str]] = {}
    programs: dict[str, list[str]] = {}
    for name, missing in needs.items():
        if missing.modules:
            lacking.setdefault(missing.modules, []).append(name)
        for sentence in missing.broken:
            broken.setdefault(sentence, []).append(name)
        for program in missing.programs:
            programs.setdefault(program, []).append(name)
    for modules, names in sorted(lacking.items(), key=lambda item: (-len(item[1]), item[0])):
        yield Finding(
            _CHECK,
            "warning",
            f"{_counted(len(names), 'tool')} cannot run without {', '.join(modules)}: "
            f"{_listed(names)}.",
            Missing(modules=modules).hint,
        )
    if len(lacking) > 1:
        everything = {module for modules in lacking for module in modules}
        count = sum(map(len, lacking.values()))
        yield Finding(
            _CHECK,
            "note",
            f"All {count} tools that lack a library have theirs with one command.",
            install_line(everything),
        )
    for sentence, names in sorted(broken.items()):
        yield Finding(
            _CHECK,
            "warning",
            f"{_counted(len(names), 'tool')} cannot run ({_listed(names)}): {sentence}",
            "Complete the tree, or mend it.",
        )
    for program, names in sorted(programs.items()):
        yield Finding(
            _CHECK,
            "note",
            f"{_counted(len(names), 'tool')} may need the program {program}, which is not in PATH: "
            f"{_listed(names)}.",
            "Install it if they are to be used.",
        )


def _counted(number: int, what: str) -> str:
    several = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else several}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown}, ..."
