"""``mcpd tasks watch``: how often it asks the daemon while much is going on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from mcpd_core.commandline import Daemon
from mcpd_task_queue.cli.overview import REST, Overview


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
