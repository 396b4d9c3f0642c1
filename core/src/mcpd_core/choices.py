"""Which plugins the owner has enabled and disabled by hand, kept in the data directory.

``mcpd plugins enable`` and ``disable`` write here; whoever selects plugins without being told which
ones reads it. A choice is about one plugin of one distribution and outlives both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from . import paths
from .discovery import same_name
from .errors import SelectionError, SettingsError
from .inventory import PluginRow

FILENAME = "plugins.json"
SCHEMA = 1


def read_choices(data_dir: Path) -> dict[str, bool]:
    """Return what was chosen: for ``distribution:plugin``, whether it is enabled.

    :raises SettingsError: when the file cannot be read.
    """
    path = data_dir / FILENAME
    try:
        content = json.loads(paths.read_regular(path))
        if content["schema"] != SCHEMA:
            raise ValueError(f"it is of format {content['schema']}")
        choices = content["plugins"]
        if not all(type(value) is bool for value in choices.values()):
            raise ValueError("a choice is true or false")
        return dict(choices)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SettingsError(
            f"{path}, which says what plugins were enabled and disabled, cannot be read: "
            f"{type(error).__name__}: {error}.",
            hint="Remove the file to forget every choice.",
        ) from error


def remember(data_dir: Path, label: str, enabled: bool) -> None:
    """Keep a choice, replacing the one before.

    :param label: ``distribution:plugin``.
    :raises SettingsError: when the file cannot be read or written.
    """
    choices = read_choices(data_dir)
    choices[label] = enabled
    path = data_dir / FILENAME
    text = json.dumps({"schema": SCHEMA, "plugins": choices}, indent=1, sort_keys=True) + "\n"
    # Written beside it and moved there, so that nobody ever reads half of it.
    draft = path.with_name(f"{FILENAME}.{os.getpid()}")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        _sync(data_dir)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from error


def _sync(directory: Path) -> None:
    """Make the new name as durable as what it names."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def chosen(choices: Mapping[str, bool], label: str) -> bool | None:
    """Return what was chosen about a plugin; ``None`` when nothing was."""
    return next((value for key, value in choices.items() if same_name(key, label)), None)


def disabled_reason(plugin: str) -> str:
    """Return what a row says about a plugin that was disabled by hand."""
    return f"It was disabled by hand; `mcpd plugins enable {plugin}` enables it."


def find(rows: Iterable[PluginRow], name: str) -> PluginRow:
    """Return the plugin that a person means.

    :param name: of a plugin, of a distribution with one plugin, or ``distribution:plugin``.
    :raises SelectionError: when it is none, with the names that come closest, or several.
    """
    rows = list(rows)
    for key in ("label", "name", "distribution"):
        matches = [row for row in rows if same_name(getattr(row, key), name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            labels = " or ".join(sorted(row.label for row in matches))
            raise SelectionError(
                f"{name!r} stands for several plugins.", hint=f"Say which one: {labels}."
            )
    import difflib  # only needed for this message

    known = {row.name for row in rows} | {row.distribution for row in rows}
    close = difflib.get_close_matches(name, sorted(known), n=3)
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else _installed(rows)
    raise SelectionError(f"No plugin {name!r} is installed.", hint=hint, data={"name": name})


def _installed(rows: Iterable[PluginRow]) -> str:
    names = ", ".join(sorted({row.name for row in rows}))
    return f"Installed plugins: {names or 'none'}."
