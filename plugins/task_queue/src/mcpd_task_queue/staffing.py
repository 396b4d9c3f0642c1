"""Registered workers: those that are stored, and those that work."""

from __future__ import annotations

import logging

import trio

from mcpd_core import Principal

from .bridge import Bridge
from .dispatcher import Dispatcher
from .errors import UnknownWorker
from .records import BUILT_IN, Worker
from .slots import Employed, Slots
from .store import TaskStore


class Staff:
    """Keeps the workers that the store has and those that take tasks the same.

    :param most_slots: how many slots all registered workers together may have.
    """

    def __init__(
        self, store: TaskStore, bridge: Bridge, dispatcher: Dispatcher, most_slots: int
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._dispatcher = dispatcher
        self._most_slots = most_slots
        #: Held from a change of the stored workers until the slots follow it. Callers whose commits
        #: came one after the other go on in any order.
        self._changing = trio.Lock()

    async def take_over(self, log: logging.Logger) -> None:
        """Have those work that are stored, at the start."""
        free = self._most_slots
        for worker in await self._bridge.wait(self._store.workers()):
            if worker.slots <= free:
                free -= worker.slots
                self._dispatcher.engage(worker)
            else:
                # The owner has lowered the number since it was registered.
                log.warning(
                    "The worker %r of %s has %d slots and takes no tasks: of `registered_slots` "
                    "%d are left. It does after a start with more, or when it is registered anew "
                    "with fewer.",
                    worker.name,
                    worker.principal.name,
                    worker.slots,
                    free,
                )

    async def register(self, worker: Worker) -> Worker:
        """Add slots that only take certain tasks of one principal; they survive restarts.

        :raises TaskRefused: when the workers would have too many slots together.
        """
        # Shielded: what is stored and who works must not come apart.
        with trio.CancelScope(shield=True):
            async with self._changing:
                kept = await self._bridge.wait(self._store.register(worker, self._most_slots))
                self._dispatcher.engage(kept)
        return kept

    async def unregister(
        self, principal: Principal, name: str, grace: float | None
    ) -> tuple[int, int]:
        """Remove a worker; it claims nothing more.

        :param grace: seconds to wait for what it runs before that is interrupted; ``None`` lets it
            finish without waiting for it.
        :returns: how many tasks it still ran, and how many of them were interrupted.
        :raises UnknownWorker: when the principal has none of that name.
        """
        with trio.CancelScope(shield=True):
            async with self._changing:
                worker = await self._bridge.wait(self._store.unregister(principal, name))
                if worker is None:
                    raise UnknownWorker(name)
                slots = self._dispatcher.dismiss(worker)
        return await self._dispatcher.let_go(slots, grace)

    async def of(self, principal: Principal) -> list[Employed]:
        """Return the built-in worker, then those of the principal."""
        crew = self._dispatcher.crew
        tally = await self._bridge.wait(self._store.tally(principal))
        found: list[tuple[str, Slots, Worker | None]] = [(BUILT_IN, crew.built_in, None)]
        for worker in await self._bridge.wait(self._store.workers()):
            if (worker.principal.kind, worker.principal.id) == (principal.kind, principal.id):
                found.append((worker.name, crew.of(worker), worker))
        return [
            Employed(
                name=name,
                worker=worker,
                slots=slots.capacity,
                busy=slots.busy,
                counts=tally.get(name, {}),
                tasks=tuple(
                    attempt.task.id
                    for attempt in self._dispatcher.attempts.values()
                    if attempt.slots is slots and attempt.is_of(principal)
                ),
            )
            for name, slots, worker in found
        ]
