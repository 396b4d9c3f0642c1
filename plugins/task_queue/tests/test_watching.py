"""``mcpd tasks watch``: how often it asks the daemon while much is going on, and how it is left."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import pytest

from mcpd_core.commandline import Daemon, interruptible
from mcpd_task_queue.cli.overview import REST, Overview
from mcpd_task_queue.cli.watching import _watch_one


class BusyDaemon:
    """Says every hundredth of a second that something has changed.

    :ivar now: what the clock shows; each answer takes some of it.
    """

    def __init__(self, answer_takes: float) -> None:
        self.now = 100.0
        self.busy = 0.0
        self.looks = 0
        self._takes = answer_takes

    def monotonic(self) -> float:
        return self.now

    def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.now += self._takes
        self.busy += self._takes
        if tool == "list_tasks":
            return {"tasks": []}
        self.looks += 1
        return {"counts": {"ready": 9, "running": 1}, "busy": 1, "workers": 1}

    def notification(self, timeout: float) -> tuple[str, Mapping[str, Any]] | None:
        self.now += min(timeout, 0.01)
        return "notifications/resources/updated", {"uri": "tasks://queues"}


def follow(daemon: BusyDaemon, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr("time.monotonic", daemon.monotonic)
    tasks = Overview(cast(Daemon, daemon))
    until = daemon.now + seconds
    while daemon.now < until:
        tasks.update()
        assert tasks.wait(1.0)


def test_however_much_happens_it_looks_a_few_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = BusyDaemon(answer_takes=0.001)
    follow(daemon, monkeypatch, 10.0)
    assert 10 / (REST + 0.05) <= daemon.looks <= 10 / REST + 1


def test_a_slow_daemon_is_left_alone_for_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = BusyDaemon(answer_takes=0.5)
    follow(daemon, monkeypatch, 60.0)
    assert 0.4 * 60 <= daemon.busy <= 0.5 * 60 + 4 * 0.5


@pytest.mark.parametrize("drawn", [True, False])
def test_a_signal_that_is_swallowed_where_it_arrives_ends_it_all_the_same(drawn: bool) -> None:
    class Followed:
        asked = 0

        def subscribe(self, uri: str) -> None:
            assert uri == "tasks://tasks/0123"

        def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
            self.asked += 1
            # As the interpreter does when it arrives in a finaliser.
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            return {
                "task_id": arguments["task_id"],
                "tool": "add",
                "state": "running",
                "started_at": None,
                "attempts": 1,
                "progress": None,
                "reason": "",
                "events": [],
            }

    followed = Followed()
    left = True
    with interruptible() as interrupted:
        _watch_one(cast(Daemon, followed), "0123", False, drawn, interrupted)
        left = False
    assert (left, followed.asked) == (True, 1)
