"""The real store in a made-up world: one thread, a clock of its own, everything that can happen.

The engine's own transactions run over an SQLite in memory, its group commit included; only its
threads are taken away, so that a seed decides the order of everything. `Simulation` asks, crashes,
forgets answers and comes back late; `Witness` hears of every commit and knows what may never be.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from mcpd_task_queue.records import FINAL, Change, Task
from mcpd_task_queue.sqlite import SQLiteTaskStore, connection_thread, engine
from mcpd_task_queue.sqlite.ids import Ids
from mcpd_task_queue.sqlite.reader import Reader
from mcpd_task_queue.sqlite.writer import Writer

#: When it is in the made-up world, in seconds since the epoch.
START = 1_700_000_000.0
LEASE = 10.0
RETENTION = 5_000.0
#: What the store is told of it.
KEEPING = RETENTION
WAITING = frozenset({"scheduled", "ready", "paused"})


class Memory(sqlite3.Connection):
    """A database in memory, of which a commit can be made to fail for want of room."""

    full = False
    made = 0

    def id(self, nbytes: int | None = None) -> str:
        """Return the next id; a seed must decide these too."""
        self.made += 1
        return f"{self.made:0{2 * (nbytes or 32)}x}"

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if self.full and sql == "COMMIT":
            self.full = False
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, parameters)

    def close(self) -> None:
        """Stay: it is the disk, which outlives the process."""

    def wipe(self) -> None:
        """Forget all tasks."""
        self.made = 0
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'meta'"
        for (name,) in self.execute(tables).fetchall():
            self.execute(f"DELETE FROM {name}")


class _NoThread:
    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        pass


class _Inline:
    """Does what a worker is asked for at once, on the caller's thread, or when it is let go."""

    held = False

    def do(self, operation: Any) -> Any:
        future = super().do(operation)  # type: ignore[misc]
        if not self.held:
            self.let_go()
        return future

    def tell(self, operation: Any) -> None:
        super().tell(operation)  # type: ignore[misc]
        if not self.held:
            self.let_go()

    def let_go(self) -> None:
        """Do what was asked for, in as few commits as the engine makes of it."""
        self.held = False
        while not self._queue.empty():  # type: ignore[attr-defined]
            self._serve(self._queue.get())  # type: ignore[attr-defined]


class InlineWriter(_Inline, Writer):
    pass


class InlineReader(_Inline, Reader):
    pass


@contextmanager
def simulated_disk() -> Iterator[Memory]:
    """Have stores made that live in one memory, without threads, for as long as the block."""
    disk = sqlite3.connect(":memory:", factory=Memory, isolation_level=None, cached_statements=512)
    inline = SimpleNamespace(Lock=threading.Lock, Thread=_NoThread)
    with (
        mock.patch.object(secrets, "token_hex", disk.id),
        mock.patch.object(Ids, "new", side_effect=lambda _: disk.id(16)),
        mock.patch.object(engine, "create"),
        mock.patch.object(engine, "StoreLock"),
        mock.patch.object(engine, "connect_writer", return_value=disk),
        mock.patch.object(engine, "connect_reader", return_value=disk),
        mock.patch.object(engine, "Writer", InlineWriter),
        mock.patch.object(engine, "Reader", InlineReader),
        mock.patch.object(connection_thread, "threading", inline),
    ):
        World(disk).open()  # makes the tables
        try:
            yield disk
        finally:
            sqlite3.Connection.close(disk)


