"""What the commands share: the settings, the scan, and which of it is asked for."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from mcpd_core import SettingsError
from mcpd_core.commandline import (
    clean,
    config_option,
    json_option,
    note,
    settings_from,
    table,
    write,
)

from .. import options
from ..records import Mark, Scan
from ..scan import scan

F = TypeVar("F", bound=Callable[..., Any])


def selecting(command: F) -> F:
    """Add the options that choose a part of the tools."""
    for option in (
        json_option,
        config_option,
        click.option("--tree", metavar="NAME", help="Only what is in this tree."),
        click.option("--category", metavar="NAME", help="Only what is in this category."),
    ):
        command = option(command)
    return command


def options_of(config: str | None) -> options.Options:
    """Read the section of the settings.

    :raises SettingsError: when it is not a proper one.
    """
    try:
        return options.read(settings_from(config).section("legacy_tools"))
    except options.OptionsError as error:
        raise SettingsError(f"{error}.") from error


def look(chosen: options.Options, tree: str | None, category: str | None) -> Scan:
    """Scan the trees, and keep what is asked for.

    :raises click.UsageError: when there is no such tree, or no such category.
    """
    found = scan(chosen)
    if not found.trees:
        for problem in found.problems:
            note(f"{problem.tree}: {problem.message}" if problem.tree else problem.message)
        note(
            "No tree of tools is mounted. Name one in mcpd.toml:\n"
            '[legacy_tools]\npaths = ["/path/to/mcp_server/tools"]'
        )
    for what, value, known in (
        ("tree", tree, [each.name for each in found.trees]),
        ("category", category, _categories(found)),
    ):
        if value is not None and value not in known:
            listed = ", ".join(known[:20]) or "none"
            raise click.UsageError(f"There is no {what} {value!r}; there is: {listed}.")

    def wanted(of_tree: str, of_category: str) -> bool:
        return tree in (None, of_tree) and category in (None, of_category)

    return Scan(
        trees=tuple(each for each in found.trees if tree in (None, each.name)),
        tools=tuple(each for each in found.tools if wanted(each.tree, each.category)),
        excluded=tuple(each for each in found.excluded if wanted(each.tree, _category(each.file))),
        problems=tuple(each for each in found.problems if wanted(each.tree, _category(each.file))),
        collisions=tuple(
            each
            for each in found.collisions
            if any(wanted(*_tree_and_category(where)) for where in each.where)
        ),
        tree_options=found.tree_options,
    )


def _tree_and_category(where: str) -> tuple[str, str]:
    """Return where one of several tools of one name is, of ``name (tree/file:line)``."""
    tree, _, file = where.partition("(")[2].partition("/")
    return tree, _category(file)


def place(found: Scan, tree: str, file: str, line: int) -> str:
    """Return where something is, as ``file:line``; the tree is named where there are several."""
    prefix = f"{tree}/" if len(found.trees) > 1 else ""
    return f"{prefix}{file}:{line}"


def mark_data(mark: Mark) -> dict[str, Any]:
    """Return a mark as JSON data."""
    return {"file": mark.file, "line": mark.line, "text": mark.text}


def _categories(found: Scan) -> list[str]:
    excluded = {_category(each.file) for each in found.excluded}
    return sorted((excluded | {each.category for each in found.tools}) - {""})


def _category(file: str) -> str:
    """Return the category of a file, which is its own stem when it lies beside the categories."""
    category, slash, _ = file.partition("/")
    return category if slash else category.removesuffix(".py")


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; a paragraph for each row where the terminal is too narrow for one."""
    width = shutil.get_terminal_size().columns
    sizes = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    if not sys.stdout.isatty() or sum(sizes) + 3 * len(sizes) <= width:
        table(columns, rows)
        return
    for first, *others in rows:
        write(clean(first))
        text = " | ".join(" ".join(cell.split()) for cell in others if cell)
        write(clean(textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    ")))


def counted(number: int, what: str) -> str:
    """Return a number with what it counts, such as ``1 category`` or ``2 categories``."""
    several = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else several}"
