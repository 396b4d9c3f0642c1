"""Cancelling what runs, wherever a tool can run: the grace, the end, and what is said of it."""

from __future__ import annotations

import importlib
import os
import textwrap
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_core.host import Host
from mcpd_task_queue.cancelling import left_behind, why_it_still_runs

from .asking import ask, eventually, result, status, submit, until

Start = Callable[..., AbstractAsyncContextManager[Host]]
pytestmark = pytest.mark.anyio

TOOLS = """
    import os, threading, time
    from pathlib import Path
    from mcpd_core import tool

    released = threading.Event()
    threads = []

    @tool(placement="process", idempotent=True)
    def stubborn(folder: str) -> str:
        Path(folder, "pid").write_text(str(os.getpid()))
        while not Path(folder, "released").exists():
            try:
                Path(folder, "started").touch()
                while not Path(folder, "released").exists():
                    time.sleep(0.01)
            except BaseException:
                Path(folder, "asked").touch()
        return "finished all the same"

    @tool(placement="process", idempotent=True)
    def tidy(folder: str) -> str:
        Path(folder, "pid").write_text(str(os.getpid()))
        Path(folder, "started").touch()
        try:
            time.sleep(60)
        finally:
            Path(folder, "cleaned").touch()
        return ""

    @tool(placement="thread", idempotent=True)
    def deaf(folder: str) -> str:
        threads.append(threading.get_ident())
        Path(folder, "started").touch()
        released.wait(60)
        Path(folder, "finished").touch()
        return "finished all the same"
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """These tools, in a module of this test only."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"cancelled_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(TOOLS))
    return name


async def started(host: Host, tool: str, folder: Path) -> str:
    """Submit a task and wait until its tool runs."""
    task_id = await submit(host, tool, arguments={"folder": str(folder)})
    await eventually((folder / "started").exists)
    return task_id


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_that_does_not_stop_is_killed_after_the_grace(
    start: Start, tmp_path: Path
) -> None:
    async with start() as host:
        task_id = await started(host, "stubborn", tmp_path)
        pid = int((tmp_path / "pid").read_text())
        assert (pid != os.getpid(), alive(pid)) == (True, True)
        answer = await ask(host, "cancel_task", task_id=task_id, grace=0.2)
        assert answer["outcome"] == "cancelling"
        answer = await result(host, task_id)
        assert (answer["state"], "text" in answer) == ("cancelled", False)
        assert not alive(pid)
        assert (tmp_path / "asked").exists(), "it was asked first"
        (failure,) = answer["failed_attempts"]
        assert failure["outcome"] == "cancelled"


async def test_a_process_may_clean_up_within_the_grace_of_the_settings(
    start: Start, tmp_path: Path
) -> None:
    async with start(task_queue={"cancel_grace": 60}) as host:
        task_id = await started(host, "tidy", tmp_path)
        pid = int((tmp_path / "pid").read_text())
        await ask(host, "cancel_task", task_id=task_id)
        assert (await result(host, task_id))["state"] == "cancelled"
        assert (tmp_path / "cleaned").exists()
        assert not alive(pid)


async def test_while_it_is_being_cancelled_the_status_says_since_when_and_why_it_runs(
    start: Start, tmp_path: Path
) -> None:
    async with start(task_queue={"cancel_grace": 60}) as host:
        task_id = await started(host, "stubborn", tmp_path)
        assert (await status(host, task_id))["cancelling"] is None
        await ask(host, "cancel_task", task_id=task_id)
        found = await until(host, task_id, lambda answer: answer["cancelling"] is not None)
        assert found["cancelling"]["since"] >= found["started_at"]
        assert "and is killed then" in found["cancelling"]["why"]
        assert found["cancelling"]["why"] in found["why"]
        await eventually((tmp_path / "asked").exists)
        (tmp_path / "released").touch()
        answer = await result(host, task_id)
        assert (answer["state"], "text" in answer) == ("cancelled", False)
        assert (await status(host, task_id))["cancelling"] is None


async def test_a_thread_that_does_not_stop_is_left_behind_and_has_no_effect_on_the_task(
    start: Start, tmp_path: Path, work: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with start() as host:
        task_id = await started(host, "deaf", tmp_path)
        tools = cast(Any, importlib.import_module(work))
        (thread,) = tools.threads
        assert thread != threading.get_ident()
        await ask(host, "cancel_task", task_id=task_id, grace=0.1)
        assert (await result(host, task_id))["state"] == "cancelled"
        found = await status(host, task_id)
        assert "its thread did not stop within 0.1 s and may still be running" in found["why"]
        assert not (tmp_path / "finished").exists()
        tools.released.set()
        await eventually((tmp_path / "finished").exists)
        answer = await result(host, task_id)
        assert (answer["state"], "text" in answer) == ("cancelled", False)
    assert "its thread runs on" in caplog.text


async def test_nobody_else_sets_the_grace_of_a_task(start: Start, tmp_path: Path) -> None:
    from mcpd_core import Principal

    async with start(task_queue={"cancel_grace": 60}) as host:
        task_id = await started(host, "stubborn", tmp_path)
        other = Principal("local", "1001")
        refused = await host.call(
            "cancel_task", {"task_id": task_id, "grace": 0}, principal=other, client="test"
        )
        assert refused.is_error
        await ask(host, "cancel_task", task_id=task_id)
        await eventually((tmp_path / "asked").exists)
        assert alive(int((tmp_path / "pid").read_text()))
        (tmp_path / "released").touch()
        assert (await result(host, task_id))["state"] == "cancelled"


@given(st.sampled_from(["process", "thread", "loop", None]), st.floats(0, 100), st.floats(0, 100))
def test_there_is_always_a_reason_and_only_a_thread_is_left_behind(
    placement: str | None, seconds: float, grace: float
) -> None:
    assert why_it_still_runs(placement, seconds, grace)
    left = left_behind(placement, seconds, grace)
    assert bool(left) == (placement == "thread" and seconds >= grace)
