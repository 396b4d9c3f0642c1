"""What may be marked as a resource or a prompt, and what a manifest may say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mcpd_core import (
    Context,
    ManifestError,
    PluginLoadError,
    PromptArgument,
    PromptSpec,
    ResourceSpec,
    prompt,
    resource,
    tool,
)
from mcpd_core.content.functions import PromptFunction, ResourceFunction
from mcpd_core.discovery import scan
from mcpd_core.manifest import parse, render
from mcpd_core.manifest_writer import generate
from mcpd_core.plugin_check import check
from mcpd_core.registrar import ToolRegistrar
from mcpd_core.selection import select
from mcpd_core.testing import WritePlugin

if TYPE_CHECKING:
    from core.tests.conftest import Environment


def suggest(prefix: str) -> list[str]:
    return [prefix]


# Registering looks a function up by its name, so these stand at the top of the module.


@resource("one://{x}", complete={"x": suggest})
async def template(x: str) -> str:
    """A template."""
    return x


@resource("one://fixed")
def fixed() -> str:
    """One URI of the template, in its own right."""
    return ""


@resource("one://{y}")
async def same_template(y: str) -> str:
    return y


@prompt
async def ask(question: str, times: int = 1) -> str:
    """Ask."""
    return question * times


@prompt(name="ask")
async def ask_again() -> str:
    return ""


@tool
async def act() -> str:
    return ""


# --- marks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "problem"),
    [
        (lambda: resource("no uri"), "is not a URI or a URI template"),
        (lambda: resource("x:y", timeout=0)(suggest), "resource 'x:y': timeout is 0"),
        (lambda: prompt(timeout=-1)(suggest), "prompt 'suggest': timeout is -1"),
        (lambda: prompt(name="a b")(suggest), "'a b' is not a prompt name"),
    ],
)
def test_a_mark_refuses_what_cannot_be(mark: Callable[[], Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        mark()


def test_a_marked_function_stays_a_function() -> None:
    assert fixed() == ""


# --- functions ------------------------------------------------------------------------------------


def missing_parameter() -> str:
    return ""


def other_parameter(y: str) -> str:
    return y


def listed(x: list[str]) -> str:
    return ""


def unknown(x: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    return ""


def generator(x: str) -> Any:
    yield x


def many(*x: str) -> str:
    return ""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (missing_parameter, "'x:{x}' has the placeholders x, and the function the parameters none"),
        (other_parameter, "has the placeholders x, and the function the parameters y"),
        (listed, "parameter 'x' is no single value"),
        (unknown, "name 'Nowhere' is not defined"),
        (generator, "is a generator, which cannot be a resource"),
        (many, "parameter 'x' cannot be passed by name"),
    ],
)
def test_a_function_that_cannot_be_a_resource(function: Any, problem: str) -> None:
    with pytest.raises(PluginLoadError) as error:
        ResourceFunction(resource("x:{x}")(function), plugin="p", runtime="asyncio")
    assert problem in error.value.message
    assert function.__name__ in error.value.message


def nothing_taken() -> list[str]:
    return []


def unknown_other(prefix: str, z: str = "") -> list[str]:
    return []


def other_without_default(prefix: str, y: str) -> list[str]:
    return []


def only_context(ctx: Context) -> list[str]:
    return []


@pytest.mark.parametrize(
    ("complete", "problem"),
    [
        ({"z": suggest}, "'z' is to be completed and is no parameter"),
        ({"x": "suggest"}, "the completion of 'x' is no function"),
        ({"x": nothing_taken}, "the completion of 'x' does not take what has been typed so far"),
        ({"x": only_context}, "the completion of 'x' does not take what has been typed so far"),
        ({"x": unknown_other}, "the completion of 'x' takes 'z', which is no other parameter"),
        ({"x": other_without_default}, "the completion of 'x' takes 'y', which is no other"),
    ],
)
def test_a_completion_that_could_not_be_called(complete: Any, problem: str) -> None:
    def function(x: str, y: str) -> str:
        return ""

    marked = prompt(complete=complete)(function)
    with pytest.raises(PluginLoadError) as error:
        PromptFunction(marked, plugin="p", runtime="asyncio")
    assert problem in error.value.message


def test_what_carries_no_mark_is_neither() -> None:
    for kind in (ResourceFunction, PromptFunction):
        with pytest.raises(PluginLoadError, match="is not a"):
            kind(suggest, plugin="p", runtime="asyncio")
        with pytest.raises(PluginLoadError, match="is a function, and this is a str"):
            kind("text", plugin="p", runtime="asyncio")  # type: ignore[arg-type]


# --- registering ----------------------------------------------------------------------------------


def registrar() -> ToolRegistrar:
    return ToolRegistrar("p", "asyncio")


def test_functions_are_taken_up_by_their_marks() -> None:
    taken = registrar()
    for function in (ask, template, fixed, act, template):
        taken.add(function)
    assert [spec.name for spec in taken.specs] == ["act"]
    assert [spec.uri for spec in taken.resources] == ["one://fixed", "one://{x}"]
    assert taken.resources[1].complete == ("x",)
    assert taken.prompts == (
        PromptSpec(
            name="ask",
            entry=f"{__name__}:ask",
            plugin="p",
            title="Ask",
            description="Ask.",
            arguments=(PromptArgument("question", required=True), PromptArgument("times")),
        ),
    )


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (template, same_template, "'one://{x}' matches the same URIs as 'one://{y}'"),
        (ask, ask_again, "the name 'ask' is taken by another prompt already"),
    ],
)
def test_a_plugin_claims_nothing_twice(first: Any, second: Any, problem: str) -> None:
    taken = registrar()
    taken.add(first)
    with pytest.raises(PluginLoadError, match="cannot be a") as error:
        taken.add(second)
    assert problem in error.value.message


def test_what_belongs_to_another_runtime_or_nowhere_is_refused() -> None:
    @resource("x:y")
    async def local() -> str:
        return ""

    @prompt(runtime="trio")
    async def trio_prompt() -> str:
        return ""

    with pytest.raises(PluginLoadError, match="cannot be imported by its name"):
        registrar().add(local)
    trio_prompt.__qualname__ = "stray"
    globals()["stray"] = trio_prompt
    with pytest.raises(PluginLoadError, match="'trio' cannot be served by a plugin of 'asyncio'"):
        registrar().add(trio_prompt)


# --- manifests ------------------------------------------------------------------------------------


def manifest(**plugin: Any) -> bytes:
    return json.dumps({"schema": 1, "api": 1, "plugins": {"p": plugin}}).encode()


RESOURCE = {"uri": "x:{y}", "name": "y", "entry": "m:f"}
PROMPT = {"name": "ask", "entry": "m:f"}


def test_a_manifest_is_read_as_it_was_written() -> None:
    taken = registrar()
    for function in (ask, template, fixed):
        taken.add(function)
    found = parse(manifest(resources=[RESOURCE], prompts=[PROMPT]), plugin="p", runtime="asyncio")
    assert found.resources == (ResourceSpec("x:{y}", "y", "m:f", "p"),)
    assert found.prompts == (PromptSpec("ask", "m:f", "p"),)
    text = render([found])
    assert parse(text.encode(), plugin="p", runtime="asyncio") == found
    assert json.loads(text)["plugins"]["p"]["resources"] == [RESOURCE]


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        ({"resources": {}}, "plugins.p.resources: must be an array"),
        ({"resources": [1]}, "plugins.p.resources[0]: must be an object"),
        ({"resources": [{}]}, "plugins.p.resources[0]: has no uri"),
        ({"resources": [{**RESOURCE, "uri": 1}]}, "resources[0].uri: must be a string"),
        ({"resources": [{**RESOURCE, "uri": "y"}]}, "does not begin with a scheme"),
        ({"resources": [{**RESOURCE, "name": None}]}, "resources[0]: has no name"),
        ({"resources": [{**RESOURCE, "complete": ["z"]}]}, "'z' is no placeholder"),
        ({"resources": [RESOURCE, {**RESOURCE, "uri": "x:{z}"}]}, "matches the same URIs as"),
        ({"resources": [RESOURCE, RESOURCE]}, "matches the same URIs as"),
        ({"resources": [{**RESOURCE, "runtime": "trio"}]}, "cannot be served by a plugin"),
        ({"prompts": [{**PROMPT, "name": "a b"}]}, "prompts[0].name: 'a b' is not a prompt name"),
        ({"prompts": [{"name": "a"}]}, "plugins.p.prompts[0]: has no entry"),
        ({"prompts": [PROMPT, PROMPT]}, "the name 'ask' is taken by another prompt already"),
        ({"prompts": [{**PROMPT, "complete": ["z"]}]}, "'z' is no argument"),
        ({"prompts": [{**PROMPT, "arguments": [{}]}]}, "arguments[0].name: must be a string"),
        (
            {"prompts": [{**PROMPT, "arguments": [{"name": "a"}, {"name": "a"}]}]},
            "the argument 'a' is there already",
        ),
        (
            {"prompts": [{**PROMPT, "arguments": [{"name": "a", "required": 1}]}]},
            "arguments[0].required: must be true or false",
        ),
    ],
)
def test_a_manifest_that_is_not_proper_is_refused(plugin: dict[str, Any], problem: str) -> None:
    with pytest.raises(ManifestError) as error:
        parse(manifest(**plugin), plugin="p", runtime="asyncio")
    assert problem in error.value.message.replace('"', "'")


def test_what_cannot_be_seen_is_taken_out() -> None:
    item = {**PROMPT, "title": "a\nb", "description": "c\u202ed"}
    (found,) = parse(manifest(prompts=[item]), plugin="p", runtime="asyncio").prompts
    assert (found.title, found.description) == ("a b", "cd")


# --- the commands of authors ----------------------------------------------------------------------

SOURCE = """
    from mcpd_core import prompt, resource

    @resource("one://{x}")
    async def one(x: str) -> str:
        '''One.'''
        return x

    @prompt
    async def two() -> str:
        '''Two.'''
        return ""
