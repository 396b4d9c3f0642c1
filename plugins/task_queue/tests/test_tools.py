"""The tools that make, change and pause, through a real host and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest

from mcpd_core import CallRefused, CallResult, Principal
from mcpd_core.host import Host
from mcpd_task_queue.records import Change, Task, Whose, Worker
from mcpd_task_queue.sqlite import SQLiteTaskStore, changes

ME = Principal("local", "1000", "ada")
OTHER = Principal("local", "1001", "bob")
Start = Callable[..., AbstractAsyncContextManager[Host]]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def call(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> CallResult:
    return await host.call(name, arguments, principal=principal, client="test")


async def ask(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> Any:
    result = await call(host, name, principal, **arguments)
    assert not result.is_error, result.text
    return result.structured


async def refusal(host: Host, name: str, /, **arguments: Any) -> tuple[str, str]:
    """Call in vain; returns the code and what was said."""
    try:
        answer = await call(host, name, **arguments)
    except CallRefused as refused:
        return refused.code, str(refused)
    assert answer.error is not None, answer.text
    return answer.error["code"], answer.text


async def submit(host: Host, tool: str, /, **options: Any) -> str:
    return cast(str, (await ask(host, "submit_task", tool=tool, **options))["task_id"])


async def result(host: Host, task_id: str, wait: float = 20) -> Any:
    return await ask(host, "get_task_result", task_id=task_id, wait=wait)


async def status(host: Host, task_id: str) -> Any:
    return await ask(host, "get_task_status", task_id=task_id)


async def logged(log: list[str], entry: str) -> None:
    while entry not in log:
        await asyncio.sleep(0.002)


async def store_of(host: Host) -> SQLiteTaskStore:
    proxy = await host.service("task_queue", host.lanes.loop)
    return cast(SQLiteTaskStore, proxy._running.object._store)


def commits_of(store: SQLiteTaskStore) -> list[int]:
    """Return a list to which each commit that changes tasks adds how many they are."""
    sizes: list[int] = []
    announce = store._writer._committed

    def committed(changes: Sequence[Change]) -> None:
        if changes:
            sizes.append(len(changes))
        announce(changes)

    store._writer._committed = committed
    return sizes


async def make_uncertain(host: Host) -> str:
    task_id = await submit(host, "hold", timeout=0.05)
    assert (await result(host, task_id))["state"] == "uncertain"
    return task_id


# --- submitting several ---------------------------------------------------------------------------


async def test_several_tasks_are_stored_with_one_commit_each_with_its_own_outcome(
    start: Start,
) -> None:
    async with start() as host:
        store = await store_of(host)
        await ask(host, "pause_queue")
        await submit(host, "add", arguments={"a": 9}, idempotency_key="mine")
        commits = commits_of(store)
        answer = await ask(
            host,
            "submit_tasks",
            tasks=[
                {"tool": "add", "arguments": {"a": 1}, "priority": 5, "tags": ["t"]},
                {"tool": "ad"},
                {"tool": "add", "arguments": {"a": "x"}},
                {"tool": "add", "arguments": {"a": 9}, "idempotency_key": "mine"},
                {"tool": "add", "arguments": {"a": 8}, "idempotency_key": "mine"},
                {"tool": "shout", "arguments": {"text": "x" * 1_100_000}},
                {"tool": "shout", "arguments": {"text": "hey"}, "delay": 60},
            ],
        )
        assert commits == [2]
        assert (answer["created"], answer["existing"], answer["rejected"]) == (2, 1, 4)
        outcomes = [task["outcome"] for task in answer["tasks"]]
        assert outcomes == [
            "created", "rejected", "rejected", "existing", "rejected", "rejected", "created",
        ]  # fmt: skip
        assert [task["index"] for task in answer["tasks"]] == list(range(7))
        codes = [task["error"]["code"] for task in answer["tasks"] if "error" in task]
        assert codes == ["unknown_tool", "invalid_arguments", "task_refused", "task_refused"]
        assert "Did you mean 'add'" in answer["tasks"][1]["error"]["hint"]
        assert "belongs to the task" in answer["tasks"][4]["error"]["message"]
        assert answer["tasks"][6]["state"] == "scheduled"
        first = await status(host, answer["tasks"][0]["task_id"])
        assert (first["priority"], first["tags"], first["state"]) == (5, ["t"], "paused")
        assert len((await ask(host, "list_tasks"))["tasks"]) == 3


async def test_a_task_that_is_not_well_formed_is_rejected_alone(start: Start) -> None:
    async with start() as host:
        store = await store_of(host)
        # Paused, so that nothing is claimed meanwhile.
        await ask(host, "pause_queue")
        commits = commits_of(store)
        good = {"tool": "add", "arguments": {"a": 1}}
        malformed: list[tuple[Any, str]] = [
            ({**good, "prioritty": 1}, "prioritty: Extra inputs are not permitted"),
            ({**good, "max_attempts": 0}, "max_attempts: Input should be greater than"),
            ({"arguments": {"a": 1}}, "tool: Field required"),
            ({"tool": "add", "arguments": "a=1"}, "arguments: Input should be a valid dictionary"),
            ("add", "Input should be a valid dictionary"),
            (None, "Input should be a valid dictionary"),
            ([], "Input should be a valid dictionary"),
            ({**good, "\ud800": 1}, "unable to parse raw data as a unicode string"),
            ({"tool": "\ud800"}, "tool: "),
        ]
        tasks = [good, *(bad for bad, _ in malformed), good]
        answer = await ask(host, "submit_tasks", tasks=tasks)
        assert commits == [2]
        assert (answer["created"], answer["rejected"]) == (2, len(malformed))
        outcomes = answer["tasks"]
        assert [outcome["index"] for outcome in outcomes] == list(range(len(tasks)))
        assert [outcomes[n]["outcome"] for n in (0, -1)] == ["created", "created"]
        for outcome, (_, complaint) in zip(outcomes[1:-1], malformed, strict=True):
            assert (outcome["outcome"], "task_id" in outcome) == ("rejected", False)
            assert outcome["error"]["code"] == "invalid_arguments"
            assert complaint in outcome["error"]["message"]
            assert "A task has tool, arguments, queue" in outcome["error"]["hint"]
        assert len((await ask(host, "list_tasks"))["tasks"]) == 2


async def test_a_list_without_any_good_task_stores_nothing(start: Start) -> None:
    async with start() as host:
        answer = await ask(host, "submit_tasks", tasks=[{}, {"tool": "no such"}])
        assert (answer["created"], answer["rejected"]) == (0, 2)
        for bad in ([], "add", [{"tool": "add"}] * 501):
            assert (await refusal(host, "submit_tasks", tasks=bad))[0] == "invalid_arguments"
        assert (await ask(host, "list_tasks"))["tasks"] == []


async def test_a_peer_is_not_reached_and_nothing_is_stored(start: Start) -> None:
    async with start() as host:
        code, text = await refusal(
            host, "submit_task_to_peer", peer_id="12D3KooW", tool="add", arguments={"a": 1}
        )
        assert code == "peers_unavailable"
        assert "no peer network is installed" in text
        assert "Nothing was stored" in text
        assert (await ask(host, "list_tasks"))["tasks"] == []


# --- scheduling -----------------------------------------------------------------------------------


async def test_a_task_is_scheduled_for_a_moment_or_after_a_while(start: Start) -> None:
    async with start() as host:
        east = timezone(timedelta(hours=5, minutes=30))
        at = (datetime.now(timezone.utc) + timedelta(hours=2)).astimezone(east)
        add: dict[str, Any] = {"tool": "add", "arguments": {"a": 1}}
        later = await ask(host, "schedule_task", **add, at=at.isoformat())
        assert (later["state"], later["recurring"], later["next_times"]) == ("scheduled", False, [])
        due = datetime.fromisoformat(later["due_at"].replace("Z", "+00:00"))
        assert abs((due - at).total_seconds()) < 0.01
        past = await ask(host, "schedule_task", **add, at="2020-01-01T00:00:00Z")
        assert (past["state"], past["due_at"]) == ("ready", None)
        soon = await ask(host, "schedule_task", **add, delay=0.05)
        for task in (past, soon):
            assert (await result(host, task["task_id"]))["state"] == "succeeded"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "Give exactly one."),
        ({"delay": 1, "cron": "* * * * *"}, "Give exactly one."),
        ({"at": "2027-01-01T00:00:00"}, "at: "),
        ({"at": "2997-01-01T00:00:00Z"}, "more than ten years ahead"),
        ({"at": "9999-12-31T23:59:59-23:00"}, "9999-12-31T23:59:59-23:00 is more than ten years"),
        ({"at": "2027-01-01T00:00:00Z", "timezone": "UTC"}, "goes with `cron`"),
        ({"cron": "* * *"}, "has not five cron fields"),
        ({"cron": "* * * * *", "timezone": "Mars"}, "is no time zone"),
        ({"cron": "0 0 30 2 *"}, "Bad day-of-month"),
        ({"delay": -1}, "delay: "),
    ],
)
async def test_a_time_that_makes_no_sense_is_refused(
    start: Start, arguments: Any, complaint: str
) -> None:
    async with start() as host:
        fine = {"tool": "add", "arguments": {"a": 1}}
        assert complaint in (await refusal(host, "schedule_task", **fine, **arguments))[1]
        bad = await refusal(host, "schedule_task", tool="add", arguments={}, delay=1)
        assert bad[0] == "invalid_arguments"
        assert (await ask(host, "list_tasks"))["tasks"] == []


async def test_a_recurring_task_is_made_into_tasks_listed_and_cancelled(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        made = await ask(
            host,
            "schedule_task",
            tool="add",
            arguments={"a": 1},
            cron="0 9 * * *",
            timezone="Europe/Berlin",
            tags=["daily"],
        )
        assert (made["state"], made["recurring"]) == ("scheduled", True)
        assert len(made["next_times"]) == 3
        assert made["next_times"] == sorted(made["next_times"])
        assert made["next_times"][0] == made["due_at"]
        schedule = made["task_id"]
        # It never ends by itself, so nobody waits for it.
        assert (await result(host, schedule))["ready"] is False
        store = await store_of(host)

        def make_due(tx: Any) -> None:
            tx.execute("UPDATE task SET run_at = 1.0 WHERE id = ?", (schedule,))
            whose = Whose(ME.kind, ME.id, "default")
            tx.note(schedule, "scheduled", "scheduled", whose=whose)

        store._writer.do(make_due).result(10)
        await logged(log, "add 1")
        page = await ask(host, "list_tasks", schedule_id=schedule)
        (task,) = page["tasks"]
        assert (task["cron"], task["tags"], task["schedule_id"]) == (None, ["daily"], schedule)
        assert (await result(host, task["task_id"]))["state"] == "succeeded"
        (listed,) = (await ask(host, "list_tasks", recurring=True))["tasks"]
        assert (listed["task_id"], listed["cron"], listed["timezone"]) == (
            schedule,
            "0 9 * * *",
            "Europe/Berlin",
        )
        assert (await status(host, schedule))["why"].startswith("recurs; next in ")
        (pending,) = host.pending()
        assert pending.startswith("1 task scheduled, next due in ")
        assert (await ask(host, "cancel_task", task_id=schedule))["outcome"] == "cancelled"
        assert host.pending() == []


# --- trying anew and resolving --------------------------------------------------------------------


async def test_a_dead_task_is_tried_anew_and_succeeds(start: Start, log: list[str]) -> None:
    async with start() as host:
        task_id = await submit(host, "flaky", arguments={"fails": 2}, max_attempts=2)
        assert (await result(host, task_id))["state"] == "dead"
        answer = await ask(host, "retry_task", task_id=task_id)
        assert answer == {"retried": 1, "task_id": task_id, "state": "ready"}
        answer = await result(host, task_id)
        assert (answer["state"], answer["text"]) == ("succeeded", "answered")
        code, text = await refusal(host, "retry_task", task_id=task_id)
        assert code == "task_refused"
        assert "is succeeded and cannot be tried anew. Only failed, dead" in text


async def test_an_uncertain_task_is_resolved_by_a_person(start: Start, log: list[str]) -> None:
    async with start() as host:
        done, retried = await make_uncertain(host), await make_uncertain(host)
        answer = await ask(
            host, "resolve_task", task_id=done, outcome="succeeded", note="the file is there"
        )
        assert answer["state"] == "succeeded"
        answer = await result(host, done)
        assert (answer["ready"], answer["why"]) == (True, "a person says: the file is there")
        assert "text" not in answer
        assert (await ask(host, "resolve_task", task_id=retried, outcome="retry"))["state"] in (
            "ready",
            "running",
        )
        assert (await result(host, retried))["state"] == "uncertain"
        code, text = await refusal(host, "resolve_task", task_id=done, outcome="failed")
        assert (code, "Only uncertain tasks can" in text) == ("task_refused", True)


@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ("retry_task", {}),
        ("resolve_task", {"outcome": "failed"}),
        ("set_task_priority", {"priority": 1}),
    ],
)
async def test_anothers_task_cannot_be_changed(start: Start, tool: str, more: Any) -> None:
    async with start() as host:
        task_id = await submit(host, "add", arguments={"a": 1}, delay=60)
        answer = await call(host, tool, OTHER, task_id=task_id, **more)
        assert answer.error is not None
        assert answer.error["code"] == "unknown_task"


async def test_a_task_overtakes_others_by_a_new_priority(start: Start, log: list[str]) -> None:
    async with start(task_queue={"workers": 1}) as host:
        blocker = await submit(host, "insist")
        await logged(log, "started")
        ids = [await submit(host, "add", arguments={"a": n}) for n in range(3)]
        answer = await ask(host, "set_task_priority", task_id=ids[2], priority=7)
        assert answer == {
            "task_id": ids[2],
            "state": "ready",
            "old_priority": 0,
            "new_priority": 7,
            "position": 1,
        }
        log.append("let go")
        for task_id in (blocker, *ids):
            await result(host, task_id)
        assert [entry for entry in log if entry.startswith("add")] == ["add 2", "add 0", "add 1"]
        assert (await refusal(host, "set_task_priority", task_id=blocker, priority=1))[0] == (
            "task_refused"
        )


# --- queues ---------------------------------------------------------------------------------------


async def test_a_pause_survives_restarts_and_keeps_the_server_no_longer_than_needed(
    start: Start, log: list[str]
) -> None:
    async with start() as host:
        paused = await ask(host, "pause_queue", queue="slow", reason="the disk is full")
        assert paused == {
            "queue": "slow",
            "paused": True,
            "changed": True,
            "waiting": 0,
            "running": 0,
        }
        task_id = await submit(host, "add", arguments={"a": 1}, queue="slow")
        assert host.pending() == []
    async with start() as host:
        answer = await status(host, task_id)
        assert (answer["state"], answer["position"]) == ("paused", None)
        assert answer["why"].startswith("its queue 'slow' is paused since ")
        assert answer["why"].endswith(": the disk is full")
        stats = await ask(host, "get_queue_stats")
        assert [queue["queue"] for queue in stats["paused"]] == ["slow"]
        assert stats["counts"]["paused"] == 1
        assert stats["detail"].endswith("; 1 in paused queues")
        # The queue of that name of somebody else goes on.
        other = await call(host, "submit_task", OTHER, tool="add", arguments={"a": 2}, queue="slow")
        assert other.structured is not None
        other_id = other.structured["task_id"]
        assert (await ask(host, "get_task_result", OTHER, task_id=other_id, wait=20))[
            "state"
        ] == "succeeded"
        resumed = await ask(host, "resume_queue", queue="slow")
        assert (resumed["paused"], resumed["changed"]) == (False, True)
        assert (await result(host, task_id))["state"] == "succeeded"
        assert (await ask(host, "resume_queue", queue="slow"))["changed"] is False


async def test_a_queue_is_cleared_only_by_somebody_who_means_it(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        running = await submit(host, "insist")
        await logged(log, "started")
        waiting = [await submit(host, "add", arguments={"a": n}) for n in range(3)]
        code, text = await refusal(host, "clear_queue")
        assert (code, "`confirm` is not true" in text) == ("task_refused", True)
        assert (await status(host, waiting[0]))["state"] == "ready"
        cleared = await ask(host, "clear_queue", confirm=True)
        assert cleared == {"queue": "default", "cancelled": 3, "waiting": 0, "running": 1}
        log.append("let go")
        assert (await result(host, running))["state"] == "succeeded"
        for task_id in waiting:
            answer = await result(host, task_id)
            assert (answer["state"], answer["why"]) == ("cancelled", "the queue was cleared")
        assert log == ["started", "let go"]


async def test_statistics_tell_of_the_last_hour(start: Start) -> None:
    async with start() as host:
        assert (await ask(host, "get_queue_stats"))["last_hour"] == {
            "ended": 0,
            "average_wait": None,
            "average_run": None,
        }
        await result(host, await submit(host, "add", arguments={"a": 1}))
        lately = (await ask(host, "get_queue_stats"))["last_hour"]
        assert lately["ended"] == 1
        assert lately["average_wait"] >= 0
        assert lately["average_run"] >= 0


async def test_statistics_say_what_the_engine_can_do(start: Start) -> None:
    async with start(task_queue={"durability": "normal", "largest_arguments": 2_048}) as host:
        assert (await ask(host, "get_queue_stats"))["engine"] == {
            "engine": "sqlite",
            "delivery": ["at_least_once", "at_most_once"],
            "fsync": "interval",
            "priority": True,
            "delay": True,
            "recurring": True,
            "dedup_window": None,
            "payload_limit": 2_048,
            "result_limit": 64 * 1024 * 1024,
            "transactional_graph_advance": False,
            "backup": True,
        }


async def test_statistics_tell_nothing_of_the_tasks_of_others(start: Start) -> None:
    async with start() as host:
        await make_uncertain(host)
        await ask(host, "pause_queue", queue="slow")
        await submit(host, "add", arguments={"a": 1}, queue="slow")
        mine, others = await ask(host, "get_queue_stats"), await ask(host, "get_queue_stats", OTHER)
        said = "; 1 in paused queues; 1 uncertain, to be looked at by a person"
        assert mine["detail"] == others["detail"] + said
        assert host.health()["task_queue"].detail == mine["detail"], "the host is told of all"


# --- workers --------------------------------------------------------------------------------------


async def workers(host: Host, principal: Principal = ME) -> dict[str, Any]:
    answer = await ask(host, "get_worker_status", principal)
    return {worker["worker_id"]: worker for worker in answer["workers"]}


async def test_a_registered_worker_serves_its_queue_while_the_built_in_one_is_busy(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        blocker = await submit(host, "insist")
        await logged(log, "started")
        waits = await submit(host, "add", arguments={"a": 1})
        taken = await submit(host, "add", arguments={"a": 2}, queue="fast")
        kept = await ask(
            host, "register_worker", worker_id="w", queues=["fast"], max_concurrent_tasks=2
        )
        assert (kept["queues"], kept["capabilities"]) == (["fast"], [])
        assert (await result(host, taken))["state"] == "succeeded"
        assert (await status(host, taken))["worker"] == "w"
        assert (await status(host, waits))["state"] == "ready"
        report = await workers(host)
        assert report["built-in"]["state"] == "busy"
        assert report["built-in"]["tasks"] == [blocker]
        assert (report["w"]["state"], report["w"]["counts"]["succeeded"]) == ("idle", 1)
        assert list(await workers(host, OTHER)) == ["built-in"]
        assert (await workers(host, OTHER))["built-in"]["tasks"] == []
        stats = await ask(host, "get_queue_stats")
        assert (stats["workers"], stats["busy"]) == (3, 1)
        log.append("let go")
        assert (await result(host, waits))["state"] == "succeeded"


async def test_a_worker_survives_a_restart_and_takes_only_what_it_is_capable_of(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        await ask(host, "register_worker", worker_id="w", capabilities=["add", "quick"])
    async with start(task_queue={"workers": 1}) as host:
        blocker = await submit(host, "insist")
        await logged(log, "started")
        waits = await submit(host, "shout", arguments={"text": "a"})
        ids = [
            await submit(host, "add", arguments={"a": 1}),
            await submit(host, "shout", arguments={"text": "b"}, tags=["quick"]),
        ]
        for task_id in ids:
            assert (await result(host, task_id))["state"] == "succeeded"
        assert (await status(host, waits))["state"] == "ready"
        log.append("let go")
        await result(host, blocker)
        assert (await result(host, waits))["state"] == "succeeded"
        assert (await status(host, waits))["worker"] == "built-in"


async def test_an_unregistered_worker_finishes_or_is_interrupted(
    start: Start, log: list[str]
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        await ask(host, "register_worker", worker_id="w")
        unsafe = await submit(host, "hold")
        await logged(log, "started")
        if (await status(host, unsafe))["worker"] != "w":
            pytest.fail("registered workers come first")
        answer = await ask(host, "unregister_worker", worker_id="w", grace=0.05)
        assert answer == {"worker_id": "w", "finished": 0, "still_running": 0, "interrupted": 1}
        answer = await result(host, unsafe)
        assert answer["state"] == "uncertain"
        assert answer["why"].startswith("its worker was unregistered; hold is neither")
        assert (await refusal(host, "unregister_worker", worker_id="w"))[0] == "unknown_worker"
        log.clear()

        await ask(host, "register_worker", worker_id="w")
        going_on = await submit(host, "insist")
        await logged(log, "started")
        answer = await ask(host, "unregister_worker", worker_id="w")
        assert (answer["still_running"], answer["interrupted"]) == (1, 0)
        assert list(await workers(host)) == ["built-in"]
        log.append("let go")
        assert (await result(host, going_on))["state"] == "succeeded"


async def test_what_was_started_for_a_worker_as_it_was_dismissed_is_not_missed(
    start: Start, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        store = await store_of(host)
        order = store.order
        on_its_way: list[Task] = []

        def held_up(
            owner: str, lease: float, worker: Worker | None, deliver: Any, not_started: Any
        ) -> Any:
            def hold(tasks: Sequence[Task]) -> None:
                on_its_way.extend(tasks)

            leaves = order(owner, lease, worker, hold, not_started)
            withdraw = leaves.withdraw

            def withdrawn() -> Future[None]:
                # As late as an order may be withdrawn: what it was given is delivered just before.
                left: Future[None] = Future()

                def arrive(_: Future[None]) -> None:
                    deliver(on_its_way)
                    left.set_result(None)

                withdraw().add_done_callback(arrive)
                return left

            leaves.withdraw = withdrawn  # type: ignore[method-assign]
            return leaves

        monkeypatch.setattr(store, "order", held_up)
        # On a queue of its own, so that the built-in worker does not take the task.
        await ask(host, "register_worker", worker_id="w", queues=["own"])
        task = await submit(host, "hold", queue="own")
        while not on_its_way:
            await asyncio.sleep(0.002)
        assert [one.id for one in on_its_way] == [task]
        assert "started" not in log
        assert (await ask(host, "unregister_worker", worker_id="w", grace=0))["interrupted"] == 1
        assert (await result(host, task))["state"] == "uncertain"
        assert (await status(host, task))["worker"] == "w"


async def test_a_task_has_it_looked_only_for_workers_that_take_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    claim = changes.claim

    def noted(tx: Any, leases: Any, owner: str, limit: int, lease: float, worker: Any) -> Any:
        looked.append("built-in" if worker is None else worker.name)
        return claim(tx, leases, owner, limit, lease, worker)

    monkeypatch.setattr(changes, "claim", noted)
    # One more slot than is taken, so that nobody looks again when it is free.
    async with start(task_queue={"workers": 2}) as host:
        for name, capabilities, queues in [
            ("by-tool", ["add"], None),
            ("by-tag", ["quick"], None),
            ("elsewhere", ["add"], ["other"]),
            ("any", None, ["any"]),
        ]:
            await ask(
                host,
                "register_worker",
                worker_id=name,
                capabilities=capabilities,
                queues=queues,
                max_concurrent_tasks=2,
            )
        # Each has looked for what was there before it, when all of them have.
        while {"built-in", "by-tool", "by-tag", "elsewhere", "any"} - set(looked):
            await asyncio.sleep(0.002)

        async def woken(tool: str, **options: Any) -> set[str]:
            looked.clear()
            await result(host, await submit(host, tool, **options))
            return set(looked)

        add: dict[str, Any] = {"arguments": {"a": 1}}
        shout: dict[str, Any] = {"arguments": {"text": "a"}}
        assert await woken("shout", **shout) == {"built-in"}
        assert await woken("add", **add) == {"by-tool", "built-in"}
        assert await woken("shout", **shout, tags=["x", "quick"]) == {"by-tag", "built-in"}
        assert await woken("shout", **shout, queue="any") == {"any", "built-in"}
        assert await woken("add", **add, queue="other") == {"elsewhere", "built-in"}


async def test_a_grace_ends_as_soon_as_the_worker_is_idle(start: Start, log: list[str]) -> None:
    async with start(task_queue={"workers": 1}) as host:
        await ask(host, "register_worker", worker_id="w")
        await submit(host, "insist")
        await logged(log, "started")
        leaving = asyncio.create_task(ask(host, "unregister_worker", worker_id="w", grace=50))
        while "w" in await workers(host):
            await asyncio.sleep(0.002)
        log.append("let go")
        assert (await leaving) == {
            "worker_id": "w",
            "finished": 1,
            "still_running": 0,
            "interrupted": 0,
        }


async def engaged(host: Host) -> int:
    return cast(int, (await ask(host, "get_queue_stats"))["workers"])


async def test_who_works_is_who_is_stored_however_many_come_and_go_at_once(start: Start) -> None:
    arrive = {"worker_id": "w", "max_concurrent_tasks": 1}
    async with start(task_queue={"workers": 1}) as host:
        for _ in range(40):
            coming = [call(host, "register_worker", ME, **arrive) for _ in range(4)]
            going = [call(host, "unregister_worker", worker_id="w") for _ in range(4)]
            await asyncio.gather(*(one for pair in zip(coming, going, strict=True) for one in pair))
            assert await engaged(host) == len(await workers(host))


async def test_a_worker_that_is_stored_works_although_its_caller_has_gone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        store = await store_of(host)
        register, asked, answer = store.register, asyncio.Event(), Future[Worker]()
        stored: list[Worker] = []

        def late(worker: Worker, most_slots: int) -> Future[Worker]:
            stored.append(register(worker, most_slots).result(10))
            asked.set()
            return answer

        monkeypatch.setattr(store, "register", late)
        arrive = {"worker_id": "w", "max_concurrent_tasks": 1}
        asking = asyncio.create_task(call(host, "register_worker", ME, **arrive))
        await asked.wait()
        asking.cancel()
        await asyncio.sleep(0.05)
        answer.set_result(stored[0])
        await asyncio.gather(asking, return_exceptions=True)
        while await engaged(host) != 2:
            await asyncio.sleep(0.002)
        assert list(await workers(host)) == ["built-in", "w"]


async def test_a_worker_cannot_have_more_than_the_owner_allows(start: Start) -> None:
    async with start(task_queue={"registered_slots": 3}) as host:
        code, text = await refusal(host, "register_worker", worker_id="w", max_concurrent_tasks=4)
        assert (code, "may have 3 together" in text) == ("task_refused", True)
        assert (await refusal(host, "register_worker", worker_id="built-in"))[0] == "task_refused"
        assert (await refusal(host, "get_worker_status", worker_id="w"))[0] == "unknown_worker"
        one = await ask(host, "get_worker_status", worker_id="built-in")
        assert [worker["kind"] for worker in one["workers"]] == ["built-in"]
        assert (await ask(host, "get_queue_stats"))["workers"] == 4


async def test_stored_workers_beyond_what_the_owner_allows_now_take_no_tasks(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(task_queue={"workers": 1}) as host:
        for name, slots in [("a", 2), ("b", 3), ("c", 1)]:
            await ask(host, "register_worker", worker_id=name, max_concurrent_tasks=slots)
    async with start(task_queue={"workers": 1, "registered_slots": 3}) as host:
        assert await engaged(host) == 1 + 2 + 1
        assert "The worker 'b' of ada has 3 slots and takes no tasks" in caplog.text
        assert list(await workers(host)) == ["built-in", "a", "b", "c"]
        await ask(host, "unregister_worker", worker_id="b")
        assert await engaged(host) == 1 + 2 + 1
    async with start(task_queue={"workers": 1, "registered_slots": 0}) as host:
        assert await engaged(host) == 1


# --- the family -----------------------------------------------------------------------------------


LISTED = {
    "submit_task", "submit_tasks", "schedule_task", "submit_task_to_peer",
    "get_task_status", "get_task_result", "list_tasks", "get_queue_stats",
    "cancel_task", "retry_task", "set_task_priority",
    "pause_queue", "resume_queue", "clear_queue",
    "resolve_task", "register_worker", "unregister_worker", "get_worker_status",
}  # fmt: skip


async def test_the_family_is_listed_with_schemas_and_titles(start: Start) -> None:
    async with start(without_work=True) as host:
        listed = host.tools_for(ME)
        assert {spec.name for spec in listed} == LISTED
        for spec in listed:
            assert spec.output_schema is not None, spec.name
            assert spec.output_schema["type"] == "object", spec.name
            assert spec.title, spec.name
            assert len(spec.description) > 40, spec.name
            if spec.annotations.read_only:
                assert not spec.annotations.destructive, spec.name
                assert spec.annotations.idempotent, spec.name
