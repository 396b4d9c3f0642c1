"""What a manifest may say, and how precisely a wrong one is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_core.errors import ManifestError, PluginLoadError
from mcpd_core.manifest import PluginManifest, checked, parse, parse_tools, render, render_tool
from mcpd_core.spec import Annotations, RuntimeName, ToolSpec
from mcpd_core.text import clean, one_line

TOOL = {"name": "greet", "entry": "pkg.tools:greet"}


def document(plugin: Any = None, **head: Any) -> bytes:
    plugins = {"p": {"tools": [TOOL]} if plugin is None else plugin}
    return json.dumps({"schema": 1, "api": 1, "plugins": plugins, **head}).encode()


def with_tool(**facts: Any) -> bytes:
    return document({"tools": [{**TOOL, **facts}]})


def read(content: bytes, runtime: RuntimeName = "asyncio", requires: str = "") -> PluginManifest:
    return parse(content, plugin="p", runtime=runtime, requires_core=requires)


def test_what_is_left_out_has_a_default() -> None:
    assert read(document(), "trio") == PluginManifest(
        name="p",
        runtime="trio",
        tools=(
            ToolSpec(
                name="greet",
                description="",
                input_schema={"type": "object", "properties": {}, "additionalProperties": False},
                entry="pkg.tools:greet",
                plugin="p",
                runtime="trio",
            ),
        ),
    )


def test_unknown_keys_are_for_a_later_version() -> None:
    content = document(
        {"tools": [{**TOOL, "icon": "x", "annotations": {"novel": 1}}], "colour": "red"}, extra={}
    )
    assert [spec.name for spec in read(content).tools] == ["greet"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "it is not JSON (Expecting property name"),
        (b"\xff\xfe\xff", "it is not JSON ("),
        (b"[" * 100_000, "it is not JSON ("),
        (b"[]", "must be an object, not []"),
        (document(schema="1"), 'schema: must be a positive integer, not "1"'),
        (document(api=True), "api: must be a positive integer, not true"),
        (document(api=0), "api: must be a positive integer, not 0"),
        (document(plugins=[]), "plugins: must be an object, not []"),
        (document(plugins={}), "plugins: describes no plugin, but not 'p'"),
        (document(plugins={"q": {}, "o": {}}), "plugins: describes o, q, but not 'p'"),
        (document([1]), "plugins.p: must be an object, not [1]"),
        (
            document({"runtime": "trio"}),
            "plugins.p.runtime: says \"trio\", but the entry point is in the group of 'asyncio'",
        ),
        (document({"bundles": "p2p"}), 'plugins.p.bundles: must be an array, not "p2p"'),
        (document({"hooks": ["a", 1]}), "plugins.p.hooks[1]: must be a string, not 1"),
        (document({"metadata_provider": 1}), "plugins.p.metadata_provider: must be a string"),
        (document({"commands": ["x"]}), 'plugins.p.commands[0]: must be an object, not "x"'),
        (document({"tools": {}}), "plugins.p.tools: must be an array, not {}"),
        (document({"tools": [1]}), "plugins.p.tools[0]: must be an object, not 1"),
        (document({"tools": [{}]}), "plugins.p.tools[0]: has no name"),
        (document({"tools": [{"name": "x"}]}), "plugins.p.tools[0]: tool 'x' has no entry"),
        (with_tool(name="a.b"), 'plugins.p.tools[0].name: "a.b" is not a tool name'),
        (with_tool(name="x" * 65), "is not a tool name"),
        (with_tool(entry="pkg"), 'tools[0].entry: "pkg" is not of the form `module:function`'),
        (with_tool(entry="p k:f"), "is not of the form `module:function`"),
        (with_tool(aliases=["ok", "no way"]), 'tools[0].aliases[1]: "no way" is not an alias'),
        (with_tool(aliases=["greet"]), "tools[0]: the name 'greet' is taken by plugins.p.tools[0]"),
        (with_tool(tags=[1]), "tools[0].tags[0]: must be a string, not 1"),
        (with_tool(timeout=0), "timeout: must be a positive number of seconds, not 0"),
        (with_tool(timeout=True), "timeout: must be a positive number of seconds, not true"),
        (with_tool(timeout="5"), 'timeout: must be a positive number of seconds, not "5"'),
        (with_tool(timeout=1e8), "timeout: 100000000.0 seconds are more than a year (31536000)"),
        (with_tool(timeout=10**400), "seconds are more than a year"),
        (with_tool(timeout=float("inf")), "it is not JSON (Infinity is no number)"),
        (with_tool(x=float("nan")), "it is not JSON (NaN is no number)"),
        (
            with_tool(input_schema={"type": "object", "properties": {"a": 3}}),
            "tools[0].input_schema.properties.a: must be a schema, not 3",
        ),
        (
            with_tool(output_schema={"type": "object", "$schema": 5}),
            "tools[0].output_schema.$schema: must be a string, not 5",
        ),
        (with_tool(long_running=1), "long_running: must be true or false, not 1"),
        (with_tool(annotations={"read_only": 1}), "annotations.read_only: must be true or false"),
        (with_tool(input_schema={"type": "array"}), 'input_schema.type: must be "object", not "ar'),
        (with_tool(output_schema=[]), "output_schema: must be an object, not []"),
        (with_tool(runtime="curio"), "runtime: must be one of asyncio, trio, any"),
        (with_tool(runtime="trio"), "'trio' cannot be served by a plugin of 'asyncio'"),
        (with_tool(placement="moon"), 'placement: must be one of loop, thread, process, not "moon'),
        (with_tool(description=["x" * 99]), f'must be a string, not ["{"x" * 55}...'),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(content: bytes, problem: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(content)
    assert caught.value.message.startswith("The manifest of plugin 'p' is not valid: ")
    assert problem in caught.value.message
    assert "mcpd plugins manifest DIR" in caught.value.hint
    assert caught.value.plugin == "p"


def test_two_tools_of_one_plugin_cannot_share_a_name() -> None:
    twice = {"tools": [TOOL, {**TOOL, "name": "other", "aliases": ["greet"]}]}
    with pytest.raises(ManifestError, match="the name 'greet' is taken by plugins.p.tools"):
        read(document(twice))


@pytest.mark.parametrize(("key", "what"), [("schema", "manifest format"), ("api", "plugin interf")])
def test_a_manifest_for_a_newer_core_says_which(key: str, what: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(document(**{key: 2}), requires=">=2.1")
    assert "Plugin 'p' needs mcpd-core>=2.1: it is made for " + what in caught.value.message
    assert "knows" in caught.value.message
    assert caught.value.hint == "Upgrade it: pip install --upgrade 'mcpd-core>=2.1'"
    with pytest.raises(ManifestError, match="needs a newer mcpd-core"):
        read(document(**{key: 2}))


@pytest.mark.parametrize(
    ("group", "own", "fits"),
    [
        ("any", "trio", True),
        ("any", "asyncio", True),
        ("trio", "any", True),
        ("asyncio", "any", True),
        ("trio", "asyncio", False),
    ],
)
def test_a_tool_may_differ_from_the_group_only_through_neutral_code(
    group: RuntimeName, own: RuntimeName, fits: bool
) -> None:
    if fits:
        assert read(with_tool(runtime=own), group).tools[0].runtime == own
    else:
        with pytest.raises(ManifestError, match="cannot be served by"):
            read(with_tool(runtime=own), group)


def test_tools_of_a_provider_are_checked_like_those_of_a_manifest() -> None:
    assert parse_tools([TOOL], plugin="p", runtime="any")[0].runtime == "any"
    with pytest.raises(ManifestError, match=r"not described properly: tools\[0\]: has no name"):
        parse_tools([{}], plugin="p", runtime="any")


def test_a_tool_whose_manifest_does_not_say_where_it_runs_runs_on_the_loop() -> None:
    (spec,) = read(document()).tools
    assert spec.placement == "loop"
    threaded = replace(spec, placement="thread")
    assert "placement" not in render_tool(spec, runtime="asyncio")
    assert render_tool(threaded, runtime="asyncio")["placement"] == "thread"


def test_texts_are_cleaned_where_they_are_read() -> None:
    evil = "a\x1b[2J\u202eb\u200b\U000e0041c\x9d"
    schema = {"type": "object", "title": evil, "properties": {"x": {"description": evil}}}
    content = with_tool(
        title=f"{evil}\n{evil}",
        description=f"{evil}\n\t{evil}",
        category=evil,
        tags=[evil],
        input_schema={**schema, "default": {"description": evil}},
    )
    (spec,) = read(content).tools
    good = "a[2Jbc"
    assert spec.title == f"{good} {good}"
    assert spec.description == f"{good}\n\t{good}"
    assert (spec.category, spec.tags) == (good, (good,))
    assert spec.input_schema["title"] == good
    assert spec.input_schema["properties"]["x"]["description"] == good
    assert spec.input_schema["default"] == {"description": evil}  # a value, not a text about it


def test_code_with_an_invisible_character_in_a_text_does_not_make_its_manifest_stale() -> None:
    schema = {"type": "object", "properties": {"x": {"description": "An\u200bx."}}}
    code = ToolSpec("t", "De\u200bscribed.", schema, "m:t", "p", title="T\x07", tags=("a\nb",))
    (read_back,) = read(render([PluginManifest("p", "asyncio", (code,))]).encode()).tools
    assert render_tool(read_back, runtime="any") == render_tool(code, runtime="any")
    assert code.input_schema["properties"]["x"]["description"] == "An\u200bx."  # left alone


class Trap(dict[str, Any]):
    """Comes out of a provider; looking into it runs the provider's code."""

    def items(self) -> Any:
        raise SystemExit(3)


