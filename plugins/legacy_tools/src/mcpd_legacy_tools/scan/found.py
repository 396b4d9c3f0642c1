"""What one file was found to hold, before any option is applied.

These records are what the cache keeps: they depend on the file alone, so that another selection or
another mount needs no new scan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..records import Calling, RuntimeName, ToolKind

#: One parameter: name, kind, annotation, default; see `mcpd_legacy_tools.records.Parameter`.
ParameterRow = list[Any]


@dataclass(slots=True)
class Found:
    """A public function or class of a file.

    :ivar function: its code within the module.
    :ivar tool: the name that it declares, or that of the function.
    :ivar reason: why it is no tool; empty when it is one.
    :ivar old_rule: whether the old server would have listed it.
    :ivar marks: lines that show made-up data, as ``[line, text, file]``; its own file is empty.
    """

    function: str
    tool: str
    line: int
    reason: str = ""
    old_rule: bool = False
    kind: ToolKind = "function"
    is_async: bool = False
    runtime: RuntimeName = "asyncio"
    description: str = ""
    schema: dict[str, Any] = field(default_factory=dict)
    parameters: list[ParameterRow] = field(default_factory=list)
    returns: str = ""
    calling: Calling = "keywords"
    timeout: float | None = None
    marks: list[list[Any]] = field(default_factory=list)

    def row(self) -> list[Any]:
        """Return it as JSON data, which ``Found(*row)`` reads."""
        return [getattr(self, name) for name in self.__slots__]


@dataclass(slots=True)
class FileScan:
    """What one file holds.

    :ivar problem: what keeps it from being read; empty when nothing does.
    :ivar depends: other files that were read for it, as ``[path, size, mtime_ns]``.
    """

    found: list[Found] = field(default_factory=list)
    problem: str = ""
    depends: list[list[Any]] = field(default_factory=list)
