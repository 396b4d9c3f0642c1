"""`Dispatcher`: the workers. It orders tasks, runs them, keeps their leases, and sweeps.

Nothing polls: idle workers leave orders with the store, the next due time is a timer, and a store
without work costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from mcpd_core import McpdError, Principal, ServiceHost

from .attempts import Attempt, Record, Runner
from .bridge import Bridge, Signal, defect
from .cancelling import why_it_still_runs
from .errors import StoreBroken, StoreClosed, StoreError
from .metrics import Meter
from .notes import Notes
from .recording import Recorder
from .records import Change, Renewal, Task, Worker
from .retrying import Backoff
from .settings import TaskQueueSettings
from .slots import Crew, Slots
from .store import TaskStore
from .supplying import Supply

#: Seconds after which a due time is looked at again although its timer runs on: the timer cannot
#: see that somebody set the clock.
LONGEST_NAP = 30.0
#: Seconds between two looks for tasks whose retention has passed.
PURGE_EVERY = 3_600.0
#: Seconds after a tool has said something until it is stored, with what others say meanwhile.
NOTE_AFTER = 0.5
#: Waits while the store takes no changes: the first one, and the longest, in seconds.
STORE_RETRY = Backoff(0.5, 10.0)


class Dispatcher:
    """Runs the tasks of a store: with the built-in worker, and with those that were registered.

    :param owner: in whose name tasks are claimed; new with each start.
    """

    def __init__(
        self,
        store: TaskStore,
        host: ServiceHost,
        bridge: Bridge,
        settings: TaskQueueSettings,
        owner: str,
    ) -> None:
        self._store = store
        self._log = host.log
        self._bridge = bridge
        self._settings = settings
        self.meter = Meter()
        self._runner = Runner(
            store,
            host,
            retries=Backoff(settings.first_retry, settings.longest_retry),
            releases=Backoff(2.0, 60.0),
            largest_result=settings.largest_result,
        )
        self._recorder = Recorder(
            store,
            host,
            bridge,
            self._runner,
            self.meter,
            retries=STORE_RETRY,
            stopping=lambda: self._stopping,
            recording=self._replace,
        )
        #: What this process holds a lease of, by task id.
        self.attempts: dict[str, Attempt] = {}
        #: `trio.current_time` at which the next scheduled task is due.
        self.next_due = math.inf
        self.crew = Crew(settings.workers)
        self._supply = Supply(
            store,
            bridge,
            owner,
            settings.lease,
            arrived=self._arrive,
            failed=self._not_started,
            landed=self._land,
        )
        self._draining = self._stopping = False
        #: The workers have been stopped, or torn down.
        self._left = False
        #: Where attempts run.
        self._nursery: trio.Nursery | None = None
        #: Why nothing could be started, as long as nobody has seen to it, and how often in a row.
        self._trouble: McpdError | None = None
        self._failures = 0
        self._work = Signal()
        self._landed = Signal()
        self._schedule = Signal()
        self._holding = Signal()
        self._freed = Signal()
        self._noted = Signal()

    def new_notes(self) -> Notes:
        """Return where an attempt keeps what its tool says, until that is stored."""
        return Notes(self._settings.log_lines, lambda: self._bridge.post(self._noted.set))

    def engage(self, worker: Worker) -> None:
        """Have a registered worker take tasks from now on, or change what it takes."""
        # Its order was for what it took, and how much; the next one is for what it takes now.
        self._supply.withdraw(self.crew.engage(worker))
        self._work.set()

    def dismiss(self, worker: Worker) -> Slots:
        """Have a registered worker take nothing more; returns its slots, for `let_go`."""
        slots = self.crew.dismiss(worker)
        self._supply.withdraw(slots)
        return slots

    async def let_go(self, slots: Slots, grace: float | None) -> tuple[int, int]:
        """Wait for what a dismissed worker runs.

        :param grace: seconds to wait, before what it runs is interrupted; ``None`` lets it finish
            and does not wait for it.
        :returns: how many tasks it still ran, and how many of them were interrupted.
        """
        # What was started for it before it was dismissed may still be on its way.
        await slots.landed.wait()
        running = slots.busy
        if grace is None or not running:
            return running, 0
        with trio.move_on_after(grace):
            await slots.idle.wait()
        interrupted = 0
        for attempt in self.attempts.values():
            if attempt.slots is slots and not attempt.ended:
                attempt.cancel("its worker was unregistered")
                interrupted += 1
        return running, interrupted

    def allow(self, principal: Principal, task_id: str, grace: float) -> None:
        """Set how long a task that runs here may clean up when it is cancelled, if it is theirs.

        :param grace: seconds; it counts for the first request to cancel only.
        """
        attempt = self.attempts.get(task_id)
        if attempt is not None and attempt.asked_at is None and attempt.is_of(principal):
            attempt.grace = grace

    def why_it_still_runs(self, task: Task) -> str:
        """Say what keeps a task running that is to be cancelled; empty if it does not run here."""
        attempt = self.attempts.get(task.id)
        if attempt is None or attempt.asked_at is None:
            return ""
        seconds = trio.current_time() - attempt.asked_at
        return why_it_still_runs(self._runner.placement(task), seconds, attempt.grace)

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take note of a commit; called on the trio thread."""
        for change in changes:
            if change.timed or (
                change.after != "ready" and "scheduled" in (change.before, change.after)
            ):
                self._schedule.set()
            if change.cancelling:
                attempt = self.attempts.get(change.task_id)
                if attempt is not None:
                    attempt.cancel("it was interrupted")

    async def run(self) -> None:
        """Work until cancelled; call `stop` first."""
        # What was due while nothing ran is looked at first: it may be too late for some of it.
        await self._sweep()
        self._work.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_leases)
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._keep_notes)
            nursery.start_soon(self._await_arrivals)
            self._nursery = nursery
            try:
                await self._keep_ordering()
            finally:
                self._left = True
                self._supply.withdraw_all()
                self._landed.set()

    def drain(self) -> None:
        """Order nothing more; what runs goes on. May be called on any thread.

        What is submitted from now on is not started: it could not be called.
        """
        self._draining = True
        self._supply.withdraw_all()
        # Once more on the thread that orders, which may just have been at it.
        self._bridge.post(self._supply.withdraw_all)

    async def stop(self) -> None:
        """Order nothing more, interrupt what runs, and return when all of it is recorded."""
        self._stopping = True
        # Ahead of what is recorded from now on: none of it is to be started anew.
        self._supply.withdraw_all()
        for attempt in self.attempts.values():
            attempt.cancel("the server was stopped")
        while self.attempts or self._supply.pending:
            # For as long as the tools need to clean up; each attempt ends with this signal.
            await self._freed.wait()

    # --- orders -----------------------------------------------------------------------------------

    async def _keep_ordering(self) -> None:
        """Have the store start tasks for all slots that are free."""
        while True:
            await self._work.wait()
            if self._trouble is not None:
                error, self._trouble = self._trouble, None
                self._failures += 1
                self._log.error("No task can be started: %s", error)
                if isinstance(error, (StoreBroken, StoreClosed)):
                    await trio.sleep_forever()
                await trio.sleep(STORE_RETRY.after(self._failures))
                self._supply.look()
            if not self._closing:
                for slots in self.crew:
                    self._supply.order(slots)

    def _replace(self, attempt: Attempt) -> None:
        """Have the next task started, by the commit that records how an attempt ended."""
        if not self._closing:
            self._supply.order(attempt.slots)

    def _arrive(self, slots: Slots, tasks: Sequence[Task]) -> None:
        """Take over what was started, before anything later is heard of it."""
        # Open for as long as anything may arrive.
        nursery = self._nursery
        assert nursery is not None
        self._failures = 0
        for task in tasks:
            attempt = Attempt(task, slots, self.new_notes(), grace=self._settings.cancel_grace)
            self.attempts[task.id] = attempt
            slots.take()
            nursery.start_soon(self._attempt, attempt)
        if tasks:
            self._holding.set()
        if self._settings.has_rates and slots.wanted:
            # Perhaps nothing but time keeps a task from being started.
            self._schedule.set()

    def _not_started(self, error: BaseException) -> None:
        self._trouble = error if isinstance(error, McpdError) else defect(error)
        self._work.set()

    async def _await_arrivals(self) -> None:
        """Keep the nursery open while attempts may arrive: each is recorded, whatever ends us."""
        with trio.CancelScope(shield=True):
            while self._supply.pending or not self._left:
                await self._landed.wait()

    def _land(self) -> None:
        self._work.set()
        self._landed.set()
        self._freed.set()

    # --- running ----------------------------------------------------------------------------------

    @property
    def _closing(self) -> bool:
        # A host that refuses calls will do so for the rest of its life.
        return self._draining or self._stopping or self._left or self._runner.refused_at_close

    async def _attempt(self, attempt: Attempt) -> None:
        record: Record | None = None
        started = trio.current_time()
        try:
            # It may have been claimed while the closing began.
            if self._closing:
                record = self._runner.not_started(attempt)
            else:
                record = await self._runner.run(attempt)
        finally:
            # Cancelled or not, how it ended has to be recorded.
            attempt.ended = True
            self.meter.ran(trio.current_time() - started)
            attempt.slots.give_back()
            self._left |= record is None
            if self._closing:
                # Ahead of what is recorded: it is not to be started anew.
                self._supply.withdraw_all()
            elif attempt.lost:
                self._supply.order(attempt.slots)
            with trio.CancelScope(shield=True):
                if record is None:
                    record = self._runner.cut_off(attempt)
                await self._recorder.record(attempt, record)
            if self.attempts.get(attempt.task.id) is attempt:
                del self.attempts[attempt.task.id]
            self._freed.set()

    # --- time -------------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        """Renew all leases in one batch, three times per lease, while there are any."""
        while True:
            await self._holding.wait()
            while self.attempts:
                await trio.sleep(self._settings.lease / 3)
                held = list(self.attempts.values())
                renewals = [Renewal(a.task.id, a.task.fence) for a in held]
                try:
                    answers = await self._bridge.answer(
                        self._store.renew(renewals, self._settings.lease)
                    )
                except StoreError as error:
                    self._log.error("Leases cannot be renewed: %s", error)
                    continue
                for attempt, answer in zip(held, answers, strict=True):
                    # One that has ended meanwhile is not lost.
                    if not answer.accepted and self.attempts.get(attempt.task.id) is attempt:
                        self._lose(attempt)
                # Only now: a process that was stopped for a while must not take its own tasks for
                # abandoned.
                await self._sweep()

    async def _keep_notes(self) -> None:
        """Store what tools have said, of all of them together, soon after one has said something.

        Nothing wakes up while nothing is said, and a tool that says much costs no more than one
        that says a little every time.
        """
        failures = 0
        while True:
            await self._noted.wait()
            await trio.sleep(STORE_RETRY.after(failures) if failures else NOTE_AFTER)
            said = [(a, note) for a in self.attempts.values() if (note := a.take_note())]
            if not said:
                continue
            try:
                await self._bridge.answer(self._store.note([note for _, note in said]))
            except StoreError as error:
                failures += 1
                self._log.error("Progress and log lines cannot be stored: %s", error)
                if isinstance(error, (StoreBroken, StoreClosed)):
                    return
                for attempt, note in said:
                    attempt.notes.put_back(note)
                continue
            failures = 0
            for attempt, note in said:
                if note.lines:
                    self._runner.announce(attempt)

    def _lose(self, attempt: Attempt) -> None:
        if attempt.ended or attempt.scope.cancel_called:
            return
        self._log.warning(
            "Task %s (%s) was taken from attempt %d, whose lease had run out; it is interrupted.",
            attempt.task.id,
            attempt.task.tool,
            attempt.task.attempts,
        )
        attempt.lost = True
        attempt.cancel("its lease ran out")

    async def _keep_time(self) -> None:
        """Sweep when the next task is due, and now and then for what is old."""
        while True:
            try:
                due = await self._bridge.answer(self._store.next_due())
            except StoreError as error:
                self._log.error("The next due time cannot be read: %s", error)
                due = LONGEST_NAP
            self.next_due = math.inf if due is None else trio.current_time() + due
            nap = PURGE_EVERY if due is None else min(due, LONGEST_NAP)
            with trio.move_on_after(nap) as scope:
                await self._schedule.wait()
            if scope.cancelled_caught:
                await self._sweep()

    async def _sweep(self) -> None:
        more = True
        while more:
            try:
                swept = await self._bridge.answer(self._store.sweep())
            except StoreError as error:
                self._log.error("The store cannot be swept: %s", error)
                await trio.sleep(STORE_RETRY.after(1))
                return
            if swept.parked or swept.buried:
                self._log.warning(
                    "Leases ran out, or deadlines: %d tasks are uncertain now, %d are dead.",
                    swept.parked,
                    swept.buried,
                )
            more = swept.more