def test_what_a_provider_returns_is_copied_before_it_is_trusted() -> None:
    tool: dict[str, Any] = {**TOOL, "input_schema": {"type": "object"}, "tags": ("a", "b")}
    (spec,) = parse_tools((tool,), plugin="p", runtime="any")
    tool["input_schema"]["type"] = "array"
    assert spec.input_schema == {"type": "object"}
    endless: list[Any] = []
    endless.append(endless)
    for item in (Trap(x=1), object(), endless, {("a",): 1}, float("nan")):
        with pytest.raises(ManifestError, match="it cannot be JSON"):
            parse_tools([item], plugin="p", runtime="any")


def test_a_provider_cannot_offer_two_tools_of_one_name() -> None:
    with pytest.raises(ManifestError, match=r"the name 'greet' is taken by tools\[0\] already"):
        parse_tools([TOOL, TOOL], plugin="p", runtime="any")


def test_contracts_made_by_code_come_out_as_a_manifest_would_give_them() -> None:
    schema = MappingProxyType({"type": "object"})
    spec = ToolSpec("t", "T.", schema, "m:t", "other", annotations=Annotations(read_only=True))
    assert checked([spec], plugin="p", runtime="asyncio") == (
        replace(spec, plugin="p", input_schema={"type": "object"}),
    )


