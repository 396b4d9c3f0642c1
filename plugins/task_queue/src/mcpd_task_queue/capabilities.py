"""`Capabilities`: what an engine of the task queue promises beyond what every engine must.

The record is part of the contract. `get_queue_stats` reports it, so that whoever relies on a
promise can see whether it holds; `mcpd_task_queue.testing` checks that an engine keeps what its
record says, and that it refuses, rather than quietly does otherwise, what the record says it
cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .records import Delivery, NewTask


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do. It stays the same for as long as the store is open.

    :ivar engine: its name, for people.
    :ivar delivery: the deliveries that it can keep; a task that asks for another is refused.
    :ivar fsync: what an acknowledged change survives. ``commit``: a power cut, since it was flushed
        to the disk first. ``interval``: the death of the process, while a power cut may take the
        last seconds. ``never``: neither.
    :ivar priority: whether tasks of a higher priority are claimed first; without, a task with one
        other than 0 is refused.
    :ivar delay: whether a task can wait for a time; without, one with a delay is refused.
    :ivar recurring: whether a task can be made again and again by cron fields; without, one with
        them is refused.
    :ivar dedup_window: for how many seconds after its submit an idempotency key is known at least;
        ``None``: for as long as its task is kept.
    :ivar payload_limit: bytes of JSON that the arguments of a task may take; ``None``: any number.
    :ivar result_limit: bytes of JSON that the result of a task may take; ``None``: any number.
    :ivar transactional_graph_advance: whether completing a task and making those ready that depend
        on it is one transaction.
    :ivar backup: whether the store can be copied while it is in use.
    """

    engine: str
    delivery: tuple[Delivery, ...]
    fsync: Literal["commit", "interval", "never"]
    priority: bool
    delay: bool
    recurring: bool
    dedup_window: float | None
    payload_limit: int | None
    result_limit: int | None = None
    transactional_graph_advance: bool = False
    backup: bool = False

    def __post_init__(self) -> None:
        """Refuse a record that cannot be true.

        :raises ValueError: naming what is wrong.
        """
        if not self.delivery or len(set(self.delivery)) < len(self.delivery):
            raise ValueError(f"delivery must name some, and each once: {self.delivery!r}")
        for name in ("dedup_window", "payload_limit", "result_limit"):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                raise ValueError(f"{name} must be greater than 0, or None: {limit!r}")
        if self.recurring and not self.delay:
            raise ValueError("an engine whose tasks recur can also have them wait for a time")

    def lacking(self, task: NewTask) -> str:
        """Name what a task asks for and the engine cannot do; empty when it can do everything."""
        if task.delivery not in self.delivery:
            return task.delivery
        if task.priority and not self.priority:
            return "priority"
        if task.cron is not None:
            return "" if self.recurring else "recurring"
        if (task.delay > 0 or task.run_at is not None) and not self.delay:
            return "delay"
        return ""
