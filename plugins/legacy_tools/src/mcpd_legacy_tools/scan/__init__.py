"""Finds the tools of trees without importing, or even compiling, any of their code.

- `sources`: where the trees are, and which files they hold.
- `modules`: one file: `scope` (its names), `signatures`, `annotations`, `docstrings`, `markers`,
  `classes`, `rules`, `reexports`. Only this part needs `ast`; a scan from the cache does without.
- `marking`: which of its tools show made-up data.
- `cache`: what files were found to hold, kept from one listing to the next.
- `catalog`: selection, names, collisions.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ..opening import never_waiting
from ..options import Options
from ..records import Scan, Tree
from .cache import Cache, default_path
from .catalog import catalog
from .found import FileScan
from .sources import LARGEST_FILE, SourceFile, files_of, trees_of

if TYPE_CHECKING:
    from .marking import Marker
    from .reexports import Definitions


def scan(options: Options, *, cache: bool = True) -> Scan:
    """Find the tools of all trees.

    What is wrong with a tree or a file is a `Problem` of the result; nothing is raised for it.

    :param cache: whether to use, and to renew, what earlier scans have kept.
    """
    with _without_collections():
        return _scan(options, cache)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Leave cycles to be collected later: parsed code has none, and looking for them among its many
    objects takes a seventh of the time of a scan."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _scan(options: Options, cache: bool) -> Scan:
    mounted, problems = trees_of(options)
    trees = [tree for tree, _ in mounted]
    kept = Cache(_cache_path(options, trees) if cache and trees else None)
    found = []
    # The parser warns of doubtful escapes, which are for the tree's authors to mend.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tree in trees:
            files, wrong = files_of(tree)
            problems += wrong
            reader = _Reader(tree, kept)
            found.append((tree, [(file, reader.scanned(file)) for file in files]))
    kept.save()
    named = {tree.name: each for tree, each in mounted if each is not None}
    return replace(catalog(options, found, problems), tree_options=named)


def _cache_path(options: Options, trees: list[Tree]) -> str:
    if options.cache:
        return os.path.abspath(os.path.expanduser(options.cache))
    return default_path(trees, os.environ)


class _Reader:
    """Reads the files of one tree that the cache does not know."""

    def __init__(self, tree: Tree, kept: Cache) -> None:
        self._tree = tree
        self._kept = kept
        self._definitions: Definitions | None = None
        self._marker: Marker | None = None

    def scanned(self, file: SourceFile) -> FileScan:
        """Return what a file holds."""
        known = self._kept.get(file.source, file.size, file.mtime_ns)
        if known is not None:
            return known
        if file.size > LARGEST_FILE:
            size, most = file.size / 2**20, LARGEST_FILE // 2**20
            return FileScan(problem=f"It has {size:.1f} MiB; files above {most} MiB are not read.")
        try:
            content = _read(file.source)
        except OSError as exc:
            return FileScan(problem=f"It cannot be read: {exc.strerror or exc}.")
        scanned = self._examined(file, content)
        self._kept.put(file.source, file.size, file.mtime_ns, scanned)
        return scanned

    def _examined(self, file: SourceFile, content: bytes) -> FileScan:
        # They need the parser, which a scan from the cache does without.
        from .marking import Marker
        from .modules import scan_module
        from .reexports import Definitions

        if self._definitions is None or self._marker is None:
            self._definitions, self._marker = Definitions(self._tree.root), Marker(self._tree)
        scanned = scan_module(file.path, file.source, content, self._definitions)
        self._marker.mark(file, content, scanned)
        return scanned


def _read(source: str) -> bytes:
    # Between listing and reading, the file may have become anything: never wait for a pipe, and
    # never read more than was promised.
    with open(source, "rb", opener=never_waiting) as stream:
        return stream.read(LARGEST_FILE + 1)
