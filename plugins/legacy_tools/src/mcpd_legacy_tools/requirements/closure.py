"""The closure of a file's imports through its own tree, and what of it is not here.

Nothing is imported: files are read, and of installed packages only the top level is looked for,
because looking further would run them. What is not certain is left open: whoever acts on the answer
refuses a tool that might have worked.
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES

from .distributions import named
from .imports import Import, Imports, read_imports

#: Files that one closure may run through, and bytes of one of them.
MOST_FILES, MOST_BYTES = 2_000, 2 * 1024 * 1024
#: Seconds for which it is believed that a file is as it was and what is missing still is, and that
#: what is there still is.
_BELIEVED, _TRUSTED = 2.0, 30.0
#: What modules have without saying so.
_OF_ALL = re.compile(r"__\w+__\Z")


@dataclass(frozen=True)
class Home:
    """A package, and where it is: its directory may be called otherwise.

    :ivar package: its dotted name. The packages above it in the name hold nothing else.
    """

    package: str
    directory: str


@dataclass(frozen=True)
class Place:
    """Where something is imported."""

    file: str
    line: int


@dataclass
class Reached:
    """What a file needs in order to be imported.

    :ivar files: those of the tree, in the order in which they are reached.
    :ivar outside: the modules that are not of the tree, and where each is imported first.
    :ivar broken: imports that cannot work whatever is installed, each with a clause such as
        ``imports x, which the tree does not have``.
    :ivar alters_path: whether one of the files changes where modules are found.
    :ivar stands_in: modules that one of them puts something in the place of; ``*`` for whichever.
    """

    files: list[str] = field(default_factory=list)
    outside: dict[str, Place] = field(default_factory=dict)
    broken: dict[Place, str] = field(default_factory=dict)
    alters_path: bool = False
    stands_in: set[str] = field(default_factory=set)


@dataclass
class _Step:
    """Where one import of a file leads."""

    line: int
    files: list[str] = field(default_factory=list)
    outside: str = ""
    broken: str = ""


class Closures:
    """The closures of the files of one package. They share the work: a file is read once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._above = home.package.split(".")
        self._imports: dict[str, tuple[float, tuple[int, int], Imports]] = {}
        self._steps: dict[tuple[str, bool], tuple[float, Imports, list[_Step]]] = {}

    def of(self, file: str) -> Reached:
        """Return what a file, and the packages it is in, need in any case."""
        return self._follow([*self._packages_of(file), file])

    def perhaps(self, file: str) -> Reached:
        """Return what is imported besides on occasion: by the file, and by what it imports."""
        starts: list[str] = []
        outside: dict[str, Place] = {}
        neighbours = [each for step in self._steps_of(file, certain=True) for each in step.files]
        for each in dict.fromkeys((file, *neighbours)):
            for step in self._steps_of(each, certain=False):
                if step.outside:
                    outside.setdefault(step.outside, Place(each, step.line))
                elif each == file:
                    starts += step.files
        reached = self._follow(starts)
        reached.outside = {**outside, **reached.outside}
        return reached

    def _follow(self, starts: list[str]) -> Reached:
        reached = Reached()
        seen = set(starts)
        waiting = deque(dict.fromkeys(starts))
        while waiting and len(reached.files) < MOST_FILES:
            file = waiting.popleft()
            reached.files.append(file)
            imports = self.imports(file)
            reached.alters_path |= imports.alters_path
            reached.stands_in |= imports.stands_in
            for step in self._steps_of(file, certain=True):
                if step.outside:
                    reached.outside.setdefault(step.outside, Place(file, step.line))
                if step.broken:
                    reached.broken.setdefault(Place(file, step.line), step.broken)
                new = [each for each in step.files if each not in seen]
                seen.update(new)
                waiting += new
        return reached

    def imports(self, file: str) -> Imports:
        """Return what a file imports; nothing when it cannot be read, which others tell."""
        now = time.monotonic()
        known = self._imports.get(file)
        if known is not None and now - known[0] < _BELIEVED:
            return known[2]
        try:
            found = os.stat(file)
        except OSError:
            return _UNREADABLE
        state = (found.st_mtime_ns, found.st_size)
        same = known is not None and known[1] == state
        imports = known[2] if known is not None and same else _read(file, found.st_size)
        self._imports[file] = (now, state, imports)
        return imports

    # --- one import ------------------------------------------------------------------------------

    def _steps_of(self, file: str, *, certain: bool) -> list[_Step]:
        imports, now = self.imports(file), time.monotonic()
        known = self._steps.get((file, certain))
        if known is not None and known[1] is imports:
            limit = _BELIEVED if any(step.broken for step in known[2]) else _TRUSTED
            if now - known[0] < limit:
                return known[2]
        steps = [self._step(each, file) for each in imports.found if each.certain == certain]
        self._steps[file, certain] = (now, imports, steps)
        return steps

    def _step(self, wanted: Import, file: str) -> _Step:
        step = _Step(wanted.line)
        parts = wanted.module.split(".") if wanted.module else []
        base = self._home.directory
        if wanted.level:
            base = os.path.dirname(file)
            for _ in range(wanted.level - 1):
                base = os.path.dirname(base)
            if not _within(base, self._home.directory):
                step.broken = "imports from above the package that it is in"
                return step
        elif parts[: len(self._above)] == self._above:
            parts = parts[len(self._above) :]
        else:
            step.outside = named(wanted.module)
            return step
        self._walk(step, base, parts, wanted, file)
        return step

    def _walk(self, step: _Step, base: str, parts: list[str], wanted: Import, file: str) -> None:
        """Go down to the module that is imported, and to those that are taken from it."""
        place, found = base, ""
        for part in parts:
            if found and not found.endswith("__init__.py"):
                step.broken = (
                    f"imports {wanted.module}, though {os.path.basename(found)} has no parts"
                )
                return
            place = os.path.join(place, part)
            at = _module_at(place)
            if at is None:
                step.broken = f"imports {'.' * wanted.level}{wanted.module}, which the tree lacks"
                return
            found = at
            if found:
                step.files.append(found)
        names = [name for name in wanted.names if name != "*"]
        if not os.path.isdir(place) or (found and not found.endswith("__init__.py")):
            modules: dict[str, str | None] = dict.fromkeys(names)
        else:
            modules = {name: _module_at(os.path.join(place, name)) for name in names}
            found = os.path.join(place, "__init__.py")
        if not wanted.certain or found == file:
            # A package that imports its own module binds the name by that very import.
            step.files += filter(None, modules.values())
        elif names:
            self._take(step, wanted, modules, found)

    def _take(
        self, step: _Step, wanted: Import, modules: Mapping[str, str | None], origin: str
    ) -> None:
        """Find those of the names taken from a module that are modules, and those that are nothing.

        :param modules: by name, the file of a module that is called so, as `_module_at` says.
        :param origin: the file of the module that they are taken from.
        """
        imports = self.imports(origin) if os.path.isfile(origin) else Imports()
        for name, module in modules.items():
            if name in imports.binds:
                continue
            lazy = imports.lazy.get(name)
            if lazy is not None:
                below = lazy.lstrip(".")
                made = Import(below, len(lazy) - len(below), (), wanted.line, certain=True)
                step.files += self._step(made, origin).files
            elif imports.makes_names:
                continue
            elif module:
                step.files.append(module)
            elif module is None and not _OF_ALL.match(name):
                whence = f"{'.' * wanted.level}{wanted.module}"
                step.broken = f"imports {name!r} from {whence}, which does not have it"

    def _packages_of(self, file: str) -> Iterator[str]:
        """Yield the packages that are imported before a file is, the outermost first."""
        above = []
        directory = os.path.dirname(file)
        while _within(directory, self._home.directory):
            above.append(os.path.join(directory, "__init__.py"))
            directory = os.path.dirname(directory)
        yield from filter(os.path.isfile, reversed(above))


