"""Answers: the envelopes of old tools, and what becomes of values that JSON does not have."""

from __future__ import annotations

import array
import dataclasses
import datetime
import enum
import json
import uuid
from collections import UserDict
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pydantic
import pytest

from mcpd_core import CallResult, InvalidOutput
from mcpd_legacy_tools.running.envelopes import answer
from mcpd_legacy_tools.running.payloads import as_json


def content(text: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **more}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"success": False, "error": "no such file"}, "no such file"),
        ({"ok": False, "error": "task_not_found"}, "task_not_found"),
        ({"status": "error", "message": "went wrong"}, "went wrong"),
        ({"status": "Failed", "error": {"code": 3, "message": "inner"}}, "inner"),
        ({"status": "failure", "errors": ["one", {"msg": 2, "message": "two"}]}, "one; two"),
        ({"success": False}, "The tool 't' reported a failure and no reason."),
        (content('{"status": "error", "error": "in text"}'), "in text"),
        (content("it broke", isError=True), "it broke"),
    ],
)
def test_a_failure_is_marked_and_the_payload_stays_as_it_was(payload: Any, message: str) -> None:
    before = json.dumps(payload)
    result = answer(payload, of="t")
    assert result.is_error
    assert result.error is not None
    assert result.error["message"] == message
    assert result.error["hint"]
    assert result.structured == payload
    assert json.loads(result.text) == json.loads(before)


@pytest.mark.parametrize(
    "payload",
    [
        {"success": True},
        {"ok": True, "error": None},
        {"status": "success"},
        {"status": "queued"},
        # The call has succeeded in telling how the workflow has ended.
        {"success": True, "status": "failed"},
        content('{"status": "success"}'),
        content("plain words, not {json}"),
        content("{broken"),
        {"content": "no blocks"},
        {"success": "false"},
        {"status": 500},
        {},
    ],
)
def test_everything_else_is_a_success(payload: Any) -> None:
    result = answer(payload, of="t")
    assert not result.is_error
    assert result.structured == payload


def test_a_failure_in_text_is_one_too_and_stays_text() -> None:
    text = '{"status": "error", "error": "x"}'
    result = answer(text, of="t")
    assert (result.is_error, result.text, result.structured) == (True, text, None)


def test_a_hint_of_the_tool_is_kept() -> None:
    result = answer({"success": False, "error": "x", "suggestion": "try y"}, of="t")
    assert result.error is not None
    assert result.error["hint"] == "try y"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("words", "words"), ([1, "a"], '[1,"a"]'), (5, "5"), (True, "true")],
)
def test_what_is_no_object_is_text(value: Any, text: str) -> None:
    assert answer(value, of="t") == CallResult(text)


def test_an_answer_in_the_protocols_shape_is_left_alone() -> None:
    made = CallResult("made")
    assert answer(made, of="t") is made


class Colour(enum.Enum):
    RED = "r"


@dataclasses.dataclass
class Point:
    x: int
    tag: bytes = b""


class Model(pydantic.BaseModel):
    when: datetime.date


class Table:
    columns = ("a",)

    def to_dict(self, orient: str) -> list[dict[str, int]]:
        assert orient == "records"
        return [{"a": 1}]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (datetime.datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),
        (datetime.timedelta(minutes=1), "PT1M"),
        (Path("/a/b"), "/a/b"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (Decimal("1.50"), "1.50"),
        (Colour.RED, "r"),
        ({1}, [1]),
        ((1, (2,)), [1, [2]]),
        (Point(1), {"x": 1, "tag": ""}),
        (Point(1, b"\xff"), {"x": 1, "tag": "/w=="}),
        (Model(when=datetime.date(2026, 1, 2)), {"when": "2026-01-02"}),
        (b"text", "text"),
        (b"\xff\x00", "/wA="),
        (bytearray(b"x"), "x"),
        (array.array("d", [1, 2.5]), [1.0, 2.5]),
        (Table(), [{"a": 1}]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (ValueError("bad"), "ValueError: bad"),
        ([float("nan"), float("inf")], [None, None]),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        ("half \ud800", "half \ufffd"),
    ],
)
def test_what_has_one_obvious_form_is_given_it(value: Any, data: Any) -> None:
    assert as_json({"key": value}, of="t") == {"key": data}


class Handle:
    pass


def test_anything_else_is_an_error_that_names_its_place() -> None:
    with pytest.raises(InvalidOutput, match=r"'t' .*: a Handle at rows\[1\]\.handle\.") as caught:
        as_json({"rows": [{}, {"handle": Handle()}]}, of="t")
    assert not caught.value.retryable
    with pytest.raises(InvalidOutput, match=r": a Handle\."):
        as_json(Handle(), of="t")


class Large(UserDict[str, Any]):
    def __iter__(self) -> Any:
        raise MemoryError


def test_a_lack_of_memory_is_told_as_that() -> None:
    with pytest.raises(MemoryError):
        as_json({"rows": Large()}, of="t")


def test_what_contains_itself_is_an_error_too() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = [loop]
    with pytest.raises(InvalidOutput, match=r"JSON cannot carry: a dict at self\[0\]"):
        as_json(loop, of="t")
