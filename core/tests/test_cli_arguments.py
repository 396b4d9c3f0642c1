"""How ``key=value`` is read: by the type that the tool's schema gives the argument."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_core import InvalidArguments
from mcpd_core.cli.arguments import parse_arguments

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "flag": {"type": "boolean"},
        "items": {"type": "array"},
        "options": {"type": "object"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"type": ["integer", "string"]},
        "colour": {"enum": ["red", "green"]},
        "level": {"enum": [1, 2.5, True, None, [], {}]},
        "fixed": {"const": 7},
        "nested": {"$ref": "#/$defs/Nested"},
        "lost": {"$ref": "#/$defs/Gone"},
        "loop": {"$ref": "#/$defs/Loop"},
        "anything": {},
        "partly": {"anyOf": [{"type": "integer"}, {}]},
        "true_schema": True,
    },
    "$defs": {"Nested": {"type": "object"}, "Loop": {"$ref": "#/$defs/Loop"}},
}


def one(pair: str) -> Any:
    arguments = parse_arguments([pair], None, SCHEMA)
    assert len(arguments) == 1
    return next(iter(arguments.values()))


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("text=5", "5"),
        ("text=true", "true"),
        ("text=", ""),
        ("text=a=b", "a=b"),
        ("count=5", 5),
        ("count=-5", -5),
        ("ratio=5", 5),
        ("ratio=1e-3", 0.001),
        ("flag=true", True),
        ("flag=False", False),
        ("items=[1, 2]", [1, 2]),
        ('options={"a": 1}', {"a": 1}),
        ("maybe=null", None),
        ("maybe=text", "text"),
        ("either=5", 5),
        ("either=five", "five"),
        ("colour=red", "red"),
        ("level=2", 2),
        ("level=2.5", 2.5),
        ("level=true", True),
        ("level=null", None),
        ("level=[]", []),
        ("fixed=7", 7),
        ('nested={"a": []}', {"a": []}),
        # Where the schema does not say: JSON when it reads as such, else text.
        ("lost=5", 5),
        ("loop=x", "x"),
        ("anything=[1]", [1]),
        ("anything=[1", "[1"),
        ("anything=NaN", "NaN"),
        ("partly=x", "x"),
        ("true_schema=1", 1),
        ("unknown=1", 1),
    ],
)
def test_a_value_is_read_by_its_type(pair: str, value: Any) -> None:
    assert one(pair) == value
    assert type(one(pair)) is type(value)


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        ("count=5.5", "count=5.5: 'count' takes a whole number"),
        ("count=true", "'count' takes a whole number"),
        ("count=", "'count' takes a whole number"),
        ("ratio=NaN", "'ratio' takes a number"),
        ("flag=1", "'flag' takes true or false"),
        ("items=1,2", "'items' takes a JSON array"),
        ("options=[]", "'options' takes a JSON object"),
        ("level=red", "'level' takes a whole number or a number or true or false or null"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_that_says_what_fits(
    pair: str, complaint: str
) -> None:
    with pytest.raises(InvalidArguments, match=complaint):
        one(pair)


@pytest.mark.parametrize("pair", ["text", "=x", ""])
def test_a_pair_needs_a_key_and_an_equals_sign(pair: str) -> None:
    with pytest.raises(InvalidArguments, match="is not of the form key=value"):
        parse_arguments([pair], None, SCHEMA)


def test_pairs_are_laid_over_the_whole() -> None:
    assert parse_arguments(["count=2"], '{"count": 1, "text": "x"}', SCHEMA) == {
        "count": 2,
        "text": "x",
    }


def test_without_a_schema_values_are_json_where_they_can_be() -> None:
    assert parse_arguments(["a=1", "b=x"], None, None) == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("whole", "complaint"), [("{", "--args is not JSON"), ("[1]", "--args is not a JSON object")]
)
def test_the_whole_must_be_a_json_object(whole: str, complaint: str) -> None:
    with pytest.raises(InvalidArguments, match=complaint):
        parse_arguments([], whole, SCHEMA)
