"""The four meta tools of the old server: what old clients say, and what they are told."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import textwrap
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcpd_core import CallResult, Context, Principal, Progress, ToolSpec
from mcpd_core.catalog import Catalog
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.manifest import parse_tools
from mcpd_core.schema import describe, tools_of
from mcpd_core.settings import load_settings
from mcpd_legacy_tools import mocks, provider
from mcpd_legacy_tools.meta import names, schemas, tools, written
from mcpd_legacy_tools.testing import plant

jsonschema: Any = importlib.import_module("jsonschema")  # it is not typed

ME = Principal("local", str(os.getuid()))
SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "times": {"type": "integer", "default": 1}},
    "required": ["text"],
    "additionalProperties": False,
}

FILES = {
    "audit_tools/record_event.py": '''
        from typing import Any, Dict, Optional

        def record_event(text: str, times: int = 1) -> Dict[str, Any]:
            """Record an event."""
            return {"status": "success", "recorded": [text] * times}

        def fail_by_saying(text: str, times: int = 1):
            return {"success": False, "error": "no disk", "text": text}
        ''',
    "audit_tools/report.py": """
        def make(text, times=1):
            return [text] * times
        """,
    "audit_tools/crash.py": """
        def crash(text, times=1):
            raise RuntimeError("a secret of the server's")
        """,
    "twins_tools/one.py": "def twin(text, times=1): return {'twin': 'one'}",
    "twins_tools/two.py": "def twin(text, times=1): return {'twin': 'two'}",
    "odd_tools/waits.py": """
        import anyio
        async def waits(text, times=1):
            try:
                await anyio.sleep_forever()
            finally:
                open(text, "w").close()
        """,
}

LOADER = """
    import importlib.util
    from mcpd_core import InvalidArguments, LoadedTool
    from mcpd_legacy_tools.running.envelopes import answer

    def load(spec):
        where = importlib.util.spec_from_file_location(spec.entry.partition(":")[0], spec.source)
        module = importlib.util.module_from_spec(where)
        where.loader.exec_module(module)
        def check(arguments):
            if "text" not in arguments:
                raise InvalidArguments("text is missing.", hint="Give one.")
            return arguments
        function = getattr(module, spec.entry.partition(":")[2])
        return LoadedTool(function, check, lambda value: answer(value, of=spec.name))
    """

NATIVE = """
    from mcpd_core import Context, Image, tool

    @tool(category="sums")
    async def add(a: int, b: int, ctx: Context) -> int:
        ctx.progress(1, 2, ctx.principal.id)
        return a + b

    @tool(category="sums", listed=False)
    async def hidden() -> int:
        return 1

    @tool
    async def draw() -> Image:
        return Image(b"x", mime_type="image/png")

    @tool(category="task_queue", listed=False)
    async def task_submit(task_id: str) -> dict[str, str]:
        return {"task_id": task_id, "request_id": "its own"}
    """


def legacy(root: Path, file: str, function: str, *, alias: bool = True, **options: Any) -> ToolSpec:
    category, stem = file.removesuffix(".py").split("/")
    options = {"placement": "thread", "name": f"{category}__{function}", **options}
    return ToolSpec(
        description=f"Do {function}.\n\nAt length.",
        input_schema=SCHEMA,
        entry=f"tree.{category}.{stem}:{function}",
        plugin=names.PLUGIN,
        category=category,
        aliases=(f"{category}.{function}",) if alias else (),
        loader="legacy_meta_loader:load",
        source=str(root / file),
        **options,
    )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PluginRow, ...]:
    monkeypatch.syspath_prepend(str(tmp_path))
    root = tmp_path / "tools"
    for file, source in FILES.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(textwrap.dedent(source))
    (root / "audit_tools" / "category.json").write_text('{"description": "Who did what."}')
    (tmp_path / "legacy_meta_loader.py").write_text(textwrap.dedent(LOADER))
    native = f"native_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{native}.py").write_text(textwrap.dedent(NATIVE))
    planted = (
        legacy(root, "audit_tools/record_event.py", "record_event"),
        legacy(root, "audit_tools/record_event.py", "fail_by_saying"),
        legacy(root, "audit_tools/report.py", "make", alias=False),
        legacy(root, "audit_tools/crash.py", "crash", listed=False),
        legacy(root, "odd_tools/waits.py", "waits", placement="loop"),
        legacy(root, "twins_tools/one.py", "twin", name="twins_tools__one__twin", alias=False),
        legacy(root, "twins_tools/two.py", "twin", name="twins_tools__two__twin", alias=False),
    )
    own = tuple(describe(f, plugin=names.PLUGIN, runtime="asyncio") for f in tools_of(tools))
    others = tools_of(importlib.import_module(native))
    return (
        PluginRow(
            names.PLUGIN, "mcpd-legacy-tools", "1", "asyncio", "enabled", tools=own + planted
        ),
        PluginRow(
            "native",
            "mcpd-native",
            "1",
            "asyncio",
            "enabled",
            tools=tuple(describe(f, plugin="native", runtime="asyncio") for f in others),
        ),
    )


@asynccontextmanager
async def started(rows: tuple[PluginRow, ...], tmp_path: Path) -> AsyncIterator[Host]:
    async with Host(Inventory(rows), load_settings(None, {}), data_dir=tmp_path) as host:
        yield host


@pytest.fixture
async def host(
    rows: tuple[PluginRow, ...], tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Host]:
    async with started(rows, tmp_path) as host:
        yield host


async def call(host: Host, tool: str, arguments: Any = None, **options: Any) -> CallResult:
    answer = await host.call(tool, arguments or {}, principal=ME, client="old", **options)
    if answer.structured is not None:
        assert json.loads(answer.text) == answer.structured
    return answer


async def told(host: Host, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Call a meta tool that succeeds."""
    answer = await call(host, tool, arguments)
    assert answer.error is None, answer.error
    assert answer.structured is not None
    return answer.structured


