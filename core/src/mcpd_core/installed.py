"""The installed distributions, one at a time, so that a damaged one cannot hide the others.

Directories are listed here rather than through `importlib.metadata`: importing that module takes
several times as long as all the reading at 200 distributions. It is asked only for what is not a
plain directory: zipped eggs, and finders that somebody else put on `sys.meta_path`. The rules are
the same: the first distribution of a name wins, in the order of the path.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Any, NamedTuple

from .text import error_text, one_line

_SUFFIXES = (".dist-info", ".egg-info")
_SEPARATORS = re.compile(r"[-_.]+")
_CORE_REQUIREMENT = re.compile(r"\s*mcpd[-_.]core\b(?:\s*\[.*?\])?\s*\(?([^;)]*)", re.IGNORECASE)


@dataclass(frozen=True)
class DistributionFault:
    """One damaged distribution.

    :ivar distribution: its name as far as it can be told, else the name of its metadata directory.
    :ivar path: its metadata directory.
    :ivar problem: what is wrong with it, as a clause without full stop.
    :ivar mend: what a person can do about it, as a sentence.
    :ivar fatal: whether libraries that read the metadata of all distributions may fail because of
        it.
    """

    distribution: str
    path: str
    problem: str
    mend: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.distribution} ({self.path}): {self.problem}. {self.mend}"


class EntryPointLine(NamedTuple):
    """One line of an ``entry_points.txt``; ``value`` is ``None`` when the line has no ``=``."""

    number: int
    group: str
    name: str
    value: str | None


class Metadata(NamedTuple):
    """The core metadata that discovery needs.

    ``requires_core`` is what the distribution asks of mcpd-core, such as ``>=0.2``; it may be
    empty.
    """

    name: str
    version: str
    requires_core: str


class Installed:
    """One installed distribution, known by its metadata directory.

    :param path: the metadata directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        label = os.path.basename(path)
        if label.lower().endswith(_SUFFIXES):
            label = label.rpartition(".")[0]
        #: What the name of the directory says; either may be empty.
        self.name, _, self.version = label.partition("-")
        #: The normalised name, by which distributions are told apart.
        self.key = normalise(self.name) or path

    @property
    def leftover(self) -> bool:
        """Whether this is what pip left behind when it could not finish an uninstallation."""
        return self.name.startswith("~")

    def read(self, filename: str) -> bytes | None:
        """Return the content of a metadata file, ``None`` when there is no such file.

        :raises OSError: when the file is there and cannot be read.
        """
        try:
            with open(self.path + os.sep + filename, "rb", opener=_open_at_once) as file:
                return file.read() or b""
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has_metadata(self) -> bool:
        """Whether there is a file with the core metadata."""
        return (
            os.path.exists(self.path + os.sep + "METADATA")
            or os.path.exists(self.path + os.sep + "PKG-INFO")
            or os.path.isfile(self.path)  # distutils wrote a single .egg-info file
        )


def _open_at_once(path: str, flags: int) -> int:
    # A named pipe that nobody writes to would keep the scan waiting for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class _Foreign(Installed):
    """A distribution that only `importlib.metadata` can read, such as one in a zip file."""

    def __init__(self, distribution: Any) -> None:
        # A finder of somebody else's need not know of a path; the name then stands for it.
        path = getattr(distribution, "_path", None)
        super().__init__(str(path) if path is not None else str(distribution.metadata["Name"]))
        self._distribution = distribution

    def read(self, filename: str) -> bytes | None:
        text = self._distribution.read_text(filename)
        return None if text is None else str(text).encode()

    def has_metadata(self) -> bool:
        return True


def normalise(name: str) -> str:
    """Return the form in which two spellings of one distribution or plugin name are equal.

    The rule is that of the packaging specification for names: case and the choice between
    ``-``, ``_`` and ``.`` do not matter.
    """
    return _SEPARATORS.sub("-", name).strip("-").lower()


def installed(path: Sequence[str] | None, faults: list[DistributionFault]) -> Iterator[Installed]:
    """Yield every metadata directory on the path, nearest first, duplicates included.

    :param path: directories to search; ``None`` stands for `sys.path`.
    :param faults: receives what could not be listed.
    """
    places: Sequence[Any] = sys.path if path is None else path
    for entry in places:
        if not isinstance(entry, str):
            continue  # as the import system does with whatever else people put there
        try:
            # Sorted, so that the same environment always reads the same way.
            children = sorted(os.listdir(entry or "."))
        except (FileNotFoundError, PermissionError, ValueError):  # the last: a NUL in the name
            continue
        except OSError:  # a file: perhaps a zipped egg
            yield from _from_finder(PathFinder, [entry], faults)
            continue
        if entry.lower().endswith(".egg") and "EGG-INFO" in children:
            yield _Egg(entry)
        for child in children:
            if child.lower().endswith(_SUFFIXES):
                yield Installed(os.path.join(entry, child))
    if path is None:
        for finder in sys.meta_path:
            if hasattr(finder, "find_distributions") and not _reads_the_path(finder):
                yield from _from_finder(finder, None, faults)


