"""What old clients write in place of a value, read as the value that the schema asks for.

Clients of the old server sent whatever their forms and shells produced, because nothing was
checked: numbers and flags as text, lists as the text of their JSON. What can only mean one thing is
read as that; everything else stays as it is, for the validation to refuse. In particular, text is
never split at commas, and nothing that already fits is touched.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

Fits: TypeAlias = Callable[[Mapping[str, Any], Any], bool]

_INTEGER = re.compile(r"[+-]?\d{1,300}\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_FLAGS = {"true": True, "false": False}


class Unclear(Exception):
    """Raised about a value that cannot be read as what is asked for."""


def coerced(value: Any, schema: Any, fits: Fits, root: Mapping[str, Any]) -> Any:
    """Return a value as the schema asks for it, or as it is.

    :param schema: of the value.
    :param fits: tells whether a schema accepts a value.
    :param root: the schema that local references are looked up in.
    """
    if not isinstance(schema, Mapping):
        return value
    if fits(schema, value):
        return _whole(value, _resolved(schema, root))
    schema = _resolved(schema, root)
    nearest = value
    for choice in _choices(schema):
        try:
            candidate = _as(choice, value, fits, root)
        except Unclear:
            continue
        if fits(choice, candidate) and fits(schema, candidate):
            return candidate
        # What is wrong with it now is more to the point than that it is text.
        nearest = candidate if nearest is value else nearest
    return nearest


def _whole(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return 5.0 as 5 where no fraction is allowed: to JSON they are the same, to Python not."""
    if isinstance(value, float) and value.is_integer():
        types = {choice["type"] for choice in _choices(schema)}
        if "integer" in types and "number" not in types:
            return int(value)
    return value


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return schema
    found: Any = root
    for part in reference[2:].split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else schema


def _choices(schema: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Return the alternatives of a schema, each with one type at most."""
    for keyword in ("anyOf", "oneOf"):
        for choice in schema.get(keyword, ()):
            if isinstance(choice, Mapping):
                yield from _choices(choice)
    types = schema.get("type")
    if isinstance(types, list):
        yield from ({**schema, "type": name} for name in types)
    elif isinstance(types, str):
        yield schema


def _as(schema: Mapping[str, Any], value: Any, fits: Fits, root: Mapping[str, Any]) -> Any:
    match schema["type"]:
        case "integer":
            return _integer(value)
        case "number":
            return _number(value)
        case "boolean":
            return _flag(value)
        case "string":
            return _text(value)
        case "array":
            return _array(_parsed(value, list), schema, fits, root)
        case "object":
            return _object(_parsed(value, dict), schema, fits, root)
    raise Unclear


def _integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _INTEGER.match(text := value.strip()):
        return int(text)
    raise Unclear


def _number(value: Any) -> float:
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.match(text):
            return int(text)
        if _NUMBER.match(text) and math.isfinite(number := float(text)):
            return number
    raise Unclear


def _flag(value: Any) -> bool:
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise Unclear


def _text(value: Any) -> str:
    # Not of true and false, of which nobody knows how they are to be spelt.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    raise Unclear


def _parsed(value: Any, kind: type) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unclear from None
    if not isinstance(value, kind):
        raise Unclear
    return value


def _array(
    value: list[Any], schema: Mapping[str, Any], fits: Fits, root: Mapping[str, Any]
) -> list[Any]:
    first = schema.get("prefixItems", ())
    rest = schema.get("items")
    of_each = [*first, *[rest] * max(0, len(value) - len(first))]
    return [coerced(item, of, fits, root) for item, of in zip(value, of_each, strict=False)]


def _object(
    value: dict[str, Any], schema: Mapping[str, Any], fits: Fits, root: Mapping[str, Any]
) -> dict[str, Any]:
    own, others = schema.get("properties", {}), schema.get("additionalProperties")
    return {key: coerced(item, own.get(key, others), fits, root) for key, item in value.items()}
