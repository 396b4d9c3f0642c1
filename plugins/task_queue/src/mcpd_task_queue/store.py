"""`TaskStore`: the protocol between the task queue and the engine that keeps its tasks.

Every operation returns a `concurrent.futures.Future` that is resolved once the change is durable,
and not before: whoever sees the answer can rely on it. A future that fails says that nothing was
changed. The protocol belongs to no event loop; futures are resolved, and listeners called, on a
thread of the engine.

An engine keeps four promises, whatever dies and whenever:

* a task whose submit was acknowledged is there until its retention has passed;
* it ends in exactly one final state, and at most one outcome of it is recorded;
* only the latest start of a task (its fence) can record an outcome;
* a task whose cancelling was acknowledged never becomes ``succeeded``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Protocol

from mcpd_core import CallResult, Principal

from .records import (
    Cancelled,
    Change,
    Filter,
    NewTask,
    Page,
    QueueStats,
    Recorded,
    Renewal,
    Snapshot,
    StoreHealth,
    Submitted,
    Swept,
    Task,
)

#: What is to become of a task whose attempt failed.
Verdict = Literal["retry", "failed", "dead"]
#: Called with the changes of each commit, before its futures are resolved. It must be quick.
Listener = Callable[[Sequence[Change]], None]


class TaskStore(Protocol):
    """Where tasks are kept. See the module's docstring for what every engine promises."""

    @property
    def instance(self) -> str:
        """The identity of the store itself; it stays the same from one start to the next."""
        ...

    def listen(self, listener: Listener | None) -> None:
        """Have ``listener`` called after each commit; ``None`` ends it."""
        ...

    def submit(self, batch: Sequence[NewTask]) -> Future[list[Submitted]]:
        """Store new tasks, all of them or none.

        :returns: one outcome per task, in order.
        :raises TaskRefused: at once, when a task's arguments are too large or are not JSON.
        """
        ...

    def claim(self, owner: str, limit: int, lease: float) -> Future[list[Task]]:
        """Start up to ``limit`` ready tasks, best first, and count an attempt for each.

        :param owner: who starts them. It must be new with each start of a process: a name that
            came back would hide that its former bearer has died.
        :param lease: seconds for which they are the owner's unless renewed.
        :returns: the tasks, with their arguments.
        """
        ...

    def renew(self, renewals: Sequence[Renewal], lease: float) -> Future[list[Recorded]]:
        """Prolong leases, also ones that have run out if nobody noticed, and store progress."""
        ...

    def complete(self, task_id: str, fence: int, result: CallResult) -> Future[Recorded]:
        """Record that a task succeeded.

        :raises TaskRefused: at once, when the result is not JSON.
        """
        ...

    def fail(
        self,
        task_id: str,
        fence: int,
        error: Mapping[str, Any],
        verdict: Verdict,
        retry_in: float = 0.0,
    ) -> Future[Recorded]:
        """Record that an attempt failed.

        :param error: JSON-compatible; ``message`` is what people are shown.
        :param retry_in: seconds until the next attempt, when the verdict is ``retry``.
        """
        ...

    def release(
        self, task_id: str, fence: int, reason: str, retry_in: float = 0.0
    ) -> Future[Recorded]:
        """Give back a task that was claimed but not started; it costs no attempt.

        :param reason: why it could not be started; shown to whoever asks why the task waits.
        :param retry_in: seconds before it may be claimed again.
        """
        ...

    def interrupt(
        self, task_id: str, fence: int, reason: str, *, count_attempt: bool
    ) -> Future[Recorded]:
        """Record that an attempt was cut off, its effect unknown; the policy decides what follows.

        :param count_attempt: whether it counts as one; an orderly shutdown is not the task's fault.
        """
        ...

    def cancel(self, principal: Principal, task_id: str) -> Future[Cancelled | None]:
        """Cancel a waiting task, or ask for a running one to be cancelled.

        :returns: ``None`` when the principal has no such task.
        """
        ...

    def get(
        self, principal: Principal, task_id: str, *, payload: bool = False, events: int = 0
    ) -> Future[Snapshot | None]:
        """Look one task up.

        :param payload: whether to read arguments, result and error.
        :param events: how many of its latest events to read.
        :returns: ``None`` when the principal has no such task.
        """
        ...

    def find(
        self, principal: Principal, wanted: Filter, *, cursor: str | None = None, limit: int = 50
    ) -> Future[Page]:
        """List the principal's tasks, newest first.

        :raises TaskRefused: at once, when the cursor is not one that a page gave.
        """
        ...

    def stats(self, principal: Principal) -> Future[list[QueueStats]]:
        """Count the principal's tasks, per queue in alphabetical order."""
        ...

    def recover(self, owner: str) -> Future[Swept]:
        """Take over what every other owner left running. Only for the one owner of the store."""
        ...

    def sweep(self) -> Future[Swept]:
        """Make due tasks ready, interrupt those whose lease has run out, purge old ones."""
        ...

    def next_due(self) -> Future[float | None]:
        """Return the seconds until the next scheduled task is due; ``None`` without any."""
        ...

    def health(self) -> StoreHealth:
        """Say how the store is, without waiting."""
        ...

    def close(self) -> Future[None]:
        """Finish what was asked for, refuse the rest, and close. May be called again."""
        ...
