"""The service ``task_queue``: a store, its workers, and what the tools need of both."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from mcpd_core import Health, Principal, Progress, ServiceHost

from .bridge import Bridge
from .dispatcher import Dispatcher
from .errors import UnknownTask
from .records import (
    SETTLED,
    Cancelled,
    Change,
    Filter,
    NewTask,
    Page,
    QueueStats,
    Snapshot,
    Submitted,
)
from .settings import TaskQueueSettings
from .sqlite import SQLiteTaskStore
from .store import TaskStore


@asynccontextmanager
async def open_service(host: ServiceHost) -> AsyncIterator[TaskQueue]:
    """Open the store in the data directory, take over what a dead process left, and start working.

    :raises StoreUnusable: when the store cannot be opened.
    """
    settings = host.settings or TaskQueueSettings()
    store = await trio.to_thread.run_sync(
        partial(
            SQLiteTaskStore,
            host.data_dir / "task_queue" / "tasks.db",
            durability=settings.durability,
            retention=settings.retention,
            largest_arguments=settings.largest_arguments,
        )
    )
    bridge = Bridge()
    try:
        async with serving(store, host, bridge, settings) as queue:
            yield queue
    finally:
        with trio.CancelScope(shield=True):
            await bridge.wait(store.close())


@asynccontextmanager
async def serving(
    store: TaskStore, host: ServiceHost, bridge: Bridge, settings: TaskQueueSettings
) -> AsyncIterator[TaskQueue]:
    """Run the tasks of an open store, whichever its engine is."""
    owner = f"{store.instance}:{secrets.token_hex(8)}"
    dispatcher = Dispatcher(store, host, bridge, settings, owner)
    queue = TaskQueue(store, bridge, dispatcher, settings)
    found = await bridge.wait(store.recover(owner))
    if found.readied or found.parked or found.buried or found.cancelled:
        host.log.warning(
            "Taken over from before: %d tasks are ready again, %d are uncertain, %d are dead, "
            "%d are cancelled.",
            found.readied,
            found.parked,
            found.buried,
            found.cancelled,
        )
    store.listen(lambda changes: bridge.post(partial(queue.on_changes, changes)))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatcher.run)
            try:
                yield queue
            finally:
                with trio.CancelScope(shield=True):
                    await dispatcher.stop()
                nursery.cancel_scope.cancel()
    finally:
        store.listen(None)


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
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._dispatcher = dispatcher
        self._settings = settings
        self._waiting: dict[str, set[trio.Event]] = {}

    @property
    def workers(self) -> int:
        """How many tasks can run at the same time."""
        return self._settings.workers

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take note of a commit; called on the trio thread."""
        self._dispatcher.on_changes(changes)
        if self._waiting:
            for change in changes:
                if change.after is None or change.after in SETTLED:
                    for event in self._waiting.get(change.task_id, ()):
                        event.set()

    async def submit(self, task: NewTask) -> Submitted:
        """Store a task; it is durable when this returns.

        :raises TaskRefused: when its arguments are too large or not JSON.
        :raises StoreError: when it could not be stored.
        """
        (submitted,) = await self._bridge.wait(self._store.submit([task]))
        return submitted

    async def status(self, principal: Principal, task_id: str, *, events: int = 50) -> Snapshot:
        """Look a task up, with its latest events.

        :raises UnknownTask: when the principal has none of that id.
        """
        return await self._get(principal, task_id, events=events)

    async def result(self, principal: Principal, task_id: str, *, wait: float = 0.0) -> Snapshot:
        """Look a task up with its payload, once it has ended or the wait is over.

        :param wait: seconds to wait for its end.
        :raises UnknownTask: when the principal has none of that id.
        """
        ended = trio.Event()
        # Registered before looking, so that an end in between is not missed.
        waiting = self._waiting.setdefault(task_id, set())
        waiting.add(ended)
        try:
            snapshot = await self._get(principal, task_id, payload=True)
            if snapshot.task.state not in SETTLED and wait > 0:
                with trio.move_on_after(wait):
                    await ended.wait()
                snapshot = await self._get(principal, task_id, payload=True)
        finally:
            waiting.discard(ended)
            if not waiting and self._waiting.get(task_id) is waiting:
                del self._waiting[task_id]
        return snapshot

    async def _get(
        self, principal: Principal, task_id: str, *, payload: bool = False, events: int = 0
    ) -> Snapshot:
        snapshot = await self._bridge.wait(
            self._store.get(principal, task_id, payload=payload, events=events)
        )
        if snapshot is None:
            raise UnknownTask(task_id)
        return snapshot

    def progress(self, task_id: str) -> Progress | None:
        """Return the latest progress of a task that runs here; what is stored is a little older."""
        attempt = self._dispatcher.attempts.get(task_id)
        return None if attempt is None else attempt.progress

    async def find(
        self, principal: Principal, wanted: Filter, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """List tasks, newest first.

        :raises TaskRefused: when the cursor is not one.
        """
        return await self._bridge.wait(
            self._store.find(principal, wanted, cursor=cursor, limit=limit)
        )

    async def cancel(self, principal: Principal, task_id: str) -> Cancelled:
        """Cancel a task that waits, or interrupt one that runs.

        :raises UnknownTask: when the principal has none of that id.
        """
        cancelled = await self._bridge.wait(self._store.cancel(principal, task_id))
        if cancelled is None:
            raise UnknownTask(task_id)
        return cancelled

    async def stats(self, principal: Principal) -> list[QueueStats]:
        """Count the principal's tasks per queue and state."""
        return await self._bridge.wait(self._store.stats(principal))

    def load(self) -> Mapping[str, Any]:
        """Return how many workers there are and how many run something."""
        return {"workers": self.workers, "busy": self.workers - self._dispatcher.free}

    def health(self) -> Health:
        """Say how the queue is, without waiting."""
        store = self._store.health()
        counts = store.counts
        pending = [
            f"{count} task{'' if count == 1 else 's'} {state}"
            for state in ("running", "ready")
            if (count := counts.get(state, 0))
        ]
        if scheduled := counts.get("scheduled", 0):
            due = self._dispatcher.next_due - trio.current_time()
            when = f"next due in {max(0.0, due):.0f} s" if math.isfinite(due) else "due later"
            pending.append(f"{scheduled} task{'' if scheduled == 1 else 's'} scheduled, {when}")
        detail = store.detail or f"{self.workers} workers"
        if uncertain := counts.get("uncertain", 0):
            detail += f"; {uncertain} uncertain, to be looked at by a person"
        return Health(store.ok, detail, ", ".join(pending))
