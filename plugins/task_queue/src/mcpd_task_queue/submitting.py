"""Submitting tasks: to a store whose queues may be full."""

from __future__ import annotations

from collections.abc import Sequence

from .bridge import Bridge
from .errors import Draining, QueueFull, TaskRefused
from .records import Full, NewTask, Submitted
from .rooms import Rooms, Waiting
from .store import TaskStore


class Submitter:
    """Stores tasks, and has submitters wait where their queue wants that."""

    def __init__(self, store: TaskStore, bridge: Bridge, rooms: Rooms) -> None:
        self._store = store
        self._bridge = bridge
        self._rooms = rooms

    async def submit(self, task: NewTask, wait: float, waiting: Waiting) -> Submitted:
        """Do what `TaskQueue.submit` says."""
        (submitted,) = await self._store_all([task], wait, waiting)
        if submitted.full is not None:
            raise self._no_room(submitted.full)
        return submitted

    async def submit_all(
        self, tasks: Sequence[NewTask], wait: float, waiting: Waiting
    ) -> list[Submitted | TaskRefused]:
        """Do what `TaskQueue.submit_all` says."""
        answers: list[Submitted | TaskRefused | None] = []
        for task in tasks:
            try:
                self._store.check(task)
                answers.append(None)
            except TaskRefused as refused:
                answers.append(refused)
        good = [task for task, refused in zip(tasks, answers, strict=True) if refused is None]
        stored = iter(await self._store_all(good, wait, waiting))
        became = [next(stored) if answer is None else answer for answer in answers]
        return [
            self._no_room(answer.full)
            if isinstance(answer, Submitted) and answer.full is not None
            else answer
            for answer in became
        ]

    async def _store_all(
        self, tasks: Sequence[NewTask], wait: float, waiting: Waiting
    ) -> list[Submitted]:
        return await self._rooms.submit(self._store_now, self._is_known, tasks, wait, waiting)

    async def _store_now(self, tasks: Sequence[NewTask]) -> list[Submitted]:
        return await self._bridge.wait(self._store.submit(tasks))

    async def _is_known(self, task: NewTask) -> bool:
        key = task.idempotency_key
        return key is not None and (
            await self._bridge.wait(self._store.find_key(task.principal, key)) is not None
        )

    def _no_room(self, full: Full) -> TaskRefused:
        if self._rooms.closed and full.overflow == "block" and full.ever:
            return Draining(full.queue)
        return QueueFull(full, self._rooms.retry_after(full))
