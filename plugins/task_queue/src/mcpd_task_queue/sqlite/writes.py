"""`Writes`: the half of the engine that changes what is stored, on the writer's thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from mcpd_core import CallResult, Principal
from mcpd_task_queue import cron
from mcpd_task_queue.records import (
    Cancelled,
    Changed,
    NewTask,
    Note,
    QueueChanged,
    Recorded,
    Renewal,
    Submitted,
    Swept,
    Task,
    TaskState,
    Worker,
)
from mcpd_task_queue.store import Deliver, NotStarted, Resolution, Verdict

from . import changes, managing, sweeping, workers
from .orders import Order
from .results import Results
from .rows import arguments_text, digest, error_text, shorten
from .transitions import Leases
from .whole import WholeQueues
from .writer import Writer


class Writes:
    """Hands each change to the writer; what can be made ready for it is, on the caller's thread.

    :param retention: seconds for which a task is kept after it has ended, by its state.
    :param log_lines: how many lines of a task's log are kept.
    :param largest_arguments: bytes of JSON that one task's arguments may take.
    """

    def __init__(
        self,
        writer: Writer,
        results: Results,
        *,
        retention: Mapping[TaskState, float],
        log_lines: int,
        largest_arguments: int,
    ) -> None:
        self._writer = writer
        self._results = results
        self._retention = retention
        self._log_lines = log_lines
        self._largest = largest_arguments
        self._leases = Leases()
        self._queues = WholeQueues(writer)

    def submit(self, batch: Sequence[NewTask]) -> Future[list[Submitted]]:
        """Store new tasks, all of them or none."""
        # Encoding happens on the caller's thread: the writer has better things to do.
        encoded = [self._encoded(new) for new in batch]
        return self._writer.do(lambda tx: changes.submit(tx, batch, encoded))

    def check(self, task: NewTask) -> None:
        """Raise what `submit` would raise at once for this task."""
        self._encoded(task)

    def _encoded(self, new: NewTask) -> tuple[str, list[bytes]]:
        text = arguments_text(new.arguments, self._largest)
        if new.cron is not None:
            cron.check(new.cron, new.timezone)
        if new.idempotency_key is None:
            # Digests are compared with those of the same key only.
            return text, [b""]
        zones = [new.timezone]
        if new.cron is not None and new.timezone in (None, "UTC"):
            # No zone is this one; which of the two a stored digest was made of is not known.
            zones.append("UTC" if new.timezone is None else None)
        return text, [digest(new.tool, new.arguments, new.cron, zone) for zone in zones]

    def claim(
        self, owner: str, limit: int, lease: float, worker: Worker | None = None
    ) -> Future[list[Task]]:
        """Start up to ``limit`` ready tasks, best first."""
        return self._writer.do(
            lambda tx: changes.claim(tx, self._leases, owner, limit, lease, worker)
        )

    def order(
        self,
        owner: str,
        lease: float,
        worker: Worker | None,
        deliver: Deliver,
        not_started: NotStarted,
    ) -> Order:
        """Have tasks started in the commit that makes them ready."""
        return Order(
            worker,
            lambda tx, wanted: changes.claim(tx, self._leases, owner, wanted, lease, worker),
            deliver,
            not_started,
            self._writer.tell_orders,
            self._writer.ask_orders,
        )

    def renew(self, renewals: Sequence[Renewal], lease: float) -> Future[list[Recorded]]:
        """Prolong leases."""
        return self._writer.do(lambda tx: changes.renew(tx, self._leases, renewals, lease))

    def note(self, notes: Sequence[Note]) -> Future[list[Recorded]]:
        """Store what attempts have said."""
        return self._writer.do(lambda tx: changes.note(tx, notes, self._log_lines))

    def complete(self, task_id: str, fence: int, result: CallResult) -> Future[Recorded]:
        """Record that a task succeeded."""
        return self._results.complete(
            result,
            lambda stored: self._writer.do(
                lambda tx: changes.complete(tx, self._leases, task_id, fence, stored)
            ),
        )

    def fail(
        self,
        task_id: str,
        fence: int,
        error: Mapping[str, object],
        verdict: Verdict,
        retry_in: float = 0.0,
    ) -> Future[Recorded]:
        """Record that an attempt failed."""
        message, text = shorten(str(error.get("message", ""))), error_text(error)
        return self._writer.do(
            lambda tx: changes.fail(
                tx, self._leases, task_id, fence, message, text, verdict, retry_in
            )
        )

    def release(
        self, task_id: str, fence: int, reason: str, retry_in: float = 0.0
    ) -> Future[Recorded]:
        """Give back a task that was claimed but not started."""
        return self._writer.do(
            lambda tx: changes.release(tx, self._leases, task_id, fence, reason, retry_in)
        )

    def interrupt(
        self, task_id: str, fence: int, reason: str, *, count_attempt: bool
    ) -> Future[Recorded]:
        """Record that an attempt was cut off."""
        return self._writer.do(
            lambda tx: changes.interrupt(tx, self._leases, task_id, fence, reason, count_attempt)
        )

    def cancel(self, principal: Principal, task_id: str) -> Future[Cancelled | None]:
        """Cancel a waiting task, or ask for a running one to be cancelled."""
        return self._writer.do(lambda tx: managing.cancel(tx, principal, task_id))

    def retry(
        self, principal: Principal, task_id: str, max_attempts: int | None = None
    ) -> Future[Changed | None]:
        """Have a task tried anew."""
        return self._writer.do(lambda tx: managing.retry(tx, principal, task_id, max_attempts))

    def retry_many(
        self, principal: Principal, task_ids: Sequence[str], max_attempts: int | None = None
    ) -> Future[list[Changed | None]]:
        """Have tasks tried anew."""
        ids = tuple(task_ids)
        return self._writer.do(
            lambda tx: [managing.retry(tx, principal, id_, max_attempts) for id_ in ids]
        )

    def resolve(
        self, principal: Principal, task_id: str, resolution: Resolution, note: str
    ) -> Future[Changed | None]:
        """Record what a person found out about an uncertain task."""
        return self._writer.do(
            lambda tx: managing.resolve(tx, principal, task_id, resolution, note)
        )

    def prioritise(
        self, principal: Principal, task_id: str, priority: int
    ) -> Future[Changed | None]:
        """Give a task another priority."""
        return self._writer.do(lambda tx: managing.prioritise(tx, principal, task_id, priority))

    def pause(self, principal: Principal, queue: str, reason: str) -> Future[QueueChanged]:
        """Start nothing more of one queue of the principal."""
        return self._queues.pause(principal, queue, shorten(reason))

    def resume(self, principal: Principal, queue: str) -> Future[QueueChanged]:
        """End the pause of a queue."""
        return self._queues.resume(principal, queue)

    def clear(
        self, principal: Principal, queue: str, *, recurring: bool = False
    ) -> Future[QueueChanged]:
        """Cancel what waits in one queue of the principal."""
        return self._queues.clear(principal, queue, recurring)

    def register(self, worker: Worker, most_slots: int) -> Future[Worker]:
        """Keep a worker."""
        return self._writer.do(lambda tx: workers.register(tx, worker, most_slots))

    def unregister(self, principal: Principal, name: str) -> Future[Worker | None]:
        """Forget a worker."""
        return self._writer.do(lambda tx: workers.unregister(tx, principal, name))

    def recover(self, owner: str) -> Future[Swept]:
        """Take over what every other owner left running."""
        return self._writer.do(lambda tx: sweeping.recover(tx, self._leases, owner))

    def sweep(self) -> Future[Swept]:
        """Make due tasks ready, interrupt those whose lease has run out, purge old ones."""
        freed: list[str] = []
        swept = self._writer.do(lambda tx: sweeping.sweep(tx, self._leases, self._retention, freed))
        return self._results.forget(swept, freed)
