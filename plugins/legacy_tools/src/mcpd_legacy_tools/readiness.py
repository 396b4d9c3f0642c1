"""Which tools of the trees cannot run here, and why, found without importing anything of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .requirements import Missing, missing_for
from .running.naming import home_of

if TYPE_CHECKING:
    from mcpd_core import ToolSpec

    from .records import LegacyTool


def needs(module: str, source: str) -> Missing:
    """Return what a file of a tree needs and this Python does not have.

    :param module: the dotted name that the scan has given it.
    :param source: its absolute path.
    """
    home = home_of(module, Path(source))
    return missing_for(source, home.package, str(home.directory))


def needs_of(tools: Iterable[LegacyTool]) -> dict[str, Missing]:
    """Return what each of some tools needs and does not find, by name; those of a file share it."""
    known: dict[str, Missing] = {}
    found = {}
    for tool in tools:
        if tool.source not in known:
            known[tool.source] = needs(tool.module, tool.source)
        found[tool.name] = known[tool.source]
    return found


def check(tools: Sequence[ToolSpec]) -> dict[str, str]:
    """Tell why tools of trees cannot run, by name; see the hook ``mcpd_tool_readiness``.

    What its tree may install by itself is no reason.
    """
    from .placement import LOADER

    known: dict[str, str] = {}
    for spec in tools:
        if spec.loader == LOADER and spec.source not in known:
            known[spec.source] = needs(spec.entry.partition(":")[0], spec.source).told
    return {
        spec.name: known[spec.source]
        for spec in tools
        if spec.loader == LOADER and known[spec.source]
    }
