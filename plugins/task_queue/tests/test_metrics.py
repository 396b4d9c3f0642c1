"""What is counted is true, and Prometheus can read it."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest

from mcpd_core import Principal, ServiceUnavailable
from mcpd_core.host import Host
from mcpd_task_queue.metrics import Distribution, Metric, render, to_json
from mcpd_task_queue.pages import PATH, routes
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.testing import Clock

ME = Principal("local", "1000", "ada")
FRIEND = Principal("http", "loopback")

pytestmark = pytest.mark.anyio
Start = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- a strict reader of the exposition format -----------------------------------------------------

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
LINE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([-+0-9.eInfNa]+)")


class Family:
    """A metric as it was read: its kind, and its samples by suffix and labels."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.samples: dict[tuple[str, str], float] = {}


def parse(text: str) -> dict[str, Family]:
    """Read metrics, and insist on everything that the format and its naming rules ask for."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    current = ""
    helped = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped, _, words = line.removeprefix("# HELP ").partition(" ")
            assert words, f"{helped} says nothing of itself"
        elif line.startswith("# TYPE "):
            current, kind = line.removeprefix("# TYPE ").split(" ")
            assert current == helped, "the help comes first"
            assert current not in families, "all of a metric stands together"
            assert kind in ("counter", "gauge", "histogram")
            assert current.endswith("_total") is (kind == "counter")
            families[current] = Family(kind)
        else:
            match = LINE.fullmatch(line)
            assert match, line
            name, labels, value = match[1], match[2] or "", float(match[3])
            suffix = name.removeprefix(current)
            wanted = (
                ("_bucket", "_sum", "_count") if families[current].kind == "histogram" else ("",)
            )
            assert name.startswith(current), line
            assert suffix in wanted, line
            assert (suffix, labels) not in families[current].samples, "each sample once"
            families[current].samples[suffix, labels] = value
    for name, family in families.items():
        assert family.samples, f"{name} has no sample"
        if family.kind == "histogram":
            check_histogram(family)
    return families


def check_histogram(family: Family) -> None:
    buckets = [
        (float(labels.removeprefix('le="').removesuffix('"')), value)
        for (suffix, labels), value in family.samples.items()
        if suffix == "_bucket"
    ]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (math.inf, family.samples["_count", ""])
    assert family.samples["_sum", ""] >= 0


# --- counting -------------------------------------------------------------------------------------


def test_an_observation_belongs_to_the_first_range_that_holds_it() -> None:
    distribution = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.5, -3.0):
        distribution.observe(value)
    reading = distribution.read()
    assert reading.ranges == ((1.0, 3), (2.0, 4), (math.inf, 5))
    assert (reading.count, reading.sum) == (5, 5.5)


def test_what_is_written_is_read_as_it_was_meant() -> None:
    distribution = Distribution((0.001, 10.0))
    distribution.observe(0.25)
    text = render(
        [
            Metric.single("a_seconds", "histogram", "Back\\slash,\nnew line.", distribution.read()),
            Metric.labelled("b_total", "counter", "Words.", "word", {'q"\\\n': 3, "plain": 0.5}),
            Metric.single("c_bytes", "gauge", "Large.", 123_456_789_012),
        ]
    )
    families = parse(text)
    assert families["a_seconds"].samples == {
        ("_bucket", 'le="0.001"'): 0,
        ("_bucket", 'le="10"'): 1,
        ("_bucket", 'le="+Inf"'): 1,
        ("_sum", ""): 0.25,
        ("_count", ""): 1,
    }
    assert families["b_total"].samples == {
        ("", 'word="q\\"\\\\\\n"'): 3,
        ("", 'word="plain"'): 0.5,
    }
    assert families["c_bytes"].samples == {("", ""): 123_456_789_012}
    assert "Back\\\\slash,\\nnew line." in text


def test_a_store_measures_its_commits_and_how_long_tasks_wait(
    store: SQLiteTaskStore, clock: Clock
) -> None:
    store.submit([NewTask("add", {}, ME), NewTask("add", {}, ME, delay=5)]).result(10)
    clock.advance(2)
    store.claim("owner:1", 1, 30).result(10)
    clock.advance(20)
    store.sweep().result(10)
    clock.advance(1)
    # Its delay is no waiting: nobody could have started it.
    store.claim("owner:1", 1, 30).result(10)
    measured = to_json(store.metrics())
    assert measured["mcpd_tasks_wait_seconds"]["count"] == 2
    assert measured["mcpd_tasks_wait_seconds"]["sum"] == pytest.approx(3)
    assert measured["mcpd_tasks_commit_operations"]["count"] == 4
    assert measured["mcpd_tasks_commit_seconds"]["count"] == 4
    assert measured["mcpd_tasks_database_bytes"] >= 4_096
    assert measured["mcpd_tasks_log_bytes"] > 0


# --- the whole queue ------------------------------------------------------------------------------


async def ask(host: Host, tool: str, /, principal: Principal = ME, **arguments: Any) -> Any:
    answer = await host.call(tool, arguments, principal=principal, client="test")
    assert answer.structured is not None, answer
    return answer.structured


async def done(host: Host, tool: str, /, **arguments: Any) -> None:
    task = await ask(host, "submit_task", tool=tool, **arguments)
    assert (await ask(host, "get_task_result", task_id=task["task_id"], wait=20))["ready"]


async def test_what_becomes_of_tasks_is_counted(start: Start, log: list[str]) -> None:
    async with start() as host:
        await done(host, "add", arguments={"a": 1})
        await done(host, "flaky", arguments={"fails": 1})
        await done(host, "flaky", arguments={"fails": 99, "retryable": False})
        held = (await ask(host, "submit_task", tool="hold"))["task_id"]
        while "started" not in log:
            await anyio.sleep(0.002)
        metrics = (await ask(host, "get_queue_stats"))["metrics"]
        assert metrics["mcpd_tasks"]["running"] == 1
        assert metrics["mcpd_tasks_workers_busy"] == 1
        await ask(host, "cancel_task", task_id=held)
        assert (await ask(host, "get_task_result", task_id=held, wait=20))["ready"]
        metrics = (await ask(host, "get_queue_stats"))["metrics"]
        counted = {key: n for key, n in metrics["mcpd_tasks_attempts_total"].items() if n}
        assert counted == {"succeeded": 2, "retried": 1, "failed": 1, "cancelled": 1}
        assert metrics["mcpd_tasks_retries_total"] == 1
        assert metrics["mcpd_tasks_lease_losses_total"] == 0
        assert metrics["mcpd_tasks_run_seconds"]["count"] == 5
        assert metrics["mcpd_tasks_wait_seconds"]["count"] == 5
        assert metrics["mcpd_tasks"]["succeeded"] == 2
        assert metrics["mcpd_tasks_store_healthy"] == 1


async def test_of_everybodys_tasks_only_the_owner_is_told(start: Start) -> None:
    async with start(http={"trust_loopback": True}) as host:
        await done(host, "add", arguments={"a": 1})
        assert (await ask(host, "get_queue_stats", FRIEND))["metrics"] is None


# --- for Prometheus -------------------------------------------------------------------------------


async def get(page: Any, method: str = "GET") -> tuple[int, Mapping[bytes, bytes], str]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await page.handler({"method": method, "path": PATH}, None, send)
    begin, body = sent
    return begin["status"], dict(begin["headers"]), body["body"].decode()


async def test_prometheus_reads_everything_under_names_that_stay(start: Start) -> None:
    async with start() as host:
        await done(host, "add", arguments={"a": 1})
        page = host.extras.http_routes()[PATH]
        assert page.methods == ("GET", "HEAD")
        # A look-up may see the commit a moment before it is counted.
        while 'mcpd_tasks{state="succeeded"} 1' not in (await get(page))[2]:
            await asyncio.sleep(0.002)
        status, headers, text = await get(page)
        assert (status, headers[b"cache-control"]) == (200, b"no-store")
        assert headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
        families = parse(text)
        assert {name: family.kind for name, family in families.items()} == {
            "mcpd_tasks": "gauge",
            "mcpd_tasks_attempts_total": "counter",
            "mcpd_tasks_commit_operations": "histogram",
            "mcpd_tasks_commit_seconds": "histogram",
            "mcpd_tasks_database_bytes": "gauge",
            "mcpd_tasks_lease_losses_total": "counter",
            "mcpd_tasks_log_bytes": "gauge",
            "mcpd_tasks_retries_total": "counter",
            "mcpd_tasks_run_seconds": "histogram",
            "mcpd_tasks_store_healthy": "gauge",
            "mcpd_tasks_wait_seconds": "histogram",
            "mcpd_tasks_workers": "gauge",
            "mcpd_tasks_workers_busy": "gauge",
        }
        assert families["mcpd_tasks"].samples["", 'state="succeeded"'] == 1
        assert (await get(page, "HEAD"))[2] == ""


async def test_a_queue_that_does_not_run_is_unavailable() -> None:
    class Nothing:
        async def get(self, name: str) -> Any:
            raise ServiceUnavailable(f"The service {name!r} was stopped.")

    (page,) = routes(Nothing())
    status, _, text = await get(page)
    assert (status, text) == (503, "The service 'task_queue' was stopped.\n")
