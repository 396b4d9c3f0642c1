"""The package of a tree: right wherever the tree lies, and never two of one name in a process."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from mcpd_core import PluginLoadError
from mcpd_legacy_tools.running.naming import Home, home_of
from mcpd_legacy_tools.running.packages import import_from

from .running_kit import Planted

pytestmark = pytest.mark.usefixtures("process")


def load(entry: str, source: Path) -> ModuleType:
    return import_from(home_of(entry, source), source)


def test_a_module_is_imported_under_its_own_name(tmp_path: Path) -> None:
    tree = Planted(tmp_path)
    tree.write("shared.py", "THING = object()")
    tree.write(
        "files/read.py",
        f"""
        from ..shared import THING as relative
        from {tree.package}.shared import THING as absolute
        """,
    )
    module = load(tree.module("files/read.py"), tree.path / "files/read.py")
    assert module.__name__ == f"{tree.package}.files.read"
    assert module.relative is module.absolute
    assert sys.modules[module.__name__] is module


def test_the_root_is_searched_last(tmp_path: Path) -> None:
    tree = Planted(tmp_path)
    (tmp_path / "json.py").write_text("raise AssertionError('this is not the json of Python')")
    (tmp_path / "legacy_beside.py").write_text("X = 1")
    source = tree.write("a/one.py", "import json, legacy_beside; dumps = json.dumps")
    assert load(tree.module("a/one.py"), source).dumps([1]) == "[1]"
    assert sys.path[-1] == str(tmp_path)


def test_a_directory_of_another_name_has_the_name_that_its_files_know(tmp_path: Path) -> None:
    tree = Planted(tmp_path, "legacy_checkout.server.tools")
    tree.write("lib/common.py", "STATE = []")
    one = tree.write("a/one.py", "from legacy_name.server.tools.lib.common import STATE")
    two = tree.write("a/two.py", "from ..lib.common import STATE")
    first = load(tree.module("a/two.py"), two)
    second = load(tree.module("a/one.py"), one)
    assert first.__name__ == "legacy_name.server.tools.a.two"
    assert first.STATE is second.STATE
    assert "legacy_checkout" not in sys.modules


def test_a_copy_of_the_tools_alone_still_knows_its_old_name(tmp_path: Path) -> None:
    for file, source in {
        "helpers.py": "STATE = []",
        "a/one.py": "from ipfs_datasets_py.mcp_server.tools.helpers import STATE",
        "a/two.py": "from ..helpers import STATE\nimport ipfs_datasets_py",
        "a/three.py": "from ipfs_datasets_py.audit import Logger",
    }.items():
        path = tmp_path / "copied" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    folder = tmp_path / "copied/a"
    one = load("mcpd_legacy_tree_copied.a.one", folder / "one.py")
    two = load("mcpd_legacy_tree_copied.a.two", folder / "two.py")
    assert one.__name__ == "ipfs_datasets_py.mcp_server.tools.a.one"
    assert one.STATE is two.STATE
    # What was not copied is missing, and nothing pretends otherwise.
    with pytest.raises(ModuleNotFoundError, match=r"ipfs_datasets_py\.audit"):
        load("mcpd_legacy_tree_copied.a.three", folder / "three.py")


def test_a_tree_that_is_no_package_gets_one(tmp_path: Path) -> None:
    folder = tmp_path / "my tools" / "a"
    folder.mkdir(parents=True)
    (folder / "helper.py").write_text("X = 1")
    (folder / "one.py").write_text("from .helper import X")
    (folder / "two-b.py").write_text("from . import helper\nX = helper.X")
    assert load("legacy_tree_my.a.one", folder / "one.py").X == 1
    # The name of a file need not be an identifier, though the scan has to make one of it.
    assert load("legacy_tree_my.a.two_b", folder / "two-b.py").__name__ == "legacy_tree_my.a.two-b"


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    tree = Planted(tmp_path)
    source = tree.write("a/one.py", "X = 1")
    os.mkfifo(tree.path / "a" / "pipe.py")
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(home_of, tree.module("a/one.py"), source)
        try:
            assert found.result(10).module == tree.module("a/one.py")
        finally:
            let_go(tree.path / "a" / "pipe.py")


def let_go(pipe: Path) -> None:
    """Have whoever waits for a pipe find its end, so that a failure is one and does not hang."""
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))


def test_an_init_file_is_its_package(tmp_path: Path) -> None:
    tree = Planted(tmp_path)
    source = tree.write("a/__init__.py", "X = 1")
    assert load(f"{tree.package}.a", source) is importlib.import_module(f"{tree.package}.a")


def test_what_merely_looks_like_a_name_of_the_package_is_none(tmp_path: Path) -> None:
    tree = Planted(tmp_path)
    tree.write("utils.py", "")
    source = tree.write(
        "a/one.py",
        """
        try:
            import legacy_absent.contrib.utils
        except ImportError:
            legacy_absent = None
        import os.path, importlib.metadata
        """,
    )
    home = home_of(tree.module("a/one.py"), source)
    assert home == Home(f"{tree.package}.a.one", tree.package.partition(".")[0], home.directory)
    assert load(tree.module("a/one.py"), source).legacy_absent is None


def test_the_second_tree_of_one_name_is_refused(tmp_path: Path) -> None:
    one = Planted(tmp_path / "one")
    other = Planted(tmp_path / "other", one.package)
    first = one.write("a/tool.py", "X = 1")
    second = other.write("a/tool.py", "X = 2")
    assert load(one.module("a/tool.py"), first).X == 1
    with pytest.raises(PluginLoadError, match="in this process already") as caught:
        load(other.module("a/tool.py"), second)
    top = one.package.partition(".")[0]
    assert str(one.root / top) in caught.value.message
    assert str(other.root / top) in caught.value.message
    assert 'isolation = "process"' in caught.value.hint
    assert load(one.module("a/tool.py"), first).X == 1


def test_a_renamed_copy_of_a_tree_is_refused_too(tmp_path: Path) -> None:
    one = Planted(tmp_path, "legacy_first.server.tools")
    source = one.write("a/one.py", "from legacy_first.server.tools.a import one")
    load(one.module("a/one.py"), source)
    shutil.copytree(tmp_path / "legacy_first", tmp_path / "legacy_second")
    with pytest.raises(PluginLoadError, match="'legacy_first', and one of that name"):
        load("legacy_second.server.tools.a.one", tmp_path / "legacy_second/server/tools/a/one.py")


def test_a_package_that_is_loaded_already_is_not_taken_over(tmp_path: Path) -> None:
    tree = Planted(tmp_path / "tree")
    top = tree.package.partition(".")[0]
    elsewhere = ModuleType(top)
    elsewhere.__path__ = [str(tmp_path / "elsewhere")]
    sys.modules[top] = elsewhere
    with pytest.raises(PluginLoadError, match="from .*elsewhere"):
        load(tree.module("a/one.py"), tree.write("a/one.py", ""))


def test_an_installed_package_of_that_name_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Planted(tmp_path / "tree")
    installed = Planted(tmp_path / "installed", tree.package)
    monkeypatch.syspath_prepend(str(installed.root))
    assert load(tree.module("a/one.py"), tree.write("a/one.py", "X = 1")).X == 1
    assert f"and not from {installed.root}" in caplog.text


def test_a_package_called_like_a_module_of_python_is_refused(tmp_path: Path) -> None:
    tree = Planted(tmp_path, "json")
    with pytest.raises(PluginLoadError, match="like a module of Python") as caught:
        load("json.a.one", tree.write("a/one.py", ""))
    assert "Rename" in caught.value.hint


def test_a_file_hidden_by_a_package_beside_it_is_not_mistaken(tmp_path: Path) -> None:
    tree = Planted(tmp_path)
    source = tree.write("a/one.py", "")
    tree.write("a/one/__init__.py", "")
    with pytest.raises(PluginLoadError, match=r"and not from .*one\.py"):
        load(tree.module("a/one.py"), source)


def test_a_module_that_puts_something_in_its_own_place_is_taken_for_it(tmp_path: Path) -> None:
    tree = Planted(tmp_path)
    source = tree.write(
        "a/one.py",
        """
        import sys
        class Lazy:
            X = 1
        sys.modules[__name__] = Lazy()
        """,
    )
    assert load(tree.module("a/one.py"), source).X == 1
