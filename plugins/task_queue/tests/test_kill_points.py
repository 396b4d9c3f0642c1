"""SIGKILL for real processes, at single operations of SQLite on the files of the store.

``MCPD_FAULTS=all`` kills at every operation, ``MCPD_FAULT_SEED`` chooses others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .vfs_kit import UNAVAILABLE

EVERYTHING = os.environ.get("MCPD_FAULTS") == "all"
SEED = os.environ.get("MCPD_FAULT_SEED", "1")
ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE or "it can be interposed")
@pytest.mark.timeout(1_800 if EVERYTHING else 60)
def test_a_process_killed_at_any_operation_leaves_what_it_had_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", f"{__package__}.kill_points", str(tmp_path)),
            *("--kills", "0" if EVERYTHING else "16", "--seed", SEED),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1_700 if EVERYTHING else 50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) >= 16
    for kill in kills:
        assert kill["killed"], kill
        assert kill["ok"], kill
    assert len({kill["steps"] for kill in kills}) > 6, "kills in many different steps"
    assert {kill["after"] for kill in kills} == {True, False}
