"""The new settings as a file ``mcpd.toml``, which mcpd itself has read once before it is there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcpd_core import SettingsError
from mcpd_core.commandline import settings_from

from ..options import OptionsError
from ..options import read as read_options
from .converting import Change

#: The order of the sections in the file.
_SECTIONS = ("serve", "plugins", "executor", "http", "task_queue", "legacy_tools")


def render(changes: Iterable[Change], source: str) -> str:
    """Return the file's text: one section after the other, each setting with its origin.

    :param source: where the old settings were, for the first line.
    """
    sections: dict[str, list[str]] = {section: [] for section in _SECTIONS}
    for change in changes:
        if change.outcome == "set":
            section, _, key = change.target.partition(".")
            origin = _comment(change.name)
            sections[section].append(f"{key} = {_toml(change.new)}  # {origin}")
    lines = [f"# Written by `mcpd config migrate` from {_comment(source)}."]
    for section, settings in sections.items():
        if settings:
            lines += ["", f"[{section}]", *settings]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def check(text: str) -> None:
    """Have mcpd read the file as it would, with the variables that are set here.

    :raises SettingsError: when mcpd does not take it.
    """
    path = _temporary(text, Path(tempfile.gettempdir()))
    try:
        settings = settings_from(str(path))
        section: Mapping[str, Any] = settings.section("legacy_tools")
        read_options(section)
    except (SettingsError, OptionsError) as error:
        what = str(error).replace(str(path), "the file")
        raise SettingsError(
            f"mcpd does not take what the old settings became: {what}",
            hint="Nothing was written. Correct the old file, or the variable that is named.",
        ) from error
    finally:
        path.unlink()


def write_file(text: str, output: Path, *, force: bool) -> None:
    """Write the file in one piece.

    :param force: whether a file that exists may be replaced.
    :raises SettingsError: when one exists, or it cannot be written.
    """
    try:
        path = _temporary(text, output.absolute().parent)
        try:
            if force:
                os.replace(path, output)
            else:
                # Unlike a rename, a link never replaces what somebody else has just written.
                os.link(path, output)
        finally:
            path.unlink(missing_ok=True)
    except FileExistsError as error:
        raise SettingsError(
            f"{output} exists, and is left as it is.",
            hint="Name another file with --output, look with --dry-run, or say --force.",
        ) from error
    except OSError as error:
        raise SettingsError(f"{output} cannot be written: {error.strerror}.") from error


def _temporary(text: str, folder: Path) -> Path:
    try:
        descriptor, name = tempfile.mkstemp(".toml", ".mcpd-", folder)
    except OSError as error:
        raise SettingsError(f"{folder} takes no file: {error.strerror}.") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)
