"""Whether the arguments of a call fit a tool of a tree, by the JSON Schema that the scan has made.

The old server checked nothing: what a tool did not know was dropped without a word, and a typing
error meant that a default was used. Here every misfit is named.
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mcpd_core import InvalidArguments

from .coercion import coerced

jsonschema: Any = importlib.import_module("jsonschema")  # it is not typed

#: Turns what JSON has into what a parameter is annotated with; raises `ValueError`.
Converter = Callable[[Any], Any]

_HINT = "Correct them and call again."
#: Characters of a value, and of a message of somebody else, that are shown.
_SHOWN = 60
_SAID = 200
_NAMED = {"integer": "a whole number", "number": "a number", "string": "text", "null": "null"}
_NAMED |= {"boolean": "true or false", "array": "an array", "object": "an object"}


class Arguments:
    """The check of one tool's arguments.

    :param tool: its name, for messages.
    :param schema: JSON Schema (2020-12) of the arguments. Where it leaves open whether there may be
        others than those it names, there may not.
    :param open_ended: whether the code takes arguments that the schema does not name.
    :param converters: by the names of the parameters that need one.
    """

    def __init__(
        self,
        tool: str,
        schema: Mapping[str, Any],
        *,
        open_ended: bool = False,
        converters: Mapping[str, Converter] | None = None,
    ) -> None:
        self._tool = tool
        self._schema = schema
        self._validator = jsonschema.Draft202012Validator(dict(schema))
        self._properties: Mapping[str, Any] = schema.get("properties", {})
        self._required: frozenset[str] = frozenset(schema.get("required", ()))
        others = schema.get("additionalProperties", open_ended)
        self._closed = others is False and "patternProperties" not in schema
        self._converters = converters or {}

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as the code expects them.

        :raises InvalidArguments: naming each one that does not fit; an unknown one with the name
            that comes closest.
        """
        if self._is_plain(arguments):
            return self._converted(dict(arguments))
        given = {name: value for name, value in arguments.items() if self._is_given(name, value)}
        read = {
            name: coerced(value, self._properties[name], self._fits, self._schema)
            if name in self._properties
            else value
            for name, value in given.items()
        }
        problems = [*self._unknown(read)]
        problems += [_problem(error) for error in self._errors(read)]
        if problems:
            raise self._misfit(problems)
        return self._converted(read)

    def _is_plain(self, arguments: Mapping[str, Any]) -> bool:
        """Whether nothing needs to be read otherwise, as is the case of nearly every call."""
        return (
            not (self._closed and arguments.keys() - self._properties.keys())
            and not _has_fraction(arguments)
            and bool(self._validator.is_valid(arguments))
        )

    def _is_given(self, name: str, value: Any) -> bool:
        """Whether an argument says anything.

        Old clients send null for what they leave out, where the tool has a default but takes no
        null.
        """
        return (
            value is not None
            or name not in self._properties
            or name in self._required
            or self._fits(self._properties[name], None)
        )

    def _fits(self, schema: Any, value: Any) -> bool:
        return bool(self._validator.evolve(schema=schema).is_valid(value))

    def _unknown(self, arguments: Mapping[str, Any]) -> Iterable[dict[str, str]]:
        if not self._closed:
            return
        for name in arguments:
            if name not in self._properties:
                close = difflib.get_close_matches(name, self._properties, n=1)
                known = f"the tool takes {', '.join(self._properties) or 'none'}"
                hint = f"did you mean {close[0]!r}" if close else known
                yield {"argument": name, "problem": f"unknown argument; {hint}"}

    def _errors(self, arguments: Mapping[str, Any]) -> list[Any]:
        found = [
            error
            for error in self._validator.iter_errors(arguments)
            # Those that are unknown have been named already, and better.
            if error.path or error.validator != "additionalProperties" or not self._closed
        ]
        return sorted(found, key=lambda error: [str(part) for part in error.absolute_path])

    def _converted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        problems = []
        for name, convert in self._converters.items():
            if arguments.get(name) is not None:
                try:
                    arguments[name] = convert(arguments[name])
                except ValueError as error:
                    problems.append({"argument": name, "problem": str(error)})
        if problems:
            raise self._misfit(problems)
        return arguments

    def _misfit(self, problems: Sequence[Mapping[str, str]]) -> InvalidArguments:
        listed = "; ".join(f"{p['argument']}: {p['problem']}" for p in problems)
        return InvalidArguments(
            f"The arguments do not fit the tool {self._tool!r}: {listed}.",
            hint=_HINT,
            data={"problems": [dict(problem) for problem in problems]},
        )


def _has_fraction(value: Any) -> bool:
    """Whether JSON data has a number in it that is a fraction to Python, such as 5.0."""
    if isinstance(value, Mapping):
        return any(map(_has_fraction, value.values()))
    if isinstance(value, list):
        return any(map(_has_fraction, value))
    return isinstance(value, float)


def _problem(error: Any) -> dict[str, str]:
    """Put into words what is wrong with one argument."""
    path = [str(part) for part in error.absolute_path]
    if error.validator == "required":
        # There is one error for each, which names it in its text only.
        missing = next(n for n in error.validator_value if error.message.startswith(repr(n)))
        return {"argument": ".".join([*path, missing]), "problem": "required, but missing"}
    return {"argument": ".".join(path) or "arguments", "problem": _said(error)}


def _said(error: Any) -> str:
    match error.validator:
        case "type":
            return f"must be {_types([error.validator_value])}, not {shown(error.instance)}"
        case "anyOf" | "oneOf" if types := _alternatives(error.validator_value):
            return f"must be {_types(types)}, not {shown(error.instance)}"
        case "enum":
            allowed = ", ".join(shown(value) for value in error.validator_value)
            return f"must be one of {allowed}, not {shown(error.instance)}"
        case "const":
            return f"must be {shown(error.validator_value)}, not {shown(error.instance)}"
    text = error.message
    return text if len(text) <= _SAID else f"{text[: _SAID - 3]}..."


def _alternatives(schemas: Sequence[Any]) -> list[Any]:
    types = [schema.get("type") if isinstance(schema, Mapping) else None for schema in schemas]
    return types if all(types) else []


def _types(types: Sequence[Any]) -> str:
    names = [name for of in types for name in ([of] if isinstance(of, str) else of)]
    return " or ".join(dict.fromkeys(_NAMED.get(name, name) for name in names))


def shown(value: Any) -> str:
    """Return JSON data for a message: on one line, and not at any length."""
    text = json.dumps(value, default=lambda other: type(other).__name__)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
