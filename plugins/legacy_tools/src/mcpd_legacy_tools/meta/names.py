"""What the old names of categories and tools stand for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from mcpd_core import Context, ToolSpec

PLUGIN = "legacy_tools"

#: The meta tools, which are no tools of any category.
META = frozenset(
    {"tools_list_categories", "tools_list_tools", "tools_get_schema", "tools_dispatch"}
)

#: The category of tools that name none; the old server's word for it.
GENERAL = "general"

#: The old tools for tasks, workflows and peers, by the category that their code names. They lay
#: beside the categories, where the old server did not look, so that nobody could call them.
P2P: Mapping[str, tuple[str, ...]] = {
    "p2p_taskqueue": (
        "task_submit",
        "task_status",
        "task_cancel",
        "task_list",
        "task_priority",
        "task_result",
        "task_retry",
    ),
    "p2p_queue_mgmt": ("queue_stats", "queue_pause", "queue_resume", "queue_clear"),
    "p2p_worker_mgmt": ("worker_register", "worker_unregister", "worker_status"),
    "p2p_workflow": (
        "workflow_submit",
        "workflow_status",
        "workflow_cancel",
        "workflow_list",
        "workflow_dependencies",
        "workflow_result",
    ),
    "p2p_peer": (
        "peer_discover",
        "peer_connect",
        "peer_disconnect",
        "peer_list",
        "peer_metrics",
        "bootstrap_network",
    ),
}

#: The files that those were in.
_FILES: Mapping[str, tuple[str, ...]] = {
    "mcplusplus_taskqueue_tools": ("p2p_taskqueue", "p2p_queue_mgmt", "p2p_worker_mgmt"),
    "mcplusplus_workflow_tools": ("p2p_workflow",),
    "mcplusplus_peer_tools": ("p2p_peer",),
}
_P2P_CATEGORY = {name: category for category, names in P2P.items() for name in names}


def by_category(specs: Iterable[ToolSpec]) -> dict[str, list[ToolSpec]]:
    """Return the tools of each category, both in alphabetical order.

    A tool of another plugin that is not listed is left out, unless it stands for an old one.
    """
    found: dict[str, list[ToolSpec]] = {}
    for spec in specs:
        if spec.name in META:
            continue
        if category := _P2P_CATEGORY.get(spec.name):
            found.setdefault(category, []).append(spec)
        elif spec.listed or spec.plugin == PLUGIN:
            found.setdefault(spec.category or GENERAL, []).append(spec)
    return {category: found[category] for category in sorted(found)}


def own_name(spec: ToolSpec, category: str) -> str:
    """Return the name that a tool has within its category."""
    for alias in spec.aliases:
        if alias.startswith(f"{category}."):
            return alias[len(category) + 1 :]
    return spec.name.removeprefix(f"{category}__")


def members(category: str, specs: Iterable[ToolSpec]) -> tuple[str, list[ToolSpec]] | None:
    """Return a category, by the name it has here, and its tools.

    :param category: its name, with or without ``_tools`` or what is in front of it in a path; or
        the name of the file of the old tools for tasks, workflows or peers.
    """
    groups = by_category(specs)
    plain = _plain(category)
    for name in (category, plain, f"{plain}_tools"):
        if name in groups:
            return name, groups[name]
    several = [spec for part in _FILES.get(plain, ()) for spec in groups.get(part, ())]
    return (plain, several) if several else None


def find(category: str, tool: str, ctx: Context) -> ToolSpec | None:
    """Return the tool that an old client means.

    :param category: see `members`.
    :param tool: its own name, the name it is served under, or the name of its file when there is no
        other tool in it; a path or a dotted name with the category in front will do.
    """
    # What clients say all the time comes first: the rest looks at every tool there is.
    name = _plain(tool)
    spec = ctx.find_tool(f"{category}.{tool}") or ctx.find_tool(name)
    if spec is not None and spec.name not in META and _is_in(spec, category):
        return spec
    found = members(category, ctx.tools())
    if found is None:
        return None
    category, specs = found
    for names in (_names, _last, _stem):
        matching = [spec for spec in specs if name in names(spec, category)]
        if len(matching) == 1:
            return matching[0]
    return None


def namesakes(category: str, tool: str, specs: Iterable[ToolSpec]) -> list[str]:
    """Return the names, within their category, of several tools that one name could mean."""
    return [own_name(spec, category) for spec in specs if _plain(tool) in _last(spec, category)]


def why_absent(tool: str) -> str:
    """Say why a tool that the old server's code had is not here; nothing for any other name."""
    category = _P2P_CATEGORY.get(_plain(tool), "")
    if category in _FILES["mcplusplus_taskqueue_tools"]:
        return "It comes with the task queue: pip install mcpd-task-queue."
    if category:
        what = "workflows" if category == "p2p_workflow" else "peers"
        return f"This version of mcpd has no {what}; the old server only pretended to have them."
    return ""


def _is_in(spec: ToolSpec, category: str) -> bool:
    if category == (spec.category or GENERAL):
        return True
    # None of these names was in two categories.
    return spec.name in _P2P_CATEGORY and (category in P2P or _plain(category) in _FILES)


def _plain(name: str) -> str:
    """Return the last part of a path or of a dotted name, without the ending of a file."""
    name = name.strip().removesuffix(".py").rstrip("/")
    return name.replace("/", ".").rpartition(".")[2]


def _names(spec: ToolSpec, category: str) -> tuple[str, ...]:
    return (own_name(spec, category), spec.name, *spec.aliases)


def _last(spec: ToolSpec, category: str) -> tuple[str, ...]:
    """Tools of one name in several files are told apart by the names of these in front."""
    return (own_name(spec, category).rpartition("__")[2],)


def _stem(spec: ToolSpec, category: str) -> tuple[str, ...]:
    return (os.path.splitext(os.path.basename(spec.source))[0],)
