"""Retries: the policy as a rule with numbers, and what clients see of attempts, deadlines and dead
letters through the real host."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_core import InvalidArguments, Principal
from mcpd_core.host import Host
from mcpd_task_queue.policy import verdict_on
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.retrying import Backoff, RetryPolicy
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.testing import New
from mcpd_task_queue.testing.suite import claim, look
from mcpd_task_queue.testing.suite import submit as put

from .asking import ask, call, kinds, result, status, submit

OTHER = Principal("local", "1001", "bob")
Start = Callable[..., AbstractAsyncContextManager[Host]]
pytestmark = pytest.mark.anyio

policies = st.builds(
    RetryPolicy,
    first=st.none() | st.floats(0, 1e6),
    longest=st.none() | st.floats(0, 1e6),
    multiplier=st.floats(1, 100),
    jitter=st.floats(0, 1),
    never_on=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- the policy -----------------------------------------------------------------------------------


@given(policies, st.integers(1, 1_000_000), st.floats(0, 1))
def test_a_wait_is_within_its_cap_and_no_shorter_than_its_sure_part(
    policy: RetryPolicy, failures: int, chance: float
) -> None:
    backoff = policy.backoff(Backoff(2.0, 300.0, lambda: chance))
    first = 2.0 if policy.first is None else policy.first
    cap = 300.0 if policy.longest is None else policy.longest
    longest = min(cap, first * policy.multiplier ** min(failures - 1, 30))
    assert (1 - policy.jitter) * longest * 0.999 <= backoff.after(failures) <= longest <= cap


@given(policies, st.integers(1, 100))
def test_waits_do_not_shrink_when_nothing_is_random(policy: RetryPolicy, failures: int) -> None:
    backoff = policy.backoff(Backoff(2.0, 300.0, lambda: 0.0))
    assert backoff.after(failures) <= backoff.after(failures + 1)


@given(policies)
def test_a_policy_is_read_back_as_it_was_written(policy: RetryPolicy) -> None:
    assert RetryPolicy.from_json(json.loads(json.dumps(policy.as_json()))) == policy


def test_what_a_later_version_added_to_a_policy_is_left_out() -> None:
    assert RetryPolicy.from_json({"first": 1.0, "colour": "red"}) == RetryPolicy(first=1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": -1.0},
        {"first": float("inf")},
        {"longest": float("nan")},
        {"multiplier": 0.5},
        {"multiplier": 101.0},
        {"jitter": 1.5},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


@given(st.integers(1, 100), st.integers(1, 100), st.sampled_from(["quota", "timeout", ""]))
def test_an_error_that_is_ruled_out_is_final_whatever_the_budget(
    attempts: int, max_attempts: int, code: str
) -> None:
    policy = RetryPolicy(never_on=("quota",))
    verdict, _ = verdict_on(
        {"code": code, "retry_after": 1.0},
        attempts=attempts,
        max_attempts=max_attempts,
        policy=policy,
    )
    if code == "quota":
        assert verdict == "failed"
    else:
        assert verdict == ("dead" if attempts >= max_attempts else "retry")


# --- through the host -----------------------------------------------------------------------------


async def test_a_task_is_tried_by_its_own_policy(start: Start, log: list[str]) -> None:
    # By the settings the second attempt would come in an hour or more.
    async with start(task_queue={"first_retry": 7_200, "longest_retry": 7_200}) as host:
        task_id = await submit(
            host, "flaky", arguments={"fails": 2}, retry={"first": 0.01, "multiplier": 1.5}
        )
        answer = await result(host, task_id)
        assert (answer["state"], answer["text"]) == ("succeeded", "answered")
        found = await status(host, task_id)
        assert [failure["attempt"] for failure in found["failed_attempts"]] == [1, 2]


async def test_an_error_that_the_policy_rules_out_is_not_tried_again(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        task_id = await submit(
            host, "flaky", arguments={"fails": 9}, retry={"never_on": ["tool_failed"]}
        )
        answer = await result(host, task_id)
        assert answer["error"]["code"] == "tool_failed"
        assert (answer["state"], log) == ("failed", ["flaky"])


async def test_a_dead_letter_has_the_error_of_every_attempt(start: Start, log: list[str]) -> None:
    async with start() as host:
        task_id = await submit(host, "flaky", arguments={"fails": 9}, max_attempts=3)
        answer = await result(host, task_id)
        assert answer["state"] == "dead"
        errors = [failure["error"]["message"] for failure in answer["failed_attempts"]]
        assert errors == ["The service did not answer."] * 3
        assert answer["failed_attempts"] == (await status(host, task_id))["failed_attempts"]


async def test_a_call_has_no_more_time_than_is_left_of_all_attempts(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        task_id = await submit(host, "hold_safely", deadline=0.3, timeout=60)
        answer = await result(host, task_id)
        assert (answer["state"], log[-1]) == ("dead", "cleaned")
        assert answer["error"]["code"] == "deadline_exceeded"
        assert "its deadline of 0.3 s leaves no time for another attempt" in answer["why"]


async def test_a_task_that_waits_past_its_deadline_is_dead_without_being_looked_at(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        await ask(host, "pause_queue", queue="later")
        answer = await ask(
            host, "submit_task", tool="add", arguments={"a": 1}, queue="later", deadline=0.2
        )
        ended = await result(host, answer["task_id"])
        assert (ended["state"], ended["error"]["code"]) == ("dead", "expired")
        found = await status(host, answer["task_id"])
        assert (kinds(found), found["deadline_at"] is None) == (["submitted", "expired"], False)
        assert log == []


async def test_what_was_due_too_long_ago_is_dead_after_a_start(
    start: Start, left_behind: Callable[..., list[str]], me: Principal, log: list[str]
) -> None:
    late, fine = left_behind(
        [NewTask("add", {"a": 1}, me, deadline=0.001), NewTask("add", {"a": 2}, me)]
    )
    async with start() as host:
        assert (await result(host, fine))["state"] == "succeeded"
        assert (await result(host, late))["state"] == "dead"
        assert log == ["add 2"]


async def test_a_start_takes_over_all_that_was_left_however_much_it_is(
    start: Start,
    left_behind: Callable[..., list[str]],
    me: Principal,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mcpd_task_queue.sqlite import sweeping

    monkeypatch.setattr(sweeping, "SWEEP_LIMIT", 2)
    tasks = [NewTask("add", {"a": n}, me, repeatable=True) for n in range(5)]
    ids = left_behind(tasks, running=5)
    async with start() as host:
        for task_id in ids:
            answer = await result(host, task_id)
            assert answer["state"] == "succeeded"
            (failure,) = (await status(host, task_id))["failed_attempts"]
            assert failure["error"]["message"] == "the process that ran it died"
    assert sorted(log) == [f"add {n}" for n in range(5)]


@pytest.mark.parametrize("wrong", [{"multiplier": 0}, {"jitter": 2}, {"colour": "red"}])
async def test_a_policy_that_does_not_fit_is_refused(start: Start, wrong: dict[str, Any]) -> None:
    async with start() as host:
        with pytest.raises(InvalidArguments, match=f"retry.{next(iter(wrong))}"):
            await call(host, "submit_task", tool="add", arguments={"a": 1}, retry=wrong)
        assert (await ask(host, "list_tasks"))["tasks"] == []


async def test_each_item_of_a_batch_has_its_own_policy(start: Start) -> None:
    async with start() as host:
        good = {"tool": "add", "arguments": {"a": 1}, "retry": {"first": 1}, "deadline": 60}
        answer = await ask(host, "submit_tasks", tasks=[good, {**good, "retry": {"jitter": 2}}])
        assert [item["outcome"] for item in answer["tasks"]] == ["created", "rejected"]


# --- trying anew ----------------------------------------------------------------------------------


async def dead(host: Host, **options: Any) -> str:
    task_id = await submit(host, "flaky", arguments={"fails": 999}, max_attempts=1, **options)
    assert (await result(host, task_id))["state"] == "dead"
    return task_id


async def test_several_are_tried_anew_each_with_its_outcome(start: Start, log: list[str]) -> None:
    async with start() as host:
        one, two = await dead(host), await dead(host)
        waiting = await submit(host, "add", arguments={"a": 1}, delay=60)
        answer = await ask(host, "retry_task", task_ids=[one, two, waiting, "f" * 32])
        assert answer["retried"] == 2
        assert [(item["outcome"], item.get("state")) for item in answer["tasks"]] == [
            ("retried", "ready"),
            ("retried", "ready"),
            ("unchanged", "scheduled"),
            ("unknown", None),
        ]


async def test_all_that_match_are_tried_anew_when_that_is_confirmed(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        mine = [await dead(host, queue="a", tags=["x"]), await dead(host, queue="a")]
        await dead(host, queue="b")
        refused = await call(host, "retry_task", matching={"queue": "a"})
        assert refused.error is not None
        assert "2 of your tasks are dead and match; nothing was changed" in refused.text
        assert [(await status(host, id_))["state"] for id_ in mine] == ["dead", "dead"]
        answer = await ask(host, "retry_task", matching={"queue": "a", "tag": "x"}, confirm=True)
        assert answer == {"retried": 1, "more": False}
        assert "retried" in kinds(await status(host, mine[0]))
        anothers = await ask(host, "retry_task", OTHER, matching={}, confirm=True)
        assert anothers == {"retried": 0, "more": False}


async def test_one_that_fails_again_meanwhile_is_tried_anew_once(
    start: Start, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcpd_task_queue import queue

    monkeypatch.setattr(queue, "RETRY_PAGE", 1)
    async with start() as host:
        ids = [await dead(host) for _ in range(3)]
        answer = await ask(host, "retry_task", matching={}, confirm=True)
        assert answer == {"retried": 3, "more": False}
        for task_id in ids:
            await result(host, task_id)
            assert kinds(await status(host, task_id)).count("retried") == 1


@pytest.mark.parametrize("given", [{}, {"task_id": "a", "task_ids": ["b"]}])
async def test_tasks_are_named_in_one_way(start: Start, given: dict[str, Any]) -> None:
    async with start() as host:
        answer = await call(host, "retry_task", **given)
        assert answer.error is not None
        assert answer.error["code"] == "task_refused"


# --- the embedded engine --------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["tags = '7'", "retry = '{\"multiplier\": 0}'"])
def test_a_row_that_cannot_be_read_does_not_keep_the_others_of_its_batch(
    store: SQLiteTaskStore, new: New, me: Principal, damage: str
) -> None:
    first, damaged, last = put(store, new(), new(), new())
    store._writer.do(
        lambda tx: tx.execute(f"UPDATE task SET {damage} WHERE id = ?", (damaged,))
    ).result()
    assert [task.id for task in claim(store, 2)] == [first, last]
    assert store.health().counts["dead"] == 1
    reason = "SELECT reason, attempts FROM task WHERE id = ?"
    ((said, attempts),) = store._writer.do(
        lambda tx: tx.execute(reason, (damaged,)).fetchall()
    ).result()
    assert said.startswith("what is stored of it cannot be read: ")
    assert attempts == 0


def test_a_due_row_that_cannot_be_read_does_not_stall_the_sweep(
    store: SQLiteTaskStore, new: New, me: Principal, clock: Any
) -> None:
    damaged, fine = put(store, new(delay=5), new(delay=5))
    store._writer.do(
        lambda tx: tx.execute("UPDATE task SET tags = '7' WHERE id = ?", (damaged,))
    ).result()
    clock.advance(5)
    assert store.sweep().result().readied == 2
    assert [task.id for task in claim(store, 2)] == [fine]
    assert store.health().counts["dead"] == 1


def test_arguments_that_are_gone_do_not_keep_the_others_either(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    damaged, fine = put(store, new(), new())
    store._writer.do(
        lambda tx: tx.execute("DELETE FROM payload WHERE seq = (SELECT min(seq) FROM task)")
    ).result()
    assert [task.id for task in claim(store, 1)] == [fine]
    snapshot = store.get(me, damaged).result()
    assert snapshot is not None
    assert snapshot.task.state == "dead"
    assert look(store, me, fine).task.state == "running"
