"""``mcpd config migrate``: the settings of an older server, in ``mcpd.toml``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mcpd_core import SettingsError
from mcpd_core.commandline import json_option, note, table, write, write_json

from .converting import Change, convert
from .reading import Old, read_dotenv, read_variables, read_yaml
from .writing import check, render, write_file

#: How a report says what a setting became, where it did not become one.
_WORDS = {
    "dropped": "(nothing)",
    "secret": "(a secret)",
    "unknown": "(unknown)",
    "overruled": "(overruled)",
}


@click.command()
@click.option(
    "--from",
    "source",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The old server's YAML file.",
)
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of variables, NAME=value, that the old server was started with.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("mcpd.toml"),
    show_default=True,
    help="The file to write.",
)
@click.option("--dry-run", is_flag=True, help="Print the file, write nothing.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option
def migrate(
    source: Path | None,
    env_file: Path | None,
    output: Path,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Turn the settings of ipfs_datasets_py's server into mcpd.toml.

    They are read from the YAML file, from --env-file, and from the variables of this shell that
    only that server had; what comes later wins. For each of them the report says what it became,
    and why, if it became nothing. Secrets are named and never copied.

    mcpd reads the new file before it is written.
    """
    olds = _found(source, env_file)
    tree = _tree_of(source)
    changes = convert(olds, tree)
    places = [str(place) for place in (source, env_file) if place is not None]
    if not changes:
        raise _nothing(places)
    if any(old.kind == "shell" and change.name == old.name for old in olds for change in changes):
        places.append("the environment")
    text = render(changes, " and ".join(places))
    check(text)
    if not dry_run:
        write_file(text, output, force=force)
    _report(changes, text, output, dry_run=dry_run, as_json=as_json)


def _nothing(places: list[str]) -> SettingsError:
    """Return the refusal to write a file that would say nothing.

    :param places: the files that were named.
    """
    if places:
        return SettingsError(
            f"There is nothing to migrate: there is no setting in {' and '.join(places)}, and no "
            "variable of the old server is set.",
            hint="Name the file that the old server was started with.",
        )
    return SettingsError(
        "There is nothing to migrate: no file is named, and no variable of the old server set.",
        hint="Name the old server's YAML file with --from.",
    )


def _found(source: Path | None, env_file: Path | None) -> list[Old]:
    """Return the old settings, the weakest first."""
    return [
        *(read_yaml(source) if source is not None else ()),
        *read_variables(os.environ),
        *(read_dotenv(env_file) if env_file is not None else ()),
    ]


def _tree_of(source: Path | None) -> Path | None:
    """Return the directory of tools beside the configuration, as a checkout has it."""
    if source is None:
        return None
    tree = source.absolute().parent.parent / "tools"
    return tree if any(tree.glob("*/*.py")) else None


def _report(
    changes: list[Change], text: str, output: Path, *, dry_run: bool, as_json: bool
) -> None:
    if as_json:
        write_json(
            {
                "output": None if dry_run else str(output),
                "toml": text,
                "settings": [change.to_json() for change in changes],
            }
        )
        return
    if dry_run:
        # The file alone is data here, so that it can be kept.
        write(text.rstrip("\n"))
        for change in changes:
            note("  ".join(filter(None, _row(change))))
        return
    table(("old", "value", "new", "why"), [_row(change) for change in changes])
    note(f"written: {output}")


def _row(change: Change) -> tuple[str, str, str, str]:
    return (change.name, change.value, change.target or _WORDS[change.outcome], change.why)
