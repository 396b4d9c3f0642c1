"""What is done to all that waits in a queue: a part after the other, others being served between.

Fifty thousand tasks in one transaction would keep everybody else waiting for seconds. So each part
is a transaction of its own, and what others see of a change that is not answered yet is stated:

* **Pause.** The first part makes the pause known, so that no task becomes ready in the queue from
  then on. What was ready is paused part by part; until the answer some of it may be started.
* **Resume.** What was paused becomes ready part by part, the oldest first, and may be started. The
  last part ends the pause, so that what is submitted meanwhile waits behind what was there before.
* **Clear.** What waited when it began is cancelled part by part, unless it is started before. What
  is submitted later stays.

A pause and a resume of one queue cannot both come to an end: the later one of them wins, and the
earlier one is answered with what it had done by then. When the process dies in the middle, the next
start finishes a pause, and takes a resume back, from whether the pause is known (see `settle`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal, NamedTuple

from mcpd_core import Principal
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import Pause, QueueChanged, Whose

from .transaction import Transaction
from .transitions import cancel_now, leave, offer, place, select
from .writer import Writer

#: Tasks of one part. They take 10 to 30 ms, for which others wait.
PART = 250

_QUEUE = "principal_kind = ? AND principal_id = ? AND queue = ?"

#: Queues that a principal may have paused at a time.
MOST_PAUSES = 1_000

#: What a queue, of a principal, is being made.
Turning = dict[Whose, Literal["paused", "resumed"]]


class Part(NamedTuple):
    """What one part of a change has come to.

    :ivar tasks: how many it changed.
    :ivar last: whether there is no further one.
    :ivar changed: whether it has changed the queue, apart from what `_Change.run` began with.
    """

    tasks: int
    last: bool
    changed: bool = False


class WholeQueues:
    """Changes all that waits in a queue of a principal."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        #: What the changes that are not answered yet are about. Used on the writer's thread only.
        self._turning: Turning = {}

    def pause(self, principal: Principal, queue: str, reason: str) -> Future[QueueChanged]:
        """Start nothing more of a queue; the reason of a pause that goes on is replaced."""
        who = Whose(principal.kind, principal.id, queue)
        change = _Change(self._writer, who, lambda tx: self._pause_some(tx, who))

        def begin(tx: Transaction) -> bool:
            before = paused(tx, who)
            if before is None:
                _expect_few(tx, who)
            since = tx.now if before is None else before.since
            tx.execute("INSERT OR REPLACE INTO pause VALUES (?, ?, ?, ?, ?)", (*who, since, reason))
            tx.undo.put(tx.ledger.paused, who, None)
            tx.undo.put(self._turning, who, "paused")
            return before is None

        return change.run(begin)

    def _pause_some(self, tx: Transaction, who: Whose) -> Part:
        if self._turning.get(who) != "paused":
            return Part(0, True)
        moved = pause_ready(tx, who, PART)
        return self._part(tx, who, moved)

    def resume(self, principal: Principal, queue: str) -> Future[QueueChanged]:
        """End the pause of a queue."""
        who = Whose(principal.kind, principal.id, queue)
        change = _Change(self._writer, who, lambda tx: self._resume_some(tx, who))

        def begin(tx: Transaction) -> bool:
            tx.undo.put(self._turning, who, "resumed")
            return paused(tx, who) is not None

        return change.run(begin)

    def _resume_some(self, tx: Transaction, who: Whose) -> Part:
        if self._turning.get(who) != "resumed":
            return Part(0, True)
        oldest = f"{_QUEUE} AND state = 'paused' ORDER BY seq LIMIT {PART}"
        rows = select(tx, oldest, who, index="task_paused")
        for row in rows:
            columns = place(tx, row, row.priority)
            tx.execute(
                "UPDATE task SET state = 'ready', updated_at = ?, lane = ?, turn = ?, ready_at = ?"
                " WHERE seq = ?",
                (tx.now, columns["lane"], columns["turn"], columns["ready_at"], row.seq),
            )
            offered = offer("ready", *who, row.tool, row.tags)
            tx.note(row.id, "paused", "ready", whose=who, offered=offered)
        part = self._part(tx, who, len(rows))
        if part.last:
            tx.execute(f"DELETE FROM pause WHERE {_QUEUE}", who)
            if who in tx.ledger.paused:
                tx.undo.drop(tx.ledger.paused, who)
        return part

    def _part(self, tx: Transaction, who: Whose, moved: int) -> Part:
        if moved < PART:
            tx.undo.drop(self._turning, who)
        return Part(moved, moved < PART)

    def clear(self, principal: Principal, queue: str, recurring: bool) -> Future[QueueChanged]:
        """Cancel what waits in a queue."""
        who = Whose(principal.kind, principal.id, queue)
        newest = 0

        def begin(tx: Transaction) -> bool:
            nonlocal newest
            (newest,) = tx.execute("SELECT coalesce(max(seq), 0) FROM task").fetchone()
            return False

        def cancel_some(tx: Transaction) -> Part:
            rows = select(
                tx,
                f"{_QUEUE} AND state IN ('scheduled', 'ready', 'paused') AND seq <= ?"
                + ("" if recurring else " AND cron IS NULL")
                + f" LIMIT {PART}",
                (*who, newest),
                index="task_of_queue",
            )
            for row in rows:
                cancel_now(tx, row, "the queue was cleared")
            return Part(len(rows), len(rows) < PART, changed=bool(rows))

        return _Change(self._writer, who, cancel_some).run(begin)


