"""What ``mcpd tasks watch`` without a task shows: those that run, wait, and have ended last."""

from __future__ import annotations

import time
from typing import Any

from mcpd_core.commandline import Daemon
from mcpd_task_queue.records import SETTLED

from .asking import PAGE

#: The order in which states are shown, what needs looking at first.
ORDER = ("running", "uncertain", "ready", "paused", "scheduled")
#: Tasks that have ended for which there is room, however many go on.
ENDED = 5
#: Seconds between two looks at least, so that a queue in full swing can still be read.
REST = 0.2
#: Tasks that are remembered; more are not shown on any terminal.
MOST = 1_000


class Overview:
    """The tasks that matter now, as the daemon tells of them.

    :ivar counts: how many tasks are in which state.
    :ivar load: how many workers are busy, and how many there are.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._tasks: dict[str, dict[str, Any]] = {}
        self._said: dict[str, dict[str, Any]] = {}
        self._took = 0.0
        self.counts: dict[str, int] = {}
        self.load = (0, 0)

    def wait(self, tick: float) -> bool:
        """Wait until something has happened, and for what happens soon after that.

        The daemon is left alone for as long as the last look has kept it busy, so that it has at
        least half of its time for its tasks.

        :param tick: seconds to wait at most.
        :returns: whether there is something to look at.
        """
        if self._daemon.notification(tick) is None:
            return False
        until = time.monotonic() + max(REST, self._took)
        while (left := until - time.monotonic()) > 0:
            self._daemon.notification(left)
        return True

    def update(self) -> None:
        """Ask the daemon anew."""
        started = time.monotonic()
        self._update()
        self._took = time.monotonic() - started

    def _update(self) -> None:
        stats = self._daemon.call("get_queue_stats", {})
        self.counts = stats["counts"]
        self.load = (stats["busy"], stats["workers"])
        found = self._page()
        for state in ORDER:
            if self.counts.get(state):
                found |= self._page(state=state)
        # One that was going on and is in no list any more has ended, or is far down.
        for task_id, task in self._tasks.items():
            if task_id not in found and task["state"] not in SETTLED:
                found |= self._page(id_prefix=task_id)
        ended = {key: task for key, task in self._tasks.items() if task["state"] in SETTLED}
        kept = sorted({**ended, **found}.items(), key=lambda item: _when(item[1]))
        self._tasks = dict(kept[-MOST:])

    def rows(self, room: int) -> list[dict[str, Any]]:
        """Return tasks, those that go on first, and then those that have ended last.

        :param room: how many there may be; however many go on, some that have ended are among them.
        """
        places = {state: place for place, state in enumerate(ORDER)}
        latest = sorted(self._tasks.values(), key=_when, reverse=True)
        ended = [task for task in latest if task["state"] not in places]
        going = [task for task in latest if task["state"] in places]
        going.sort(key=lambda task: places[task["state"]])
        going = going[: max(0, room - min(len(ended), ENDED))]
        return [*going, *ended][:room]

    def __len__(self) -> int:
        return len(self._tasks)

    def changed(self) -> list[dict[str, Any]]:
        """Return the tasks that differ from what this returned before, in the order of change."""
        changed = [task for key, task in self._tasks.items() if self._said.get(key) != task]
        self._said = dict(self._tasks)
        return sorted(changed, key=_when)

    def _page(self, **filters: Any) -> dict[str, dict[str, Any]]:
        page = self._daemon.call("list_tasks", {**filters, "limit": PAGE})
        return {task["task_id"]: task for task in page["tasks"]}


def _when(task: dict[str, Any]) -> str:
    return str(task["updated_at"])
