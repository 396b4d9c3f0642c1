"""Tasks as JSON lines, through the method that the owner of the server calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import InvalidArguments, Principal
from mcpd_core.host import Host
from mcpd_task_queue.errors import TaskRefused
from mcpd_task_queue.records import Filter, NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore

ME = Principal("local", "1000", "ada")
OTHER = Principal("local", "1001", "bob")

Start = Callable[..., AbstractAsyncContextManager[Host]]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ask(host: Host, name: str, /, principal: Principal = ME, **arguments: Any) -> Any:
    result = await host.call(name, arguments, principal=principal, client="test")
    assert not result.is_error, result.text
    return result.structured


async def done(host: Host, tool: str, principal: Principal = ME, **arguments: Any) -> str:
    """Have a task called and wait for its end."""
    task = await ask(host, "submit_task", principal, tool=tool, arguments=arguments)
    await ask(host, "get_task_result", principal, task_id=task["task_id"], wait=60)
    return str(task["task_id"])


async def export(host: Host, **params: Any) -> Any:
    return await host.extras.rpc_methods()["task_queue/export"](params, ME)


async def exported(host: Host, **params: Any) -> list[Any]:
    lines, cursor = [], None
    while True:
        answer = await export(host, cursor=cursor, **params)
        lines += answer["lines"]
        cursor = answer["next_cursor"]
        if cursor is None:
            return [json.loads(line) for line in lines]


async def test_a_line_has_everything_about_a_task(start: Start) -> None:
    async with start() as host:
        task_id = await done(host, "add", a=1, b=2)
        (line,) = await exported(host)
        assert line["task_id"] == task_id
        assert line["principal"] == {"kind": "local", "id": "1000", "name": "ada"}
        assert (line["tool"], line["state"], line["attempts"]) == ("add", "succeeded", 1)
        assert line["arguments"] == {"a": 1, "b": 2}
        assert line["result"] == {"structured": {"sum": 3, "library": "asyncio"}}
        assert [event["kind"] for event in line["events"]] == ["submitted", "started", "succeeded"]
        status = await ask(host, "get_task_status", task_id=task_id)
        assert (
            line.items()
            >= {
                key: status[key] for key in ("created_at", "finished_at", "worker", "queue", "tags")
            }.items()
        )


async def test_every_stored_field_of_a_task_is_exported(store: SQLiteTaskStore) -> None:
    """Whoever adds one to the record is told here that the export does not have it."""
    from mcpd_task_queue.export import line_of
    from mcpd_task_queue.records import Task

    store.submit([NewTask("add", {}, ME)]).result(10)
    (snapshot,) = store.export(None, Filter()).result(10).snapshots
    named = {"id": "task_id", "run_at": "due_at"}
    #: What an attempt that runs is bound to, and what is said by other fields.
    internal = {"fence", "cancelling", "releases", "large"}
    stored = {named.get(name, name) for name in Task._fields if name not in internal}
    assert stored <= line_of(snapshot).keys()


async def test_an_export_is_filtered_and_of_others_only_if_asked_for(start: Start) -> None:
    async with start() as host:
        mine = await done(host, "shout", text="a")
        others = await done(host, "add", OTHER, a=1)
        assert [line["task_id"] for line in await exported(host)] == [mine]
        found = await exported(host, everybody=True)
        assert [line["task_id"] for line in found] == [mine, others]
        found = await exported(host, everybody=True, tool="add", max_bytes=1)
        assert [line["task_id"] for line in found] == [others]
        assert await exported(host, state="failed") == []


async def test_a_damaged_result_is_told_and_the_export_goes_on(
    start: Start, tmp_path: Path
) -> None:
    async with start() as host:
        await done(host, "big", size=300_000)
        await done(host, "big", size=200_000)
        for file in (tmp_path / "task_queue" / "blobs").glob("*/*"):
            if file.stat().st_size > 250_000:
                file.write_bytes(b"{}")
        damaged, sound = await exported(host)
        assert damaged["result"] is None
        assert "is damaged: its 2 bytes are not those that were stored" in damaged["result_problem"]
        assert len(sound["result"]["text"]) == 200_000
        assert "result_problem" not in sound


async def test_a_request_that_makes_no_sense_is_refused_by_name(start: Start) -> None:
    async with start() as host:
        with pytest.raises(InvalidArguments, match="max_bytes: Input should be greater"):
            await export(host, max_bytes=0)
        with pytest.raises(InvalidArguments, match="nonsense: Extra inputs"):
            await export(host, nonsense=1)
        with pytest.raises(TaskRefused, match="'x' is not a cursor"):
            await export(host, cursor="x")


async def test_a_filter_that_nothing_fits_does_not_read_all_tasks_at_once(
    store: SQLiteTaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpd_task_queue.sqlite.exporting.SPAN", 10)
    store.submit([NewTask("add", {}, ME) for _ in range(25)]).result(10)
    cursors: list[str | None] = [None]
    while len(cursors) == 1 or cursors[-1] is not None:
        page = store.export(ME, Filter(tool="other"), cursor=cursors[-1]).result(10)
        assert page.snapshots == ()
        cursors.append(page.cursor)
    assert cursors == [None, "10", "20", None]
