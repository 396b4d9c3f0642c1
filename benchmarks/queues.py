"""How fast the task queue is, beside raw SQLite and the queues of others.

    .venv/bin/python benchmarks/queues.py
    .venv/bin/python benchmarks/queues.py --only mcpd,raw,huey --rounds 15 --json queues.json
    .venv/bin/python benchmarks/queues.py --quick

Every round has every queue do each thing once, one after the other, each time in a process of its
own and in an empty place. Tasks do nothing. Figures are medians over the rounds with the quartiles
in brackets; ratios are taken within each round. What needs a server gets one of its own for the
run. (Called ``queues``, because a ``queue.py`` would stand in for the standard library's.)
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.figures import Aim, Figure, aims_table, table
from harness.machine import described, machine, versions
from harness.options import keys_of, progress
from harness.queues.field import ALL, KINDS, Entrant, entrants

#: Figures by quantity: rates are in tasks per second, times in milliseconds.
Results = dict[str, Figure]

#: Tasks that wait where a claim is measured in a crowd.
CROWD = 200_000
RATES = {
    "submit_1": "submit at 1, /s",
    "submit_64": "submit at 64, /s",
    "drain_4": "drain, 4 workers, /s",
    "drain_64": "64 workers, /s",
}
TIMES = {
    "p50": "submit to start p50, ms",
    "p99": "p99, ms",
    "import": "import, ms of processor time",
    "claim_empty": "claim, none waits, ms",
    "claim_crowd": f"{CROWD:,} wait",
}
OWN = "mcpd"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and print it."""
    options = _options(argv)
    facts: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(sys.executable, ["mcpd-core", "mcpd-task-queue", "trio", "uvloop"]),
    }
    print(f"machine: {described(facts['machine'])}")
    print(f"versions: {described(facts['versions'])}")
    with entrants(options.only or KINDS) as field:
        for one in field:
            if one.kind.requirements:
                names = [name.partition("[")[0] for name in one.kind.requirements]
                facts[one.key] = versions(one.python, names)
                print(f"{one.kind.label}: {described(facts[one.key])}", flush=True)
        samples = _rounds(field, options)
    results = {
        key: {quantity: Figure(tuple(values)) for quantity, values in found.items()}
        for key, found in samples.items()
    }
    _report(results, options.rounds)
    if options.json is not None:
        options.json.write_text(json.dumps({**facts, "queues": samples}, indent=1) + "\n")
    return 0


# --- measuring ------------------------------------------------------------------------------------


