"""What a scan finds, what it survives, and that it imports nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcpd_core import discovery
from mcpd_core.discovery import Candidate, Scan
from mcpd_core.selection import select

if TYPE_CHECKING:
    from core.tests.conftest import Environment


def only(scan: Scan) -> Candidate:
    (candidate,) = scan.candidates
    return candidate


# --- what is found --------------------------------------------------------------------------------


def test_a_plugin_is_known_with_its_tools_and_without_being_imported(
    environment: Environment,
) -> None:
    package = environment.plugin(
        "queue",
        distribution="dist-queue",
        runtime="trio",
        version="2.5",
        requires=["anyio>4", "mcpd-core[trio] (>=0.1,<0.2) ; python_version > '3'"],
        tools=["submit", "cancel"],
        bundles=["p2p"],
        hooks=["mcpd_services"],
    )
    found = only(environment.scan())
    assert (found.name, found.runtime, found.problem) == ("queue", "trio", "")
    assert (found.distribution, found.version) == ("dist-queue", "2.5")
    assert found.requires_core == ">=0.1,<0.2"
    assert found.entry == f"{package}.plugin"
    assert found.manifest_path == environment.root / package / "mcpd_plugin.json"
    assert found.manifest is not None
    assert [spec.name for spec in found.manifest.tools] == ["submit", "cancel"]
    assert {spec.runtime for spec in found.manifest.tools} == {"trio"}
    assert {spec.plugin for spec in found.manifest.tools} == {"queue"}
    assert package not in sys.modules


def test_listing_imports_neither_plugins_nor_heavy_libraries(environment: Environment) -> None:
    """In a fresh process, with a bomb in every module of every plugin."""
    for name in ("one", "two"):
        environment.plugin(name, runtime="trio", tools=[f"tool_{name}"])
    script = f"""
        import json, sys
        sys.path.insert(0, {str(environment.root)!r})
        from mcpd_core import catalog, discovery, selection
        inventory = selection.select(discovery.scan(), wanted=["one", "two"])
        specs = catalog.Catalog(inventory.specs()).search("tool")
        rows = [row.to_json() for row in inventory.rows]
        heavy = {{"mcp", "trio", "anyio", "asyncio", "pydantic", "pluggy", "libp2p", "click",
                 "importlib.metadata", "importlib_metadata", "dist_one_one", "dist_two_two"}}
        print(json.dumps([[s.name for s in specs], sorted(heavy & set(sys.modules))]))
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == [["tool_one", "tool_two"], []]


def test_a_distribution_may_ship_several_plugins(environment: Environment) -> None:
    environment.distribution(
        "pair",
        "[mcpd_core.plugins.asyncio]\na = pair.a\n[console_scripts]\npair = pair.cli:main\n"
        "[mcpd_core.plugins.trio]\nb = pair.b : thing [extra]\n",
    )
    environment.package("pair")
    environment.manifest("pair", {"a": {"tools": []}, "b": {"runtime": "trio"}})
    a, b = environment.scan().candidates
    assert (a.name, a.runtime, a.entry, a.problem) == ("a", "asyncio", "pair.a", "")
    assert (b.name, b.runtime, b.entry, b.problem) == ("b", "trio", "pair.b:thing", "")


def test_a_plugin_without_manifest_is_a_candidate(environment: Environment) -> None:
    environment.distribution("bare", "[mcpd_core.plugins.any]\nbare = bare.plugin\n")
    environment.package("bare")
    found = only(environment.scan())
    assert (found.manifest, found.manifest_path, found.problem) == (None, None, "")


def test_a_single_module_can_be_a_plugin(environment: Environment) -> None:
    environment.distribution("single", "[mcpd_core.plugins.any]\nsingle = single_module\n")
    environment.write("single_module.py", "raise SystemExit('bomb')\n")
    environment.write("mcpd_plugin.json", "not the plugin's")
    assert (only(environment.scan()).problem, only(environment.scan()).manifest) == ("", None)


def test_the_manifest_of_a_package_in_namespaces_is_in_the_first_regular_package(
    environment: Environment,
) -> None:
    environment.distribution("deep", "[mcpd_core.plugins.any]\ndeep = acme.tools.deep.plugin\n")
    environment.package("acme/tools/deep")
    environment.write("acme/other/file.txt", "")
    environment.manifest("acme/tools/deep", {"deep": {"tools": []}})
    found = only(environment.scan())
    assert found.problem == ""
    assert found.manifest_path == environment.root / "acme/tools/deep/mcpd_plugin.json"
    assert "acme" not in sys.modules


