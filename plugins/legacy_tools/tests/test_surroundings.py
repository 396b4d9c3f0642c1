"""What an import may not change for everybody else, and the installers that are turned off."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from mcpd_legacy_tools.running.environment import INSTALLERS_OFF, turn_installers_off
from mcpd_legacy_tools.running.surroundings import put_back


def test_what_an_import_changes_is_put_back(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (
        sys.stdout,
        sys.excepthook,
        os.getcwd(),
        list(warnings.filters),
        list(root.handlers),
        root.level,
    )
    path = list(sys.path)
    with put_back():
        sys.stdout = io.StringIO()
        sys.excepthook = lambda *_: None
        os.chdir(tmp_path)
        warnings.filterwarnings("error")
        logging.basicConfig(force=True, level=1)
        logging.disable()
        sys.path.insert(0, "/first")
    after = (
        sys.stdout,
        sys.excepthook,
        os.getcwd(),
        list(warnings.filters),
        list(root.handlers),
        root.level,
    )
    assert after == before
    assert logging.root.manager.disable == 0
    assert sys.path == [*path, "/first"]
    sys.path.remove("/first")


def test_a_stream_that_was_wrapped_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    below = io.BytesIO()
    ours = io.TextIOWrapper(below)
    monkeypatch.setattr(sys, "stdout", ours)
    with put_back():
        sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-16")
    assert sys.stdout is ours
    # The wrapper would have closed it if it had been let go.
    sys.stdout.write("words")
    sys.stdout.flush()
    assert below.getvalue() == b"words"


def test_a_stream_that_was_taken_apart_stays_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    below = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(below))
    taken: Any = sys.stdout
    with put_back():
        sys.stdout = io.TextIOWrapper(taken.detach())
    sys.stdout.write("words")
    sys.stdout.flush()
    assert below.getvalue() == b"words"


def test_it_is_put_back_after_a_failure_as_well(tmp_path: Path) -> None:
    folder = os.getcwd()

    @put_back()
    def imported() -> None:
        os.chdir(tmp_path)
        sys.exit(3)

    with pytest.raises(SystemExit):
        imported()
    assert os.getcwd() == folder


def test_an_import_beside_another_puts_back_what_was_before_both(tmp_path: Path) -> None:
    folder = os.getcwd()
    with put_back():
        os.chdir(tmp_path)
        with put_back():
            pass
        assert os.getcwd() == folder
        os.chdir(tmp_path)
    assert os.getcwd() == folder


def test_installers_are_turned_off_where_the_operator_has_said_nothing() -> None:
    environ = {"IPFS_DATASETS_AUTO_INSTALL": "true", "HOME": "/home/me"}
    changed = turn_installers_off(environ)
    assert environ["IPFS_DATASETS_AUTO_INSTALL"] == "true"
    assert environ["IPFS_DATASETS_PY_LAZY_INSTALL_PROVERS"] == "0"
    assert environ["HOME"] == "/home/me"
    assert set(changed) == set(INSTALLERS_OFF) - {"IPFS_DATASETS_AUTO_INSTALL"}
    assert not any(name.startswith(("PIP", "HOME")) for name in changed)
    assert turn_installers_off(environ) == ()
