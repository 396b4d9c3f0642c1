"""How fast an existing tree of tools is found, and what it costs to serve it.

    .venv/bin/python benchmarks/legacy.py --checkout ~/checkout
    .venv/bin/python benchmarks/legacy.py --checkout ~/checkout --rounds 15 --json legacy.json
    .venv/bin/python benchmarks/legacy.py --quick

A checkout is a directory that holds ``ipfs_datasets_py/mcp_server``. Its own manager, in an
environment of its own, finds out how many tools each category has; ours scans the same files, with
nothing in its cache and with everything in it. Every round starts a fresh process of each kind, one
after the other, then servers that list the whole tree and none of it, then a process that calls one
tool both directly and through ``tools_dispatch``. Without a checkout the tree is the one that the
tests plant, and the old manager is left out. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.client import Client
from harness.contestants import BENCHMARKS, console_script, environment
from harness.figures import Aim, Figure, aims_table, table
from harness.legacy import OLD, OURS, TREE, measured, old_environment, old_python
from harness.machine import described, machine, versions
from harness.options import progress
from harness.processes import memory
from mcpd_legacy_tools.testing import plant

#: What is measured in the rounds, and how it is shown.
LABELS = {
    "nothing": "python -c pass",
    "old": "the old manager, full discovery",
    "cold": "mcpd: scan, nothing in the cache",
    "warm": "mcpd: scan, everything in the cache",
}
COLUMNS = {
    "imports": "imports, ms",
    "search": "search, ms",
    "both": "both, ms",
    "processor": "processor time, ms",
    "process": "whole process, ms",
}
#: The tool that is called; every planted tree has it.
TOOL, CATEGORY = "note_000", "admin_tools"

#: Samples by what was measured and its quantity.
Samples = dict[str, dict[str, list[float]]]
Results = dict[str, dict[str, Figure]]


@dataclass(frozen=True)
class Field:
    """What a run measures on.

    :ivar folder: for everything that is written.
    :ivar tree: the tree that is scanned and served.
    :ivar checkout: where the old manager of that tree is; ``None`` when there is none.
    :ivar old: the interpreter that runs it; ``None`` when there is none.
    :ivar planted: a tree that the tests plant, for calls.
    :ivar env: the environment of processes.
    """

    folder: Path
    tree: Path
    checkout: Path | None
    old: str | None
    planted: Path
    env: Mapping[str, str]

    @property
    def cache(self) -> Path:
        return self.folder / "scan-cache"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and print it."""
    options = _options(argv)
    facts: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(sys.executable, ["mcpd-core", "mcpd-legacy-tools", "mcp"]),
    }
    print(f"machine: {described(facts['machine'])}")
    print(f"versions: {described(facts['versions'])}")
    old = None
    if options.checkout is None:
        print("skipped: the old manager, for which --checkout names a checkout.")
    else:
        old = old_python(install=not options.quick)
    if old is not None:
        facts["old"] = versions(old, ["mcp", "anyio", "pydantic", "numpy"])
        print(f"beside it: {described(facts['old'])}")
    with TemporaryDirectory(prefix="mcpd-bench-") as name:
        field = _field(Path(name), options.checkout, old)
        samples: Samples = {}
        # A round before the first only fills caches: compiled bytecode, the kernel's pages.
        for number in range(1 if options.quick else 0, options.rounds + 1):
            for measure, found in _round(field, options.calls):
                progress(f"round {number} of {options.rounds}: {measure}")
                if number:
                    for quantity, value in found.items():
                        samples.setdefault(measure, {}).setdefault(quantity, []).append(value)
        progress("")
    results = {
        measure: {quantity: Figure(tuple(values)) for quantity, values in own.items()}
        for measure, own in samples.items()
    }
    _report(results, options.rounds)
    if options.json is not None:
        options.json.write_text(json.dumps({**facts, "measured": samples}, indent=1) + "\n")
    return 0


def _field(folder: Path, checkout: Path | None, old: str | None) -> Field:
    planted = plant(folder / "planted").path
    tree = planted if checkout is None else checkout / TREE
    return Field(folder, tree, checkout, old, planted, environment(folder))


# --- measuring ------------------------------------------------------------------------------------


def _round(field: Field, calls: int) -> Iterator[tuple[str, dict[str, float]]]:
    yield "nothing", _run(field, [sys.executable, "-c", "print('{}')"])
    if field.old is not None:
        env = old_environment(field.env, field.folder)
        yield "old", _run(field, [field.old, "-c", OLD, str(field.checkout)], env)
    field.cache.unlink(missing_ok=True)
    scan = [sys.executable, "-c", OURS, str(field.tree), str(field.cache)]
    yield "cold", _run(field, scan)
    yield "warm", _run(field, scan)
    yield "memory", _memory(field)
    config = _config(field, "calls", [field.planted])
    dispatching = [sys.executable, "-m", "harness.dispatching", str(config), TOOL, CATEGORY]
    yield "calls", measured([*dispatching, str(calls)], field.env, BENCHMARKS)


