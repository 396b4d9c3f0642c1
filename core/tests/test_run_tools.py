"""The tool `run_tools`, which comes with mcpd-core as the plugin ``catalog``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_catalog.reports import fit, least_bytes, measured, report
from mcpd_core import (
    Busy,
    CallCancelled,
    CallResult,
    NotStarted,
    Principal,
    Progress,
    UnknownTool,
)
from mcpd_core.errors import InvalidArguments
from mcpd_core.testing import check_manifest
from mcpd_core.testing.hosts import MakeHost, PluginHost
from mcpd_core.testing.planting import WritePlugin

CATALOG = "mcpd_catalog.plugin"
TOOLS = """
    from __future__ import annotations
    import anyio, sniffio
    from mcpd_core import Context, ToolError, tool

    gates = set()
    log = []

    @tool
    async def meet(me: str, other: str) -> dict[str, str]:
        gates.add(me)
        while other not in gates:
            await anyio.sleep(0.001)
        return {"library": sniffio.current_async_library()}

    @tool
    async def say(text: str, times: int = 1) -> str:
        log.append(text)
        return text * times

    @tool
    async def fail() -> None:
        raise ToolError("The disk is full.", hint="Free some room.")

    @tool
    async def stay() -> None:
        try:
            await anyio.sleep(60)
        finally:
            log.append("cleaned")

    @tool
    async def nest(depth: int) -> dict[str, object]:
        found = {}
        for _ in range(depth):
            found = {"": found}
        return found

    @tool
    async def again(ctx: Context) -> str:
        call = {"tool": "say", "arguments": {"text": "x"}}
        return (await ctx.call("run_tools", {"calls": [call]})).text
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def run(host: PluginHost, *calls: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    result = await host.call("run_tools", {"calls": calls, **arguments})
    assert result.structured is not None, result.text
    assert json.loads(result.text) == result.structured
    return result.structured


def say(text: str, **arguments: Any) -> dict[str, Any]:
    return {"tool": "say", "arguments": {"text": text, **arguments}}


def statuses(answer: dict[str, Any]) -> list[str]:
    return [each["status"] for each in answer["results"]]


def test_the_manifest_says_what_the_code_says() -> None:
    check_manifest(Path(__file__).parent.parent)


def test_finding_the_plugin_imports_nothing_of_it() -> None:
    code = (
        "import sys; from mcpd_core.discovery import scan; "
        "print([c.name for c in scan().candidates if c.distribution == 'mcpd-core'], "
        "[m for m in sys.modules if m.startswith('mcpd_catalog') or m == 'pydantic'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['catalog'] []"


@pytest.mark.anyio
@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_results_come_in_the_order_of_the_calls_whatever_their_form(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin, runtime: Any
) -> None:
    async with mcpd_host(CATALOG, tmp_plugin(TOOLS, runtime=runtime)) as host:
        answer = await run(
            host,
            {"tool": "meet", "arguments": {"me": "a", "other": "b"}},
            say("hello"),
            {"tool": "fail"},
            {"tool": "sai"},
            {"tool": "say", "arguments": {"txt": "x"}},
            {"tool": "meet", "arguments": {"me": "b", "other": "a"}},
        )
    first, said, failed, unknown, unfit, last = answer["results"]
    # They ended only because they ran at the same time.
    assert first == last == {"tool": "meet", "status": "ok", "structured": {"library": runtime}}
    assert said == {"tool": "say", "status": "ok", "text": "hello"}
    assert failed["status"] == "failed"
    assert failed["error"]["message"] == "The disk is full."
    assert failed["error"]["hint"] == "Free some room."
    assert (unknown["status"], unknown["error"]["code"]) == ("refused", "unknown_tool")
    assert (unfit["status"], unfit["error"]["code"]) == ("refused", "invalid_arguments")
    assert answer["succeeded"] == 3


@pytest.mark.anyio
async def test_one_after_the_other_and_no_further_than_the_first_failure(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    async with mcpd_host(CATALOG, tmp_plugin(TOOLS)) as host:
        calls = [say("one"), {"tool": "fail"}, say("three")]
        answer = await run(host, *calls, parallel=False, stop_on_error=True)
        assert statuses(answer) == ["ok", "failed", "not_started"]
        assert answer["succeeded"] == 1
        answer = await run(host, *calls, parallel=1)
        assert statuses(answer) == ["ok", "failed", "ok"]


@pytest.mark.anyio
async def test_it_reports_how_many_are_done(mcpd_host: MakeHost, tmp_plugin: WritePlugin) -> None:
    seen: list[Progress] = []
    async with mcpd_host(CATALOG, tmp_plugin(TOOLS)) as host:
        calls = [say("one"), {"tool": "fail"}, {"tool": "nonsense"}]
        arguments = {"calls": calls, "parallel": False}
        await host.call("run_tools", arguments, on_progress=seen.append)
    assert seen == [
        Progress(1, 3, "say: ok"),
        Progress(2, 3, "fail: failed"),
        Progress(3, 3, "nonsense: refused"),
    ]


@pytest.mark.anyio
async def test_it_never_runs_itself_directly_or_through_another_tool(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    async with mcpd_host(CATALOG, tmp_plugin(TOOLS)) as host:
        itself = {"tool": "run_tools", "arguments": {"calls": [say("x")]}}
        answer = await run(host, itself, {"tool": "again"}, say("y"))
        # By itself, the tool that uses it may do so.
        assert json.loads((await host.call("again")).text)["succeeded"] == 1
    direct, indirect, fine = answer["results"]
    assert direct["status"] == "failed"
    assert direct["error"]["message"] == (
        "run_tools was called from within run_tools, which it refuses at any depth."
    )
    assert "called from within run_tools" in indirect["text"]
    assert fine["status"] == "ok"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"calls": []}, "calls"),
        ({"calls": [say("x")] * 101}, "at most 100"),
        ({"calls": [{"tool": "say", "argument": {}}]}, "argument"),
        ({"calls": [{"tool": "say", "timeout": 0}]}, "timeout"),
        ({"calls": [say("x")], "parallel": 0}, "parallel"),
    ],
)
async def test_what_makes_no_sense_is_refused_as_a_whole(
    mcpd_host: MakeHost, arguments: dict[str, Any], said: str
) -> None:
    async with mcpd_host(CATALOG) as host:
        with pytest.raises(InvalidArguments, match=said):
            await host.call("run_tools", arguments)


