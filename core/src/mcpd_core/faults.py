"""Damaged distributions: what is wrong with them, and which library died of it.

One unreadable ``entry_points.txt`` makes `importlib.metadata.entry_points` raise for the whole
environment, so that libraries which have nothing to do with the damaged distribution cannot be
imported any more. The traceback then names everything but the culprit; `explain_import_failure`
finds it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from .errors import DependencyBroken
from .installed import DistributionFault, Installed, find_damage, mend_by_reinstalling
from .text import error_text

__all__ = ["DistributionFault", "explain_import_failure"]

#: The modules that read distribution metadata: the standard library's and its backport.
_METADATA_READERS = ("importlib.metadata", "importlib_metadata")
#: Frames of these packages may lie below a metadata reader without being the ones to blame.
_READING_HELPERS = (*_METADATA_READERS, "codecs", "email", "pathlib", "re", "zipfile", "zipp")


def explain_import_failure(
    exc: BaseException, faults: Sequence[DistributionFault] = ()
) -> DependencyBroken | None:
    """Tell whether an import died of a damaged distribution, and of which.

    The exception and what it was raised from are searched for a traceback that ends inside the
    code that reads distribution metadata; the local variables there say which distribution was
    being read. What `discovery.scan` found wrong with it is added when it is among the faults.

    :param exc: what the import raised.
    :param faults: the damage that is known of.
    :return: an error ready to be raised ``from exc``, or ``None`` when the failure is another one.
    """
    try:
        return _explain(exc, faults)
    except Exception:  # noqa: BLE001 - anybody's exception with anybody's objects in its frames
        return None


def _explain(exc: BaseException, faults: Sequence[DistributionFault]) -> DependencyBroken | None:
    for link in _chain(exc):
        frames = _frames(link)
        reader = _reading_frame(link, frames)
        if reader is None:
            continue
        path = _path_being_read(frames)
        known = [fault for fault in faults if path is not None and fault.path == path]
        if not known and path is not None:
            known = [_look_closer(path, link)]
        # Without a path the damage was met while names were compared: all that is known is suspect.
        suspects = known or [fault for fault in faults if fault.fatal]
        if suspects:
            return _dependency_broken(_importer_of(frames, reader), suspects)
    return None


def _look_closer(path: str, exc: BaseException) -> DistributionFault:
    """Find out what is wrong with the distribution that was being read."""
    dist = Installed(path)
    try:
        damage = find_damage(dist, dist.read("entry_points.txt"))
    except OSError:
        damage = None
    if damage is not None:
        return damage
    name = dist.name or path
    problem = f"its metadata cannot be read ({error_text(exc)})"
    return DistributionFault(name, path, problem, mend_by_reinstalling(name))


def _dependency_broken(library: str, suspects: list[DistributionFault]) -> DependencyBroken:
    subject = f"{library} cannot be imported" if library else "A library cannot be imported"
    if len(suspects) == 1:
        fault = suspects[0]
        cause = f"the installed distribution {fault.distribution} is damaged: {fault.problem}"
    else:
        names = ", ".join(fault.distribution for fault in suspects)
        cause = f"one of these installed distributions is damaged: {names}"
    return DependencyBroken(
        f"{subject} because {cause} ({', '.join(fault.path for fault in suspects)}).",
        hint=" ".join(dict.fromkeys(fault.mend for fault in suspects)),
        data={"distributions": [fault.distribution for fault in suspects]},
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exception and everything it was raised from or during, each once."""
    pending: list[BaseException | None] = [exc]
    seen: set[int] = set()
    while pending:
        link = pending.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending += [link.__cause__, link.__context__]


def _frames(exc: BaseException) -> list[FrameType]:
    frames = []
    traceback = exc.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return frames


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _reading_frame(exc: BaseException, frames: list[FrameType]) -> int | None:
    """Return the index of the first metadata reader, if that is where the exception came from."""
    # Not installed is not damaged: a PackageNotFoundError is a ModuleNotFoundError, and the end of
    # the search that it is raised in.
    if isinstance(exc, (ModuleNotFoundError, StopIteration)):
        return None
    readers = [i for i, frame in enumerate(frames) if _within(_module(frame), _METADATA_READERS)]
    if not readers:
        return None
    # EntryPoint.load() imports code from within a reader: what that code raises is its own failure.
    below = frames[readers[-1] :]
    if not all(_within(_module(frame), _READING_HELPERS) for frame in below):
        return None
    first = readers[-1]
    while first - 1 in readers:
        first -= 1
    return first


def _path_being_read(frames: list[FrameType]) -> str | None:
    """Return the metadata directory that the innermost metadata reader was busy with."""
    for frame in reversed(frames):
        if not _within(_module(frame), _METADATA_READERS):
            continue
        for name in ("self", "dist"):
            value: Any = frame.f_locals.get(name)
            for candidate in (value, getattr(value, "dist", None)):
                path = getattr(candidate, "_path", None)
                if path is not None:
                    return str(path)
    return None


def _importer_of(frames: list[FrameType], reader: int) -> str:
    """Return the name of the library that was reading metadata, or an empty string."""
    for frame in reversed(frames[:reader]):
        top = _module(frame).partition(".")[0]
        if top and top != "__main__" and top not in sys.stdlib_module_names:
            return top
    return ""
