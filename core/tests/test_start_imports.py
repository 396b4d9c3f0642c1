"""What a standalone server imports before it answers: everything else is loaded on first use.

Start-up is asserted through what is loaded, which is the same on every machine, and not through
time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcpd_core.testing import WritePlugin

HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}

#: Modules of ours that neither a start nor the call of a tool needs, with what they are for.
UNUSED = {
    "mcpd_core.attach": "the relay to a daemon",
    "mcpd_core.child": "worker processes",
    "mcpd_core.cli.config": "another command",
    "mcpd_core.cli.doctor": "another command",
    "mcpd_core.cli.scaffold": "another command",
    "mcpd_core.content.functions": "reading a resource, getting a prompt",
    "mcpd_core.host.content_binding": "reading a resource, getting a prompt",
    "mcpd_core.manifest_writer": "another command",
    "mcpd_core.plugin_check": "another command",
    "mcpd_core.registrar": "plugins without a manifest",
    "mcpd_core.runtimes.processes": "tools that are placed in a process",
    "mcpd_core.runtimes.worker": "tools that are placed in a process",
    "mcpd_core.server.http": "HTTP",
    "mcpd_core.testing": "the tests of plugins",
}
#: The same for what others made. The SDK imports uvicorn by itself; its protocols are for HTTP.
UNUSED_LIBRARIES = {
    "difflib": "suggestions in messages",
    "h11": "HTTP",
    "httptools": "HTTP",
    "jsonschema": "clients",
    "packaging": "messages about versions",
    "rich": "nothing of ours",
    "sqlite3": "plugins that keep something",
    "trio": "plugins that are written for it",
    "websockets": "nothing of ours",
}

TOOLS = """
    import sys

    from mcpd_core import tool


    @tool
    def modules() -> list[str]:
        "Say what is loaded."
        return sorted(sys.modules)
"""


def test_a_standalone_server_imports_what_its_first_answers_need(
    tmp_plugin: WritePlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_plugin(TOOLS)
    monkeypatch.setenv("PYTHONPATH", str(planted.path))
    # Measuring the coverage of this process would import more.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    requests: list[dict[str, object]] = [
        {"id": 1, "method": "initialize", "params": HELLO},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "modules", "arguments": {}}},
    ]
    command = [sys.executable, "-m", "mcpd_core", "serve", "--standalone"]
    done = subprocess.run(
        [*command, "--plugins", planted.name, "--data-dir", str(tmp_path / "data")],
        # A folder without a settings file.
        cwd=tmp_path,
        input="".join(json.dumps({"jsonrpc": "2.0", **request}) + "\n" for request in requests),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers = {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert [tool["name"] for tool in answers[2]["result"]["tools"]] == ["modules"]
    loaded: list[str] = answers[3]["result"]["structuredContent"]["result"]
    assert "mcpd_core.server.engine" in loaded, "another process was asked"
    for module, purpose in {**UNUSED, **UNUSED_LIBRARIES}.items():
        found = [name for name in loaded if name == module or name.startswith(f"{module}.")]
        assert not found, f"{found} are for: {purpose}"
