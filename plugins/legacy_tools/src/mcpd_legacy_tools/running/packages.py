"""The packages of trees, found where the trees lie.

The top-level package of a tree is found by a finder of our own, by exactly its name, because its
directory may be called otherwise, or be no package. Nothing else is found by it: what a tree has
beside its package is found only where nobody else has a module of that name.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from mcpd_core import PluginLoadError

from .naming import Home, places

_log = logging.getLogger(__name__)

#: The plugin, for errors.
PLUGIN = "legacy_tools"


class _Trees(importlib.abc.MetaPathFinder):
    """Finds the packages of trees."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in places:
            return None
        place = places[fullname]
        if place is not None and (place / "__init__.py").is_file():
            return importlib.util.spec_from_file_location(
                fullname, place / "__init__.py", submodule_search_locations=[str(place)]
            )
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [] if place is None else [str(place)]
        return spec


_trees = _Trees()
_lock = threading.Lock()

#: Seconds after which nobody waits any longer for a package that another import has begun with: as
#: long as an import may take by default.
PATIENCE = 30.0
#: When the imports that run were begun, by module.
_begun: dict[str, float] = {}


def import_from(home: Home, source: Path) -> ModuleType:
    """Import a file as the module that it is in its package.

    :raises PluginLoadError: when another package of that name is in this process already.
    :raises BaseException: whatever the module or a package above it raises.
    """
    _open(home)
    # What was missing may have been installed since the last time.
    importlib.invalidate_caches()
    with _in_progress(home.module):
        module = importlib.import_module(home.module)
    file = getattr(module, "__file__", None)
    # A module may have put something else in its own place, which is no file at all.
    stands_in = file is None and not hasattr(module, "__path__")
    if not stands_in and (file is None or not _same(Path(file), source)):
        raise PluginLoadError(
            PLUGIN,
            f"{home.module} was loaded from {file}, and not from {source}.",
            hint="A package beside the file that is called like it hides it: rename one of them.",
        )
    return module


@contextmanager
def _in_progress(module: str) -> Iterator[None]:
    """Note that a module is being imported, unless it would wait for a package that hangs.

    Where the ``__init__.py`` of a package never returns, the import of each module below would wait
    for it, too, as long as it may, and each would keep a thread.

    :raises PluginLoadError: when a package above it has been under way for too long.
    """
    with _lock:
        for package in _chain(module)[:-1]:
            if not getattr(getattr(sys.modules.get(package), "__spec__", None), "_initializing", 0):
                continue
            for other, begun in _begun.items():
                if other.startswith(f"{package}.") and time.monotonic() - begun > PATIENCE:
                    raise PluginLoadError(
                        PLUGIN,
                        f"The package {package} above it has not been imported yet, although the "
                        f"import of {other} began with it {time.monotonic() - begun:.0f} s ago.",
                        hint="Call again later; if that does not help, its __init__.py hangs.",
                    )
        _begun[module] = time.monotonic()
    try:
        yield
    finally:
        with _lock:
            _begun.pop(module, None)


def _open(home: Home) -> None:
    """Have a tree's package found where it lies."""
    top = home.package.partition(".")[0]
    with _lock:
        if top in sys.stdlib_module_names:
            raise PluginLoadError(
                PLUGIN,
                f"The package at {home.directory} is called {top!r}, like a module of Python.",
                hint="Rename the directory, or remove its __init__.py.",
            )
        other = _other_than(home)
        if other is not None:
            raise PluginLoadError(
                PLUGIN,
                f"The tree at {home.directory} is the package {home.package!r}, and one of that "
                f"name is in this process already, from {other}: a process has room for one.",
                hint='Set isolation = "process" for one of the two trees.',
            )
        if home.package in places:
            return
        _warn_of_another(home)
        *above, _ = _chain(home.package)
        for name in above:
            places.setdefault(name, None)
        places[home.package] = home.directory
        if _trees not in sys.meta_path:
            sys.meta_path.insert(0, _trees)
        root = str(home.directory.parent)
        if root not in sys.path:
            sys.path.append(root)


def _other_than(home: Home) -> str | None:
    """Return where a package of the same name comes from, if that is somewhere else."""
    for name in _chain(home.package):
        own = name == home.package
        if name in places:
            place = places[name]
            if (place is None) == own or (own and not _same(place, home.directory)):
                return "a copy of its tools" if place is None else str(place)
        elif name in sys.modules:
            found = list(getattr(sys.modules[name], "__path__", ()))
            if not own or not any(_same(Path(place), home.directory) for place in found):
                return ", ".join(found) or str(getattr(sys.modules[name], "__file__", "elsewhere"))
    return None


def _warn_of_another(home: Home) -> None:
    if home.package in sys.modules:
        return
    top = home.package.partition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(top)
    found = [] if spec is None else list(spec.submodule_search_locations or ())
    if found and not any(_same(Path(place), home.directory) for place in found):
        _log.warning(
            "The package %s is taken from the tree at %s from now on, and not from %s.",
            top,
            home.directory,
            ", ".join(found),
        )


def _chain(package: str) -> list[str]:
    parts = package.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _same(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None:
        return False
    try:
        return one.samefile(other)
    except OSError:
        return one == other
