"""Where the trees are, and which files they hold. Files are listed here, not opened."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..options import Options, TreeOptions
from ..records import Problem, Tree

#: The package that is looked for, and where its tools are in it.
PACKAGE = "ipfs_datasets_py"
TOOLS = "mcp_server/tools"
#: A file larger than this is data in Python's clothes; parsing it would hold up every listing.
LARGEST_FILE = 2 * 1024 * 1024
#: Directories below the tree; deeper ones are taken for an accident, such as a link upwards.
_DEEPEST = 12
_MOST_FILES = 20_000
_MOST_DIRECTORIES = 5_000


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to scan.

    :ivar path: relative to the tree, with slashes.
    :ivar source: absolute.
    """

    path: str
    source: str
    size: int
    mtime_ns: int

    @property
    def category(self) -> str:
        """The directory of the tree that it is in, or its own stem when it is in none.

        The files of a category belong together; so do the functions of a file that is in none.
        """
        first, slash, _ = self.path.partition("/")
        return first if slash else first.removesuffix(".py")


def trees_of(options: Options) -> tuple[list[tuple[Tree, TreeOptions | None]], list[Problem]]:
    """Return the trees to mount, those of the settings first.

    :returns: each with what the settings say of it; and what is wrong with the others.
    """
    found: list[tuple[Tree, TreeOptions | None]] = []
    problems: list[Problem] = []
    taken: set[str] = set()
    places: set[str] = set()
    for each in options.trees:
        path = os.path.abspath(os.path.expanduser(each.path))
        name = _free(each.name or _name_of(path), taken)
        if not os.path.isdir(path):
            what = "is not a directory" if os.path.exists(path) else "does not exist"
            problems.append(Problem(name, "", f"The tree {path} {what}; see [legacy_tools] paths."))
            continue
        place = os.path.realpath(path)
        if place in places:
            problems.append(Problem(name, "", f"The tree {path} is mounted already."))
            continue
        places.add(place)
        taken.add(name)
        found.append((tree_at(path, name), each))
    if options.installed:
        installed = installed_tree()
        if installed is not None and os.path.realpath(installed) not in places:
            name = _free(PACKAGE, taken)
            found.append((tree_at(installed, name), None))
    return found, problems


def tree_at(path: str, name: str) -> Tree:
    """Return the tree of a directory.

    Its package is told by the ``__init__.py`` files on the way up. A directory without one is a
    package nevertheless when its parent is one: Python would import it so.

    :param path: absolute.
    """
    parts: list[str] = []
    place = path
    while _is_package(place) or (not parts and _is_package(os.path.dirname(place))):
        place, part = os.path.split(place)
        if not part.isidentifier():
            parts = []
            break
        parts.insert(0, part)
    if not parts:
        return Tree(
            name, path, path, f"mcpd_legacy_tree_{re.sub(r'[^0-9A-Za-z_]', '_', name)}", True
        )
    return Tree(name, path, place, ".".join(parts))


def _is_package(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "__init__.py"))


def _name_of(path: str) -> str:
    """Name a tree after its package, or after the first directory that says something."""
    package = tree_at(path, "tree").package.partition(".")[0]
    if not package.startswith("mcpd_legacy_tree_"):
        return package[:32]
    for part in reversed(path.split(os.sep)):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", part).strip("_")[:32]
        if name and name not in ("tools", "src", "mcp_server"):
            return name
    return "tree"


