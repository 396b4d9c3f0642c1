"""Tasks from submit to result, through the real host: the service in trio, the tools where they
are, every look through the tools that clients call."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import pytest

from mcpd_core import CallRefused, CallResult, Principal
from mcpd_core.host import Host
from mcpd_task_queue.queue import TaskQueue
from mcpd_task_queue.records import NewTask, Renewal
from mcpd_task_queue.sqlite import SQLiteTaskStore

ME = Principal("local", "1000", "ada")

Start = Callable[..., AbstractAsyncContextManager[Host]]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def call(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> CallResult:
    return await host.call(name, arguments, principal=principal, client="test")


async def ask(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> Any:
    result = await call(host, name, principal, **arguments)
    assert not result.is_error, result.text
    return result.structured


async def submit(host: Host, tool: str, /, **options: Any) -> str:
    answer = await ask(host, "submit_task", tool=tool, **options)
    assert answer["outcome"] == "created"
    return cast(str, answer["task_id"])


async def result(host: Host, task_id: str, wait: float = 20) -> Any:
    return await ask(host, "get_task_result", task_id=task_id, wait=wait)


async def status(host: Host, task_id: str) -> Any:
    return await ask(host, "get_task_status", task_id=task_id)


async def until(host: Host, task_id: str, done: Callable[[Any], bool]) -> Any:
    """Wait for a state that is no end, so that nothing announces it."""
    while True:
        answer = await status(host, task_id)
        if done(answer):
            return answer
        await asyncio.sleep(0.002)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that nothing announces."""
    while not condition():
        await asyncio.sleep(0.002)


async def logged(log: list[str], entry: str) -> None:
    """Wait until a tool has noted something."""
    await eventually(lambda: entry in log)


async def service(host: Host) -> TaskQueue:
    """Reach behind the proxy: both libraries run in this thread."""
    proxy = await host.service("task_queue", host.lanes.loop)
    return cast(TaskQueue, proxy._running.object)


def store_of(queue: TaskQueue) -> SQLiteTaskStore:
    return cast(SQLiteTaskStore, queue._store)


def kinds(answer: Any) -> list[str]:
    return [event["kind"] for event in answer["events"]]


# --- running --------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_a_task_runs_where_its_tool_belongs_and_its_result_is_kept(
    start: Start, runtime: str
) -> None:
    async with start(runtime=runtime) as host:
        task_id = await submit(host, "add", arguments={"a": 2, "b": 3})
        for _ in range(2):
            answer = await result(host, task_id)
            assert answer == {
                "task_id": task_id,
                "tool": "add",
                "state": "succeeded",
                "ready": True,
                "structured": {"sum": 5, "library": runtime},
                "why": "",
            }
        assert kinds(await status(host, task_id)) == ["submitted", "started", "succeeded"]
        assert host.lanes.trio.running
    async with start(without_work=True) as host:
        assert (await result(host, task_id, wait=0))["structured"]["sum"] == 5


async def test_a_text_result_is_kept_as_text(start: Start) -> None:
    async with start() as host:
        answer = await result(host, await submit(host, "shout", arguments={"text": "hé\n"}))
        assert (answer["text"], "structured" in answer) == ("HÉ\n", False)


async def test_many_tasks_run_with_no_more_than_the_workers_at_once(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 2}) as host:
        held = [await submit(host, "hold") for _ in range(5)]
        await until(host, held[1], lambda s: s["state"] == "running")
        stats = await ask(host, "get_queue_stats")
        assert (stats["workers"], stats["busy"], stats["healthy"]) == (2, 2, True)
        assert stats["counts"]["running"] == 2
        assert [(queue["queue"], queue["counts"]) for queue in stats["queues"]] == [
            ("default", stats["counts"])
        ]
        waiting = await status(host, held[4])
        assert waiting["position"] == 3
        assert waiting["why"] == "waits for one of 2 workers; 2 ahead of it"
        assert (await status(host, held[2]))["why"] == "waits for one of 2 workers; it is next"
        for task_id in held:
            await ask(host, "cancel_task", task_id=task_id)
        assert [(await result(host, task_id))["state"] for task_id in held] == ["cancelled"] * 5


