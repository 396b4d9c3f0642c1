"""When a recurring task is due: cron's five fields, in a time zone. No I/O.

The fields are read by cronsim, which does what Debian's cron does. Where clocks are put forward, a
job at a fixed hour that the day does not have runs right after the gap; where they are put back, it
runs once. A job whose minute or hour is a star goes by elapsed time: every hour is every hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from .errors import TaskRefused

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

#: What stands for "UTC" when no zone was named.
DEFAULT_ZONE = "UTC"
_HINT = (
    "Five fields: minute hour day-of-month month day-of-week, for example '30 7 * * MON-FRI'. "
    "The next times of a schedule are in the answer."
)


def check(expression: str, zone: str | None) -> None:
    """Refuse what is not five cron fields, is never due, or names no time zone.

    :raises TaskRefused: saying what is wrong with it.
    """
    if next_after(expression, zone, datetime.now(timezone.utc).timestamp()) is None:
        raise TaskRefused(f"The cron fields {expression!r} never come true.", hint=_HINT)


def next_after(expression: str, zone: str | None, after: float) -> float | None:
    """Return the first time at which the fields come true, later than the one given.

    :param zone: an IANA name; ``None`` is UTC.
    :param after: seconds since the epoch, like what is returned.
    :returns: ``None`` when there is none within fifty years.
    :raises TaskRefused: when the fields or the zone are none.
    """
    return next(times(expression, zone, after), None)


def times(expression: str, zone: str | None, after: float) -> Iterator[float]:
    """Yield the times at which the fields come true, in order.

    :raises TaskRefused: as `next_after` does.
    """
    # Most queues never see a schedule.
    from cronsim import CronSim, CronSimError

    if len(expression.split()) != 5:
        raise TaskRefused(f"{expression[:80]!r} has not five cron fields.", hint=_HINT)
    start = datetime.fromtimestamp(after, timezone.utc).astimezone(_zone(zone))
    try:
        found = CronSim(expression, start)
    # Fields of a kind that go with no other, such as "MON#1/2", it does not expect.
    except (CronSimError, AssertionError, TypeError, ValueError) as error:
        what = str(error) if isinstance(error, CronSimError) else "a combination of its terms"
        raise TaskRefused(
            f"The cron fields {expression!r} are not valid: {what}.", hint=_HINT
        ) from error
    for moment in found:
        seconds = moment.timestamp()
        # In the hour that is put back, a fixed time may be found once more that has passed already.
        if seconds > after:
            yield seconds


def _zone(name: str | None) -> ZoneInfo | timezone:
    from zoneinfo import ZoneInfo, available_timezones

    if name is None or name.upper() == DEFAULT_ZONE:
        return timezone.utc
    try:
        return ZoneInfo(name)
    # It is looked up as the path of a file, whatever was asked for.
    except (ValueError, OSError, KeyError) as error:
        import difflib  # only needed for this message

        close = difflib.get_close_matches(name, available_timezones(), n=1)
        raise TaskRefused(
            f"{name[:80]!r} is no time zone.",
            hint=f"Did you mean {close[0]!r}?"
            if close
            else "Use a name of the IANA's, such as 'Europe/Berlin'.",
        ) from error
