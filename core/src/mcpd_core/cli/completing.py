"""Names that a shell completes: of tools and plugins, from their manifests.

This runs at every press of a key, so nothing is imported that a listing does not import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ..errors import McpdError

if TYPE_CHECKING:
    from ..inventory import Inventory


def tool_names(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a tool of an enabled plugin."""
    return [
        CompletionItem(spec.name, help=_first_line(spec.description))
        for spec in _inventory(ctx).specs()
        if spec.listed and spec.name.startswith(incomplete)
    ]


def plugin_names(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of an installed plugin, or of a bundle that one belongs to."""
    return [
        CompletionItem(name, help=text)
        for name, text in _named(_inventory(ctx)).items()
        if name.startswith(incomplete)
    ]


def plugin_lists(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last name of ``a,b,c``."""
    before, comma, last = incomplete.rpartition(",")
    chosen = before.split(",")
    return [
        CompletionItem(before + comma + item.value, help=item.help)
        for item in plugin_names(ctx, parameter, last)
        if item.value not in chosen
    ]


def _named(inventory: Inventory) -> dict[str, str]:
    names = {row.name: f"{row.distribution} {row.version}, {row.state}" for row in inventory.rows}
    for bundle in sorted({bundle for row in inventory.rows for bundle in row.bundles}):
        names.setdefault(bundle, "bundle")
    return names


def _inventory(ctx: click.Context) -> Inventory:
    from ..inventory import Inventory
    from .options import inventory_of, settings_from

    try:
        return inventory_of(settings_from(ctx.params.get("config")), ctx.params.get("data_dir"))
    except (McpdError, OSError):
        # The command itself will say what is wrong with the settings.
        return Inventory()


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
