"""`Recorder`: how attempts ended is recorded, for as long as the store may come round."""

from __future__ import annotations

from collections.abc import Callable

import trio

from mcpd_core import ServiceHost

from .attempts import Attempt, Record, Runner
from .bridge import Bridge
from .errors import StoreBroken, StoreClosed, StoreError, TaskRefused
from .metrics import Meter
from .records import Recorded
from .retrying import Backoff
from .store import TaskStore


class Recorder:
    """Records how attempts ended.

    :param retries: the waits while the store takes no changes.
    :param stopping: whether the server is being stopped, and nothing is tried again.
    :param recording: called when the store has been asked, before it has answered.
    """

    def __init__(
        self,
        store: TaskStore,
        host: ServiceHost,
        bridge: Bridge,
        runner: Runner,
        meter: Meter,
        *,
        retries: Backoff,
        stopping: Callable[[], bool],
        recording: Callable[[Attempt], None],
    ) -> None:
        self._store = store
        self._log = host.log
        self._bridge = bridge
        self._runner = runner
        self._meter = meter
        self._retries = retries
        self._stopping = stopping
        self._recording = recording

    async def record(self, attempt: Attempt, record: Record) -> None:
        """Record how an attempt ended, trying for as long as the store may come round."""
        task = attempt.task
        failures = 0
        while not attempt.lost:
            try:
                recorded = await self._record_once(attempt, record)
            except TaskRefused as refused:
                record = self._runner.not_kept(task, refused)
                continue
            except StoreError as error:
                failures += 1
                self._log.error("The outcome of task %s cannot be recorded: %s", task.id, error)
                if self._stopping() or isinstance(error, (StoreBroken, StoreClosed)):
                    # It stays `running`; the next start finds it so.
                    return
                await trio.sleep(self._retries.after(failures))
                continue
            if not recorded.accepted:
                break
            self._count(record, recorded)
            self._log.debug("Task %s (%s) is %s.", task.id, task.tool, recorded.state)
            return
        self._meter.lease_losses += 1
        self._log.warning(
            "Task %s (%s): the outcome of attempt %d came too late and was refused; the task had "
            "passed to another attempt.",
            task.id,
            task.tool,
            task.attempts,
        )

    def _count(self, record: Record, recorded: Recorded) -> None:
        """Note what became of a task after an attempt."""
        outcome = str(recorded.state)
        if outcome not in self._meter.attempts:
            # It waits for another attempt, after one that failed or that came to nothing.
            outcome = "retried" if record.func.__name__ == "fail" else "released"
        self._meter.attempts[outcome] += 1

    async def _record_once(self, attempt: Attempt, record: Record) -> Recorded:
        """Record how an attempt ended; ahead of that, and in its commit, what its tool said last.

        :raises StoreError: when the outcome could not be recorded.
        :raises TaskRefused: when the store does not take it.
        """
        note = attempt.take_note()
        noted = None if note is None else self._store.note([note])
        try:
            asked = record()
            self._recording(attempt)
            return await self._bridge.answer(asked)
        finally:
            if note is not None and noted is not None:
                try:
                    await self._bridge.answer(noted)
                except StoreError as error:
                    self._log.error("What task %s said is not stored: %s", note.task_id, error)
                    attempt.notes.put_back(note)
