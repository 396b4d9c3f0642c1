"""How fast clients are answered over Streamable HTTP: mcpd beside the SDK and FastMCP.

    .venv/bin/python benchmarks/serving_http.py
    .venv/bin/python benchmarks/serving_http.py --tools 370 --rounds 9 --era modern --json http.json
    .venv/bin/python benchmarks/serving_http.py --quick

The servers run side by side for the whole of a run; every round asks each of them once, one after
the other. Figures are medians over the rounds with the quartiles in brackets; ratios are taken
within each round. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from harness.client import Era
from harness.contestants import BENCHMARKS, console_script, environment, fastmcp_python
from harness.figures import Aim, Figure, aims_table, table
from harness.http_client import HttpClient
from harness.machine import described, machine, versions
from harness.options import eras, keys_of, numbers, progress
from harness.toolset import ARGUMENTS, PLUGIN, install_plugin, name

Results = dict[str, Figure]

LABELS = {
    "sdk": "SDK low-level, its default app",
    "sdk-plain": "the same, without uvloop and httptools",
    "sdk-best": "SDK low-level, all its fast settings",
    "mcpserver": "SDK MCPServer, its default app",
    "fastmcp": "FastMCP, http",
    "mcpd": "mcpd serve",
    "mcpd-sse": "mcpd serve --http-stream sse",
}
BASE = "sdk"
#: Seconds that a server may take to come up.
PATIENCE = 120.0

_LISTINGS = 5
_WARM_UP = 20


@dataclass(frozen=True)
class Served:
    """A server that listens."""

    key: str
    port: int
    path: str = "/mcp"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and print it."""
    options = _options(argv)
    wanted = ["mcp", "mcpd-core", "uvicorn", "uvloop", "httptools"]
    facts = {"machine": machine(), "versions": versions(options.python, wanted)}
    print(f"machine: {described(facts['machine'])}")
    print(f"versions: {described(facts['versions'])}")
    keys = list(options.only or LABELS)
    fastmcp = fastmcp_python(install=not options.quick) if "fastmcp" in keys else None
    if fastmcp is not None:
        facts["fastmcp"] = versions(fastmcp, ["fastmcp", "mcp", "uvicorn"])
        print(f"beside it: {described(facts['fastmcp'])}")
    runs = []
    for count in options.tools:
        with servers(keys, tools=count, python=options.python, fastmcp=fastmcp) as field:
            for era in options.era:
                results = _rounds(field, era, count, options)
                _report(era, count, results, options)
                runs.append(
                    {
                        "era": era,
                        "tools": count,
                        "contestants": {
                            key: {name: list(figure.samples) for name, figure in found.items()}
                            for key, found in results.items()
                        },
                    }
                )
    if options.json is not None:
        options.json.write_text(json.dumps({**facts, "runs": runs}, indent=1) + "\n")
    return 0


