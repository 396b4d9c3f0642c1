"""When recurring tasks are due: the fields, the zones, and the two hours a year that are odd."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_task_queue import cron
from mcpd_task_queue.errors import TaskRefused


def seconds(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def following(expression: str, zone: str | None, after: float, n: int = 3) -> list[str]:
    place = ZoneInfo(zone) if zone else timezone.utc
    return [
        datetime.fromtimestamp(moment, place).isoformat()
        for moment in islice(cron.times(expression, zone, after), n)
    ]


def test_times_come_in_order_and_after_the_one_given() -> None:
    start = seconds("2026-11-22T07:30:00")
    assert following("30 7 * * MON-FRI", None, start) == [
        "2026-11-23T07:30:00+00:00",
        "2026-11-24T07:30:00+00:00",
        "2026-11-25T07:30:00+00:00",
    ]
    assert cron.next_after("30 7 22 11 *", "UTC", start - 0.5) == start


def test_the_zone_says_when_it_is_nine() -> None:
    start = seconds("2026-01-01T00:00:00")
    assert cron.next_after("0 9 * * *", "Asia/Tokyo", start - 1) == start
    assert following("0 9 * * *", "Europe/Berlin", start, 1) == ["2026-01-01T09:00:00+01:00"]


def test_a_fixed_time_that_a_day_does_not_have_comes_right_after_the_gap() -> None:
    start = seconds("2026-03-28T12:00:00", "Europe/Berlin")
    assert following("30 2 * * *", "Europe/Berlin", start, 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_fixed_time_that_a_day_has_twice_comes_once() -> None:
    start = seconds("2026-10-24T12:00:00", "Europe/Berlin")
    assert following("30 2 * * *", "Europe/Berlin", start, 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_in_the_second_of_the_doubled_hours_a_fixed_time_of_the_first_has_passed() -> None:
    again = datetime(2026, 10, 25, 2, 10, tzinfo=ZoneInfo("Europe/Berlin"), fold=1).timestamp()
    assert following("30 2 * * *", "Europe/Berlin", again, 1) == ["2026-10-26T02:30:00+01:00"]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_every_hour_is_every_hour_that_passes(day: str, hours: int) -> None:
    start = seconds(f"{day}T00:00:00", "Europe/Berlin")
    end = (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()
    times = list(islice(cron.times("0 * * * *", "Europe/Berlin", start - 1), 30))
    assert [b - a for a, b in pairwise(times)] == [3600.0] * 29
    midnight = seconds(f"{end}T00:00:00", "Europe/Berlin")
    assert sum(moment < midnight for moment in times) == hours


@pytest.mark.parametrize(
    ("expression", "zone", "complaint"),
    [
        ("* * * *", None, "has not five cron fields"),
        ("0 * * * * *", None, "has not five cron fields"),
        ("@daily", None, "has not five cron fields"),
        ("61 * * * *", None, "not valid: Bad minute"),
        ("* * * * MON#1/2", None, "not valid"),
        ("0 0 30 2 *", None, "not valid: Bad day-of-month"),
        ("0 0 31 4,6 L", None, "not valid"),
        ("* * * * *", "Europe/Berlinn", "is no time zone. Did you mean 'Europe/Berlin'?"),
        ("* * * * *", "../../etc/passwd", "is no time zone"),
        ("* * * * *", "x" * 500, "is no time zone"),
        ("* * * * *", "", "is no time zone"),
    ],
)
def test_what_is_wrong_is_said(expression: str, zone: str | None, complaint: str) -> None:
    with pytest.raises(TaskRefused) as caught:
        cron.check(expression, zone)
    assert complaint in str(caught.value)


def test_what_never_comes_true_is_refused() -> None:
    # The fifth Monday of a month is never its first day.
    assert cron.next_after("0 0 */40 * MON#5", None, 0) is None
    with pytest.raises(TaskRefused, match="never come true"):
        cron.check("0 0 */40 * MON#5", None)


FIELD = st.one_of(
    st.sampled_from(["*", "*/5", "0", "1-5", "L", "LW", "MON", "MON#5", "7L", "JAN", "1,2", "*/0"]),
    st.text(alphabet="0123456789*/,-#LWMON", min_size=1, max_size=6),
)


@given(
    fields=st.lists(FIELD, min_size=5, max_size=5),
    zone=st.sampled_from([None, "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"]),
    after=st.floats(0, 4e9),
)
def test_whatever_the_fields_they_are_refused_or_give_a_later_time(
    fields: list[str], zone: str | None, after: float
) -> None:
    try:
        found = cron.next_after(" ".join(fields), zone, after)
    except TaskRefused:
        return
    assert found is None or found > after


def test_the_library_is_imported_with_the_first_schedule() -> None:
    code = (
        "import sys, mcpd_task_queue.service, mcpd_task_queue.tools.submission;"
        "sys.exit('cronsim' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
