"""Workers, and what they choose tasks by."""

from __future__ import annotations

from typing import NamedTuple

from mcpd_core import Principal

#: The name of the worker that takes any task of anybody; nobody can register it.
BUILT_IN = "built-in"


class Worker(NamedTuple):
    """Slots of this daemon that only take certain tasks of one principal.

    :ivar name: unique among the principal's workers.
    :ivar queues: those that it serves.
    :ivar capabilities: it takes tasks whose tool, or one of whose tags, is among these; all tasks
        when empty.
    :ivar slots: how many tasks it runs at the same time.
    :ivar registered_at: seconds since the epoch; 0 until the store has it.
    """

    name: str
    principal: Principal
    queues: tuple[str, ...]
    capabilities: tuple[str, ...] = ()
    slots: int = 5
    registered_at: float = 0.0

    def takes(self, offered: Offered) -> bool:
        """Whether it takes a task that has become ready."""
        return (
            offered.queue in self.queues
            and offered[:2] == (self.principal.kind, self.principal.id)
            and (not self.capabilities or not set(self.capabilities).isdisjoint(offered.words))
        )


class Offered(NamedTuple):
    """What registered workers choose a task by.

    :ivar words: its tool and its tags.
    """

    principal_kind: str
    principal_id: str
    queue: str
    words: tuple[str, ...]
