"""SIGKILL for real processes: stores at single operations of SQLite on their files, and whole hosts
at named moments in the life of their tasks.

``MCPD_FAULTS=all`` kills at every operation and every moment, ``MCPD_FAULT_SEED`` chooses others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .vfs_kit import UNAVAILABLE

EVERYTHING = os.environ.get("MCPD_FAULTS") == "all"
SEED = os.environ.get("MCPD_FAULT_SEED", "1")
ROOT = Path(__file__).parents[3]


def reports(program: str, *arguments: object) -> list[dict[str, Any]]:
    """Run a program that kills children of its own, and return what it says of each."""
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.{program}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1_700 if EVERYTHING else 50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE or "it can be interposed")
@pytest.mark.timeout(1_800 if EVERYTHING else 60)
def test_a_process_killed_at_any_operation_leaves_what_it_had_acknowledged(tmp_path: Path) -> None:
    kills = reports("kill_points", tmp_path, "--kills", "0" if EVERYTHING else "16", "--seed", SEED)
    assert len(kills) >= 16
    for kill in kills:
        assert kill["killed"], kill
        assert kill["ok"], kill
    assert len({kill["steps"] for kill in kills}) > 6, "kills in many different steps"
    assert {kill["after"] for kill in kills} == {True, False}


#: Those of `kill_lives.POINTS` that no other test comes near.
MOMENTS = (
    "behind a submit that nobody was told of",
    "behind the record, before the reply",
    "while it records what the shutdown cut off",
    "while it takes over",
)


@pytest.mark.timeout(600 if EVERYTHING else 60)
def test_a_host_killed_at_any_moment_of_its_tasks_leaves_them_to_the_next_one(
    tmp_path: Path,
) -> None:
    lives = reports("kill_lives", tmp_path, *(() if EVERYTHING else MOMENTS))
    assert len(lives) >= len(MOMENTS)
    for life in lives:
        assert life["killed"], life
        assert life["ended"], life
        assert not life["wrong"], life
    assert max(life["tasks"] for life in lives) == 8
