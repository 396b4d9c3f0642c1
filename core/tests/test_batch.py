"""In which order the calls of a batch are started, and how the batch ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_core.errors import Busy, CallCancelled, NotStarted, UnknownTool
from mcpd_core.host.batch import Batch
from mcpd_core.spec import Answer, CallResult, ToolCall

FINE = CallResult("fine")
FAILED = CallResult("no", error={"code": "tool_failed"})


def batch(calls: int, *, limit: int = 100, stop_on_error: bool = False) -> Batch:
    return Batch(
        [ToolCall(f"tool{n}") for n in range(calls)], limit=limit, stop_on_error=stop_on_error
    )


def started(batch: Batch) -> list[int]:
    found = []
    while (index := batch.next()) is not None:
        found.append(index)
    return found


def test_as_many_as_the_limit_are_started_in_order_and_one_more_for_each_that_ends() -> None:
    three = batch(5, limit=3)
    assert started(three) == [0, 1, 2]
    three.settle(1, FINE)
    assert started(three) == [3]
    three.settle(3, FAILED)
    assert started(three) == [4]


def test_the_answers_are_in_the_order_of_the_calls() -> None:
    two = batch(2)
    assert started(two) == [0, 1]
    two.settle(1, CallResult("second"))
    two.settle(0, CallResult("first"))
    assert two.answers() == [CallResult("first"), CallResult("second")]


def test_a_batch_of_nothing_has_no_answers() -> None:
    assert batch(0).next() is None
    assert batch(0).answers() == []


@pytest.mark.parametrize("failure", [FAILED, UnknownTool("no such tool"), CallCancelled("gone")])
def test_the_first_failure_ends_a_batch_that_stops_on_errors(failure: Answer) -> None:
    stopping = batch(4, limit=2, stop_on_error=True)
    assert started(stopping) == [0, 1]
    stopping.settle(0, failure)
    assert stopping.stopped
    assert started(stopping) == []
    stopping.settle(1, CallCancelled("cancelled"))
    answers = stopping.answers()
    assert answers[0] is failure
    assert isinstance(answers[1], CallCancelled)
    assert all(isinstance(answer, NotStarted) for answer in answers[2:])
    assert (
        str(answers[2]) == "The tool 'tool2' was not started, because the call of 'tool0' failed."
    )
    assert isinstance(answers[3], NotStarted)
    assert answers[3].data == {"because_of": 0}


def test_what_there_was_no_room_for_is_started_again_when_another_has_ended() -> None:
    crowded = batch(3, limit=2)
    assert started(crowded) == [0, 1]
    assert crowded.put_back(0)
    assert started(crowded) == [], "the batch goes on with one at a time"
    crowded.settle(1, FINE)
    assert started(crowded) == [0]
    assert not crowded.put_back(0), "nothing is under way that could make room"
    crowded.settle(0, Busy("full", retry_after=1))
    assert started(crowded) == [2]


def test_nothing_is_put_back_into_a_batch_that_has_ended() -> None:
    ended = batch(3, limit=3, stop_on_error=True)
    assert started(ended) == [0, 1, 2]
    ended.settle(0, FAILED)
    assert not ended.put_back(1)


@given(
    calls=st.integers(0, 12),
    limit=st.integers(1, 5),
    stop_on_error=st.booleans(),
    events=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["fine", "failed", "busy"]))),
)
def test_whatever_happens_every_call_is_answered_once_and_the_limit_is_kept(
    calls: int, limit: int, stop_on_error: bool, events: list[tuple[int, str]]
) -> None:
    any_batch = batch(calls, limit=limit, stop_on_error=stop_on_error)
    under_way: list[int] = []
    settled: list[int] = []
    tries = [0] * calls
    while True:
        for index in started(any_batch):
            tries[index] += 1
            under_way.append(index)
        assert len(under_way) <= limit
        if not under_way:
            break
        position, event = events.pop() if events else (0, "fine")
        index = under_way.pop(position % len(under_way))
        if event == "busy" and any_batch.put_back(index):
            continue
        any_batch.settle(index, FAILED if event == "failed" else FINE)
        settled.append(index)
    assert len(set(settled)) == len(settled)
    assert sum(tries) <= calls + limit, "each call that is put back costs the batch one lane"
    unstarted = [a for a in any_batch.answers() if isinstance(a, NotStarted)]
    assert len(unstarted) + len(settled) == calls
    assert any_batch.stopped or not unstarted