class _Change:
    """A change that is made in parts; see `run`.

    :param some: makes one part.
    """

    def __init__(self, writer: Writer, who: Whose, some: Callable[[Transaction], Part]) -> None:
        self._writer = writer
        self._who = who
        self._some = some
        self._tasks = 0
        self._changed = False
        self._answer: Future[QueueChanged] = Future()

    def run(self, begin: Callable[[Transaction], bool]) -> Future[QueueChanged]:
        """Make the change.

        :param begin: called in the transaction of the first part; returns whether it has changed
            anything.
        """
        # It goes on whether or not anybody waits for it.
        self._answer.set_running_or_notify_cancel()
        self._go_on(lambda tx: self._one(tx, begin(tx)))
        return self._answer

    def _one(self, tx: Transaction, changed: bool) -> tuple[Part, bool, QueueChanged | None]:
        part = self._some(tx)
        tasks = self._tasks + part.tasks
        changed = changed or part.changed or self._changed
        if not part.last:
            return part, changed, None
        return part, changed, _changed(tx, self._who, changed, tasks)

    def _go_on(self, step: Callable[[Transaction], tuple[Part, bool, QueueChanged | None]]) -> None:
        self._writer.do(step).add_done_callback(self._proceed)

    def _proceed(self, done: Future[tuple[Part, bool, QueueChanged | None]]) -> None:
        error = done.exception()
        if error is not None:
            self._answer.set_exception(error)
            return
        part, self._changed, answer = done.result()
        self._tasks += part.tasks
        if answer is not None:
            self._answer.set_result(answer)
        else:
            # At the end of what waits for the writer: all of that comes first.
            self._go_on(lambda tx: self._one(tx, False))


def _expect_few(tx: Transaction, who: Whose) -> None:
    """Refuse to pause ever more queues: a pause is kept whether or not there is such a queue.

    :raises TaskRefused: saying so.
    """
    (number,) = tx.execute(
        "SELECT count(*) FROM pause WHERE principal_kind = ? AND principal_id = ?", who[:2]
    ).fetchone()
    if number >= MOST_PAUSES:
        raise TaskRefused(
            f"The queue {who.queue!r} was not paused: you have {number:,} paused queues, which is "
            "the most.",
            hint="get_queue_stats shows your pauses; resume_queue ends one.",
        )


def settle(tx: Transaction, limit: int) -> int:
    """Pause what is ready in paused queues: a pause or a resume did not get to its end.

    :returns: how many tasks, at most as many as was said.
    """
    moved = 0
    queues = tx.execute("SELECT principal_kind, principal_id, queue FROM pause").fetchall()
    for who in queues:
        if moved < limit:
            moved += pause_ready(tx, Whose(*who), limit - moved)
    return moved


def pause_ready(tx: Transaction, who: Whose, limit: int) -> int:
    """Pause ready tasks of a queue; returns how many."""
    some = f"{_QUEUE} AND state = 'ready' LIMIT {limit}"
    rows = select(tx, some, who, index="task_of_queue")
    tx.executemany(
        "UPDATE task SET state = 'paused', updated_at = ? WHERE seq = ?",
        [(tx.now, row.seq) for row in rows],
    )
    for row in rows:
        leave(tx, row)
        tx.note(row.id, "ready", "paused", whose=who)
    return len(rows)


def paused(tx: Transaction, who: Whose) -> Pause | None:
    """Return the pause of a queue, if it is paused."""
    found = tx.execute(f"SELECT queue, since, reason FROM pause WHERE {_QUEUE}", who).fetchone()
    return None if found is None else Pause(*found)


def _changed(tx: Transaction, who: Whose, changed: bool, tasks: int) -> QueueChanged:
    counts = dict(
        tx.execute(
            f"SELECT state, count(*) FROM task INDEXED BY task_of_queue WHERE {_QUEUE}"
            " AND state IN ('scheduled', 'ready', 'paused', 'running') GROUP BY state",
            who,
        ).fetchall()
    )
    running = counts.pop("running", 0)
    return QueueChanged(changed, tasks, sum(counts.values()), running, paused(tx, who))
