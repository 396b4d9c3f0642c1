"""Telling those who follow tasks and queues, as MCP resources, that something has changed."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from mcpd_core import Principal, ServiceHost

from .records import Change, Task

#: The resources of a principal: all queues together, one of them, and one task.
QUEUES = "tasks://queues"
QUEUE = "tasks://queues/{queue}"
TASK = "tasks://tasks/{task_id}"


def queue_uri(queue: str) -> str:
    """Return the URI of a queue."""
    return f"{QUEUES}/{quote(queue, safe='')}"


def task_uri(task_id: str) -> str:
    """Return the URI of a task."""
    return f"tasks://tasks/{task_id}"


class Announcer:
    """Says which resources have changed, each to the principal whose task it is and nobody else.

    The host makes a few notifications of however many changes.
    """

    def __init__(self, host: ServiceHost) -> None:
        self._host = host

    def committed(self, changes: Sequence[Change]) -> None:
        """Announce what was committed. May be called on any thread."""
        if not self._host.followed:
            return
        queues = set()
        for change in changes:
            if change.whose is not None:
                queues.add(change.whose)
                who = Principal(change.whose.principal_kind, change.whose.principal_id)
                self._host.resource_changed(task_uri(change.task_id), principal=who)
        for kind, id_, queue in queues:
            self.queue(Principal(kind, id_), queue)

    def progressed(self, task: Task) -> None:
        """Announce that a running task has got on, or has said something."""
        if self._host.followed:
            self._host.resource_changed(task_uri(task.id), principal=task.principal)

    def queue(self, principal: Principal, queue: str) -> None:
        """Announce that a queue is other than it was."""
        self._host.resource_changed(QUEUES, principal=principal)
        self._host.resource_changed(queue_uri(queue), principal=principal)
