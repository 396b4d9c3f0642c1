"""Where an import package is, found without executing any of it.

The import system's finders are asked, so that what is found is what would be imported: also the
editable installs that work through ``.pth`` files or through finders on `sys.meta_path`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class PackageNotImportable(Exception):
    """Raised when a module's package cannot be found; the text is the reason, a clause."""


def find_in_package(module: str, filename: str, path: Sequence[str] | None = None) -> str | None:
    """Return the path of a data file at the root of a module's import package.

    :param path: where to look for the package; ``None`` stands for all that can be imported.
    :returns: ``None`` when the package is there and holds no such file.
    :raises PackageNotImportable: when there is no such package.
    """
    for directory in package_directories(module, path):
        candidate = os.path.join(directory, filename)
        if os.path.isfile(candidate):
            return candidate
    return None


def package_directories(module: str, path: Sequence[str] | None = None) -> Sequence[str]:
    """Return the directories of the import package that a module belongs to.

    That is the first regular package on the way to the module: namespace packages above it belong
    to several distributions.

    :param module: full name of a module in the package.
    :param path: where to look for the package; ``None`` stands for all that can be imported.
    :returns: nothing when the module is in no package.
    :raises PackageNotImportable: when there is no such package.
    """
    found: Sequence[str] = ()
    where: Sequence[str] | None = path
    name = ""
    for depth, part in enumerate(module.split(".")):
        name = f"{name}.{part}" if name else part
        try:
            spec = _find_spec(name, where, everywhere=depth == 0 and path is None)
        except KeyError:
            # The path of a namespace package inside another one is computed from its parent, which
            # would have to be imported first. It consists of the parent's directories of that name.
            candidates = [os.path.join(directory, part) for directory in where or ()]
            found = where = [directory for directory in candidates if os.path.isdir(directory)]
            continue
        if spec is None:
            raise PackageNotImportable(f"there is no importable module {name!r}")
        if spec.submodule_search_locations is None:
            break  # a plain module: it has no room for data
        found = where = list(spec.submodule_search_locations)
        if spec.origin is not None:
            break
    return found


def _find_spec(name: str, where: Sequence[str] | None, *, everywhere: bool) -> ModuleSpec | None:
    if not everywhere:
        return PathFinder.find_spec(name, where)
    failure: Exception | None = None
    for finder in sys.meta_path:
        find: Any = getattr(finder, "find_spec", None)
        if find is None:
            continue
        try:
            spec: ModuleSpec | None = find(name, None, None)
        except Exception as exc:  # noqa: BLE001 - anybody's finder; reported unless another knows
            failure = exc
            continue
        if spec is not None:
            return spec
    if failure is not None:
        raise PackageNotImportable(
            f"looking for the package {name!r} failed ({type(failure).__name__}: {failure})"
        )
    return None
