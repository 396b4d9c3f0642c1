"""Schemas that the old code states, made sound.

They were written by hand and never checked. One unsound schema could cost a client the whole list
of tools, so what is not JSON Schema (2020-12) is left out of it; what is left says less, and never
anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
#: What people write for them.
_NAMES = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "tuple": "array",
    "none": "null",
}
_DEEPEST = 24


def sound_object(stated: object) -> dict[str, Any] | None:
    """Return the schema of a tool's arguments from what its code states.

    A mapping of names to schemas is taken for the properties of an object.

    :returns: ``None`` when it is nothing of the kind.
    """
    if not isinstance(stated, Mapping):
        return None
    if stated and not isinstance(stated.get("type"), str) and "properties" not in stated:
        if not all(isinstance(each, Mapping) for each in stated.values()):
            return None
        stated = {"type": "object", "properties": stated, "required": _inner_required(stated)}
    schema = sound({**stated, "type": "object"})
    properties = schema.setdefault("properties", {})
    if "required" in schema and schema.get("additionalProperties") is False:
        schema["required"] = [name for name in schema["required"] if name in properties]
    return schema


def sound(stated: object, depth: int = 0) -> dict[str, Any]:
    """Return what is sound in a schema; no constraint when nothing is."""
    if not isinstance(stated, Mapping) or depth > _DEEPEST:
        return {}
    made: dict[str, Any] = {}
    for key, value in stated.items():
        reader = _READERS.get(key)
        if reader is not None:
            read = reader(value, depth)
            if read is not None:
                made[key] = read
        if stated.get("nullable") is True and key == "type" and isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
    if isinstance(stated.get("type"), str) and stated["type"] == "optional":
        made.pop("type", None)
    return made


def _inner_required(properties: Mapping[str, Any]) -> list[str]:
    # Before JSON Schema's fourth draft, a property itself said that it is required.
    return [name for name, each in properties.items() if each.get("required") is True]


def _type(value: object, depth: int) -> object:
    if isinstance(value, str):
        name = _NAMES.get(value.lower(), value.lower())
        return name if name in _TYPES else None
    if isinstance(value, list):
        names = [_type(each, depth) for each in value]
        unique = list(dict.fromkeys(name for name in names if name))
        # One that is not known could be any: the others would say too much.
        return unique if unique and None not in names else None
    return None


def _text(value: object, depth: int) -> object:
    return value if isinstance(value, str) else None


def _pattern(value: object, depth: int) -> object:
    import re

    if not isinstance(value, str):
        return None
    from .patterns import is_steady

    try:
        re.compile(value)
        # A call is checked in the host's event loop, and nothing can interrupt a match.
        return value if is_steady(value) else None
    except (re.error, RecursionError, OverflowError):
        return None


def _schema(value: object, depth: int) -> object:
    if isinstance(value, bool):
        return value
    return sound(value, depth + 1) if isinstance(value, Mapping) else None


def _items(value: object, depth: int) -> object:
    if isinstance(value, list):
        return None
    if isinstance(value, str):
        kind = _type(value, depth)
        return {"type": kind} if kind else None
    return _schema(value, depth)


def _schemas(value: object, depth: int) -> object:
    if not isinstance(value, list) or not value:
        return None
    return [sound(each, depth + 1) for each in value]


def _named(value: object, depth: int) -> object:
    if not isinstance(value, Mapping):
        return None
    return {
        name: each if isinstance(each, bool) else _property(each, depth)
        for name, each in value.items()
        if isinstance(name, str) and name and name.isprintable()
    }


def _property(value: object, depth: int) -> dict[str, Any]:
    if isinstance(value, str):  # {"query": "string"}
        kind = _type(value, depth)
        return {"type": kind} if kind else {"description": value}
    return sound(value, depth + 1)


def _number(value: object, depth: int) -> object:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _factor(value: object, depth: int) -> object:
    number = _number(value, depth)
    return number if isinstance(number, (int, float)) and number > 0 else None


def _count(value: object, depth: int) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and isinstance(value, int) and value >= 0 else None


def _flag(value: object, depth: int) -> object:
    return value if isinstance(value, bool) else None


def _choices(value: object, depth: int) -> object:
    if not isinstance(value, list) or not value:
        return None
    unique: list[Any] = []
    for each in value:
        if not any(each == other and type(each) is type(other) for other in unique):
            unique.append(each)
    return unique


def _names(value: object, depth: int) -> object:
    if not isinstance(value, list):
        return None
    return list(dict.fromkeys(name for name in value if isinstance(name, str)))


def _data(value: object, depth: int) -> object:
    return value


def _array(value: object, depth: int) -> object:
    return value if isinstance(value, list) else None


_READERS: dict[str, Callable[[object, int], object]] = {
    keyword: reader
    for reader, keywords in (
        (_type, "type"),
        (_text, "title description format contentEncoding contentMediaType"),
        (_pattern, "pattern"),
        (_schema, "additionalProperties not propertyNames contains if then else"),
        (_items, "items"),
        (_schemas, "allOf anyOf oneOf prefixItems"),
        (_named, "properties"),
        (_number, "minimum maximum exclusiveMinimum exclusiveMaximum"),
        (_factor, "multipleOf"),
        (
            _count,
            "minLength maxLength minItems maxItems minProperties maxProperties",
        ),
        (_flag, "uniqueItems deprecated readOnly writeOnly"),
        (_choices, "enum"),
        (_names, "required"),
        (_data, "default const"),
        (_array, "examples"),
    )
    for keyword in keywords.split()
}