@contextmanager
def servers(
    keys: Sequence[str], *, tools: int, python: str, fastmcp: str | None
) -> Iterator[list[Served]]:
    """Run the servers for as long as the block does."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="mcpd-bench-")))
        install_plugin(folder / "site", tools)
        env = environment(folder)
        ours = {**env, "PYTHONPATH": str(folder / "site")}
        script = str(BENCHMARKS / "http_servers.py")
        count = ("--tools", str(tools))
        mcpd = (*console_script(python), "serve", "--plugins", PLUGIN, "--data-dir")
        commands: dict[str, tuple[str, ...]] = {
            "sdk": (python, script, "sdk", *count),
            "sdk-plain": (python, script, "sdk", "--plain", *count),
            "sdk-best": (python, script, "sdk-best", *count),
            "mcpserver": (python, script, "mcpserver", *count),
            "mcpd": (*mcpd, str(folder / "mcpd")),
            "mcpd-sse": (*mcpd, str(folder / "mcpd-sse"), "--http-stream", "sse"),
        }
        if fastmcp is not None:
            commands["fastmcp"] = (fastmcp, str(BENCHMARKS / "fastmcp_server.py"), *count)
        found = []
        for key in LABELS:
            if key in keys and key in commands:
                progress(f"starting {key} with {tools} tools")
                port = _free_port()
                command = (*commands[key], "--port", str(port))
                stack.enter_context(_running(command, port, ours, folder))
                found.append(Served(key, port))
        yield found


@contextmanager
def _running(
    command: Sequence[str], port: int, env: Mapping[str, str], folder: Path
) -> Iterator[None]:
    with TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(env), cwd=folder
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read().decode(errors="replace")
                    raise RuntimeError(f"{' '.join(command)} does not listen. It said:\n{said}")
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


# --- measuring ------------------------------------------------------------------------------------


def _rounds(
    field: Sequence[Served], era: Era, tools: int, options: argparse.Namespace
) -> dict[str, Results]:
    samples: dict[str, dict[str, list[float]]] = {one.key: {} for one in field}
    # The first round only warms up.
    for number in range(options.rounds + 1):
        progress(f"{era}, {tools} tools: round {number} of {options.rounds}")
        for one in field:
            for quantity, value in _measure(one, era, tools, options, warm=bool(number)).items():
                if number:
                    samples[one.key].setdefault(quantity, []).append(value)
    progress("")
    return {
        key: {quantity: Figure(tuple(values)) for quantity, values in found.items()}
        for key, found in samples.items()
    }


def _measure(
    one: Served, era: Era, tools: int, options: argparse.Namespace, *, warm: bool
) -> dict[str, float]:
    client = HttpClient(one.port, one.path, era=era)
    try:
        client.hello()
        listed, seconds = client.list_tools()
        names = {tool["name"] for tool in listed}
        if not names.issuperset(map(name, range(tools))):
            raise RuntimeError(f"{one.key} offers {len(names)} tools and not all of the {tools}")
        last = name(tools - 1)
        client.latencies(last, ARGUMENTS, _WARM_UP, 1.0)
        if not warm:
            return {}
        times = [seconds]
        while len(times) < _LISTINGS and sum(times) < options.limit:
            times.append(client.list_tools()[1])
        found = {"list": median(times) * 1e3}
        quantiles = client.latencies(last, ARGUMENTS, options.calls, options.limit)
        found |= {key: seconds * 1e3 for key, seconds in quantiles.items()}
        for level in options.concurrency:
            found[f"rate_{level}"] = client.throughput(
                last, ARGUMENTS, options.total, level, options.limit
            )
        return found
    finally:
        client.close()


# --- reporting ------------------------------------------------------------------------------------


def _report(
    era: Era, tools: int, results: Mapping[str, Results], options: argparse.Namespace
) -> None:
    columns = {"list": "tools/list, ms", "p50": "call p50, ms", "p99": "call p99, ms"}
    columns |= {f"rate_{level}": f"calls/s at {level}" for level in options.concurrency}
    print(f"\n## HTTP, {tools} tools, {era} era, {options.rounds} rounds\n")
    print(_figures(results, columns) + "\n")
    if BASE not in results:
        return
    print(f"Times those of {LABELS[BASE]}, within each round:\n")
    ratios = {
        key: {name: figure.over(results[BASE][name]) for name, figure in found.items()}
        for key, found in results.items()
        if key != BASE
    }
    print(_figures(ratios, columns) + "\n")
    print(aims_table(_aims(results)))
    sys.stdout.flush()


def _figures(results: Mapping[str, Results], columns: Mapping[str, str]) -> str:
    rows = [
        [LABELS[key], *(str(found.get(column, "")) for column in columns)]
        for key, found in results.items()
    ]
    return table(["server", *columns.values()], rows)


def _aims(results: Mapping[str, Results]) -> list[Aim]:
    def ratio(quantity: str, base: str) -> Figure | None:
        own, other = (results.get(key, {}).get(quantity) for key in ("mcpd", base))
        return None if own is None or other is None else own.over(other)

    aims = [
        Aim("calls/s at 16 over those of the SDK's default app", ratio("rate_16", BASE), 1.5, True),
        Aim("call p50 over that of the SDK's default app", ratio("p50", BASE), 1.0),
        Aim("calls/s at 16 over the SDK's fastest settings", ratio("rate_16", "sdk-best"), 1, True),
    ]
    return [aim for aim in aims if aim.figure is not None]


# --- the command line -----------------------------------------------------------------------------


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, help="rounds that count; one more comes first (default: 7)")
    add("--tools", type=numbers, help="how many tools to offer (default: 370,5000)")
    add("--era", type=eras, default=["handshake", "modern"], help="handshake, modern, or both")
    add("--calls", type=int, help="calls in a row per round, for p50 and p99 (default: 300)")
    add("--total", type=int, help="calls per round and number of connections (default: 2000)")
    add("--concurrency", type=numbers, default=[1, 16, 100], help="(default: 1,16,100)")
    add("--limit", type=float, default=3.0, help="seconds for each measurement (default: 3)")
    add("--only", type=keys_of(LABELS), metavar="KEYS", help=f"contestants, of {', '.join(LABELS)}")
    add("--python", default=sys.executable, help="the interpreter that has mcpd and the SDK")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--quick", action="store_true", help="few rounds of few calls, to see that it works")
    options = parser.parse_args(argv)
    defaults: dict[str, Any] = (
        {"rounds": 1, "tools": [1], "calls": 10, "total": 50}
        if options.quick
        else {"rounds": 7, "tools": [370, 5000], "calls": 300, "total": 2000}
    )
    for key, value in defaults.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    return options


if __name__ == "__main__":
    # What was started is stopped and removed, whichever way this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
