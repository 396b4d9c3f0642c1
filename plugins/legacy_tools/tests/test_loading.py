"""Tools of real trees through a real host: loaded on their first call, by the loader that their
contracts name."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import InvalidArguments, ToolUnavailable
from mcpd_core.testing import Connect, MakeHost
from mcpd_legacy_tools.placement import LOADER_WITH_INSTALLERS

# All that a loader imports is there, so that the time limits of tests are about modules of trees.
from mcpd_legacy_tools.running import arguments as arguments
from mcpd_legacy_tools.running import envelopes as envelopes
from mcpd_legacy_tools.running import functions as functions
from mcpd_legacy_tools.running import loading as loading
from mcpd_legacy_tools.running import packages

from .running_kit import Planted, row

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("process")]
QUERY = {
    "type": "object",
    "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
    "required": ["query"],
    "additionalProperties": False,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def tree(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "tree")


async def test_a_client_calls_tools_of_every_kind(tree: Planted, mcpd_client: Connect) -> None:
    tree.write(
        "a/kinds.py",
        """
        import anyio, asyncio, threading, trio
        print("what is printed while it is imported")

        def plain(query, limit=5):
            async def nested():
                return anyio.get_current_task().name is not None
            print("and while it runs")
            return {"success": True, "query": query, "limit": limit, "nested": anyio.run(nested),
                    "thread": threading.current_thread().name}

        async def in_asyncio():
            return {"task": asyncio.current_task() is not None}

        async def in_trio():
            await trio.sleep(0)
            return {"ok": False, "error": "no such peer", "peer": 7}
        """,
    )
    plugin = row(
        tree.item("a/kinds.py", "plain", placement="thread", input_schema=QUERY),
        tree.item("a/kinds.py", "in_asyncio"),
        tree.item("a/kinds.py", "in_trio", runtime="trio"),
    )
    async with mcpd_client(plugin) as client:
        assert tree.module("a/kinds.py") not in sys.modules
        plain = await client.call_tool("plain", {"query": 5, "limit": "2"})
        assert plain.structured_content is not None
        thread = plain.structured_content.pop("thread")
        assert thread.startswith("mcpd-tool-")
        assert plain.structured_content == {
            "success": True,
            "query": "5",
            "limit": 2,
            "nested": True,
        }
        assert (await client.call_tool("in_asyncio")).structured_content == {"task": True}
        failed = await client.call_tool("in_trio")
        assert failed.is_error
        assert failed.structured_content == {"ok": False, "error": "no such peer", "peer": 7}
        assert failed.meta is not None
        assert failed.meta["mcpd/error"]["message"] == "no such peer"
        misfit = await client.call_tool("plain", {"querry": "x"})
        assert misfit.is_error
        assert "did you mean 'query'" in str(misfit.content)


async def test_a_class_is_instantiated_once_on_the_import_thread(
    tree: Planted, mcpd_host: MakeHost
) -> None:
    tree.write(
        "a/classes.py",
        """
        import threading

        class CountTool:
            name = "count"

            def __init__(self):
                self.made_in = threading.current_thread().name
                self.calls = 0

            async def execute(self, parameters):
                self.calls += parameters["by"]
                return {"calls": self.calls, "made_in": self.made_in}

        class NeedyTool:
            def __init__(self, service):
                pass

            def execute(self, parameters):
                return {}
        """,
    )
    plugin = row(
        tree.item("a/classes.py", "CountTool.execute", name="count"),
        tree.item("a/classes.py", "NeedyTool.execute", name="needy"),
    )
    async with mcpd_host(plugin) as host:
        await host.call("count", {"by": 1})
        counted = (await host.call("count", {"by": 2})).structured
        assert counted is not None
        assert counted["calls"] == 3
        assert counted["made_in"].startswith("mcpd-import-")
        with pytest.raises(ToolUnavailable, match="NeedyTool .* without arguments: .*'service'"):
            await host.call("needy", {})


async def test_a_module_that_fails_fails_alone(tree: Planted, mcpd_host: MakeHost) -> None:
    tree.write("a/good.py", "def good(): return {'success': True}")
    tree.write("a/leaves.py", "import sys\nsys.exit(3)")
    tree.write("a/raises.py", "raise OSError('no such device')")
    tree.write("a/chicken.py", "from .egg import EGG\nCHICKEN = 1")
    tree.write("a/egg.py", "from .chicken import CHICKEN\nEGG = 1")
    tree.write("a/signals.py", "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_DFL)")
    tree.write("b/__init__.py", "print('heavy')\nraise OSError('not set up')")
    tree.write("b/below.py", "def below(): return {}")
    files = {
        "leaves": r"it called sys\.exit\(3\) \(.*a/leaves\.py:2\)",
        "raises": r"OSError: no such device \(.*a/raises\.py:1\)",
        "chicken": r"partially initialized module .* circular import",
        "signals": r"handles signals \(.*a/signals\.py:2\), which are the server's affair",
    }
    plugin = row(
        tree.item("a/good.py", "good"),
        tree.item("b/below.py", "below"),
        *(tree.item(f"a/{name}.py", "tool", name=name) for name in files),
    )
    async with mcpd_host(plugin) as host:
        for name, reason in files.items():
            with pytest.raises(ToolUnavailable, match=reason):
                await host.call(name)
        with pytest.raises(ToolUnavailable, match=r"not set up \(.*b/__init__\.py:2\)"):
            await host.call("below")
        assert (await host.call("good")).structured == {"success": True}
        # What was wrong may have been mended meanwhile.
        tree.write("b/__init__.py", "")
        assert (await host.call("below")).structured == {}


def release(module: str) -> None:
    """End an import that hangs, and wait until it is over."""
    sys.modules[module].never.set()
    for thread in threading.enumerate():
        if thread.name.startswith("mcpd-import-old_"):
            thread.join()


async def test_a_module_that_hangs_poisons_no_other(tree: Planted, mcpd_host: MakeHost) -> None:
    tree.write("a/good.py", "def good(): return {'success': True}")
    tree.write(
        "a/hangs.py",
        """
        import threading
        never = threading.Event()
        never.wait()
        """,
    )
    plugin = row(
        tree.item("a/good.py", "good"),
        tree.item("a/hangs.py", "one"),
        tree.item("a/hangs.py", "two"),
    )
    settings = {"executor": {"import_timeout": 1.0}}
    try:
        async with mcpd_host(plugin, settings=settings) as host:
            with pytest.raises(ToolUnavailable, match=r"had not finished after 1 s"):
                await host.call("one")
            with pytest.raises(ToolUnavailable, match="not tried again"):
                await host.call("two")
            assert (await host.call("good")).structured == {"success": True}
    finally:
        release(tree.module("a/hangs.py"))


async def test_nobody_waits_for_a_package_that_hangs_twice(
    tree: Planted, mcpd_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write(
        "a/__init__.py",
        """
        import threading
        never = threading.Event()
        never.wait()
        """,
    )
    plugin = row(
        tree.item("a/one.py", "one"),
        tree.item("a/two.py", "two"),
        tree.item("b/three.py", "three"),
    )
    for file in ("a/one.py", "a/two.py", "b/three.py"):
        (tree.path / file).parent.mkdir(exist_ok=True)
        (tree.path / file).write_text("def three(): return {'success': True}")
    monkeypatch.setattr(packages, "PATIENCE", 0.0)
    try:
        async with mcpd_host(plugin, settings={"executor": {"import_timeout": 1.0}}) as host:
            with pytest.raises(ToolUnavailable, match="not tried again"):
                await host.call("one")
            with pytest.raises(ToolUnavailable, match=r"a above it has not been imported yet"):
                await host.call("two")
            assert (await host.call("three")).structured == {"success": True}
    finally:
        release(tree.module("a/__init__.py").removesuffix(".__init__"))


async def test_what_an_import_changes_is_put_back_for_the_host(
    tree: Planted, mcpd_host: MakeHost
) -> None:
    tree.write(
        "a/rude.py",
        """
        import io, os, sys, warnings
        sys.stdout = io.TextIOWrapper(io.BytesIO())
        os.chdir("/")
        warnings.filterwarnings("error")
        def tool(): return {"success": True}
        """,
    )
    before = sys.stdout, os.getcwd()
    async with mcpd_host(row(tree.item("a/rude.py", "tool"))) as host:
        assert (await host.call("tool")).structured == {"success": True}
    assert (sys.stdout, os.getcwd()) == before


@pytest.mark.parametrize("auto_install", [False, True])
async def test_installers_are_off_where_the_code_runs(
    tree: Planted, mcpd_host: MakeHost, monkeypatch: pytest.MonkeyPatch, auto_install: bool
) -> None:
    monkeypatch.delenv("IPFS_DATASETS_AUTO_INSTALL", raising=False)
    tree.write(
        "a/env.py",
        """
        import os
        FOUND = {name: value for name, value in os.environ.items() if "INSTALL" in name}
        def tool(): return FOUND
        """,
    )
    facts = {"loader": LOADER_WITH_INSTALLERS} if auto_install else {}
    async with mcpd_host(row(tree.item("a/env.py", "tool", **facts))) as host:
        found = (await host.call("tool")).structured
    assert found is not None
    assert found.get("IPFS_DATASETS_AUTO_INSTALL") == (None if auto_install else "false")


async def test_what_code_raises_is_told(tree: Planted, mcpd_host: MakeHost) -> None:
    tree.write(
        "a/raising.py",
        """
        import asyncio
        def plain(): raise ValueError("no such mode: x")
        async def late():
            await asyncio.sleep(0)
            raise KeyError("key")
        def leaves(): raise SystemExit(3)
        def odd(): return {"rows": [{"handle": object()}]}
        def huge(): return {"rows": ["x" * 1000] * 100}
        """,
    )
    items = [tree.item("a/raising.py", name) for name in ("plain", "late", "leaves", "odd", "huge")]
    settings = {"executor": {"max_result_bytes": 65_536}}
    async with mcpd_host(row(*items), settings=settings) as host:
        plain = (await host.call("plain")).error or {}
        assert plain["message"] == "The tool 'plain' raised ValueError: no such mode: x"
        assert "KeyError: 'key'" in (await host.call("late")).text
        assert (await host.call("leaves")).is_error
        odd = await host.call("odd")
        assert (odd.error or {})["code"] == "invalid_output"
        assert "object at rows[0].handle" in odd.text
        huge = await host.call("huge")
        assert (huge.error or {})["code"] == "invalid_output"
        assert "at most 65,536 are allowed" in huge.text


async def test_a_file_that_has_changed_since_it_was_listed_says_so(
    tree: Planted, mcpd_host: MakeHost
) -> None:
    tree.write("a/gone.py", "")
    tree.write("a/other.py", "def renamed(): return {}\ndef less(): return {}")
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {}}}
    plugin = row(
        tree.item("a/gone.py", "gone"),
        tree.item("a/other.py", "other"),
        tree.item("a/other.py", "less", input_schema=schema),
    )
    (tree.path / "a/gone.py").unlink()
    async with mcpd_host(plugin) as host:
        with pytest.raises(ToolUnavailable, match=r"gone\.py is not there any more"):
            await host.call("gone")
        with pytest.raises(ToolUnavailable, match="has no 'other' once it is imported"):
            await host.call("other")
        with pytest.raises(InvalidArguments, match="does not take these arguments"):
            await host.call("less", {"a": 1})


async def test_what_is_missing_is_answered_with_the_line_that_installs_it(
    tree: Planted, mcpd_host: MakeHost
) -> None:
    tree.write("a/__init__.py", "LOADED = []")
    tree.write(
        "a/certain.py",
        """
        from . import LOADED
        LOADED.append(__name__)
        import absent_strings
        from yaml_absent.horns import Horn
        """,
    )
    tree.write("a/unclear.py", "__import__('absent_flutes')")
    tree.write(
        "a/late.py",
        """
        def raises():
            import absent_drums

        def reports():
            try:
                import sklearn_absent
            except ImportError as error:
                return {"status": "error", "error": str(error), "hint": "do something"}

        def incomplete():
            from .. import none_such
            import TOP.none_such
        """.replace("TOP", tree.package.partition(".")[0]),
    )
    late = [tree.item("a/late.py", name) for name in ("raises", "reports", "incomplete")]
    plugin = row(tree.item("a/certain.py", "certain"), tree.item("a/unclear.py", "unclear"), *late)
    async with mcpd_host(plugin) as host:
        with pytest.raises(ToolUnavailable) as refused:
            await host.call("certain")
        assert refused.value.hint == "pip install absent_strings yaml_absent"
        # That was known before anything was run.
        assert f"{tree.package}.a" not in sys.modules
        with pytest.raises(ToolUnavailable, match=r"absent_flutes' \(.*unclear\.py:1\)") as refused:
            await host.call("unclear")
        assert refused.value.hint == "pip install absent_flutes"
        raised = (await host.call("raises")).error or {}
        assert raised["hint"] == "pip install absent_drums"
        reported = (await host.call("reports")).error or {}
        assert reported["hint"] == "pip install sklearn_absent"
        assert "import" in ((await host.call("incomplete")).error or {})["message"]
