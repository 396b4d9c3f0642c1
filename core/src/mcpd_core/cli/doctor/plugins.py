"""The plugins, their manifests, and damaged distributions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ...choices import read_choices
from ...commands import assign
from ...discovery import GROUP, Scan
from ...errors import SelectionError, SettingsError
from ...faults import DistributionFault
from ...findings import Finding, Level
from ...inventory import Inventory, PluginRow
from ...selection import select
from ...settings import Settings

_LEVELS: dict[str, Level] = {
    "enabled": "ok",
    "disabled": "ok",
    "broken": "warning",
    "conflict": "warning",
    "missing-runtime": "warning",
}


def select_all(scan: Scan, settings: Settings, directory: Path) -> tuple[Inventory, list[Finding]]:
    """Return what would be served; when that fails, everything there is, and the failure.

    :param directory: the data directory, where choices made by hand are kept.
    """
    findings: list[Finding] = []
    kept: Mapping[str, bool] = {}
    try:
        kept = read_choices(directory)
    except SettingsError as error:
        findings.append(Finding("plugin", "error", error.message, error.hint))
    wanted, denied, section = settings.serve.plugins, settings.plugins.deny, settings.section
    try:
        chosen = select(scan, wanted=wanted, denied=denied, choices=kept, section=section)
        return chosen, findings
    except SelectionError as error:
        message = f"Nothing can be served: {error.message}"
        findings.append(Finding("plugin", "error", message, error.hint))
    return select(scan, wanted=None, section=section), findings


def examine(inventory: Inventory) -> Iterator[Finding]:
    """Tell what became of each plugin, and whether it has a manifest."""
    if not inventory.rows:
        yield Finding(
            "plugin",
            "warning",
            "No plugin is installed, so mcpd has no tool to offer.",
            "Install one, for example: pip install mcpd-task-queue",
        )
    for row in inventory.rows:
        yield check_plugin(row)
        if row.state == "enabled":
            yield check_manifest(row)
            if row.note:
                yield Finding("plugin", "note", f"{row.name}: {row.note}")
    for label, problems in sorted(assign(inventory.rows).refused.items()):
        for problem in problems:
            yield Finding("plugin", "warning", f"{label}: {problem}")
    for text in inventory.notes:
        yield Finding("plugin", "note", text)


def check_plugin(row: PluginRow) -> Finding:
    """Tell what became of a plugin; the reason for its state says what to do."""
    label = f"{row.name} ({row.distribution} {row.version}, {row.runtime})"
    level = _LEVELS[row.state]
    if level == "ok":
        count = "" if row.dynamic else f", {row.listed} tools"
        return Finding("plugin", level, f"{label} is {row.state}{count}.")
    # The reason names the trouble first and the way out of it last.
    return Finding("plugin", level, f"{label} is {row.state}.", row.reason)


def check_manifest(row: PluginRow) -> Finding:
    """Tell whether a plugin can be listed without being imported."""
    if row.dynamic:
        return Finding(
            "manifest",
            "note",
            f"{row.name} has no manifest: it is imported at every start, and its tools are known "
            "only then.",
            "Its authors can make one: mcpd plugins manifest DIR",
        )
    return Finding("manifest", "ok", f"{row.name}: {row.manifest_path}.")


def examine_distributions(faults: Iterable[DistributionFault]) -> Iterator[Finding]:
    """Tell which distributions are damaged, and whether that breaks libraries."""
    found = [
        Finding(
            "distribution",
            "warning",
            f"{fault.distribution} is damaged: {fault.problem} ({fault.path}).",
            fault.mend,
        )
        for fault in faults
    ]
    yield from found
    yield from check_entry_points(lambda: importlib.metadata.entry_points(group=f"{GROUP}any"))
    if not found:
        yield Finding("distribution", "ok", "No installed distribution is damaged.")


def check_entry_points(read: Callable[[], object]) -> Iterator[Finding]:
    """Tell whether libraries that look for their own plugins can still do so."""
    try:
        read()
    except Exception as error:  # noqa: BLE001 - any exception is what is looked for
        yield Finding(
            "distribution",
            "error",
            "A damaged distribution keeps libraries that look for their own plugins, such as "
            f"pydantic, from being imported ({type(error).__name__}: {error}).",
            "Mend the damaged distributions that are named here.",
        )
