"""Submitting to queues that may be full: waiting for room in line, and saying how long it may take.

Nothing polls: whoever is first in line for a queue tries again when a task has left it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from .records import WAITING, Change, Full, NewTask, Submitted

#: Stores tasks; those for which there is no room come back as ``full``.
Store = Callable[[Sequence[NewTask]], Awaitable[list[Submitted]]]
#: Gives something back, such as a permit, for as long as somebody waits.
Waiting = Callable[[], AbstractAsyncContextManager[None]]

#: Tasks that left a queue of late, by which it is estimated how soon there is room again: so many
#: at most, in so many seconds.
_REMEMBERED = 64
_LATELY = 300.0
#: Queues of which that is remembered at most.
_MOST_QUEUES = 1_024


class Line:
    """Those who wait for room in one queue, first come, first served.

    :ivar full: what the first one was told last.
    """

    def __init__(self, full: Full) -> None:
        self.full = full
        self.tickets: deque[trio.Event] = deque()
        self.room = trio.Event()


class Rooms:
    """Knows who waits for room in which queue, and how fast tasks leave the queues."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        #: Whether the server stops, and nobody waits any more.
        self.closed = False
        self._left: dict[str, deque[float]] = {}

    def close(self) -> None:
        """Send everybody away who waits, and have nobody wait from now on."""
        self.closed = True
        for line in self._lines.values():
            line.room.set()
            for ticket in line.tickets:
                ticket.set()

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take note of a commit; called on the trio thread."""
        now = trio.current_time()
        for change in changes:
            if change.before in WAITING and change.after not in WAITING:
                if change.whose is None:
                    for line in self._lines.values():
                        line.room.set()
                    continue
                queue = change.whose.queue
                self._departures(queue).append(now)
                if queue in self._lines:
                    self._lines[queue].room.set()

    def _departures(self, queue: str) -> deque[float]:
        times = self._left.pop(queue, None) or deque(maxlen=_REMEMBERED)
        self._left[queue] = times  # the last one is the latest
        if len(self._left) > _MOST_QUEUES:
            del self._left[next(iter(self._left))]
        return times

    def retry_after(self, full: Full) -> float | None:
        """Estimate when there is room, from how fast tasks have left the queue of late.

        :returns: seconds; ``None`` when none has left, or nothing would help.
        """
        if not full.ever:
            return None
        now = trio.current_time()
        times = [at for at in self._left.get(full.queue, ()) if at > now - _LATELY]
        # One departure tells no rate.
        if len(times) < 2 or now <= times[0]:
            return None
        excess = 1.0
        if full.limit == "bytes" and full.tasks:
            excess = (full.bytes + full.wanted - full.most) / max(1.0, full.bytes / full.tasks)
        in_line = len(self._lines[full.queue].tickets) if full.queue in self._lines else 0
        seconds = (math.ceil(excess) + in_line) * (now - times[0]) / (len(times) - 1)
        return max(0.1, seconds)

    async def submit(
        self,
        store: Store,
        known: Callable[[NewTask], Awaitable[bool]],
        tasks: Sequence[NewTask],
        wait: float,
        waiting: Waiting,
    ) -> list[Submitted]:
        """Store tasks, waiting for room where the queue has its submitters wait.

        :param known: whether there is a task with the idempotency key already.
        :param wait: seconds to wait at most.
        :param waiting: entered for as long as it takes.
        :returns: what became of each, in order; some may be ``full`` still.
        """
        answers: dict[int, Submitted] = {}
        for n, task in enumerate(tasks):
            # Nobody gets past those who wait already, unless nothing new is to be stored.
            if task.queue in self._lines and not await known(task):
                line = self._lines.get(task.queue)
                if line is not None:
                    answers[n] = Submitted("full", "", None, queue=task.queue, full=line.full)
        now = [n for n in range(len(tasks)) if n not in answers]
        if now:
            answers.update(zip(now, await store([tasks[n] for n in now]), strict=True))
        blocked = {
            answer.full.queue: answer.full
            for answer in answers.values()
            if answer.full is not None and answer.full.overflow == "block" and answer.full.ever
        }
        if blocked and wait > 0 and not self.closed:
            async with waiting():
                with trio.move_on_after(wait):
                    for full in blocked.values():
                        await self._in_line(store, full, tasks, answers)
        return [answers[n] for n in range(len(tasks))]

    async def _in_line(
        self,
        store: Store,
        full: Full,
        tasks: Sequence[NewTask],
        answers: dict[int, Submitted],
    ) -> None:
        """Wait in line until all tasks for a queue are stored, or until cancelled."""
        queue = full.queue
        line = self._lines.setdefault(queue, Line(full))
        ticket = trio.Event()
        line.tickets.append(ticket)
        try:
            if line.tickets[0] is not ticket:
                await ticket.wait()
            while not self.closed and (
                left := [n for n, answer in answers.items() if _waits(answer, queue)]
            ):
                # Before the look: what leaves from then on is not missed.
                line.room = room = trio.Event()
                # The store answers whatever it is asked; what it has stored must be told.
                with trio.CancelScope(shield=True):
                    stored = await store([tasks[n] for n in left])
                for n, answer in zip(left, stored, strict=True):
                    answers[n] = answer
                    line.full = answer.full or line.full
                if any(_waits(answer, queue) for answer in stored) and not self.closed:
                    await room.wait()
        finally:
            line.tickets.remove(ticket)
            if line.tickets:
                line.tickets[0].set()
            else:
                del self._lines[queue]


def _waits(answer: Submitted, queue: str) -> bool:
    return answer.full is not None and answer.full.queue == queue and answer.full.ever
