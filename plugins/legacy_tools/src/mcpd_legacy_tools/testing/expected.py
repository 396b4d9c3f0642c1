"""What is known of a planted tree, for tests to compare with what was found in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

#: Why a public function is no tool, as far as tests tell the reasons apart.
ExclusionKind = Literal[
    "decorator", "helper", "main", "private", "re-export", "registers", "type", "unnamed"
]
#: Why nothing can be said about a file.
ProblemKind = Literal["syntax", "encoding", "size", "depth"]


@dataclass(frozen=True)
class ExpectedTool:
    """One tool of the tree, and what a call of it comes to.

    :ivar name: the name that it is listed by; empty where only the scan knows, because a name has
        to be made of one that is too long or not ASCII.
    :ivar category: the directory below the tree; empty for a file at the root.
    :ivar file: the file, relative to the tree.
    :ivar function: ``function``, or ``Class.execute``.
    :ivar kind: how the tree offers it.
    :ivar is_async: whether it is written as ``async def``.
    :ivar runtime: the library that it is written for, by its markers.
    :ivar arguments: those of a call.
    :ivar answer: what that call returns, as JSON has it; ``None`` when it does not succeed.
    :ivar fails: whether the tool itself reports a failure or raises: the answer is an error, and
        `answer` its payload where it has one.
    :ivar says: what the text of an error contains.
    :ivar runs: whether its module can be imported at all.
    :ivar missing: distributions that its module cannot do without and that nobody has.
    :ivar required: the parameters without which it cannot be called.
    :ivar optional: the other parameters that its schema names.
    :ivar described: what its schema says of parameters, by their names.
    :ivar summary: what its description begins with; empty where it has no docstring.
    :ivar mocked: whether its code shows that it makes its data up.
    :ivar imports: the files that a first call imports, relative to the root of the package.
    """

    name: str
    category: str
    file: str
    function: str
    kind: Literal["function", "class", "listed"]
    is_async: bool
    runtime: Literal["asyncio", "trio"]
    arguments: Mapping[str, Any]
    answer: Any
    fails: bool
    says: str
    runs: bool
    missing: tuple[str, ...]
    required: frozenset[str]
    optional: frozenset[str]
    described: Mapping[str, str]
    summary: str
    mocked: bool
    imports: frozenset[str]

    @property
    def key(self) -> tuple[str, str]:
        """Return what identifies a tool whatever it is called: its file and its function."""
        return self.file, self.function


@dataclass(frozen=True)
class ExpectedExclusion:
    """A public function that is no tool.

    :ivar file: the file, relative to the tree.
    """

    file: str
    function: str
    kind: ExclusionKind


@dataclass(frozen=True)
class ExpectedProblem:
    """A file of which nothing can be read.

    :ivar file: the file, relative to the tree.
    """

    file: str
    kind: ProblemKind


@dataclass(frozen=True)
class Expected:
    """A planted tree and what is in it.

    :ivar root: the directory that has to be on the import path.
    :ivar package: the package that the tree is, dotted.
    :ivar path: the directory of the tree, which holds the categories.
    :ivar tools: in the order of files and, in each, of definitions.
    :ivar twins: functions that share one name within a category, each with its files; they are
        listed as ``<category>__<file>__<function>``.
    :ivar record: where each import of a file is written down, a line for each; ``None`` when
        imports are not recorded.
    """

    root: Path
    package: str
    path: Path
    tools: tuple[ExpectedTool, ...]
    excluded: tuple[ExpectedExclusion, ...]
    problems: tuple[ExpectedProblem, ...]
    twins: Mapping[str, frozenset[str]] = field(default_factory=dict)
    record: Path | None = None

    @property
    def categories(self) -> Counter[str]:
        """Return how many tools each category has."""
        return Counter(tool.category for tool in self.tools)

    def tool(self, function: str, category: str = "") -> ExpectedTool:
        """Return the first tool of a function, in a category when one is named.

        :raises LookupError: when there is none.
        """
        for tool in self.tools:
            if tool.function == function and category in ("", tool.category):
                return tool
        raise LookupError(f"no tool {function!r} was planted in {category or 'the tree'}")

    def imported(self) -> list[str]:
        """Return the files that have been imported, relative to the root, in order.

        :raises ValueError: when imports are not recorded.
        """
        if self.record is None:
            raise ValueError("the tree was planted without a record of imports")
        if not self.record.exists():
            return []
        lines = self.record.read_text(encoding="utf-8").splitlines()
        root = self.root.resolve()
        return [Path(line).resolve().relative_to(root).as_posix() for line in lines]
