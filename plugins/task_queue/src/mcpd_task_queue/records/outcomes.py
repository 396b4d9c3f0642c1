"""What is asked of a store, what it did, and what it tells of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .looking import LogLine
from .queues import Full
from .tasks import Reported, TaskState
from .workers import Offered


class Submitted(NamedTuple):
    """What became of one `NewTask`.

    :ivar outcome: ``created``; ``existing`` when the idempotency key belongs to a task with the
        same tool and arguments; ``rejected`` when it belongs to one with others; ``full`` when its
        queue has no room.
    :ivar task_id: of the new task, or of the one that has the key; empty when it is ``full``.
    :ivar state: of that task, now; ``None`` when it is ``full``.
    :ivar run_at: when that task is due, while it is ``scheduled``.
    :ivar queue: that the task is in.
    :ivar spilled_from: the queue that it was for, if that had no room.
    :ivar full: why there is no room.
    """

    outcome: Literal["created", "existing", "rejected", "full"]
    task_id: str
    state: TaskState | None
    run_at: float | None = None
    queue: str = ""
    spilled_from: str | None = None
    full: Full | None = None


class Changed(NamedTuple):
    """What a store did with what a person asked of one task.

    :ivar done: ``False`` when the task was in a state that does not allow it: nothing was changed.
    :ivar state: of the task now.
    :ivar before: the priority it had.
    """

    done: bool
    state: TaskState
    before: int = 0


class Cancelled(NamedTuple):
    """What a store did with a request to cancel.

    :ivar outcome: ``cancelled`` (it was waiting), ``cancelling`` (it is running and will be
        interrupted), ``settled`` (too late: it had ended or is ``uncertain``).
    """

    outcome: Literal["cancelled", "cancelling", "settled"]
    state: TaskState


class Renewal(NamedTuple):
    """A request to keep a running task."""

    task_id: str
    fence: int


class Note(NamedTuple):
    """What a running attempt has said since it was last asked.

    :ivar progress: the latest; ``None`` when there was none.
    :ivar lines: the last log lines, oldest first.
    :ivar dropped: how many further lines there were before those.
    """

    task_id: str
    fence: int
    progress: Reported | None = None
    lines: tuple[LogLine, ...] = ()
    dropped: int = 0


class Recorded(NamedTuple):
    """What a store did with the outcome of an attempt.

    :ivar accepted: ``False`` when the attempt no longer owned the task (its lease was lost, or the
        task had ended): nothing was changed.
    :ivar state: of the task now; ``None`` when there is no such task. It is ``cancelled`` whatever
        the outcome was, when cancelling had been asked for.
    """

    accepted: bool
    state: TaskState | None


class Swept(NamedTuple):
    """What a sweep or a recovery did.

    :ivar readied: tasks that were due or that are to be run again.
    :ivar parked: tasks that became ``uncertain``.
    :ivar buried: tasks that became ``dead``.
    :ivar cancelled: tasks whose cancelling an interruption completed.
    :ivar purged: tasks that were kept long enough.
    :ivar more: there was more to do than one sweep does.
    """

    readied: int = 0
    parked: int = 0
    buried: int = 0
    cancelled: int = 0
    purged: int = 0
    more: bool = False


class Whose(NamedTuple):
    """Whose a task is, and in which of the principal's queues."""

    principal_kind: str
    principal_id: str
    queue: str


class Change(NamedTuple):
    """A committed change of one task, for those who wait for it.

    :ivar before: ``None`` when the task is new.
    :ivar after: ``None`` when it was purged.
    :ivar cancelling: it is running and somebody asked to cancel it.
    :ivar offered: of one that has become ``ready``, so that only workers that take it are woken; an
        engine that leaves it out wakes all of them.
    :ivar whose: whose the task is: nobody else may be told of it. Of a change without it nobody is.
    :ivar timed: it waits, and not for longer than its deadline: `TaskStore.next_due` may be sooner.
    :ivar opens: it runs no more, and a limit that was used up by it lets another one start.
    """

    task_id: str
    before: TaskState | None
    after: TaskState | None
    cancelling: bool = False
    offered: Offered | None = None
    whose: Whose | None = None
    timed: bool = False
    opens: bool = False
