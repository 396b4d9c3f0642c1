"""The settings of an older server, wherever they are kept: YAML, variables, or a dotenv file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from mcpd_core import SettingsError

#: Larger than any settings file; what is larger was named by mistake.
_LARGEST = 1024 * 1024
#: Deeper than any settings file.
_DEEPEST = 16
#: More settings than any settings file has. A few lines of YAML can be millions: an alias repeats
#: whatever it stands for.
_MOST = 10_000

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*\Z")


@dataclass(frozen=True)
class Old:
    """One old setting.

    :ivar key: its dotted path in the YAML file, or the name of the variable.
    :ivar kind: where it is kept; ``shell`` is the environment that mcpd itself runs in, where a
        general name may mean anything, and ``dotenv`` a file that was written for the old server.
    """

    key: str
    value: Any
    kind: Literal["yaml", "shell", "dotenv"]

    @property
    def name(self) -> str:
        """As a report shows it: a variable with a ``$`` before it."""
        return self.key if self.kind == "yaml" else f"${self.key}"


def read_yaml(file: Path) -> list[Old]:
    """Read the settings of a YAML file.

    :raises SettingsError: when it cannot be read or holds no settings.
    """
    text = _text(file)
    yaml: Any = import_module("yaml")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(f"{file} is no YAML: {what}") from error
    if content is None:
        return []
    if not isinstance(content, dict):
        raise SettingsError(
            f"{file} holds no settings: its content is a {type(content).__name__}, no mapping.",
            hint="Name the file that the old server was started with.",
        )
    found = list(islice(_leaves(content, "", file, 0), _MOST + 1))
    if len(found) > _MOST:
        raise SettingsError(f"{file} holds more than {_MOST} settings, which no server had.")
    return found


def _leaves(table: Mapping[Any, Any], path: str, file: Path, depth: int) -> Iterator[Old]:
    if depth > _DEEPEST:
        raise SettingsError(f"{file}: {path.rstrip('.')} is nested too deeply to be a setting.")
    for key, value in table.items():
        where = f"{path}{key}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{where}.", file, depth + 1)
        else:
            yield Old(where, value, "yaml")


def read_dotenv(file: Path) -> list[Old]:
    """Read the variables of a file of lines ``NAME=value``, as a shell or Docker reads it.

    :raises SettingsError: when it cannot be read, or a line is no assignment.
    """
    found: dict[str, Old] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        matched = _ASSIGNMENT.match(line)
        if matched is None:
            raise SettingsError(
                f"{file}, line {number}, is no assignment of the form NAME=value.",
                hint="Leave out what a shell would have to run.",
            )
        name, value = matched.groups()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        else:
            value = re.split(r"\s+#", value, maxsplit=1)[0]
        found[name] = Old(name, value, "dotenv")
    return list(found.values())


def read_variables(env: Mapping[str, str]) -> list[Old]:
    """Return the variables of an environment, in alphabetical order."""
    return [Old(name, env[name], "shell") for name in sorted(env)]


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            # A pipe or a device does not say how much there is.
            content = stream.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise SettingsError(f"{file} is larger than a settings file can be ({_LARGEST} bytes).")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{file} cannot be read: {why}.") from error
