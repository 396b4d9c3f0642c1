"""What comes and goes leaves nothing behind in memory: no task, client, key, queue or tool."""

from __future__ import annotations

import asyncio
import gc
import os
import types
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sized
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest

from mcpd_core import CallResult, Principal
from mcpd_core.host import Host
from mcpd_task_queue import rooms
from mcpd_task_queue.limits import Bound, Limit, Limits
from mcpd_task_queue.records import NewTask, Renewal, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore

OpenStore = Callable[..., SQLiteTaskStore]
Start = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


#: Tasks that pass through the store, and through a whole host; `make soak` has more do so.
THROUGH = int(os.environ.get("MCPD_MEMORY_TASKS", "0"))
THROUGH_STORE, THROUGH_HOST = THROUGH or 5_000, THROUGH or 600

#: Containers whose items are counted, and what is not looked into: it belongs to everybody.
CONTAINERS = (dict, list, set, deque, Counter)
SHARED = (
    type,
    types.BuiltinFunctionType,
    types.CodeType,
    types.CoroutineType,
    types.FrameType,
    types.ModuleType,
)
#: Packages whose objects are not looked into: they tidy up behind themselves now and then.
OTHERS = {"_asyncio", "asyncio", "selectors", "sqlite3", "trio"}


def items_of(*roots: object) -> int:
    """Count the items of all containers that can be reached from some objects."""
    seen: set[int] = set()
    waiting: list[Any] = list(roots)
    items = 0
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, SHARED):
            continue
        if type(found).__module__.partition(".")[0] in OTHERS:
            continue
        seen.add(id(found))
        if isinstance(found, CONTAINERS):
            assert isinstance(found, Sized)
            items += len(found)
        if isinstance(found, types.FunctionType):
            waiting += found.__closure__ or ()
        else:
            waiting += gc.get_referents(found)
    return items


def test_the_count_sees_what_is_kept() -> None:
    class Keeper:
        def __init__(self) -> None:
            self.kept: dict[int, list[int]] = {}

    keeper = Keeper()
    before = items_of(keeper)
    keeper.kept = {n: [n] for n in range(10)}
    assert items_of(keeper) == before + 20
    assert items_of(lambda: keeper.kept) >= 20


# --- the store ------------------------------------------------------------------------------------


def come_and_go(store: SQLiteTaskStore, numbers: Iterable[int]) -> None:
    """Have tasks of as many principals, clients, queues and tools pass through all that waits."""
    made: Future[Any]
    for first in numbers:
        batch = [
            NewTask(
                f"tool{n}",
                {},
                Principal("local", str(n)),
                client=f"client{n}",
                queue=f"queue{n}" if n % 3 else "limited",
                fairness_key=f"key{n}",
                tags=(f"tag{n}",) if n % 10 == 0 else (),
                delay=60.0 if n % 4 == 1 else 0.0,
                deadline=600.0 if n % 5 == 1 else None,
            )
            for n in range(first, first + 500)
        ]
        made = store.submit(batch)
        ids = [submitted.task_id for submitted in made.result(20)]
        for new, task_id in list(zip(batch, ids, strict=True))[::50]:
            store.pause(new.principal, new.queue, "")
            store.resume(new.principal, new.queue)
            store.prioritise(new.principal, task_id, 3)
            worker = Worker("w", new.principal, (new.queue,), (new.tool,))
            store.register(worker, 1_000_000)
            store.unregister(new.principal, "w").result(20)
        started = store.claim("owner", 500, 60.0).result(20)
        store.renew([Renewal(task.id, task.fence) for task in started], 60.0)
        ends: list[Future[Any]] = []
        for n, task in enumerate(started):
            if n % 7 == 0:
                ends.append(store.fail(task.id, task.fence, {"message": "no"}, "failed"))
            elif n % 7 == 1:
                ends.append(store.interrupt(task.id, task.fence, "cut", count_attempt=True))
            else:
                ends.append(store.complete(task.id, task.fence, CallResult("")))
        ends += [
            store.cancel(new.principal, task_id) for new, task_id in zip(batch, ids, strict=True)
        ]
        for end in ends:
            end.result(20)


def test_the_store_remembers_nothing_of_what_has_passed_through_it(open_store: OpenStore) -> None:
    limits = Limits(
        queues={"limited": Limit(concurrency=10_000, rate=1_000_000)},
        bounds={"limited": Bound(most_tasks=100_000)},
    )
    store = open_store(limits=limits, durability="normal")
    # Once for all that there is one of, such as statements that were prepared.
    come_and_go(store, range(0, 1_000, 500))
    before = items_of(store)
    come_and_go(store, range(1_000, 1_000 + THROUGH_STORE, 500))
    counts = store.health().counts
    assert counts["succeeded"] > THROUGH_STORE // 5
    assert counts["cancelled"] > THROUGH_STORE // 5
    assert counts["ready"] == counts["running"] == counts["scheduled"] == counts["paused"] == 0
    assert items_of(store) < before + 100


# --- the whole host -------------------------------------------------------------------------------


async def pass_through(host: Host, numbers: Iterable[int]) -> None:
    """Have tasks of as many clients run, with progress and log lines, watched and waited for."""
    for first in numbers:
        followed, stops = list[str](), list[Callable[[], None]]()
        who = Principal("local", str(first))

        async def ask(
            name: str, n: int, /, who: Principal = who, **arguments: Any
        ) -> Mapping[str, Any]:
            answer = await host.call(name, arguments, principal=who, client=f"client{n}")
            assert answer.structured is not None, answer.text
            return answer.structured

        batch = [
            {
                "tool": "hold_forth",
                "arguments": {"n": n},
                "queue": f"queue{n}",
                "fairness_key": f"key{n}",
                "max_attempts": 1,
            }
            for n in range(first, first + 10)
        ]
        for n in range(first, first + 10):
            uri = f"tasks://queues/queue{n}"
            stops.append(host.updates.follow(uri, who, partial(followed.append, uri)))
        made = await ask("submit_tasks", first, tasks=batch)
        ids = [task["task_id"] for task in made["tasks"]]
        ended = await asyncio.gather(
            *(
                ask("get_task_result", n, task_id=task_id, wait=20)
                for n, task_id in enumerate(ids, start=first)
            )
        )
        assert {task["state"] for task in ended} == {"succeeded", "failed"}
        for stop in stops:
            stop()
        # The records of the attempts are made after those of the tasks.
        while host.in_flight:
            await asyncio.sleep(0.001)


@pytest.mark.anyio
async def test_the_host_remembers_nothing_of_what_has_passed_through_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How fast tasks leave is remembered of this many queues at most.
    monkeypatch.setattr(rooms, "_MOST_QUEUES", 100)
    async with start(task_queue={"workers": 8}) as host:
        queue = (await host._services.get("task_queue")).object
        await pass_through(host, range(0, 200, 10))
        before = items_of(host, queue)
        await pass_through(host, range(200, 200 + THROUGH_HOST, 10))
        assert queue._store.health().counts["succeeded"] == (200 + THROUGH_HOST) // 2
        # Less than one item of each: how much of the last few is remembered differs a little.
        assert items_of(host, queue) < before + THROUGH_HOST
