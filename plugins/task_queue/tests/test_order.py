"""What it costs the SQLite engine to keep the order, counted in the steps that SQLite makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from mcpd_core import Principal
from mcpd_task_queue.limits import Limit, Limits
from mcpd_task_queue.records import NewTask, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore, changes
from mcpd_task_queue.sqlite.transaction import Transaction
from mcpd_task_queue.testing import New
from mcpd_task_queue.testing.suite import claim, look, submit

T = TypeVar("T")
OpenStore = Callable[..., SQLiteTaskStore]


def counted(store: SQLiteTaskStore, operation: Callable[[Transaction], T]) -> tuple[T, int]:
    """Have an operation done; returns its answer and how many steps of SQLite's it took."""

    def counting(tx: Transaction) -> tuple[T, int]:
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        tx.connection.set_progress_handler(step, 1)
        try:
            return operation(tx), steps
        finally:
            tx.connection.set_progress_handler(None, 0)

    answer, steps = store._writer.do(counting).result(60)
    return answer, steps


def claim_counted(
    store: SQLiteTaskStore, limit: int = 1, worker: Worker | None = None
) -> tuple[list[Any], int]:
    return counted(store, lambda tx: changes.claim(tx, store._leases, "owner:1", limit, 30, worker))


def fill(store: SQLiteTaskStore, model: NewTask, number: int, **columns: Any) -> None:
    """Put copies of a task into the tables, with a turn each, as if they had been submitted."""
    (task_id,) = submit(store, model)
    names = [
        name
        for (name,) in store._reader.do(
            lambda c: c.execute("SELECT name FROM pragma_table_info('task')").fetchall()
        ).result()
        if name not in ("seq", "id", "turn")
    ]

    def copy(tx: Transaction) -> None:
        tx.execute(
            "WITH RECURSIVE copy(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copy WHERE n < ?)"
            f" INSERT INTO task (id, turn, {', '.join(names)})"
            f" SELECT hex(randomblob(16)), turn + n, {', '.join(names)} FROM copy, task"
            " WHERE id = ?",
            (number - 1, task_id),
        )
        tx.execute(
            "INSERT OR IGNORE INTO ready_tag SELECT principal_kind, principal_id, queue, value,"
            " lane, priority, turn, ready_at, seq FROM task, json_each(task.tags)"
        )
        tx.execute(
            "INSERT INTO payload (seq, arguments) SELECT seq, '{}' FROM task"
            " WHERE seq NOT IN (SELECT seq FROM payload)"
        )

    store._writer.do(copy).result(60)


LIMITS = Limits({"gpu": Limit(concurrency=2)}, {"fetch": Limit(rate=1, per=3_600)})


@pytest.mark.parametrize(
    "held",
    [{"queue": "gpu"}, {"tool": "fetch"}, {"queue": "gpu", "tool": "fetch"}],
    ids=lambda held: "-".join(held),
)
def test_what_a_limit_holds_back_costs_a_claim_elsewhere_nothing(
    open_store: OpenStore, new: New, me: Principal, held: dict[str, str]
) -> None:
    alone = open_store("alone.db", limits=LIMITS)
    crowded = open_store(limits=LIMITS, durability="normal")
    fill(crowded, new(priority=9, tags=("t",), **held), 20_000)
    for store in (alone, crowded):
        submit(store, *[new(priority=9, tags=("t",), **held) for _ in range(3)])
        assert 1 <= len(claim(store, 9)) <= 2
        submit(store, *[new(tags=("t",)) for _ in range(4)])
    picky = Worker("w", me, ("default", "gpu"), ("t",))
    for worker in (None, picky):
        (first,), few = claim_counted(alone, 1, worker)
        (second,), many = claim_counted(crowded, 1, worker)
        assert (first.queue, second.queue) == ("default", "default")
        assert many <= few + 40


@pytest.fixture
def flooded(open_store: OpenStore, new: New) -> SQLiteTaskStore:
    """A store with 100,000 ready tasks of one client, at priority 0."""
    store = open_store(durability="normal")
    fill(store, new(client="flood"), 100_000)
    store.close().result(60)
    return open_store(durability="normal")


def test_a_flood_of_a_lower_priority_does_not_delay_a_higher_one(
    flooded: SQLiteTaskStore, open_store: OpenStore, new: New, me: Principal
) -> None:
    alone = open_store("alone.db")
    submit(alone, new(priority=0), new(priority=1))
    (urgent,) = submit(flooded, new(priority=1))
    assert look(flooded, me, urgent).ahead == 0
    (first,), steps = claim_counted(flooded)
    assert first.id == urgent
    assert steps <= claim_counted(alone)[1] + 20


def test_a_claim_costs_the_same_whatever_waits_behind_it(
    flooded: SQLiteTaskStore, open_store: OpenStore, new: New
) -> None:
    few = open_store("few.db")
    submit(few, *[new(client="flood") for _ in range(9)])
    for limit in (1, 4):
        assert claim_counted(flooded, limit)[1] <= claim_counted(few, limit)[1] + 20


def test_each_priority_costs_one_look_up_however_many_tasks_it_has(
    store: SQLiteTaskStore, new: New
) -> None:
    def heads() -> int:
        """Claim when the lower priorities may win by age, and put the task back."""
        ((task,), steps) = claim_counted(store)
        store.release(task.id, task.fence, "counted").result()
        return steps

    submit(store, *[new(priority=priority) for priority in range(5)])
    five = heads()
    submit(store, *[new(priority=priority) for priority in range(5) for _ in range(200)])
    assert heads() <= five + 40
    submit(store, *[new(priority=priority) for priority in range(5, 10)])
    assert five < heads() <= 2 * five + 40


def test_ready_tasks_are_read_in_order_and_never_sorted(store: SQLiteTaskStore) -> None:
    statements: list[str] = []

    def explain(tx: Transaction) -> list[str]:
        tx.connection.set_trace_callback(statements.append)
        try:
            changes.claim(tx, store._leases, "owner:1", 4, 30, None)
        finally:
            tx.connection.set_trace_callback(None)
        plans = []
        for statement in statements:
            if statement.startswith(("SELECT", "WITH")):
                plans += [row[3] for row in tx.execute(f"EXPLAIN QUERY PLAN {statement}")]
        return plans

    store.submit([NewTask("t", {}, Principal("local", "1"), priority=n) for n in range(9)])
    plans = store._writer.do(explain).result(10)
    assert any("task_ready" in plan for plan in plans)
    assert not [plan for plan in plans if "TEMP B-TREE" in plan]


def test_an_operation_that_fails_is_forgotten_with_the_turns_it_gave(
    store: SQLiteTaskStore, new: New, me: Principal
) -> None:
    submit(store, new(fairness_key="a"))

    def fail(tx: Transaction) -> None:
        for key in "aabb":
            changes.submit(tx, [new(fairness_key=key)], [("{}", [b""])])
        changes.claim(tx, store._leases, "owner:1", 3, 30, None)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store._writer.do(fail).result(10)
    submit(store, new(fairness_key="a"), new(fairness_key="b"))
    turns = store._reader.do(
        lambda c: c.execute("SELECT fairness_key, turn FROM task ORDER BY seq").fetchall()
    )
    assert turns.result(10) == [("a", 1), ("a", 2), ("b", 1)]
    assert [task.fairness_key for task in claim(store, 9)] == ["a", "b", "a"]
