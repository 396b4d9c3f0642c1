"""How fast a client is answered: mcpd beside a bare SDK server and FastMCP.

    .venv/bin/python benchmarks/serving.py
    .venv/bin/python benchmarks/serving.py --tools 370 --rounds 9 --era modern --json serving.json
    .venv/bin/python benchmarks/serving.py --quick

Every round runs every contestant once, one after the other, so that whatever else the machine does
meets all of them alike. Figures are medians over the rounds with the quartiles in brackets; ratios
are taken within each round. Needs Linux, for what it tells about processes.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.client import Client, Era
from harness.contestants import (
    BASE,
    LABELS,
    Contestant,
    contestants,
    fastmcp_python,
)
from harness.figures import Aim, Figure, aims_table, table
from harness.machine import described, machine, versions
from harness.options import eras, keys_of, numbers, progress
from harness.processes import memory, processor_time
from harness.toolset import ARGUMENTS, name

#: Figures of one contestant by quantity. Times are in milliseconds, rates in calls per second,
#: memory in MiB.
Results = dict[str, Figure]

START = {
    "initialize": "spawn to initialize, ms",
    "cpu": "processor time for it, ms",
    "listed": "spawn to tools/list, ms",
    "list": "tools/list, ms",
    "rss": "RSS, MiB",
    "pss": "PSS, MiB",
}
CALLS = {"p50": "call p50, ms", "p99": "call p99, ms"}

_WARM_UP = 20
_LISTINGS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and print it."""
    options = _options(argv)
    facts = {
        "machine": machine(),
        "versions": versions(options.python, ["mcp", "mcpd-core", "uvloop"]),
    }
    print(f"machine: {described(facts['machine'])}")
    print(f"versions: {described(facts['versions'])}")
    keys = list(options.only or LABELS)
    fastmcp = fastmcp_python(install=not options.quick) if "fastmcp" in keys else None
    if fastmcp is not None:
        facts["fastmcp"] = versions(fastmcp, ["fastmcp", "mcp"])
        print(f"beside it: {described(facts['fastmcp'])}")
    runs = []
    for era in options.era:
        for count in options.tools:
            with contestants(keys, tools=count, python=options.python, fastmcp=fastmcp) as field:
                results = _rounds(field, era, count, options)
                crowds = _crowds(field, era, options) if count == options.crowd_tools else {}
            _report(era, count, results, crowds, options)
            runs.append(_as_json(era, count, results, crowds))
    if options.json is not None:
        options.json.write_text(json.dumps({**facts, "runs": runs}, indent=1) + "\n")
    return 0


# --- measuring ------------------------------------------------------------------------------------


def _rounds(
    field: Sequence[Contestant], era: Era, tools: int, options: argparse.Namespace
) -> dict[str, Results]:
    samples: dict[str, dict[str, list[float]]] = {one.key: {} for one in field}
    # The first round only fills caches: compiled bytecode, the kernel's pages.
    for number in range(options.rounds + 1):
        progress(f"{era}, {tools} tools: round {number} of {options.rounds}")
        for one in field:
            calls, total = (options.calls, options.total) if number else (1, 1)
            measured = _measure(one, era, tools, calls, total, options.concurrency)
            if number:
                for quantity, value in measured.items():
                    samples[one.key].setdefault(quantity, []).append(value)
    progress("")
    return {
        key: {quantity: Figure(tuple(values)) for quantity, values in found.items()}
        for key, found in samples.items()
    }