"""


def test_the_manifest_is_made_from_the_code(tmp_plugin: WritePlugin) -> None:
    planted = tmp_plugin(SOURCE, name="mine")
    plugin = json.loads(planted.manifest.read_text())["plugins"]["mine"]
    assert plugin["tools"] == []
    assert plugin["resources"] == [
        {
            "uri": "one://{x}",
            "name": "one",
            "title": "One",
            "description": "One.",
            "entry": f"{planted.package}.tools:one",
        }
    ]
    (described,) = generate(planted.project)
    assert not described.stale
    planted.manifest.write_text(planted.manifest.read_text().replace("Two.", "Too."))
    (described,) = generate(planted.project)
    assert described.changes() == ["prompt 'two' of plugin 'mine' has changed"]


def test_two_plugins_of_one_project_claim_nothing_twice(tmp_plugin: WritePlugin) -> None:
    planted = tmp_plugin(SOURCE, name="mine")
    project = planted.project / "pyproject.toml"
    project.write_text(project.read_text() + f'other = "{planted.entry}"\n')
    with pytest.raises(PluginLoadError, match="both offer the prompt 'two'"):
        generate(planted.project)


def test_a_check_compares_manifest_and_code(tmp_plugin: WritePlugin) -> None:
    planted = tmp_plugin(SOURCE, name="mine")
    assert check("mine", scan=scan([str(planted.path)])) == []
    document = json.loads(planted.manifest.read_text())
    plugin = document["plugins"]["mine"]
    plugin["resources"][0]["mime_type"] = "text/plain"
    gone = {"name": "three", "entry": f"{planted.package}.tools:three"}
    plugin["prompts"] = [gone]
    planted.manifest.write_text(json.dumps(document))
    findings = [
        (finding.level, finding.message)
        for finding in check("mine", scan=scan([str(planted.path)]))
    ]
    assert (
        "error",
        "The manifest is stale: prompt 'two' is in the code, but not in the manifest.",
    ) in findings
    assert (
        "error",
        "The manifest is stale: resource 'one://{x}' differs in mime_type.",
    ) in findings
    assert any(message.startswith("The prompt 'three': ") for _, message in findings)


def test_a_resource_without_description_is_worth_a_warning(tmp_plugin: WritePlugin) -> None:
    planted = tmp_plugin(SOURCE.replace("'''One.'''", "pass"), name="mine")
    (finding,) = check("mine", scan=scan([str(planted.path)]))
    assert finding.level == "warning"
    assert finding.message.startswith("The resource 'one://{x}' has no description")


def test_listing_counts_tools_only(tmp_plugin: WritePlugin) -> None:
    planted = tmp_plugin(SOURCE, name="mine")
    (row,) = select(scan([str(planted.path)]), wanted=None).rows
    assert (len(row.resources), len(row.prompts)) == (1, 1)
    assert row.to_json()["tools"] == 0


def test_listing_imports_nothing(environment: Environment) -> None:
    # Its modules end the process when they are imported.
    environment.plugin("bomb", resources=[RESOURCE], prompts=[PROMPT])
    (row,) = select(environment.scan(), wanted=None).rows
    assert row.state == "enabled"
    assert [spec.uri for spec in row.resources] == ["x:{y}"]
    assert [spec.name for spec in row.prompts] == ["ask"]
