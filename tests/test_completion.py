"""Completion in a real bash: the Tab key on a terminal, with `mcpd completion` installed."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not installed")


class Shell:
    """An interactive bash on a terminal, in which completion is installed as the docs say."""

    def __init__(self, folder: Path) -> None:
        assert BASH is not None
        bin_ = folder / "bin"
        bin_.mkdir()
        mcpd = bin_ / "mcpd"
        mcpd.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mcpd_core "$@"\n')
        mcpd.chmod(0o755)
        master, slave = pty.openpty()
        self._terminal = master
        self._process = subprocess.Popen(
            [BASH, "--norc", "--noprofile", "-i"],
            cwd=folder,
            env={
                "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(folder),
                "MCPD_DATA_DIR": str(folder / "data"),
                "TERM": "dumb",
                "PS1": "",
                "LC_ALL": "C",
            },
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.type('bind "set bell-style none"; eval "$(mcpd completion bash)"; echo re""ady\n')
        self.wait_for("ready")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, wanted: str) -> str:
        """Read the terminal until the wanted text is there; return what was read."""
        seen, until = "", time.monotonic() + 30
        while wanted not in seen:
            ready, _, _ = select.select([self._terminal], [], [], until - time.monotonic())
            assert ready, f"{wanted!r} does not appear in {seen!r}"
            seen += os.read(self._terminal, 4096).decode()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._terminal)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("mcpd doc", "mcpd doctor "),
        ("mcpd tools call submit_task_", "mcpd tools call submit_task_to_peer "),
        ("mcpd tools show get_queue", "mcpd tools show get_queue_stats "),
        ("mcpd plugins disable task_", "mcpd plugins disable task_queue "),
        ("mcpd tools list --plugins hello,tas", "mcpd tools list --plugins hello,task_queue "),
        ("mcpd serve --insec", "mcpd serve --insecure-bind "),
    ],
)
def test_the_tab_key_completes(shell: Shell, typed: str, completed: str) -> None:
    shell.type(f"{typed}\t")
    assert completed in shell.wait_for(completed)
