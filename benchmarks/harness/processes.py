"""How much memory and processor time processes take, with everything that they started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Memory in MiB.

    :ivar rss: pages that are in memory, shared ones counted for every process.
    :ivar pss: the same with each shared page divided among the processes that share it, so that
        the sum over processes is what they take together.
    """

    rss: float
    pss: float


def tree(pid: int) -> set[int]:
    """Return a process and its descendants."""
    found: set[int] = set()
    ahead = [pid]
    while ahead:
        process = ahead.pop()
        found.add(process)
        try:
            for task in os.listdir(f"/proc/{process}/task"):
                children = Path(f"/proc/{process}/task/{task}/children").read_text()
                ahead += [int(child) for child in children.split() if int(child) not in found]
        except OSError:
            continue  # it has ended meanwhile
    return found


def memory(roots: Iterable[int], *, without: Iterable[int] = ()) -> Memory:
    """Measure processes and their descendants.

    :param without: roots of trees that are not counted.
    """
    counted = {pid for root in roots for pid in tree(root)}
    counted -= {pid for root in without for pid in tree(root)}
    rss = pss = 0
    for pid in counted:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended meanwhile
        sizes = dict(line.split(":", 1) for line in lines[1:])
        rss += _kib(sizes["Rss"])
        pss += _kib(sizes["Pss"])
    return Memory(rss / 1024, pss / 1024)


def processor_time(root: int) -> float:
    """Return the seconds for which a process and its descendants have been running on a core.

    Unlike the time that passes, it hardly depends on what else the machine is doing.
    """
    nanoseconds = 0
    for pid in tree(root):
        try:
            threads = list(Path(f"/proc/{pid}/task").iterdir())
            nanoseconds += sum(
                int((thread / "schedstat").read_text().split()[0]) for thread in threads
            )
        except OSError:
            continue  # it has ended meanwhile
    return nanoseconds / 1e9


def _kib(text: str) -> int:
    return int(text.split()[0])
