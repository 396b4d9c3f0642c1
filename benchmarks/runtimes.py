"""What it costs to call from one runtime into another, and what the executor costs.

    .venv/bin/python benchmarks/runtimes.py
    .venv/bin/python benchmarks/runtimes.py --rounds 9 --json runtimes.json
    .venv/bin/python benchmarks/runtimes.py --quick

Every round starts a fresh process for each loop (asyncio and uvloop) and each group of quantities,
one after the other; in each process all means that are compared run one after the other. Needs
Python 3.11 for the standard library's task groups.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.executors import CALLERS, COUNTS, QUEUED
from harness.figures import Aim, Figure, aims_table, table
from harness.machine import described, machine, versions

HERE = Path(__file__).resolve().parent
LOOPS = ("asyncio", "uvloop")
#: Seconds that one process may take.
PATIENCE = 600

#: For each loop, quantity and means, what it came to in the rounds.
Results = dict[str, dict[str, dict[str, Figure]]]

TO_TRIO, TO_ASYNCIO, IO = "to trio, us", "to asyncio, us", "trio I/O, calls/s"
THREADS = f"def functions, {CALLERS} callers, calls/s"
ROUND_TRIP = "SimpleQueue round trip"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and print it."""
    options = _options(argv)
    facts = {
        "machine": machine(),
        "versions": versions(sys.executable, ["mcpd-core", "trio", "anyio", "uvloop"]),
    }
    print(f"machine: {described(facts['machine'])}")
    print(f"versions: {described(facts['versions'])}")
    samples: dict[str, Any] = {}
    with echo_server() as port:
        # A round before the first only fills caches.
        for number in range(1 if options.quick else 0, options.rounds + 1):
            for loop in options.loops:
                for found in _round(loop, options.calls, port):
                    if number:
                        _add(samples.setdefault(loop, {}), found)
    results: Results = {
        loop: {
            quantity: {means: Figure(tuple(values)) for means, values in by_means.items()}
            for quantity, by_means in quantities.items()
        }
        for loop, quantities in samples.items()
    }
    for loop, quantities in results.items():
        _report(loop, quantities, options.rounds)
    if options.json is not None:
        options.json.write_text(json.dumps({**facts, "loops": samples}, indent=1) + "\n")
    return 0


@contextmanager
def echo_server() -> Iterator[int]:
    """Run the server that the I/O goes to; yield its port."""
    command = [sys.executable, "-m", "harness.echo"]
    with subprocess.Popen(
        command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


def _round(loop: str, calls: int, port: int) -> Iterator[dict[str, dict[str, float]]]:
    for module, more in (("crossings", [str(port)]), ("executors", []), ("calls", [])):
        done = subprocess.run(
            [sys.executable, "-m", f"harness.{module}", loop, str(calls), *more],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"harness.{module} ended with {done.returncode}:\n{done.stderr}")
        yield json.loads(done.stdout)


def _add(samples: dict[str, Any], found: dict[str, dict[str, float]]) -> None:
    for quantity, by_means in found.items():
        for means, value in by_means.items():
            samples.setdefault(quantity, {}).setdefault(means, []).append(value)


def _report(loop: str, results: dict[str, dict[str, Figure]], rounds: int) -> None:
    print(f"\n## {loop}, {rounds} rounds\n")
    for quantity, by_means in results.items():
        rows = [[means, str(figure)] for means, figure in by_means.items()]
        print(table([quantity, "median"], rows) + "\n")
    print(aims_table(list(_aims(results))))
    sys.stdout.flush()


def _aims(results: dict[str, dict[str, Figure]]) -> Iterator[Aim]:
    to_trio = results[TO_TRIO]
    ours, round_trip = to_trio["mcpd, fused"], to_trio[ROUND_TRIP]
    yield Aim("to trio, over a round trip of two threads", ours.over(round_trip), 1.0)
    hop = to_trio["trio in a thread, a hop each way"]
    yield Aim("to trio, over a hop to a thread of its own", ours.over(hop), 0.25)
    legacy = to_trio["to_thread(trio.run)"]
    yield Aim("to_thread(trio.run), over ours", legacy.over(ours), 25, at_least=True)
    back = results[TO_ASYNCIO]["mcpd, fused"]
    yield Aim("to asyncio, over a round trip of two threads", back.over(round_trip), 0.7)
    for where in ("asyncio", "trio (fused)"):
        here = results[f"{where}, 10 us tool, us"]
        ratio = here["run_here"].over(here["a plain await"])
        yield Aim(f"same runtime, {where}: over a plain await", ratio, 1.1)
    io = results[IO]
    inside, across = (io[f"{way}, fused"].over(io["trio.run"]) for way in ("inside", "across"))
    yield Aim("trio I/O inside, over trio.run", inside, 0.95, at_least=True)
    yield Aim("trio I/O across, over trio.run", across, 0.6, at_least=True)
    crowds = {f"{count:,}": f"{count:,} calls at once, us each" for count in COUNTS}
    for crowd, quantity in {**crowds, f"{COUNTS[1]:,} that queue": QUEUED}.items():
        means = results[quantity]
        ours = means["mcpd: limit, deadline, fair turns"]
        bare = ours.over(means["asyncio.TaskGroup, bare"])
        yield Aim(f"executor, {crowd}: over a bare TaskGroup", bare, 2.0)
        anyio = means["anyio: CapacityLimiter, fail_after"].over(ours)
        yield Aim(f"executor, {crowd}: anyio's over ours", anyio, 6, at_least=True)
    threads = results[THREADS]
    ratio = threads["mcpd"].over(threads["asyncio.to_thread"])
    yield Aim("def functions: over asyncio.to_thread", ratio, 4, at_least=True)
    idle = results["idle"]
    yield Aim("start of the trio runtime, ms", idle["start of the runtime, ms"], 1.0)
    yield Aim("threads with an idle trio runtime", idle["threads, with trio"], 1.0)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, help="rounds that count; one more comes first (default: 7)")
    add("--calls", type=int, help="calls of each kind in a round (default: 3000)")
    add(
        "--loops",
        type=lambda text: text.split(","),
        default=list(LOOPS),
        help="loops of the host (default: asyncio,uvloop)",
    )
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--quick", action="store_true", help="one round of few calls")
    options = parser.parse_args(argv)
    rounds, calls = (1, 200) if options.quick else (7, 3_000)
    options.rounds = options.rounds or rounds
    options.calls = options.calls or calls
    unknown = set(options.loops) - set(LOOPS)
    if unknown:
        parser.error(f"no such loop: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    # What was started is stopped and removed, whichever way this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
