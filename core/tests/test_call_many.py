"""Several calls at once: `Host.call_many`, `Context.call_many`, and the permits they take."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpd_core.errors import Busy, CallCancelled, InvalidArguments, NotStarted, UnknownTool
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.schema import describe, tools_of
from mcpd_core.settings import load_settings
from mcpd_core.spec import Answer, CallResult, Principal, ToolCall

ME = Principal("local", "1000", "me")
TOOLS = """
    from __future__ import annotations
    import threading, time
    import anyio, sniffio
    from mcpd_core import CallResult, Context, ToolCall, ToolError, tool

    log = []
    running = most = 0
    open_gates = set()

    class Counted:
        def __enter__(self):
            global running, most
            running += 1
            most = max(most, running)
        def __exit__(self, *exc):
            global running
            running -= 1

    def name(answer):
        return answer.text if isinstance(answer, CallResult) else answer.code

    @tool
    async def say(text: str) -> str:
        with Counted():
            await anyio.sleep(0.001)
        return text

    @tool
    async def meet(me: str, other: str) -> str:
        '''Ends when two of these run at the same time.'''
        open_gates.add(me)
        while other not in open_gates:
            await anyio.sleep(0.001)
        return sniffio.current_async_library()

    @tool
    async def stay(tidy: float = 0) -> None:
        log.append("stays")
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(tidy)
            log.append("cleaned")

    @tool
    def stay_in_thread(ctx: Context) -> None:
        log.append("stays")
        while not ctx.cancelled:
            time.sleep(0.001)
        log.append("cleaned")
        ctx.check_cancelled()

    @tool(timeout=0.3)
    async def hurried() -> None:
        await anyio.sleep(60)

    @tool
    async def fail(after: str = "") -> None:
        while after and after not in log:
            await anyio.sleep(0.001)
        raise ToolError("The disk is full.")

    @tool
    async def group_that_fails() -> None:
        async def fail_late():
            try:
                await anyio.sleep(60)
            finally:
                raise ValueError("sibling")
        log.append("stays")
        async with anyio.create_task_group() as group:
            group.start_soon(fail_late)
            await anyio.sleep(60)

    @tool(runtime="any")
    async def library(ctx: Context) -> str:
        return f"{sniffio.current_async_library()} {ctx.principal} {'/'.join(ctx.callers)}"

    @tool
    async def fan(calls: list[tuple[str, dict[str, object]]], ctx: Context,
                  limit: int | None = None, stop: bool = False,
                  timeout: float | None = None) -> list[str]:
        told = []
        answers = await ctx.call_many(
            [ToolCall(*call) for call in calls], limit=limit, timeout=timeout,
            mode="first_error" if stop else "collect",
            on_answer=lambda index, answer: told.append(index))
        ctx.log("info", f"told {sorted(told)}")
        return [name(answer) for answer in answers]

    @tool
    def fan_from_thread(calls: list[tuple[str, dict[str, object]]], ctx: Context) -> list[str]:
        answers = ctx.call_many_from_thread([ToolCall(*call) for call in calls])
        return [name(answer) for answer in answers]

    @tool
    async def touch() -> None:
        '''Does its work before it first waits.'''
        log.append("touched")

    @tool
    async def fan_that_tells(ctx: Context) -> list[str]:
        def tell(index, answer):
            if not isinstance(answer, CallResult):
                log.append("failed")
        calls = [ToolCall("nonsense"), *[ToolCall("touch")] * 3]
        return [name(a) for a in await ctx.call_many(calls, mode="first_error", on_answer=tell)]

    @tool
    async def fan_whose_callback_fails(ctx: Context) -> None:
        def tell(index, answer):
            raise ToolError("The callback has failed.")
        await ctx.call_many([ToolCall("say", {"text": "a"}), ToolCall("stay")], on_answer=tell)

    @tool
    async def call_beside_fan(ctx: Context) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ctx.call, "stay")
            while not log:
                await anyio.sleep(0.001)
            await ctx.call_many([ToolCall("stay")])

    contexts = []

    @tool
    async def keep_context(ctx: Context) -> None:
        contexts.append(ctx)
        # As in a task that is left running and waits.
        ctx._scope.share.wait()

    @tool
    async def use_kept_context() -> str:
        return (await contexts[0].call("say", {"text": "late"})).text

    @tool
    async def call_and_stay(ctx: Context) -> None:
        await ctx.call("keep_context")
        log.append("stays")
        await anyio.sleep(60)

    @tool(placement="thread")
    async def fan_from_own_thread(calls: list[tuple[str, dict[str, object]]],
                                  ctx: Context) -> list[str]:
        told = []
        answers = await ctx.call_many(
            [ToolCall(*call) for call in calls],
            on_answer=lambda index, answer: told.append(threading.get_ident()))
        assert set(told) == {threading.main_thread().ident} != {threading.get_ident()}
        return [name(answer) for answer in answers]

    @tool
    async def misplaced(ctx: Context) -> None:
        ctx.call_many_from_thread([])
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Start = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture(params=["asyncio", "trio"])
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Make a host whose tools are written for the runtime of the parameter."""
    module = f"many_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(TOOLS))
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    loaded = importlib.import_module(module)
    row = PluginRow(
        name="many",
        distribution="mcpd-many",
        version="1.0",
        runtime=request.param,
        state="enabled",
        entry=module,
        tools=tuple(describe(f, plugin="many", runtime=request.param) for f in tools_of(loaded)),
    )

    @asynccontextmanager
    async def started(**executor: Any) -> AsyncIterator[Host]:
        settings = load_settings(config=None, env={}, overrides={"executor": executor})
        async with Host(Inventory((row,)), settings, data_dir=tmp_path) as host:
            yield host

    return started


@pytest.fixture
async def host(start: Start, anyio_backend: str) -> AsyncIterator[Host]:
    async with start() as host:
        yield host


def runtime_of(host: Host) -> str:
    return host.inventory.rows[0].runtime


def module_of(host: Host) -> Any:
    import sys

    return sys.modules[host.inventory.rows[0].entry]


async def many(host: Host, *calls: ToolCall, **options: Any) -> list[Answer]:
    return await host.call_many(calls, **{"principal": ME, "client": "test", **options})


async def fan(host: Host, *calls: tuple[str, dict[str, Any]], **arguments: Any) -> list[str]:
    via = arguments.pop("via", "fan")
    result = await host.call(via, {"calls": calls, **arguments}, principal=ME, client="test")
    assert result.structured is not None, result.text
    found: list[str] = result.structured["result"]
    return found


def texts(answers: list[Answer]) -> list[str]:
    return [a.text if isinstance(a, CallResult) else a.code for a in answers]


def stats(host: Host) -> dict[str, int]:
    return dict(host._admission["client"].stats())


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_calls_run_at_the_same_time_and_their_answers_come_in_the_order_of_the_calls(
    host: Host,
) -> None:
    answers = await many(
        host,
        ToolCall("meet", {"me": "a", "other": "b"}),
        ToolCall("say", {"text": "between"}),
        ToolCall("meet", {"me": "b", "other": "a"}),
    )
    assert texts(answers) == [runtime_of(host), "between", runtime_of(host)]


@pytest.mark.anyio
@pytest.mark.parametrize("via", ["fan", "fan_from_thread"])
async def test_a_tool_of_any_kind_calls_several_at_the_same_time(host: Host, via: str) -> None:
    met = await fan(
        host, ("meet", {"me": "a", "other": "b"}), ("meet", {"me": "b", "other": "a"}), via=via
    )
    assert met == [runtime_of(host)] * 2
    (seen,) = await fan(host, ("library", {}), via=via)
    # Neutral code runs where its caller runs; what a thread calls is run by the host.
    where = runtime_of(host) if via == "fan" else "asyncio"
    assert seen == f"{where} {ME} {via}"


@pytest.mark.anyio
async def test_what_fails_or_is_refused_is_an_entry_and_the_others_are_made(host: Host) -> None:
    told: list[tuple[int, Answer]] = []
    answers = await many(
        host,
        ToolCall("fail"),
        ToolCall("nonsense"),
        ToolCall("say", {"txt": "x"}),
        ToolCall("say", {"text": "made"}),
        on_answer=lambda index, answer: told.append((index, answer)),
    )
    failed, unknown, unfit, made = answers
    assert isinstance(failed, CallResult)
    assert failed.is_error
    assert isinstance(unknown, UnknownTool)
    assert isinstance(unfit, InvalidArguments)
    assert made == CallResult("made")
    assert sorted(told, key=lambda entry: entry[0]) == list(enumerate(answers))


@pytest.mark.anyio
async def test_the_first_error_cancels_what_runs_and_says_what_was_not_started(host: Host) -> None:
    failed, cancelled, threaded, unstarted = await many(
        host,
        ToolCall("fail", {"after": "stays"}),
        ToolCall("stay", {"tidy": 0.05}),
        ToolCall("stay_in_thread"),
        ToolCall("say", {"text": "late"}),
        limit=3,
        mode="first_error",
    )
    assert isinstance(failed, CallResult)
    assert failed.text == "The disk is full."
    assert isinstance(cancelled, CallCancelled)
    # In which state the failure finds the thread depends on who is faster.
    assert isinstance(threaded, (CallCancelled, NotStarted))
    assert isinstance(unstarted, NotStarted)
    log = module_of(host).log
    assert log.count("cleaned") == log.count("stays"), "it came back before the clean-up was over"


@pytest.mark.anyio
async def test_nested_the_first_error_does_the_same(host: Host) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("stay", {"tidy": 0.02}),
        ("fail", {"after": "stays"}),
        ("say", {"text": "late"}),
    ]
    assert await fan(host, *calls, limit=2, stop=True) == [
        "cancelled",
        "The disk is full.",
        "not_started",
    ]
    assert module_of(host).log == ["stays", "cleaned"]


@pytest.mark.anyio
async def test_what_a_cancelled_tool_raises_beside_its_cancellation_ends_nothing_else(
    host: Host,
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("group_that_fails", {}),
        ("fail", {"after": "stays"}),
    ]
    first, second = await fan(host, *calls, stop=True)
    assert second == "The disk is full."
    assert first == "cancelled" or "failed unexpectedly" in first


@pytest.mark.anyio
async def test_one_that_still_waits_for_a_permit_was_not_started(start: Start) -> None:
    async with start(concurrency=2, per_client=2) as host:
        holder = asyncio.ensure_future(
            host.call("stay", {}, principal=ME, client="test", timeout=60)
        )
        while "stays" not in module_of(host).log:
            await asyncio.sleep(0.001)
        waiting = many(
            host,
            ToolCall("fail"),
            ToolCall("say", {"text": "x"}),
            limit=2,
            mode="first_error",
        )
        failed, waited = await waiting
        assert isinstance(failed, CallResult)
        assert isinstance(waited, NotStarted)
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        assert stats(host) == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_after_the_first_error_no_tool_is_entered_that_was_about_to_be(host: Host) -> None:
    log = module_of(host).log
    await many(host, ToolCall("touch"))
    for _ in range(20):
        log.clear()
        answers = await host.call("fan_that_tells", {}, principal=ME, client="test")
        assert answers.structured is not None
        # trio starts them in any order.
        assert log[-1] == "failed"
        names = answers.structured["result"]
        assert names.count("not_started") == 3 - log.count("touched")
    log.clear()
    first, *others = await many(
        host, ToolCall("nonsense"), ToolCall("touch"), ToolCall("touch"), mode="first_error"
    )
    assert isinstance(first, UnknownTool)
    assert [type(other) for other in others] == [NotStarted] * 2
    assert log == []


@pytest.mark.anyio
async def test_what_the_callback_raises_ends_the_batch_and_arrives_by_itself(host: Host) -> None:
    def tell(index: int, answer: Answer) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await many(host, ToolCall("say", {"text": "a"}), ToolCall("stay"), on_answer=tell)
    result = await host.call("fan_whose_callback_fails", {}, principal=ME, client="test")
    assert result.text == "The callback has failed."
    log = module_of(host).log
    assert log.count("cleaned") == log.count("stays")
    assert stats(host) == {"running": 0, "waiting": 0}


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_each_call_has_its_own_time_and_the_batch_has_one(host: Host) -> None:
    await many(host, ToolCall("say", {"text": "loads the code"}))
    own, given, fine = await many(
        host,
        ToolCall("hurried"),
        ToolCall("stay", timeout=0.3),
        ToolCall("say", {"text": "fine"}),
    )
    for late in (own, given):
        assert isinstance(late, CallResult)
        assert late.error is not None
        assert late.error["code"] == "deadline_exceeded"
    assert fine == CallResult("fine")
    over, unstarted = await many(
        host, ToolCall("stay"), ToolCall("say", {"text": "late"}), limit=1, timeout=0.3
    )
    assert isinstance(over, CallResult)
    assert over.error is not None
    assert over.error["code"] == "deadline_exceeded"
    assert isinstance(unstarted, NotStarted)
    assert "before its time, or that of the batch, was over" in unstarted.message


@pytest.mark.anyio
async def test_a_call_may_have_all_the_time_in_the_world(host: Host) -> None:
    answers = await many(host, ToolCall("say", {"text": "a"}, timeout=float("inf")))
    assert answers == [CallResult("a")]


@pytest.mark.anyio
async def test_nested_the_batch_ends_in_time_and_keeps_what_was_answered(host: Host) -> None:
    first, second, third = await fan(
        host, ("say", {"text": "kept"}), ("stay", {}), ("say", {}), limit=1, timeout=0.5
    )
    assert first == "kept"
    assert "cancelled at its deadline" in second
    assert third == "not_started"
    assert module_of(host).log == ["stays", "cleaned"]


# --- cancellation ---------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("via", ["", "fan", "fan_from_thread", "fan_from_own_thread"])
async def test_cancelling_a_batch_cancels_all_of_it_and_returns_after_the_clean_up(
    host: Host, via: str
) -> None:
    calls = [("stay", {"tidy": 0.03}), ("stay", {}), ("stay_in_thread", {})]
    if via:
        batch = asyncio.ensure_future(fan(host, *calls, via=via))
    else:
        made = [ToolCall(tool, arguments) for tool, arguments in calls]
        batch = asyncio.ensure_future(many(host, *made))  # type: ignore[arg-type]
    log = module_of(host).log
    while log.count("stays") < 3:
        await asyncio.sleep(0.001)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert log.count("cleaned") == 3
    assert stats(host) == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_a_batch_in_flight_is_shed_like_any_call_when_the_host_shuts_down(
    start: Start,
) -> None:
    async with start() as host:
        batch = asyncio.ensure_future(
            many(host, ToolCall("stay"), ToolCall("say", {"text": "late"}), limit=1)
        )
        while "stays" not in module_of(host).log:
            await asyncio.sleep(0.001)
        host.stop_accepting()
        await host.drain(0)
        interrupted, late = await batch
    assert isinstance(interrupted, CallResult)
    assert interrupted.error is not None
    assert interrupted.error["code"] == "interrupted"
    assert not isinstance(late, CallResult)
    assert late.code == "host_closed"


# --- permits --------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("via", ["fan", "fan_from_thread", "fan_from_own_thread"])
async def test_with_one_permit_a_batch_in_a_batch_completes(start: Start, via: str) -> None:
    async with start(concurrency=1, per_client=1, queue=0) as host:
        inner = ("fan", {"calls": [("say", {"text": "a"}), ("say", {"text": "b"})]})
        answers = await fan(host, inner, inner, ("say", {"text": "c"}), via=via)
        assert answers == ['{"result":["a","b"]}'] * 2 + ["c"]
        assert module_of(host).most == 1
        assert stats(host) == {"running": 0, "waiting": 0}


@pytest.mark.anyio
@pytest.mark.parametrize("via", ["fan", "fan_from_thread", "fan_from_own_thread"])
async def test_fifty_batches_of_twenty_calls_complete_with_four_permits(
    start: Start, via: str
) -> None:
    async with start(concurrency=4, per_client=4, per_tool=4) as host:
        batches = [
            fan(host, *[("say", {"text": f"{n}.{m}"}) for m in range(20)], via=via)
            for n in range(50)
        ]
        answers = await asyncio.gather(*batches)
        assert answers == [[f"{n}.{m}" for m in range(20)] for n in range(50)]
        # That batches wait without a permit is no way around the limit.
        assert module_of(host).most == 4
        assert stats(host) == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_threads_that_wait_for_calls_do_not_keep_these_from_a_thread(start: Start) -> None:
    async with start(concurrency=1, workers=1) as host:
        call: tuple[str, dict[str, Any]] = ("say", {"text": "deep"})
        for _ in range(5):
            call = ("fan_from_thread", {"calls": [call, call]})
        (answer,) = await fan(host, call, via="fan_from_thread")
        assert answer.count("deep") == 32


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({"per_client": 3}, 3),
        ({"per_tool": 2}, 2),
        ({"concurrency": 1}, 1),
    ],
)
async def test_a_batch_gets_a_client_no_more_permits_than_calls_by_themselves(
    start: Start, limits: dict[str, int], most: int
) -> None:
    async with start(**limits) as host:
        calls = [("say", {"text": str(n)}) for n in range(30)]
        batches = await asyncio.gather(*(fan(host, *calls, limit=20) for _ in range(3)))
        assert all(batch == [str(n) for n in range(30)] for batch in batches)
        assert module_of(host).most == most


@pytest.mark.anyio
async def test_a_call_beside_a_batch_keeps_the_permit_that_it_shares(host: Host) -> None:
    both = asyncio.ensure_future(host.call("call_beside_fan", {}, principal=ME, client="test"))
    while module_of(host).log.count("stays") < 2:
        await asyncio.sleep(0.001)
    assert stats(host) == {"running": 2, "waiting": 0}
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert stats(host) == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_a_wait_that_a_nested_tool_leaves_behind_takes_no_permit_from_its_caller(
    host: Host,
) -> None:
    calling = asyncio.ensure_future(host.call("call_and_stay", {}, principal=ME, client="test"))
    while "stays" not in module_of(host).log:
        await asyncio.sleep(0.001)
    assert stats(host) == {"running": 1, "waiting": 0}
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert stats(host) == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_a_tool_that_has_ended_makes_no_more_calls(host: Host) -> None:
    await host.call("keep_context", {}, principal=ME, client="test")
    late = await host.call("use_kept_context", {}, principal=ME, client="test")
    assert late.error is not None
    assert late.error["code"] == "not_started"
    assert "the call of the tool 'keep_context' from within which" in late.text
    assert stats(host) == {"running": 0, "waiting": 0}


@pytest.mark.anyio
async def test_the_limit_of_a_batch_is_kept(host: Host) -> None:
    calls = [("say", {"text": str(n)}) for n in range(10)]
    assert await fan(host, *calls, limit=2) == [str(n) for n in range(10)]
    assert module_of(host).most == 2
    with pytest.raises(ValueError, match="limit must be at least 1, and is 0"):
        await many(host, limit=0)


@pytest.mark.anyio
async def test_a_full_queue_slows_a_batch_down_and_refuses_nothing_of_it(start: Start) -> None:
    async with start(concurrency=4, per_client=4, queue=0) as host:
        holders = [
            asyncio.ensure_future(host.call("stay", {}, principal=ME, client="other"))
            for _ in range(3)
        ]
        while module_of(host).log.count("stays") < 3:
            await asyncio.sleep(0.001)
        calls = [("say", {"text": str(n)}) for n in range(10)]
        assert await fan(host, *calls) == [str(n) for n in range(10)]
        assert module_of(host).most == 1
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)


@pytest.mark.anyio
async def test_when_there_is_no_room_at_all_busy_is_an_entry(start: Start) -> None:
    async with start(concurrency=1, queue=0) as host:
        holder = asyncio.ensure_future(host.call("stay", {}, principal=ME, client="other"))
        while "stays" not in module_of(host).log:
            await asyncio.sleep(0.001)
        answers = await many(host, ToolCall("say", {"text": "a"}), ToolCall("say", {"text": "b"}))
        assert all(isinstance(answer, Busy) for answer in answers)
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)


@pytest.mark.anyio
async def test_one_that_found_no_permit_in_its_time_is_refused_and_not_tried_again(
    start: Start,
) -> None:
    async with start(concurrency=1) as host:
        holder = asyncio.ensure_future(host.call("stay", {}, principal=ME, client="other"))
        while "stays" not in module_of(host).log:
            await asyncio.sleep(0.001)
        (answer,) = await many(host, ToolCall("say", {"text": "a"}, timeout=0.03))
        assert isinstance(answer, Busy)
        assert "before the deadline" in answer.message
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)


@pytest.mark.anyio
async def test_the_calls_of_workers_have_the_workers_permits(start: Start) -> None:
    async with start(concurrency=1, workers=3) as host:
        calls = [ToolCall("say", {"text": str(n)}) for n in range(10)]
        answers = await many(host, *calls, admission="worker")
        assert texts(answers) == [str(n) for n in range(10)]
        assert module_of(host).most == 3


@pytest.mark.anyio
async def test_in_an_async_tool_the_method_for_threads_says_what_to_write(host: Host) -> None:
    result = await host.call("misplaced", {}, principal=ME, client="test")
    assert "Write `await ctx.call_many(...)`." in result.text
