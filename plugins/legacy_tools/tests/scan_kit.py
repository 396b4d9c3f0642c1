"""Trees that tests write, and what a scan finds in them."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcpd_legacy_tools.options import read
from mcpd_legacy_tools.records import LegacyTool, Scan
from mcpd_legacy_tools.scan import scan

#: It is not typed.
Draft202012Validator: Any = importlib.import_module("jsonschema").Draft202012Validator


def write(path: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write the files of a tree.

    :returns: the path.
    """
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = textwrap.dedent(content).encode()
        file.write_bytes(content)
    return path


def scanned(path: Path, *, cache: Path | None = None, **section: object) -> Scan:
    """Scan a tree, without a cache unless one is named."""
    settings = {"paths": [str(path)], "installed": False, **section}
    if cache is not None:
        settings["cache"] = str(cache)
    return scan(read(settings), cache=cache is not None)


def tool_of(path: Path, source: str) -> LegacyTool:
    """Return the one tool of a tree of one file."""
    (tool,) = scanned(write(path, {"category/file.py": source})).tools
    Draft202012Validator.check_schema(tool.input_schema)
    return tool


def reason_of(path: Path, source: str, file: str = "category/file.py") -> str:
    """Return why the one thing of a tree of one file is left out."""
    found = scanned(write(path, {file: source}))
    assert found.tools == ()
    (excluded,) = found.excluded
    return excluded.reason