async def dispatch(host: Host, category: str, tool: str, **params: Any) -> CallResult:
    arguments = {"category": category, "tool": tool, "params": params}
    return await call(host, "tools_dispatch", arguments)


# --- finding -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_categories_are_listed_as_the_old_server_did_and_the_newer_ones_beside_them(
    host: Host,
) -> None:
    answer = await told(host, "tools_list_categories")
    assert answer["status"] == "success"
    assert answer["category_count"] == 6
    assert {"name": "audit_tools", "description": "Who did what.", "lazy": False} in answer[
        "categories"
    ]
    assert [category["name"] for category in answer["categories"]] == [
        "audit_tools",
        "general",
        "odd_tools",
        "p2p_taskqueue",
        "sums",
        "twins_tools",
    ]
    counted = await told(host, "tools_list_categories", include_count=True)
    counts = {category["name"]: category["tool_count"] for category in counted["categories"]}
    assert counts == {
        "audit_tools": 4,
        "general": 1,
        "odd_tools": 1,
        "p2p_taskqueue": 1,
        "sums": 1,
        "twins_tools": 2,
    }


@pytest.mark.anyio
async def test_the_tools_of_a_category_have_their_old_names(host: Host) -> None:
    answer = await told(host, "tools_list_tools", category="audit_tools")
    assert answer["tools"] == [
        {"name": name, "description": f"Do {name}."}
        for name in ("crash", "fail_by_saying", "make", "record_event")
    ]
    assert {key: answer[key] for key in ("status", "category", "description", "tool_count")} == {
        "status": "success",
        "category": "audit_tools",
        "description": "Who did what.",
        "tool_count": 4,
    }


@pytest.mark.anyio
async def test_a_category_that_is_not_there_is_answered_as_before_and_marked(host: Host) -> None:
    answer = await call(host, "tools_list_tools", {"category": "gone"})
    assert answer.structured is not None
    assert answer.structured["status"] == "error"
    assert answer.structured["error"] == "Category 'gone' not found"
    assert "audit_tools" in answer.structured["available_categories"]
    assert answer.error is not None
    assert answer.error["code"] == "unknown_tool"


@pytest.mark.anyio
async def test_arguments_that_do_not_fit_are_answered_in_the_old_shape(host: Host) -> None:
    answer = await call(host, "tools_list_tools", {"kategory": "audit_tools"})
    assert answer.is_error
    assert answer.structured is not None
    assert answer.structured["status"] == "error"
    assert "category" in answer.structured["error"]


# --- describing ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_schema_has_the_old_form_and_a_real_one_beside_it(host: Host) -> None:
    schema = (await told(host, "tools_get_schema", category="audit_tools", tool="record_event"))[
        "schema"
    ]
    assert schema["signature"] == "(text: str, times: int = 1) -> Dict[str, Any]"
    assert schema["parameters"] == {
        "text": {"name": "text", "required": True, "type": "<class 'str'>"},
        "times": {"name": "times", "required": False, "type": "<class 'int'>", "default": "1"},
    }
    assert schema["return_type"] == "typing.Dict[str, typing.Any]"
    assert (schema["name"], schema["category"]) == ("record_event", "audit_tools")
    assert (schema["schema_version"], schema["deprecated"]) == ("1.0", False)
    jsonschema.Draft202012Validator.check_schema(schema["input_schema"])
    jsonschema.validate({"text": "x"}, schema["input_schema"])