def test_a_package_without_init_file_can_have_a_manifest(environment: Environment) -> None:
    environment.distribution("loose", "[mcpd_core.plugins.any]\nloose = loose.plugin\n")
    environment.write("loose/plugin.py", "raise SystemExit('bomb')\n")
    environment.manifest("loose", {"loose": {"tools": []}})
    assert only(environment.scan()).manifest is not None


def test_an_unpacked_egg_is_a_distribution(environment: Environment) -> None:
    environment.write("Old_Plugin-3.1-py3.10.egg/EGG-INFO/PKG-INFO", "Name: old-plugin\n")
    environment.write(
        "Old_Plugin-3.1-py3.10.egg/EGG-INFO/entry_points.txt",
        "[mcpd_core.plugins.any]\nold = old_plugin\n",
    )
    egg = environment.write("Old_Plugin-3.1-py3.10.egg/old_plugin/__init__.py", "").parent.parent
    found = only(discovery.scan([str(egg)]))
    assert (found.distribution, found.version, found.problem) == ("old-plugin", "3.1-py3.10", "")


def test_a_zipped_egg_is_a_distribution(environment: Environment) -> None:
    path = environment.root / "zipped-1.0-py3.10.egg"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("EGG-INFO/PKG-INFO", "Metadata-Version: 1.0\nName: zipped\nVersion: 1.0\n")
        archive.writestr(
            "EGG-INFO/entry_points.txt", "[mcpd_core.plugins.any]\nzipped = zipped_plugin\n"
        )
        archive.writestr("zipped_plugin/__init__.py", "raise SystemExit('bomb')\n")
    found = only(discovery.scan([str(path)]))
    assert (found.name, found.distribution, found.version) == ("zipped", "zipped", "1.0")
    assert found.problem == ""


def test_the_first_distribution_of_a_name_wins(tmp_path: Path, environment: Environment) -> None:
    near = type(environment)(tmp_path / "near")
    near.plugin("same", distribution="Some.Thing", version="1.0")
    environment.plugin("same", distribution="some-thing", version="2.0")
    environment.plugin("further", distribution="other")
    scan = discovery.scan([str(near.root), str(environment.root)])
    assert [(c.name, c.version) for c in scan.candidates] == [("further", "1.0"), ("same", "1.0")]
    assert len(scan.candidates[1].metadata_paths) == 2


def test_the_build_directory_of_an_editable_install_is_the_same_distribution(
    tmp_path: Path, environment: Environment
) -> None:
    """setuptools leaves a second metadata directory beside the sources, on the path as well."""
    info = environment.distribution(
        "my-plugin", "[mcpd_core.plugins.any]\nmine = my_plugin.plugin\n"
    )
    (info / "direct_url.json").write_text('{"url": "x", "dir_info": {"editable": true}}')
    sources = type(environment)(tmp_path / "src")
    sources.package("my_plugin")
    for name in ("PKG-INFO", "entry_points.txt"):
        content = (info / name.replace("PKG-INFO", "METADATA")).read_text()
        sources.write(f"my_plugin.egg-info/{name}", content)
    for path in ([environment.root, sources.root], [sources.root, environment.root]):
        scan = discovery.scan([str(root) for root in path])
        (row,) = select(scan, wanted=["mine"]).rows
        assert (row.state, row.version, row.editable) == ("enabled", "1.0", True)


def test_what_is_not_a_directory_on_the_path_is_passed_over(
    tmp_path: Path, environment: Environment
) -> None:
    (tmp_path / "file.txt").write_text("")
    scan = discovery.scan(
        [str(tmp_path / "missing"), str(tmp_path / "file.txt"), str(environment.root)]
    )
    assert scan == Scan((), ())


