"""Thousands of short histories of a made-up world, each decided by a seed (`simulation`).

Producers, owners that die, lose answers or come back late, people, clocks that are set, commits
that fail: whatever happens, an acknowledged task never vanishes, it ends once, at most one
completion of it is recorded, it is started no more often than there were reasons to, no lease is
taken from who still has it, and every firing makes one task. That these checks can fail is tested
too.

``MCPD_SIMULATIONS`` sets how many histories there are, ``MCPD_SIMULATION_SEED`` the first seed.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from mcpd_task_queue import policy
from mcpd_task_queue.records import Recorded, Swept
from mcpd_task_queue.sqlite import changes, failures, schedules, sweeping, transitions
from mcpd_task_queue.sqlite.transaction import Transaction
from mcpd_task_queue.sqlite.transitions import Leases, Row

from . import simulation_kit
from .simulation import Simulation
from .simulation_kit import Memory, Wrong, simulated_disk

HISTORIES = int(os.environ.get("MCPD_SIMULATIONS", "300"))
FIRST = int(os.environ.get("MCPD_SIMULATION_SEED", "0"))
STEPS = 25

pytestmark = pytest.mark.timeout(60 + HISTORIES / 10)


@pytest.fixture
def disk(caplog: pytest.LogCaptureFixture) -> Iterator[Memory]:
    # Thousands of refused commits are nothing to read.
    caplog.set_level(logging.CRITICAL, logger="mcpd_task_queue")
    with simulated_disk() as disk:
        yield disk


def simulate(disk: Memory, seeds: range) -> None:
    """Run histories.

    :raises Wrong: when one goes wrong, with how to see it again.
    """
    for seed in seeds:
        simulation = Simulation(disk, seed)
        try:
            simulation.run(STEPS)
        except Exception as wrong:
            happened = "\n".join(" ".join(map(str, step)) for step in simulation.trace)
            raise Wrong(
                f"{type(wrong).__name__}: {wrong}\n{happened}\nTo see it again: MCPD_SIMULATIONS=1 "
                f"MCPD_SIMULATION_SEED={seed} pytest {__file__} -k whatever_happens"
            ) from wrong


def test_whatever_happens_nothing_is_lost_doubled_or_taken(disk: Memory) -> None:
    simulate(disk, range(FIRST, FIRST + HISTORIES))


def test_a_seed_decides_everything(disk: Memory) -> None:
    def history() -> tuple[Any, ...]:
        simulation = Simulation(disk, 7)
        simulation.run(STEPS)
        return simulation.trace, disk.execute("SELECT * FROM task").fetchall()

    first = history()
    assert first == history()
    assert len(first[0]) > STEPS


# --- it bites: each of these mistakes is found --------------------------------------------------


def any_fence(tx: Transaction, task_id: str, _: int) -> tuple[Row | None, Recorded]:
    for row in transitions.select(tx, "id = ?", (task_id,)):
        return row, Recorded(True, row.state)
    return None, Recorded(False, None)


def any_fence_of_a_running_one(
    tx: Transaction, task_id: str, fence: int
) -> tuple[Row | None, Recorded]:
    row, answer = any_fence(tx, task_id, fence)
    if row is None or row.state != "running":
        return None, Recorded(False, answer.state)
    return row, answer


def succeed_all_the_same(tx: Transaction, row: Row, _: str) -> Recorded:
    return Recorded(True, transitions.move(tx, row, "succeeded", "succeeded"))


def repeat_anything(**options: Any) -> policy.Interrupted:
    options |= {"delivery": "at_least_once", "repeatable": True, "max_attempts": 10**6}
    return policy.after_interruption(**options)


def all_that_run(tx: Transaction, _: Leases) -> list[Row]:
    return transitions.select(tx, "state = 'running' ORDER BY seq", ())


def by_the_wall(tx: Transaction, _: Leases) -> list[Row]:
    return transitions.select(tx, "state = 'running' AND lease_until < ? ORDER BY seq", (tx.now,))


def without_its_next_time(tx: Transaction, row: Row, *arguments: Any, **columns: Any) -> Any:
    for name in ("run_at", "latest_id"):
        columns.pop(name, None)
    return transitions.move(tx, row, *arguments, **columns)


def forgetful(disk: Memory, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
    """Undo what cannot be committed, and say that it was."""
    if sql == "COMMIT" and disk.full:
        disk.full = False
        sql = "ROLLBACK"
    return sqlite3.Connection.execute(disk, sql, parameters)


#: What is replaced by what, and the complaint that must follow.
MISTAKES: dict[str, tuple[Any, str]] = {
    "a late outcome is taken": (
        mock.patch.object(changes, "_owned", any_fence_of_a_running_one),
        "late outcome|lease that was lost",
    ),
    "an outcome is taken again": (
        mock.patch.object(changes, "_owned", any_fence),
        "final state|two completions|no person looked|late outcome",
    ),
    "a cancelled task succeeds": (
        mock.patch.object(changes, "cancel_now", succeed_all_the_same),
        "succeeded after its cancelling",
    ),
    "at most once is forgotten": (
        mock.patch.object(failures, "after_interruption", repeat_anything),
        "to be started again at most once|more attempts than it has",
    ),
    "the number of attempts is forgotten": (
        mock.patch.object(policy, "verdict_on", return_value=("retry", None)),
        "more attempts than it has|to be started again at most once",
    ),
    "live leases are taken": (
        mock.patch.object(sweeping, "_expired", all_that_run),
        "its lease had not run out",
    ),
    "leases go by the wall clock": (
        mock.patch.object(sweeping, "_expired", by_the_wall),
        "its lease had not run out|nobody noticed",
    ),
    "leases never end": (
        mock.patch.object(sweeping, "_expired", return_value=[]),
        "nobody noticed",
    ),
    "nobody takes over": (
        mock.patch.object(sweeping, "recover", return_value=Swept()),
        "left running by the dead",
    ),
    "firings are doubled": (
        mock.patch.object(schedules, "move", without_its_next_time),
        "a firing was lost, or doubled|due, and still waiting",
    ),
    "it is purged early": (
        mock.patch.object(simulation_kit, "KEEPING", simulation_kit.KEEPING / 100),
        "purged early",
    ),
    "an answer comes though the commit failed": (
        mock.patch.object(Memory, "execute", forgetful),
        "KeyError|said to be|acknowledged, and gone|say different things",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(disk: Memory, mistake: str) -> None:
    patch, complaint = MISTAKES[mistake]
    with patch, pytest.raises(Wrong, match=rf"^[^\n]*({complaint})"):
        simulate(disk, range(2_000))