_UNREADABLE = Imports(makes_names=True)


def _read(file: str, size: int) -> Imports:
    if size > MOST_BYTES:
        return _UNREADABLE
    try:
        with open(file, "rb") as content:
            return read_imports(importlib.util.decode_source(content.read()))
    # What the parser raises about text that is no Python; the last is one of depth.
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return _UNREADABLE


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + os.sep)


def _module_at(place: str) -> str | None:
    """Return the file of a module: empty when it is there and has no source, ``None`` when not."""
    package = os.path.join(place, "__init__.py")
    if os.path.isfile(package):
        return package
    if os.path.isfile(f"{place}.py"):
        return f"{place}.py"
    there = os.path.isdir(place) or any(
        os.path.isfile(place + suffix) for suffix in EXTENSION_SUFFIXES
    )
    return "" if there else None


# --- outside of the tree -------------------------------------------------------------------------

_missing_at: dict[str, float] = {}
_found: set[str] = set()


def is_here(module: str) -> bool:
    """Whether a module can be found, without running anything.

    :param module: dotted. Below a package with code of its own nothing is looked for.
    """
    if module in _found:
        return True
    now = time.monotonic()
    if now - _missing_at.get(module, -_BELIEVED) < _BELIEVED:
        return False
    if _look_for(module):
        _found.add(module)
        return True
    _missing_at[module] = now
    return False


def _look_for(module: str) -> bool:
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return True  # somebody has put something there; it is not missing
    if spec is None:
        return False
    places = list(spec.submodule_search_locations or ())
    for part in below:
        if spec.origin is not None:
            return True
        places = [os.path.join(place, part) for place in places]
        found = [each for each in map(_module_at, places) if each is not None]
        if not found:
            return False
        if any(found):
            return True
    return True


def neighbour(module: str, file: str, root: str) -> str:
    """Return the directory above a file that has a module of this name; empty when none has.

    :param root: the highest that is looked into.
    """
    directory = os.path.dirname(file)
    while _within(directory, root):
        if _module_at(os.path.join(directory, module)) is not None:
            return directory
        directory = os.path.dirname(directory)
    return ""
