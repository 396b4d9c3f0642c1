"""Marks the tools of a file whose code shows made-up data."""

from __future__ import annotations

import os

from ..mocks import MarkFinder
from ..records import Tree
from .found import FileScan
from .sources import SourceFile


class Marker:
    """Marks the tools of the files of one tree.

    :param tree: the tree.
    """

    def __init__(self, tree: Tree) -> None:
        self._finder = MarkFinder(tree.root)

    def mark(self, file: SourceFile, content: bytes, scanned: FileScan) -> None:
        """Note of each tool of a file where made-up data shows.

        :param content: the file.
        :param scanned: what was found in it; its tools, and the files it depends on, are completed.
        """
        marks = self._finder.find(content.decode(errors="replace"), file.source, file.path)
        for found in scanned.found:
            shown = marks.of.get(found.function.partition(".")[0], ())
            # The same file may be at another path in the tree when its scan is used again.
            found.marks = [
                [mark.line, mark.text, "" if mark.file == file.path else mark.file]
                for mark in shown
            ]
        scanned.depends += [_state(path) for path in marks.engines]


def _state(path: str) -> list[object]:
    try:
        status = os.stat(path)
    except OSError:
        return [path, -1, 0]
    return [path, status.st_size, status.st_mtime_ns]
