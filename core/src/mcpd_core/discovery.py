"""Which plugins are installed, found without importing any of them.

A plugin is an entry point in a group that starts with ``mcpd_core.plugins.``; the rest of the
group's name is the plugin's runtime. What it offers is in the manifest of its package. Whatever is
wrong with one plugin, or with a distribution that has nothing to do with us, becomes a record here
and disturbs nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from . import manifest
from .errors import ManifestError
from .faults import explain_import_failure
from .installed import (
    DistributionFault,
    EntryPointLine,
    Installed,
    Metadata,
    find_damage,
    find_rivals,
    installed,
    mend_by_reinstalling,
    normalise,
    parse_entry_points,
    read_metadata,
)
from .manifest import PluginManifest
from .packages import PackageNotImportable, find_in_package
from .spec import RUNTIMES, RuntimeName
from .text import error_text, one_line

__all__ = ["GROUP", "Candidate", "DistributionFault", "Scan", "explain_import_failure", "scan"]

#: What the names of our entry-point groups start with; the runtime follows.
GROUP = "mcpd_core.plugins."

_PREFILTER = GROUP.encode()
_REFERENCE = re.compile(r"([\w.]+)\s*(?::\s*([\w.]+)\s*)?(?:\[.*\]\s*)?\Z")


@dataclass(frozen=True)
class Candidate:
    """One entry point in one of our groups: a plugin that may be enabled.

    :ivar runtime: what the group declares; a known runtime unless there is a problem.
    :ivar entry: ``module`` or ``module:attribute``.
    :ivar requires_core: what its distribution asks of mcpd-core; may be empty.
    :ivar problem: why it can never be enabled as it is installed; empty when it can.
    :ivar manifest: what it offers; ``None`` when its package has no manifest, or a broken one.
    :ivar manifest_path: where the manifest is, also when it is broken.
    :ivar metadata_paths: the metadata directories of its distribution, the one that counts first.
    """

    name: str
    runtime: str
    entry: str
    distribution: str
    version: str
    requires_core: str = ""
    problem: str = ""
    manifest: PluginManifest | None = None
    manifest_path: Path | None = None
    metadata_paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scan:
    """What an environment holds.

    :ivar candidates: sorted by name and distribution.
    :ivar faults: damaged distributions, whether or not they have to do with us.
    """

    candidates: tuple[Candidate, ...]
    faults: tuple[DistributionFault, ...]


def scan(path: Sequence[str] | None = None) -> Scan:
    """Find the plugins of an environment.

    No plugin code is imported and no exception of any distribution gets out.

    :param path: the directories to search; ``None`` stands for what the interpreter can import
        from.
    """
    faults: list[DistributionFault] = []
    winners: dict[str, Installed] = {}
    offers: dict[str, bytes] = {}
    metadata_paths: dict[str, list[str]] = {}
    for dist in installed(path, faults):
        try:
            content = dist.read("entry_points.txt")
            damage = find_damage(dist, content)
        except Exception as exc:  # noqa: BLE001 - a boundary: reported as a fault
            content, damage = None, _unreadable(dist, exc)
        if damage is not None:
            faults.append(damage)
        if dist.leftover:
            continue
        found = metadata_paths.setdefault(dist.key, [])
        rivals = find_rivals(dist.path, found, dist.name) if found else None
        if rivals is not None:
            faults.append(rivals)
        found.append(dist.path)
        if dist.key not in winners:
            winners[dist.key] = dist
            if content is not None and _PREFILTER in content:
                offers[dist.key] = content
    candidates = [
        candidate
        for key, content in offers.items()
        for candidate in _candidates(
            winners[key], content, tuple(metadata_paths[key]), path, faults
        )
    ]
    candidates.sort(key=lambda candidate: (candidate.name, candidate.distribution))
    return Scan(tuple(candidates), tuple(faults))


def _unreadable(dist: Installed, exc: Exception) -> DistributionFault:
    problem = f"it cannot be read ({error_text(exc)})"
    return DistributionFault(
        dist.name or dist.path, dist.path, problem, mend_by_reinstalling(dist.name)
    )


def _candidates(
    dist: Installed,
    content: bytes,
    metadata_paths: tuple[str, ...],
    path: Sequence[str] | None,
    faults: list[DistributionFault],
) -> Iterator[Candidate]:
    try:
        metadata = read_metadata(dist)
    except OSError as exc:
        faults.append(_unreadable(dist, exc))
        metadata = Metadata(dist.name, dist.version, "")
    for line in parse_entry_points(content):
        if line.group.startswith(GROUP):
            yield _candidate(line, metadata, metadata_paths, path)


def _candidate(
    line: EntryPointLine,
    metadata: Metadata,
    metadata_paths: tuple[str, ...],
    path: Sequence[str] | None,
) -> Candidate:
    runtime = line.group[len(GROUP) :]
    problem, entry = _check_line(line, metadata.name)
    described, manifest_path = None, None
    if not problem:
        try:
            found = find_in_package(entry.partition(":")[0], manifest.FILENAME, path)
            if found is not None:
                manifest_path = Path(found)
                described = manifest.parse(
                    manifest_path.read_bytes(),
                    plugin=line.name,
                    runtime=cast(RuntimeName, runtime),
                    requires_core=metadata.requires_core,
                )
        except PackageNotImportable as exc:
            problem = f"Its code cannot be found: {exc}. {mend_by_reinstalling(metadata.name)}"
        except ManifestError as exc:
            problem = str(exc)
        except Exception as exc:  # noqa: BLE001 - a boundary: it becomes the row's reason
            problem = f"Its manifest cannot be read ({error_text(exc)})."
    return Candidate(
        name=one_line(line.name),
        runtime=one_line(runtime),
        entry=entry,
        distribution=metadata.name,
        version=metadata.version,
        requires_core=metadata.requires_core,
        problem=problem,
        manifest=described,
        manifest_path=manifest_path,
        metadata_paths=metadata_paths,
    )


def _check_line(line: EntryPointLine, distribution: str) -> tuple[str, str]:
    """Return what is wrong with an entry point, if anything, and where the plugin is."""
    runtime = line.group[len(GROUP) :]
    where = f"line {line.number} of its entry_points.txt"
    if line.value is None:
        return f"The {where} has no '='. {mend_by_reinstalling(distribution)}", ""
    if not line.name or "\ufffd" in line.name:
        return f"The {where} names no plugin. {mend_by_reinstalling(distribution)}", ""
    if one_line(line.name) != line.name:
        return f"The name {line.name!r} has characters in it that nobody can see.", ""
    matched = _REFERENCE.match(line.value)
    reference = matched[1] + (f":{matched[2]}" if matched[2] else "") if matched else ""
    parts = reference.replace(":", ".").split(".")
    if not all(part.isidentifier() for part in parts):
        return (
            f"Its entry point {line.value!r} is neither `module` nor `module:attribute`.",
            line.value,
        )
    if runtime not in RUNTIMES:
        import difflib  # only needed for this message

        close = difflib.get_close_matches(runtime, RUNTIMES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(RUNTIMES)}."
        return f"{line.group}: unknown runtime; {hint}", reference
    return "", reference


def same_name(one: str, other: str) -> bool:
    """Whether two spellings name the same plugin or distribution."""
    return normalise(one) == normalise(other)
