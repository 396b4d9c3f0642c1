"""Finds the tools of trees without importing, or even compiling, any of their code.

- `sources`: where the trees are, and which files they hold.
- `modules`: one file: `scope` (its names), `signatures`, `annotations`, `docstrings`, `markers`,
  `classes`, `rules`. Only this part needs `ast`; a scan from the cache does without.
- `marking`: which of its tools show made-up data.
- `cache`: what files were found to hold, kept from one listing to the next.
- `catalog`: selection, names, collisions.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..options import Options
from ..records import Scan, Tree
from .cache import Cache, default_path
from .catalog import catalog
from .found import FileScan
from .sources import LARGEST_FILE, SourceFile, files_of, trees_of

if TYPE_CHECKING:
    from .marking import Marker


def scan(options: Options, *, cache: bool = True) -> Scan:
    """Find the tools of all trees.

    What is wrong with a tree or a file is a `Problem` of the result; nothing is raised for it.

    :param cache: whether to use, and to renew, what earlier scans have kept.
    """
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
            made_up = _MadeUp(tree)
            found.append((tree, [(file, _scanned(file, kept, made_up)) for file in files]))
    kept.save()
    named = {tree.name: each for tree, each in mounted if each is not None}
    return replace(catalog(options, found, problems), tree_options=named)


def _cache_path(options: Options, trees: list[Tree]) -> Path:
    if options.cache:
        return Path(os.path.abspath(os.path.expanduser(options.cache)))
    return default_path(trees, os.environ)


def _scanned(file: SourceFile, kept: Cache, made_up: _MadeUp) -> FileScan:
    known = kept.get(file.source, file.size, file.mtime_ns)
    if known is not None:
        return known
    if file.size > LARGEST_FILE:
        size, most = file.size / 2**20, LARGEST_FILE // 2**20
        return FileScan(problem=f"It has {size:.1f} MiB; files above {most} MiB are not scanned.")
    try:
        content = _read(file.source)
    except OSError as exc:
        return FileScan(problem=f"It cannot be read: {exc.strerror or exc}.")
    from .modules import scan_module  # the parser; a scan from the cache does without

    scanned = scan_module(file.path, content)
    made_up.mark(file, content, scanned)
    kept.put(file.source, file.size, file.mtime_ns, scanned)
    return scanned


class _MadeUp:
    """Marks what is made up, once there is a file to read; a scan from the cache does without."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._marker: Marker | None = None

    def mark(self, file: SourceFile, content: bytes, scanned: FileScan) -> None:
        """Note of each tool of a file where made-up data shows."""
        if self._marker is None:
            from .marking import Marker

            self._marker = Marker(self._tree)
        self._marker.mark(file, content, scanned)


def _read(source: str) -> bytes:
    # Between listing and reading, the file may have become anything: never wait for a pipe, and
    # never read more than was promised.
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        return stream.read(LARGEST_FILE + 1)
