"""What becomes of tasks, decided without any store."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_core import Busy, HostClosed, InvalidArguments, Principal, Progress, ToolUnavailable
from mcpd_task_queue import answers
from mcpd_task_queue.policy import after_refusal, verdict_on
from mcpd_task_queue.records import Reported, Snapshot, Task
from mcpd_task_queue.retrying import Backoff
from mcpd_task_queue.settings import TaskQueueSettings


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_waits_grow_up_to_the_cap_and_half_of_each_is_sure(failures: int, chance: float) -> None:
    wait = Backoff(2.0, 300.0, lambda: chance).after(failures)
    longest = min(300.0, 2.0 * 2.0 ** min(failures - 1, 30))
    assert longest / 2 <= wait <= longest


@pytest.mark.parametrize(
    ("error", "attempts", "verdict"),
    [
        ({"message": "no"}, 1, ("retry", None)),
        ({"message": "no"}, 3, ("dead", None)),
        ({"retryable": False}, 1, ("failed", None)),
        ({"data": {"retryable": False}}, 1, ("failed", None)),
        ({"retry_after": 5}, 1, ("retry", 5.0)),
        ({"data": {"retry_after": 2.5}}, 1, ("retry", 2.5)),
        ({"retry_after": -1}, 1, ("retry", None)),
        ({"retry_after": True}, 1, ("retry", None)),
        ({"retry_after": "soon"}, 1, ("retry", None)),
        ({"data": "odd"}, 1, ("retry", None)),
    ],
)
def test_verdicts(error: dict[str, Any], attempts: int, verdict: Any) -> None:
    assert verdict_on(error, attempts=attempts, max_attempts=3) == verdict


def test_only_what_waiting_can_mend_is_waited_for() -> None:
    busy = after_refusal(Busy("All workers are busy.", retry_after=3.0), "t")
    assert (busy.action, busy.retry_in) == ("release", 3.0)
    assert after_refusal(HostClosed("closing"), "t").retry_in == 0.0
    broken = after_refusal(ToolUnavailable("Its module cannot be imported."), "t")
    assert (broken.action, broken.reason) == ("release", "Its module cannot be imported.")
    assert after_refusal(InvalidArguments("a: missing"), "t").action == "fail"


def task(**options: Any) -> Task:
    defaults: dict[str, Any] = {
        "id": "0" * 32,
        "tool": "t",
        "state": "ready",
        "principal": Principal("local", "1"),
        "client": "",
        "queue": "default",
        "priority": 0,
        "delivery": "at_least_once",
        "repeatable": False,
        "timeout": None,
        "max_attempts": 3,
        "attempts": 0,
        "fence": 0,
        "tags": (),
        "idempotency_key": None,
        "reason": "",
        "created_at": 1_700_000_000.25,
        "updated_at": 1_700_000_000.25,
        "run_at": None,
        "started_at": None,
        "finished_at": None,
        "progress": None,
        "cancelling": False,
    }
    return Task(**{**defaults, **options})


def test_times_are_told_in_utc() -> None:
    answer = answers.status(Snapshot(task(), ahead=0), Reported(Progress(1), 1_700_000_000.5), 4)
    assert answer["created_at"] == "2023-11-14T22:13:20.250Z"
    assert answer["due_at"] is None
    assert datetime.fromisoformat(answer["created_at"].replace("Z", "+00:00")).timestamp() > 0
    assert answer["progress"] == {
        "done": 1,
        "total": None,
        "message": "",
        "at": "2023-11-14T22:13:20.500Z",
    }


def test_a_task_that_came_back_says_why_it_waits_again() -> None:
    snapshot = Snapshot(task(reason="its lease ran out; it is safe to repeat"), ahead=0)
    assert answers.why(snapshot, 4) == (
        "waits for one of 4 workers; it is next (its lease ran out; it is safe to repeat)"
    )


def test_a_cancelled_task_says_what_there_is_to_say() -> None:
    assert answers.why(Snapshot(task(state="cancelled", reason="it was interrupted")), 4) == (
        "it was interrupted"
    )


@pytest.mark.parametrize(
    "section",
    [{"workers": 0}, {"lease": 0.5}, {"retention": -1}, {"durability": "none"}, {"other": 1}],
)
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(section))):
        TaskQueueSettings(**section)