@pytest.mark.parametrize("value", [math.inf, math.nan, {1, 2}])
def test_what_json_cannot_carry_is_not_written_and_the_tool_is_named(value: object) -> None:
    schema = {"type": "object", "properties": {"n": {"default": value}}}
    spec = ToolSpec("t", "", schema, "m:t", "p")
    with pytest.raises(PluginLoadError, match="The contract of tool 't' of plugin 'p' cannot be w"):
        render([PluginManifest("p", "asyncio", (spec,))])


def test_rendering_leaves_out_defaults_and_sorts() -> None:
    plain = ToolSpec(
        "b", "", {"type": "object", "properties": {}, "additionalProperties": False}, "m:b", "p"
    )
    assert render_tool(plain, runtime="asyncio") == {"name": "b", "entry": "m:b"}
    rich = ToolSpec(
        "a",
        "Grüßt.",
        {"type": "object", "properties": {"n": {"type": "integer"}}},
        "m:a",
        "p",
        annotations=Annotations(read_only=True, open_world=False),
        runtime="any",
        placement="thread",
        timeout=1.5,
        long_running=True,
        aliases=("x",),
        tags=("t",),
    )
    text = render([PluginManifest("p", "asyncio", (plain, rich), hooks=("z", "y"))])
    assert text.endswith("}\n")
    document = json.loads(text)
    assert list(document) == ["schema", "api", "plugins"]
    assert document["plugins"]["p"] == {
        "runtime": "asyncio",
        "hooks": ["y", "z"],
        "tools": [
            {
                "name": "a",
                "description": "Grüßt.",
                "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
                "annotations": {"read_only": True, "open_world": False},
                "runtime": "any",
                "placement": "thread",
                "entry": "m:a",
                "timeout": 1.5,
                "long_running": True,
                "aliases": ["x"],
                "tags": ["t"],
            },
            {"name": "b", "entry": "m:b"},
        ],
    }
    assert "Grüßt" in text