@pytest.mark.anyio
async def test_an_answer_that_does_not_fit_is_left_out_and_the_others_arrive(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    settings = {"executor": {"max_result_bytes": 4096}}
    async with mcpd_host(CATALOG, tmp_plugin(TOOLS), settings=settings) as host:
        answer = await run(
            host, say("a", times=3000), say("ä", times=1800), say("c"), say("d", times=5000)
        )
    first, second, third, fourth = answer["results"]
    assert first["text"] == "a" * 3000
    assert second == {"tool": "say", "status": "ok", "omitted_bytes": second["omitted_bytes"]}
    assert second["omitted_bytes"] > 3600
    assert third["text"] == "c"
    # Too large by itself: it has failed as it would have alone.
    assert fourth["error"]["code"] == "invalid_output"


@pytest.mark.anyio
async def test_when_not_even_the_statuses_fit_nothing_is_called(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    settings, planted = {"executor": {"max_result_bytes": 1024}}, tmp_plugin(TOOLS)
    async with mcpd_host(CATALOG, planted, settings=settings) as host:
        await run(host, say("loads the code"))
        log = sys.modules[f"{planted.package}.tools"].log
        log.clear()
        result = await host.call("run_tools", {"calls": [say("x" * 100)] * 100})
        assert result.error is not None
        assert "does not fit into the 1024 bytes" in result.text
        assert log == []


@pytest.mark.anyio
async def test_an_answer_too_deep_to_be_inside_another_is_told_as_text(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    async with mcpd_host(CATALOG, tmp_plugin(TOOLS)) as host:
        depth = 250
        while not (await host.call("nest", {"depth": depth + 1})).is_error:
            depth += 1
        alone = await host.call("nest", {"depth": depth})
        answer = await run(host, {"tool": "nest", "arguments": {"depth": depth}}, say("kept"))
    assert answer["results"] == [
        {"tool": "nest", "status": "ok", "text": alone.text},
        {"tool": "say", "status": "ok", "text": "kept"},
    ]


@pytest.mark.anyio
async def test_at_its_deadline_it_still_tells_what_was_answered(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    planted = tmp_plugin(TOOLS)
    async with mcpd_host(CATALOG, planted) as host:
        arguments = {"calls": [say("kept"), {"tool": "stay"}, say("late")], "parallel": False}
        result = await host.call("run_tools", arguments, timeout=1)
        assert result.structured is not None, result.text
        assert statuses(result.structured) == ["ok", "failed", "not_started"]
        assert result.structured["results"][1]["error"]["code"] == "deadline_exceeded"
        assert sys.modules[f"{planted.package}.tools"].log == ["kept", "cleaned"]


@pytest.mark.anyio
@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_fifty_requests_of_twenty_calls_complete_with_four_permits(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin, runtime: Any
) -> None:
    settings = {"executor": {"concurrency": 4, "per_client": 4}}
    async with mcpd_host(CATALOG, tmp_plugin(TOOLS, runtime=runtime), settings=settings) as host:
        answers = await asyncio.gather(
            *(run(host, *(say(f"{n}.{m}") for m in range(20))) for n in range(50))
        )
    for n, answer in enumerate(answers):
        assert [each["text"] for each in answer["results"]] == [f"{n}.{m}" for m in range(20)]


OBSERVING = """
    from mcpd_core import hookimpl

    seen = []

    class Observer:
        def before(self, call):
            caller = call.parent and call.parent.spec.name
            seen.append((call.spec.name, str(call.principal), call.client, caller))

        def after(self, call, outcome):
            pass

    @hookimpl
    def mcpd_register_tools(registrar):
        registrar.add_module("{package}.tools")

    @hookimpl
    def mcpd_call_observers():
        return [Observer()]
"""


@pytest.mark.anyio
async def test_its_calls_are_authorised_and_observed_as_those_of_whoever_made_the_request(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    planted = tmp_plugin(TOOLS, plugin=OBSERVING)
    who = Principal("http", "loopback")
    async with mcpd_host(CATALOG, planted, settings={"http": {"trust_loopback": True}}) as host:
        arguments = {"calls": [say("x")]}
        await host.call("run_tools", arguments, principal=who, client="somebody")
        assert sys.modules[planted.entry].seen == [
            ("run_tools", "http:loopback", "somebody", None),
            ("say", "http:loopback", "somebody", "run_tools"),
        ]


# --- reports --------------------------------------------------------------------------------------


def test_a_report_says_what_became_of_a_call() -> None:
    both = CallResult('{"n":1}', {"n": 1}, error={"code": "own"})
    expected = {"tool": "t", "status": "failed", "structured": {"n": 1}, "error": {"code": "own"}}
    assert report("t", both) == expected
    busy = report("t", Busy("The server is busy.", retry_after=2.5))
    assert busy["status"] == "refused"
    assert busy["error"]["retry_after"] == 2.5
    assert report("t", NotStarted("no"))["status"] == "not_started"
    assert report("t", CallCancelled("no"))["status"] == "cancelled"
    unknown = report("t", UnknownTool("No tool."))
    assert unknown["error"] == {"code": "unknown_tool", "message": "No tool."}


@given(
    st.lists(st.text(max_size=400), max_size=30),
    st.integers(0, 8192),
)
def test_what_is_told_fits_and_no_call_is_left_out(texts: list[str], more: int) -> None:
    tool = "t" * 20
    reports = [measured(tool, CallResult(text)) for text in texts]
    limit = least_bytes([tool] * len(texts)) + more
    told = fit(reports, limit)
    assert [each["tool"] for each in told] == [tool] * len(texts)
    assert len(pydantic_core.to_json({"results": told, "succeeded": 100})) <= limit
    for whole, each in zip(reports, told, strict=True):
        assert each == whole.report or each["omitted_bytes"] == whole.size
