"""Options that several commands share, and what they are turned into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..settings import Settings, load_settings
from .completing import plugin_lists

if TYPE_CHECKING:
    from ..selection import Inventory

F = TypeVar("F", bound=Callable[..., Any])


def _names(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    names = tuple(name.strip() for value in values for name in value.split(",") if name.strip())
    if values and not names:
        raise click.BadParameter("names no plugin.")
    return names or None


def config_option(command: F) -> F:
    """Add ``--config``."""
    return click.option(
        "--config", metavar="FILE", help="The settings file to read instead of ./mcpd.toml."
    )(command)


def plugins_option(command: F) -> F:
    """Add ``--plugins``; the value is a tuple of names, or ``None`` when it was not given."""
    return click.option(
        "--plugins",
        "wanted",
        metavar="A,B",
        multiple=True,
        callback=_names,
        shell_complete=plugin_lists,
        help="Enable these plugins, distributions or bundles only. Default: all installed.",
    )(command)


def data_dir_option(command: F) -> F:
    """Add ``--data-dir``."""
    return click.option(
        "--data-dir",
        metavar="DIR",
        help="The data directory. Default: MCPD_DATA_DIR, else the user's data directory.",
    )(command)


def json_option(command: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def settings_from(
    config: str | None,
    wanted: tuple[str, ...] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Load the settings with ``--plugins`` and other flags laid over them.

    :raises SettingsError: when they cannot be read.
    """
    flags = {section: dict(table) for section, table in (overrides or {}).items()}
    flags.setdefault("serve", {})["plugins"] = wanted
    return load_settings(config, overrides=flags)


def inventory_of(settings: Settings, data_dir: str | Path | None = None) -> Inventory:
    """Look at what is installed and decide what is enabled.

    :param data_dir: the data directory, or the value of ``--data-dir``: what was enabled and
        disabled by hand is kept there.
    :raises SelectionError: when a plugin that the settings or the flags name cannot be enabled.
    :raises SettingsError: when what was chosen by hand cannot be read.
    """
    from .. import choices, discovery, paths, selection

    return selection.select(
        discovery.scan(),
        wanted=settings.serve.plugins,
        denied=settings.plugins.deny,
        choices=choices.read_choices(paths.data_dir(data_dir)),
        section=settings.section,
    )
