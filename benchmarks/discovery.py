"""How long it takes to find out which tools are installed.

    .venv/bin/python benchmarks/discovery.py
    .venv/bin/python benchmarks/discovery.py --distributions 200 --rounds 21 --json discovery.json
    .venv/bin/python benchmarks/discovery.py --quick

Environments with 20, 200 and 1,000 distributions, of which 40 % have an ``entry_points.txt`` and 10
are plugins of 37 tools each. Every round starts a fresh process of each kind, one after the other,
in each environment. Beside our discovery run the two usual ways to look for entry points, which
find names and no tools.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.contestants import environment
from harness.figures import Aim, Figure, aims_table, table
from harness.installation import PLUGINS, SHARE, TOOLS, install
from harness.machine import described, machine, versions

#: The modules of the standard library and of others that ours import, in the order of import.
_BORROWED = """\
import sys
before = set(sys.modules)
from mcpd_core import catalog, discovery, selection
print(*(name for name in sys.modules if name not in before and not name.startswith("mcpd_core")))
"""
#: What is timed inside a process: importing what is borrowed, its own imports, its work. In
#: processor time, which is the time that passes on a machine that does nothing else. Each prints
#: how much it found first.
_OURS = """\
import sys, time
begun = time.process_time()
for name in sys.argv[1:]:
    __import__(name)
borrowed = time.process_time()
from mcpd_core import catalog, discovery, selection
imported = time.process_time()
scan = discovery.scan()
tools = catalog.Catalog(selection.select(scan, wanted=None).specs())
ended = time.process_time()
print(len(tools), borrowed - begun, imported - borrowed, ended - imported)
"""
_METADATA = """\
import time
begun = time.process_time()
from importlib.metadata import entry_points
imported = time.process_time()
found = []
for runtime in ("any", "asyncio", "trio"):
    found += entry_points(group="mcpd_core.plugins." + runtime)
ended = time.process_time()
print(len(found), 0.0, imported - begun, ended - imported)
"""
_PLUGGY = """\
import time
begun = time.process_time()
import pluggy
imported = time.process_time()
manager = pluggy.PluginManager("benchmark")
found = manager.load_setuptools_entrypoints("a group that nobody has")
ended = time.process_time()
print(found, 0.0, imported - begun, ended - imported)
"""
_NOTHING = "print(0, 0.0, 0.0, 0.0)"

#: What runs in each process: its label, the arguments of Python, and what it must have found.
PROCESSES: dict[str, tuple[str, tuple[str, ...], int]] = {
    "nothing": ("python -c pass", ("-c", _NOTHING), 0),
    "ours": ("mcpd: scan, select, catalogue", ("-c", _OURS), TOOLS),
    "command": ("mcpd tools list --json", ("-m", "mcpd_core", "tools", "list", "--json"), TOOLS),
    "metadata": ("importlib.metadata.entry_points(group=) x 3", ("-c", _METADATA), PLUGINS),
    "pluggy": ("pluggy.load_setuptools_entrypoints, empty group", ("-c", _PLUGGY), 0),
}
_COLUMNS = {
    "process": "whole process, ms",
    "borrowed": "modules of others, ms",
    "imports": "own imports, ms",
    "work": "search, ms",
    "own": "the last two, ms",
    "all": "the last three, ms",
}

Results = dict[str, dict[str, Figure]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and print it."""
    options = _options(argv)
    facts = {
        "machine": machine(),
        "versions": versions(sys.executable, ["mcpd-core", "pluggy", "click"]),
    }
    print(f"machine: {described(facts['machine'])}")
    print(f"versions: {described(facts['versions'])}")
    runs = []
    with TemporaryDirectory(prefix="mcpd-bench-") as folder:
        env = environment(Path(folder))
        pythons = {
            count: install(Path(folder) / str(count), count) for count in options.distributions
        }
        results = _rounds(pythons, env, folder, options.rounds)
    for count, found in results.items():
        _report(count, found, options.rounds)
        samples = {
            process: {key: [round(s, 4) for s in f.samples] for key, f in own.items()}
            for process, own in found.items()
        }
        runs.append({"distributions": count, "tools": TOOLS, "processes": samples})
    if options.json is not None:
        options.json.write_text(json.dumps({**facts, "runs": runs}, indent=1) + "\n")
    return 0


