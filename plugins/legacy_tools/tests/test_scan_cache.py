"""What is kept from one scan to the next, and when it no longer holds."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcpd_legacy_tools.scan import cache as kept
from mcpd_legacy_tools.scan import modules

from .scan_kit import scanned, write

FILES = {f"a/f{i}.py": f"def f{i}(x: int = {i}):\n    'Say {i}.'\n" for i in range(5)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write(tmp_path / "tree", {**FILES, "a/broken.py": "def (\n"})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "cache.json"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What has been parsed."""
    contents: list[bytes] = []
    parse = modules.parsed

    def noted(content: bytes) -> object:
        contents.append(content)
        return parse(content)

    monkeypatch.setattr(modules, "parsed", noted)
    return contents


def test_what_is_kept_is_what_was_found(tree: Path, cache: Path, parsed: list[bytes]) -> None:
    first = scanned(tree, cache=cache)
    assert len(parsed) == 6
    assert scanned(tree, cache=cache) == first == scanned(tree)
    assert len(parsed) == 12  # the last one had no cache
    assert len(first.problems) == 1


def test_an_edited_file_is_read_again_and_no_other(
    tree: Path, cache: Path, parsed: list[bytes]
) -> None:
    scanned(tree, cache=cache)
    parsed.clear()
    (tree / "a" / "f3.py").write_text("def f3(y): ...\n")
    found = scanned(tree, cache=cache)
    assert parsed == [b"def f3(y): ...\n"]
    assert [set(tool.input_schema["properties"]) for tool in found.tools][3] == {"y"}


def test_a_file_of_the_same_size_is_told_by_its_time(
    tree: Path, cache: Path, parsed: list[bytes]
) -> None:
    scanned(tree, cache=cache)
    parsed.clear()
    file = tree / "a" / "f3.py"
    file.write_text(file.read_text().replace("Say 3", "Hum 3"))
    os.utime(file, ns=(1, 1))
    assert "Hum 3." in {tool.description for tool in scanned(tree, cache=cache).tools}
    assert len(parsed) == 1


def test_other_settings_need_no_new_scan(tree: Path, cache: Path, parsed: list[bytes]) -> None:
    scanned(tree, cache=cache)
    parsed.clear()
    assert len(scanned(tree, cache=cache, selection="strict", exclude=["*f3"]).tools) == 4
    assert parsed == []


def test_what_is_passed_on_is_read_again_when_its_definition_changes(
    tmp_path: Path, cache: Path
) -> None:
    files = {"top/__init__.py": "", "top/tools/a/load.py": "from top.engine import load_it\n"}
    tree = write(tmp_path, files) / "top" / "tools"
    assert scanned(tree, cache=cache).tools == ()
    write(tmp_path, {"top/engine.py": "def load_it(): 'One.'\n"})
    assert [tool.description for tool in scanned(tree, cache=cache).tools] == ["One."]
    write(tmp_path, {"top/engine.py": "def load_it(): 'Another.'\n"})
    assert [tool.description for tool in scanned(tree, cache=cache).tools] == ["Another."]


def test_files_that_are_gone_are_forgotten(tree: Path, cache: Path) -> None:
    scanned(tree, cache=cache)
    (tree / "a" / "f3.py").unlink()
    assert len(scanned(tree, cache=cache).tools) == 4
    assert "f3.py" not in cache.read_text()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"\0" * 100,
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"Say 3", b"Hum 3"),
        lambda content: content.replace(b"-scan %d" % kept.VERSION, b"-scan 0", 1),
        lambda content: content.partition(b"\n")[0] + b"\n[]",
    ],
)
def test_a_cache_that_is_no_good_is_made_anew(
    tree: Path, cache: Path, parsed: list[bytes], spoil: object
) -> None:
    first = scanned(tree, cache=cache)
    cache.write_bytes(spoil(cache.read_bytes()))  # type: ignore[operator]
    parsed.clear()
    assert scanned(tree, cache=cache) == first
    assert len(parsed) == 6
    assert scanned(tree, cache=cache) == first
    assert len(parsed) == 6


def test_only_its_owner_can_read_it(tree: Path, cache: Path) -> None:
    scanned(tree, cache=cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.parent.stat().st_mode) == 0o700
    assert [file.name for file in cache.parent.iterdir()] == ["cache.json"]


def test_what_another_user_wrote_is_not_believed(
    tree: Path, cache: Path, parsed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned(tree, cache=cache)
    parsed.clear()
    monkeypatch.setattr(os, "geteuid", lambda: 12_345_678)
    scanned(tree, cache=cache)
    assert len(parsed) == 6


def test_without_a_place_to_keep_it_everything_works(tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "taken"
    place.mkdir()
    assert len(scanned(tree, cache=place).tools) == 5
    assert list(tmp_path.rglob(".legacy-tools-*")) == []
    (tmp_path / "file").touch()
    assert len(scanned(tree, cache=tmp_path / "file" / "cache").tools) == 5


def test_nothing_is_written_when_nothing_has_changed(tree: Path, cache: Path) -> None:
    scanned(tree, cache=cache)
    before = cache.stat().st_ino
    scanned(tree, cache=cache)
    assert cache.stat().st_ino == before


def test_several_at_once_do_not_get_into_each_other(tree: Path, cache: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: scanned(tree, cache=cache), range(12)))
    assert all(each == found[0] for each in found)
    assert scanned(tree, cache=cache) == found[0]


def test_each_set_of_trees_has_a_file_of_its_own(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcpd_legacy_tools.options import read
    from mcpd_legacy_tools.scan import scan

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for paths in ([tree], [tree, tree / "a"], [tree]):
        scan(read({"paths": [str(path) for path in paths], "installed": False}))
    names = sorted(file.name for file in (tmp_path / "cache" / "mcpd-core").iterdir())
    assert len(names) == 2
    assert all(name.startswith("legacy-tools-") for name in names)


def test_the_users_cache_directory_is_found_without_being_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert kept.default_path([], {"XDG_CACHE_HOME": "relative"}).startswith("/home/somebody/")
