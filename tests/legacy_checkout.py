"""A real checkout of the old server: what is found, listed, valid, callable and left out.

``make legacy-checkout CHECKOUT=...`` runs this; the suite does not, because it has no checkout. A
checkout is a directory that holds ``ipfs_datasets_py/mcp_server``. What can be called depends on
the packages that are installed: each tool counts as callable when what it answers, called without
arguments or with too few, comes from its code or from the check of its arguments, and not from the
import of its module.
"""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mcpd_legacy_tools.options import read
from mcpd_legacy_tools.records import LegacyTool, Scan
from mcpd_legacy_tools.scan import scan

from .legacy_kit import Mounted, Session, mount, session

jsonschema: Any = importlib.import_module("jsonschema")  # it is not typed

pytestmark = pytest.mark.timeout(900)

TREE = Path("ipfs_datasets_py", "mcp_server", "tools")
#: No tool takes it.
NOBODYS = "mcpd_no_tool_takes_this"
#: What the check of the arguments says, which comes after the import.
REFUSED = re.compile("do not fit the tool|does not take these arguments")


@pytest.fixture(scope="module")
def tree() -> Path:
    checkout = os.environ.get("MCPD_LEGACY_CHECKOUT", "")
    assert checkout, "make legacy-checkout CHECKOUT=... names the checkout"
    path = Path(checkout).expanduser().resolve() / TREE
    assert path.is_dir(), f"{path} is no directory"
    return path


@pytest.fixture(scope="module")
def found(tree: Path) -> Scan:
    return scan(read({"paths": [str(tree)], "installed": False}), cache=False)


def refused_arguments(tool: LegacyTool) -> Mapping[str, Any] | None:
    """Return arguments that the tool cannot accept, so that none of its code runs.

    ``None`` when it would take whatever comes.
    """
    if tool.input_schema.get("required"):
        return {}
    open_ended = any(parameter.kind == "kwargs" for parameter in tool.parameters)
    if open_ended or tool.input_schema.get("additionalProperties", False) is not False:
        return None
    return {NOBODYS: True}


@pytest.fixture(scope="module")
def tried(found: Scan) -> list[tuple[LegacyTool, Mapping[str, Any]]]:
    pairs = ((tool, refused_arguments(tool)) for tool in found.tools)
    return [(tool, arguments) for tool, arguments in pairs if arguments is not None]


@pytest.fixture(scope="module")
def mounted(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Mounted:
    return mount(tmp_path_factory.mktemp("checkout"), {"old": tree})


@pytest.fixture(scope="module")
def served(mounted: Mounted, tried: list[tuple[LegacyTool, Mapping[str, Any]]]) -> Session:
    return session(mounted, [(tool.name, given) for tool, given in tried], patience=600)


def test_every_file_is_read_or_told_of(tree: Path, found: Scan) -> None:
    files = {file.relative_to(tree).as_posix() for file in tree.rglob("*.py")}
    told = {tool.file for tool in found.tools} | {each.file for each in found.excluded}
    assert told <= files
    assert len(found.tools) > 500
    assert all(each.reason for each in found.excluded)


def test_every_tool_is_listed_with_a_valid_schema(found: Scan, served: Session) -> None:
    names = {tool.name for tool in found.tools}
    assert names <= served.names
    for tool in served.listed:
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)


def test_every_tool_can_be_called_or_says_what_it_lacks(
    found: Scan,
    served: Session,
    tried: list[tuple[LegacyTool, Mapping[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = [answer.text for answer in served.answers]
    assert all(answer.is_error for answer in served.answers), "code of the tree ran"
    callable_ = [bool(REFUSED.search(text)) for text in said]
    others = [text for text, reached in zip(said, callable_, strict=True) if not reached]
    reasons = Counter("lacks packages" if "pip install" in text else "fails" for text in others)
    report = {
        "files": len({tool.file for tool in found.tools}),
        "categories": len({tool.category for tool in found.tools}),
        "found": len(found.tools),
        "listed": len(served.names & {tool.name for tool in found.tools}),
        "callable": sum(callable_),
        **reasons,
        "not tried, because they take anything": len(found.tools) - len(tried),
        "left out, with a reason": len(found.excluded),
        "names that several had": len(found.collisions),
        "files that cannot be read": len(found.problems),
        "with made-up data": sum(bool(tool.marks) for tool in found.tools),
    }
    with capsys.disabled():
        print()  # noqa: T201 - the figures are what this is run for
        for what, count in report.items():
            print(f"{count:6} {what}")  # noqa: T201
        why = Counter(re.sub(r" \(.*|'.*|: .*", "", each.reason) for each in found.excluded)
        _show("left out:", why)
        _show("not callable:", Counter(text.partition("cannot be loaded: ")[2] for text in others))
    assert all(text.strip() for text in others)


def _show(what: str, counted: Counter[str]) -> None:
    for text, count in counted.most_common(40):
        print(f"{count:6} {what} {text[:200]}")  # noqa: T201