def test_what_the_import_system_passes_over_on_the_path_is_passed_over(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.plugin("healthy")
    odd: list[Any] = [environment.root, b"/tmp", None, 5, "a\0b", "/tmp/\udcff"]
    monkeypatch.setattr(sys, "path", [*odd, *sys.path, str(environment.root)])
    assert "healthy" in [candidate.name for candidate in discovery.scan().candidates]
    assert discovery.scan(odd) == Scan((), ())


# --- editable installs ----------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["pth", "finder"])
def test_an_editable_install_is_found_and_said_to_be_one(
    tmp_path: Path, environment: Environment, style: str
) -> None:
    """Both ways in which build backends do it: a path entry, or a finder on sys.meta_path."""
    source = tmp_path / "source"
    sources = type(environment)(source)
    sources.package("edited_plugin")
    sources.manifest("edited_plugin", {"edited": {"tools": []}})
    info = environment.distribution(
        "edited", "[mcpd_core.plugins.any]\nedited = edited_plugin.plugin\n"
    )
    (info / "direct_url.json").write_text(
        json.dumps({"url": source.as_uri(), "dir_info": {"editable": True}})
    )
    if style == "pth":
        (environment.root / "edited.pth").write_text(f"{source}\n")
    else:
        (environment.root / "edited.pth").write_text(
            "import edited_finder; edited_finder.install()"
        )
        environment.write(
            "edited_finder.py",
            f"""
import sys
from importlib.util import spec_from_file_location
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "edited_plugin":
            return spec_from_file_location(name, {str(source / "edited_plugin" / "__init__.py")!r})
def install():
    sys.meta_path.append(Finder)
""",
        )
    script = f"""
        import json, site, sys
        site.addsitedir({str(environment.root)!r})
        from mcpd_core import discovery, selection
        (row,) = selection.select(discovery.scan(), wanted=["edited"]).enabled
        print(json.dumps([row.to_json(), str(row.manifest_path), "edited_plugin" in sys.modules]))
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    row, manifest, imported = json.loads(answer.stdout)
    assert row["editable"] is True
    assert row["state"] == "enabled"
    assert Path(manifest) == source / "edited_plugin" / "mcpd_plugin.json"
    assert not imported


@pytest.mark.parametrize("record", [None, "{", "[]", '{"dir_info": {}}', '{"dir_info": 1}'])
def test_without_a_record_an_installation_is_not_editable(
    environment: Environment, record: str | None
) -> None:
    environment.plugin("plain")
    if record is not None:
        environment.write("dist_plain-1.0.dist-info/direct_url.json", record)
    (row,) = select(environment.scan(), wanted=None).rows
    assert row.editable is False


# --- what is wrong with a plugin ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ("trioo", "mcpd_core.plugins.trioo: unknown runtime; did you mean trio?"),
        ("gevent", "mcpd_core.plugins.gevent: unknown runtime; known are asyncio, trio, any."),
    ],
)
def test_an_unknown_runtime_is_shown(environment: Environment, group: str, reason: str) -> None:
    environment.distribution("typo", f"[mcpd_core.plugins.{group}]\ntypo = typo.plugin\n")
    found = only(environment.scan())
    assert (found.runtime, found.problem) == (group, reason)


def test_a_bad_line_breaks_only_itself(environment: Environment) -> None:
    environment.distribution(
        "mixed",
        b"stray line\n[console_scripts]\nno equals sign\n# comment\n[mcpd_core.plugins.any]\n"
        b"good = mixed.plugin\nbroken line\nbad = not-a-module\n = mixed.plugin\n"
        b"f\xffn = mixed.plugin\ndots = mixed..plugin\n",
    )
    environment.package("mixed")
    scan = environment.scan()
    problems = {candidate.name: candidate.problem for candidate in scan.candidates}
    assert problems.pop("good") == ""
    assert problems.pop("broken line").startswith("The line 7 of its entry_points.txt has no '='")
    assert problems.pop("bad") == (
        "Its entry point 'not-a-module' is neither `module` nor `module:attribute`."
    )
    assert problems.pop("dots").startswith("Its entry point 'mixed..plugin' is neither")
    assert problems.pop("").startswith("The line 9 of its entry_points.txt names no plugin")
    assert problems.pop("f\ufffdn").startswith("The line 10 of its entry_points.txt names no")
    assert problems == {}
    assert "not valid UTF-8" in scan.faults[0].problem


def test_code_that_is_gone_is_a_problem(environment: Environment) -> None:
    environment.distribution("ghost", "[mcpd_core.plugins.any]\nghost = ghost_package.plugin\n")
    assert only(environment.scan()).problem == (
        "Its code cannot be found: there is no importable module 'ghost_package'. "
        "Reinstall it: pip install --force-reinstall ghost"
    )


def test_a_manifest_that_cannot_be_read_is_a_problem(environment: Environment) -> None:
    package = environment.plugin("secret")
    path = environment.root / package / "mcpd_plugin.json"
    path.write_text("{")
    found = only(environment.scan())
    assert found.problem.startswith("The manifest of plugin 'secret' is not valid: it is not JSON")
    assert found.manifest_path == path


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that root cannot read either")
def test_a_manifest_that_the_system_refuses_is_a_problem(environment: Environment) -> None:
    package = environment.plugin("secret")
    path = environment.root / package / "mcpd_plugin.json"
    path.unlink()
    path.symlink_to("/proc/self/mem")
    assert only(environment.scan()).problem.startswith("Its manifest cannot be read (OSError: ")


def test_a_finder_that_fails_explains_why_code_is_not_found(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrecked:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            if name.startswith("ghost"):
                raise RuntimeError("finder is wrecked")

    environment.distribution("ghost", "[mcpd_core.plugins.any]\nghost = ghost_package.plugin\n")
    monkeypatch.syspath_prepend(str(environment.root))
    monkeypatch.setattr(sys, "meta_path", [object(), Wrecked, *sys.meta_path])
    (found,) = (c for c in discovery.scan().candidates if c.name == "ghost")
    assert "failed (RuntimeError: finder is wrecked)" in found.problem


# --- what is wrong with a distribution ------------------------------------------------------------


def test_damaged_distributions_hide_nothing_and_are_named(environment: Environment) -> None:
    environment.plugin("healthy")
    environment.distribution("bad-bytes", b"[console_scripts]\nx = a:b\n# \xff\n")
    environment.distribution("bad-line", "[console_scripts]\nx a:b\n")
    environment.distribution("no-metadata", "[console_scripts]\nx = a:b\n", metadata=False)
    environment.write(".dist-info/INSTALLER", "")
    environment.distribution("~alf-removed", "[mcpd_core.plugins.any]\nhalf = half.plugin\n")
    environment.distribution("~ad-removed", "[console_scripts]\nx\n")
    environment.write("distutils_style-1.0.egg-info", "Name: distutils-style\n")
    scan = environment.scan()
    assert [candidate.name for candidate in scan.candidates] == ["healthy"]
    faults = {fault.distribution: fault for fault in scan.faults}
    assert set(faults) == {"bad_bytes", "bad_line", "no_metadata", ".dist-info", "~ad_removed"}
    assert faults["bad_bytes"].problem == "line 3 of its entry_points.txt is not valid UTF-8"
    assert faults["bad_line"].problem == "line 2 of its entry_points.txt has no '=': 'x a:b'"
    assert faults["bad_line"].mend == "Reinstall it: pip install --force-reinstall bad_line"
    assert faults["no_metadata"].problem == "its METADATA file is missing"
    assert faults[".dist-info"].mend.endswith(f"remove {environment.root / '.dist-info'}")
    assert "remains" in faults["~ad_removed"].mend
    assert str(environment.root / "bad_line-1.0.dist-info") in str(faults["bad_line"])


def test_two_distributions_of_one_name_in_one_directory_are_a_fault(
    environment: Environment,
) -> None:
    environment.plugin("twice", distribution="twice-dist", version="1.0")
    environment.distribution("twice-dist", version="2.0")
    environment.distribution("~wice-dist", version="3.0")
    scan = environment.scan()
    assert [(c.name, c.version) for c in scan.candidates] == [("twice", "1.0")]
    (fault,) = (fault for fault in scan.faults if not fault.fatal)
    assert fault.path == str(environment.root / "twice_dist-2.0.dist-info")
    assert fault.problem.startswith("twice_dist-1.0.dist-info beside it describes the same")
    assert "pip uninstall -y" in fault.mend


def test_the_same_directory_twice_on_the_path_is_no_fault(environment: Environment) -> None:
    environment.plugin("once")
    scan = discovery.scan([str(environment.root), str(environment.root)])
    assert (len(scan.candidates), scan.faults) == (1, ())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_in_the_place_of_a_file_does_not_hold_up_the_scan(
    environment: Environment,
) -> None:
    environment.plugin("healthy")
    info = environment.distribution("piped", metadata=False)
    os.mkfifo(info / "entry_points.txt")
    os.mkfifo(info / "METADATA")
    assert only(environment.scan()).name == "healthy"


def test_names_that_nobody_can_see_are_shown_without_what_is_invisible(
    environment: Environment,
) -> None:
    environment.plugin("healthy")
    info = environment.distribution(
        "sly", "[mcpd_core.plugins.any]\nhea\u200blthy = sly.plugin\n".encode()
    )
    (info / "METADATA").write_bytes("Name: sly\u202e\nVersion: 1\x1b[2J\n\n".encode())
    environment.package("sly")
    (sly,) = (c for c in environment.scan().candidates if c.problem)
    assert (sly.name, sly.distribution, sly.version) == ("healthy", "sly", "1[2J")
    assert sly.problem == "The name 'hea\\u200blthy' has characters in it that nobody can see."


def test_one_manifest_with_an_impossible_schema_breaks_one_plugin(
    environment: Environment,
) -> None:
    environment.plugin("healthy", tools=["fine"])
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(300):
        schema = {"type": "object", "properties": {"a": schema}}
    environment.plugin("deep", tools=[{"name": "d", "entry": "m:d", "input_schema": schema}])
    wrong = {"type": "object", "properties": 5}
    environment.plugin("wrong", tools=[{"name": "w", "entry": "m:w", "output_schema": wrong}])
    inventory = select(environment.scan(), wanted=None)
    assert [spec.name for spec in inventory.specs()] == ["fine"]
    reasons = {row.name: row.reason for row in inventory.rows if row.state == "broken"}
    assert "is nested more than 99 levels deep" in reasons["deep"]
    assert "output_schema.properties: must be an object of schemas, not 5" in reasons["wrong"]


def test_a_plugin_without_metadata_still_works(environment: Environment) -> None:
    environment.plugin("torn", distribution="torn-dist", version="4.2")
    (environment.root / "torn_dist-4.2.dist-info" / "METADATA").unlink()
    scan = environment.scan()
    assert (only(scan).distribution, only(scan).version) == ("torn_dist", "4.2")
    assert only(scan).problem == ""
    assert [fault.distribution for fault in scan.faults] == ["torn_dist"]


@pytest.mark.parametrize("name", ["entry_points.txt", "METADATA"])
def test_files_that_cannot_be_read_are_faults(environment: Environment, name: str) -> None:
    environment.plugin("locked")
    path = environment.root / "dist_locked-1.0.dist-info" / name
    path.unlink()
    path.mkdir()  # reading a directory fails for root as well
    scan = environment.scan()
    assert "cannot be read (IsADirectoryError" in scan.faults[-1].problem
    assert len(scan.candidates) == (1 if name == "METADATA" else 0)


def test_a_foreign_finder_of_distributions_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class InMemory(importlib.metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            return {
                "METADATA": "Name: in-memory\nVersion: 7\n\n",
                "entry_points.txt": "[mcpd_core.plugins.any]\nmemory = json\n",
            }.get(filename)

        def locate_file(self, path: Any) -> Any:
            raise AssertionError

    class Finder:
        @staticmethod
        def find_distributions(context: object) -> Iterator[InMemory]:
            yield InMemory()
            raise RuntimeError("wrecked")

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    scan = discovery.scan()
    (found,) = (candidate for candidate in scan.candidates if candidate.name == "memory")
    assert (found.distribution, found.version, found.problem) == ("in-memory", "7", "")
    (fault,) = (fault for fault in scan.faults if fault.distribution == "Finder")
    assert "RuntimeError: wrecked" in fault.problem


def test_the_current_directory_is_searched_under_its_empty_name(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.plugin("here")
    monkeypatch.chdir(environment.root)
    assert only(discovery.scan([""])).problem == ""
    assert os.getcwd() == str(environment.root)


def test_an_undamaged_environment_reads_as_importlib_metadata_reads_it() -> None:
    expected = {
        (entry.group.removeprefix("mcpd_core.plugins."), entry.name, entry.value, found.version)
        for found in importlib.metadata.distributions()
        for entry in found.entry_points
        if entry.group.startswith("mcpd_core.plugins.")
    }
    assert expected, "no plugin is installed here"
    assert {
        (c.runtime, c.name, c.entry, c.version) for c in discovery.scan().candidates
    } == expected
