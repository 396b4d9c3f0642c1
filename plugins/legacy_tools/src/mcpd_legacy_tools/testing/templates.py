"""The parts that a tree is planted from: files, and what is known of the tools in them.

In the text of a file `BOMB` stands where the record of imports goes, after the docstring and the
imports from ``__future__``; ``@SERVER@`` is the package above the tree, and ``@SERVER_PATH@`` its
directory below the root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .expected import ExclusionKind, ProblemKind

#: The line that is replaced by the record of imports, or removed.
BOMB = "# @BOMB@\n"


@dataclass(frozen=True)
class Told:
    """What is known of one tool of a file; see `expected.ExpectedTool`.

    :ivar calls_itself: the name that the tool gives itself, where that is not the function's.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    answer: Any = None
    calls_itself: str = ""
    kind: Literal["function", "class", "listed"] = "function"
    is_async: bool = False
    runtime: Literal["asyncio", "trio"] = "asyncio"
    fails: bool = False
    says: str = ""
    runs: bool = True
    missing: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    described: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""
    mocked: bool = False


@dataclass(frozen=True)
class File:
    """One file of a category.

    :ivar path: relative to the category; ``__init__.py`` files are added to its directories.
    :ivar text: text is written in UTF-8, bytes as they are.
    :ivar imports: other files of the category that come along when this one is imported; those that
        begin with ``/`` are relative to the root of the package.
    :ivar repeated: a line that is added until the file has its size.
    :ivar size: bytes that the file has at least.
    """

    path: str
    text: str | bytes
    tools: tuple[Told, ...] = ()
    excluded: tuple[tuple[str, ExclusionKind], ...] = ()
    problem: ProblemKind | None = None
    imports: tuple[str, ...] = ()
    repeated: str = ""
    size: int = 0


@dataclass(frozen=True)
class Shape:
    """One way in which tools are written, as files that belong together.

    :ivar name: what it exercises, in words.
    :ivar at_root: whether its files lie beside the categories.
    :ivar once: whether one of it is enough, because it takes time.
    :ivar twins: functions that several of its files define.
    """

    name: str
    files: tuple[File, ...]
    at_root: bool = False
    once: bool = False
    twins: tuple[str, ...] = ()