def _measure(
    one: Contestant, era: Era, tools: int, calls: int, total: int, concurrency: Sequence[int]
) -> dict[str, float]:
    client = Client(one.command, era=era, env=one.env, cwd=one.cwd)
    try:
        client.say_hello()
        found = {"initialize": client.hear_hello() * 1e3}
        if not one.start_only:  # whose daemon goes on with something else
            found["cpu"] = processor_time(client.pid) * 1e3
        listed, seconds = client.list_tools()
        found["listed"] = found["initialize"] + seconds * 1e3
        names = {tool["name"] for tool in listed}
        if not names.issuperset(map(name, range(tools))):
            raise RuntimeError(f"{one.key} offers {len(names)} tools and not all of the {tools}")
        if one.start_only:
            return found
        found["list"] = median(client.list_tools()[1] for _ in range(_LISTINGS)) * 1e3
        last = name(tools - 1)
        for _ in range(_WARM_UP):
            client.call(last, ARGUMENTS)
        quantiles = client.latencies(last, ARGUMENTS, calls)
        found |= {key: seconds * 1e3 for key, seconds in quantiles.items()}
        for level in concurrency:
            found[f"rate_{level}"] = client.throughput(last, ARGUMENTS, total, level)
        found["rss"], found["pss"] = memory([client.pid])
        if one.daemon is not None:
            found["daemon_rss"], found["daemon_pss"] = memory([one.daemon])
    finally:
        client.close()
        one.settle()
    return found


def _crowds(
    field: Sequence[Contestant], era: Era, options: argparse.Namespace
) -> dict[str, Results]:
    """Start many clients of each kind at once and see what all of them take together."""
    found = {}
    for one in field:
        if options.crowd and one.key in options.crowd_of:
            progress(f"{options.crowd} clients of {one.key}")
            found[one.key] = _crowd(one, era, options.crowd)
    progress("")
    return found


def _crowd(one: Contestant, era: Era, size: int) -> Results:
    clients: list[Client] = []
    try:
        begun = time.perf_counter()
        for _ in range(size):
            clients.append(Client(one.command, era=era, env=one.env, cwd=one.cwd))
            clients[-1].say_hello()
        for client in clients:
            client.hear_hello()
            client.list_tools()
        seconds = time.perf_counter() - begun
        for client in clients:
            client.call(name(0), ARGUMENTS)
        shared = [] if one.daemon is None else [one.daemon]
        rss, pss = memory([*(client.pid for client in clients), *shared])
    finally:
        for client in clients:
            client.close()
        one.settle()
    return {
        "seconds": Figure((seconds,)),
        "rss": Figure((rss,)),
        "pss": Figure((pss,)),
    }


# --- reporting ------------------------------------------------------------------------------------


def _report(
    era: Era,
    tools: int,
    results: Mapping[str, Results],
    crowds: Mapping[str, Results],
    options: argparse.Namespace,
) -> None:
    rates = {f"rate_{level}": f"calls/s at {level}" for level in options.concurrency}
    print(f"\n## {tools} tools, {era} era, {options.rounds} rounds\n")
    for columns in (START, {**CALLS, **rates}):
        print(_figures(results, columns) + "\n")
    for found in results.values():
        if "daemon_pss" in found:
            print(
                f"The daemon itself: {found['daemon_rss']} MiB RSS, "
                f"{found['daemon_pss']} MiB PSS.\n"
            )
            break
    if BASE in results:
        print(f"Times those of {LABELS[BASE]}, within each round:\n")
        ratios = {key: _ratios(found, results[BASE]) for key, found in results.items()}
        del ratios[BASE]
        print(_figures(ratios, {**START, **CALLS, **rates}, plain=True) + "\n")
    if crowds:
        head = {"seconds": "until all have listed, s", "rss": "RSS, MiB", "pss": "PSS, MiB"}
        print(f"{options.crowd} clients at once, with the daemon where there is one:\n")
        print(_figures(crowds, head) + "\n")
    if BASE in results:
        print(aims_table(_aims(results, crowds, options.crowd)))
    sys.stdout.flush()


def _figures(
    results: Mapping[str, Results], columns: Mapping[str, str], *, plain: bool = False
) -> str:
    # Columns that nobody has a figure for are left out, and so are empty rows.
    used = {key: head for key, head in columns.items() if any(key in f for f in results.values())}
    rows = [
        [LABELS[contestant], *(str(found.get(key, "")) for key in used)]
        for contestant, found in results.items()
        if not used.keys().isdisjoint(found)
    ]
    heads = [head.partition(",")[0] if plain else head for head in used.values()]
    return table(["server", *heads], rows)


