"""Several tools in one request: a real client, a real server, and tools of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

MCPD = [sys.executable, "-m", "mcpd_core"]
SERVE = ["serve", "--plugins", "catalog,native,nursery"]

#: What both plugins have: it leaves marks in the folder MARKS, because one of the tools runs in
#: another process.
COMMON = """
    from __future__ import annotations
    import os, threading, time
    from pathlib import Path
    import anyio, sniffio
    from mcpd_core import Context, hookimpl, tool

    MARKS = Path(os.environ["MARKS"])

    @hookimpl
    def mcpd_register_tools(registrar):
        registrar.add_module(__name__)

    def here() -> dict[str, object]:
        try:
            library = sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            library = "none"
        return {"library": library, "pid": os.getpid(), "thread": threading.get_ident()}

    async def met(me: str, all_of: list[str]) -> dict[str, object]:
        (MARKS / me).touch()
        while not all((MARKS / name).exists() for name in all_of):
            await anyio.sleep(0.005)
        return here()

    async def stayed(me: str) -> None:
        (MARKS / f"{me}.started").touch()
        try:
            await anyio.sleep(600)
        finally:
            (MARKS / f"{me}.cleaned").touch()
"""
NATIVE = """
    @tool
    async def on_asyncio(me: str, all_of: list[str]) -> dict[str, object]:
        return await met(me, all_of)

    @tool
    def in_thread(me: str, all_of: list[str]) -> dict[str, object]:
        (MARKS / me).touch()
        while not all((MARKS / name).exists() for name in all_of):
            time.sleep(0.005)
        return here()

    @tool(placement="process")
    def in_process(me: str, all_of: list[str]) -> dict[str, object]:
        (MARKS / me).touch()
        while not all((MARKS / name).exists() for name in all_of):
            time.sleep(0.005)
        return here()

    @tool
    async def stay_on_asyncio(me: str) -> None:
        await stayed(me)

    @tool
    def stay_in_thread(me: str, ctx: Context) -> None:
        (MARKS / f"{me}.started").touch()
        while not ctx.cancelled:
            time.sleep(0.005)
        (MARKS / f"{me}.cleaned").touch()

    @tool(placement="process")
    def stay_in_process(me: str) -> None:
        (MARKS / f"{me}.started").touch()
        try:
            time.sleep(600)
        finally:
            (MARKS / f"{me}.cleaned").touch()
"""
NURSERY = """
    @tool
    async def on_trio(me: str, all_of: list[str]) -> dict[str, object]:
        return await met(me, all_of)

    @tool
    async def stay_on_trio(me: str) -> None:
        await stayed(me)
"""
KINDS = ("on_asyncio", "on_trio", "in_thread", "in_process")
Connect = Callable[[], AbstractAsyncContextManager[Client]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where the tools leave their marks."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture
def env(tmp_path: Path, marks: Path) -> dict[str, str]:
    """An environment with two more plugins installed: ``native`` and ``nursery``."""
    site = tmp_path / "site"
    for name, runtime, tools in (("native", "asyncio", NATIVE), ("nursery", "trio", NURSERY)):
        info = site / f"mcpd_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mcpd-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[mcpd_core.plugins.{runtime}]\n{name} = mcpd_{name}\n"
        )
        (site / f"mcpd_{name}.py").write_text(textwrap.dedent(COMMON) + textwrap.dedent(tools))
    env = {name: value for name, value in os.environ.items() if not name.startswith("MCPD_")}
    return {
        **env,
        "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [env.get("PYTHONPATH")])]),
        "MARKS": str(marks),
        "MCPD_DATA_DIR": str(tmp_path / "data"),
        "MCPD_HTTP__PORT": "0",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


@contextmanager
def serving(env: dict[str, str]) -> Iterator[str]:
    """Run a daemon; yield where it serves HTTP."""
    with subprocess.Popen(
        [*MCPD, *SERVE], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "listening on http" in line:
                    yield line.rsplit(" ", 1)[1].strip()
                    return
            raise AssertionError("HTTP is not served")
        finally:
            process.kill()


@pytest.fixture(params=["stdio", "http"])
def connect(request: pytest.FixtureRequest, env: dict[str, str]) -> Connect:
    """Connect the SDK's client to a server of its own."""

    @asynccontextmanager
    async def over_stdio() -> AsyncIterator[Client]:
        command = [*MCPD, *SERVE, "--standalone"]
        server = StdioServerParameters(command=command[0], args=command[1:], env=env)
        async with Client(server) as client:
            yield client

    @asynccontextmanager
    async def over_http() -> AsyncIterator[Client]:
        with serving(env) as url:
            async with Client(url) as client:
                yield client

    return over_stdio if request.param == "stdio" else over_http


def results(answer: Any) -> list[dict[str, Any]]:
    assert not answer.is_error, answer.content
    found: list[dict[str, Any]] = answer.structured_content["results"]
    return found


@pytest.mark.anyio
async def test_tools_of_every_kind_run_at_the_same_time_each_where_it_belongs(
    connect: Connect,
) -> None:
    with anyio.fail_after(50):
        async with connect() as client:
            (offered,) = [t for t in (await client.list_tools()).tools if t.name == "run_tools"]
            assert offered.annotations is not None
            assert offered.annotations.destructive_hint
            assert offered.annotations.open_world_hint
            # Each of them ends only when all have begun.
            calls = [{"tool": kind, "arguments": {"me": kind, "all_of": KINDS}} for kind in KINDS]
            seen: list[tuple[float, float | None]] = []

            async def hear(progress: float, total: float | None, message: str | None) -> None:
                seen.append((progress, total))

            answer = await client.call_tool("run_tools", {"calls": calls}, progress_callback=hear)
            reports = results(answer)
    assert [(each["tool"], each["status"]) for each in reports] == [(kind, "ok") for kind in KINDS]
    native, nursery, thread, process = [each["structured"] for each in reports]
    assert (native["library"], nursery["library"]) == ("asyncio", "trio")
    assert native["thread"] == nursery["thread"] != thread["thread"]
    assert native["pid"] == nursery["pid"] == thread["pid"] != process["pid"]
    assert seen == [(n, 4) for n in (1, 2, 3, 4)]


@pytest.mark.anyio
async def test_cancelling_the_request_cancels_every_call_in_it(
    connect: Connect, marks: Path
) -> None:
    kinds = [f"stay_{kind}" for kind in KINDS]

    async def all_have(state: str) -> None:
        while not all((marks / f"{kind}.{state}").exists() for kind in kinds):
            await anyio.sleep(0.01)

    with anyio.fail_after(50):
        async with connect() as client:
            calls = [{"tool": kind, "arguments": {"me": kind}} for kind in kinds]
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "run_tools", {"calls": calls})
                await all_have("started")
                group.cancel_scope.cancel()
            await all_have("cleaned")
            # The connection is as good as before.
            late = {"me": "late", "all_of": ["late"]}
            answer = await client.call_tool(
                "run_tools", {"calls": [{"tool": "on_trio", "arguments": late}]}
            )
            assert [each["status"] for each in results(answer)] == ["ok"]
