"""Arguments: what is read as what, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import pytest

from mcpd_core import InvalidArguments
from mcpd_legacy_tools.running.annotations import converters
from mcpd_legacy_tools.running.arguments import Arguments

INTEGER, NUMBER, FLAG, TEXT = ({"type": t} for t in ("integer", "number", "boolean", "string"))
NUMBERS = {"type": "array", "items": INTEGER}
OBJECT = {"type": "object"}


def schema(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def problems(refused: InvalidArguments) -> dict[str, str]:
    return {p["argument"]: p["problem"] for p in refused.data["problems"]}


def refused(arguments: Arguments, given: Mapping[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidArguments) as caught:
        arguments.check(given)
    return problems(caught.value)


@pytest.mark.parametrize(
    ("wanted", "given", "read"),
    [
        (INTEGER, "5", 5),
        (INTEGER, " -7 ", -7),
        (INTEGER, 5.0, 5),
        (NUMBER, 5.0, 5.0),
        (NUMBER, "2.5", 2.5),
        (NUMBER, "1e3", 1000.0),
        (NUMBER, "3", 3),
        (FLAG, "true", True),
        (FLAG, "False", False),
        (FLAG, 1, True),
        (TEXT, 5, "5"),
        (TEXT, 2.5, "2.5"),
        (TEXT, "5", "5"),
        (TEXT, "[1]", "[1]"),
        (NUMBERS, "[1, 2]", [1, 2]),
        (NUMBERS, ["1", 2], [1, 2]),
        (OBJECT, '{"a": 1}', {"a": 1}),
        ({"anyOf": [INTEGER, {"type": "null"}]}, "5", 5),
        ({"type": ["integer", "null"]}, "5", 5),
        ({"anyOf": [TEXT, NUMBERS]}, "[1]", "[1]"),
        ({"anyOf": [INTEGER, {"type": "null"}]}, None, None),
        ({"type": "object", "properties": {"n": INTEGER}}, {"n": "5"}, {"n": 5}),
        ({"type": "object", "additionalProperties": FLAG}, '{"x": "true"}', {"x": True}),
        ({"type": "array", "prefixItems": [INTEGER, TEXT]}, ["1", 2], [1, "2"]),
        ({"$ref": "#/$defs/count"}, "5", 5),
        ({}, "5", "5"),
    ],
)
def test_what_can_only_mean_one_thing_is_read_as_that(wanted: Any, given: Any, read: Any) -> None:
    arguments = Arguments("t", {**schema(value=wanted), "$defs": {"count": INTEGER}})
    checked = arguments.check({"value": given})
    assert checked == {"value": read}
    assert type(checked["value"]) is type(read)


@pytest.mark.parametrize(
    ("wanted", "given", "problem"),
    [
        (INTEGER, "five", 'must be a whole number, not "five"'),
        (INTEGER, "5.5", 'must be a whole number, not "5.5"'),
        (INTEGER, True, "must be a whole number, not true"),
        (NUMBER, "inf", 'must be a number, not "inf"'),
        (FLAG, "yes", 'must be true or false, not "yes"'),
        (FLAG, 2, "must be true or false, not 2"),
        (TEXT, True, "must be text, not true"),
        (NUMBERS, "1,2", 'must be an array, not "1,2"'),
        (NUMBERS, '{"a": 1}', 'must be an array, not "{\\"a\\": 1}"'),
        (OBJECT, "[1]", 'must be an object, not "[1]"'),
        ({"anyOf": [INTEGER, {"type": "null"}]}, "x", 'must be a whole number or null, not "x"'),
        ({"enum": ["a", "b"]}, "c", 'must be one of "a", "b", not "c"'),
        ({"const": 1}, 2, "must be 1, not 2"),
        ({"type": "integer", "minimum": 1}, "0", "0 is less than the minimum of 1"),
    ],
)
def test_everything_else_is_refused_by_name(wanted: Any, given: Any, problem: str) -> None:
    assert refused(Arguments("t", schema(value=wanted)), {"value": given}) == {"value": problem}


def test_a_misfit_within_a_value_is_named_with_its_place() -> None:
    arguments = Arguments("t", schema(rows={"type": "array", "items": schema(n=INTEGER)}))
    assert refused(arguments, {"rows": [{"n": 1}, {"n": "x"}]}) == {
        "rows.1.n": 'must be a whole number, not "x"'
    }


def test_an_unknown_argument_is_refused_with_the_name_that_comes_closest() -> None:
    arguments = Arguments("search", schema(query=TEXT, limit=INTEGER))
    assert refused(arguments, {"querry": "x"}) == {
        "querry": "unknown argument; did you mean 'query'"
    }
    assert refused(arguments, {"zzz": "x"}) == {
        "zzz": "unknown argument; the tool takes query, limit"
    }
    assert refused(Arguments("t", schema()), {"x": 1}) == {
        "x": "unknown argument; the tool takes none"
    }


def test_all_that_is_wrong_is_said_at_once() -> None:
    arguments = Arguments("search", schema(("query", "it's"), query=TEXT, limit=INTEGER))
    with pytest.raises(InvalidArguments) as caught:
        arguments.check({"limit": "x", "qery": "y"})
    assert problems(caught.value) == {
        "qery": "unknown argument; did you mean 'query'",
        "query": "required, but missing",
        "it's": "required, but missing",
        "limit": 'must be a whole number, not "x"',
    }
    assert caught.value.message.startswith("The arguments do not fit the tool 'search': ")
    assert caught.value.hint == "Correct them and call again."


def test_a_schema_that_leaves_others_open_is_closed_unless_the_code_takes_them() -> None:
    # The old classes wrote none of them `additionalProperties`, and dropped what they did not know.
    loose = {"type": "object", "properties": {"a": INTEGER}}
    assert refused(Arguments("t", loose), {"b": 1}) == {"b": "unknown argument; the tool takes a"}
    assert Arguments("t", loose, open_ended=True).check({"b": 1}) == {"b": 1}
    said = {**loose, "additionalProperties": INTEGER}
    assert Arguments("t", said).check({"b": 1}) == {"b": 1}
    assert refused(Arguments("t", said), {"b": "x"}) == {"b": 'must be a whole number, not "x"'}


def test_null_leaves_out_what_has_a_default_and_takes_no_null() -> None:
    arguments = Arguments("t", schema(("must",), must=TEXT, may=TEXT))
    assert arguments.check({"must": "x", "may": None}) == {"must": "x"}
    assert refused(arguments, {"must": None}) == {"must": "must be text, not null"}
    assert "nix" in refused(arguments, {"must": "x", "nix": None})


# --- what annotations mean ------------------------------------------------------------------------


UTC = datetime.timezone.utc


class Colour(enum.Enum):
    RED = "r"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def annotated(
    path: Path,
    when: datetime.datetime,
    colour: Colour,
    some: set[int],
    pair: tuple[int, int],
    point: Point,
    maybe: Optional[Path] = None,  # noqa: UP045 - as the trees have it
    either: str | Path = "",
    unknown: NotImported = None,  # type: ignore[name-defined]  # noqa: F821
    plain: list[dict[str, Any]] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("path", "/tmp", Path("/tmp")),
        ("maybe", "/tmp", Path("/tmp")),
        ("either", "/tmp", "/tmp"),
        (
            "when",
            "2026-01-02T03:04:05Z",
            datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        ),
        ("colour", "r", Colour.RED),
        ("colour", "RED", Colour.RED),
        ("some", [1, 2, 1], {1, 2}),
        ("pair", [1, 2], (1, 2)),
        ("point", {"x": 1}, Point(1)),
        ("unknown", {"any": "thing"}, {"any": "thing"}),
        ("plain", [{}], [{}]),
    ],
)
def test_a_parameter_gets_what_its_annotation_means(name: str, given: Any, meant: Any) -> None:
    arguments = Arguments("t", {"properties": {name: {}}}, converters=converters(annotated))
    assert arguments.check({name: given}) == {name: meant}


def test_what_an_annotation_refuses_is_named() -> None:
    arguments = Arguments("t", schema(when={}, pair={}), converters=converters(annotated))
    said = refused(arguments, {"when": "soon", "pair": [1, "x"]})
    assert said["when"].startswith("input should be a valid datetime")
    assert said["pair"].startswith("1: input should be a valid integer")


def test_only_what_json_lacks_is_converted() -> None:
    found = converters(annotated)
    assert set(found) == {"path", "when", "colour", "some", "pair", "point", "maybe"}
