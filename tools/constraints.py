"""Write constraints.txt: the versions that a fresh resolution picks, on every Python we support.

Run by ``make constraints``. Each interpreter found resolves the workspace's requirements in a
throw-away environment without installing anything; where interpreters differ, the line gets an
environment marker.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
HEADER = """\
# The versions that were tested. Written by `make constraints`; do not edit.
# Installing with them: pip install --constraint constraints.txt mcpd-core
"""


def resolve(python: str, dists: list[str], scratch: Path) -> dict[str, str]:
    """Return the distributions that an installation of the workspace would choose, by name."""
    environment = scratch / Path(python).name
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin/python"), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], check=True)
    report = environment / "report.json"
    subprocess.run(
        [*pip, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report)]
        + ["--group", "dev", "pip"]
        + [arg for dist in dists for arg in ("-e", dist + ("[fast,trio]" * (dist == "core")))],
        check=True,
        cwd=ROOT,
    )
    chosen = {}
    for item in json.loads(report.read_text())["install"]:
        if "dir_info" not in item["download_info"]:
            name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
            chosen[name] = item["metadata"]["version"]
    return chosen


def marker(versions: list[str], resolved: list[str]) -> str:
    """Return the environment marker for the Python ``versions``, out of those that resolved."""
    if versions == resolved:
        return ""
    first, last = resolved.index(versions[0]), resolved.index(versions[-1])
    if versions != resolved[first : last + 1]:
        return " or ".join(f"python_version == '{version}'" for version in versions)
    bounds = []
    if first > 0:
        bounds.append(f"python_version >= '{versions[0]}'")
    if last < len(resolved) - 1:
        bounds.append(f"python_version < '{resolved[last + 1]}'")
    return " and ".join(bounds)


def main(dists: list[str]) -> int:
    """Resolve on every interpreter found and write the file; return the exit status."""
    pins: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    resolved = []
    with tempfile.TemporaryDirectory() as scratch:
        for version in VERSIONS:
            python = shutil.which(f"python{version}")
            if python is None:
                print(f"python{version} was not found: left out", file=sys.stderr)
                continue
            resolved.append(version)
            for name, pinned in resolve(python, dists, Path(scratch)).items():
                pins[name][pinned].append(version)
    if resolved != list(VERSIONS):
        print("error: all of these interpreters are needed:", *VERSIONS, file=sys.stderr)
        return 1
    lines = []
    for name in sorted(pins):
        for pinned, versions in pins[name].items():
            suffix = marker(versions, resolved)
            lines.append(f"{name}=={pinned}" + (f" ; {suffix}" if suffix else ""))
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")
    print(f"constraints.txt: {len(pins)} distributions on Python {', '.join(resolved)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
