"""The errors that the troubleshooting page explains are errors that the code has."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/how-to/troubleshoot.md").read_text(encoding="utf-8")
EXPLAINED = [
    message
    for line in re.findall(r"^(`[^\n]+)\n:   ", PAGE, re.MULTILINE)
    for message in re.findall(r"`([^`]+)`", line)
]


@lru_cache(maxsize=1)
def texts() -> str:
    """Every string in the code, a line each; what is put into it at run time is a bullet."""
    found = []
    for folder in ("core/src", "plugins/task_queue/src"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else "•" for p in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(text.replace("\n", " ") for text in found)


def test_the_page_explains_many() -> None:
    assert len(EXPLAINED) > 30


@pytest.mark.parametrize("message", EXPLAINED)
def test_an_explained_error_is_in_the_code(message: str) -> None:
    wanted = ".*".join(map(re.escape, message.removeprefix("... ").split("...")))
    assert re.search(wanted, texts()), f"no error of the code reads {message!r}"