async def test_a_hundred_tasks_all_succeed_in_order_of_priority(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        blocker = await submit(host, "insist")
        await logged(log, "started")
        ids = [await submit(host, "add", arguments={"a": n}, priority=n % 3) for n in range(100)]
        log.append("let go")
        for task_id in [blocker, *ids]:
            assert (await result(host, task_id))["state"] == "succeeded"
        expected = [f"add {n}" for p in (2, 1, 0) for n in range(100) if n % 3 == p]
        assert [entry for entry in log if entry.startswith("add")] == expected


async def test_a_delayed_task_starts_when_it_is_due(start: Start) -> None:
    async with start() as host:
        later = await submit(host, "add", arguments={"a": 1}, delay=3600)
        soon = await submit(host, "add", arguments={"a": 2}, delay=0.05)
        assert (await result(host, soon))["state"] == "succeeded"
        answer = await status(host, later)
        assert (answer["state"], answer["position"]) == ("scheduled", None)
        assert answer["why"].startswith("due in 3")
        assert answer["due_at"] > answer["created_at"]
        (pending,) = host.pending()
        assert pending.startswith("1 task scheduled, next due in 3")


async def test_progress_is_seen_while_the_task_runs_and_is_stored_soon(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        task_id = await submit(host, "hold")
        answer = await until(host, task_id, lambda s: s["progress"] is not None)
        at = answer["progress"].pop("at")
        assert answer["started_at"] <= at
        assert answer["progress"] == {"done": 1.0, "total": 4.0, "message": "holding"}
        assert answer["why"] == "runs, attempt 1 of 3"
        queue = await service(host)
        await eventually(lambda: stored(queue, task_id).progress is not None)
        assert stored(queue, task_id).progress.progress.message == "holding"
        assert host.pending() == ["1 task running"]


def stored(queue: TaskQueue, task_id: str, principal: Principal = ME) -> Any:
    snapshot = store_of(queue).get(principal, task_id, payload=True).result(10)
    assert snapshot is not None
    return snapshot.task


async def test_progress_that_is_no_number_is_ignored(start: Start, log: list[str]) -> None:
    async with start() as host:
        task_id = await submit(host, "odd_progress")
        await logged(log, "started")
        assert (await status(host, task_id))["progress"] is None


# --- waiting for results --------------------------------------------------------------------------


async def test_a_wait_that_is_too_short_says_how_far_the_task_is(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        task_id = await submit(host, "hold")
        await logged(log, "started")
        answer = await result(host, task_id, wait=0.01)
        assert (answer["ready"], answer["state"]) == (False, "running")
        assert answer["why"] == "runs, attempt 1 of 3"


async def test_those_who_wait_keep_nobody_from_working(start: Start, log: list[str]) -> None:
    async with start(executor={"concurrency": 1, "per_client": 1}) as host:
        task_id = await submit(host, "insist")
        waiting = [asyncio.create_task(result(host, task_id)) for _ in range(20)]
        await logged(log, "started")
        assert (await call(host, "shout", text="still here")).text == "STILL HERE"
        log.append("let go")
        for answer in await asyncio.gather(*waiting):
            assert answer["text"] == "finished all the same"
        assert (await service(host))._waiting == {}


async def test_a_caller_that_gives_up_waiting_leaves_nothing_behind(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        task_id = await submit(host, "hold")
        waiting = asyncio.create_task(result(host, task_id))
        queue = await service(host)
        await eventually(lambda: task_id in queue._waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert queue._waiting == {}


# --- bad input ------------------------------------------------------------------------------------

FINE = {"tool": "add", "arguments": {"a": 1}}
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"tool": "ad"}, "unknown_tool", "No tool is called 'ad'. Did you mean 'add'"),
    ({"tool": "add", "arguments": {"a": "x"}}, "invalid_arguments", "do not fit the tool 'add'"),
    ({"tool": "add", "arguments": {"a": 1, "c": 2}}, "invalid_arguments", "c: unknown argument"),
    ({**FINE, "delay": -1}, "invalid_arguments", "delay: "),
    ({**FINE, "delay": float("nan")}, "invalid_arguments", "delay: "),
    ({**FINE, "max_attempts": 0}, "invalid_arguments", "max_attempts: "),
    ({**FINE, "timeout": 0}, "invalid_arguments", "timeout: "),
    ({**FINE, "priority": 10**6}, "invalid_arguments", "priority: "),
    ({**FINE, "queue": "a b"}, "invalid_arguments", "queue: "),
    ({**FINE, "tags": ['"']}, "invalid_arguments", "tags.0: "),
    ({**FINE, "delivery": "maybe"}, "invalid_arguments", "delivery: "),
    (
        {"tool": "shout", "arguments": {"text": "x" * 1_100_000}},
        "task_refused",
        "take 1,100,011 bytes as JSON; a task may have 1,048,576",
    ),
]


@pytest.mark.parametrize(("arguments", "code", "complaint"), BAD)
async def test_bad_input_gets_a_precise_error_and_changes_nothing(
    start: Start, arguments: Any, code: str, complaint: str
) -> None:
    async with start() as host:
        try:
            answer = await call(host, "submit_task", **arguments)
            assert answer.error is not None
            told = (answer.error["code"], answer.text)
        except CallRefused as refused:
            told = (refused.code, str(refused))
        assert told[0] == code
        assert complaint in told[1]
        assert (await ask(host, "list_tasks"))["tasks"] == []
        assert host.pending() == []


async def test_a_key_makes_one_task_of_many_submits(start: Start, log: list[str]) -> None:
    async with start() as host:
        options: dict[str, Any] = {**FINE, "idempotency_key": "once"}
        answers = await asyncio.gather(*(ask(host, "submit_task", **options) for _ in range(20)))
        assert len({answer["task_id"] for answer in answers}) == 1
        assert sorted(answer["outcome"] for answer in answers) == ["created"] + ["existing"] * 19
        await result(host, answers[0]["task_id"])
        assert log == ["add 1"]
        other = await call(host, "submit_task", **{**options, "arguments": {"a": 2}})
        assert other.error is not None
        assert (other.error["code"], other.error["retryable"]) == ("task_refused", False)
        assert answers[0]["task_id"] in other.text
        assert len((await ask(host, "list_tasks"))["tasks"]) == 1


@pytest.mark.parametrize("tool", ["get_task_status", "get_task_result", "cancel_task"])
async def test_anothers_task_is_as_unknown_as_none(start: Start, tool: str) -> None:
    async with start() as host:
        task_id = await submit(host, "add", arguments={"a": 1})
        await result(host, task_id)
        for principal, id_ in ((Principal("local", "1001"), task_id), (ME, "f" * 32)):
            answer = await call(host, tool, principal, task_id=id_)
            assert answer.error is not None
            assert answer.error["code"] == "unknown_task"
            assert f"There is no task {id_!r}." in answer.text


async def test_a_list_has_filters_and_pages(start: Start) -> None:
    async with start() as host:
        ids = [
            await submit(host, "add", arguments={"a": n}, queue=f"q{n % 2}", tags=[f"t{n}"])
            for n in range(4)
        ]
        for task_id in ids:
            await result(host, task_id)
        page = await ask(host, "list_tasks", limit=3)
        assert [task["task_id"] for task in page["tasks"]] == ids[:0:-1]
        rest = await ask(host, "list_tasks", cursor=page["next_cursor"])
        assert ([task["task_id"] for task in rest["tasks"]], rest["next_cursor"]) == (ids[:1], None)
        narrowed = await ask(host, "list_tasks", queue="q1", tag="t3", state="succeeded")
        (task,) = narrowed["tasks"]
        assert (task["task_id"], task["tool"], task["tags"]) == (ids[3], "add", ["t3"])
        bad = await call(host, "list_tasks", cursor="x")
        assert bad.error is not None
        assert "'x' is not a cursor" in bad.text


# --- failures -------------------------------------------------------------------------------------


async def test_a_failed_attempt_is_repeated_until_it_succeeds(start: Start, log: list[str]) -> None:
    async with start() as host:
        task_id = await submit(host, "flaky", arguments={"fails": 2})
        assert (await result(host, task_id))["text"] == "answered"
        answer = await status(host, task_id)
        assert answer["attempts"] == 3
        assert kinds(answer) == [
            "submitted",
            *["started", "will_retry", "due"] * 2,
            "started",
            "succeeded",
        ]
        assert answer["events"][2]["detail"] == "The service did not answer."


async def test_a_task_whose_attempts_are_used_up_is_dead(start: Start, log: list[str]) -> None:
    async with start() as host:
        task_id = await submit(host, "flaky", arguments={"fails": 9}, max_attempts=2)
        answer = await result(host, task_id)
        assert (answer["state"], log) == ("dead", ["flaky"] * 2)
        assert answer["error"]["code"] == "tool_failed"
        assert answer["why"] == (
            "not tried again after 2 of 2 attempts: The service did not answer."
        )


async def test_at_most_once_is_one_attempt(start: Start, log: list[str]) -> None:
    async with start() as host:
        task_id = await submit(host, "flaky", arguments={"fails": 9}, delivery="at_most_once")
        assert ((await result(host, task_id))["state"], log) == ("dead", ["flaky"])


async def test_a_failure_that_will_not_pass_is_final(start: Start, log: list[str]) -> None:
    async with start() as host:
        task_id = await submit(host, "flaky", arguments={"fails": 9, "retryable": False})
        answer = await result(host, task_id)
        assert (answer["state"], log) == ("failed", ["flaky"])
        assert answer["error"]["retryable"] is False


async def test_a_failure_that_says_when_to_come_back_is_listened_to(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        task_id = await submit(host, "flaky", arguments={"fails": 1, "after": 500.0})
        answer = await until(host, task_id, lambda s: s["state"] == "scheduled")
        assert answer["why"].startswith("attempt 1 of 3 failed; the next one is in ")
        assert "in 500 s: The service" in answer["why"] or "in 499 s" in answer["why"]


async def test_a_call_cut_off_at_its_deadline_may_have_taken_effect(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        unsafe = await submit(host, "hold", timeout=0.05)
        answer = await result(host, unsafe)
        assert answer["state"] == "uncertain"
        assert "was cancelled at its deadline" in answer["why"]
        assert "is neither idempotent nor read-only" in answer["why"]
        safe = await submit(host, "hold_safely", timeout=0.05, max_attempts=2)
        answer = await result(host, safe)
        assert answer["state"] == "dead"
        assert answer["error"]["code"] == "deadline_exceeded"
        stats = await ask(host, "get_queue_stats")
        assert stats["detail"].endswith("1 uncertain, to be looked at by a person")


async def test_a_result_beyond_the_queues_limit_fails_the_task(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"largest_result": 10_000}) as host:
        answer = await result(host, await submit(host, "big", arguments={"size": 20_000}))
        assert (answer["state"], answer["error"]["code"]) == ("failed", "invalid_output")
        message = answer["error"]["message"]
        assert message == "The tool 'big' answered with 20,000 bytes; at most 10,000 are allowed."
        # The limit is on what is stored, and JSON takes more than the text.
        answer = await result(host, await submit(host, "big", arguments={"size": 9_999}))
        assert (answer["state"], answer["error"]["code"]) == ("failed", "invalid_output")
        assert (
            "its result takes 10,010 bytes as JSON; the result of a task may have 10,000"
            in (answer["error"]["message"])
        )
        assert log == ["big", "big"]


async def test_arguments_that_no_longer_fit_fail_the_task(start: Start, left_behind: Any) -> None:
    (task_id,) = left_behind([NewTask("add", {"old": 1}, ME)])
    async with start() as host:
        answer = await result(host, task_id)
        assert (answer["state"], answer["error"]["code"]) == ("failed", "invalid_arguments")


async def test_a_principal_that_may_not_any_more_fails_the_task(
    start: Start, left_behind: Any
) -> None:
    peer = Principal("peer", "12D3Koo")
    (task_id,) = left_behind([NewTask("add", {"a": 1}, peer)])
    async with start() as host:
        queue = await service(host)
        await eventually(lambda: stored(queue, task_id, peer).state == "failed")
        assert stored(queue, task_id, peer).error["code"] == "not_authorised"


# --- what the host cannot do just now -------------------------------------------------------------


async def test_a_tool_that_is_not_offered_is_waited_for(
    start: Start, left_behind: Any, log: list[str]
) -> None:
    (task_id,) = left_behind([NewTask("add", {"a": 1}, ME, max_attempts=1)])
    async with start(without_work=True) as host:
        answer = await until(host, task_id, lambda s: s["state"] == "scheduled")
        assert answer["attempts"] == 0
        assert answer["why"].startswith("waits: tool add is not offered at present; looked at")
        assert kinds(answer) == ["submitted", "started", "released"]
    async with start() as host:
        assert (await result(host, task_id))["structured"]["sum"] == 1


async def test_a_busy_host_costs_no_attempt(start: Start, log: list[str]) -> None:
    async with start(executor={"workers": 1, "queue": 1}) as host:
        ids = [await submit(host, "insist", max_attempts=1) for _ in range(3)]

        def released(answer: Any) -> bool:
            return "released" in kinds(answer)

        waited = [asyncio.create_task(until(host, task_id, released)) for task_id in ids]
        done, others = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        assert "busy: " in next(iter(done)).result()["events"][2]["detail"]
        for other in others:
            other.cancel()
        log.append("let go")
        for task_id in ids:
            assert (await result(host, task_id))["state"] == "succeeded"


async def test_a_store_that_cannot_be_opened_makes_the_tools_unavailable(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "task_queue").mkdir()
    (tmp_path / "task_queue" / "tasks.db").write_bytes(b"no database" * 1_000)
    async with start() as host:
        answer = await call(host, "submit_task", tool="add", arguments={"a": 1})
        assert answer.error is not None
        assert answer.error["code"] == "service_unavailable"
        assert "file is not a database" in answer.text
        assert not host.health()["task_queue"].ok


async def test_an_unknown_setting_is_an_error(start: Start) -> None:
    with pytest.raises(Exception, match="worker_count"):
        async with start(task_queue={"worker_count": 3}) as host:
            await ask(host, "get_queue_stats")


# --- cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["asyncio", "trio"])
async def test_a_running_task_is_cancelled_and_has_cleaned_up(
    start: Start, log: list[str], runtime: str
) -> None:
    async with start(runtime=runtime) as host:
        task_id = await submit(host, "hold")
        await logged(log, "started")
        answer = await ask(host, "cancel_task", task_id=task_id)
        assert (answer["outcome"], answer["state"]) == ("cancelling", "running")
        assert (await result(host, task_id))["state"] == "cancelled"
        assert log == ["started", "cleaned"]
        assert (await ask(host, "cancel_task", task_id=task_id))["outcome"] == "settled"
        assert kinds(await status(host, task_id)) == [
            "submitted",
            "started",
            "cancel_requested",
            "cancelled",
        ]


async def test_a_task_that_finishes_despite_being_cancelled_has_not_succeeded(
    start: Start, log: list[str]
) -> None:
    # In trio, since asyncio has no way to keep a cancellation waiting.
    async with start(runtime="trio") as host:
        task_id = await submit(host, "insist")
        await logged(log, "started")
        await ask(host, "cancel_task", task_id=task_id)
        found = await status(host, task_id)
        assert found["why"].startswith("is being cancelled, attempt 1 of 3: it was cancelled and")
        assert found["cancelling"]["why"].endswith("except a restart of the server")
        log.append("let go")
        answer = await result(host, task_id)
        assert (answer["state"], "text" in answer) == ("cancelled", False)


async def test_a_task_is_cancelled_before_it_starts(start: Start, log: list[str]) -> None:
    async with start() as host:
        task_id = await submit(host, "add", arguments={"a": 1}, delay=0.1)
        assert (await ask(host, "cancel_task", task_id=task_id))["outcome"] == "cancelled"
        await result(host, await submit(host, "add", arguments={"a": 2}, delay=0.15))
        assert log == ["add 2"]


# --- the end of the process -----------------------------------------------------------------------


@pytest.mark.parametrize(("tool", "state"), [("hold_safely", "ready"), ("hold", "uncertain")])
async def test_a_shutdown_gives_safe_tasks_back_and_parks_the_others(
    start: Start, log: list[str], tool: str, state: str
) -> None:
    async with start() as host:
        task_id = await submit(host, tool, max_attempts=1)
        await logged(log, "started")
    assert log == ["started", "cleaned"]
    async with start(without_work=True) as host:
        if state == "ready":
            # It went back without losing its attempt; now it waits for its tool.
            answer = await until(host, task_id, lambda s: s["state"] == "scheduled")
            assert answer["why"].startswith("waits: tool hold_safely is not offered")
            assert (answer["attempts"], kinds(answer)[2]) == (0, "interrupted")
            assert answer["events"][2]["detail"].endswith("and cancelled it; it is safe to repeat")
        else:
            answer = await status(host, task_id)
            assert (answer["state"], answer["attempts"]) == ("uncertain", 1)
            assert "neither idempotent nor read-only" in answer["why"]


async def test_a_drain_lets_tasks_finish_and_starts_no_more(start: Start, log: list[str]) -> None:
    async with start(task_queue={"workers": 1}) as host:
        first = await submit(host, "insist")
        second = await submit(host, "add", arguments={"a": 1})
        await logged(log, "started")
        host.stop_accepting()
        draining = asyncio.create_task(host.drain(10))
        await asyncio.sleep(0)
        log.append("let go")
        await draining
    assert "add 1" not in log
    async with start() as host:
        assert (await result(host, first))["state"] == "succeeded"
        assert (await result(host, second))["state"] == "succeeded"


async def test_what_a_dead_daemon_left_running_is_taken_over(
    start: Start, left_behind: Any, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    safe, unsafe = left_behind(
        [NewTask("add", {"a": 1}, ME, repeatable=True), NewTask("hold", {}, ME)], running=2
    )
    with caplog.at_level(logging.WARNING):
        async with start() as host:
            assert (await result(host, safe))["structured"]["sum"] == 1
            assert (await status(host, safe))["attempts"] == 2
            assert (await result(host, unsafe))["state"] == "uncertain"
    assert "1 tasks are ready again, 1 are uncertain" in caplog.text
    assert log == ["add 1"]


# --- leases ---------------------------------------------------------------------------------------


async def test_a_lease_is_renewed_for_as_long_as_the_task_runs(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"lease": 1}) as host:
        task_id = await submit(host, "insist")
        await logged(log, "started")
        await asyncio.sleep(1.5)  # longer than the lease
        assert (await status(host, task_id))["state"] == "running"
        log.append("let go")
        answer = await result(host, task_id)
        assert (answer["state"], log.count("started")) == ("succeeded", 1)


async def test_a_task_that_was_taken_away_is_interrupted_and_its_late_outcome_refused(
    start: Start, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with start(task_queue={"lease": 1, "workers": 1}) as host:
        task_id = await submit(host, "hold_safely")
        await logged(log, "started")
        store = store_of(await service(host))
        # Another owner believes that this one is dead.
        assert store.recover("other:1").result(10).readied == 1
        (taken,) = store.claim("other:1", 1, 30).result(10)
        assert taken.id == task_id
        await logged(log, "cleaned")
        assert store.complete(task_id, taken.fence, CallResult("by the other")).result(10).accepted
        assert (await result(host, task_id))["text"] == "by the other"
    assert "was taken from attempt 1" in caplog.text
    assert log == ["started", "cleaned"]


async def test_an_outcome_that_comes_too_late_is_refused(
    start: Start, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        task_id = await submit(host, "insist")
        await logged(log, "started")
        store = store_of(await service(host))
        store.recover("other:1").result(10)
        answer = await status(host, task_id)
        assert answer["state"] == "uncertain"
        log.append("let go")
        await result(host, await submit(host, "add", arguments={"a": 1}))
        assert (await status(host, task_id))["state"] == "uncertain"
    assert "came too late and was refused" in caplog.text


# --- a store in trouble ---------------------------------------------------------------------------


def limit_pages(store: SQLiteTaskStore, pages: int | None) -> None:
    """Fill the disk, as far as SQLite can tell, or make room again."""

    def operation(tx: Any) -> None:
        current = tx.execute("PRAGMA page_count").fetchone()[0]
        tx.execute(f"PRAGMA max_page_count = {current if pages is None else pages}")

    store._writer.do(operation).result(10)


async def test_an_outcome_waits_until_there_is_room_to_record_it(
    start: Start, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with start(task_queue={"inline_result": 1_000_000}) as host:
        store = store_of(await service(host))
        task_id = await submit(host, "big_when_let_go", arguments={"size": 500_000})
        await logged(log, "started")
        limit_pages(store, 40)
        log.append("let go")
        await eventually(lambda: "cannot be recorded" in caplog.text)
        stats = await ask(host, "get_queue_stats")
        assert (stats["healthy"], stats["counts"]["running"]) == (False, 1)
        assert "is full" in stats["detail"]
        limit_pages(store, 1_000_000)
        answer = await result(host, task_id)
        assert (answer["state"], len(answer["text"])) == ("succeeded", 500_000)
        assert log == ["started", "let go"]
        assert (await ask(host, "get_queue_stats"))["healthy"]


async def test_a_full_store_refuses_a_submit_and_says_why(start: Start) -> None:
    async with start() as host:
        limit_pages(store_of(await service(host)), None)
        answer = await call(host, "submit_task", tool="shout", arguments={"text": "x" * 900_000})
        assert answer.error is not None
        assert answer.error["code"] == "store_full"
        assert "nothing was changed" in answer.text
        assert (await ask(host, "list_tasks"))["tasks"] == []


async def test_with_a_broken_store_the_outcome_is_left_to_the_next_start(
    start: Start, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    import sqlite3

    def fail(_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with start(task_queue={"lease": 1}) as host:
        task_id = await submit(host, "insist")
        await logged(log, "started")
        store = store_of(await service(host))
        with pytest.raises(Exception, match="accepts no changes any more"):
            store._writer.do(fail).result(10)
        log.append("let go")
        await eventually(lambda: "cannot be recorded" in caplog.text)
        assert (await status(host, task_id))["state"] == "running"
        refused = await call(host, "submit_task", tool="add", arguments={"a": 1})
        assert refused.error is not None
        assert refused.error["code"] == "store_broken"
        assert store.renew([Renewal(task_id, 1)], 1).exception(10) is not None
    async with start() as host:
        assert (await result(host, task_id))["state"] == "uncertain"


# --- the package ----------------------------------------------------------------------------------


async def test_the_manifest_fits_the_code() -> None:
    project = Path(__file__).parent.parent
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mcpd_core", "plugins", "manifest", str(project), "--check"
    )
    assert await process.wait() == 0


async def test_the_plugin_module_imports_neither_trio_nor_sqlite() -> None:
    code = (
        "import sys; before = set(sys.modules);"
        "import mcpd_task_queue.plugin as plugin; plugin.mcpd_services();"
        "heavy = {'trio', 'sqlite3', 'pydantic', 'mcp'} & (set(sys.modules) - before);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
