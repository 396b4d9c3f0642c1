"""Which schemas are none, and how precisely that is said."""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_core.json_schema import MAX_DEPTH, Known, SchemaProblem, check, cleaned


def problem(schema: object) -> str:
    with pytest.raises(SchemaProblem) as caught:
        check(schema)
    return f"{caught.value.place}: {caught.value.problem}"


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("keywords", "where"),
    [
        ({"type": "array"}, '.type: must be "object", not "array"'),
        ({"properties": 5}, ".properties: must be an object of schemas, not 5"),
        ({"properties": None}, ".properties: must be an object of schemas, not null"),
        ({"properties": {"a": 3}}, ".properties.a: must be a schema, not 3"),
        ({"properties": {"a": {"items": [1]}}}, ".properties.a.items.0: must be a schema, not 1"),
        ({"properties": {"a\x1b": {}}}, "the name 'a\\x1b' has characters in it that nobody can"),
        ({"x\u202e": 1}, "the name 'x\\u202e' has characters in it that nobody can see"),
        ({"required": "x"}, '.required: must be an array of strings, not "x"'),
        ({"required": [1]}, ".required: must be an array of strings, not [1]"),
        ({"required": ["a", "a"]}, ".required: names the same twice"),
        ({"required": ["a\u200b"]}, ".required: the name"),
        ({"$schema": 5}, ".$schema: must be a string, not 5"),
        ({"$defs": 3}, ".$defs: must be an object of schemas, not 3"),
        ({"$defs": {"a": {"type": "strin"}}}, ".$defs.a.type: must be one of array, boolean, "),
        ({"not": {"type": []}}, ".not.type: must be one of array, boolean, "),
        ({"not": {"type": ["null", "null"]}}, ".not.type: names the same twice"),
        ({"anyOf": []}, ".anyOf: must be an array of schemas, not []"),
        ({"anyOf": {}}, ".anyOf: must be an array of schemas, not {}"),
        ({"items": 1}, ".items: must be a schema, not 1"),
        ({"enum": []}, ".enum: allows nothing"),
        ({"enum": "a"}, '.enum: must be an array, not "a"'),
        ({"title": 1}, ".title: must be a string, not 1"),
        ({"description": ["x"]}, '.description: must be a string, not ["x"]'),
        ({"pattern": 1}, ".pattern: must be a string, not 1"),
        ({"$anchor": 1}, ".$anchor: must be a string, not 1"),
        ({"$id": 1}, ".$id: must be a string, not 1"),
        ({"maximum": "9"}, '.maximum: must be a number, not "9"'),
        ({"exclusiveMinimum": True}, ".exclusiveMinimum: must be a number, not true"),
        ({"minimum": -math.inf}, ".minimum: must be a finite number, not -inf"),
        ({"multipleOf": 0}, ".multipleOf: must be a positive number, not 0"),
        ({"minLength": -1}, ".minLength: must be a whole number from 0 on, not -1"),
        ({"maxItems": 1.5}, ".maxItems: must be a whole number from 0 on, not 1.5"),
        ({"uniqueItems": 1}, ".uniqueItems: must be true or false, not 1"),
        ({"dependentRequired": []}, ".dependentRequired: must be an object, not []"),
        ({"dependentRequired": {"a": "b"}}, ".dependentRequired: must be an array of strings"),
        ({"default": {"a": [math.nan]}}, ".default: must be a finite number, not nan"),
        ({"default": "\ud800"}, ".default: is a text that no encoding can carry"),
        ({"const": {"\udcff": 1}}, ".const: is a text that no encoding can carry"),
        ({"const": {1}}, ".const: cannot be JSON: it is a set"),
        ({1: 1}, ".1: has a name that is no string: 1"),
        ({"$ref": "http://elsewhere"}, 'the $ref "http://elsewhere" leads out of the schema'),
        ({"$ref": "#/$defs/gone"}, 'the $ref "#/$defs/gone" leads nowhere'),
        ({"allOf": [{"$ref": "#/allOf/7"}]}, 'the $ref "#/allOf/7" leads nowhere'),
        ({"$ref": "#somewhere"}, 'the $ref "#somewhere" leads nowhere'),
        ({"title": "t", "$ref": "#/title"}, 'the $ref "#/title" leads nowhere'),
    ],
)
def test_what_no_client_can_use_is_refused_with_the_place(
    keywords: dict[Any, Any], where: str
) -> None:
    assert where in problem({"type": "object", **keywords})


@pytest.mark.parametrize("schema", [None, [], True, "object", object()])
def test_the_root_is_an_object(schema: object) -> None:
    assert ": must be an object, not " in problem(schema)


