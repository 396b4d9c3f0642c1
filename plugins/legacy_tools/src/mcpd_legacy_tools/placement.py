"""Where a tool of a tree runs, in the words of a tool's contract.

Only the standard library is imported, because listing tools asks for it.
"""

from __future__ import annotations

from typing import Any

from .options import Confinement
from .records import LegacyTool

#: What makes code of a tool's file; the second leaves the installers of the tree turned on. The
#: choice is in the contract because the settings do not reach the process that the code runs in.
LOADER = "mcpd_legacy_tools.running.loading:load"
LOADER_WITH_INSTALLERS = "mcpd_legacy_tools.running.loading:load_with_installers"


def placed(tool: LegacyTool, confinement: Confinement, *, auto_install: bool) -> dict[str, Any]:
    """Return the part of a tool's contract that says where and how it runs.

    The tools of a tree that are isolated share one process, because its modules share state. Those
    with a memory limit of their own have one of their own: a limit is that of a process.

    :param confinement: what holds for the tool's category; see `options.Options.confined`.
    :param auto_install: whether the tree may install what it misses.
    :returns: keys and values of an item of a manifest.
    """
    facts: dict[str, Any] = {
        "runtime": tool.runtime,
        "placement": "loop" if tool.is_async else "thread",
        "loader": LOADER_WITH_INSTALLERS if auto_install else LOADER,
        "source": tool.source,
    }
    # The tool's author knew how long it takes, and the operator knows how long to wait.
    timeout = confinement.timeout or tool.timeout
    if timeout is not None:
        facts["timeout"] = timeout
    if confinement.isolation == "process":
        memory_mb, cpu_seconds = confinement.memory_mb, confinement.cpu_seconds
        facts["placement"] = "process"
        facts["process"] = tool.tree if memory_mb is None else f"{tool.tree}-{memory_mb}"
        if memory_mb is not None:
            facts["memory_mb"] = memory_mb
        if cpu_seconds is not None:
            facts["cpu_seconds"] = cpu_seconds
    return facts
