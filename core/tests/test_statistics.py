"""What the host counts, and what it tells of itself."""

from __future__ import annotations

import asyncio
import json
import os
import random
import textwrap
from typing import Any

import pytest

from mcpd_core import Busy, InvalidArguments, UnknownTool
from mcpd_core.histogram import Histogram
from mcpd_core.host.statistics import Statistics
from mcpd_core.spec import CallResult, ResourceSpec, ToolSpec
from mcpd_core.testing import MakeHost, PluginHost
from mcpd_core.testing.planting import PlantedPlugin, WritePlugin

# --- durations ------------------------------------------------------------------------------------


def test_a_histogram_of_nothing_has_no_quantiles() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().total == 0


@pytest.mark.parametrize("seconds", [1e-6, 7e-6, 15e-6, 16e-6, 1e-3, 0.25, 1.0, 59.9, 86_400.0])
def test_a_duration_is_told_to_within_a_sixteenth(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    told = histogram.quantile(0.5)
    assert told == pytest.approx(seconds, rel=1 / 16, abs=2e-6)


def test_longer_durations_never_fall_into_earlier_buckets() -> None:
    buckets: list[int] = []
    for microseconds in range(1, 5000):
        histogram = Histogram()
        histogram.add(microseconds * 1e-6 + 1e-9)
        buckets += histogram.counts
    assert buckets == sorted(buckets)
    assert len(set(buckets)) < 100


def test_quantiles_are_those_of_the_durations() -> None:
    rng = random.Random(7)
    durations = [rng.expovariate(10) for _ in range(5000)]
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    durations.sort()
    assert histogram.total == 5000
    for share in (0.5, 0.9, 0.99):
        wanted = durations[int(share * 5000) - 1]
        assert histogram.quantile(share) == pytest.approx(wanted, rel=0.13)
    assert histogram.quantile(1.0) == pytest.approx(durations[-1], rel=1 / 16)


def test_what_was_counted_since_a_copy_is_told_apart() -> None:
    histogram = Histogram()
    histogram.add(0.001)
    earlier = Histogram(histogram.counts)
    histogram.add(1.0)
    assert histogram.since(earlier).total == 1
    assert histogram.since(earlier).quantile(0.5) == pytest.approx(1.0, rel=1 / 16)
    assert histogram.since(histogram).total == 0


# --- calls ----------------------------------------------------------------------------------------


def spec(name: str = "slow", plugin: str = "acme") -> ToolSpec:
    return ToolSpec(name, "", {}, "acme.tools:slow", plugin)


def test_a_call_is_counted_from_its_look_up_to_its_answer() -> None:
    counted = Statistics().of(spec())
    with counted, counted:
        counted.started()
        assert (counted.in_flight, counted.running, counted.calls) == (2, 1, 0)
        counted.ended(CallResult("fine"), 0.5)
    assert (counted.in_flight, counted.running, counted.calls) == (0, 0, 1)
    assert counted.longest == 0.5
    assert not counted.errors
    assert not counted.refused


def test_failures_and_refusals_are_counted_by_their_kind() -> None:
    counted = Statistics().of(spec())
    for result in (CallResult("no", error={"code": "tool_failed"}), CallResult("no", error={})):
        counted.started()
        counted.ended(result, 0.1)
    counted.started()
    counted.ended(None, 0.1)
    with pytest.raises(Busy), counted:
        raise Busy("The server is busy.", retry_after=1.0)
    assert counted.errors == {"tool_failed": 2, "cancelled": 1}
    assert counted.refused == {"busy": 1}
    assert (counted.calls, counted.in_flight) == (3, 0)


def test_a_tool_that_makes_codes_up_does_not_fill_the_memory() -> None:
    counted = Statistics().of(spec())
    for n in range(1_000):
        counted.started()
        counted.ended(CallResult("no", error={"code": f"code{n}"}), 0.1)
    counted.started()
    counted.ended(CallResult("no", error={"code": "code0"}), 0.1)
    errors = counted.to_json()["errors"]
    assert (errors["code0"], errors["other"], len(errors)) == (2, 950, 51)


def test_another_plugin_that_offers_the_name_begins_anew() -> None:
    statistics = Statistics()
    statistics.of(spec()).started()
    assert statistics.of(spec()).running == 1
    assert statistics.of(spec(plugin="other")).running == 0
    assert [counted.plugin for counted in statistics] == ["other"]


def test_what_is_counted_is_named_as_people_call_it() -> None:
    counted = Statistics().of(ResourceSpec("note://{name}", "note", "a:b", "acme"))
    assert (counted.kind, counted.name) == ("resource", "note://{name}")


# --- a host ---------------------------------------------------------------------------------------

TOOLS = """
    from __future__ import annotations
    import threading
    import anyio
    from mcpd_core import Context, ToolError, tool

    gate = {"open": False}

    @tool
    async def wait() -> str:
        while not gate["open"]:
            await anyio.sleep(0.001)
        return "waited"

    @tool
    async def fails() -> str:
        raise ToolError("No.")

    @tool
    async def outer(ctx: Context) -> str:
        return (await ctx.call("fails")).text

    @tool
    def in_a_thread(number: int) -> int:
        return number

    @tool
    async def opens() -> str:
        gate["open"] = True
        return "open"
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["asyncio", "trio"])
def plugin(request: pytest.FixtureRequest, tmp_plugin: WritePlugin) -> PlantedPlugin:
    return tmp_plugin(textwrap.dedent(TOOLS), runtime=request.param)


def offers(host: PluginHost) -> dict[str, dict[str, Any]]:
    overview = host.host.overview()
    # What the daemon answers is JSON.
    assert json.loads(json.dumps(overview)) == overview
    return {offer["name"]: offer for offer in overview["offers"]}


@pytest.mark.anyio
async def test_a_host_that_was_not_called_lists_nothing(
    mcpd_host: MakeHost, plugin: PlantedPlugin
) -> None:
    async with mcpd_host(plugin) as host:
        overview = host.host.overview()
        assert overview["offers"] == []
        assert overview["pid"] == os.getpid()
        assert overview["tools"] == 5
        assert overview["loop"] == "asyncio"
        assert [(place["name"], place["rung"]) for place in overview["runtimes"]] == [
            ("asyncio", "loop")
        ]


@pytest.mark.anyio
async def test_what_runs_and_what_waits_is_told(mcpd_host: MakeHost, plugin: PlantedPlugin) -> None:
    settings = {"executor": {"per_tool": 1}}
    async with mcpd_host(plugin, settings=settings) as host:
        calls = [asyncio.ensure_future(host.call("wait")) for _ in range(3)]
        # trio is started for the first of them.
        while not any(place["running"] for place in host.host.overview()["runtimes"]):
            await asyncio.sleep(0.001)
        told = offers(host)["wait"]
        assert (told["in_flight"], told["running"], told["calls"]) == (3, 1, 0)
        overview = host.host.overview()
        assert overview["in_flight"] == 3
        assert overview["admission"]["client"] == {"running": 1, "waiting": 2, "limit": 64}
        running = {place["name"]: place["running"] for place in overview["runtimes"]}
        library = told["runtime"]
        assert library in ("asyncio", "trio")
        assert running[library] == 1
        if library == "trio":
            (rung,) = (p["rung"] for p in overview["runtimes"] if p["name"] == "trio")
            assert rung == host.host.lanes.trio.rung
            assert running["asyncio"] == 0
        await host.call("opens")
        await asyncio.gather(*calls)
        told = offers(host)["wait"]
        assert (told["in_flight"], told["running"], told["calls"]) == (0, 0, 3)
        assert 0 < told["p50"] <= told["p99"]
        assert sum(told["durations"].values()) == 3


@pytest.mark.anyio
async def test_how_calls_end_is_told_nested_ones_included(
    mcpd_host: MakeHost, plugin: PlantedPlugin
) -> None:
    async with mcpd_host(plugin) as host:
        await host.call("fails")
        await host.call("outer")
        await host.call("in_a_thread", {"number": 3})
        with pytest.raises(InvalidArguments):
            await host.call("in_a_thread", {"number": "many"})
        with pytest.raises(UnknownTool):
            await host.call("nowhere")
        told = offers(host)
        assert set(told) == {"fails", "outer", "in_a_thread"}
        assert (told["fails"]["calls"], told["fails"]["errors"]) == (2, {"tool_failed": 2})
        assert (told["outer"]["calls"], told["outer"]["errors"]) == (1, {})
        threaded = told["in_a_thread"]
        assert (threaded["calls"], threaded["refused"]) == (1, {"invalid_arguments": 1})
        assert threaded["runtime"] == "thread"
        places = {place["name"] for place in host.host.overview()["runtimes"]}
        assert "thread" in places


@pytest.mark.anyio
async def test_a_call_that_is_cancelled_is_counted_so(
    mcpd_host: MakeHost, plugin: PlantedPlugin
) -> None:
    async with mcpd_host(plugin) as host:
        call = asyncio.ensure_future(host.call("wait"))
        while not offers(host).get("wait", {}).get("running"):
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        told = offers(host)["wait"]
        assert (told["in_flight"], told["running"]) == (0, 0)
        assert told["errors"] == {"cancelled": 1}