@pytest.mark.parametrize(
    "keywords",
    [
        {"properties": {"a": True, "b": False, "c": {}}},
        {"$defs": {"a/b~c d": {}}, "$ref": "#/$defs/a~1b~0c%20d"},
        {"$defs": {"a": {"$anchor": "here"}}, "not": {"$ref": "#here"}},
        {"allOf": [{"not": {}}, {"$ref": "#/allOf/0/not"}, {"$ref": "#"}]},
        {"$id": "https://a.example/s", "$ref": "https://a.example/s#/$defs/x"},
        {"items": [{}, {}], "examples": [], "x-anything": {"properties": 5}},
        {"maximum": 10**400, "default": 10**400, "maxItems": 2.0},
        {"dependentRequired": {"a": ["b"]}, "properties": {"type": {"type": ["null", "string"]}}},
    ],
)
def test_what_the_specification_allows_is_left_as_it_is(keywords: dict[str, Any]) -> None:
    schema = {"type": "object", **keywords}
    before = copy.deepcopy(schema)
    assert check(schema) is schema
    assert schema == before


def test_nesting_ends_before_libraries_do() -> None:
    assert check(nested(MAX_DEPTH // 2))
    for schema in (nested(MAX_DEPTH // 2 + 1), nested(300)):
        assert f"is nested more than {MAX_DEPTH} levels deep" in problem(schema)
    data: Any = 1
    for _ in range(300):
        data = [{"a": data}]
    assert "is nested more than" in problem({"type": "object", "default": data})
    combined: Any = {}
    for _ in range(300):
        combined = {"anyOf": [combined]}
    assert "is nested more than" in problem({"type": "object", **combined})


def test_a_copy_is_cleaned_whether_it_is_sound_or_not() -> None:
    schema = {"type": "object", "title": "a\x1b", "properties": 5}
    assert cleaned(schema) == {"type": "object", "title": "a", "properties": 5}
    assert schema["title"] == "a\x1b"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from(["", "a", "string", "#", "#/"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["a", "type", "properties", "items", "required", "$ref", "allOf", "enum", "minimum"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["properties", "$defs", "anyOf", "not"]), values))
def test_what_passes_is_a_schema_by_the_specification_too(keywords: dict[str, Any]) -> None:
    schema = {"type": "object", **keywords}
    try:
        check(schema)
    except SchemaProblem:
        return
    jsonschema: Any = importlib.import_module("jsonschema")
    jsonschema.Draft202012Validator.check_schema(_without_lists_of_items(schema))


def _without_lists_of_items(value: Any) -> Any:
    """The one thing that is let pass although the specification calls it otherwise now."""
    if isinstance(value, dict):
        return {
            key: _without_lists_of_items(item)
            for key, item in value.items()
            if not (key == "items" and isinstance(item, list))
        }
    return [_without_lists_of_items(item) for item in value] if isinstance(value, list) else value


# --- what several schemas have in common ----------------------------------------------------------


def with_argument(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


def test_arguments_of_one_kind_share_their_schema() -> None:
    known: Known = {}
    first, second, third = (
        check(with_argument({"type": kind, "description": "How\x1b many."}), known)["properties"]
        for kind in ("integer", "integer", "number")
    )
    assert first["a"] is second["a"]
    assert first["a"] == {"type": "integer", "description": "How many."}
    assert third["a"] == {"type": "number", "description": "How many."}


@pytest.mark.parametrize("one", [True, 1, 1.0])
def test_what_only_looks_equal_is_kept_apart(one: Any) -> None:
    known: Known = {}
    for other in (True, 1, 1.0):
        check(with_argument({"default": other}), known)
    (kept,) = check(with_argument({"default": one}), known)["properties"].values()
    assert repr(kept["default"]) == repr(one)


@pytest.mark.parametrize(
    "schema",
    [{"type": "nonsense"}, {"$ref": "#/$defs/gone"}, {"minimum": float("nan")}, {"enum": {1, 2}}],
)
def test_what_is_wrong_is_found_however_often_it_comes(schema: Any) -> None:
    known: Known = {}
    check({**with_argument({"$ref": "#/$defs/gone"}), "$defs": {"gone": {}}}, known)
    for _ in range(2):
        with pytest.raises(SchemaProblem):
            check(with_argument(copy.deepcopy(schema)), known)


def test_a_known_schema_counts_only_where_it_can_be_nested_as_deep() -> None:
    known: Known = {}
    deep: dict[str, Any] = {}
    for _ in range((MAX_DEPTH - 3) // 2):
        deep = {"not": {"not": deep}}
    check(with_argument(copy.deepcopy(deep)), known)
    with pytest.raises(SchemaProblem, match="nested"):
        check(with_argument({"not": {"not": deep}}), known)
