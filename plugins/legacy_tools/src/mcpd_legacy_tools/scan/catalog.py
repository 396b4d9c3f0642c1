"""From what files hold to the tools that are offered: selection, names, collisions.

- ``selection = "all"`` offers every public function and class but for those that the rules of
  `rules` and `classes` leave out.
- ``selection = "strict"`` offers what the old server would have listed: of the files directly in a
  category, the functions whose name equals or contains the file's stem.
- A tool is named ``<category>__<tool>``. Names of more than 64 characters are cut, with a digest.
- Tools that would have the same name all get longer ones: with the file's stem between category and
  tool, or with the tree's name before it, or both, whichever tells them apart first.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..options import Options
from ..records import Collision, Excluded, LegacyTool, Mark, Parameter, Problem, Scan, Tree
from .found import FileScan, Found
from .sources import SourceFile

_LONGEST_NAME = 64
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class _Candidate:
    tree: Tree
    file: SourceFile
    found: Found

    @property
    def name(self) -> str:
        return _name(self.file.category, self.found.tool)

    @property
    def place(self) -> str:
        return f"{self.tree.name}/{self.file.path}:{self.found.line}"


def catalog(
    options: Options,
    trees: Iterable[tuple[Tree, list[tuple[SourceFile, FileScan]]]],
    problems: list[Problem],
) -> Scan:
    """Apply the settings to what the files of the trees hold.

    :param problems: those that are known already.
    """
    trees = list(trees)
    candidates: list[_Candidate] = []
    excluded: list[Excluded] = []
    for tree, files in trees:
        for file, scanned in files:
            if scanned.problem:
                problems.append(Problem(tree.name, file.path, scanned.problem))
            for found in scanned.found:
                reason = _reason(options, file, found)
                if reason:
                    excluded.append(
                        Excluded(tree.name, file.path, found.line, found.function, reason)
                    )
                else:
                    candidates.append(_Candidate(tree, file, found))
    named, collisions = _named(candidates)
    tools = sorted(
        (_tool(each, name, unique) for each, name, unique in named), key=lambda tool: tool.name
    )
    return Scan(
        tuple(tree for tree, _ in trees),
        tuple(tools),
        tuple(excluded),
        tuple(problems),
        tuple(collisions),
    )


def _reason(options: Options, file: SourceFile, found: Found) -> str:
    if options.selection == "strict":
        if not found.old_rule:
            return found.reason or 'the old server\'s rule leaves it out (selection = "strict")'
    elif found.reason:
        return found.reason
    if options.include or options.exclude:
        names = (
            _name(file.category, found.tool),
            f"{file.category}/{found.tool}",
            file.category,
        )
        if options.include and not _matching(options.include, names):
            return "no pattern of the settings' `include` matches it"
        pattern = _matching(options.exclude, names)
        if pattern:
            return f"the settings' `exclude` has {pattern!r}"
    return ""


def _matching(patterns: tuple[str, ...], names: tuple[str, ...]) -> str:
    for pattern in patterns:
        if any(fnmatchcase(name, pattern) for name in names):
            return pattern
    return ""


# --- names ---------------------------------------------------------------------------------------


def _name(*parts: str) -> str:
    full = "__".join(_UNFIT.sub("_", part) for part in parts)
    if len(full) <= _LONGEST_NAME:
        return full
    return f"{full[: _LONGEST_NAME - 9]}_{_digest(chr(0).join(parts))}"


def _named(
    candidates: list[_Candidate],
) -> tuple[list[tuple[_Candidate, str, bool]], list[Collision]]:
    groups: dict[str, list[_Candidate]] = {}
    for each in candidates:
        groups.setdefault(each.name, []).append(each)
    named: list[tuple[_Candidate, str, bool]] = []
    taken = {name for name, group in groups.items() if len(group) == 1}
    collisions: list[Collision] = []
    for name, group in groups.items():
        if len(group) == 1:
            named.append((group[0], name, True))
            continue
        names = _separated(group, taken)
        taken.update(names)
        named += [(each, own, False) for each, own in zip(group, names, strict=True)]
        where = [f"{own} ({each.place})" for each, own in zip(group, names, strict=True)]
        collisions.append(Collision(name, tuple(where)))
    return named, collisions


def _separated(group: list[_Candidate], taken: set[str]) -> list[str]:
    """Return names that tell the members of a group apart; see the top of the page."""
    ways = []
    if len({each.tree.name for each in group}) == 1:
        ways = [
            [_name(each.file.category, _stem(each), each.found.tool) for each in group],
            [_name(each.file.category, _stem(each), each.found.function) for each in group],
            [_name(each.file.category, _inner(each), each.found.function) for each in group],
        ]
    else:
        ways = [
            [_name(each.tree.name, each.file.category, each.found.tool) for each in group],
            [
                _name(each.tree.name, each.file.category, _stem(each), each.found.tool)
                for each in group
            ],
            [
                _name(each.tree.name, each.file.category, _inner(each), each.found.function)
                for each in group
            ],
        ]
    for names in ways:
        if len(set(names)) == len(names) and taken.isdisjoint(names):
            return names
    return [
        _name(f"{each.file.category}__{each.found.tool}"[:50], _digest(each.place))
        for each in group
    ]


def _stem(each: _Candidate) -> str:
    return each.file.path.rpartition("/")[2].removesuffix(".py")


def _inner(each: _Candidate) -> str:
    return each.file.path.partition("/")[2].removesuffix(".py").replace("/", "_") or _stem(each)


def _digest(text: str) -> str:
    return f"{zlib.crc32(text.encode(errors='replace')):08x}"


# --- records -------------------------------------------------------------------------------------


def _tool(each: _Candidate, name: str, unique: bool) -> LegacyTool:
    tree, file, found = each.tree, each.file, each.found
    dotted = f"{_UNFIT.sub('_', file.category)}.{_UNFIT.sub('_', found.tool)}"
    return LegacyTool(
        name=name,
        tool=found.tool,
        tree=tree.name,
        category=file.category,
        file=file.path,
        line=found.line,
        function=found.function,
        kind=found.kind,
        is_async=found.is_async,
        runtime=found.runtime,
        description=found.description,
        input_schema=found.schema,
        parameters=tuple(Parameter(*row) for row in found.parameters),
        returns=found.returns,
        marks=tuple(Mark(where or file.path, line, text) for line, text, where in found.marks),
        source=file.source,
        module=module_of(tree, file.path),
        aliases=(dotted,) if unique and len(dotted) <= 128 else (),
        calling=found.calling,
        timeout=found.timeout,
    )


def module_of(tree: Tree, path: str) -> str:
    """Return the dotted name that a file of a tree is imported as.

    Where a directory or a file has a name that Python could not import, the name is made fit; the
    file itself is named by its path then.

    :param path: relative to the tree, with slashes.
    """
    parts = path.removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    fit = [part if part.isidentifier() else _fit(part) for part in parts]
    return ".".join((tree.package, *fit))


def _fit(part: str) -> str:
    # Two different names must not become one.
    return f"_{re.sub(r'[^0-9A-Za-z_]', '_', part)}_{_digest(part)}"
