"""What a run was measured on and with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

_VERSIONS = """\
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def versions(python: str, distributions: Sequence[str]) -> dict[str, str]:
    """Ask an interpreter for its version and for those of distributions installed with it."""
    done = subprocess.run(
        [python, "-c", _VERSIONS, *distributions],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def machine() -> dict[str, str]:
    """Describe the machine: its shape, and how busy it was before the run."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def described(facts: dict[str, str]) -> str:
    """Put facts on one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _first(file: str, key: str) -> str:
    for line in Path(file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return " ".join(value.split())
    return ""
