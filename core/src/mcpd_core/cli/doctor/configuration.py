"""The settings: whether they can be read, and whether anybody reads them."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from ...discovery import same_name
from ...errors import SettingsError
from ...findings import Finding
from ...inventory import Inventory, PluginRow
from ...settings import Settings, core_sections

_HOOK = "mcpd_settings"


def examine(
    settings: Settings, problem: SettingsError | None, inventory: Inventory
) -> Iterator[Finding]:
    """Look at what is set.

    :param problem: why the settings could not be read, if so.
    """
    if problem is not None:
        yield Finding("settings", "error", problem.message, problem.hint)
        return
    if settings.file is None:
        yield Finding("settings", "ok", "There is no settings file; the defaults hold.")
    else:
        mode = settings.file.stat().st_mode
        yield check_mode(str(settings.file.absolute()), mode)
    yield from check_sections(settings.extra, settings.origins, inventory)


def check_mode(file: str, mode: int) -> Finding:
    """Tell whether nobody else can change what mcpd does."""
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding(
            "settings",
            "warning",
            f"{file} can be written by other users, who thereby decide what mcpd does.",
            f"chmod go-w {file}",
        )
    return Finding("settings", "ok", f"{file} is valid.")


def check_sections(
    sections: Mapping[str, object], origins: Mapping[str, str], inventory: Inventory
) -> Iterator[Finding]:
    """Tell which sections nobody reads.

    A plugin may call its section anything, which only its code says; so a section is judged by the
    name that it shares with a plugin.
    """
    for section in sections:
        origin = next(
            (where for path, where in origins.items() if path.startswith(f"{section}.")), ""
        )
        place = f"[{section}]" + (f" ({origin})" if origin else "")
        row = _named(inventory, section)
        if row is None:
            yield _orphan(section, place, inventory)
        elif row.state != "enabled":
            yield Finding(
                "settings", "note", f"{place} is not read: the plugin {row.name} is {row.state}."
            )
        elif _HOOK not in row.hooks and not row.dynamic and row.metadata_provider is None:
            yield Finding(
                "settings",
                "warning",
                f"{place} is not read: the plugin {row.name} has no settings.",
                "Take the section out.",
            )
        else:
            yield Finding("settings", "ok", f"{place} belongs to the plugin {row.name}.")


def _named(inventory: Inventory, section: str) -> PluginRow | None:
    return next(
        (
            row
            for row in inventory.rows
            if same_name(row.name, section) or same_name(row.distribution, section)
        ),
        None,
    )


def _orphan(section: str, place: str, inventory: Inventory) -> Finding:
    known = [*core_sections(), *(row.name for row in inventory.rows)]
    close = get_close_matches(section, known, n=1)
    return Finding(
        "settings",
        "warning",
        f"{place} belongs neither to mcpd nor to a plugin of that name.",
        f"Did you mean [{close[0]}]?"
        if close
        else "Install the plugin or take the section out; `mcpd config schema` asks the plugins "
        "for their sections.",
    )
