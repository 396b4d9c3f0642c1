"""The conformance suite of the Model Context Protocol, against the daemon over HTTP.

What fails for a known reason is in ``conformance/expected-failures.yml``. The suite's fixture is a
plugin of ours, ``conformance/tools.py``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .node_kit import NODE_HOME, install, node, run, serving

HERE = Path(__file__).with_name("conformance")
SUITE = NODE_HOME / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
#: Its lists change while the suite looks on.
SPARE = '''
    from mcpd_core import hookimpl, prompt, tool

    @hookimpl
    def mcpd_register_tools(registrar):
        registrar.add_module(__name__)

    @tool
    async def spare_tool() -> str:
        """Be there at times."""
        return "spare"

    @prompt
    def spare_prompt() -> str:
        """Be there at times."""
        return "spare"
'''


@pytest.mark.parametrize(
    ("revision", "passed", "failed"), [("2025-11-25", 68, 4), ("2026-07-28", 129, 13)]
)
def test_every_check_passes_that_is_not_known_to_fail(
    tmp_path: Path, revision: str, passed: int, failed: int
) -> None:
    install(tmp_path, "conformance", (HERE / "tools.py").read_text())
    install(tmp_path, "schemas", (HERE / "schemas.py").read_text())
    install(tmp_path, "spare", SPARE)
    results = tmp_path / "results"
    with serving(tmp_path, "conformance,schemas,spare") as daemon:
        done = run(
            tmp_path,
            *(node(), str(SUITE), "server", "--url", daemon.url),
            *("--suite", "all", "--spec-version", revision),
            *("--expected-failures", str(HERE / "expected-failures.yml"), "-o", str(results)),
        )
    assert done.returncode == 0, done.stdout[done.stdout.find("SUMMARY") :] + done.stderr
    # Or else checks that are skipped would go unnoticed.
    assert re.findall(r"Total: (\d+) passed, (\d+) failed", done.stdout) == [
        (str(passed), str(failed))
    ]
    assert "Traceback" not in "".join(daemon.said)
    # It was this daemon that was checked, and none that happens to listen somewhere.
    (checks,) = results.glob("server-tools-list-*/checks.json")
    details = [check.get("details") or {} for check in json.loads(checks.read_text())]
    assert any("spare_tool" in found.get("tools", ()) for found in details)
