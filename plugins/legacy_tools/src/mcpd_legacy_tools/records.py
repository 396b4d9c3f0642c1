"""What a scan of trees finds: the records that the other parts of the plugin work with.

Only the standard library is imported: listing tools reads these, and nothing else of the plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .options import TreeOptions

#: How a tool is written: a function; a class with a method ``execute``; or a function that a list
#: ``TOOLS`` of its module describes.
ToolKind = Literal["function", "class", "listed"]
#: How code takes its arguments: each as a parameter, or all of them as one mapping, which is how
#: most of the tool classes have it.
Calling = Literal["keywords", "mapping"]
RuntimeName = Literal["asyncio", "trio"]
#: The kinds of parameters that Python has; ``args`` and ``kwargs`` are ``*args`` and ``**kwargs``.
ParameterKind = Literal["positional", "either", "args", "keyword", "kwargs"]


@dataclass(frozen=True)
class Tree:
    """One directory of tools.

    :ivar name: unique among the trees of a scan; matches ``[A-Za-z0-9_-]+``.
    :ivar path: the directory that holds the categories, absolute.
    :ivar root: the directory that has to be in ``sys.path`` for the tree's own imports.
    :ivar package: the dotted package that ``path`` is, seen from ``root``. A tree that is not part
        of a package has a made-up one, ``mcpd_legacy_tree_<name>``; `synthetic` tells which it is.
    :ivar synthetic: whether the package is made up, so that no import system would find it.
    """

    name: str
    path: str
    root: str
    package: str
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool's code, as it is written.

    :ivar annotation: the annotation's source; empty when there is none.
    :ivar default: the default's source; ``None`` when there is none.
    """

    name: str
    kind: ParameterKind = "either"
    annotation: str = ""
    default: str | None = None

    @property
    def required(self) -> bool:
        """Whether the code cannot be called without it."""
        return self.default is None and self.kind not in ("args", "kwargs")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place where a tool's code shows that its data is made up.

    :ivar file: the tool's own file, relative to the tree; another file of the package, relative to
        the tree's root. With slashes.
    :ivar text: the line, without white space around it.
    """

    file: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class LegacyTool:
    """One tool of a tree.

    :ivar name: under which it is served, ``<category>__<tool>``; matches ``[A-Za-z0-9_-]{1,64}``.
    :ivar tool: its own name within its category, as the old server would have listed it.
    :ivar tree: the name of its `Tree`.
    :ivar file: relative to the tree, with slashes.
    :ivar line: of its ``def`` or ``class``, from 1.
    :ivar function: its code within the module: ``record``, or ``RecordTool.execute``.
    :ivar is_async: whether the code is a coroutine function.
    :ivar description: for the model: the docstring without the sections that the schema holds.
    :ivar input_schema: JSON Schema (2020-12) of the arguments; its root type is ``object``.
    :ivar parameters: of the code, without ``self``.
    :ivar returns: the source of the return annotation; empty when there is none.
    :ivar marks: where its code shows made-up data.
    :ivar source: the absolute path of its file.
    :ivar module: the dotted name that its file is imported as.
    :ivar aliases: further names: ``<category>.<tool>``, unless that is ambiguous.
    :ivar calling: how the code takes its arguments.
    :ivar timeout: seconds, where the code states it.
    """

    name: str
    tool: str
    tree: str
    category: str
    file: str
    line: int
    function: str
    kind: ToolKind
    is_async: bool
    runtime: RuntimeName
    description: str
    input_schema: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    returns: str
    marks: tuple[Mark, ...]
    source: str
    module: str
    aliases: tuple[str, ...] = ()
    calling: Calling = "keywords"
    timeout: float | None = None

    @property
    def entry(self) -> str:
        """Where the code is, as ``module:function``."""
        return f"{self.module}:{self.function}"


@dataclass(frozen=True, slots=True)
class Excluded:
    """A public function or class that is not offered.

    :ivar reason: a clause without full stop.
    """

    tree: str
    file: str
    line: int
    function: str
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a file or a directory from being read.

    :ivar file: relative to the tree, with slashes; empty when it is the tree itself.
    :ivar message: a sentence that names the cause and, where there is one, the next step.
    """

    tree: str
    file: str
    message: str


@dataclass(frozen=True, slots=True)
class Collision:
    """Several tools that would have had the same name.

    :ivar name: which none of them has.
    :ivar where: of each: the name that it has instead, and where it is, as
        ``name (tree/file:line)``.
    """

    name: str
    where: tuple[str, ...]


@dataclass(frozen=True)
class Scan:
    """What was found in all trees.

    :ivar tree_options: what the settings say of trees, by their names.
    :ivar tools: ordered by name; no two have the same.
    :ivar excluded: in the order of trees, files and lines.
    """

    trees: tuple[Tree, ...] = ()
    tools: tuple[LegacyTool, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    problems: tuple[Problem, ...] = ()
    collisions: tuple[Collision, ...] = ()
    tree_options: Mapping[str, TreeOptions] = field(default_factory=dict)
