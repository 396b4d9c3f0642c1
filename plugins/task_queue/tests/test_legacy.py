"""The names of the older server: their arguments, their answers, and failures that say so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp_types import TextContent

from mcpd_core import CallRefused, CallResult, Principal, UnknownTool
from mcpd_core.host import Host
from mcpd_core.testing import Connect
from mcpd_task_queue import legacy
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import STATES

ME = Principal("local", "1000", "ada")
Start = Callable[..., AbstractAsyncContextManager[Host]]
pytestmark = pytest.mark.anyio

NAMES = {
    "task_submit", "task_status", "task_cancel", "task_list", "task_priority", "task_result",
    "queue_stats", "queue_pause", "queue_resume", "queue_clear", "task_retry",
    "worker_register", "worker_unregister", "worker_status",
}  # fmt: skip


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def call(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> CallResult:
    answer = await host.call(name, arguments, principal=principal, client="test")
    assert json.loads(answer.text) == answer.structured, "text and data are the same answer"
    return answer


async def ask(host: Host, name: str, /, **arguments: Any) -> Any:
    answer = await call(host, name, **arguments)
    assert answer.error is None, answer.text
    assert answer.structured is not None
    assert answer.structured.pop("success") is True
    return answer.structured


async def refusal(host: Host, name: str, /, **arguments: Any) -> Any:
    """Call in vain; returns the payload, which must be marked as an error."""
    answer = await call(host, name, **arguments)
    assert answer.is_error
    assert answer.structured is not None
    assert answer.structured.pop("success") is False
    return answer.structured


async def submit(host: Host, task_id: str, tool: str, payload: Any = None, **more: Any) -> Any:
    return await ask(
        host, "task_submit", task_id=task_id, task_type=tool, payload=payload or {}, **more
    )


async def until(host: Host, task_id: str, *wanted: str) -> Any:
    while True:
        answer = await ask(host, "task_status", task_id=task_id)
        if answer["status"] in wanted:
            return answer
        await asyncio.sleep(0.002)


async def logged(log: list[str], entry: str) -> None:
    while entry not in log:
        await asyncio.sleep(0.002)


# --- not listed -----------------------------------------------------------------------------------


async def test_the_old_names_can_be_called_and_clients_are_not_told_of_them(start: Start) -> None:
    async with start() as host:
        assert not NAMES & {spec.name for spec in host.tools_for(ME)}
        assert {name for name in NAMES if host.catalog.get(name)} == NAMES
        assert not NAMES & {spec.name for spec in host.catalog.search("task queue worker submit")}
        with pytest.raises(UnknownTool) as caught:
            await host.call("task_submitt", {}, principal=ME, client="test")
        assert not any(repr(name) in str(caught.value) for name in NAMES)


# --- tasks ----------------------------------------------------------------------------------------


async def test_a_task_goes_from_submit_to_result_under_the_callers_own_id(start: Start) -> None:
    async with start() as host:
        first = await submit(host, "job 1", "add", {"a": 2, "b": 3}, metadata={"x": 1})
        assert first["task_id"] == "job 1"
        assert set(first) == {
            "task_id", "status", "queue_position", "estimated_start_time", "assigned_worker",
            "ignored",
        }  # fmt: skip
        assert first["ignored"] == ["metadata"]
        done = await until(host, "job 1", "completed")
        assert (done["progress"], done["worker_id"], done["logs"], done["metrics"]) == (
            100.0,
            "built-in",
            None,
            None,
        )
        answer = await ask(host, "task_result", task_id="job 1")
        assert answer["result"] == answer["output"]
        assert (answer["output"]["sum"], answer["status"]) == (5, "completed")
        assert answer["execution_time"] >= 0
        short = await ask(
            host, "task_result", task_id="job 1", include_output=False, include_logs=True
        )
        assert short["output"] is None
        assert [line.split()[1] for line in short["logs"]] == ["submitted", "started", "succeeded"]
        again = await submit(host, "job 1", "add", {"a": 2, "b": 3})
        assert (again["task_id"], again["status"]) == ("job 1", "completed")
        # The id that the newer tools know it by is understood as well.
        (task,) = (await host.call("list_tasks", {}, principal=ME, client="test")).structured[
            "tasks"
        ]  # type: ignore[index]
        status = await ask(host, "task_status", task_id=task["task_id"], include_metrics=True)
        assert status["metrics"]["attempts"] == 1


async def test_failures_have_the_old_shape_and_are_marked_as_failures(start: Start) -> None:
    async with start() as host:
        await submit(host, "mine", "add", {"a": 1})
        unknown = await refusal(host, "task_status", task_id="none")
        assert unknown["task_id"] == "none"
        assert unknown["error"].startswith("There is no task 'none'.")
        fine: dict[str, Any] = {"task_type": "add", "payload": {"a": 1}}
        for arguments, complaint in [
            ({"task_id": "x", "task_type": "nothing", "payload": {}}, "No tool is called"),
            ({"task_id": "x", "task_type": "add", "payload": {"q": 1}}, "do not fit the tool"),
            ({"task_id": "mine", "task_type": "add", "payload": {"a": 2}}, "'mine' belongs to"),
            ({"task_id": "x", **fine, "priority": 1e9}, "is not between"),
            ({"task_id": "x", **fine, "retry_policy": {"max_retries": "3"}}, "no whole number"),
            ({"task_id": "x", **fine, "retry_policy": {"max_retries": 900}}, "has 1 to 100"),
        ]:
            answer = await refusal(host, "task_submit", **arguments)
            assert complaint.replace("no whole", "not a whole") in answer["error"]
            assert answer["task_id"] == arguments["task_id"]
        listed = await ask(host, "task_list")
        assert listed["total_count"] == 1
        failed = await call(host, "task_status", task_id="none")
        assert failed.error is not None
        assert (failed.error["code"], failed.error["retryable"]) == ("unknown_task", False)


@pytest.mark.parametrize(
    ("name", "arguments", "complaint", "subject"),
    [
        ("task_submit", {"task_type": "add", "payload": {}}, "task_id: required", {}),
        (
            "task_submit",
            {"task_id": "t", "task_type": "add"},
            "payload: required",
            {"task_id": "t"},
        ),
        (
            "task_submit",
            {"task_id": "t", "task_type": "add", "payload": "a=1"},
            "payload: input should be a valid dictionary",
            {"task_id": "t"},
        ),
        (
            "task_submit",
            {"task_id": "t", "task_type": "ad", "payload": {}},
            "No tool is called 'ad'. Did you mean 'add'?",
            {"task_id": "t"},
        ),
        (
            "task_submit",
            {"task_id": "t", "task_type": "add", "payload": {"b": "x"}},
            "do not fit the tool 'add': a: required",
            {"task_id": "t"},
        ),
        ("task_status", {"task_id": 7}, "task_id: input should be a valid string", {}),
        ("task_status", {"task_id": "t" * 300}, "at most 200", {"task_id": "t" * 200}),
        ("task_result", {"task_id": "none"}, "There is no task 'none'", {"task_id": "none"}),
        ("task_cancel", {"task_id": "t", "why": 1}, "why: unknown argument", {"task_id": "t"}),
        ("task_list", {"limit": 0}, "limit: input should be greater", {}),
        ("task_list", {"worker_filter": "\ud800"}, "worker_filter: ", {}),
        ("task_status", {"task_id": "a\ud800"}, "task_id: ", {"task_id": "a?"}),
        ("task_list", {"status_filter": "done"}, "status_filter: input should be 'queued'", {}),
        ("task_priority", {"task_id": "t"}, "new_priority: required", {"task_id": "t"}),
        ("task_retry", {}, "task_id: required", {}),
        ("queue_stats", {"include_historical": "what"}, "include_historical: ", {}),
        ("queue_pause", {"reason": 1}, "reason: ", {}),
        ("queue_resume", {"queue": "a"}, "queue: unknown argument", {}),
        ("queue_clear", {"confirm": []}, "confirm: ", {}),
        ("worker_register", {"worker_id": "w"}, "capabilities: required", {"worker_id": "w"}),
        ("worker_unregister", {"worker_id": "no such"}, "worker_id: ", {"worker_id": "no such"}),
        ("worker_status", {"worker_id": "w"}, "no worker 'w'", {"worker_id": "w"}),
    ],
)
async def test_what_is_asked_wrongly_is_answered_in_the_old_shape(
    start: Start, name: str, arguments: dict[str, Any], complaint: str, subject: dict[str, Any]
) -> None:
    async with start() as host:
        answer = await refusal(host, name, **arguments)
        assert complaint in answer.pop("error")
        assert answer == subject
        assert (await ask(host, "task_list"))["total_count"] == 0


async def test_a_task_of_an_older_name_is_checked_when_it_is_submitted(start: Start) -> None:
    async with start() as host:
        with pytest.raises(CallRefused, match="task_id: required"):
            await host.check("task_status", {}, principal=ME)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_of_the_protocol_gets_the_failure_as_text_and_as_data(
    mcpd_client: Connect, mode: Literal["legacy", "auto"]
) -> None:
    async with mcpd_client("mcpd_task_queue.plugin", mode=mode) as client:
        for arguments in ({"task_id": "none"}, {}):
            seen = await client.call_tool("task_cancel", arguments)
            assert seen.is_error
            assert seen.structured_content is not None
            (content,) = seen.content
            assert isinstance(content, TextContent)
            assert json.loads(content.text) == seen.structured_content
            assert seen.structured_content["success"] is False
            assert seen.structured_content.get("task_id") == arguments.get("task_id")


async def test_a_failed_task_says_how(start: Start, log: list[str]) -> None:
    async with start() as host:
        await submit(host, "a", "flaky", {"fails": 9}, retry_policy={"max_retries": 1, "base": 2})
        status = await until(host, "a", "failed")
        assert status["end_time"] is not None
        answer = await ask(host, "task_result", task_id="a")
        assert (answer["result"], answer["error"]["code"]) == (None, "tool_failed")
        assert log == ["flaky"] * 2
        log[:] = ["flaky"] * 9
        retried = await ask(host, "task_retry", task_id="a", retry_config={"max_attempts": 1})
        assert (retried["task_id"], retried["retry_task_id"]) == ("a", "a")
        assert retried["retry_count"] == 1
        assert (await until(host, "a", "completed"))["status"] == "completed"
        refused = await refusal(host, "task_retry", task_id="a")
        assert "cannot be tried anew" in refused["error"]


async def test_higher_priorities_are_earlier_fractions_included(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        await submit(host, "blocker", "insist", timeout=60)
        await logged(log, "started")
        await submit(host, "low", "add", {"a": 1}, priority=1.4)
        await submit(host, "high", "add", {"a": 2}, priority=1.5, tags=["x", "y"])
        last = await submit(host, "usual", "add", {"a": 3})
        assert (last["status"], last["queue_position"]) == ("queued", 3)
        moved = await ask(host, "task_priority", task_id="usual", new_priority=2.25, requeue=False)
        assert (moved["old_priority"], moved["new_priority"]) == (1.0, 2.25)
        assert (moved["new_queue_position"], moved["ignored"]) == (1, ["requeue"])
        page = await ask(host, "task_list", priority_min=1.45, status_filter="queued")
        assert [task["task_id"] for task in page["tasks"]] == ["usual", "high"]
        assert page["tasks"][1]["priority"] == 1.5
        page = await ask(host, "task_list", tag_filter=["y", "x"])
        assert [task["task_id"] for task in page["tasks"]] == ["high"]
        page = await ask(host, "task_list", limit=2, offset=1)
        assert [task["task_id"] for task in page["tasks"]] == ["high", "low"]
        assert (page["total_count"], page["returned_count"], page["has_more"]) == (4, 2, True)
        page = await ask(host, "task_list", worker_filter="built-in")
        assert [task["task_id"] for task in page["tasks"]] == ["blocker"]
        log.append("let go")
        for task_id in ("blocker", "low", "high", "usual"):
            await until(host, task_id, "completed")
        assert log[2:] == ["add 3", "add 2", "add 1"]


async def test_a_task_is_cancelled_waiting_or_running(start: Start, log: list[str]) -> None:
    async with start(task_queue={"workers": 1}) as host:
        await submit(host, "runs", "hold")
        await logged(log, "started")
        await submit(host, "waits", "add", {"a": 1})
        waiting = await ask(host, "task_cancel", task_id="waits")
        assert (waiting["status"], waiting["cleanup_required"]) == ("cancelled", False)
        assert waiting["cancelled_at"] is not None
        running = await ask(host, "task_cancel", task_id="runs", reason="why not", force=True)
        assert (running["status"], running["cleanup_required"]) == ("running", True)
        assert running["ignored"] == ["reason"]
        await until(host, "runs", "cancelled")
        # Asking again changes nothing, and what it wants is so.
        assert (await ask(host, "task_cancel", task_id="runs"))["status"] == "cancelled"
        await submit(host, "done", "add", {"a": 1})
        await until(host, "done", "completed")
        refused = await refusal(host, "task_cancel", task_id="done")
        assert refused["error"] == "The task 'done' had ended: it is completed."


async def test_progress_is_a_percentage(start: Start, log: list[str]) -> None:
    async with start() as host:
        await submit(host, "a", "hold")
        await logged(log, "started")
        status = await ask(host, "task_status", task_id="a", include_logs=True)
        assert (status["progress"], status["status"]) == (25.0, "running")
        assert [line.split()[1] for line in status["logs"]] == ["submitted", "started"]


# --- the queue ------------------------------------------------------------------------------------


async def test_the_queue_is_paused_resumed_counted_and_cleared(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        paused = await ask(host, "queue_pause", reason="mending")
        assert (paused["status"], paused["queued_tasks"], paused["running_tasks"]) == (
            "paused",
            0,
            0,
        )
        for n in range(3):
            assert (await submit(host, f"t{n}", "add", {"a": n}))["status"] == "queued"
        refused = await refusal(host, "queue_clear")
        assert "`confirm` is not true" in refused["error"]
        refused = await refusal(host, "queue_clear", confirm=True, status_filter="completed")
        assert "that are completed cannot be cleared" in refused["error"]
        stats = await ask(host, "queue_stats", include_worker_stats=True, include_historical=True)
        assert (stats["queued_count"], stats["average_wait_time"]) == (3, None)
        assert (stats["throughput"], stats["historical"]) == (0, None)
        assert stats["ignored"] == ["include_historical"]
        assert [worker["worker_id"] for worker in stats["worker_stats"]] == ["built-in"]
        cleared = await ask(host, "queue_clear", confirm=True, status_filter="queued")
        assert (cleared["cleared_count"], cleared["remaining_count"]) == (3, 0)
        await submit(host, "t9", "add", {"a": 9})
        resumed = await ask(host, "queue_resume", reorder_by_priority=False)
        assert (resumed["status"], resumed["reordered"]) == ("active", True)
        assert resumed["ignored"] == ["reorder_by_priority"]
        await until(host, "t9", "completed")
        stats = await ask(host, "queue_stats")
        assert (stats["completed_count"], stats["failed_count"], stats["queued_count"]) == (1, 0, 0)
        assert stats["throughput"] == pytest.approx(1 / 60)
        assert stats["worker_stats"] is None
        assert log == ["add 9"]


# --- workers --------------------------------------------------------------------------------------


async def test_a_worker_is_registered_watched_and_unregistered(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        made = await ask(
            host,
            "worker_register",
            worker_id="w",
            capabilities=["hold"],
            max_concurrent_tasks=1,
            resource_limits={"gpu": 1},
        )
        assert (made["status"], made["assigned_peers"]) == ("active", [])
        assert made["ignored"] == ["resource_limits"]
        idle = await ask(host, "worker_status", worker_id="w")
        assert (idle["status"], idle["tasks"], idle["metrics"]) == ("idle", None, None)
        await submit(host, "a", "hold")
        await logged(log, "started")
        busy = await ask(
            host, "worker_status", worker_id="w", include_tasks=True, include_metrics=True
        )
        assert (busy["status"], busy["running_tasks"], len(busy["tasks"])) == ("busy", 1, 1)
        assert busy["metrics"] == {"max_concurrent_tasks": 1, "free": 0}
        gone = await ask(host, "worker_unregister", worker_id="w", timeout=0)
        assert (gone["status"], gone["completed_tasks"], gone["abandoned_tasks"]) == (
            "unregistered",
            0,
            1,
        )
        assert (await until(host, "a", "failed"))["status"] == "failed"
        answer = await ask(host, "task_result", task_id="a")
        assert answer["error"]["message"].startswith("its worker was unregistered")
        refused = await refusal(host, "worker_status", worker_id="w")
        assert refused["worker_id"] == "w"
        for worker_id, complaint in [("built-in", "always there"), ("v", "may have 12 together")]:
            refused = await refusal(
                host,
                "worker_register",
                worker_id=worker_id,
                capabilities=[],
                max_concurrent_tasks=13,
            )
            assert complaint in refused["error"]


# --- the shapes -----------------------------------------------------------------------------------


def test_every_state_has_an_old_name_and_priorities_go_both_ways() -> None:
    assert {state for states in legacy.STATES.values() for state in states} == set(STATES)
    for priority in (-9.0, -3.0, 0.0, 0.5, 1.0, 1.25, 10.0, 10.99, 11.0):
        assert legacy.priority_to(legacy.priority_from(priority)) == priority
    assert legacy.priority_from(1.0) == 0
    for outside in (float("nan"), float("-inf"), -9.01, 11.01, 1e6, 1e300):
        with pytest.raises(TaskRefused):
            legacy.priority_from(outside)


async def test_no_task_gets_a_priority_that_the_new_names_refuse(start: Start) -> None:
    async with start() as host:
        await ask(host, "queue_pause")
        refused = await refusal(
            host, "task_submit", task_id="a", task_type="add", payload={"a": 1}, priority=11.01
        )
        assert "is not between -9 and 11" in refused["error"]
        await submit(host, "a", "add", {"a": 1}, priority=11)
        refused = await refusal(host, "task_priority", task_id="a", new_priority=-9.01)
        assert "is not between -9 and 11" in refused["error"]
        # A filter is no priority of a task.
        for least, count in ((-5000.0, 1), (5000.0, 0)):
            page = await ask(host, "task_list", priority_min=least)
            assert page["total_count"] == count


@pytest.mark.parametrize(
    "retries", [10**5000, -(10**5000), 100], ids=["long", "long and negative", "one too many"]
)
def test_a_number_of_attempts_is_refused_however_long_it_is(retries: int) -> None:
    with pytest.raises(TaskRefused, match="1 to 100 attempts"):
        legacy.attempts_in({"max_retries": retries}, [], "retry_policy")


def test_the_manifest_hides_the_old_names_and_no_others() -> None:
    import mcpd_task_queue

    path = Path(mcpd_task_queue.__file__).with_name("mcpd_plugin.json")
    tools = json.loads(path.read_text())["plugins"]["task_queue"]["tools"]
    assert {item["name"] for item in tools if item.get("listed") is False} == NAMES
    assert len(tools) == 18 + 14
