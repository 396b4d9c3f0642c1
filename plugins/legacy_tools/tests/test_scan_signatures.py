"""From the head of a function to the schema of its arguments."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_legacy_tools.records import Parameter
from mcpd_legacy_tools.scan.annotations import schema_of
from mcpd_legacy_tools.scan.literals import NotLiteral, value_of
from mcpd_legacy_tools.scan.scope import scope_of
from mcpd_legacy_tools.scan.signatures import documented_schema

from .scan_kit import Draft202012Validator, tool_of

IMPORTS = """
import datetime as dt
import enum
import pathlib
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, date
from enum import Enum
from pathlib import Path
from typing import *
from typing import Any, Dict, List, Literal, NewType, Optional, Tuple, TypedDict, TypeVar, Union

class Colour(Enum):
    RED = "red"
    BLUE = "blue"
    _ignore_ = []

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

class Style(TypedDict, total=False):
    width: int
    text: Required[str]

@dataclass
class Point:
    x: float
    y: float = 0.0
    labels: List[str] = field(default_factory=list)
    next: Optional["Point"] = None

@dataclass
class Place:
    name: str

@dataclass
class City(Place):
    country: str = field(default="a")

class Engine:
    pass

Name = NewType("Name", str)
Number = Union[int, float]
Kind = TypeVar("Kind", int, str)
"""

STRING, INTEGER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}
POINT = {
    "type": "object",
    "properties": {
        "x": {"type": "number"},
        "y": {"type": "number", "default": 0.0},
        "labels": {"type": "array", "items": STRING},
        "next": {"anyOf": [{"type": "object"}, NULL], "default": None},
    },
    "required": ["x"],
}


def schema(annotation: str) -> dict[str, Any]:
    source = f"{IMPORTS}\ndef function(parameter: {annotation}): ..."
    module = ast.parse(source)
    scope = scope_of(module, source.encode().splitlines())
    made = schema_of(scope.functions["function"].args.args[0].annotation, scope)
    Draft202012Validator.check_schema(made)
    return made


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("str", STRING),
        ("'str'", STRING),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("None", NULL),
        ("Any", {}),
        ("object", {}),
        ("Unknown", {}),
        ("some.where.Unknown[int]", {}),
        ("Optional[str]", {"anyOf": [STRING, NULL]}),
        ("t.Optional['int']", {"anyOf": [INTEGER, NULL]}),
        ("str | None", {"anyOf": [STRING, NULL]}),
        ("int | str | None", {"anyOf": [INTEGER, STRING, NULL]}),
        ("Union[int, Union[str, int]]", {"anyOf": [INTEGER, STRING]}),
        ("Optional[Any]", {}),
        ("Optional[Optional[int]]", {"anyOf": [INTEGER, NULL]}),
        ("List[int]", {"type": "array", "items": INTEGER}),
        ("list", {"type": "array"}),
        ("Sequence[List[str]]", {"type": "array", "items": {"type": "array", "items": STRING}}),
        ("Set[int]", {"type": "array", "uniqueItems": True, "items": INTEGER}),
        ("Tuple[int, ...]", {"type": "array", "items": INTEGER}),
        (
            "Tuple[int, str]",
            {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2},
        ),
        ("Tuple[()]", {"type": "array", "maxItems": 0}),
        ("Dict[str, int]", {"type": "object", "additionalProperties": INTEGER}),
        ("Mapping[str, Any]", {"type": "object"}),
        ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
        ("Literal[1, 'a', None, True]", {"enum": [1, "a", None, True]}),
        ("Literal[b'a']", {}),
        ("Annotated[int, 'how many']", {"type": "integer", "description": "how many"}),
        ("Annotated[str, Field(description='a name')]", {**STRING, "description": "a name"}),
        ("Path", {"type": "string", "format": "path"}),
        ("pathlib.Path", {"type": "string", "format": "path"}),
        ("datetime", {"type": "string", "format": "date-time"}),
        ("dt.datetime", {"type": "string", "format": "date-time"}),
        ("date", {"type": "string", "format": "date"}),
        ("bytes", {"type": "string", "contentEncoding": "base64"}),
        ("Colour", {"type": "string", "enum": ["red", "blue"]}),
        ("Level", {"type": "integer", "enum": [1, 2]}),
        (
            "Style",
            {
                "type": "object",
                "properties": {"width": INTEGER, "text": STRING},
                "required": ["text"],
            },
        ),
        ("Point", POINT),
        (
            "City",
            {
                "type": "object",
                "properties": {"name": STRING, "country": {**STRING, "default": "a"}},
                "required": ["name"],
            },
        ),
        ("Name", STRING),
        ("Number", {"anyOf": [INTEGER, {"type": "number"}]}),
        ("Kind", {"anyOf": [INTEGER, STRING]}),
        ("Engine", {}),
        ("1 + 1", {}),
        ("'not a type'", {}),
        ("lambda: 0", {}),
    ],
)
def test_what_annotations_mean(annotation: str, expected: dict[str, Any]) -> None:
    assert schema(annotation) == expected


@pytest.mark.parametrize(
    ("default", "value"),
    [
        ("1", 1),
        ("-1.5", -1.5),
        ("'a' + 'b'", "ab"),
        ("[1, 'a', None]", [1, "a", None]),
        ("(1, 2)", [1, 2]),
        ("{'a': {'b': True}}", {"a": {"b": True}}),
        ("60 * 60", 3600),
        ("2 ** 10", 1024),
        ("not True", False),
        ("dict()", {}),
        ("list()", []),
        ("LIMIT", 5),
    ],
)
def test_defaults_that_are_stated(tmp_path: Path, default: str, value: object) -> None:
    tool = tool_of(tmp_path, f"LIMIT = 5\ndef function(parameter={default}): ...\n")
    assert tool.input_schema["properties"]["parameter"]["default"] == value
    assert "required" not in tool.input_schema


@pytest.mark.parametrize(
    "default",
    [
        "float('inf')",
        "1e999",
        "os.getcwd()",
        "b'a'",
        "2 ** 99999",
        "1 / 0",
        "'\\ud800'",
        "10 ** 40",
    ],
)
def test_defaults_that_only_the_code_knows(tmp_path: Path, default: str) -> None:
    tool = tool_of(tmp_path, f"import os\ndef function(parameter={default}): ...\n")
    parameter = tool.input_schema["properties"]["parameter"]
    assert "default" not in parameter
    assert parameter["description"] == f"Default: {default}."
    assert "required" not in tool.input_schema


def test_none_as_default_makes_null_a_value(tmp_path: Path) -> None:
    tool = tool_of(tmp_path, "def function(parameter: str = None): ...\n")
    expected = {"anyOf": [STRING, NULL], "default": None}
    assert tool.input_schema["properties"]["parameter"] == expected


def test_every_kind_of_parameter(tmp_path: Path) -> None:
    tool = tool_of(tmp_path, "def f(a, /, b: int, *rest: str, c, d=1, **more: int): ...\n")
    assert tool.input_schema == {
        "type": "object",
        "properties": {"a": {}, "b": INTEGER, "c": {}, "d": {"type": "number", "default": 1}},
        "required": ["a", "b", "c"],
        "additionalProperties": INTEGER,
    }
    assert tool.parameters == (
        Parameter("a", "positional"),
        Parameter("b", "either", "int"),
        Parameter("rest", "args", "str"),
        Parameter("c", "keyword"),
        Parameter("d", "keyword", "", "1"),
        Parameter("more", "kwargs", "int"),
    )
    assert [p.name for p in tool.parameters if p.required] == ["a", "b", "c"]


def test_anything_more_is_refused_unless_the_code_takes_it(tmp_path: Path) -> None:
    assert tool_of(tmp_path, "def f(): ...").input_schema["additionalProperties"] is False
    assert tool_of(tmp_path, "def f(**k): ...").input_schema["additionalProperties"] is True


def test_a_parameter_that_no_client_can_give_is_left_out_when_it_has_a_default(
    tmp_path: Path,
) -> None:
    source = """
    from typing import Callable, Optional
    class Service: ...
    def f(a: int, call: Optional[Callable[[int], None]] = None, service: "Callable" = None,
          other: Service = None, last: Callable | None = None): ...
    """
    assert set(tool_of(tmp_path, source).input_schema["properties"]) == {"a"}


def test_the_docstring_describes_parameters_and_gives_types(tmp_path: Path) -> None:
    source = '''
    def f(a, b, c, d, e=1):
        """Do it.

        Args:
            a (str): One.
            b (list of strings, optional): Two.
            c (int or None): Three.
            d ({'x', 'y'}): Four.
            e: Five.
        """
    '''
    assert tool_of(tmp_path, source).input_schema["properties"] == {
        "a": {**STRING, "description": "One."},
        "b": {"type": "array", "items": STRING, "description": "Two."},
        "c": {"anyOf": [INTEGER, NULL], "description": "Three."},
        "d": {**STRING, "enum": ["x", "y"], "description": "Four."},
        "e": {"type": "number", "default": 1, "description": "Five."},
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("string", STRING),
        ("int, default 5", INTEGER),
        ("`bool`, optional", {"type": "boolean"}),
        ("dictionary", {"type": "object"}),
        ("list of dict", {"type": "array", "items": {"type": "object"}}),
        ("str or Path", {"anyOf": [STRING, {"type": "string", "format": "path"}]}),
        ("array of widgets", {"type": "array"}),
        ("a thing", {}),
        ("str or a thing", {}),
        ("None", NULL),
        ("", {}),
    ],
)
def test_types_in_words(words: str, expected: dict[str, Any]) -> None:
    module = ast.parse("from pathlib import Path")
    assert documented_schema(words, scope_of(module, [])) == expected


def test_pydantic_fields_are_seen_through(tmp_path: Path) -> None:
    source = """
    from pydantic import Field
    def f(a: int = Field(5, ge=1), b: str = Field(default="x"),
          c: list = Field(default_factory=list), d: str = Field(description="none")): ...
    """
    properties = tool_of(tmp_path, source).input_schema["properties"]
    assert [properties[name].get("default") for name in "abcd"] == [5, "x", [], None]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is that of Python 3.12")
def test_type_statements(tmp_path: Path) -> None:
    tool = tool_of(tmp_path, "type Name = str | None\ndef f[T](a: Name, b: T): ...\n")
    assert tool.input_schema["properties"] == {"a": {"anyOf": [STRING, NULL]}, "b": {}}


def test_several_lines_of_a_signature(tmp_path: Path) -> None:
    source = '''
    def f(
        größe: Dict[
            str, List[int]
        ] = None,
    ) -> Dict[
        str, int
    ]:
        """Measure."""
    '''
    tool = tool_of(tmp_path, source)
    assert tool.parameters[0].annotation == "Dict[ str, List[int] ]"
    assert tool.returns == "Dict[ str, int ]"


ATOMS = st.sampled_from(
    "str int Any None Colour Point Engine Path 'Point' ... 1 'x' Unknown Kind Name [int]".split()
)
GENERICS = st.sampled_from(
    "Optional Union List Dict Tuple Set Literal Annotated Callable Type Mapping t.List".split()
)
ANNOTATIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(
            "{}[{}]".format, GENERICS, st.lists(inner, min_size=1, max_size=3).map(", ".join)
        ),
        st.builds("{} | {}".format, inner, inner),
    ),
    max_leaves=12,
)


@given(ANNOTATIONS)
def test_any_annotation_has_a_sound_schema(annotation: str) -> None:
    try:
        ast.parse(annotation, mode="eval")
    except SyntaxError:
        return
    schema(annotation)


@given(st.text(max_size=80))
def test_any_words_for_a_type_have_a_sound_schema(words: str) -> None:
    Draft202012Validator.check_schema(documented_schema(words, scope_of(ast.parse(""), [])))


LITERALS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner)),
    max_leaves=10,
)


@given(LITERALS)
def test_a_value_is_told_as_json_or_not_at_all(literal: object) -> None:
    node = ast.parse(repr(literal), mode="eval").body
    try:
        told = value_of(node)
    except NotLiteral:
        return
    import json

    assert json.loads(json.dumps(told, allow_nan=False).encode()) == told


def test_classes_of_classes_are_described_within_bounds(tmp_path: Path) -> None:
    classes = [
        f"@dataclass\nclass C{i}:\n" + "".join(f"    f{j}: 'C{i + 1}'\n" for j in range(20))
        for i in range(30)
    ]
    source = "from dataclasses import dataclass\n" + "\n".join(classes) + "\ndef f(a: C0): ...\n"
    tool = tool_of(tmp_path, source)
    assert len(str(tool.input_schema)) < 40_000