def _ratios(own: Results, base: Results) -> Results:
    return {key: figure.over(base[key]) for key, figure in own.items() if key in base}


def _aims(results: Mapping[str, Results], crowds: Mapping[str, Results], crowd: int) -> list[Aim]:
    def ratio(where: Mapping[str, Results], above: str, below: str, quantity: str) -> Figure | None:
        top = where.get(above, {}).get(quantity)
        bottom = where.get(below, {}).get(quantity)
        return None if top is None or bottom is None else top.over(bottom)

    sooner = "attach to a warm daemon is answered so many times sooner"
    aims = [
        Aim(
            "--standalone is ready as soon as a bare SDK server",
            ratio(results, "standalone", BASE, "initialize"),
            1.15,
        ),
        Aim(
            "--standalone with every installed plugin",
            ratio(results, "standalone-all", BASE, "initialize"),
            1.15,
        ),
        Aim(
            "the same in processor time",
            ratio(results, "standalone-all", BASE, "cpu"),
            1.15,
        ),
        Aim(sooner, ratio(results, BASE, "attach", "initialize"), 30, at_least=True),
        Aim(
            f"{sooner} (python -I -S)",
            ratio(results, BASE, "attach-lean", "initialize"),
            30,
            at_least=True,
        ),
        Aim("call p50 through attach", ratio(results, "attach", BASE, "p50"), 0.5),
        Aim(
            "calls/s at 16 through attach",
            ratio(results, "attach", BASE, "rate_16"),
            4,
            at_least=True,
        ),
        Aim(
            f"memory (PSS) of {crowd} SDK servers over {crowd} attached clients with their daemon",
            ratio(crowds, BASE, "attach", "pss"),
            8,
            at_least=True,
        ),
    ]
    return [aim for aim in aims if aim.figure is not None]


def _as_json(
    era: Era, tools: int, results: Mapping[str, Results], crowds: Mapping[str, Results]
) -> dict[str, Any]:
    def plain(found: Mapping[str, Results]) -> dict[str, dict[str, list[float]]]:
        return {
            contestant: {key: [round(s, 4) for s in figure.samples] for key, figure in own.items()}
            for contestant, own in found.items()
        }

    return {"era": era, "tools": tools, "contestants": plain(results), "crowd": plain(crowds)}


# --- the command line -----------------------------------------------------------------------------


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, help="rounds that count; one more comes first (default: 7)")
    add("--tools", type=numbers, help="how many tools to offer (default: 1,370,5000)")
    add("--era", type=eras, default=["handshake"], help="handshake, modern, or both")
    add("--calls", type=int, help="calls in a row per round, for p50 and p99 (default: 500)")
    add("--total", type=int, help="calls per round and level of concurrency (default: 2000)")
    add("--concurrency", type=numbers, default=[1, 16, 100], help="(default: 1,16,100)")
    add("--crowd", type=int, help="clients whose memory is added up (default: 50; 0 for none)")
    add("--crowd-tools", type=int, help="tools that these are offered (default: 370)")
    add(
        "--crowd-of", type=keys_of(LABELS), default=["sdk", "attach", "attach-lean"], metavar="KEYS"
    )
    add("--only", type=keys_of(LABELS), metavar="KEYS", help=f"contestants, of {', '.join(LABELS)}")
    add("--python", default=sys.executable, help="the interpreter that has mcpd and the SDK")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--quick", action="store_true", help="few rounds of few calls, to see that it works")
    options = parser.parse_args(argv)
    defaults: dict[str, Any] = (
        {"rounds": 2, "tools": [1], "calls": 20, "total": 100, "crowd": 0}
        if options.quick
        else {"rounds": 7, "tools": [1, 370, 5000], "calls": 500, "total": 2000, "crowd": 50}
    )
    for key, value in defaults.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if options.crowd_tools is None:
        options.crowd_tools = 370 if 370 in options.tools else options.tools[0]
    return options


if __name__ == "__main__":
    # What was started is stopped and removed, whichever way this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