def _rounds(
    field: Sequence[Entrant], options: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    samples: dict[str, dict[str, list[float]]] = {one.key: {} for one in field}
    failed: set[str] = set()
    crowds: dict[str, dict[str, str]] = {}
    for one in field:
        if "claim" in one.kind.measures and "claim" in options.measure:
            progress(f"filling {one.key}")
            crowds[one.key] = {"claim_empty": one.place(), "claim_crowd": one.place()}
            one.run("fill", crowds[one.key]["claim_crowd"], options.crowd, 1)
    for number in range(1, options.rounds + 1):
        # One thing after the other, so that what is compared is measured within seconds.
        for what in options.measure:
            for one in field:
                if what in one.kind.measures and one.key not in failed:
                    progress(f"round {number} of {options.rounds}: {one.key}, {what}")
                    try:
                        found = (
                            _claims(one, crowds[one.key], options)
                            if what == "claim"
                            else _measure(one, what, options)
                        )
                    except (RuntimeError, subprocess.TimeoutExpired) as error:
                        # Its rounds would no longer be those of the others.
                        print(f"NOT MEASURED from round {number} on: {one.key}: {error}")
                        failed.add(one.key)
                        continue
                    for quantity, value in found.items():
                        samples[one.key].setdefault(quantity, []).append(value)
    progress("")
    return samples


def _measure(one: Entrant, what: str, options: argparse.Namespace) -> dict[str, float]:
    count = max(64, int(options.tasks * one.kind.share) // 64 * 64)
    kind, _, width = what.partition("_")
    if kind == "import":
        return one.imported()
    where = one.place()
    if kind == "start":
        return one.run("start", where, options.starts, 4)
    if kind == "drain":
        one.run("fill", where, count, 1)
    elif width == "64":
        # What shares commits is done sooner.
        count *= 4
    return {what: one.run(kind, where, count, int(width))["rate"]}


def _claims(
    one: Entrant, places: Mapping[str, str], options: argparse.Namespace
) -> dict[str, float]:
    return {
        quantity: one.run("claim", where, options.starts, 1)["p50"]
        for quantity, where in places.items()
    }


# --- reporting ------------------------------------------------------------------------------------


def _report(results: Mapping[str, Results], rounds: int) -> None:
    print(f"\n## {rounds} rounds\n")
    for columns in (RATES, TIMES):
        print(_figures(results, columns) + "\n")
    aims = [aim for aim in _aims(results) if aim.figure is not None]
    if aims:
        print(aims_table(aims))
    sys.stdout.flush()


def _figures(results: Mapping[str, Results], columns: Mapping[str, str]) -> str:
    rows = [
        [KINDS[key].label, *(str(found.get(quantity, "")) for quantity in columns)]
        for key, found in results.items()
        if not columns.keys().isdisjoint(found)
    ]
    return table(["queue", *columns.values()], rows)


def _aims(results: Mapping[str, Results]) -> Iterator[Aim]:
    def ratio(quantity: str, other: str, base: str | None = None) -> Figure | None:
        top = results.get(OWN, {}).get(quantity)
        bottom = results.get(other, {}).get(base or quantity)
        return None if top is None or bottom is None else top.over(bottom)

    def at_least(text: str, figure: Figure | None, bound: float) -> Aim:
        return Aim(text, figure, bound, at_least=True)

    one_row = "one durable submit at a time, over raw SQLite"
    yield at_least(f"{one_row}, one row like a task", ratio("submit_1", "raw"), 0.8)
    yield at_least(f"{one_row}, a task's 3 rows", ratio("submit_1", "raw-rows"), 0.8)
    crowd = "64 submitters, over one of raw SQLite"
    yield at_least(crowd, ratio("submit_64", "raw", "submit_1"), 8)
    yield at_least("drain, 4 workers, over Redis Streams", ratio("drain_4", "redis"), 0.8)
    yield at_least("drain, 4 workers, over Huey with fsync", ratio("drain_4", "huey"), 2.5)
    yield at_least("drain, 64 workers, over DBOS on PostgreSQL", ratio("drain_64", "dbos"), 15)
    normal = results.get("mcpd-normal", {})
    if "claim_crowd" in normal:
        crowded = normal["claim_crowd"].over(normal["claim_empty"])
        yield Aim(f"claim with {CROWD:,} waiting, over one with none", crowded, 2.0)
    yield Aim("submit to start p50, over Redis Streams", ratio("p50", "redis"), 1.0)
    yield Aim("submit to start p50, over Redis Streams, always", ratio("p50", "redis-always"), 1.0)
    yield Aim("import of the plugin, ms of processor time", results.get(OWN, {}).get("import"), 30)


# --- the command line -----------------------------------------------------------------------------


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, help="(default: 7)")
    add("--tasks", type=int, help="tasks of the fast queues per measurement (default: 3000)")
    add("--starts", type=int, help="tasks whose start is timed per round (default: 200)")
    add("--crowd", type=int, help=f"tasks that wait while claims are timed (default: {CROWD})")
    add("--measure", type=keys_of(ALL), default=list(ALL), help=f"of {', '.join(ALL)}")
    add("--only", type=keys_of(KINDS), metavar="KEYS", help=f"queues, of {', '.join(KINDS)}")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--quick", action="store_true", help="one round of few tasks; only what needs no server")
    options = parser.parse_args(argv)
    rounds, tasks, starts = (1, 128, 20) if options.quick else (7, 3_000, 200)
    options.rounds = options.rounds or rounds
    options.tasks = options.tasks or tasks
    options.starts = options.starts or starts
    options.crowd = options.crowd or (1_000 if options.quick else CROWD)
    if options.quick and options.only is None:
        options.only = [key for key, kind in KINDS.items() if not kind.requirements]
    return options


if __name__ == "__main__":
    # What was started is stopped and removed, whichever way this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
