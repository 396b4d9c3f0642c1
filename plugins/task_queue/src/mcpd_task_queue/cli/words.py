"""How times and data are written for people."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

#: Seconds in each unit, the largest first.
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def moment(stamp: str | None) -> float | None:
    """Return a time of the daemon's as seconds since the epoch."""
    if stamp is None:
        return None
    # Python 3.10 does not know the Z.
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def duration(seconds: float) -> str:
    """Write a duration with the one unit that tells: ``45 s``, ``12 min``, ``3 h``, ``2 d``."""
    for unit, size in _UNITS:
        if seconds >= 2 * size or (unit == "min" and seconds >= 90):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 9.95 else f"{max(0.0, seconds):.1f} s"


def age(stamp: str | None, now: float | None = None) -> str:
    """Say how long ago something was; empty when it has not been."""
    then = moment(stamp)
    if then is None:
        return ""
    return duration((time.time() if now is None else now) - then)


def clock(stamp: str | None) -> str:
    """Write a time as the local clock shows it."""
    then = moment(stamp)
    return "" if then is None else datetime.fromtimestamp(then).strftime("%Y-%m-%d %H:%M:%S")


def progress(report: Mapping[str, Any] | None) -> str:
    """Write how far a task is; empty when its tool does not say."""
    if report is None:
        return ""
    text = f"{report['done']:g}"
    if report["total"] is not None:
        text += f"/{report['total']:g}"
    return f"{text} {report['message']}".strip()


def tries(task: Mapping[str, Any]) -> str:
    """Write how many attempts were made, of how many; a recurring task makes none."""
    return "-" if task["cron"] else f"{task['attempts']}/{task['max_attempts']}"


def data(value: Any) -> str:
    """Write JSON data so that it can be read: short data in one line."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= 72 else json.dumps(value, ensure_ascii=False, indent=2)
