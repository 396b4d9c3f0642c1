"""Worker threads for ``def`` tools.

A pool of threads costs little per call as long as nobody is woken in vain: functions wait for a
thread in one queue, and those that have ended wait for the host in one `Mailbox`, so that a loop
which is behind finds all of them at one wake-up.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import anyio

from ..errors import CallCancelled, ToolUnavailable
from .base import Expired, Outcome, name_of
from .deadlines import deadlines
from .mailbox import Mailbox

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ThreadRuntime:
    """A pool of daemon threads that grows to its limit and is awaited from the host's loop.

    Nothing can interrupt a thread. A cancelled function is told so through its own means (see
    `Context.check_cancelled`) and is waited for; one that does not listen within the patience is
    left behind with a warning, and keeps its thread until it returns.

    :param limit: the greatest number of threads that work at once; those that wait for calls that
        they have made are not counted, or they could keep these very calls from running.
    :param patience: seconds to wait for a cancelled function.
    :ivar busy: functions that have not returned, those that wait for a thread included.
    """

    name = "thread"
    rung = "pool"

    def __init__(self, limit: int, patience: float) -> None:
        self._limit = limit
        self.patience = patience
        self.loop = asyncio.get_running_loop()
        self._jobs: deque[_Job[Any]] = deque()
        #: One for each job, whose turn may have been given up by then; ``False`` ends a thread.
        self._turns: SimpleQueue[bool] = SimpleQueue()
        self._ended = Mailbox(self.loop.call_soon_threadsafe)
        self._deadlines = deadlines()
        self._threads = self._waiting = 0
        self.busy = 0

    async def run(
        self,
        function: Callable[[], T],
        *,
        deadline: float | None = None,
        on_cancel: Callable[[], None] = lambda: None,
        patience: Callable[[], float] | None = None,
    ) -> T:
        """Run a function in a worker thread; awaited on the host's loop.

        :param deadline: `time.monotonic` time at which ``on_cancel`` is called.
        :param on_cancel: tells the function to stop; called on the host's thread.
        :param patience: returns the seconds to wait for it then, if not as long as for others.
        :raises Expired: when the deadline passed, whether or not the function has returned.
        :raises ToolUnavailable: when there is no thread and none can be started, or none was free
            before the deadline.
        """
        job = _Job(self, function, on_cancel, patience or self._usual_patience)
        if self.busy >= self._threads:
            self._grow(self.busy + 1)
        self.busy += 1
        self._jobs.append(job)
        self._turns.put(True)
        alarm = None if deadline is None else self._deadlines.at(deadline, job.expire)
        try:
            await job.waiter
        except asyncio.CancelledError:
            await self._stop(job)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            if not job.returned:
                _log.warning(
                    "%s did not stop within %g s of being cancelled; its thread runs on.",
                    name_of(function),
                    job.patience,
                )
        if job.expired:
            if job.withdrawn:
                raise self._occupied()
            if not job.returned or isinstance(job.error, CallCancelled):
                raise Expired
        if job.error is not None:
            outcome: Outcome[T] = Outcome(error=job.error)
            # Its traceback will refer to this frame, and this frame refers to the job.
            job.error = None
            return outcome.unwrap()
        return job.value  # type: ignore[return-value]

    def _usual_patience(self) -> float:
        return self.patience

    async def _stop(self, job: _Job[Any]) -> None:
        """Cancel a function whose caller was cancelled, and wait for its end."""
        job.cancel()
        # An unshielded wait inside a cancelled anyio scope would be cancelled on every iteration.
        with anyio.CancelScope(shield=True):
            while not job.settled:
                job.waiter = self.loop.create_future()
                try:
                    await job.waiter
                except asyncio.CancelledError:
                    # A further request to do what is under way already.
                    continue

    def wait(self) -> None:
        """Take note that a function in a thread waits for a call that it has made."""
        self._waiting += 1
        self._grow(self.busy)

    def resume(self) -> None:
        """Take note that one waits no longer."""
        self._waiting -= 1

    def _grow(self, wanted: int) -> None:
        """Start another thread, if more are wanted and the limit allows it."""
        if not wanted > self._threads < self._limit + self._waiting:
            return
        # Daemon threads: a function that never returns must not keep the process alive.
        name = f"mcpd-tool-{self._threads + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if self._threads:
                _log.warning("%s Tools wait for those that there are.", no_thread(error))
                return
            raise no_thread(error) from error
        self._threads += 1

    def withdraw(self, job: _Job[Any]) -> bool:
        """Take a function out of the queue; tell whether no thread had come for it."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def _work(self) -> None:
        while self._turns.get():
            try:
                job = self._jobs.popleft()
            except IndexError:
                continue
            job.run()
            try:
                self._ended.post(job.finish)
            except RuntimeError:
                # The loop was closed while the function ran on; nobody waits any more.
                _log.debug("%s returned after the host had closed.", name_of(job.function))
            # An idle thread must not keep the last call's arguments alive.
            del job

    def _occupied(self) -> ToolUnavailable:
        return ToolUnavailable(
            f"No worker thread was free before the deadline: all {self._threads} are in use.",
            hint="Try again later. The server's log names the tools that did not stop when they "
            "were told to and keep their threads; only a restart gives those free.",
        )

    async def aclose(self) -> None:
        """Let idle threads end; one that is still in a function ends after it."""
        for _ in range(self._threads):
            self._turns.put(False)


