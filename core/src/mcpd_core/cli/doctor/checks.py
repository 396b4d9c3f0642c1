"""The checks that plugins bring. Only a plugin that has some is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ... import paths
from ...errors import DaemonError, McpdError
from ...findings import Finding
from ...hooks import Hooks
from ...importer import Importer
from ...inventory import Inventory
from ...settings import Settings
from ..daemon_client import DaemonClient

_HOOK = "mcpd_doctor_checks"
#: Seconds that importing one plugin may take, and that the daemon may take for an answer.
_IMPORT, _PATIENCE = 10.0, 30.0


def examine(
    inventory: Inventory, directory: Path, *, running: bool, settings: Settings | None = None
) -> Iterator[Finding]:
    """Ask the enabled plugins what they find.

    :param settings: what is set; ``None`` when it cannot be read.
    :param running: whether a daemon answers in the directory.
    """
    hooks = Hooks()
    importer = Importer(_IMPORT, faults=inventory.faults)
    for row in inventory.enabled:
        if _HOOK not in row.hooks:
            continue
        try:
            plugin = importer.load(row.entry, plugin=row.name).result()
            hooks.register(plugin, row.name, requires_core=row.requires_core)
        except McpdError as error:
            yield Finding(row.name, "error", error.message, error.hint or _REPORT)
    with ExitStack() as stack:
        daemon = None
        if running:
            try:
                client = DaemonClient(paths.socket_path(directory), patience=_PATIENCE)
                daemon = stack.enter_context(client)
            except DaemonError as error:
                yield Finding("daemon", "warning", error.message, error.hint)
        ask = None if daemon is None else daemon.request
        section = _no_section if settings is None else settings.section
        found = hooks.doctor_checks(directory, ask, section)
    for _, finding in found:
        yield finding
    for plugin, reason in hooks.broken.items():
        yield Finding(plugin, "error", reason, _REPORT)


def _no_section(name: str) -> Mapping[str, Any]:
    return {}


_REPORT = "Report it to the authors of the plugin."
