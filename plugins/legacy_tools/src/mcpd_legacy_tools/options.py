"""The section ``[legacy_tools]`` of the settings, read with the standard library alone.

Listing tools reads it, too, which must not import pydantic; so the rules are here, and the model in
`settings` asks this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Isolation = Literal["none", "process"]
Selection = Literal["all", "strict"]

_ISOLATIONS: tuple[Isolation, ...] = ("none", "process")
_SELECTIONS: tuple[Selection, ...] = ("all", "strict")
#: MiB below which a process with Python in it could not even start.
LEAST_MEMORY_MB = 128
_LONGEST = 31_536_000


class OptionsError(ValueError):
    """A value of the section that cannot be.

    :ivar key: the place within the section, such as ``trees[0].path``.
    :ivar problem: a clause without full stop.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"[legacy_tools] {key}: {problem}" if key else f"[legacy_tools] {problem}")
        self.key = key
        self.problem = problem


@dataclass(frozen=True)
class Confinement:
    """Where code runs, and what it may use there; ``None`` leaves it to the next wider scope.

    :ivar isolation: ``process``: in one worker process of the tree; ``none``: in the server's own.
    :ivar memory_mb: MiB that the worker process may use.
    :ivar cpu_seconds: seconds of CPU time that one call may use there.
    :ivar timeout: seconds after which a call is cancelled.
    """

    isolation: Isolation | None = None
    memory_mb: int | None = None
    cpu_seconds: int | None = None
    timeout: float | None = None

    def within(self, wider: Confinement) -> Confinement:
        """Return this one, completed by a wider one."""
        own = {each.name: getattr(self, each.name) for each in fields(Confinement)}
        return Confinement(
            **{key: getattr(wider, key) if value is None else value for key, value in own.items()}
        )


@dataclass(frozen=True)
class TreeOptions:
    """One tree to mount.

    :ivar path: as it is written; a leading ``~`` means the user's home.
    :ivar name: empty when it shall be made from the path.
    """

    path: str
    name: str = ""
    confinement: Confinement = Confinement()


@dataclass(frozen=True)
class Options:
    """The whole section.

    :ivar trees: those that the settings name, in order.
    :ivar installed: whether the tree of an installed ipfs_datasets_py is mounted as well.
    :ivar selection: ``strict`` is the old server's rule; see `mcpd_legacy_tools.scan.catalog`.
    :ivar include: patterns of names; when there are any, only what matches one is offered.
    :ivar exclude: patterns of names that are not offered.
    :ivar confinement: what holds unless a tree or a category says otherwise.
    :ivar categories: what holds for single categories, by name.
    :ivar auto_install: whether the old code may install packages while it is imported.
    :ivar cache: the file that the scan is kept in; empty means the user's cache directory.
    """

    trees: tuple[TreeOptions, ...] = ()
    installed: bool = True
    selection: Selection = "all"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    confinement: Confinement = Confinement()
    categories: Mapping[str, Confinement] = field(default_factory=dict)
    auto_install: bool = False
    cache: str = ""

    def confined(self, tree: TreeOptions | None, category: str) -> Confinement:
        """Return what holds for a category of a tree.

        A category's own word counts more than its tree's, and that more than the section's.

        :param tree: ``None`` for one that the settings do not name.
        """
        own = self.categories.get(category, Confinement())
        wider = self.confinement if tree is None else tree.confinement.within(self.confinement)
        return own.within(wider).within(Confinement(isolation="none"))


def read(section: Mapping[str, Any]) -> Options:
    """Read the section as it is written.

    :raises OptionsError: when it is not a proper one; it names the key.
    """
    known = {**_CONFINEMENT, **_SECTION}
    values = _values(section, known, "")
    paths = values.pop("paths", ())
    trees = values.pop("trees", ())
    return Options(
        trees=(*(TreeOptions(path) for path in paths), *trees),
        confinement=_confinement_of(values),
        **values,
    )


