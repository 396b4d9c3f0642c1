"""Measured processes can be interrupted, so that tests of Ctrl-C do not hang now and then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_signal_is_handled_while_coverage_holds_its_lock(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "tracer = sys.gettrace()\n"
        "for function in (tracer.lock_data, tracer.unlock_data):\n"
        "    print(type(function).__name__, function.__name__)\n"
    )
    # It is measured by its own coverage alone.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "coverage", "run", f"--rcfile={ROOT / 'pyproject.toml'}", script],
        cwd=tmp_path,
        env={**env, "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
        check=True,
    )
    # Written in C, in which no handler of a signal runs.
    kind = "builtin_function_or_method"
    assert done.stdout.splitlines() == [f"{kind} acquire", f"{kind} release"]