@pytest.mark.anyio
async def test_a_tool_of_another_plugin_is_described_from_its_schema(host: Host) -> None:
    schema = (await told(host, "tools_get_schema", category="sums", tool="add"))["schema"]
    assert schema["signature"] == "(a: integer, b: integer)"
    assert schema["parameters"]["a"] == {"name": "a", "required": True, "type": "integer"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("category", "tool", "error"),
    [
        ("gone", "record_event", "Category 'gone' not found"),
        ("audit_tools", "gone", "Tool 'gone' not found in category 'audit_tools'"),
    ],
)
async def test_what_is_not_there_has_no_schema(
    host: Host, category: str, tool: str, error: str
) -> None:
    answer = await call(host, "tools_get_schema", {"category": category, "tool": tool})
    assert answer.is_error
    assert answer.structured == {"status": "error", "error": error}


# --- calling -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_tool_is_called_and_its_answer_handed_on_with_an_id(host: Host) -> None:
    answer = await dispatch(host, "audit_tools", "record_event", text="x", times=2)
    assert answer.error is None
    assert answer.structured is not None
    assert answer.structured.pop("request_id")
    assert answer.structured == {"status": "success", "recorded": ["x", "x"]}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("category", "tool"),
    [
        ("audit_tools", "audit_tools__record_event"),
        ("audit_tools", "audit_tools.record_event"),
        ("audit_tools", "audit_tools/record_event.py"),
        ("audit", "record_event"),
        ("tools/audit_tools/", "record_event"),
        ("ipfs_datasets_py.mcp_server.tools.audit_tools", "record_event"),
    ],
)
async def test_a_tool_is_found_by_each_way_of_writing_its_name(
    host: Host, category: str, tool: str
) -> None:
    answer = await dispatch(host, category, tool, text="x")
    assert answer.structured is not None
    assert answer.structured.get("recorded") == ["x"]


@pytest.mark.anyio
async def test_a_file_stands_for_its_only_tool(host: Host) -> None:
    answer = await dispatch(host, "audit_tools", "report.py", text="x", times=2)
    assert answer.structured is not None
    assert answer.structured["status"] == "success"
    assert json.loads(answer.structured["result"]) == ["x", "x"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "category",
    [
        "p2p_taskqueue",
        "p2p_queue_mgmt",
        "mcplusplus_taskqueue_tools",
        "tools/mcplusplus_taskqueue_tools.py",
        "task_queue",
    ],
)
async def test_an_old_tool_for_tasks_is_that_of_the_newer_plugin(host: Host, category: str) -> None:
    answer = await dispatch(host, category, "task_submit", task_id="t1")
    assert answer.structured == {"task_id": "t1", "request_id": "its own"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tool", "why"),
    [
        ("workflow_submit", "This version of mcpd has no workflows"),
        ("peer_discover", "This version of mcpd has no peers"),
        ("queue_stats", "pip install mcpd-task-queue"),
    ],
)
async def test_an_old_tool_that_is_not_here_says_why(host: Host, tool: str, why: str) -> None:
    answer = await dispatch(host, "p2p_workflow", tool)
    assert answer.error is not None
    assert why in answer.error["hint"]
    assert answer.structured is not None
    assert answer.structured["message"] == answer.error["hint"]
    assert answer.structured["error"] == "Category 'p2p_workflow' not found"


@pytest.mark.anyio
async def test_a_failure_that_a_tool_tells_is_handed_on_and_marked(host: Host) -> None:
    answer = await dispatch(host, "audit_tools", "fail_by_saying", text="x")
    assert answer.structured is not None
    assert answer.structured.pop("request_id")
    assert answer.structured == {"success": False, "error": "no disk", "text": "x"}
    assert answer.error is not None
    assert answer.error["message"] == "no disk"


@pytest.mark.anyio
async def test_a_tool_that_raises_is_answered_in_the_old_shape(host: Host) -> None:
    answer = await dispatch(host, "audit_tools", "crash", text="x")
    assert answer.error is not None
    assert answer.structured is not None
    assert answer.structured["status"] == "error"
    assert (answer.structured["category"], answer.structured["tool"]) == ("audit_tools", "crash")
    assert "secret" not in answer.text


