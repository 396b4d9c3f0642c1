"""What the code of a tool needs and this Python does not have, found without importing anything.

`missing_for` answers for one file: which modules it cannot be imported without and which it only
uses on occasion, what it imports that its own tree lacks, and what to install, as a command.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from .closure import Closures, Home, Place, Reached, is_here, neighbour
from .distributions import distribution_of as distribution_of
from .distributions import install_line as install_line
from .distributions import is_known as is_known
from .distributions import program_of, system_package_of

__all__ = ["Missing", "distribution_of", "install_line", "missing_for"]


@dataclass(frozen=True)
class Missing:
    """What a file needs and this Python does not have.

    :ivar modules: without which it cannot be imported; dotted names, sorted.
    :ivar optional: which it only uses on occasion, inside of a function or a ``try``; sorted.
    :ivar broken: why it cannot be imported whatever is installed: sentences with file and line.
    :ivar programs: which its modules start and which are not in ``PATH``, each with the system
        package that has it, as ``tesseract (tesseract-ocr)``. It can be imported without them.
    """

    modules: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def hopeless(self) -> bool:
        """Whether importing the file is certain to fail."""
        return bool(self.modules or self.broken)

    @property
    def install(self) -> str:
        """The command that installs what is missing; empty when that is nothing pip has."""
        return install_line(self.modules)

    @property
    def reason(self) -> str:
        """Why the file cannot be imported, without what to do; empty when it can be."""
        said = list(self.broken)
        if self.modules:
            several = "modules" if len(self.modules) > 1 else "module"
            names = ", ".join(self.modules)
            said.insert(0, f"It needs the {several} {names}, missing here.")
        return " ".join(said)

    @property
    def hint(self) -> str:
        """What to do about it; empty when there is nothing to be done here."""
        steps = [self.install] if self.install else []
        apart = sorted({system_package_of(name) for name in self.modules} - {""})
        steps += [f"apt install {package}" for package in apart]
        return " and ".join(steps)

    @property
    def told(self) -> str:
        """Why the file cannot be imported and what to do, as a line; empty when it can be."""
        if not self.hint:
            return self.reason
        return f"{self.reason.rstrip('.')}: {self.hint}"


_lock = threading.Lock()
_closures: dict[Home, Closures] = {}


def missing_for(source: str, package: str, directory: str) -> Missing:
    """Find out what keeps a file from being imported.

    Nothing of the tree is imported, and of what is installed nothing is run. Only what is certain
    counts: a file that changes where modules are found is given the benefit of the doubt. The first
    question about a package may take a second, because it reads the files that the tool leads to.

    :param source: the absolute path of the file.
    :param package: the dotted name of a package that it is in, as it will be imported.
    :param directory: where that package is.
    """
    home = Home(package, directory)
    with _lock:
        closures = _closures.get(home)
        if closures is None:
            closures = _closures[home] = Closures(home)
        needed, perhaps = closures.of(source), closures.perhaps(source)
        modules, broken = _certain(needed, directory)
    optional = sorted(
        name for name in perhaps.outside if name not in needed.outside and not is_here(name)
    )
    return Missing(
        tuple(modules),
        tuple(optional),
        tuple(sorted(broken)),
        _programs([*needed.outside, *filter(is_here, perhaps.outside)]),
    )


def _certain(needed: Reached, directory: str) -> tuple[list[str], list[str]]:
    """Return which modules are missing, and what is broken, where that is beyond doubt."""
    modules, broken = [], []
    root = os.path.dirname(directory)
    if "*" in needed.stands_in:
        return [], []
    if not needed.alters_path:
        broken = [_told(place, clause, root) for place, clause in needed.broken.items()]
    for name, place in sorted(needed.outside.items()):
        if is_here(name) or name.partition(".")[0] in needed.stands_in:
            continue
        beside = neighbour(name, place.file, root)
        if beside == root or (needed.alters_path and (beside or not is_known(name))):
            continue
        if beside:
            clause = (
                f"imports {name}, which lies in {_shown(beside, root)}, where Python does not look"
            )
            broken.append(_told(place, clause, root))
        else:
            modules.append(name)
    return modules, broken


def _told(place: Place, clause: str, root: str) -> str:
    return f"{_shown(place.file, root)}:{place.line} {clause}."


def _shown(path: str, root: str) -> str:
    return os.path.relpath(path, root)


def _programs(modules: Iterable[str]) -> tuple[str, ...]:
    wanted = {found for found in map(program_of, modules) if found is not None}
    return tuple(
        f"{program} ({package})" for program, package in sorted(wanted) if not shutil.which(program)
    )
