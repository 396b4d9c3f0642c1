"""What the tests of the task queue share."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from mcpd_core import Principal
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.registrar import ToolRegistrar
from mcpd_core.settings import load_settings
from mcpd_task_queue.records import NewTask
from mcpd_task_queue.sqlite import SQLiteTaskStore
from mcpd_task_queue.testing import Clock
from mcpd_task_queue.tools import MODULES

OpenStore = Callable[..., SQLiteTaskStore]

#: Tools to be called by tasks.
WORK = """
    from __future__ import annotations
    import anyio, sniffio, threading
    from mcpd_core import Context, ToolError, tool

    log = []

    @tool(read_only=True)
    async def add(a: int, b: int = 0) -> dict[str, object]:
        log.append(f"add {a}")
        return {"sum": a + b, "library": sniffio.current_async_library()}

    @tool(read_only=True)
    def shout(text: str) -> str:
        return text.upper()

    @tool(idempotent=True)
    async def flaky(fails: int, retryable: bool = True, after: float = 0.0) -> str:
        log.append("flaky")
        if log.count("flaky") <= fails:
            data = {"retry_after": after} if after else None
            raise ToolError("The service did not answer.", retryable=retryable, data=data)
        return "answered"

    async def _hold(ctx):
        log.append("started")
        ctx.progress(1, 4, "holding")
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            log.append("cleaned")
        return "held"

    @tool
    async def hold(ctx: Context) -> str:
        return await _hold(ctx)

    @tool(idempotent=True)
    async def hold_safely(ctx: Context) -> str:
        return await _hold(ctx)

    @tool
    async def insist(ctx: Context) -> str:
        log.append("started")
        with anyio.CancelScope(shield=True):
            while "let go" not in log:
                await anyio.sleep(0.001)
        return "finished all the same"

    @tool(read_only=True)
    async def hold_forth(n: int, ctx: Context) -> str:
        ctx.progress(n, n + 1, f"step {n}")
        ctx.log("info", f"line {n}")
        if n % 2:
            raise ToolError(f"No {n}.", retryable=False)
        return f"said {n}"

    @tool(read_only=True)
    async def big(size: int) -> str:
        log.append("big")
        return "x" * size

    @tool(read_only=True)
    async def big_when_let_go(size: int) -> str:
        log.append("started")
        while "let go" not in log:
            await anyio.sleep(0.001)
        return "x" * size

    @tool(read_only=True)
    async def odd_progress(ctx: Context) -> str:
        ctx.progress(float("nan"))
        ctx.progress(1, float("inf"))
        log.append("started")
        await anyio.sleep(60)
        return ""
"""

Start = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def me() -> Principal:
    return Principal("local", "1000", "ada")


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock) -> Iterator[OpenStore]:
    """Open a store in this test's folder, on the test's clock; it is closed at the end."""
    opened: list[SQLiteTaskStore] = []

    def open_(name: str = "tasks.db", **options: Any) -> SQLiteTaskStore:
        store = SQLiteTaskStore(
            tmp_path / name,
            clock=lambda: clock.wall,
            monotonic=lambda: clock.steady,
            **options,
        )
        opened.append(store)
        return store

    yield open_
    for store in opened:
        store.close().result(10)


@pytest.fixture
def store(open_store: OpenStore) -> SQLiteTaskStore:
    return open_store()


@pytest.fixture
def new(me: Principal) -> Callable[..., NewTask]:
    """Make a `NewTask` of which only what matters is said."""

    def make(tool: str = "add", **options: Any) -> NewTask:
        options.setdefault("arguments", {"a": 1})
        options.setdefault("principal", me)
        return NewTask(tool=tool, **options)

    return make


# --- a whole host -------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of tools that exists for this test only; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"work_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(WORK))
    return name


def row(
    name: str, module: str, modules: Sequence[str], runtime: Any, hooks: tuple[str, ...]
) -> PluginRow:
    registrar = ToolRegistrar(name, runtime)
    for offered in modules:
        registrar.add_module(offered)
    return PluginRow(
        name=name,
        distribution=f"mcpd-{name}",
        version="1.0",
        runtime=runtime,
        state="enabled",
        entry=module,
        hooks=hooks,
        tools=registrar.specs,
        resources=registrar.resources,
    )


@pytest.fixture
def start(tmp_path: Path, work: str) -> Start:
    @asynccontextmanager
    async def started(
        *, runtime: str = "asyncio", without_work: bool = False, **sections: dict[str, Any]
    ) -> AsyncIterator[Host]:
        rows = [
            row(
                "task_queue",
                "mcpd_task_queue.plugin",
                MODULES,
                "trio",
                ("mcpd_http_routes", "mcpd_rpc_methods", "mcpd_services", "mcpd_settings"),
            )
        ]
        if not without_work:
            rows.append(row("work", work, [work], runtime, ()))
        sections.setdefault("task_queue", {}).setdefault("first_retry", 0.01)
        settings = load_settings(config=None, env={}, overrides=sections)
        async with Host(Inventory(tuple(rows)), settings, data_dir=tmp_path) as host:
            await host.start_services()
            yield host

    return started


@pytest.fixture
def left_behind(tmp_path: Path) -> Callable[..., list[str]]:
    """Put tasks into the store as an earlier daemon would have; some of them running."""

    def leave(tasks: Sequence[NewTask], *, running: int = 0) -> list[str]:
        store = SQLiteTaskStore(tmp_path / "task_queue" / "tasks.db")
        ids = [submitted.task_id for submitted in store.submit(tasks).result(10)]
        store.claim("dead:1", running, 30).result(10)
        store.close().result(10)
        return ids

    return leave


@pytest.fixture
def log(work: str) -> list[str]:
    return cast("list[str]", importlib.import_module(work).log)
