"""From a plugin's sources to its manifest, and the check for drift."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from mcpd_core.errors import ManifestError, McpdError, PluginLoadError
from mcpd_core.manifest import parse
from mcpd_core.manifest_writer import ManifestFile, generate

PROJECT = """
[project]
name = "mcpd-sample"
[project.entry-points."mcpd_core.plugins.trio"]
sample = "PKG.plugin"
[project.entry-points.console_scripts]
sample = "PKG.cli:main"
[tool.mcpd]
bundles = ["p2p"]
"""

PLUGIN = """
from mcpd_core import hookimpl

@hookimpl
def mcpd_register_tools(registrar):
    registrar.add_module("PKG.tools")

@hookimpl
def mcpd_services():
    return []
"""

TOOLS = """
from typing import Annotated
from pydantic import Field
from mcpd_core import Context, tool

@tool(category="demo", read_only=True, tags=["t"])
async def later(
    ctx: Context, seconds: Annotated[float, Field(description="How long.", ge=0)] = 1.5
) -> dict[str, float]:
    '''Wait a while.

    Indented.
    '''
    return {}

@tool(timeout=5)
def at_once(text: str) -> str:
    '''Say it back.'''
    return text
"""


class Source:
    """The source directory of a plugin whose package has a name of its own in each test."""

    def __init__(self, root: Path, package: str) -> None:
        self.root = root
        self.package = package

    def write(self, name: str, text: str) -> Path:
        path = self.root / name.replace("PKG", self.package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("PKG", self.package))
        return path


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Source]:
    name = request.node.name
    # Names of parametrised tests can be longer than those of files.
    package = "".join(c if c.isalnum() else "_" for c in name[:60]) + f"_{crc32(name.encode())}"
    source = Source(tmp_path / "sample", package)
    source.write("pyproject.toml", PROJECT)
    source.write("src/PKG/__init__.py", "")
    source.write("src/PKG/plugin.py", PLUGIN)
    source.write("src/PKG/tools.py", TOOLS)
    path = list(sys.path)
    yield source
    assert sys.path == path
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            del sys.modules[name]


def one(source: Source) -> ManifestFile:
    (file,) = generate(source.root)
    return file


def test_the_manifest_says_what_the_code_says(source: Source) -> None:
    file = one(source)
    assert file.path == source.root / "src" / source.package / "mcpd_plugin.json"
    assert file.stale
    assert file.changes() == [f"{file.path} is missing"]
    manifest = parse(file.text.encode(), plugin="sample", runtime="trio")
    assert (manifest,) == file.plugins
    assert manifest.bundles == ("p2p",)
    assert manifest.hooks == ("mcpd_services",)
    at_once, later = manifest.tools
    assert (at_once.name, at_once.placement, at_once.timeout) == ("at_once", "thread", 5)
    assert (later.name, later.placement, later.runtime) == ("later", "loop", "trio")
    assert later.entry == f"{source.package}.tools:later"
    assert later.description == "Wait a while.\n\nIndented."
    assert later.annotations.read_only
    assert list(later.input_schema["properties"]) == ["seconds"]


def test_writing_twice_changes_nothing(source: Source) -> None:
    assert one(source).write()
    written = one(source)
    assert not written.stale
    assert written.changes() == []
    before = written.path.stat().st_mtime_ns
    assert not written.write()
    assert written.path.stat().st_mtime_ns == before
    assert written.path.read_bytes() == written.text.encode()
    assert os.listdir(written.path.parent).count("mcpd_plugin.json") == 1
    assert not [name for name in os.listdir(written.path.parent) if name.startswith(".")]


def test_drift_is_told_tool_by_tool(source: Source) -> None:
    file = one(source)
    assert file.write()
    path = file.path
    path.write_text(
        path.read_text()
        .replace('"name": "later"', '"name": "former"')
        .replace("Say it back.", "Say it.")
        .replace('"api": 1', '"api": 0')
        .replace("mcpd_services", "mcpd_settings")
    )
    assert one(source).changes() == [
        "plugin 'sample' has changed",
        "the head of the file has changed",
        "tool 'at_once' of plugin 'sample' has changed",
        "tool 'former' of plugin 'sample' is gone",
        "tool 'later' of plugin 'sample' is new",
    ]
    path.write_text(file.text + "\n")
    assert one(source).changes() == [f"{path} is not written as `mcpd plugins manifest` writes it"]
    path.write_text("[]")
    assert "the whole file is gone" in one(source).changes()


def test_several_plugins_share_the_manifest_of_their_package(source: Source) -> None:
    source.write(
        "pyproject.toml",
        """
