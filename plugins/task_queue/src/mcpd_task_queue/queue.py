"""`TaskQueue`: what tools, and the pages of the owner, see of the store and its workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import trio

from mcpd_core import Finding, Health, Principal

from .announcing import Announcer
from .bridge import Bridge
from .capabilities import Capabilities
from .dispatcher import Dispatcher
from .errors import TaskRefused, UnknownTask
from .metrics import Metric
from .monitor import Monitor
from .records import (
    SETTLED,
    Activity,
    BackedUp,
    Cancelled,
    Change,
    Changed,
    Filter,
    NewTask,
    Page,
    Pause,
    QueueChanged,
    QueueStats,
    Reported,
    ResultPart,
    Snapshot,
    Submitted,
    Task,
    TaskState,
)
from .rooms import Rooms, Waiting
from .settings import TaskQueueSettings
from .staffing import Staff
from .store import Resolution, TaskStore
from .submitting import Submitter

#: Tasks that one transaction has tried anew at most.
RETRY_PAGE = 500


def _done(changed: Changed | None, task_id: str, doing: str, which: str) -> Changed:
    if changed is None:
        raise UnknownTask(task_id)
    if not changed.done:
        raise TaskRefused(
            f"The task {task_id[:80]!r} is {changed.state} and cannot be {doing}.",
            hint=f"{which} tasks can.",
        )
    return changed


class TaskQueue:
    """What tools see of the queue. Its methods are awaited in trio.

    Each takes the principal who asks; the tasks of others do not exist for it.
    """

    def __init__(
        self,
        store: TaskStore,
        bridge: Bridge,
        dispatcher: Dispatcher,
        settings: TaskQueueSettings,
        announcer: Announcer,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._announcer = announcer
        self._dispatcher = dispatcher
        self._waiting: dict[str, set[trio.Event]] = {}
        self._rooms = Rooms()
        self._submitter = Submitter(store, bridge, self._rooms)
        self._monitor = Monitor(store, dispatcher)
        #: The registered workers.
        self.staff = Staff(store, bridge, dispatcher, settings.registered_slots)

    @property
    def workers(self) -> int:
        """How many tasks can run at the same time."""
        return self._dispatcher.crew.capacity

    @property
    def engine(self) -> Capabilities:
        """What the store can do."""
        return self._store.capabilities

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take note of a commit; called on the trio thread."""
        self._dispatcher.on_changes(changes)
        self._announcer.committed(changes)
        self._rooms.on_changes(changes)
        if self._waiting:
            for change in changes:
                if change.after is None or change.after in SETTLED:
                    for event in self._waiting.get(change.task_id, ()):
                        event.set()

    def drain(self) -> None:
        """Start nothing more, and have nobody wait for room: the server stops. From any thread."""
        self._dispatcher.drain()
        self._bridge.post(self._rooms.close)

    async def submit(
        self, task: NewTask, *, wait: float = 0.0, waiting: Waiting = nullcontext
    ) -> Submitted:
        """Store a task; it is durable when this returns.

        :param wait: seconds to wait for room, if its queue has submitters wait.
        :param waiting: entered while it waits.
        :raises QueueFull: when there is no room for it.
        :raises Draining: when it was to wait for room, and the server stops.
        :raises TaskRefused: when its arguments are too large or not JSON.
        :raises StoreError: when it could not be stored.
        """
        return await self._submitter.submit(task, wait, waiting)

    async def submit_all(
        self, tasks: Sequence[NewTask], *, wait: float = 0.0, waiting: Waiting = nullcontext
    ) -> list[Submitted | TaskRefused]:
        """Store tasks, those that can be accepted, in one commit unless it has to be waited for
        room; durable when this returns.

        :param wait: seconds to wait for room, where a queue has submitters wait.
        :param waiting: entered while it waits.
        :returns: what became of each, in order.
        :raises StoreError: when they could not be stored; none of them is then.
        """
        return await self._submitter.submit_all(tasks, wait, waiting)

    async def status(
        self, principal: Principal, task_id: str, *, events: int = 50, logs: int = 0
    ) -> Snapshot:
        """Look a task up, with its latest events and the last of its log lines.

        :raises UnknownTask: when the principal has none of that id.
        """
        return await self._get(principal, task_id, events=events, logs=logs)

    async def everything(self, principal: Principal, task_id: str, largest: int) -> Snapshot:
        """Look a task up with its payload, its latest events and the last of its log lines.

        :param largest: bytes of the largest result that is read.
        :raises UnknownTask: when the principal has none of that id.
        """
        return await self._get(
            principal, task_id, payload=True, events=50, logs=20, largest=largest
        )

    async def result(
        self,
        principal: Principal,
        task_id: str,
        *,
        wait: float = 0.0,
        largest: int | None = None,
    ) -> Snapshot:
        """Look a task up with its payload, once it has ended or the wait is over.

        :param wait: seconds to wait for its end.
        :param largest: of a result whose JSON takes more bytes, only how large it is.
        :raises UnknownTask: when the principal has none of that id.
        """
        ended = trio.Event()
        # Registered before looking, so that an end in between is not missed.
        waiting = self._waiting.setdefault(task_id, set())
        waiting.add(ended)
        try:
            snapshot = await self._get(principal, task_id, payload=True, largest=largest)
            waits = snapshot.task.state not in SETTLED and snapshot.task.cron is None
            if waits and wait > 0:
                with trio.move_on_after(wait):
                    await ended.wait()
                snapshot = await self._get(principal, task_id, payload=True, largest=largest)
        finally:
            waiting.discard(ended)
            if not waiting and self._waiting.get(task_id) is waiting:
                del self._waiting[task_id]
        return snapshot

    async def result_part(
        self, principal: Principal, task_id: str, offset: int, length: int
    ) -> ResultPart | None:
        """Read a part of the JSON text of a result; ``None`` when there is no result.

        :param offset: where it begins, in characters.
        :raises BlobDamaged: when the result, any part of it, is not what was stored.
        """
        return await self._bridge.wait(self._store.read_result(principal, task_id, offset, length))

    async def _get(self, principal: Principal, task_id: str, **options: Any) -> Snapshot:
        found = self._store.get(principal, task_id, failures=True, **options)
        snapshot = await self._bridge.wait(found)
        if snapshot is None:
            raise UnknownTask(task_id)
        return snapshot

    def progress(self, task_id: str) -> Reported | None:
        """Return the latest progress of a task that runs here; what is stored is a little older."""
        attempt = self._dispatcher.attempts.get(task_id)
        return None if attempt is None else attempt.notes.latest

    async def find(
        self,
        principal: Principal,
        wanted: Filter,
        *,
        cursor: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Page:
        """List tasks, newest first.

        :raises TaskRefused: when the cursor is not one.
        """
        return await self._bridge.wait(
            self._store.find(principal, wanted, cursor=cursor, limit=limit, offset=offset)
        )

    async def count(self, principal: Principal, wanted: Filter) -> int:
        """Count the tasks that `find` would list."""
        return await self._bridge.wait(self._store.count(principal, wanted))

    async def named(self, principal: Principal, name: str) -> str:
        """Return the id of the task with that idempotency key, or the name when none has it."""
        return await self._bridge.wait(self._store.find_key(principal, name)) or name

    async def cancel(
        self, principal: Principal, task_id: str, grace: float | None = None
    ) -> Cancelled:
        """Cancel a task that waits, or interrupt one that runs.

        :param grace: seconds that the tool has to clean up before its process, if it has one, is
            killed; ``None`` means what the settings say.
        :raises UnknownTask: when the principal has none of that id.
        """
        if grace is not None:
            self._dispatcher.allow(principal, task_id, grace)
        cancelled = await self._bridge.wait(self._store.cancel(principal, task_id))
        if cancelled is None:
            raise UnknownTask(task_id)
        return cancelled

    async def retry(
        self, principal: Principal, task_id: str, max_attempts: int | None = None
    ) -> Changed:
        """Have a task that ended without success, or is uncertain, tried anew.

        :raises UnknownTask: when the principal has none of that id.
        :raises TaskRefused: when it has not ended so.
        """
        changed = await self._bridge.wait(self._store.retry(principal, task_id, max_attempts))
        return _done(changed, task_id, "tried anew", "Only failed, dead, cancelled and uncertain")

    async def retry_many(
        self, principal: Principal, task_ids: Sequence[str], max_attempts: int | None = None
    ) -> list[Changed | None]:
        """Have tasks tried anew, in one transaction.

        :returns: what became of each; ``None`` where the principal has no such task.
        """
        return await self._bridge.wait(self._store.retry_many(principal, task_ids, max_attempts))

    async def retry_all(
        self, principal: Principal, wanted: Filter, max_attempts: int | None, most: int
    ) -> tuple[int, bool]:
        """Have the tasks tried anew that fit a filter, newest first, a page per transaction.

        One that fails again meanwhile is not tried a second time.

        :param most: how many at most.
        :returns: how many are tried anew, and whether there may be more.
        """
        retried, cursor = 0, None
        while most:
            page = await self.find(principal, wanted, cursor=cursor, limit=min(most, RETRY_PAGE))
            ids = [task.id for task in page.tasks]
            changed = await self.retry_many(principal, ids, max_attempts) if ids else []
            retried += sum(one is not None and one.done for one in changed)
            most -= len(ids)
            cursor = page.cursor
            if cursor is None:
                return retried, False
        return retried, True

    def why_it_still_runs(self, task: Task) -> str:
        """Say what keeps a task running that is to be cancelled; empty if it does not run here."""
        return self._dispatcher.why_it_still_runs(task)

    async def resolve(
        self, principal: Principal, task_id: str, resolution: Resolution, note: str
    ) -> Changed:
        """Record what a person found out about an uncertain task.

        :raises UnknownTask: when the principal has none of that id.
        :raises TaskRefused: when it is not uncertain.
        """
        changed = await self._bridge.wait(self._store.resolve(principal, task_id, resolution, note))
        return _done(changed, task_id, "resolved", "Only uncertain")

    async def prioritise(self, principal: Principal, task_id: str, priority: int) -> Changed:
        """Give a task another priority.

        :raises UnknownTask: when the principal has none of that id.
        :raises TaskRefused: when it has ended.
        """
        changed = await self._bridge.wait(self._store.prioritise(principal, task_id, priority))
        return _done(changed, task_id, "given another priority", "Only waiting and running")

    async def pause(self, principal: Principal, queue: str, reason: str) -> QueueChanged:
        """Start nothing more of one of the principal's queues."""
        changed = await self._bridge.wait(self._store.pause(principal, queue, reason))
        self._announcer.queue(principal, queue)
        return changed

    async def resume(self, principal: Principal, queue: str) -> QueueChanged:
        """End the pause of a queue."""
        changed = await self._bridge.wait(self._store.resume(principal, queue))
        self._announcer.queue(principal, queue)
        return changed

    async def clear(
        self, principal: Principal, queue: str, *, recurring: bool = False
    ) -> QueueChanged:
        """Cancel what waits in one of the principal's queues."""
        return await self._bridge.wait(self._store.clear(principal, queue, recurring=recurring))

    async def pauses(self, principal: Principal) -> list[Pause]:
        """Return the principal's paused queues."""
        return await self._bridge.wait(self._store.pauses(principal))

    async def stats(self, principal: Principal) -> list[QueueStats]:
        """Count the principal's tasks per queue and state."""
        return await self._bridge.wait(self._store.stats(principal))

    async def activity(self, principal: Principal, seconds: float) -> Activity:
        """Say what the principal's tasks were like that ended in the last seconds."""
        return await self._bridge.wait(self._store.activity(principal, seconds))

    async def export(
        self,
        principal: Principal | None,
        wanted: Filter,
        *,
        cursor: str | None = None,
        max_bytes: int = 1024 * 1024,
    ) -> tuple[list[str], str | None]:
        """Write tasks with everything about them as lines of JSON, oldest first.

        :param principal: whose; everybody's when ``None``.
        :param max_bytes: of arguments and results, unless the first task alone has more.
        :returns: the lines, which may be none, and the cursor for the next ones; ``None`` at the
            end.
        :raises TaskRefused: when the cursor is not one.
        """
        # It brings all that answers are made of, which is worth waiting for here only.
        from .export import lines_of

        page = await self._bridge.wait(
            self._store.export(principal, wanted, cursor=cursor, size=max_bytes)
        )
        # Not here: results may be large, and everybody waits for this thread.
        return await trio.to_thread.run_sync(lines_of, page), page.cursor

    async def backup(self, path: Path) -> BackedUp:
        """Copy the whole store, everybody's tasks, into a folder to be made.

        :raises BackupFailed: when that was not possible; nothing of it is left then.
        """
        return await self._bridge.wait(self._store.backup(path))

    def metrics(self) -> list[Metric]:
        """Return what is counted of everybody's tasks; this is for the owner of the server."""
        return self._monitor.metrics()

    async def examine(self) -> list[Finding]:
        """Look whether what is stored is sound."""
        return await self._bridge.wait(self._store.examine())

    def health(self) -> Health:
        """Say how the queue is with everybody's tasks, without waiting; this is for the host."""
        return self._monitor.health()

    def load(self) -> Mapping[str, Any]:
        """Return how many workers there are and how many run something."""
        return self._monitor.load()

    def condition(self, counts: Mapping[TaskState, int]) -> Health:
        """Say how the queue is for somebody who may know of these tasks, without waiting."""
        return self._monitor.condition(counts)