def _rounds(
    pythons: Mapping[int, str], env: Mapping[str, str], folder: str, rounds: int
) -> dict[int, Results]:
    samples: dict[int, dict[str, dict[str, list[float]]]] = {
        count: {process: {} for process in PROCESSES} for count in pythons
    }
    done = subprocess.run(
        [next(iter(pythons.values())), "-c", _BORROWED],
        env=env,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    borrowed = done.stdout.split()
    # The first round only fills caches: compiled bytecode, the kernel's pages.
    for number in range(rounds + 1):
        for count, python in pythons.items():
            for process in PROCESSES:
                names = borrowed if process == "ours" else []
                measured = _measure(process, python, names, env, folder)
                if number:
                    for quantity, value in measured.items():
                        samples[count][process].setdefault(quantity, []).append(value)
    return {
        count: {
            process: {key: Figure(tuple(values)) for key, values in own.items()}
            for process, own in found.items()
        }
        for count, found in samples.items()
    }


def _measure(
    process: str, python: str, more: Sequence[str], env: Mapping[str, str], folder: str
) -> dict[str, float]:
    label, arguments, expected = PROCESSES[process]
    begun = time.perf_counter()
    done = subprocess.run(
        [python, *arguments, *more],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = {"process": (time.perf_counter() - begun) * 1e3}
    if done.returncode:
        raise RuntimeError(f"{label} ended with status {done.returncode}:\n{done.stderr}")
    if process == "command":
        count = len(json.loads(done.stdout))
    else:
        shown, *seconds = done.stdout.split()
        count = int(shown)
        borrowed, imports, work = (float(value) * 1e3 for value in seconds)
        if process != "nothing":
            found |= {"imports": imports, "work": work, "own": imports + work}
            found |= {"borrowed": borrowed} if borrowed else {}
            found["all"] = borrowed + imports + work
    if count != expected:
        raise RuntimeError(f"{label} found {count} instead of {expected}:\n{done.stderr}")
    return found


def _report(count: int, results: Results, rounds: int) -> None:
    print(
        f"\n## {count} distributions, {SHARE:.0%} with entry points, "
        f"{PLUGINS} plugins with {TOOLS} tools, {rounds} rounds\n"
    )
    rows = [
        [PROCESSES[process][0], *(str(own.get(key, "")) for key in _COLUMNS)]
        for process, own in results.items()
    ]
    print(table(["process", *_COLUMNS.values()], rows) + "\n")
    ours = results["ours"]
    ratios = [
        [PROCESSES[process][0], str(ours["all"].over(results[process]["all"]))]
        for process in ("metadata", "pluggy")
    ]
    print(table(["ours, with all imports, over", "ratio"], ratios) + "\n")
    if count == 200:
        aims = [
            Aim("own time at 200 distributions, ms", ours["own"], 40),
            Aim("with the modules of others, ms", ours["all"], 40),
        ]
        print(aims_table(aims))
    sys.stdout.flush()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, help="rounds that count; one more comes first (default: 15)")
    add(
        "--distributions",
        type=lambda text: [int(part) for part in text.split(",")],
        help="sizes of the environments (default: 20,200,1000)",
    )
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--quick", action="store_true", help="two rounds in the smallest environment")
    options = parser.parse_args(argv)
    defaults: dict[str, Any] = (
        {"rounds": 2, "distributions": [20]}
        if options.quick
        else {"rounds": 15, "distributions": [20, 200, 1000]}
    )
    for key, value in defaults.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if min(options.distributions) < PLUGINS:
        parser.error(f"an environment has at least the {PLUGINS} plugins")
    return options


if __name__ == "__main__":
    # What was started is stopped and removed, whichever way this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
