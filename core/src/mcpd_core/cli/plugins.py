"""``mcpd plugins``: list, switch and check plugins, write their manifests, start new ones."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import SelectionError
from ..spec import RUNTIMES, RuntimeName
from . import FAILED, OK, complain
from .completing import plugin_names
from .groups import OpenGroup
from .options import (
    config_option,
    data_dir_option,
    inventory_of,
    json_option,
    plugins_option,
    settings_from,
)
from .output import note, table, write, write_json
from .switch import disable, enable

if TYPE_CHECKING:
    from ..inventory import Inventory
    from ..settings import Settings


@click.group(cls=OpenGroup)
def plugins() -> None:
    """List, enable, disable and check plugins, write their manifests."""


plugins.add_command(enable)
plugins.add_command(disable)


@plugins.command("list")
@plugins_option
@data_dir_option
@config_option
@json_option
def list_(
    wanted: tuple[str, ...] | None, data_dir: str | None, config: str | None, as_json: bool
) -> None:
    """List every installed plugin, with its state and the reason for it.

    Nothing of a plugin is imported for it, whatever state it is in.
    """
    inventory = _whole_inventory(settings_from(config, wanted), data_dir)
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
                "?" if row.dynamic else str(row.listed),
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
@click.argument("name", shell_complete=plugin_names)
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
        findings = examine(name, timeout=settings.executor.import_timeout, section=settings.section)
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


@plugins.command()
@click.argument("name")
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    required=True,
    help="The library that its `async def` tools are written for; any for neutral anyio code.",
)
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder to make. Default: ./mcpd-NAME.",
)
def new(name: str, runtime: RuntimeName, directory: Path | None) -> None:
    """Write a small project of a plugin, with tools and tests, to be changed.

    NAME gives the distribution mcpd-NAME, the package mcpd_NAME and the tools NAME_... their names.
    """
    from .scaffold import names_for, write_project

    names = names_for(name)
    folder = directory or Path(names.distribution)
    for file in write_project(names, runtime, folder):
        write(str(folder / file))
    note(f"The plugin {names.plugin} is in {folder}. Next:")
    note(f"  cd {shlex.quote(str(folder))} && pip install --editable '.[dev]' && pytest")


def _whole_inventory(settings: Settings, data_dir: str | None) -> Inventory:
    """Return the inventory even when what was asked for cannot be had: a listing shows why."""
    try:
        return inventory_of(settings, data_dir)
    except SelectionError as error:
        complain(error)
    from .. import discovery, selection

    return selection.select(discovery.scan(), wanted=None, section=settings.section)