@pytest.mark.anyio
async def test_arguments_that_a_tool_does_not_take_are_refused_in_the_old_shape(
    host: Host,
) -> None:
    answer = await dispatch(host, "audit_tools", "record_event")
    assert answer.error is not None
    assert answer.error["code"] == "invalid_arguments"
    assert answer.structured is not None
    assert answer.structured["error"] == "Invalid parameters: text is missing."


@pytest.mark.anyio
async def test_a_tool_that_is_not_there_is_answered_with_those_that_are(host: Host) -> None:
    answer = await dispatch(host, "audit_tools", "record")
    assert answer.is_error
    assert answer.structured is not None
    assert answer.structured["available_tools"] == [
        "crash",
        "fail_by_saying",
        "make",
        "record_event",
    ]


@pytest.mark.anyio
async def test_of_several_tools_with_one_name_the_caller_has_to_say_which(host: Host) -> None:
    answer = await dispatch(host, "twins_tools", "twin", text="x")
    assert answer.error is not None
    assert answer.error["hint"] == "Several have that name. Say which: one__twin, two__twin."
    answer = await dispatch(host, "twins_tools", "one__twin", text="x")
    assert answer.structured is not None
    assert answer.structured["twin"] == "one"


@pytest.mark.anyio
@pytest.mark.parametrize("tool", sorted(names.META))
async def test_a_meta_tool_is_no_tool_to_be_dispatched(host: Host, tool: str) -> None:
    answer = await dispatch(host, tools.CATEGORY, tool)
    assert answer.error is not None
    assert answer.error["code"] == "unknown_tool"


@pytest.mark.anyio
async def test_the_caller_its_progress_and_its_pictures_come_through(host: Host) -> None:
    heard: list[Progress] = []
    arguments = {"category": "sums", "tool": "add", "params": {"a": 1, "b": 2}}
    answer = await call(host, "tools_dispatch", arguments, on_progress=heard.append)
    assert answer.structured is not None
    assert answer.structured["result"] == 3
    assert heard == [Progress(1, 2, ME.id)]
    picture = await dispatch(host, "general", "draw")
    assert picture.content


@pytest.mark.anyio
async def test_a_dispatch_that_is_cancelled_cancels_the_tool(host: Host, tmp_path: Path) -> None:
    note = str(tmp_path / "cleaned")
    # Once all the code is loaded, nothing but the tool itself is waited for.
    await host.check("odd_tools__waits", {"text": note}, principal=ME)
    await host.check("tools_dispatch", {"category": "a", "tool": "b"}, principal=ME)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(dispatch, host, "odd_tools", "waits", text=note))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert await anyio.Path(note).exists()
    assert host.in_flight == 0


@pytest.mark.anyio
async def test_a_tool_that_outlasts_its_own_limit_is_answered_in_the_old_shape(
    rows: tuple[PluginRow, ...], tmp_path: Path
) -> None:
    limited = tuple(
        replace(spec, timeout=0.05) if spec.name == "odd_tools__waits" else spec
        for spec in rows[0].tools
    )
    async with started((replace(rows[0], tools=limited),), tmp_path) as host:
        note = str(tmp_path / "cleaned")
        await host.check("odd_tools__waits", {"text": note}, principal=ME)
        answer = await dispatch(host, "odd_tools", "waits", text=note)
    assert answer.error is not None
    assert answer.error["code"] == "deadline_exceeded"
    assert answer.structured is not None
    assert (answer.structured["status"], answer.structured["tool"]) == ("error", "waits")
    assert await anyio.Path(note).exists()


# --- what the scan finds -------------------------------------------------------------------------


def scanned(root: Path, tmp_path: Path) -> PluginRow:
    section = {"paths": [str(root)], "installed": False, "cache": str(tmp_path / "cache")}
    found = provider.tools(names.PLUGIN, section)["tools"]
    own = tuple(describe(f, plugin=names.PLUGIN, runtime="asyncio") for f in tools_of(tools))
    parsed = parse_tools(found, plugin=names.PLUGIN, runtime="asyncio")
    return PluginRow(
        names.PLUGIN, "mcpd-legacy-tools", "1", "asyncio", "enabled", tools=own + parsed
    )


@pytest.mark.anyio
async def test_every_tool_of_a_large_tree_is_listed_and_found_by_what_the_list_says(
    tmp_path: Path,
) -> None:
    root = Path(plant(tmp_path / "planted").root)
    row = scanned(root, tmp_path)
    served = {spec.name for spec in row.tools} - names.META
    found = set()
    async with started((row,), tmp_path) as host:
        catalog = host.catalog
        categories = (await told(host, "tools_list_categories"))["categories"]
        for category in categories:
            listed = await told(host, "tools_list_tools", category=category["name"])
            for tool in listed["tools"]:
                spec = names.find(category["name"], tool["name"], _Seen(catalog))
                assert spec is not None
                assert schemas.described(spec, category["name"])["input_schema"]
                found.add(spec.name)
    assert found == served
    assert len(served) >= 400


