"""A plugin of coverage.py, without which a measured process may not end after Ctrl-C.

At each call coverage.py takes a lock, through a function written in Python. An exception that the
handler of a signal raises there leaves the lock taken, and the process waits for it at its end, for
ever. No handler runs within the lock's own methods, which are written in C; so they are handed out
in place of those functions.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from coverage.collector import Collector


def coverage_init(registry: Any, options: Any) -> None:
    """Do as said, before anything is measured. Called by coverage.py.

    :param registry: where plugins that do more are entered.
    :param options: of the plugin; it has none.
    """
    for name, method in (("lock_data", "acquire"), ("unlock_data", "release")):
        setattr(Collector, name, property(attrgetter(f"data_lock.{method}")))