def test_properties_stand_in_the_order_of_the_parameters() -> None:
    properties = {"zeta": {"type": "string"}, "alpha": {"type": "string"}}
    spec = ToolSpec("t", "", {"type": "object", "properties": properties}, "m:t", "p")
    text = render([PluginManifest("p", "asyncio", (spec,))])
    assert text.index("zeta") < text.index("alpha")


names = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
#: Texts come out of a manifest clean, so that only clean ones can come out as they went in.
texts = st.text(st.characters(codec="utf-8"), max_size=20).map(clean)
lines = texts.map(one_line)
words = st.lists(lines, max_size=3).map(tuple)


@st.composite
def manifests(draw: st.DrawFn) -> PluginManifest:
    runtime: RuntimeName = draw(st.sampled_from(("asyncio", "trio", "any")))
    own = ("asyncio", "trio", "any") if runtime == "any" else (runtime, "any")
    every = draw(st.lists(names, unique=True, max_size=6))
    split = draw(st.integers(0, len(every)))
    specs = [
        ToolSpec(
            name=name,
            description=draw(texts),
            input_schema=draw(st.fixed_dictionaries({"type": st.just("object"), "title": lines})),
            entry="pkg.tools:function",
            plugin="p",
            title=draw(lines),
            category=draw(lines),
            output_schema=draw(st.none() | st.just({"type": "object"})),
            annotations=Annotations(*draw(st.tuples(*[st.booleans()] * 4))),
            runtime=draw(st.sampled_from(own)),
            placement=draw(st.sampled_from(("loop", "thread", "process"))),
            timeout=draw(st.none() | st.floats(0.001, 1e6)),
            long_running=draw(st.booleans()),
            aliases=tuple(every[split:]) if i == 0 else (),
            tags=draw(words),
            listed=draw(st.booleans()),
        )
        for i, name in enumerate(sorted(every[:split]))
    ]
    return PluginManifest(
        "p",
        runtime,
        tuple(specs),
        bundles=tuple(sorted(draw(words))),
        hooks=tuple(sorted(draw(words))),
        metadata_provider=draw(st.none() | st.just("pkg.scanner")),
    )


@given(manifests())
def test_what_was_rendered_is_read_back(manifest: PluginManifest) -> None:
    text = render([manifest])
    again = parse(text.encode(), plugin="p", runtime=manifest.runtime)
    assert again == manifest
    assert render([again]) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
keys = st.sampled_from(
    ("runtime", "tools", "bundles", "hooks", "metadata_provider", "commands", "name", "entry")
)


@given(st.dictionaries(keys, json_values | st.just([TOOL])), st.dictionaries(keys, json_values))
def test_whatever_a_manifest_holds_is_read_or_refused(
    plugin: dict[str, Any], tool: dict[str, Any]
) -> None:
    for content in (document(plugin), document({"tools": [{**TOOL, **tool}]})):
        try:
            assert isinstance(read(content), PluginManifest)
        except ManifestError:
            continue  # refused, and not with any other exception


def test_many_tools_keep_what_they_have_in_common_once() -> None:
    items = [
        {
            "name": f"t{n}",
            "entry": "m:f",
            "source": "/srv/tools/" + "a.py",
            "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
        }
        for n in range(250)
    ]
    specs = parse_tools(items, plugin="p", runtime="asyncio")
    assert [spec.name for spec in specs] == [f"t{n}" for n in range(250)]
    assert len({id(spec.input_schema["properties"]["a"]) for spec in specs}) == 1
    assert len({id(spec.source) for spec in specs}) == 1
    assert len({id(spec.annotations) for spec in specs}) == 1
    # They are nobody else's: what a provider does with its items later changes nothing.
    items[0]["input_schema"]["properties"]["a"]["type"] = "string"  # type: ignore[index]
    assert specs[0].input_schema["properties"]["a"] == {"type": "integer"}