def _values(
    table: Mapping[str, Any], known: Mapping[str, Callable[[Any, str], Any]], place: str
) -> dict[str, Any]:
    values = {}
    for key, value in table.items():
        where = f"{place}{key}"
        if key not in known:
            import difflib  # only messages need it

            close = difflib.get_close_matches(str(key), sorted(known), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise OptionsError(where, f"there is no such setting{hint}")
        if value is not None:
            values[key] = known[key](value, where)
    return values


def _confinement_of(values: dict[str, Any]) -> Confinement:
    return Confinement(**{key: values.pop(key) for key in _CONFINEMENT if key in values})


# --- one value at a time -------------------------------------------------------------------------


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise OptionsError(where, f"must be a string, not {_shown(value)}")
    return value


def _path(value: Any, where: str) -> str:
    path = _text(value, where)
    if not path.strip() or "\0" in path:
        raise OptionsError(where, f"must be the path of a directory, not {_shown(value)}")
    return path


def _file(value: Any, where: str) -> str:
    path = _text(value, where)
    if "\0" in path:
        raise OptionsError(where, f"must be the path of a file, not {_shown(value)}")
    return path


def _tree_name(value: Any, where: str) -> str:
    name = _text(value, where)
    plain = name.replace("_", "a").replace("-", "a")
    if not (plain.isascii() and plain.isalnum() and len(name) <= 32):
        raise OptionsError(
            where,
            f"must be 1 to 32 letters, digits, '_' and '-', not {_shown(value)}",
        )
    return name


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise OptionsError(where, f"must be true or false, not {_shown(value)}")
    return value


def _list(value: Any, where: str, item: Callable[[Any, str], Any]) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise OptionsError(where, f"must be a list, not {_shown(value)}")
    return tuple(item(each, f"{where}[{i}]") for i, each in enumerate(value))


def _one_of(value: Any, where: str, choices: Sequence[str]) -> str:
    if value not in choices:
        allowed = " or ".join(f'"{choice}"' for choice in choices)
        raise OptionsError(where, f"must be {allowed}, not {_shown(value)}")
    return str(value)


def _whole(value: Any, where: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionsError(
            where, f"must be a whole number of at least {least}, not {_shown(value)}"
        )
    return value


def _seconds(value: Any, where: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 < value <= _LONGEST:
        raise OptionsError(
            where, f"must be a number of seconds, above 0 and within a year, not {_shown(value)}"
        )
    return float(value)


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionsError(where, f"must be a table, not {_shown(value)}")
    return value


def _tree(value: Any, where: str) -> TreeOptions:
    known = {**_CONFINEMENT, "path": _path, "name": _tree_name}
    values = _values(_table(value, where), known, f"{where}.")
    if "path" not in values:
        raise OptionsError(where, "needs a `path`, the directory that holds the categories")
    return TreeOptions(confinement=_confinement_of(values), **values)


def _category(value: Any, where: str) -> Confinement:
    return Confinement(**_values(_table(value, where), _CONFINEMENT, f"{where}."))


def _categories(value: Any, where: str) -> Mapping[str, Confinement]:
    return {
        str(name): _category(item, f"{where}.{name}") for name, item in _table(value, where).items()
    }


_CONFINEMENT: dict[str, Callable[[Any, str], Any]] = {
    "isolation": lambda value, where: _one_of(value, where, _ISOLATIONS),
    "memory_mb": lambda value, where: _whole(value, where, LEAST_MEMORY_MB),
    "cpu_seconds": lambda value, where: _whole(value, where, 1),
    "timeout": _seconds,
}
_SECTION: dict[str, Callable[[Any, str], Any]] = {
    "paths": lambda value, where: _list(value, where, _path),
    "trees": lambda value, where: _list(value, where, _tree),
    "installed": _flag,
    "selection": lambda value, where: _one_of(value, where, _SELECTIONS),
    "include": lambda value, where: _list(value, where, _text),
    "exclude": lambda value, where: _list(value, where, _text),
    "categories": _categories,
    "auto_install": _flag,
    "cache": _file,
}
