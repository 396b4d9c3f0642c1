"""One attempt at a task: the call, and what is recorded about how it ended."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import trio

from mcpd_core import (
    CallRefused,
    CallResult,
    HostClosed,
    McpdError,
    Principal,
    Progress,
    ServiceHost,
)

from .announcing import Announcer
from .cancelling import left_behind
from .errors import TaskRefused
from .notes import Notes
from .policy import DEADLINE, after_refusal, verdict_on
from .records import Note, Recorded, Task
from .retrying import Backoff
from .slots import Slots
from .store import TaskStore

#: Codes of a `CallResult.error` that say: the call was cut off from outside while the tool ran.
CUT_OFF = frozenset({"interrupted", "cancelled"})

#: Asks a store to record how an attempt ended.
Record: TypeAlias = "partial[Future[Recorded]]"


@dataclass(eq=False)
class Attempt:
    """A task that runs here.

    :ivar slots: whose it is; one of them is taken until it has ended.
    :ivar notes: what the tool says of itself.
    :ivar scope: cancels the call.
    :ivar cause: why the scope was cancelled, as the first half of a sentence.
    :ivar grace: seconds that the tool has to clean up when the call is cancelled.
    :ivar asked_at: `trio.current_time` at which it was cancelled first.
    :ivar ended: the call is over, and only its recording may be going on.
    :ivar lost: the task belongs to another attempt by now; there is nothing to record.
    """

    task: Task
    slots: Slots
    notes: Notes
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    cause: str = "the server was stopped"
    grace: float = 10.0
    asked_at: float | None = None
    ended: bool = False
    lost: bool = False

    def is_of(self, principal: Principal) -> bool:
        """Whether the task is the principal's."""
        who = self.task.principal
        return (who.kind, who.id) == (principal.kind, principal.id)

    def take_note(self) -> Note | None:
        """Return what the tool has said since the last time; ``None`` when it has said nothing."""
        return self.notes.take(self.task.id, self.task.fence)

    def cancel(self, cause: str) -> None:
        """Interrupt the call."""
        self.cause = cause
        if self.asked_at is None:
            self.asked_at = trio.current_time()
        self.scope.cancel()


class Runner:
    """Makes the calls that tasks stand for.

    :param largest_result: bytes that the answer of a tool may have.
    :ivar refused_at_close: a call was refused because the host accepts none any more.
    """

    def __init__(
        self,
        store: TaskStore,
        host: ServiceHost,
        retries: Backoff,
        releases: Backoff,
        largest_result: int,
    ) -> None:
        self._largest_result = largest_result
        self._store = store
        self._host = host
        self._announcer = Announcer(host)
        self._retries = retries
        self._releases = releases
        self.refused_at_close = False

    async def run(self, attempt: Attempt) -> Record:
        """Make the call; whatever comes of it, return how to record that.

        Cancelling `Attempt.scope` interrupts it and comes back here after the tool's clean-up.
        """
        task = attempt.task
        with attempt.scope:
            try:
                return self._ended(task, await self._call(attempt))
            except CallRefused as refused:
                return self._refused(task, refused)
            except McpdError as error:
                return self._ended(task, CallResult(str(error), error={"code": error.code}))
            except Exception as error:  # the boundary: no call may take the workers down
                self._host.log.exception("Task %s: the call raised.", task.id)
                message = f"the call raised {type(error).__name__}"
                return self._failed(task, {"code": "internal", "message": message})
        return self.cut_off(attempt)

    def cut_off(self, attempt: Attempt) -> Record:
        """Return how to record that the call was interrupted, through no fault of the task."""
        task = attempt.task
        cause = attempt.cause
        if attempt.asked_at is not None:
            seconds = trio.current_time() - attempt.asked_at
            cause += left_behind(self.placement(task), seconds, attempt.grace)
        return partial(self._store.interrupt, task.id, task.fence, cause, count_attempt=False)

    def placement(self, task: Task) -> str | None:
        """Return where the tool of a task runs; ``None`` when nobody offers it."""
        spec = self._host.tool(task.tool)
        return None if spec is None else spec.placement

    async def _call(self, attempt: Attempt) -> CallResult:
        task = attempt.task
        return await self._host.call(
            task.tool,
            task.arguments or {},
            principal=task.principal,
            client=f"task_queue/{task.principal}/{task.client}",
            timeout=task.timeout,
            within=_time_left(task),
            cancel_grace=lambda: attempt.grace,
            on_progress=partial(self._on_progress, attempt),
            on_log=attempt.notes.on_log,
            max_result_bytes=self._largest_result,
        )

    def _on_progress(self, attempt: Attempt, progress: Progress) -> None:
        attempt.notes.on_progress(progress)
        self._announcer.progressed(attempt.task)

    def announce(self, attempt: Attempt) -> None:
        """Tell who follows the task that there is something new about it."""
        self._announcer.progressed(attempt.task)

    def _ended(self, task: Task, result: CallResult) -> Record:
        error = result.error
        if error is None:
            return partial(self._complete, task, result)
        code = error.get("code")
        cause = str(error.get("message") or result.text).rstrip(".")
        if code in CUT_OFF:
            return partial(self._store.interrupt, task.id, task.fence, cause, count_attempt=False)
        if code == DEADLINE and not task.repeatable:
            # What was cut off in the middle may have taken effect, whoever cut it off.
            return partial(self._store.interrupt, task.id, task.fence, cause, count_attempt=True)
        return self._failed(task, {"message": result.text, **error})

    def _complete(self, task: Task, result: CallResult) -> Future[Recorded]:
        return self._store.complete(task.id, task.fence, result)

    def not_kept(self, task: Task, refused: TaskRefused) -> Record:
        """Return how to record that the store does not take what the tool answered."""
        error = {"code": "invalid_output", "message": refused.message, "hint": refused.hint}
        return partial(self._store.fail, task.id, task.fence, error, "failed")

    def _failed(self, task: Task, error: dict[str, object]) -> Record:
        verdict, wanted = verdict_on(
            error, attempts=task.attempts, max_attempts=task.max_attempts, policy=task.retry
        )
        retries = self._retries if task.retry is None else task.retry.backoff(self._retries)
        retry_in = wanted if wanted is not None else retries.after(task.attempts)
        return partial(self._store.fail, task.id, task.fence, error, verdict, retry_in)

    def _refused(self, task: Task, refused: CallRefused) -> Record:
        if isinstance(refused, HostClosed):
            self.refused_at_close = True
        decision = after_refusal(refused, task.tool)
        if decision.action == "fail":
            error = {**refused.data, "code": refused.code, "message": str(refused)}
            return partial(self._store.fail, task.id, task.fence, error, "failed")
        retry_in = decision.retry_in
        if retry_in is None:
            retry_in = self._releases.after(task.releases + 1)
        return partial(self._store.release, task.id, task.fence, decision.reason, retry_in)

    def not_started(self, attempt: Attempt) -> Record:
        """Return how to give a task back that was claimed in vain."""
        task = attempt.task
        return partial(self._store.release, task.id, task.fence, "the server is shutting down")


def _time_left(task: Task) -> float | None:
    """Return the seconds that are left for a task that has just been started, if it has a deadline.

    They are taken by the clock of the store at the start, so that setting the clock does not reach
    a call that runs.
    """
    if task.expires_at is None or task.started_at is None:
        return None
    return max(0.0, task.expires_at - task.started_at)
