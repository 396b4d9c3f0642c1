"""Functions that a file of a tree passes on from elsewhere.

The old server listed what a module held, wherever it was defined, if its name contained the file's
stem. To offer the same with a schema, the definition is looked for: in the files below the root of
the tree, and nowhere else, and only for names that the old server would have listed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ..opening import never_waiting
from .modules import Unreadable, parsed
from .scope import Function, Imported, Scope, scope_of

#: Files from one to the next until the definition; packages pass things on a few times.
_FARTHEST = 6
_MOST_STARS = 4
#: Parsed files that are remembered: neighbours import from the same few, and each takes megabytes.
_KEPT = 4
_LARGEST = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Definition:
    """Where a function is defined.

    :ivar file: absolute.
    """

    node: Function
    scope: Scope
    file: str


class Definitions:
    """Finds definitions below one root.

    :param root: the directory that absolute imports start at.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._scopes: dict[str, Scope | None] = {}

    def find(
        self, imported: Imported, source: str, depends: list[list[object]]
    ) -> Definition | None:
        """Return where an imported function is defined; ``None`` when that cannot be told.

        :param source: the file that imports it, absolute.
        :param depends: receives the files that the answer depends on; see `found.FileScan`.
        """
        return self._find(imported, source, depends, _FARTHEST)

    def _find(
        self, imported: Imported, source: str, depends: list[list[object]], further: int
    ) -> Definition | None:
        file = self._file(imported, source, depends) if imported.name and further else None
        scope = None if file is None else self._scope(file)
        if file is None or scope is None:
            return None
        name = imported.name
        if name in scope.functions:
            return Definition(scope.functions[name], scope, file)
        if name in scope.imports:
            return self._find(scope.imports[name], file, depends, further - 1)
        for star in scope.stars[:_MOST_STARS]:
            found = self._find(replace(star, name=name), file, depends, further - 1)
            if found is not None:
                return found
        return None

    def _file(self, imported: Imported, source: str, depends: list[list[object]]) -> str | None:
        start = self._root
        if imported.level:
            start = source
            for _ in range(imported.level):
                start = os.path.dirname(start)
            if not f"{start}/".startswith(f"{self._root}/"):
                return None
        place = os.path.join(start, *filter(None, imported.module.split(".")))
        for path in (f"{place}.py", os.path.join(place, "__init__.py")):
            try:
                status = os.stat(path)
            except OSError:
                depends.append([path, -1, 0])
                continue
            depends.append([path, status.st_size, status.st_mtime_ns])
            return path
        return None

    def _scope(self, path: str) -> Scope | None:
        if path not in self._scopes:
            if len(self._scopes) >= _KEPT:
                del self._scopes[next(iter(self._scopes))]
            self._scopes[path] = _read(path)
        return self._scopes[path]


def _read(path: str) -> Scope | None:
    try:
        with open(path, "rb", opener=never_waiting) as file:
            content = file.read(_LARGEST + 1)
        return None if len(content) > _LARGEST else scope_of(*parsed(content))
    except (OSError, Unreadable, RecursionError, MemoryError):
        return None
