"""The plugin families that come with mcpd, by name: for bundles and for installation hints.

This is the only place where the core knows their names. It knows nothing else of them.
"""

from __future__ import annotations

#: What to do where trio cannot be imported.
INSTALL_TRIO = "Install it: pip install 'mcpd-core[trio]'"

#: Plugin name -> the distribution that brings it.
FAMILIES = {
    "legacy_tools": "mcpd-legacy-tools",
    "libp2p": "mcpd-libp2p",
    "mcplusplus": "mcpd-mcplusplus",
    "p2p_workflow": "mcpd-p2p-workflow",
    "peer_management": "mcpd-peer-management",
    "task_queue": "mcpd-task-queue",
}

#: Bundle -> the families that belong to it. Any other plugin joins by naming the bundle in its
#: manifest.
BUNDLES = {
    "p2p": ("task_queue", "peer_management", "p2p_workflow", "libp2p", "mcplusplus"),
}


def bundles_of(plugin: str) -> tuple[str, ...]:
    """Return the bundles that one of our own families belongs to."""
    return tuple(bundle for bundle, members in BUNDLES.items() if plugin in members)
