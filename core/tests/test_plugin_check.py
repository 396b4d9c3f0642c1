"""What ``mcpd plugins check`` finds in a plugin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mcpd_core import tool
from mcpd_core.errors import SelectionError
from mcpd_core.manifest import render_tool
from mcpd_core.plugin_check import Finding, check
from mcpd_core.schema import describe

if TYPE_CHECKING:
    from core.tests.conftest import Environment

PLUGIN = """
from mcpd_core import hookimpl

@hookimpl
def mcpd_register_tools(registrar):
    registrar.add_module("NAME.tools")
"""


@tool
async def greet(name: str) -> str:
    """Say hello."""
    return name


#: The same in the source of a plugin.
TOOLS = """
from mcpd_core import tool

@tool
async def greet(name: str) -> str:
    '''Say hello.'''
    return name
"""


def plant(
    environment: Environment, name: str, *, tools: str = TOOLS, plugin: str = PLUGIN, **facts: Any
) -> None:
    """Plant a plugin whose manifest is what its code was when it was made of `TOOLS`."""
    environment.distribution(
        f"dist-{name}", f"[mcpd_core.plugins.asyncio]\n{name} = {name}.plugin\n"
    )
    environment.package(name, __init__="\n", plugin=plugin.replace("NAME", name), tools=tools)
    described = describe(greet, plugin=name, runtime="asyncio")
    item = render_tool(replace(described, entry=f"{name}.tools:greet"), runtime="asyncio")
    manifest = {"tools": [item], **facts}
    environment.manifest(name, {name: manifest})


def findings(environment: Environment, name: str, timeout: float = 30.0) -> list[Finding]:
    return check(name, scan=environment.scan(), timeout=timeout)


def messages(environment: Environment, name: str) -> list[str]:
    return [finding.message for finding in findings(environment, name)]


def test_a_plugin_in_good_order_has_no_findings(importable: Environment) -> None:
    plant(importable, "check_good")
    assert messages(importable, "check_good") == []
    assert messages(importable, "dist-check-good") == []
    assert messages(importable, "dist-check_good:check_good") == []


def test_an_unknown_name_is_refused(importable: Environment) -> None:
    with pytest.raises(SelectionError, match="No plugin, distribution or bundle 'nobody'"):
        findings(importable, "nobody")


def test_every_member_of_a_bundle_is_checked(importable: Environment) -> None:
    plant(importable, "check_member", bundles=["club"], hooks=["mcpd_services"])
    assert [finding.plugin for finding in findings(importable, "club")] == ["check_member"]


def test_a_plugin_that_cannot_be_enabled_says_why(importable: Environment) -> None:
    importable.distribution("typo", "[mcpd_core.plugins.trioo]\ntypo = typo.plugin\n")
    (finding,) = findings(importable, "typo")
    assert finding == Finding(
        "typo",
        "error",
        "It is broken: mcpd_core.plugins.trioo: unknown runtime; did you mean trio?",
    )


def test_a_stale_manifest_is_found(importable: Environment) -> None:
    plant(
        importable,
        "check_stale",
        tools=TOOLS.replace("name: str", "name: str, loud: bool = False").replace("hello", "hi")
        + "\n@tool\ndef wave() -> None:\n    'Wave.'\n",
        plugin=PLUGIN + "\n@hookimpl\ndef mcpd_services():\n    return []\n",
        hooks=["mcpd_settings"],
    )
    assert messages(importable, "check_stale") == [
        "The manifest is stale: hook mcpd_services is in the code, but not in the manifest.",
        "The manifest is stale: hook mcpd_settings is in the manifest only.",
        "The manifest is stale: tool 'wave' is in the code, but not in the manifest.",
        "The manifest is stale: tool 'greet' differs in description, input_schema.",
    ]
    hints = {finding.hint for finding in findings(importable, "check_stale")}
    assert hints == {"Make it anew: mcpd plugins manifest DIR"}


def test_a_tool_whose_code_is_gone_is_found(importable: Environment) -> None:
    plant(importable, "check_gone", tools=TOOLS.replace("def greet", "def other"))
    assert "Tool 'greet': check_gone.tools of plugin 'check_gone' has no 'greet'." in messages(
        importable, "check_gone"
    )


def test_a_plugin_that_cannot_be_imported_is_found(importable: Environment) -> None:
    plant(importable, "check_bad", plugin="raise ValueError('no luck')")
    (message,) = messages(importable, "check_bad")
    assert "check_bad.plugin of plugin 'check_bad' cannot be loaded: ValueError: no luck" in message


def test_contracts_that_help_nobody_are_found(importable: Environment) -> None:
    plant(importable, "check_poor")
    schema = {"type": "object", "required": ["a"], "properties": {"b": {"$anchor": "not one"}}}
    item = {"name": "greet", "entry": "check_poor.tools:greet", "input_schema": schema}
    importable.manifest("check_poor", {"check_poor": {"tools": [item]}})
    poor, schema_finding, *_ = findings(importable, "check_poor")
    assert poor.level == "warning"
    assert poor.message.startswith("Tool 'greet' has no description")
    assert schema_finding.level == "error"
    assert "The input schema of tool 'greet' is not valid: $.properties.b['$anchor']: 'not " in (
        schema_finding.message
    )
    schema["properties"] = {}
    importable.manifest("check_poor", {"check_poor": {"tools": [item]}})
    assert "it requires a, which it does not define." in messages(importable, "check_poor")[1]


def test_a_plugin_without_manifest_is_warned_of(importable: Environment) -> None:
    plant(importable, "check_bare", tools=TOOLS.replace("'''Say hello.'''", "pass"))
    (importable.root / "check_bare" / "mcpd_plugin.json").unlink()
    bare, poor = findings(importable, "check_bare")
    assert (bare.level, poor.level) == ("warning", "warning")
    assert bare.message.startswith("It has no manifest")
    assert "has no description" in poor.message


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import json\n", None),
        ("import pluggy\n", "imports pluggy, which makes every listing slow"),
    ],
)
def test_a_provider_that_imports_more_than_the_standard_library_is_found(
    importable: Environment, monkeypatch: pytest.MonkeyPatch, code: str, found: str | None
) -> None:
    plant(importable, "check_provider", metadata_provider="check_provider.scanner")
    importable.write("check_provider/scanner.py", f"{code}def tools(plugin): return []\n")
    monkeypatch.setenv("PYTHONPATH", str(importable.root))
    result = messages(importable, "check_provider")
    assert (found is None and result == []) or (found is not None and found in result[0])


def test_a_provider_that_takes_too_long_is_found(
    importable: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs only where nothing is known of the test: in the process that probes it."""
    plant(importable, "check_slow", metadata_provider="check_slow.scanner")
    importable.write(
        "check_slow/scanner.py",
        "import sys, threading\nif 'pytest' not in sys.modules: threading.Event().wait(60)\n"
        "def tools(plugin): return []\n",
    )
    monkeypatch.setenv("PYTHONPATH", str(importable.root))
    messages = [finding.message for finding in findings(importable, "check_slow", timeout=2.0)]
    assert messages == ["Its metadata provider check_slow.scanner takes more than 2 s."]