class _Egg(Installed):
    """An unpacked egg: a directory on the path that holds both the code and its metadata."""

    def __init__(self, entry: str) -> None:
        super().__init__(entry[: -len(".egg")])
        self.path = os.path.join(entry, "EGG-INFO")


def _reads_the_path(finder: Any) -> bool:
    """Whether a finder lists what is on `sys.path`, which has been listed already.

    Besides the interpreter's own finder that is the one of the ``importlib_metadata`` backport and
    of its vendored copies.
    """
    return finder is PathFinder or getattr(finder, "__name__", type(finder).__name__) in (
        "PathFinder",
        "MetadataPathFinder",
    )


def _from_finder(
    finder: Any, path: list[str] | None, faults: list[DistributionFault]
) -> Iterator[Installed]:
    from importlib.metadata import DistributionFinder

    context = DistributionFinder.Context()
    if path is not None:
        vars(context)["path"] = path  # what its constructor does, which type checkers misread
    try:
        for distribution in finder.find_distributions(context):
            yield _Foreign(distribution)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - anybody's code; reported as a fault
        name = getattr(finder, "__name__", type(finder).__name__)
        problem = f"the finder {name} cannot list distributions ({error_text(exc)})"
        where = path[0] if path else name
        faults.append(DistributionFault(name, where, problem, f"Repair or remove {where}."))


def mend_by_reinstalling(name: str) -> str:
    """Say how to repair a distribution.

    :param name: of the distribution.
    """
    return f"Reinstall it: pip install --force-reinstall {name}"


def find_rivals(path: str, others: Sequence[str], name: str) -> DistributionFault | None:
    """Return the fault that a directory holds the metadata of one distribution more than once.

    Which of them tells the truth cannot be known: an installer was interrupted, or did not know of
    the other one. The same name in another directory of the path is none: there the nearer wins.

    :param path: a metadata directory.
    :param others: the metadata directories of the same name that were found before, nearest first.
    """
    place = os.path.dirname(path)
    first = next((other for other in others if os.path.dirname(other) == place), path)
    if first == path:
        return None
    return DistributionFault(
        name,
        path,
        f"{os.path.basename(first)} beside it describes the same distribution, and only that "
        "one is read",
        f"Remove both and install it again: pip uninstall -y {name} until nothing is left, then "
        f"pip install {name}",
        fatal=False,
    )


def read_metadata(dist: Installed) -> Metadata:
    """Read a distribution's name, version and requirement on mcpd-core.

    What the metadata file does not say, or all when there is none, is taken from the name of the
    directory.

    :raises OSError: when the file is there and cannot be read.
    """
    name, version, requires_core = dist.name, dist.version, ""
    content = dist.read("METADATA") or dist.read("PKG-INFO") or b""
    for line in content.decode("utf-8", "replace").splitlines():
        if not line.strip():
            break  # the description follows
        key, _, value = line.partition(":")
        if key == "Name":
            name = one_line(value.strip()) or name
        elif key == "Version":
            version = one_line(value.strip()) or version
        elif key == "Requires-Dist" and (matched := _CORE_REQUIREMENT.match(value)):
            requires_core = matched[1].strip()
    return Metadata(name, version, requires_core)


def parse_entry_points(content: bytes) -> list[EntryPointLine]:
    """Parse an ``entry_points.txt`` line by line: a bad line spoils only itself.

    Bytes that are not UTF-8 become U+FFFD, which no name and no module can contain.
    """
    lines = []
    group: str | None = None
    for number, raw in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif group is not None:
            name, equals, value = line.partition("=")
            lines.append(
                EntryPointLine(number, group, name.strip(), value.strip() if equals else None)
            )
    return lines


def find_damage(dist: Installed, content: bytes | None) -> DistributionFault | None:
    """Return what would make `importlib.metadata` fail on a distribution, if anything would.

    :param content: of its ``entry_points.txt``, ``None`` when it has none.
    """
    problem = _entry_points_damage(content) if content else ""
    if not problem and not dist.has_metadata():
        problem = "its METADATA file is missing"
    if not problem:
        return None
    if dist.leftover or not dist.name:
        mend = f"It is the remains of an installation that failed: remove {dist.path}"
    else:
        mend = mend_by_reinstalling(dist.name)
    return DistributionFault(dist.name or os.path.basename(dist.path), dist.path, problem, mend)


def _entry_points_damage(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        return f"line {line} of its entry_points.txt is not valid UTF-8"
    # Nearly every file is fine, and a quick look shows it.
    if any(map(_has_no_equals, text.splitlines())):
        for entry in parse_entry_points(content):
            if entry.value is None:
                return f"line {entry.number} of its entry_points.txt has no '=': {entry.name!r}"
    return ""


def _has_no_equals(line: str) -> bool:
    stripped = line.strip()
    return (
        "=" not in line
        and bool(stripped)
        and stripped[0] != "#"
        and not (stripped[0] == "[" and stripped[-1] == "]")
    )