def _free(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


# --- the installed package -----------------------------------------------------------------------


def installed_tree() -> str | None:
    """Return the tools of an installed ipfs_datasets_py, found by looking at files.

    Nothing is imported to find it: importing that package installs things.
    """
    for directory in _package_directories():
        path = os.path.join(directory, *TOOLS.split("/"))
        if os.path.isdir(path):
            return path
    return None


def _package_directories() -> Iterator[str]:
    entries = [entry for entry in sys.path if entry and os.path.isdir(entry)]
    for entry in entries:
        yield os.path.join(entry, PACKAGE)
    # Editable installs whose finder would have to be imported to say where the package is.
    for entry in entries:
        try:
            names = os.listdir(entry)
        except OSError:
            continue
        for name in names:
            folded = name.lower().replace("-", "_")
            if PACKAGE not in folded:
                continue
            for root in _editable_roots(os.path.join(entry, name), folded):
                yield os.path.join(root, PACKAGE)
                yield os.path.join(root, "src", PACKAGE)


def _editable_roots(path: str, name: str) -> Iterator[str]:
    try:
        if name.endswith(".egg_link"):
            yield _text(path).splitlines()[0].strip()
        elif name.endswith(".dist_info"):
            import json
            from urllib.parse import unquote, urlsplit

            stated = json.loads(_text(os.path.join(path, "direct_url.json")))
            if stated.get("dir_info", {}).get("editable"):
                yield unquote(urlsplit(stated["url"]).path)
    except (OSError, ValueError, IndexError, KeyError, AttributeError, TypeError):
        return  # what cannot be read names no place


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


# --- the files of a tree -------------------------------------------------------------------------


def files_of(tree: Tree) -> tuple[list[SourceFile], list[Problem]]:
    """List the Python files of a tree, by path.

    Directories whose names begin with ``_`` or ``.`` are private, as for the old server. A link
    to a directory outside of the tree can be a category, but nothing further down is followed out.
    """
    lister = _Lister(tree)
    lister.directory(tree.path, "", ())
    lister.files.sort(key=lambda file: file.path)
    return lister.files, lister.problems


class _Lister:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._place = os.path.realpath(tree.path)
        self._directories = 0
        self._full = False
        self.files: list[SourceFile] = []
        self.problems: list[Problem] = []

    def _problem(self, path: str, message: str) -> None:
        self.problems.append(Problem(self._tree.name, path, message))

    def directory(self, path: str, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        self._directories += 1
        if self._directories > _MOST_DIRECTORIES:
            if self._directories == _MOST_DIRECTORIES + 1:
                most = f"{_MOST_DIRECTORIES} directories"
                self._problem("", f"It holds more than {most}; the rest is left out.")
            return
        try:
            status = os.stat(path)
            place = (status.st_dev, status.st_ino)
            if place in above:
                self._problem(prefix.rstrip("/"), "It is a link to a directory that it is in.")
                return
            if len(above) > _DEEPEST:
                self._problem(
                    prefix.rstrip("/"), f"It is more than {_DEEPEST} directories deep in the tree."
                )
                return
            with os.scandir(path) as scanned:
                entries = list(scanned)
        except OSError as exc:
            self._problem(prefix.rstrip("/"), f"It cannot be listed: {exc.strerror or exc}.")
            return
        for entry in sorted(entries, key=lambda entry: entry.name):
            self._entry(entry, prefix, (*above, place))

    def _entry(
        self, entry: os.DirEntry[str], prefix: str, above: tuple[tuple[int, int], ...]
    ) -> None:
        name = entry.name
        path = f"{prefix}{name}"
        if name.endswith(".py"):
            self._file(entry, path)
        elif name[0] not in "_." and _is_directory(entry):
            if entry.is_symlink() and self._leads_astray(os.path.realpath(entry.path), prefix):
                self._problem(
                    path, "It is a link out of the tree; mount what it leads to by itself."
                )
                return
            self.directory(entry.path, f"{path}/", above)

    def _leads_astray(self, place: str, prefix: str) -> bool:
        """Whether a link leads to what holds the tree, or out of it from within a category."""
        own, other = os.path.join(self._place, ""), os.path.join(place, "")
        return (own != other and own.startswith(other)) or (
            bool(prefix) and not other.startswith(own)
        )

    def _file(self, entry: os.DirEntry[str], path: str) -> None:
        try:
            path.encode()
        except UnicodeEncodeError:
            self._problem(ascii(path), "Its name is no valid text: rename it.")
            return
        try:
            if not entry.is_file():
                if not entry.is_dir():
                    self._problem(path, "It is no regular file, or a link that leads nowhere.")
                return
            status = entry.stat()
        except OSError as exc:
            self._problem(path, f"It cannot be read: {exc.strerror or exc}.")
            return
        if len(self.files) >= _MOST_FILES:
            if not self._full:
                self._full = True
                self._problem("", f"It holds more than {_MOST_FILES} files; the rest is left out.")
            return
        self.files.append(SourceFile(path, entry.path, status.st_size, status.st_mtime_ns))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