def _run(
    field: Field, command: Sequence[str], env: Mapping[str, str] | None = None
) -> dict[str, float]:
    found = measured(command, env or field.env, field.folder)
    counts = {"tools": found.pop("tools")} if "tools" in found else {}
    return counts | {quantity: seconds * 1e3 for quantity, seconds in found.items()}


def _memory(field: Field) -> dict[str, float]:
    """Compare a fresh server that lists the tree with one that has the plugin and no tree."""
    rss, tools = {}, {}
    for which, paths in (("none", []), ("all", [field.tree])):
        config = _config(field, which, paths)
        command = (*console_script(sys.executable), "serve", "--transport", "stdio")
        command += ("--standalone", "--plugins", "legacy_tools", "--config", str(config))
        command += ("--data-dir", str(field.folder / f"data-{which}"))
        client = Client(command, era="handshake", env=field.env, cwd=str(field.folder))
        try:
            client.say_hello()
            client.hear_hello()
            tools[which] = len(client.list_tools()[0])
            rss[which] = memory([client.pid]).rss
        finally:
            client.close()
    return {
        "listed": tools["all"] - tools["none"],
        "RSS, none": rss["none"],
        "RSS, all": rss["all"],
        "added": rss["all"] - rss["none"],
    }


def _config(field: Field, name: str, paths: Sequence[Path]) -> Path:
    """Write the settings of a server; its scan is cached in a file of its own."""
    config = field.folder / f"{name}.toml"
    listed = ", ".join(json.dumps(str(path)) for path in paths)
    cache = json.dumps(str(field.folder / f"cache-{name}"))
    config.write_text(f"[legacy_tools]\npaths = [{listed}]\ninstalled = false\ncache = {cache}\n")
    return config


# --- reporting ------------------------------------------------------------------------------------


def _report(results: Results, rounds: int) -> None:
    print(f"\n## Finding the tools, {rounds} rounds\n")
    rows = []
    for key, label in LABELS.items():
        if key in results:
            own = results[key]
            tools = f"{own['tools'].median:.0f}" if "tools" in own else ""
            rows.append([label, tools, *(str(own.get(column, "")) for column in COLUMNS)])
    print(table(["process", "tools", *COLUMNS.values()], rows) + "\n")
    memory_found, calls = results["memory"], results["calls"]
    rows = [
        ["RSS of a server that lists none, MiB", str(memory_found["RSS, none"])],
        [f"that lists {memory_found['listed'].median:.0f} more", str(memory_found["RSS, all"])],
        ["more by, MiB", str(memory_found["added"])],
        ["a call, ms", str(calls["direct"])],
        ["through tools_dispatch, ms", str(calls["dispatched"])],
        ["more by, ms", str(calls["added"])],
    ]
    print(table(["serving them", ""], rows) + "\n")
    print(aims_table(_aims(results)))
    sys.stdout.flush()


def _aims(results: Results) -> list[Aim]:
    def over_old(key: str, quantity: str) -> Figure | None:
        if "old" not in results:
            return None
        return results[key][quantity].over(results["old"][quantity])

    same = "the same in processor time"
    return [
        Aim("cold scan over the old manager's full discovery", over_old("cold", "both"), 1 / 3),
        Aim(same, over_old("cold", "processor"), 1 / 3),
        Aim("warm scan over the old manager's full discovery", over_old("warm", "both"), 1 / 30),
        Aim(same, over_old("warm", "processor"), 1 / 30),
        Aim("warm scan, ms", results["warm"]["both"], 100),
        Aim("memory of a server for listing all, MiB", results["memory"]["added"], 10),
        Aim("what tools_dispatch adds to a call, ms", results["calls"]["added"], 0.3),
    ]


# --- the command line -----------------------------------------------------------------------------


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkout", type=Path, metavar="DIR", help="holds ipfs_datasets_py/mcp_server")
    add("--rounds", type=int, help="rounds that count; one more comes first (default: 9)")
    add("--calls", type=int, help="calls of each kind per round (default: 2000)")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--quick", action="store_true", help="one round of few calls, to see that it works")
    options = parser.parse_args(argv)
    defaults = {"rounds": 1, "calls": 50} if options.quick else {"rounds": 9, "calls": 2000}
    for key, value in defaults.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if options.checkout is not None:
        options.checkout = options.checkout.resolve()
        if not (options.checkout / TREE).is_dir():
            parser.error(f"{options.checkout} holds no {TREE}")
    return options


if __name__ == "__main__":
    # What was started is stopped and removed, whichever way this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