class _Seen(Context):
    """What a tool sees of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def find_tool(self, name: str) -> ToolSpec | None:
        return self._catalog.get(name)

    def tools(self) -> tuple[ToolSpec, ...]:
        return self._catalog.specs


@pytest.mark.anyio
async def test_old_code_of_each_runtime_is_dispatched(tmp_path: Path) -> None:
    root = tmp_path / "tools"
    for library in ("asyncio", "trio"):
        file = root / f"{library}_tools" / "rest.py"
        file.parent.mkdir(parents=True)
        code = f"import {library}\nasync def rest() -> dict:\n    await {library}.sleep(0)\n"
        code += f"    return {{'ok': True, 'library': {library!r}}}\n"
        file.write_text(f"{code}rest._mcp_runtime = {library!r}\n")
    async with started((scanned(root, tmp_path),), tmp_path) as host:
        for library in ("asyncio", "trio"):
            answer = await dispatch(host, f"{library}_tools", "rest")
            assert answer.structured is not None
            assert answer.structured["library"] == library, answer


# --- how a tool's code is written ----------------------------------------------------------------


def read(tmp_path: Path, source: str, function: str = "f") -> written.Written | None:
    file = tmp_path / "code.py"
    file.write_text(textwrap.dedent(source))
    return written.read(str(file), function)


SIGNATURES = [
    "def f(): ...",
    "def f(a, /, b, *args, c, d=2, **kwargs) -> None: ...",
    "def f(*, a: int = 1, b='x'): ...",
    "def f(a: Optional[str] = None, b: List[Dict[str, Any]] = []) -> Union[int, str]: ...",
    "def f(a: 'str', b: dict[str, int] | None = None) -> bool: ...",
]


@pytest.mark.parametrize("postponed", [False, True])
@pytest.mark.parametrize("source", SIGNATURES)
def test_a_signature_is_read_as_inspect_would_show_it(
    tmp_path: Path, source: str, postponed: bool
) -> None:
    head = "from __future__ import annotations\n" if postponed else ""
    code = f"{head}from typing import Any, Dict, List, Optional, Union\n{source}\n"
    # Not inherited from this file, which postpones its own annotations.
    scope: dict[str, Any] = {}
    exec(compile(code, "code", "exec", dont_inherit=True), scope)
    signature = inspect.signature(scope["f"])
    found = read(tmp_path, code)
    assert found is not None
    if not postponed and "'str'" in source:
        assert found.parameters["a"]["type"] == "str"
    else:
        assert found.signature == str(signature)
    for name, parameter in signature.parameters.items():
        described = found.parameters[name]
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            assert described["required"] == (parameter.default is parameter.empty)
        if parameter.annotation is not parameter.empty:
            assert described["type"] == str(parameter.annotation)
        if parameter.default is not parameter.empty:
            assert described["default"] == str(parameter.default)


def test_methods_marks_and_conditional_definitions_are_read(tmp_path: Path) -> None:
    method = read(
        tmp_path, "class T:\n  async def execute(self, a: int, /, b=f(1)): ...", "T.execute"
    )
    assert method is not None
    assert method.signature == "(a: int, /, b=f(1))"
    marked = read(
        tmp_path,
        """
        try:
            import x
        except ImportError:
            @m.tool_metadata(deprecated=True, schema_version="2.0", category=NAME)
            def f(a): ...
        """,
    )
    assert marked is not None
    assert marked.marks == {"deprecated": True, "schema_version": "2.0"}


@pytest.mark.parametrize("source", ["def f(:", "x = 1", "\0"])
def test_code_that_cannot_be_read_is_described_from_the_schema(tmp_path: Path, source: str) -> None:
    assert read(tmp_path, source) is None
    assert written.read(str(tmp_path / "gone.py"), "f") is None


@pytest.mark.parametrize(
    ("read_from", "nothing"),
    [
        (lambda pipe: tools.description_of(pipe.parent), ""),
        (lambda pipe: written.read(str(pipe), "f"), None),
        (lambda pipe: mocks._content(str(pipe)), ""),
    ],
    ids=["description", "source", "engine"],
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, read_from: Callable[[Path], object], nothing: object
) -> None:
    pipe = tmp_path / "category.json"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(read_from, pipe)
        try:
            assert found.result(10) == nothing
        finally:
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
