"""`Reads`: the half of the engine that looks things up, on the reader's thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from mcpd_core import Principal
from mcpd_task_queue.records import (
    Activity,
    Exported,
    Filter,
    Page,
    Pause,
    QueueStats,
    ResultPart,
    Snapshot,
    TaskState,
    Worker,
)

from . import exporting, queries, workers
from .ledger import Ledger
from .reader import Reader
from .results import Results


class Reads:
    """Hands each look-up to the reader, and large results to those who keep them.

    :param clock: seconds since the epoch.
    :param monotonic: seconds on a clock that nobody can set.
    """

    def __init__(
        self,
        reader: Reader,
        results: Results,
        ledger: Ledger,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._results = results
        self._ledger = ledger
        self._clock = clock
        self._monotonic = monotonic

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
        """Look one task up."""
        found = self._reader.do(
            lambda connection: queries.get(
                connection,
                principal,
                task_id,
                payload,
                events,
                failures,
                self._ledger,
                self._steady(),
                largest,
                logs,
            )
        )
        return self._results.fill(found, largest) if payload else found

    def read_result(
        self, principal: Principal, task_id: str, offset: int, length: int
    ) -> Future[ResultPart | None]:
        """Read a part of the JSON text of a result."""
        return self._results.part(principal, task_id, offset, length)

    def _steady(self) -> float:
        return self._monotonic() + self._ledger.offset

    def find_key(self, principal: Principal, key: str) -> Future[str | None]:
        """Return the id of the principal's task with that idempotency key."""
        return self._reader.do(lambda connection: queries.find_key(connection, principal, key))

    def find(
        self,
        principal: Principal,
        wanted: Filter,
        *,
        cursor: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Future[Page]:
        """List the principal's tasks, newest first."""
        before = queries.place_of(cursor)
        return self._reader.do(
            lambda connection: queries.find(connection, principal, wanted, before, limit, offset)
        )

    def count(self, principal: Principal, wanted: Filter) -> Future[int]:
        """Count the tasks that `find` would list."""
        return self._reader.do(lambda connection: queries.count(connection, principal, wanted))

    def export(
        self,
        principal: Principal | None,
        wanted: Filter,
        *,
        cursor: str | None = None,
        size: int = 1024 * 1024,
    ) -> Future[Exported]:
        """Read tasks with everything about them, oldest first."""
        after = queries.place_of(cursor, 0)
        page = self._reader.do(
            lambda connection: exporting.read(connection, principal, wanted, after, size)
        )
        return self._results.fill_all(page)

    def activity(self, principal: Principal, seconds: float) -> Future[Activity]:
        """Say what the principal's tasks were like that ended in the last seconds."""
        return self._reader.do(
            lambda connection: queries.activity(connection, principal, self._clock() - seconds)
        )

    def pauses(self, principal: Principal) -> Future[list[Pause]]:
        """Return the principal's paused queues."""
        return self._reader.do(lambda connection: queries.pauses(connection, principal))

    def workers(self) -> Future[list[Worker]]:
        """Return the kept workers of everybody."""
        return self._reader.do(workers.read)

    def tally(self, principal: Principal) -> Future[dict[str, dict[TaskState, int]]]:
        """Count the principal's tasks by worker and state."""
        return self._reader.do(lambda connection: queries.tally(connection, principal))

    def stats(self, principal: Principal) -> Future[list[QueueStats]]:
        """Count the principal's tasks, per queue."""
        return self._reader.do(
            lambda connection: queries.stats(connection, principal, self._ledger)
        )

    def next_due(self) -> Future[float | None]:
        """Return the seconds until the next scheduled task is due, or a rate lets one start."""
        return self._reader.do(
            lambda connection: queries.next_due(
                connection, self._clock(), self._ledger.lanes.opening - self._steady()
            )
        )