def no_thread(error: RuntimeError) -> ToolUnavailable:
    """Say that the system refuses another thread."""
    return ToolUnavailable(
        f"No thread can be started: {error}.",
        hint="Try again later; the machine may be short of memory or threads.",
    )


class _Job(Generic[T]):
    """One function on its way through a worker thread.

    :ivar waiter: is done when the wait for it may end; the waiting task may make a new one.
    :ivar settled: whether the wait may end: because it has returned, or because it takes too long.
    :ivar returned: whether it has returned, as far as the host's thread knows.
    :ivar expired: whether its deadline passed before.
    :ivar patience: seconds to wait for it, once it was cancelled.
    :ivar withdrawn: whether it was cancelled before its turn, so that it was not run at all.
    :ivar value: what it returned.
    :ivar error: what it raised.
    """

    __slots__ = (
        "_ask_patience",
        "_cancelled",
        "_context",
        "_on_cancel",
        "_patience_alarm",
        "_pool",
        "error",
        "expired",
        "function",
        "patience",
        "returned",
        "settled",
        "value",
        "waiter",
        "withdrawn",
    )

    def __init__(
        self,
        pool: ThreadRuntime,
        function: Callable[[], T],
        on_cancel: Callable[[], None],
        patience: Callable[[], float],
    ) -> None:
        self._pool = pool
        self.function = function
        self._on_cancel = on_cancel
        self._context = contextvars.copy_context()
        self.waiter: asyncio.Future[None] = pool.loop.create_future()
        self._cancelled = self.expired = self.withdrawn = self.returned = self.settled = False
        self._ask_patience = patience
        self._patience_alarm: asyncio.TimerHandle | None = None
        self.patience = 0.0
        self.value: T | None = None
        self.error: BaseException | None = None

    def expire(self) -> None:
        """Cancel it at its deadline."""
        if not self._cancelled and not self.returned:
            self.expired = True
            self.cancel()

    def cancel(self) -> None:
        """Tell it to stop, and wait no longer than the patience from now on."""
        if self._cancelled or self.returned:
            return
        self._cancelled = True
        if self._pool.withdraw(self):
            self.withdrawn = True
            self.finish()
        else:
            self._on_cancel()
            self.patience = self._ask_patience()
            self._patience_alarm = self._pool.loop.call_later(self.patience, self.settle)

    def finish(self) -> None:
        """Take note that it has returned; called on the host's thread."""
        self._pool.busy -= 1
        self.returned = True
        if self._patience_alarm is not None:
            self._patience_alarm.cancel()
        self.settle()

    def settle(self) -> None:
        """Let the wait end."""
        # Not `waiter` alone decides: it is done, too, when the waiting task has been cancelled in
        # the very iteration in which the function returned.
        self.settled = True
        if not self.waiter.done():
            self.waiter.set_result(None)

    def run(self) -> None:
        """Run the function; called in the thread."""
        try:
            self.value = self._context.run(self.function)
        except BaseException as error:  # noqa: BLE001 - the boundary: handed to the caller
            self.error = error