[project.entry-points."mcpd_core.plugins.trio"]
sample = "PKG.plugin"
[project.entry-points."mcpd_core.plugins.asyncio"]
second = "PKG.second : Second"
[tool.mcpd]
bundles = ["p2p"]
[tool.mcpd.plugins.second]
bundles = []
metadata-provider = "PKG.scanner"
""",
    )
    source.write("src/PKG/second.py", "class Second:\n    pass\n")
    sample, second = one(source).plugins
    assert (sample.name, sample.bundles, sample.metadata_provider) == ("sample", ("p2p",), None)
    assert (second.name, second.bundles, second.tools) == ("second", (), ())
    assert second.metadata_provider == f"{source.package}.scanner"


def test_a_flat_layout_works_too(source: Source) -> None:
    (source.root / "src" / source.package).rename(source.root / source.package)
    assert one(source).path == source.root / source.package / "mcpd_plugin.json"


def refusal(source: Source, kind: type[McpdError] = PluginLoadError) -> str:
    with pytest.raises(kind) as caught:
        generate(source.root)
    return str(caught.value)


def test_a_directory_without_pyproject_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"pyproject.toml cannot be read: No such file"):
        generate(tmp_path)


@pytest.mark.parametrize(
    ("project", "reason"),
    [
        ("[project", "pyproject.toml is not valid: "),
        ("[project]\nname = 'x'", "declares no plugin. Add [project.entry-points."),
        (
            '[project.entry-points."mcpd_core.plugins.trioo"]\nx = "PKG.plugin"',
            "whose runtime 'trioo' is unknown. Known are asyncio, trio, any.",
        ),
        (
            f"{PROJECT}bundle = []",
            "[tool.mcpd] has the unknown key 'bundle'. Did you mean 'bundles",
        ),
        (f"{PROJECT}xyz = 1", "[tool.mcpd] has the unknown key 'xyz'."),
        (
            f"{PROJECT}[tool.mcpd.plugins.sample]\nprovider = 'x'",
            "[tool.mcpd.plugins.sample] has the unknown key 'provider'.",
        ),
        (PROJECT.replace('["p2p"]', '"p2p"'), "bundles must be an array of strings."),
        (PROJECT.replace('["p2p"]', "[1]"), "bundles must be an array of strings."),
        (f"{PROJECT}metadata-provider = 1", "metadata-provider must be the name of a module."),
        (PROJECT.replace('"PKG.plugin"', '"json"'), "is imported from "),
        (
            PROJECT.replace('"PKG.plugin"', '"PKG_module"'),
            "has no room for a manifest. Make it a package",
        ),
    ],
)
def test_a_project_that_does_not_fit_is_refused(source: Source, project: str, reason: str) -> None:
    source.write("pyproject.toml", project)
    source.write("src/PKG_module.py", "")
    assert reason in refusal(source, McpdError)


def replaced(source: Source, name: str, text: str) -> str:
    source.write(f"src/PKG/{name}.py", text)
    return refusal(source)


def test_code_that_does_not_fit_is_refused(source: Source) -> None:
    assert "SystemExit" not in replaced(source, "plugin", "import sys; sys.exit(1)")


@pytest.mark.parametrize(
    ("module", "text", "reason"),
    [
        ("plugin", "import sys; sys.exit(1)", "it called sys.exit(1)"),
        ("plugin", "x = 1", "PKG.plugin of plugin 'sample' implements no hook."),
        ("plugin", PLUGIN.replace("mcpd_services", "mcpd_service"), "Did you mean mcpd_services?"),
        ("tools", "raise ValueError('no luck')", "it raised ValueError: no luck"),
        ("tools", "x = 1", "PKG.tools defines no tool, no resource and no prompt."),
        (
            "tools",
            TOOLS.replace("timeout=5", "runtime='asyncio'"),
            "PKG.tools:at_once is a tool for asyncio, but the plugin 'sample' is in the",
        ),
        (
            "tools",
            TOOLS.replace("timeout=5", "name='later'"),
            "PKG.tools:later and PKG.tools:at_once are both called 'later'.",
        ),
    ],
)
def test_code_that_cannot_be_described_is_refused(
    source: Source, module: str, text: str, reason: str
) -> None:
    assert reason.replace("PKG", source.package) in replaced(source, module, text)


def test_an_entry_point_that_leads_nowhere_is_refused(source: Source) -> None:
    source.write("pyproject.toml", PROJECT.replace("PKG.plugin", "no_such_package.plugin"))
    assert "leads nowhere: there is no importable module 'no_such_package'" in refusal(source)


def test_another_copy_of_the_package_is_not_taken_for_this_one(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    (copy / source.package).mkdir(parents=True)
    (copy / source.package / "__init__.py").write_text("")
    (copy / source.package / "plugin.py").write_text("")
    with monkeypatch.context() as context:
        context.syspath_prepend(str(copy))
        __import__(f"{source.package}.plugin")
    assert f"was imported from {copy}" in refusal(source)


def test_plugins_of_one_directory_cannot_share_a_tool_name(source: Source) -> None:
    source.write(
        "pyproject.toml",
        PROJECT.replace("[tool.mcpd]", "[tool.mcpd]").replace(
            'sample = "PKG.plugin"\n[project.entry-points.console',
            'sample = "PKG.plugin"\ntwin = "PKG.twin"\n[project.entry-points.console',
        ),
    )
    source.write("src/PKG/twin.py", PLUGIN)
    assert "The plugins 'sample' and 'twin' both offer a tool" in refusal(source)


def test_the_same_bytes_come_from_every_python(source: Source) -> None:
    """The schema of a tool is a matter of its annotations, not of the interpreter."""
    text: Any = one(source).text
    assert '"description": "How long."' in text
    assert text.endswith("}\n")
    assert "\r" not in text