class World:
    """The clocks, the disk, and the store that is open."""

    def __init__(self, disk: Memory) -> None:
        self.disk = disk
        self.wall = START
        self.steady = 0.0
        self.store: SQLiteTaskStore

    def open(self) -> None:
        """Start the process of the store, anew if need be; of the old one nothing is left."""
        self.store = SQLiteTaskStore(
            Path("/nowhere/tasks.db"),
            retention=KEEPING,
            clock=lambda: self.wall,
            monotonic=lambda: self.steady,
        )

    @property
    def writer(self) -> InlineWriter:
        writer = self.store._writer
        assert isinstance(writer, InlineWriter)
        return writer

    def ask(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.disk.execute(sql, parameters).fetchall()


class Wrong(AssertionError):
    """Something happened that must never happen."""


@dataclass
class Known:
    """What the witness knows of a task.

    :ivar grants: how often it may be started: once, and once more for each good reason.
    :ivar until: on the steady clock, how long its present owner has it.
    :ivar ends: how often it became final since a person last had it tried anew.
    """

    state: str
    at_most_once: bool
    recurring: bool
    fence: int = 0
    starts: int = 0
    grants: int = 1
    until: float = 0.0
    successes: int = 0
    ends: int = 0
    cancelled: bool = False
    finished: float = 0.0
    result: str = ""


@dataclass
class Witness:
    """Hears of every commit, and complains.

    :ivar doing: what is being asked for at the moment; a commit may be made of several things.
    """

    world: World
    tasks: dict[str, Known] = field(default_factory=dict)
    purged: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    doing: frozenset[str] = frozenset()
    wrong: Wrong | None = None

    def hear(self, changes: Sequence[Change]) -> None:
        """Take note of a commit; for `TaskStore.listen`."""
        try:
            for change in changes:
                if change.before is None:
                    self._made(change)
                elif change.after is None:
                    self._purged(change)
                elif change.before != change.after:
                    self._moved(change)
        except Wrong as wrong:
            # The store would log it and go on.
            self.wrong = self.wrong or wrong

    def must(self, holds: bool, complaint: str, task_id: str = "") -> None:
        if not holds:
            raise Wrong(f"{complaint}: {task_id} {self.tasks.get(task_id)} {sorted(self.doing)}")

    def _made(self, change: Change) -> None:
        self.must(bool(self.doing & {"submit", "sweep"}), "made by nobody", change.task_id)
        self.must(change.task_id not in self.tasks, "made twice", change.task_id)
        row = self.world.ask(
            "SELECT delivery, cron IS NOT NULL FROM task WHERE id = ?", change.task_id
        )
        ((delivery, recurring),) = row
        assert change.after is not None
        self.tasks[change.task_id] = Known(
            change.after, delivery == "at_most_once", bool(recurring)
        )

    def _purged(self, change: Change) -> None:
        known = self.tasks[change.task_id]
        kept = self.world.wall - known.finished
        self.must(known.state in FINAL, "purged before its end", change.task_id)
        self.must("sweep" in self.doing and kept > RETENTION, "purged early", change.task_id)
        self.purged.add(change.task_id)
        del self.tasks[change.task_id]

    def _moved(self, change: Change) -> None:
        id_, before, after = change.task_id, change.before, change.after
        self.must(id_ in self.tasks, "never made", id_)
        known = self.tasks[id_]
        assert after is not None
        self.must(known.state == before, f"said to be {before}", id_)
        if before == "running":
            self._taken(id_, known, after)
        if before in FINAL:
            self.must("retry" in self.doing, f"left a final state for {after}", id_)
        if before == "uncertain":
            self.must(bool(self.doing & {"retry", "resolve"}), "no person looked", id_)
        if after == "running":
            self.must(before == "ready" and "claim" in self.doing, "started by nobody", id_)
            self.must(not known.recurring, "a recurring task ran itself", id_)
            known.starts += 1
        if after in FINAL:
            known.ends += 1
            known.finished = self.world.wall
            self.must(known.ends == 1, "ended twice", id_)
        if after == "succeeded":
            known.successes += 1
            self.must(known.successes == 1, "two completions were recorded", id_)
            self.must(not known.cancelled, "succeeded after its cancelling was confirmed", id_)
        known.state = after

    def _taken(self, id_: str, known: Known, after: str) -> None:
        """Check that a task was not taken from an owner that still had the right to it."""
        if "sweep" in self.doing:
            self.must(known.until < self.world.steady, "its lease had not run out", id_)
        else:
            allowed = {"finish", "recover"}
            if after == "dead":
                allowed.add("claim")  # it was found that its deadline had passed
            self.must(bool(self.doing & allowed), "taken for no reason", id_)

    # --- what only whoever asked can tell ---------------------------------------------------------

    def started(self, task: Task) -> None:
        known = self.tasks[task.id]
        self.must(task.fence > known.fence, "an old fence", task.id)
        self.must(task.attempts <= task.max_attempts, "more attempts than it has", task.id)
        in_time = task.expires_at is None or task.expires_at > self.world.wall
        self.must(in_time, "started after its deadline", task.id)
        known.fence = task.fence
        known.until = self.world.steady + LEASE

    def check(self) -> None:
        """Complain, now that all who asked for something have taken note of their answers."""
        if self.wrong is not None:
            raise self.wrong
        for id_, known in self.tasks.items():
            self.must(known.starts <= known.grants, "started too often", id_)

    def granted(self, id_: str, *, anew: bool = False) -> None:
        """Note a reason for which a task may be started once more."""
        known = self.tasks[id_]
        known.grants += 1
        if anew:
            known.ends = 0
            known.cancelled = False

    def swept(self) -> None:
        """Check, behind a sweep, that it left nothing lying."""
        for id_, known in self.tasks.items():
            lost = known.state == "running" and known.until < self.world.steady
            self.must(not lost, "its lease ran out and nobody noticed", id_)
        late = self.world.ask(
            "SELECT id FROM task WHERE state = 'scheduled' AND run_at <= ?", self.world.wall
        )
        self.must(not late, "due, and still waiting", late[0][0] if late else "")

    def settled(self) -> None:
        """Check, at the end of everything, that each task came to an end and to one only."""
        there = dict(self.world.ask("SELECT id, state FROM task"))
        self.must(self.acknowledged <= there.keys() | self.purged, "acknowledged, and gone")
        self.must(
            {id_: known.state for id_, known in self.tasks.items()} == there,
            "the announcements and the tables say different things",
        )
        for id_, known in self.tasks.items():
            self.must(known.state in FINAL | {"uncertain"}, "never came to an end", id_)
        counts = {state: n for state, n in self.world.store.health().counts.items() if n}
        counted = dict(self.world.ask("SELECT state, count(*) FROM task GROUP BY state"))
        self.must(counts == counted, f"miscounted as {counts}, not {counted}")
        results = self.world.ask(
            "SELECT task.id, payload.result FROM payload JOIN task USING (seq)"
            " WHERE state = 'succeeded' AND result IS NOT NULL"
        )
        for id_, result in results:
            self.must(self.tasks[id_].result in result, "another attempt's result", id_)
