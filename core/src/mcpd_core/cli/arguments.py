"""Arguments of a tool as a person types them: ``key=value``, or JSON as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidArguments

_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a JSON array",
    "object": "a JSON object",
    "null": "null",
    "string": "text",
}
# What JSON makes of a value of each type. `bool` is an `int` to Python, and is told apart first.
_PYTHON: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}


def parse_arguments(
    pairs: Sequence[str], whole: str | None, schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the arguments of a call.

    :param pairs: ``key=value``; a value is read by the type that the schema gives it: text stays
        as it is, numbers and booleans are converted, everything else is JSON.
    :param whole: a JSON object of arguments, over which the pairs are laid.
    :param schema: the tool's input schema; without one a value is JSON when it reads as such, else
        text.
    :raises InvalidArguments: when a pair or the JSON cannot be read; the tool decides the rest.
    """
    arguments: dict[str, Any] = {}
    if whole is not None:
        arguments.update(_whole(whole))
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidArguments(
                f"{pair!r} is not of the form key=value.",
                hint="Write name=value for each argument, or all of them as --args JSON.",
            )
        arguments[key] = _value(key, value, schema)
    return arguments


def _whole(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidArguments(f"--args is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidArguments(
            "--args is not a JSON object.", hint='Write for example --args \'{"name": "Ada"}\'.'
        )
    return value


def _value(key: str, text: str, schema: Mapping[str, Any] | None) -> Any:
    properties = schema.get("properties", {}) if schema is not None else {}
    types = _types(properties.get(key, {}), schema or {})
    if not types:
        return _guess(text)
    for kind in ("null", "boolean", "integer", "number", "array", "object"):
        # Text comes last: it takes everything.
        if kind in types:
            read, value = _read(kind, text)
            if read:
                return value
    if "string" in types:
        return text
    wanted = " or ".join(_WORDS.get(kind, kind) for kind in types)
    raise InvalidArguments(f"{key}={text}: {key!r} takes {wanted}.")


def _types(schema: Any, root: Mapping[str, Any]) -> list[str]:
    """Return the JSON types that a schema allows, in its order; empty when it does not say."""
    if not isinstance(schema, Mapping):
        return []
    if isinstance(reference := schema.get("$ref"), str):
        target: Any = root
        for part in reference.removeprefix("#/").split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        # Resolved in an empty root: a schema that refers to itself must not send us in circles.
        return _types(target, {})
    if "type" in schema:
        kinds = schema["type"]
        return [kinds] if isinstance(kinds, str) else list(kinds)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return list(dict.fromkeys(_type_of(value) for value in values))
    alternatives = schema.get("anyOf") or schema.get("oneOf") or []
    found = [_types(alternative, root) for alternative in alternatives]
    # One alternative that takes anything means that anything goes.
    return list(dict.fromkeys(kind for kinds in found for kind in kinds)) if all(found) else []


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "array" if isinstance(value, list) else "object"


def _read(kind: str, text: str) -> tuple[bool, Any]:
    """Read text as one JSON type and return whether that worked, and the value."""
    if kind == "null":
        return text == "null", None
    if kind == "boolean":
        return text.lower() in ("true", "false"), text.lower() == "true"
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False, None
    if isinstance(value, bool):
        return False, None
    return isinstance(value, _PYTHON[kind]), value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _guess(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
