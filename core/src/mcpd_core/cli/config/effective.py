"""What holds, and where it was said: for ``mcpd config show``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date, time
from typing import Any

from ... import paths
from ...settings import Settings, core_sections

#: Shown in place of a value that somebody might read over a shoulder or paste into a report.
HIDDEN = "(not shown)"

_SECRET = re.compile(
    r"secret|token|passw|credential|(api|private|access|signing)_?key|\bdsn\b", re.IGNORECASE
)
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class Effective:
    """One setting and its value.

    :ivar key: a path with dots inside the section.
    :ivar origin: the file, the environment variable or the flag; ``default`` when nobody set it.
    """

    section: str
    key: str
    value: Any
    origin: str

    @property
    def path(self) -> str:
        """``section.key``; the data directory belongs to no section."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def shown(self) -> str:
        """The value as a person reads it."""
        if self.value is None:
            return "(not set)"
        return self.value if isinstance(self.value, str) else json.dumps(self.value, default=str)

    def to_json(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        return {
            "section": self.section,
            "key": self.key,
            "value": self.value,
            "from": self.origin,
        }


def effective(
    settings: Settings,
    data_dir: str | None,
    env: Mapping[str, str] | None = None,
    *,
    reveal: bool = False,
) -> list[Effective]:
    """Return every setting of the core, what was set for plugins, and the data directory.

    :param data_dir: the value of ``--data-dir``.
    :param env: the environment; the process's own by default.
    :param reveal: whether to return what is kept from view otherwise: the texts in the sections of
        plugins, of which only a plugin's own code could say which are secrets.
    """
    env = os.environ if env is None else env
    origin = "--data-dir" if data_dir else "MCPD_DATA_DIR" if env.get("MCPD_DATA_DIR") else ""
    found = [Effective("", "data_dir", str(paths.data_dir(data_dir, env)), origin or "default")]
    for section, model in core_sections().items():
        values = getattr(settings, section)
        for item in fields(model):
            value = _plain(getattr(values, item.name))
            origin = settings.origin(section, item.name)
            found.append(
                Effective(
                    section, item.name, value if reveal else _without_passwords(value), origin
                )
            )
    for section in sorted(settings.extra):
        for key, value in _leaves(settings.section(section)):
            plain = _plain(value)
            found.append(
                Effective(
                    section,
                    key,
                    plain if reveal else _veiled(key, plain),
                    settings.origin(section, key),
                )
            )
    return found


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; dates and times are the only ones of TOML that it lacks."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, (date, time)) else value


def _veiled(path: str, value: Any) -> Any:
    """Return a plugin's value without any text, and without numbers whose names look secret."""
    if isinstance(value, list):
        return [_veiled(path, item) for item in value]
    if isinstance(value, Mapping):
        return {key: _veiled(f"{path}.{key}", item) for key, item in value.items()}
    if value is None or isinstance(value, bool):
        return value
    return HIDDEN if isinstance(value, str) or _SECRET.search(path) else value


def _without_passwords(value: Any) -> Any:
    """Return a value of the core without the passwords in addresses."""
    if isinstance(value, list):
        return [_without_passwords(item) for item in value]
    return _PASSWORD_IN_URL.sub("...@", value) if isinstance(value, str) else value
