"""``mcpd plugins``: list and check plugins, write their manifests."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import SelectionError
from . import FAILED, OK, complain
from .options import config_option, inventory_of, json_option, plugins_option, settings_from
from .output import note, table, write, write_json

if TYPE_CHECKING:
    from ..inventory import Inventory
    from ..settings import Settings


@click.group()
def plugins() -> None:
    """List and check plugins, write their manifests."""


@plugins.command("list")
@plugins_option
@config_option
@json_option
def list_(wanted: tuple[str, ...] | None, config: str | None, as_json: bool) -> None:
    """List every installed plugin, with its state and the reason for it.

    Nothing of a plugin is imported for it, whatever state it is in.
    """
    inventory = _whole_inventory(settings_from(config, wanted))
    for fault in inventory.faults:
        note(f"warning: damaged distribution {fault}")
    for text in inventory.notes:
        note(f"note: {text}")
    if as_json:
        write_json([row.to_json() for row in inventory.rows])
        return
    table(
        ("plugin", "state", "runtime", "tools", "installed as", "bundles", "reason"),
        [
            (
                row.name,
                row.state,
                row.runtime,
                "?" if row.dynamic else str(len(row.tools)),
                f"{row.distribution} {row.version}" + (" (editable)" if row.editable else ""),
                ", ".join(row.bundles),
                row.reason,
            )
            for row in inventory.rows
        ],
    )
    if not inventory.rows:
        note("No plugin is installed. Install one, for example: pip install mcpd-task-queue")


@plugins.command()
@click.argument("name")
@config_option
@json_option
def check(name: str, config: str | None, as_json: bool) -> int:
    """Import a plugin and compare its manifest with its code.

    NAME is a plugin, a distribution or a bundle. The exit status is 1 when an error is found.
    """
    from ..plugin_check import check as examine

    settings = settings_from(config)
    # What the plugin prints while it is imported must not get into the data.
    with redirect_stdout(sys.stderr):
        findings = examine(name, timeout=settings.executor.import_timeout)
    if as_json:
        write_json(
            [
                {
                    "plugin": finding.plugin,
                    "level": finding.level,
                    "message": finding.message,
                    "hint": finding.hint,
                }
                for finding in findings
            ]
        )
    else:
        for finding in findings:
            note(f"{finding.level}: {finding.plugin}: {finding.message} {finding.hint}".rstrip())
        if not findings:
            write(f"{name}: nothing is wrong.")
    return FAILED if any(finding.level == "error" for finding in findings) else OK


@plugins.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit 1 when stale.")
def manifest(directory: Path, only_check: bool) -> int:
    """Write the manifests of the plugins whose pyproject.toml is in DIRECTORY.

    A manifest says what a plugin offers, so that nothing of it is imported to list its tools. It
    is made from the plugin's code and belongs into the built distribution.
    """
    from ..manifest_writer import generate

    with redirect_stdout(sys.stderr):
        files = generate(directory)
    stale = [file for file in files if file.stale]
    for file in files:
        if only_check:
            for change in file.changes() if file.stale else ():
                note(f"error: stale: {change}")
        else:
            write(f"{'written' if file.write() else 'up to date'}: {file.path}")
    if only_check and stale:
        note(f"  Write it anew: mcpd plugins manifest {directory}")
        return FAILED
    return OK


def _whole_inventory(settings: Settings) -> Inventory:
    """Return the inventory even when what was asked for cannot be had: a listing shows why."""
    try:
        return inventory_of(settings)
    except SelectionError as error:
        complain(error)
    from .. import discovery, selection

    return selection.select(discovery.scan(), wanted=None)
