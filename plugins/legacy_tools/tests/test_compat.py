"""The old public classes: code that was written against them runs."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trio.lowlevel

from mcpd_legacy_tools import compat
from mcpd_legacy_tools.compat import (
    ExecutionResult,
    HierarchicalToolManager,
    P2PMCPRegistryAdapter,
    RuntimeExecutionError,
    RuntimeNotFoundError,
    RuntimeRouter,
    StructuredConcurrencyExecutor,
    ToolCategory,
    ToolMetadata,
    ToolMetadataRegistry,
    create_router,
    get_registry,
    get_tool_metadata,
    run_in_trio,
    tool_metadata,
)
from mcpd_legacy_tools.compat import manager as manager_module
from mcpd_legacy_tools.compat import router as router_module

FILES = {
    "sums_tools/add.py": '''
        """Sums."""
        import threading
        from typing import Any, Dict

        calls = []

        def add(a: int, b: int = 1) -> Dict[str, Any]:
            """Add two numbers.

            Args:
                a: The first.
            """
            calls.append(a)
            if a < 0:
                raise ValueError("negative")
            return {"status": "success", "sum": a + b, "thread": threading.current_thread().name}
        ''',
    "sums_tools/says.py": """
        def says_no() -> dict:
            '''Fail.'''
            return {"success": False, "error": "no"}

        def says_yes() -> str:
            '''Succeed.'''
            return "yes"
        """,
    "sums_tools/broken.py": "def broken(:",
    "trio_tools/rest.py": """
        import trio

        async def rest(seconds: float = 0.0) -> dict:
            '''Rest in trio.'''
            await trio.sleep(seconds)
            return {"rested": seconds}

        rest._mcp_runtime = "trio"
        """,
}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing registered, no manager, a cache of its own, and no old package."""
    get_registry().clear()
    monkeypatch.setattr(manager_module, "_manager", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tools"
    for file, source in FILES.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(textwrap.dedent(source))
    (root / "sums_tools" / "category.json").write_text('{"description": "Sums."}')
    return root


def library() -> str:
    return "trio" if trio.lowlevel.in_trio_task() else "asyncio"


# --- metadata ------------------------------------------------------------------------------------


def test_every_old_name_can_be_imported() -> None:
    for name in compat.__all__:
        assert getattr(compat, name) is not None
    assert not hasattr(compat, "CircuitBreaker")


def test_the_package_imports_neither_trio_nor_the_sdk() -> None:
    probe = (
        "import sys, mcpd_legacy_tools.compat as c; [getattr(c, name) for name in c.__all__]\n"
        "sys.exit('trio' in sys.modules or 'mcp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0


def test_a_decorated_function_stays_and_carries_its_metadata() -> None:
    def submit(workflow: str) -> str:
        """Submit."""
        return workflow

    decorated = tool_metadata(runtime="trio", requires_p2p=True, category="p2p", priority=8)(submit)
    assert decorated is submit
    found = get_tool_metadata(submit)
    assert found is get_tool_metadata("submit") is get_registry().get("submit")
    assert found is not None
    assert (found.runtime, found.priority, found.mcp_description) == ("trio", 8, "Submit.")
    marks: Any = submit
    assert marks._mcp_metadata is found
    assert (marks._mcp_runtime, marks._mcp_requires_p2p, marks._mcp_category) == (
        "trio",
        True,
        "p2p",
    )
    assert "_func" not in found.to_dict()
    assert found.validate_complete() == ["MCP schema is recommended"]


def test_there_are_three_runtimes() -> None:
    with pytest.raises(ValueError, match="Invalid runtime: curio"):
        ToolMetadata("x", runtime="curio")


def test_a_registry_lists_and_counts() -> None:
    registry = ToolMetadataRegistry()
    registry.register(ToolMetadata("a", runtime="trio", category="x", requires_p2p=True))
    registry.register(ToolMetadata("b", category="y"))
    registry.register(ToolMetadata("b", runtime="fastapi", category="x"))
    assert [each.name for each in registry.list_by_category("x")] == ["a", "b"]
    assert registry.list_by_category("y") == []
    assert [each.name for each in registry.get_by_runtime("trio")] == ["a"]
    assert registry.get_statistics() == {
        "total": 2,
        "total_tools": 2,
        "by_runtime": {"fastapi": 1, "trio": 1, "auto": 0},
        "by_category": {"x": 2},
        "p2p_tools": 1,
        "categories": 1,
    }
    registry.clear()
    assert registry.list_all() == []


def test_a_context_has_a_registry_of_its_own() -> None:
    class Context:
        metadata_registry = ToolMetadataRegistry()

    assert get_registry(Context()) is Context.metadata_registry


def test_errors_have_their_old_messages() -> None:
    cause = ValueError("bad")
    assert str(compat.ToolNotFoundError("add", "sums")).startswith("Tool not found: sums.add (")
    assert compat.ToolExecutionError("add", cause).__cause__ is cause
    assert str(compat.MCPServerError("plain")) == "plain"
    assert compat.ValidationError("a", "b").field == "a"
    assert str(compat.RuntimeNotFoundError("trio")) == "Runtime not found: trio (runtime=trio)"
    assert compat.HealthCheckError("disk", "full").check_name == "disk"
    assert issubclass(compat.ToolNotFoundError, compat.ToolError)


# --- trio ----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_run_in_trio_runs_in_trio_and_brings_back_what_comes_of_it() -> None:
    async def work(value: int) -> tuple[str, int]:
        await trio.lowlevel.checkpoint()
        return library(), value

    assert await run_in_trio(work, value=3) == ("trio", 3)
    assert await run_in_trio(library) == "trio"

    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await run_in_trio(fail)

    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await run_in_trio(leave)


@pytest.mark.anyio
async def test_cancelling_run_in_trio_returns_after_the_clean_up(anyio_backend: str) -> None:
    told: list[str] = []
    started = threading.Event()

    async def work() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
            told.append("cleaned")

    async with anyio.create_task_group() as group:
        group.start_soon(run_in_trio, work)
        await anyio.to_thread.run_sync(started.wait)
        group.cancel_scope.cancel()
    assert told == ["cleaned"]


def test_who_cancels_twice_waits_for_the_clean_up_all_the_same() -> None:
    told: list[str] = []
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(cancelled.wait)
            told.append("cleaned")

    async def main() -> None:
        task = asyncio.ensure_future(run_in_trio(work))
        await asyncio.to_thread(started.wait)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told == ["cleaned"]


def test_where_trio_does_not_start_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError("no descriptors")

    monkeypatch.setattr(trio, "run", refuse)
    with pytest.raises(RuntimeExecutionError, match="trio does not start: no descriptors"):
        asyncio.run(run_in_trio(library))


# --- the router ----------------------------------------------------------------------------------


def named(name: str, runtime: str = "", module: str = "tools") -> Any:
    async def tool() -> str:
        return library()

    tool.__name__, tool.__module__ = name, module
    if runtime:
        vars(tool)["_mcp_runtime"] = runtime
    return tool


@pytest.mark.parametrize(
    ("name", "runtime", "module", "found"),
    [
        ("plain", "", "tools", "fastapi"),
        ("plain", "trio", "tools", "trio"),
        ("p2p_x", "fastapi", "tools", "fastapi"),
        ("p2p_x", "", "tools", "trio"),
        ("my_Workflow", "auto", "tools", "trio"),
        ("plain", "", "a.mcplusplus.b", "trio"),
    ],
)
def test_runtimes_are_detected_in_the_old_order(
    name: str, runtime: str, module: str, found: str
) -> None:
    assert RuntimeRouter().detect_runtime(name, named(name, runtime, module)) == found


def test_what_is_registered_wins() -> None:
    registry = ToolMetadataRegistry()
    registry.register(ToolMetadata("a", runtime="trio"))
    registry.register(ToolMetadata("b"))
    router = RuntimeRouter(metadata_registry=registry)
    assert router.detect_runtime("a", named("a")) == "trio"
    router.register_tool_runtime("a", "fastapi")
    assert router.detect_runtime("a", named("a", "trio")) == "fastapi"
    assert router.bulk_register_tools_from_metadata() == 1
    assert router.list_tools_by_runtime("trio") == ["a"]
    assert router.get_tool_runtime("b") is None
    assert router.detect_runtime("bootstrap", None) == "trio"
    assert (router.get_metadata_registry_stats() or {})["total"] == 2
    with pytest.raises(ValueError, match="Invalid runtime"):
        router.register_tool_runtime("a", "auto")


@pytest.mark.anyio
async def test_a_tool_marked_for_trio_runs_in_trio_and_others_where_they_are_awaited(
    anyio_backend: str,
) -> None:
    async with (await create_router()).runtime_context() as router:
        for _ in range(2):
            assert await router.route_tool_call("t", named("t", "trio")) == "trio"
        # A name alone is a guess, and the code was written for where it was awaited.
        assert await router.route_tool_call("p2p_x", named("p2p_x")) == anyio_backend
        sync = await router.route_tool_call("s", threading.current_thread)
        assert sync is not threading.current_thread()
        metrics = router.get_metrics()
        assert {runtime: each["request_count"] for runtime, each in metrics.items()} == {
            "fastapi": 1,
            "trio": 3,
            "unknown": 0,
        }
        stats = router.get_runtime_stats()
        assert stats["total_requests"] == 4
        assert stats["by_runtime"]["trio"]["percentage"] == 75.0
        assert stats["latency_improvement"] is None
        router.reset_metrics()
        assert router.get_runtime_stats()["total_requests"] == 0


@pytest.mark.anyio
async def test_a_tool_that_fails_is_run_once(anyio_backend: str) -> None:
    runs: list[str] = []

    async def fail(error: Exception) -> None:
        runs.append(library())
        raise error

    vars(fail)["_mcp_runtime"] = "trio"
    async with RuntimeRouter().runtime_context() as router:
        with pytest.raises(RuntimeExecutionError, match="Failed to route tool 'f'") as caught:
            await router.route_tool_call("f", fail, OSError("disk"))
        assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(RuntimeExecutionError, match="Invalid parameters for 'f': bad"):
            await router.route_tool_call("f", fail, ValueError("bad"))
        assert router.get_metrics()["trio"]["error_count"] == 2
    assert runs == ["trio", "trio"]


@pytest.mark.anyio
async def test_a_router_has_to_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    router = RuntimeRouter()
    with pytest.raises(RuntimeError, match="call startup"):
        await router.route_tool_call("t", named("t"))
    assert "running=False" in repr(router)
    monkeypatch.setattr(router_module, "find_spec", lambda name: None)
    async with router.runtime_context():
        with pytest.raises(RuntimeNotFoundError):
            await router.route_tool_call("t", named("t", "trio"))


def test_latencies_are_compared_once_there_are_enough() -> None:
    router = RuntimeRouter()
    for runtime, latency in (("fastapi", 4.0), ("trio", 1.0)):
        for _ in range(10):
            router._record(runtime, latency, False)
    assert router.get_runtime_stats()["latency_improvement"] == 75.0
    assert router.get_metrics()["trio"]["p95_latency_ms"] == 1.0


# --- the executor --------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_executor_waits_for_all_and_keeps_their_order() -> None:
    running: list[int] = []
    most = 0

    async def work(value: int) -> int:
        nonlocal most
        running.append(value)
        most = max(most, len(running))
        await anyio.sleep(0.001 * (3 - value))
        running.remove(value)
        if value == 1:
            raise OSError("disk")
        return value

    executor = StructuredConcurrencyExecutor(max_concurrent=2)
    with pytest.raises(RuntimeError, match="runtime_context"):
        await executor.execute_parallel([])
    async with executor.runtime_context():
        results = await executor.execute_batch(work, [{"value": value} for value in range(3)])
    assert [result.result for result in results] == [0, None, 2]
    assert [result.error for result in results] == [None, "disk", None]
    assert most == 2
    metrics = executor.get_metrics()
    assert (metrics["total_executions"], metrics["failed_executions"]) == (3, 1)
    executor.reset_metrics()
    assert executor.metrics.success_rate == executor.metrics.avg_execution_time_ms == 0.0


@pytest.mark.anyio
async def test_a_time_limit_and_a_cancellation_are_told_apart() -> None:
    executor = StructuredConcurrencyExecutor()
    result = await executor.execute_single(anyio.sleep_forever, timeout=0.01)
    assert (result.success, result.timed_out) == (False, True)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.execute_single, anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert executor.metrics.cancelled_executions == 1


@pytest.mark.anyio
async def test_several_tools_at_once_without_an_executor() -> None:
    marked = named("t", "trio")
    results = await compat.execute_parallel_tools([(marked, {}), (int, {})])
    assert results[0] == ExecutionResult(
        True, "trio", execution_time_ms=results[0].execution_time_ms, tool_name="t"
    )
    assert results[1].result == 0
    batch = await compat.execute_batch_tool(marked, [{}, {}])
    assert [each.result for each in batch] == ["trio", "trio"]


# --- the manager ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_manager_lists_describes_and_imports_nothing(tree: Path) -> None:
    manager = HierarchicalToolManager(tree)
    before = set(sys.modules)
    assert await manager.list_categories(include_count=True) == [
        {"name": "sums_tools", "description": "Sums.", "lazy": False, "tool_count": 3},
        {"name": "trio_tools", "description": "", "lazy": False, "tool_count": 1},
    ]
    listed = await manager.list_tools("sums_tools")
    assert [tool["name"] for tool in listed["tools"]] == ["add", "says_no", "says_yes"]
    assert listed["tools"][0]["description"] == "Add two numbers."
    schema = (await manager.get_tool_schema("sums_tools", "add"))["schema"]
    assert schema["signature"] == "(a: int, b: int = 1) -> Dict[str, Any]"
    assert schema["input_schema"]["required"] == ["a"]
    assert not any("add" in name and "sums_tools" in name for name in set(sys.modules) - before)


@pytest.mark.anyio
async def test_the_manager_runs_each_tool_where_it_belongs(tree: Path) -> None:
    manager = HierarchicalToolManager(tree)
    answer = await manager.dispatch("sums_tools", "add", {"a": 1, "b": 2})
    assert answer["sum"] == 3
    assert answer["thread"] != threading.current_thread().name
    assert answer["request_id"]
    assert (await manager.dispatch("trio_tools", "rest", {"seconds": 0.001}))["rested"] == 0.001
    assert (await manager.dispatch("sums_tools", "says_yes"))["result"] == "yes"


@pytest.mark.anyio
async def test_failures_are_answered_in_the_old_shapes(tree: Path) -> None:
    manager = HierarchicalToolManager(tree)
    failed = await manager.dispatch("sums_tools", "add", {"a": -1})
    assert failed["status"] == "error"
    assert (failed["category"], failed["tool"]) == ("sums_tools", "add")
    misfit = await manager.dispatch("sums_tools", "add", {"a": 1, "c": 2})
    assert misfit["error"].startswith("Invalid parameters: ")
    assert (await manager.dispatch("sums_tools", "says_no"))["success"] is False
    gone = await manager.dispatch("sums_tools", "gone")
    assert gone["available_tools"] == ["add", "says_no", "says_yes"]
    nowhere = await manager.dispatch("gone", "add")
    assert nowhere["available_categories"] == ["sums_tools", "trio_tools"]
    assert (await manager.list_tools("gone"))["status"] == "error"
    assert (await manager.get_tool_schema("gone", "x"))["status"] == "error"
    assert (await manager.get_tool_schema("sums_tools", "x"))["status"] == "error"


@pytest.mark.anyio
async def test_several_calls_at_once_are_answered_in_their_order(tree: Path) -> None:
    manager = HierarchicalToolManager(tree)
    calls = [
        {"category": "sums_tools", "tool": "add", "params": {"a": number}} for number in (1, 2, 3)
    ]
    for most in (None, 2):
        answers = await manager.dispatch_parallel(calls, max_concurrent=most)
        assert [answer["sum"] for answer in answers] == [2, 3, 4]
    assert await manager.dispatch_parallel([]) == []


@pytest.mark.anyio
async def test_shutting_down_waits_for_what_runs_and_stays_shut(tree: Path) -> None:
    manager = HierarchicalToolManager(tree)
    async with anyio.create_task_group() as group:
        await manager.dispatch("trio_tools", "rest")
        call = ("trio_tools", "rest", {"seconds": 0.05})
        group.start_soon(manager.dispatch, *call)
        while not manager._running:
            await anyio.lowlevel.checkpoint()
        assert (await manager.graceful_shutdown(timeout=0.001))["status"] == "timeout"
        assert await manager.graceful_shutdown() == {"status": "ok", "categories_cleared": 0}
    assert "shutting down" in (await manager.dispatch("sums_tools", "add"))["error"]


def test_the_manager_of_the_process_can_be_made_where_no_loop_runs(tree: Path) -> None:
    assert compat.get_tool_manager() is compat.get_tool_manager()
    manager = HierarchicalToolManager(str(tree))
    manager.discover_categories()
    assert list(manager.categories) == ["sums_tools", "trio_tools"]
    assert asyncio.run(manager.dispatch("sums_tools", "add", {"a": 1}))["sum"] == 2


def test_a_category_stands_by_itself(tree: Path) -> None:
    category = ToolCategory("sums_tools", tree / "sums_tools")
    add = category.get_tool("add")
    assert add is not None
    assert add(a=1)["sum"] == 2
    assert add.__doc__ == "Add two numbers."
    assert category.get_tool("gone") is None
    assert category.get_tool_schema("gone") is None
    category.clear_schema_cache()
    assert category.cache_info()["size"] == 0
    rest = ToolCategory("trio_tools", tree / "trio_tools").get_tool("rest")
    assert rest is not None
    assert inspect.iscoroutinefunction(rest)
    assert trio.run(rest) == {"rested": 0.0}


@pytest.mark.anyio
async def test_a_category_can_be_made_when_it_is_asked_for(tree: Path) -> None:
    manager = HierarchicalToolManager(tree)
    made: list[str] = []

    def make() -> ToolCategory:
        made.append("made")
        return ToolCategory("sums_tools", tree / "sums_tools", "Later.")

    manager.lazy_register_category("later", make)
    assert {"name": "later", "description": "", "lazy": True} in await manager.list_categories()
    assert made == []
    assert (await manager.list_tools("later"))["description"] == "Later."
    assert made == ["made"]


@pytest.mark.anyio
async def test_the_functions_use_the_manager_of_the_process(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "_manager", HierarchicalToolManager(tree))
    assert (await compat.tools_list_categories())["category_count"] == 2
    assert (await compat.tools_list_tools("sums_tools"))["tool_count"] == 3
    assert (await compat.tools_get_schema("sums_tools", "add"))["status"] == "success"
    assert (await compat.tools_dispatch("sums_tools", "add", {"a": 1}))["sum"] == 2

    class Context:
        tool_manager = HierarchicalToolManager(tree)

    assert compat.get_tool_manager(Context()) is Context.tool_manager


# --- the adapter ---------------------------------------------------------------------------------


class Server:
    def __init__(self, **tools: Any) -> None:
        self.tools = tools

    async def validate_p2p_message(self, message: dict[str, Any]) -> bool:
        return message.get("token") == "right"


@pytest.mark.anyio
async def test_the_adapter_describes_the_tools_of_a_server() -> None:
    server = Server(plain=named("plain"), marked=named("marked", "trio"), odd=3)
    adapter = P2PMCPRegistryAdapter(server)
    assert adapter.accelerate_instance is server
    assert set(adapter.tools) == {"plain", "marked"}
    assert adapter.tools["marked"]["runtime_metadata"] == {
        "is_async": True,
        "is_trio_native": True,
        "requires_trio_context": True,
    }
    assert set(adapter.get_trio_tools()) == {"marked"}
    adapter.register_fastapi_tool("marked")
    adapter.register_trio_tool("plain")
    adapter.clear_runtime_cache()
    assert set(adapter.get_fastapi_tools()) == {"marked"}
    assert adapter.is_trio_tool("plain")
    assert adapter.get_runtime_stats() == {
        "total_tools": 2,
        "trio_tools": 1,
        "fastapi_tools": 1,
        "unknown_tools": 0,
        "runtime_detection_enabled": True,
        "default_runtime": "fastapi",
    }
    assert await adapter.validate_p2p_message({"token": "right"})
    assert not await adapter.validate_p2p_message({})
    blind = P2PMCPRegistryAdapter(server, "trio", enable_runtime_detection=False)
    assert set(blind.get_trio_tools()) == {"plain", "marked"}
    nobody = P2PMCPRegistryAdapter(object())
    assert nobody.tools == {}
    assert not await nobody.validate_p2p_message({})


@pytest.mark.anyio
async def test_behind_the_meta_tools_the_adapter_finds_those_of_the_manager(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "_manager", HierarchicalToolManager(tree))
    adapter = P2PMCPRegistryAdapter(Server(tools_dispatch=compat.tools_dispatch))
    assert set(adapter.tools) == {"add", "says_no", "says_yes", "rest"}
    add = adapter.tools["add"]
    assert add["input_schema"]["required"] == ["a"]
    assert add["runtime_metadata"]["category"] == "sums_tools"
    assert (await add["function"](a=1))["sum"] == 2


# --- answers -------------------------------------------------------------------------------------


def test_the_helpers_make_the_old_answers() -> None:
    assert compat.mcp_text_response({"a": 1}) == {"content": [{"type": "text", "text": '{"a": 1}'}]}
    assert compat.parse_json_object('{"a": 1}') == ({"a": 1}, None)
    for wrong in (1, " ", "{", "[]"):
        data, answer = compat.parse_json_object(wrong)
        assert data is None
        assert answer is not None
        assert '"status": "error"' in answer["content"][0]["text"]
    content = compat.return_text_content("a\n", "said")
    assert content.text == "said: 'a\\n'"
    assert compat.return_tool_call_results(content, error=True).is_error
