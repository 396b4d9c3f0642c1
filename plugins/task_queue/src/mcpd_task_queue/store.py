"""`TaskStore`: the protocol between the task queue and the engine that keeps its tasks.

Every operation returns a `concurrent.futures.Future` that is resolved once the change is durable,
and not before: whoever sees the answer can rely on it. A future that fails says that nothing was
changed; only after `StoreBroken` that is not known until the store is opened anew. The protocol
belongs to no event loop; futures are resolved, and listeners called, on a thread of the engine.

An engine keeps four promises, whatever dies and whenever:

* a task whose submit was acknowledged is there until its retention has passed;
* it ends in exactly one final state, and at most one outcome of it is recorded (a person may have
  it tried anew unless it succeeded);
* only the latest start of a task (its fence) can record an outcome;
* a task whose cancelling was acknowledged never becomes ``succeeded``, unless a person has it tried
  anew;
* a firing of a recurring task becomes one task, in the transaction that sets its next time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, Protocol

from mcpd_core import CallResult, Finding, Principal

from .capabilities import Capabilities
from .metrics import Metric
from .records import (
    Activity,
    BackedUp,
    Cancelled,
    Change,
    Changed,
    Exported,
    Filter,
    NewTask,
    Note,
    Page,
    Pause,
    QueueChanged,
    QueueStats,
    Recorded,
    Renewal,
    ResultPart,
    Snapshot,
    StoreHealth,
    Submitted,
    Swept,
    Task,
    TaskState,
    Worker,
)

#: What is to become of a task whose attempt failed.
Verdict = Literal["retry", "failed", "dead"]
#: What a person found out about an ``uncertain`` task.
Resolution = Literal["succeeded", "failed", "retry"]
#: Called with the changes of each commit, before its futures are resolved. It must be quick.
Listener = Callable[[Sequence[Change]], None]
#: Called with the tasks that were started for a standing order, and with why there are none.
Deliver = Callable[[Sequence[Task]], None]
NotStarted = Callable[[BaseException], None]


class Order(Protocol):
    """A standing order: a claim that waits for something to claim; see `TaskStore.order`."""

    def want(self, more: int) -> None:
        """Want further tasks, of those that wait now or of those that will; returns at once.

        :param more: how many more; 0 to have it looked once more after it was told of a failure.
        """
        ...

    def withdraw(self) -> Future[None]:
        """Want nothing any more.

        :returns: resolved when everything that was started for it has been delivered.
        """
        ...


class TaskStore(Protocol):
    """Where tasks are kept. See the module's docstring for what every engine promises."""

    @property
    def instance(self) -> str:
        """The identity of the store itself; it stays the same from one start to the next."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do. What it cannot, it refuses, at once and with `TaskRefused`."""
        ...

    def listen(self, listener: Listener | None) -> None:
        """Have ``listener`` called after each commit; ``None`` ends it."""
        ...

    def submit(self, batch: Sequence[NewTask]) -> Future[list[Submitted]]:
        """Store new tasks, all of them or none, but for those whose queue is full.

        A queue is full when the task would exceed one of its bounds. It is taken there all the
        same in any other way, such as another attempt; a firing of a recurring task is skipped.

        :returns: one outcome per task, in order.
        :raises TaskRefused: at once, when a task's arguments are too large or are not JSON, when
            its cron fields or its time zone are none, or when it asks for what `capabilities` says
            that the engine cannot do.
        """
        ...

    def check(self, task: NewTask) -> None:
        """Raise what `submit` would raise at once for this task; nothing is stored."""
        ...

    def claim(
        self, owner: str, limit: int, lease: float, worker: Worker | None = None
    ) -> Future[list[Task]]:
        """Start up to ``limit`` ready tasks, best first, and count an attempt for each.

        One whose deadline has passed, or that cannot be read, is ``dead`` instead.

        Inside a priority, one task after the other of each flow (a principal with a fairness key)
        has its turn, however many it has, and a flow that comes anew waits for at most one of each
        other. Between priorities, the first task of a higher one comes first, unless that of a
        lower one has been ready for so much longer that ``ageing`` makes up for the difference.

        :param owner: who starts them. It must be new with each start of a process: a name that
            came back would hide that its former bearer has died.
        :param lease: seconds for which they are the owner's unless renewed.
        :param worker: only tasks that this one takes; any task when ``None``.
        :returns: the tasks, with their arguments.
        """
        ...

    def order(
        self,
        owner: str,
        lease: float,
        worker: Worker | None,
        deliver: Deliver,
        not_started: NotStarted,
    ) -> Order:
        """Have tasks started as soon as they can be, in the way of `claim`.

        An engine starts them in the transaction that makes them ready, or that lets a limit go on,
        if it can, so that a submit and a start need one commit. Several orders are served in any
        order, but those of registered workers before the built-in one's.

        :param owner: who starts them, ``lease`` and ``worker``: as for `claim`.
        :param deliver: called when it was looked for tasks, after the commit and before any later
            one, on a thread of the engine: with those that were started, which may be none. It
            must be quick.
        :param not_started: called, likewise, when it could not be looked or started. What is
            wanted stays so, but is not looked for before the next change unless it is asked for.
        :returns: the order, which wants nothing yet.
        """
        ...

    def renew(self, renewals: Sequence[Renewal], lease: float) -> Future[list[Recorded]]:
        """Prolong leases, also ones that have run out if nobody noticed."""
        ...

    def note(self, notes: Sequence[Note]) -> Future[list[Recorded]]:
        """Store progress and log lines of attempts that own their tasks.

        Of the lines of a task, over all its attempts, the last ones are kept.
        """
        ...

    def complete(self, task_id: str, fence: int, result: CallResult) -> Future[Recorded]:
        """Record that a task succeeded.

        :raises TaskRefused: at once or by the future, when the result is not JSON or is too large.
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

        A task whose deadline leaves no time for another attempt is ``dead``, whatever the verdict;
        so is one that is delivered ``at_most_once``, instead of being tried again.

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

    def retry(
        self, principal: Principal, task_id: str, max_attempts: int | None = None
    ) -> Future[Changed | None]:
        """Have a task tried anew that failed, died, was cancelled or is uncertain.

        :param max_attempts: its new budget; the one that it had when ``None``.
        :returns: ``None`` when the principal has no such task.
        """
        ...

    def retry_many(
        self, principal: Principal, task_ids: Sequence[str], max_attempts: int | None = None
    ) -> Future[list[Changed | None]]:
        """Do what `retry` does for several tasks, in one transaction.

        :returns: what became of each, in order; of one that is named twice, the second finds it
            waiting.
        """
        ...

    def resolve(
        self, principal: Principal, task_id: str, resolution: Resolution, note: str
    ) -> Future[Changed | None]:
        """Record what a person found out about an uncertain task.

        :returns: ``None`` when the principal has no such task.
        """
        ...

    def prioritise(
        self, principal: Principal, task_id: str, priority: int
    ) -> Future[Changed | None]:
        """Give a task that has not ended another priority.

        :returns: ``None`` when the principal has no such task.
        """
        ...

    def pause(self, principal: Principal, queue: str, reason: str) -> Future[QueueChanged]:
        """Start nothing more of one queue of the principal until it is resumed.

        Until this is answered, tasks that were ready may still be started. Of a pause and a resume
        that go on at the same time, the later one wins.

        :raises TaskRefused: when the principal has paused very many queues already.
        """
        ...

    def resume(self, principal: Principal, queue: str) -> Future[QueueChanged]:
        """End the pause of a queue. Until this is answered, some of it may wait still."""
        ...

    def clear(
        self, principal: Principal, queue: str, *, recurring: bool = False
    ) -> Future[QueueChanged]:
        """Cancel what waits in one queue of the principal; what is submitted meanwhile may stay.

        :param recurring: also what is made into tasks again and again.
        """
        ...

    def register(self, worker: Worker, most_slots: int) -> Future[Worker]:
        """Keep a worker, in place of the principal's one of that name.

        :param most_slots: how many slots all kept workers together may have.
        :raises TaskRefused: when they would have more.
        """
        ...

    def unregister(self, principal: Principal, name: str) -> Future[Worker | None]:
        """Forget a worker.

        :returns: ``None`` when the principal has no such worker.
        """
        ...

    def workers(self) -> Future[list[Worker]]:
        """Return the kept workers of everybody."""
        ...

    def get(
        self,
        principal: Principal,
        task_id: str,
        *,
        payload: bool = False,
        events: int = 0,
        logs: int = 0,
        largest: int | None = None,
        failures: bool = False,
    ) -> Future[Snapshot | None]:
        """Look one task up.

        :param payload: whether to read arguments, result and error.
        :param events: how many of its latest events to read.
        :param logs: how many of the last lines to read that its tool has logged.
        :param largest: of a result whose JSON takes more bytes, only how large it is; ``None`` to
            read any.
        :param failures: whether to read its attempts without success; of many, the first 3 and the
            latest 20.
        :returns: ``None`` when the principal has no such task.
        :raises BlobDamaged: when the result is not what was stored.
        """
        ...

    def read_result(
        self, principal: Principal, task_id: str, offset: int, length: int
    ) -> Future[ResultPart | None]:
        """Read a part of the JSON text of a result, which is described at `LargeResult`.

        :returns: ``None`` when the principal has no such task, or it has no result.
        :raises BlobDamaged: when the result, any part of it, is not what was stored.
        """
        ...

    def find_key(self, principal: Principal, key: str) -> Future[str | None]:
        """Return the id of the principal's task with that idempotency key."""
        ...

    def find(
        self,
        principal: Principal,
        wanted: Filter,
        *,
        cursor: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Future[Page]:
        """List the principal's tasks, newest first.

        :param offset: how many to leave out at first.
        :raises TaskRefused: at once, when the cursor is not one that a page gave.
        """
        ...

    def stats(self, principal: Principal) -> Future[list[QueueStats]]:
        """Count the principal's tasks, per queue in alphabetical order."""
        ...

    def count(self, principal: Principal, wanted: Filter) -> Future[int]:
        """Count the tasks that `find` would list."""
        ...

    def export(
        self,
        principal: Principal | None,
        wanted: Filter,
        *,
        cursor: str | None = None,
        size: int = 1024 * 1024,
    ) -> Future[Exported]:
        """Read tasks with everything about them, in the order of their submission.

        :param principal: whose; everybody's when ``None``.
        :param cursor: of the previous page; there may be further ones although it was empty.
        :param size: bytes of arguments and results that a page has, unless its first task alone
            has more.
        :raises TaskRefused: at once, when the cursor is not one that a page gave.
        """
        ...

    def activity(self, principal: Principal, seconds: float) -> Future[Activity]:
        """Say what the principal's tasks were like that ended in the last seconds."""
        ...

    def pauses(self, principal: Principal) -> Future[list[Pause]]:
        """Return the principal's paused queues, in alphabetical order."""
        ...

    def tally(self, principal: Principal) -> Future[dict[str, dict[TaskState, int]]]:
        """Count the principal's tasks by the worker that started them last, and by state."""
        ...

    def recover(self, owner: str) -> Future[Swept]:
        """Take over what every other owner left running. Only for the one owner of the store.

        It does a bounded amount, and says whether there is more.
        """
        ...

    def sweep(self) -> Future[Swept]:
        """Make due tasks ready, bury those whose deadline has passed, interrupt those whose lease
        has run out, purge old ones: a bounded amount."""
        ...

    def next_due(self) -> Future[float | None]:
        """Return the seconds until `sweep` has something to do; ``None`` when that is not known.

        That is when the next scheduled task is due, when the deadline of one that waits passes, or
        when a rate lets one start that nothing else keeps from it. Such a rate, once a claim has
        found it used up, counts until a sweep after that time: who claims then is told once.
        """
        ...

    def health(self) -> StoreHealth:
        """Say how the store is, without waiting."""
        ...

    def backup(self, path: Path) -> Future[BackedUp]:
        """Copy the whole store, as it is when the future is resolved, while it is in use.

        :param path: of a folder to be made; it is there when all of the copy is on the disk, or
            not at all.
        :raises TaskRefused: at once, when the engine's `capabilities` have no backup.
        :raises BackupFailed: in the future, saying why; nothing of the copy is left then.
        """
        ...

    def examine(self) -> Future[list[Finding]]:
        """Look whether what is stored is sound, for ``mcpd doctor``, while the store is in use."""
        ...

    def metrics(self) -> list[Metric]:
        """Return what the engine measures, without waiting; empty when it measures nothing."""
        ...

    def close(self) -> Future[None]:
        """Finish what was asked for, refuse the rest, and close. May be called again."""
        ...
