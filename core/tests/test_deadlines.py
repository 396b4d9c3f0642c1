"""The timing wheel: never early, at most a tick late, and one timer for all."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpd_core.runtimes.deadlines import SHORT, TICK, Alarm, Deadlines, Wheel, deadlines

LATER = 1.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def nothing() -> None:
    """What an alarm does that is of no interest itself."""


# --- the wheel, with a clock of our own -----------------------------------------------------------

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.floats(0, 3)),
        st.tuples(st.just("cancel"), st.floats(0, 1)),
        st.tuples(st.just("pass"), st.floats(0, 1)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
def test_an_alarm_rings_after_its_deadline_and_within_a_tick_unless_it_is_cancelled(
    operations: list[tuple[str, float]],
) -> None:
    wheel, now = Wheel(), 1000.0
    set_: dict[int, tuple[float, Alarm]] = {}
    rung: list[int] = []
    for number, (what, amount) in enumerate(operations):
        if what == "add":
            alarm = wheel.add(now + amount, partial(rung.append, number))
            set_[number] = (now + amount, alarm)
        elif what == "cancel" and set_:
            key = sorted(set_)[int(amount * (len(set_) - 1))]
            set_.pop(key)[1].cancel()
        elif what == "pass":
            now += amount
            while (due := wheel.pop(now)) is not None:
                due.function()
            for key in rung:
                assert set_.pop(key)[0] <= now
            rung.clear()
            assert all(deadline + TICK > now for deadline, _ in set_.values())
        assert len(wheel) == len(set_)
        first = min((deadline for deadline, _ in set_.values()), default=None)
        when = wheel.next()
        assert (when is None) is (first is None)
        if when is not None and first is not None:
            assert first <= when + 1e-9 < first + TICK + 1e-6


def test_the_earliest_ticks_ring_first() -> None:
    wheel = Wheel(tick=1.0)
    rung: list[float] = []
    for deadline in (3.5, 1.5, 2.5):
        wheel.add(deadline, partial(rung.append, deadline))
    assert wheel.pop(1.9) is None
    while (alarm := wheel.pop(4.0)) is not None:
        alarm.function()
    assert rung == [1.5, 2.5, 3.5]
    assert wheel.next() is None


def test_an_alarm_cancelled_by_one_of_the_same_tick_does_not_ring() -> None:
    wheel = Wheel(tick=1.0)
    rung: list[int] = []
    alarms: list[Alarm] = []

    def ring(number: int) -> None:
        rung.append(number)
        alarms[1 - number].cancel()

    alarms += [wheel.add(0.5, partial(ring, number)) for number in range(2)]
    while (alarm := wheel.pop(1.0)) is not None:
        alarm.function()
    assert len(rung) == 1


def test_what_is_cancelled_leaves_nothing_behind() -> None:
    wheel = Wheel(tick=1.0)
    wheel.add(1e9, nothing)
    for second in range(100_000):
        wheel.add(second, nothing).cancel()
    assert len(wheel) == 1
    assert len(wheel._buckets) < 200
    assert len(wheel.order) == len(wheel._buckets)
    assert wheel.next() == 1e9


# --- on a loop ------------------------------------------------------------------------------------


class Timers:
    """Counts the timers that the running loop is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        call_later = loop.call_later
        self.live: list[asyncio.TimerHandle] = []

        def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
            timer = call_later(*arguments, **options)
            self.live.append(timer)
            return timer

        monkeypatch.setattr(loop, "call_later", counted)

    def __len__(self) -> int:
        return sum(not timer.cancelled() for timer in self.live)


@pytest.mark.anyio
async def test_many_deadlines_share_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, set_ = Timers(monkeypatch), Deadlines()
    now = time.monotonic()
    alarms = [set_.at(now + LATER + n / 1000, nothing) for n in range(10_000)]
    assert len(timers) == 1
    set_.at(now + LATER / 2, nothing)
    assert len(timers) == 1, "an earlier one takes the place of the first"
    for alarm in alarms:
        alarm.cancel()


@pytest.mark.anyio
async def test_a_short_deadline_has_a_timer_of_its_own_and_is_met_exactly() -> None:
    set_, rung = Deadlines(), asyncio.Event()
    handle = set_.at(time.monotonic() + SHORT / 2, rung.set)
    assert isinstance(handle, asyncio.TimerHandle)
    with anyio.fail_after(10):
        await rung.wait()
    gone = asyncio.Event()
    set_.at(time.monotonic() - 1, gone.set)
    with anyio.fail_after(10):
        await gone.wait()


@pytest.mark.anyio
async def test_a_deadline_that_never_comes_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, set_ = Timers(monkeypatch), Deadlines()
    never = set_.at(float("inf"), nothing)
    assert len(timers) == 0
    never.cancel()


@pytest.mark.anyio
async def test_a_longer_deadline_is_met_and_not_before_its_time() -> None:
    set_, rung = Deadlines(), asyncio.Event()
    deadline = time.monotonic() + 1.5 * SHORT
    assert isinstance(set_.at(deadline, rung.set), Alarm)
    cancelled = set_.at(deadline, lambda: pytest.fail("it was cancelled"))
    cancelled.cancel()
    with anyio.fail_after(10):
        await rung.wait()
    assert time.monotonic() >= deadline


@pytest.mark.anyio
async def test_no_timer_is_left_when_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, set_ = Timers(monkeypatch), Deadlines()
    rung = asyncio.Event()
    set_.at(time.monotonic() + 1.2 * SHORT, rung.set)
    for n in range(100):
        set_.at(time.monotonic() + LATER + n, nothing).cancel()
    with anyio.fail_after(10):
        await rung.wait()
    assert set_._timer is None
    loop = asyncio.get_running_loop()
    assert [
        timer for timer in timers.live if not timer.cancelled() and timer.when() > loop.time()
    ] == []


@pytest.mark.anyio
async def test_an_alarm_that_raises_does_not_cost_the_others_theirs() -> None:
    loop, set_ = asyncio.get_running_loop(), Deadlines()
    seen: list[Any] = []
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    rung: list[int] = []
    done = asyncio.Event()

    def ring(number: int) -> None:
        rung.append(number)
        if len(rung) == 3:
            done.set()
        raise ZeroDivisionError(number)

    deadline = time.monotonic() + 1.2 * SHORT
    for number in range(3):
        set_.at(deadline, partial(ring, number))
    with anyio.fail_after(10):
        await done.wait()
        await asyncio.sleep(0)
    assert sorted(rung) == [0, 1, 2]
    assert [type(error) for error in seen] == [ZeroDivisionError] * 3


def test_each_loop_has_its_own_and_neither_keeps_the_other_alive() -> None:
    async def own() -> Deadlines:
        own = deadlines()
        own.at(time.monotonic() + LATER, nothing)
        assert deadlines() is own
        return own

    loops = [asyncio.new_event_loop() for _ in range(2)]
    first, second = (loop.run_until_complete(own()) for loop in loops)
    assert first is not second
    gone = weakref.ref(loops[0])
    for loop in loops:
        loop.close()
    del loop, loops, first, second
    gc.collect()
    assert gone() is None
