"""``mcpd config``: what is set and where, a file to begin with, and a schema for editors."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from ... import paths
from .. import FAILED, OK
from ..groups import OpenGroup
from ..options import (
    config_option,
    data_dir_option,
    inventory_of,
    json_option,
    plugins_option,
    settings_from,
)
from ..output import note, table, write, write_json


@click.group(cls=OpenGroup)
def config() -> None:
    """Show the settings, begin a settings file, print its schema."""


@config.command()
@plugins_option
@data_dir_option
@config_option
@click.option("--reveal", is_flag=True, help="Show the texts in the sections of plugins as well.")
@json_option
def show(
    wanted: tuple[str, ...] | None,
    data_dir: str | None,
    config: str | None,
    reveal: bool,
    as_json: bool,
) -> None:
    """Show every setting, its value, and where it comes from.

    That is the settings file, an environment variable, a flag, or nowhere: then the default holds.
    In the sections of plugins, numbers and switches are shown as they are written. Texts are not,
    because any of them could be a secret; --reveal shows them.
    """
    from .effective import effective

    settings = settings_from(config, wanted)
    values = effective(settings, data_dir, reveal=reveal)
    if as_json:
        write_json(
            {
                "file": None if settings.file is None else str(settings.file),
                "settings": [value.to_json() for value in values],
            }
        )
        return
    note(f"settings file: {settings.file or 'none'}")
    table(
        ("setting", "value", "from"),
        [(value.path, value.shown, value.origin) for value in values],
    )


@config.command()
@click.argument("file", default=paths.SETTINGS_FILE, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@click.option("--stdout", "to_stdout", is_flag=True, help="Print it instead of writing a file.")
def init(file: Path, force: bool, to_stdout: bool) -> None:
    """Write a settings file in which every setting is explained and commented out.

    FILE is ./mcpd.toml by default, which every command reads when it is started in this folder.
    """
    from .sections import template

    if to_stdout:
        write(template())
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(template())
    except FileExistsError:
        raise click.UsageError(f"{file} exists already; --force overwrites it.") from None
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror}.") from error
    write(f"written: {file}")


@config.command()
@config_option
@plugins_option
def schema(config: str | None, wanted: tuple[str, ...] | None) -> int:
    """Print a JSON Schema of the settings file, for editors and checks.

    The enabled plugins that have settings are imported for it. The exit status is 1 when that fails
    for one of them; the schema allows anything in its section then.
    """
    from .schemas import plugin_models, settings_schema

    settings = settings_from(config, wanted)
    inventory = inventory_of(settings)
    # What a plugin prints while it is imported must not get into the data.
    with redirect_stdout(sys.stderr):
        models, failures = plugin_models(inventory, settings.executor.import_timeout)
    for plugin, _, _ in models:
        note(f"note: {plugin} was imported, to ask it for its settings.")
    for failure in failures:
        note(f"error: {failure}")
    write_json(settings_schema(models))
    return FAILED if failures else OK
