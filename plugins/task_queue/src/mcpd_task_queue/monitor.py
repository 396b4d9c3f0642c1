"""How the queue is: its load, its health and its metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import trio

from mcpd_core import Health

from .dispatcher import Dispatcher
from .metrics import Metric
from .records import TaskState
from .store import TaskStore


class Monitor:
    """Says how the store and the workers are, without waiting."""

    def __init__(self, store: TaskStore, dispatcher: Dispatcher) -> None:
        self._store = store
        self._dispatcher = dispatcher

    def metrics(self) -> list[Metric]:
        """Return what is counted of everybody's tasks; this is for the owner of the server."""
        store = self._store.health()
        load = self.load()
        return [
            Metric.labelled(
                "mcpd_tasks", "gauge", "Tasks that are kept, by state.", "state", store.counts
            ),
            Metric.single(
                "mcpd_tasks_workers",
                "gauge",
                "Tasks that can run at the same time.",
                load["workers"],
            ),
            Metric.single("mcpd_tasks_workers_busy", "gauge", "Tasks that run.", load["busy"]),
            Metric.single(
                "mcpd_tasks_store_healthy", "gauge", "1 when changes are stored.", int(store.ok)
            ),
            *self._dispatcher.meter.metrics(),
            *self._store.metrics(),
        ]

    def load(self) -> Mapping[str, Any]:
        """Return how many workers there are and how many run something."""
        crew = self._dispatcher.crew
        return {"workers": crew.capacity, "busy": crew.busy}

    def health(self) -> Health:
        """Say how the queue is with everybody's tasks, without waiting; this is for the host."""
        store = self._store.health()
        counts = store.counts
        pending = [
            f"{count} task{'' if count == 1 else 's'} {state}"
            for state in ("running", "ready")
            if (count := counts.get(state, 0))
        ]
        if scheduled := counts.get("scheduled", 0):
            due = self._dispatcher.next_due - trio.current_time()
            when = f"next due in {max(0.0, due):.0f} s" if math.isfinite(due) else "due later"
            pending.append(f"{scheduled} task{'' if scheduled == 1 else 's'} scheduled, {when}")
        condition = self.condition(counts)
        return Health(condition.ok, condition.detail, ", ".join(pending))

    def condition(self, counts: Mapping[TaskState, int]) -> Health:
        """Say how the queue is for somebody who may know of these tasks, without waiting."""
        store = self._store.health()
        detail = store.detail or f"{self._dispatcher.crew.capacity} workers"
        if paused := counts.get("paused", 0):
            detail += f"; {paused} in paused queues"
        if uncertain := counts.get("uncertain", 0):
            detail += f"; {uncertain} uncertain, to be looked at by a person"
        return Health(store.ok, detail)
