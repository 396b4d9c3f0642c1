"""Where the code of a tool shows that its answers are made up."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from mcpd_legacy_tools import mocks
from mcpd_legacy_tools.mocks import MarkFinder
from mcpd_legacy_tools.options import read
from mcpd_legacy_tools.records import LegacyTool, Mark
from mcpd_legacy_tools.scan import scan


def marks(text: str, name: str = "tool") -> tuple[Mark, ...]:
    found = MarkFinder("/nowhere").find(dedent(text), "/nowhere/cat/tool.py", "cat/tool.py")
    return found.of.get(name, ())


def lines(text: str, name: str = "tool") -> list[int]:
    return [mark.line for mark in marks(text, name)]


@pytest.mark.parametrize(
    "line",
    [
        "# Mock data for demonstration",
        "# Simulate the deletion",
        "return 100  # Default mock count",
        "# In a real implementation, this would ask the registry",
        "# In production, you would call the service",
        "service = MockCacheService()",
        "peers = _generate_mock_peers(3)",
        "mock_results = [1, 2]",
        'return {"content": f"Mock content for {cid}"}',
        'dataset = f"mock_dataset_{number}"',
        '"""Execute a pipeline (mock implementation)."""',
        '"""This is a placeholder implementation."""',
        '"""Returns deterministic placeholder data without external requests."""',
        'return {"note": "Placeholder. Implement it in production."}',
        'logger.warning("No service found, creating mock response")',
    ],
)
def test_code_that_makes_its_answers_up_says_so(line: str) -> None:
    (mark,) = marks(f"def tool():\n    x = 1\n    {line}\n    return x\n")
    assert mark == Mark("cat/tool.py", 3, line)


@pytest.mark.parametrize(
    "line",
    [
        "# Never answer with mock data",
        "# Replaces the mock implementation by the real one",
        "raise ValueError('mock data is not accepted: not a placeholder value')",
        "from unittest.mock import MagicMock",
        "with patch('service'): pytest.skip('mock data')",
        'placeholders = ", ".join("?" for _ in ids)',
        'field = dict(placeholder="Enter mock data here")',
        "certificate.is_simulated",
        'if mode == "mock": raise ValueError(mode)',
        "agent = fake_useragent.UserAgent()",
        "mockingbird = hammock",
        "result = simulate_annealing(system)",
        "stub = service_pb2_grpc.ServiceStub(channel)",
        "dummy = None",
    ],
)
def test_code_that_only_speaks_of_it_does_not(line: str) -> None:
    assert marks(f"def tool():\n    {line}\n") == ()


def test_a_tool_has_the_marks_of_what_it_leads_to_and_no_others() -> None:
    text = """
    _service = MockService()

    def _ask(x):
        return _service.ask(x)

    def tool(x):
        return _ask(x)

    class Tool:
        async def execute(self, x):
            return {"found": mock_found}

    def honest(x):
        return x + 1

    # Mock data of nobody in particular
    """
    assert lines(text) == [2]
    assert lines(text, "Tool") == [12]
    assert lines(text, "honest") == []


def test_a_tool_is_followed_into_the_engine_that_it_works_with(tmp_path: Path) -> None:
    (tmp_path / "pack/engines").mkdir(parents=True)
    (tmp_path / "pack/cat").mkdir()
    (tmp_path / "pack/engines/shim_engine.py").write_text(
        "from .deep_engine import ask, tell as say\n"
    )
    (tmp_path / "pack/engines/deep_engine.py").write_text(
        "def ask():\n    return helper()\n\n"
        "def helper():\n    return 1  # Mock answer\n\n"
        "def tell():\n    return []\n"
    )
    source = tmp_path / "pack/cat/tool.py"
    text = (
        "from pack.engines.shim_engine import (  # the engine\n    ask as _ask,\n    say,\n)\n"
        "def tool():\n    return _ask()\n"
        "def honest():\n    return say()\n"
        "def inner():\n    from ..engines.deep_engine import ask\n    return ask()\n"
        "def afar():\n    from pack.engines.gone_engine import all_of_it\n    all_of_it()\n"
    )
    found = MarkFinder(str(tmp_path)).find(text, str(source), "cat/tool.py")
    mark = Mark("pack/engines/deep_engine.py", 5, "return 1  # Mock answer")
    # `_ask` is what the file offers on.
    assert found.of == {"tool": (mark,), "inner": (mark,), "_ask": (mark,), "ask": (mark,)}
    assert [Path(engine).name for engine in found.engines] == [
        "shim_engine.py",
        "deep_engine.py",
        "gone_engine.py",
    ]


def test_an_engine_that_is_imported_as_a_whole_is_followed_by_name(tmp_path: Path) -> None:
    (tmp_path / "x_engine.py").write_text("def ask():\n    # Mock answer\n    return 1\n")
    text = "from x_engine import *\ndef tool():\n    return ask()\ndef other(): ...\n"
    found = MarkFinder(str(tmp_path)).find(text, str(tmp_path / "tool.py"), "tool.py")
    assert found.of["tool"] == (Mark("x_engine.py", 2, "# Mock answer"),)
    assert "other" not in found.of


def test_what_is_followed_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        (tmp_path / f"n{i}_engine.py").write_text(
            f"from n{i + 1}_engine import ask\nfrom n0_engine import back\nask()  # Mock answer\n"
        )
    text = "from n0_engine import ask\ndef tool():\n    return ask()\n"
    finder = MarkFinder(str(tmp_path))
    assert len(finder.find(text, str(tmp_path / "t.py"), "t.py").engines) == mocks.MOST_ENGINES
    (tmp_path / "n0_engine.py").write_text("x" * (mocks.LARGEST_ENGINE + 1))
    assert MarkFinder(str(tmp_path)).find(text, str(tmp_path / "t.py"), "t.py").of == {}
    many = "def tool():\n" + "    # Mock data\n" * 99
    assert len(marks(many)) == mocks.MOST_MARKS


# --- in a scan -----------------------------------------------------------------------------------


def scanned(path: Path, cache: Path) -> dict[str, LegacyTool]:
    section = {"paths": [str(path)], "installed": False, "cache": str(cache)}
    return {tool.tool: tool for tool in scan(read(section)).tools}


def test_the_scan_keeps_the_marks_for_as_long_as_the_engine_stays(tmp_path: Path) -> None:
    tree, cache = tmp_path / "pack/tools", tmp_path / "cache.json"
    (tree / "cat").mkdir(parents=True)
    (tmp_path / "pack/__init__.py").touch()
    (tree / "__init__.py").touch()
    (tree / "cat/weather.py").write_text(
        "from pack.sky_engine import ask\n\n"
        'def get_weather() -> dict:\n    """Get it."""\n    return ask()\n\n'
        'def get_clouds() -> dict:\n    """Get them."""\n    return {"clouds": 1}  # Mock data\n'
    )
    found = scanned(tree, cache)
    assert found["get_weather"].marks == ()
    clouds = Mark("cat/weather.py", 9, 'return {"clouds": 1}  # Mock data')
    assert found["get_clouds"].marks == (clouds,)
    engine = tmp_path / "pack/sky_engine.py"
    engine.write_text("def ask():\n    return mock_sky()\n")
    for _ in range(2):
        found = scanned(tree, cache)
        sky = Mark("pack/sky_engine.py", 2, "return mock_sky()")
        assert found["get_weather"].marks == (sky,)
        assert found["get_clouds"].marks == (clouds,)
    engine.write_text("def ask():\n    return look_at_the_sky()\n")
    assert scanned(tree, cache)["get_weather"].marks == ()
