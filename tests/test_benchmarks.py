"""The benchmarks run: a few calls each, so that they do not rot between two releases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Servers are started one after the other, many of them.
pytestmark = pytest.mark.timeout(120)

#: What is covered is no matter here, and to measure it doubles the time.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
#: Everything but FastMCP, which the tests do not install.
SERVERS = {"sdk", "standalone", "standalone-all", "attach", "attach-lean", "serve", "serve-cold"}


def run(script: str, *args: str, json_to: Path) -> tuple[str, dict[str, Any]]:
    """Run a benchmark; return what it printed and what it wrote."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *args, "--json", str(json_to)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(json_to.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("era", ["handshake", "modern"])
def test_serving_measures_every_server_in_the_same_run(era: str, tmp_path: Path) -> None:
    options = ["--quick", "--era", era, "--rounds", "1", "--tools", "40", "--calls", "5"]
    options += ["--total", "20", "--crowd", "2", "--only", ",".join(sorted(SERVERS))]
    printed, written = run("serving.py", *options, json_to=tmp_path / "serving.json")

    assert written["versions"]["mcp"].startswith("2.3.")
    (measured,) = written["runs"]
    assert (measured["era"], measured["tools"]) == (era, 40)
    assert set(measured["contestants"]) == SERVERS
    everything = {"initialize", "listed", "list", "p50", "p99", "rate_16", "rss", "pss"}
    for key, found in measured["contestants"].items():
        wanted = {"initialize", "listed"} if key == "serve-cold" else everything
        assert wanted <= set(found), key
        assert all(len(values) == 1 and values[0] > 0 for values in found.values()), key
    # The attached clients share one daemon, whose memory counts once.
    assert set(measured["crowd"]) == {"sdk", "attach", "attach-lean"}
    daemon = measured["contestants"]["attach"]["daemon_pss"][0]
    assert measured["crowd"]["attach"]["pss"][0] > daemon / 2

    for row in (
        "| SDK low-level server, SDK stdio",
        "| mcpd attach, warm daemon",
        "| --standalone",
    ):
        assert row in printed
    assert "2 SDK servers over 2 attached clients" in printed


@pytest.mark.slow
def test_http_is_measured_in_both_eras(tmp_path: Path) -> None:
    servers = ["sdk", "sdk-best", "mcpd", "mcpd-sse"]
    options = ["--quick", "--tools", "40", "--concurrency", "4", "--only", ",".join(servers)]
    printed, written = run("serving_http.py", *options, json_to=tmp_path / "http.json")
    assert [run["era"] for run in written["runs"]] == ["handshake", "modern"]
    for measured in written["runs"]:
        assert list(measured["contestants"]) == servers
        for key, found in measured["contestants"].items():
            assert set(found) == {"list", "p50", "p99", "rate_4"}, key
            assert all(len(values) == 1 and values[0] > 0 for values in found.values()), key
    assert "| call p50 over that of the SDK's default app" in printed


@pytest.mark.slow
def test_discovery_finds_the_planted_tools_and_times_the_search(tmp_path: Path) -> None:
    printed, written = run(
        "discovery.py", "--distributions", "20,200", "--rounds", "1", json_to=tmp_path / "d.json"
    )
    assert [run["distributions"] for run in written["runs"]] == [20, 200]
    for measured in written["runs"]:
        assert measured["tools"] == 370
        processes = measured["processes"]
        assert set(processes) == {"nothing", "ours", "command", "metadata", "pluggy"}
        assert processes["ours"]["work"][0] > 0
    assert "| mcpd tools list --json" in printed
    assert "own time at 200 distributions" in printed


def test_the_tools_that_are_compared_are_the_same_everywhere(tmp_path: Path) -> None:
    """What the bare server lists is what mcpd lists, and its manifest fits its code."""
    compare = """
import os, sys
from pathlib import Path
from harness.client import Client
from harness.contestants import contestants
from harness.toolset import ARGUMENTS, definition, name

keys = ("sdk", "standalone")
with contestants(keys, tools=40, python=sys.executable, fastmcp=None) as field:
    for one in field:
        client = Client(one.command, era="handshake", env=one.env, cwd=one.cwd)
        client.say_hello()
        client.hear_hello()
        listed, _ = client.list_tools()
        assert listed == [definition(index) for index in range(40)], one.key
        (content,) = client.call(name(39), ARGUMENTS)["content"]
        assert content == {"type": "text", "text": "hello worldhello world"}, one.key
        said = client.log()
        assert "stale" not in said, said
        client.close()
        print(one.key)
"""
    done = subprocess.run(
        [sys.executable, "-c", compare],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=ENVIRONMENT,
        cwd=BENCHMARKS,
    )
    assert done.stdout.split() == ["sdk", "standalone"], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="it needs asyncio's task groups")
def test_runtimes_measures_every_means_on_each_loop(tmp_path: Path) -> None:
    printed, written = run("runtimes.py", "--quick", "--calls", "60", json_to=tmp_path / "r.json")

    assert set(written["loops"]) == {"asyncio", "uvloop"}
    for loop, quantities in written["loops"].items():
        for quantity, means in quantities.items():
            assert all(len(values) == 1 for values in means.values()), (loop, quantity)
        assert {"mcpd, fused", "mcpd, guest", "SimpleQueue round trip"} <= set(
            quantities["to trio, us"]
        )
        assert quantities["idle"]["threads, with trio"] == [1]
    assert "| to trio, over a round trip of two threads" in printed


@pytest.mark.slow
def test_queues_measures_each_in_turn_and_compares_them(tmp_path: Path) -> None:
    options = ["--quick", "--only", "mcpd,raw", "--measure", "submit_1,drain_4"]
    printed, written = run("queues.py", *options, json_to=tmp_path / "queues.json")

    assert set(written["queues"]) == {"mcpd", "raw"}
    assert set(written["queues"]["mcpd"]) == {"submit_1", "drain_4"}
    assert set(written["queues"]["raw"]) == {"submit_1"}
    for found in written["queues"].values():
        assert all(len(values) == 1 and values[0] > 0 for values in found.values())
    assert "| one durable submit at a time, over raw SQLite" in printed


@pytest.mark.slow
def test_legacy_scans_serves_and_calls_a_tree(tmp_path: Path) -> None:
    printed, written = run("legacy.py", "--quick", "--calls", "20", json_to=tmp_path / "l.json")

    measured = written["measured"]
    # The old manager comes with a checkout, which the tests do not have.
    assert set(measured) == {"nothing", "cold", "warm", "memory", "calls"}
    assert measured["cold"]["tools"] == measured["warm"]["tools"] == [400]
    assert measured["memory"]["listed"] == [400]
    assert measured["calls"]["dispatched"][0] > measured["calls"]["direct"][0] > 0
    assert "skipped: the old manager" in printed
    assert "| warm scan, ms" in printed
