"""The name under which a file of a tree is imported.

A module's neighbours import each other, relatively or by the full name of their package. Both must
lead to the same module, or what the neighbours share is there twice; so a file is imported under
the name by which its neighbours know their package, whatever the directories are called now.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..opening import never_waiting

#: Where the tools of the old server are in its package. A copy of that directory alone still
#: imports its helpers by this name.
OLD_TOOLS = "ipfs_datasets_py.mcp_server.tools"

#: An import by full name, also within a function.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([A-Za-z_][\w.]*)[ \t]+import\b|import[ \t]+([A-Za-z_][\w.]*))", re.M
)
#: Bytes of a file in which imports are looked for.
_READ = 1 << 16
#: Directories above the one that the scan takes for the package that may be the package.
_ABOVE = 3


@dataclass(frozen=True)
class Home:
    """Where a module belongs.

    :ivar module: the dotted name it is imported under.
    :ivar package: the dotted name of a package that it is in.
    :ivar directory: the directory of that package.
    """

    module: str
    package: str
    directory: Path


def home_of(entry: str, source: Path) -> Home:
    """Find out where a file belongs.

    :param entry: the dotted name that the scan has given it: the parts after the first stand for
        the directories on the way to the file, whose names need not be identifiers.
    :param source: the file.
    """
    own = source.parent if source.name == "__init__.py" else source.with_suffix("")
    parts = entry.split(".")
    directory = own.parents[len(parts) - 2] if len(parts) > 1 else own
    package, directory = _known_as(source, directory) or (parts[0], directory)
    below = own.relative_to(directory).parts
    return Home(".".join((package, *below)), package, directory)


#: The directories of the packages that trees have in this process, by dotted name; ``None`` for one
#: that only holds another.
places: dict[str, Path | None] = {}

#: What has been found out, by the directory that the scan takes for the package.
_known: dict[Path, tuple[str, Path] | None] = {}


def _known_as(source: Path, directory: Path) -> tuple[str, Path] | None:
    """Return the name by which the files around one know their package, and its directory."""
    if directory not in _known:
        _known[directory] = next(_candidates(source, directory), None)
    return _known[directory]


def _candidates(source: Path, directory: Path) -> Iterator[tuple[str, Path]]:
    bases = [d for d in source.parents if d == directory or directory in d.parents]
    bases += list(directory.parents)[:_ABOVE]
    for name in _imports(_files(source)):
        top, *below = name.split(".")
        if top in sys.stdlib_module_names:
            continue
        for base in bases:
            # Two directories of these very names are no coincidence; one might be.
            if len(below) > 1 and _is_module(base.joinpath(*below)) and _is_free(top, base):
                yield top, base
        if name.startswith(f"{OLD_TOOLS}."):
            rest = name[len(OLD_TOOLS) + 1 :].split(".")
            for base in bases:
                if _is_module(base.joinpath(*rest)) and _is_free(top, base):
                    yield OLD_TOOLS, base


def _files(source: Path) -> list[Path]:
    """Return the files around one, in an order that does not depend on which one it is."""
    tree = source.parent.parent
    return sorted({*tree.glob("*.py"), *tree.glob("*/*.py"), source})


def _imports(files: Iterable[Path]) -> Iterator[str]:
    """Return the dotted names that files import."""
    for file in files:
        try:
            with open(file, "rb", opener=never_waiting) as content:
                text = content.read(_READ).decode(errors="replace")
        except OSError:  # it was removed, or is nobody's to read
            continue
        for match in _IMPORT.finditer(text):
            name = match[1] or match[2]
            if "." in name:
                yield name


def _is_module(path: Path) -> bool:
    return path.is_dir() or path.with_name(f"{path.name}.py").is_file()


def _is_free(top: str, base: Path) -> bool:
    """Whether a name leads nowhere, or into a tree, for whoever imports it now."""
    if top in places:
        return True  # should it be another tree, then that is for whoever opens the package to say
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    found = () if spec is None else spec.submodule_search_locations or ()
    return spec is None or any(Path(place) in (base, *base.parents) for place in found)
