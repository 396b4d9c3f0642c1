"""What a task is: frozen records that stores, workers and tools pass around.

Everybody imports them from here, engines of others too; the modules of this package are only its
chapters.
"""

from .looking import Activity, Exported, Filter, LogLine, Page, ResultPart, Snapshot, TaskEvent
from .outcomes import Cancelled, Change, Changed, Note, Recorded, Renewal, Submitted, Swept, Whose
from .queues import Full, Hold, Pause, QueueChanged, QueueLoad, QueueStats
from .stores import BackedUp, StoreHealth
from .tasks import (
    FINAL,
    RETRYABLE,
    SETTLED,
    STATES,
    WAITING,
    Delivery,
    LargeResult,
    NewTask,
    Reported,
    Task,
    TaskState,
)
from .workers import BUILT_IN, Offered, Worker

__all__ = [
    "BUILT_IN",
    "FINAL",
    "RETRYABLE",
    "SETTLED",
    "STATES",
    "WAITING",
    "Activity",
    "BackedUp",
    "Cancelled",
    "Change",
    "Changed",
    "Delivery",
    "Exported",
    "Filter",
    "Full",
    "Hold",
    "LargeResult",
    "LogLine",
    "NewTask",
    "Note",
    "Offered",
    "Page",
    "Pause",
    "QueueChanged",
    "QueueLoad",
    "QueueStats",
    "Recorded",
    "Renewal",
    "Reported",
    "ResultPart",
    "Snapshot",
    "StoreHealth",
    "Submitted",
    "Swept",
    "Task",
    "TaskEvent",
    "TaskState",
    "Whose",
    "Worker",
]
