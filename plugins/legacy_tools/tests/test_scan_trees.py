"""Where trees and their files are, what they are called, and what the settings choose."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mcpd_legacy_tools.options import read
from mcpd_legacy_tools.records import Scan, Tree
from mcpd_legacy_tools.scan import scan, sources
from mcpd_legacy_tools.scan.sources import files_of, installed_tree, tree_at

from .scan_kit import scanned, write

FUNCTION = "def f(): ...\n"


def names(found: Scan) -> list[str]:
    return [tool.name for tool in found.tools]


# --- packages -------------------------------------------------------------------------------------


def test_a_tree_belongs_to_the_packages_above_it(tmp_path: Path) -> None:
    files = ["top/__init__.py", "top/server/__init__.py", "top/server/tools/__init__.py"]
    write(tmp_path, dict.fromkeys(files, ""))
    tree = tree_at(str(tmp_path / "top" / "server" / "tools"), "t")
    assert (tree.root, tree.package, tree.synthetic) == (str(tmp_path), "top.server.tools", False)


def test_a_directory_in_a_package_is_one_too(tmp_path: Path) -> None:
    write(tmp_path, {"top/__init__.py": "", "top/tools/a/b.py": ""})
    tree = tree_at(str(tmp_path / "top" / "tools"), "t")
    assert (tree.root, tree.package) == (str(tmp_path), "top.tools")


def test_a_tree_of_no_package_gets_one_of_its_own(tmp_path: Path) -> None:
    (tree,) = scanned(write(tmp_path / "my tree", {"a/b.py": FUNCTION})).trees
    assert tree.name == "my_tree"
    assert (tree.root, tree.package) == (tree.path, "mcpd_legacy_tree_my_tree")
    assert tree.synthetic


def test_names_that_python_cannot_import_are_made_fit(tmp_path: Path) -> None:
    (tool,) = scanned(write(tmp_path / "t", {"a-b/1.py": FUNCTION})).tools
    assert tool.name == "a-b__f"
    assert all(part.isidentifier() for part in tool.module.split("."))
    assert tool.source == str(tmp_path / "t" / "a-b" / "1.py")


# --- files ----------------------------------------------------------------------------------------


def test_categories(tmp_path: Path) -> None:
    files = ["a/b.py", "a/deep/er/c.py", "root.py", "_private/d.py", ".git/e.py", "a/_p/f.py"]
    found = scanned(write(tmp_path, {file: f"def {file[-4]}(): ...\n" for file in files}))
    assert names(found) == ["a__b", "a__c", "root__t"]


def test_links_that_lead_back_are_problems(tmp_path: Path) -> None:
    write(tmp_path / "t", {"a/b.py": FUNCTION})
    (tmp_path / "t" / "a" / "loop").symlink_to(tmp_path / "t")
    (tmp_path / "t" / "a" / "dead.py").symlink_to(tmp_path / "nothing")
    found = scanned(tmp_path / "t")
    assert names(found) == ["a__f"]
    assert {problem.file: problem.message for problem in found.problems} == {
        "a/loop": "It is a link to a directory that it is in.",
        "a/dead.py": "It is no regular file, or a link that leads nowhere.",
    }


def test_links_out_of_a_category_or_to_what_holds_the_tree_are_not_followed(
    tmp_path: Path,
) -> None:
    write(tmp_path / "elsewhere", {"b.py": FUNCTION})
    write(tmp_path / "t", {"a/b.py": FUNCTION})
    root = Path("/")
    links = {"a/out": tmp_path / "elsewhere", "a/root": root, "all": root, "above": tmp_path}
    for link, target in links.items():
        (tmp_path / "t" / link).symlink_to(target)
    found = scanned(tmp_path / "t")
    assert names(found) == ["a__f"]
    assert {problem.file: problem.message for problem in found.problems} == dict.fromkeys(
        links, "It is a link out of the tree; mount what it leads to by itself."
    )


def test_a_tree_of_too_many_directories_is_read_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_MOST_DIRECTORIES", 3)
    found = scanned(write(tmp_path, {f"{name}/b.py": FUNCTION for name in "abcde"}))
    assert names(found) == ["a__f", "b__f"]
    (problem,) = found.problems
    assert problem.message == "It holds more than 3 directories; the rest is left out."


def test_links_to_other_places_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"b.py": FUNCTION})
    write(tmp_path / "t", {"a/x.txt": ""})
    (tmp_path / "t" / "c").symlink_to(tmp_path / "elsewhere")
    assert names(scanned(tmp_path / "t")) == ["c__f"]


def test_what_is_too_deep_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, {"/".join(["a"] * 20) + "/b.py": FUNCTION})
    (problem,) = scanned(tmp_path).problems
    assert "12 directories deep" in problem.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_what_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, {"a/b.py": FUNCTION, "c/d.py": FUNCTION})
    (tmp_path / "a" / "b.py").chmod(0)
    (tmp_path / "c").chmod(0)
    try:
        found = scanned(tmp_path)
    finally:
        (tmp_path / "c").chmod(0o700)
    assert {problem.file for problem in found.problems} == {"a/b.py", "c"}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, {"a/b.py": FUNCTION})
    os.mkfifo(tmp_path / "a" / "pipe.py")
    found = scanned(tmp_path)
    assert [problem.file for problem in found.problems] == ["a/pipe.py"]


def test_a_file_that_vanishes_between_listing_and_reading_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a/b.py": FUNCTION})

    def listed_and_gone(tree: Tree) -> object:
        found = files_of(tree)
        (tmp_path / "a" / "b.py").unlink()
        return found

    monkeypatch.setattr("mcpd_legacy_tools.scan.files_of", listed_and_gone)
    (problem,) = scanned(tmp_path).problems
    assert problem.message == "It cannot be read: No such file or directory."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"def f(:\n", "It is no valid Python"),
        (b"x = '\xff'\n", "It is not UTF-8 (line 1)."),
        (b"# coding: nonsense\n", "Its encoding cannot be told"),
        (b"\xef\xbb\xbf# coding: latin-1\n", "Its encoding cannot be told"),
        (b"a\0b", "null bytes"),
        (b"x = " + b"[" * 300 + b"]" * 300, "nested"),
        (b"x = " + b"-" * 100_000 + b"1", "nested too deeply"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, content: bytes, said: str) -> None:
    (problem,) = scanned(write(tmp_path, {"a/b.py": content})).problems
    assert said in problem.message


def test_a_syntax_error_tells_of_the_python_that_runs(tmp_path: Path) -> None:
    (problem,) = scanned(write(tmp_path, {"a/b.py": "def f() -> :\n"})).problems
    version = ".".join(map(str, sys.version_info[:2]))
    assert version in problem.message
    assert "newer" in problem.message


@pytest.mark.parametrize(
    "content",
    [
        b"# -*- coding: latin-1 -*-\ndef f(\xe4=1): ...\n",
        b"#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\ndef f(\xe4='\x80'): ...\n",
        b"\xef\xbb\xbfdef f(\xc3\xa4=1): ...\n",
        b"def f(\xc3\xa4=1): ...\r\n",
    ],
)
def test_encodings_are_honoured(tmp_path: Path, content: bytes) -> None:
    (tool,) = scanned(write(tmp_path, {"a/b.py": content})).tools
    assert set(tool.input_schema["properties"]) == {"ä"}
    assert tool.parameters[0].default in ("1", "'€'")


# --- names ----------------------------------------------------------------------------------------


def test_what_is_too_long_is_cut_in_the_same_way_each_time(tmp_path: Path) -> None:
    long = "x" * 80
    source = f"def {long}_one(): ...\ndef {long}_two(): ...\n"
    first = names(scanned(write(tmp_path, {"a/b.py": source})))
    assert first == names(scanned(tmp_path))
    assert len(set(first)) == 2
    assert all(len(name) == 64 and name.startswith("a__xxx") for name in first)


def test_two_in_one_file_are_told_apart_by_their_functions(tmp_path: Path) -> None:
    source = "def f(): ...\ndef g(): ...\nTOOLS = [{'name': 'x', 'function': f}, \
{'name': 'x', 'function': g}]\n"
    found = scanned(write(tmp_path, {"a/b.py": source}))
    assert names(found) == ["a__b__f", "a__b__g"]
    assert found.collisions[0].where[0] == f"a__b__f ({found.trees[0].name}/a/b.py:1)"


def test_two_in_files_of_one_name_are_told_apart_by_their_directories(tmp_path: Path) -> None:
    found = scanned(write(tmp_path, {"a/b.py": FUNCTION, "a/c/b.py": FUNCTION}))
    assert names(found) == ["a__b__f", "a__c_b__f"]
    assert all(tool.aliases == () for tool in found.tools)


def test_a_longer_name_does_not_take_another_tools_name(tmp_path: Path) -> None:
    files = {"a/b.py": FUNCTION + "def b__f(): ...\n", "a/c.py": FUNCTION}
    found = scanned(write(tmp_path, files))
    assert len(set(names(found))) == 3
    assert "a__b__f" in names(found)


def test_two_trees_are_told_apart_by_their_names(tmp_path: Path) -> None:
    for tree in ("one", "other"):
        write(tmp_path / tree, {"a/b.py": f"def {tree}(): ...\n{FUNCTION}"})
    trees = [str(tmp_path / "one"), str(tmp_path / "other")]
    found = scan(read({"paths": trees, "installed": False}), cache=False)
    assert names(found) == ["a__one", "a__other", "one__a__f", "other__a__f"]
    assert [collision.name for collision in found.collisions] == ["a__f"]
    assert set(found.tree_options) == {"one", "other"}


def test_two_trees_of_one_name_get_different_ones(tmp_path: Path) -> None:
    trees = [str(write(tmp_path / n / "t", {"a/b.py": FUNCTION})) for n in ("1", "2")]
    found = scan(read({"paths": trees, "installed": False}), cache=False)
    assert [tree.name for tree in found.trees] == ["t", "t-2"]
    assert len({tree.package for tree in found.trees}) == 2


def test_trees_that_cannot_be_mounted_are_problems(tmp_path: Path) -> None:
    tree = write(tmp_path / "t", {"a/b.py": FUNCTION})
    (tmp_path / "link").symlink_to(tree)
    (tmp_path / "file").touch()
    paths = [str(tmp_path / name) for name in ("t", "link", "file", "nothing")]
    found = scan(read({"paths": paths, "installed": False}), cache=False)
    assert names(found) == ["a__f"]
    said = [problem.message.partition(str(tmp_path))[2] for problem in found.problems]
    assert said == [
        "/link is mounted already.",
        "/file is not a directory; see [legacy_tools] paths.",
        "/nothing does not exist; see [legacy_tools] paths.",
    ]


# --- what the settings choose ---------------------------------------------------------------------


def test_patterns_choose(tmp_path: Path) -> None:
    write(tmp_path, {"a/b.py": "def f(): ...\ndef g(): ...\n", "c/d.py": FUNCTION})
    assert names(scanned(tmp_path, include=["a/*"])) == ["a__f", "a__g"]
    assert names(scanned(tmp_path, include=["*__f"])) == ["a__f", "c__f"]
    found = scanned(tmp_path, exclude=["c", "a__g"])
    assert names(found) == ["a__f"]
    assert [each.reason for each in found.excluded] == [
        "the settings' `exclude` has 'a__g'",
        "the settings' `exclude` has 'c'",
    ]
    assert scanned(tmp_path, include=["c/*"]).excluded[0].reason == (
        "no pattern of the settings' `include` matches it"
    )


def test_strict_is_the_old_servers_rule(tmp_path: Path) -> None:
    files = {
        "a/load.py": "def load(): ...\ndef load_all(): ...\ndef save(): ...\ndef _load(): ...\n",
        "a/main.py": "def main(): ...\n",
        "a/deep/save.py": "def save(): ...\n",
        "read.py": "def read(): ...\n",
    }
    found = scanned(write(tmp_path, files), selection="strict")
    assert names(found) == ["a__load", "a__load_all", "a__main"]
    assert {(each.function, each.reason) for each in found.excluded} == {
        (name, 'the old server\'s rule leaves it out (selection = "strict")')
        for name in ("save", "read")
    }


# --- what files pass on ---------------------------------------------------------------------------

PACKAGE = {
    "top/__init__.py": "",
    "top/engine/__init__.py": "from .core import fetch_page, Engine\nfrom .more import *\n",
    "top/engine/core.py": "async def fetch_page(url: str):\n    'Fetch it.'\nclass Engine: ...\n",
    "top/engine/more.py": "def fetch_all(urls: list): ...\n",
    "top/tools/__init__.py": "",
}


def passing(path: Path, source: str, **section: object) -> Scan:
    write(path, {**PACKAGE, "top/tools/web/fetch.py": source})
    return scanned(path / "top" / "tools", **section)  # type: ignore[arg-type]


def test_what_the_old_server_listed_is_found_where_it_is_defined(tmp_path: Path) -> None:
    found = passing(
        tmp_path, "from top.engine import fetch_page\nfrom ...engine import fetch_all\n"
    )
    by_name = {tool.name: tool for tool in found.tools}
    assert set(by_name) == {"web__fetch_page", "web__fetch_all"}
    page = by_name["web__fetch_page"]
    assert (page.description, page.is_async, page.line) == ("Fetch it.", True, 1)
    assert page.entry == "top.tools.web.fetch:fetch_page"
    assert page.input_schema["required"] == ["url"]


@pytest.mark.parametrize(
    "source",
    [
        "from top.engine import fetch_nothing\n",
        "from nowhere import fetch_nothing\n",
        "from .......outside import fetch_nothing\n",
        "from .fetch import fetch_nothing\n",
    ],
)
def test_what_is_found_nowhere_is_left_out(tmp_path: Path, source: str) -> None:
    found = passing(tmp_path, source)
    assert found.tools == ()
    (excluded,) = found.excluded
    assert "where no such function was found" in excluded.reason


def test_what_else_a_file_passes_on_is_left_out(tmp_path: Path) -> None:
    source = "from ...engine.core import Engine\nfrom os.path import join\n__all__ = ['join']\n"
    (excluded,) = passing(tmp_path, source).excluded
    assert (excluded.function, excluded.reason) == ("join", "it is defined elsewhere (os.path)")


def test_what_is_imported_counts_more_than_what_stands_in_for_it(tmp_path: Path) -> None:
    source = """
    try:
        from top.engine import fetch_page
    except ImportError:
        def fetch_page(*args): ...
    """
    (tool,) = passing(tmp_path, source).tools
    assert set(tool.input_schema["properties"]) == {"url"}


def test_strict_has_what_a_file_passes_on(tmp_path: Path) -> None:
    found = passing(tmp_path, "from top.engine import fetch_page\n", selection="strict")
    assert names(found) == ["web__fetch_page"]


# --- the installed package ------------------------------------------------------------------------

TOOL = "ipfs_datasets_py/mcp_server/tools/a/b.py"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed packages, the only one there is."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.setattr(sys, "path", [str(place), "", str(tmp_path / "nothing")])
    return place


def test_nothing_is_installed(site: Path) -> None:
    assert installed_tree() is None
    assert scan(read({}), cache=False) == Scan()


def test_the_installed_package_is_mounted(site: Path) -> None:
    write(site, {TOOL: FUNCTION, "ipfs_datasets_py/__init__.py": "raise SystemExit"})
    found = scan(read({}), cache=False)
    assert names(found) == ["a__f"]
    assert found.trees[0].name == "ipfs_datasets_py"
    assert scan(read({"installed": False}), cache=False) == Scan()


def test_it_is_mounted_once(site: Path) -> None:
    write(site, {TOOL: FUNCTION})
    path = str(site / "ipfs_datasets_py" / "mcp_server" / "tools")
    found = scan(read({"paths": [path]}), cache=False)
    assert (len(found.trees), found.problems) == (1, ())


@pytest.mark.parametrize("folder", ["", "src/"])
def test_an_editable_install_is_found(site: Path, tmp_path: Path, folder: str) -> None:
    checkout = write(tmp_path / "check out", {folder + TOOL: FUNCTION})
    stated = {"url": checkout.as_uri(), "dir_info": {"editable": True}}
    name = "ipfs_datasets_py-0.2.0.dist-info/direct_url.json"
    write(site, {name: json.dumps(stated)})
    assert installed_tree() == str(checkout / folder / "ipfs_datasets_py/mcp_server/tools")


def test_an_old_kind_of_editable_install_is_found(site: Path, tmp_path: Path) -> None:
    checkout = write(tmp_path / "checkout", {TOOL: FUNCTION})
    write(site, {"ipfs-datasets-py.egg-link": f"{checkout}\n.\n"})
    assert installed_tree() == str(checkout / "ipfs_datasets_py/mcp_server/tools")


@pytest.mark.parametrize("content", ["", "[]", '{"dir_info": {"editable": true}}', "\0"])
def test_what_an_installer_wrote_badly_names_nothing(site: Path, content: str) -> None:
    write(site, {"ipfs_datasets_py-0.2.0.dist-info/direct_url.json": content})
    write(site, {"ipfs-datasets-py.egg-link": ""})
    assert installed_tree() is None
