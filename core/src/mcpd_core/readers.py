"""Reading one setting: typed when it comes from TOML, text when it comes from the environment.

A reader returns the value or raises `ValueError` with what it should have been.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from .spec import LEAST_MEMORY_MB

Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Described:
    """A reader of one value that can say, as JSON Schema, what it takes from a file."""

    read: Reader
    schema: Mapping[str, Any]

    def __call__(self, value: Any) -> Any:
        return self.read(value)


#: What the types of settings are called in JSON Schema.
JSON_TYPES = {"bool": "boolean", "int": "integer", "float": "number", "str": "string"}


def number(kind: type[int] | type[float], minimum: float) -> Reader:
    """Read a finite number."""

    wanted = ("a whole number" if kind is int else "a number") + f" of at least {minimum:g}"

    def read(value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = kind(value)
            except ValueError:
                raise ValueError(wanted) from None
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            raise ValueError(wanted)
        # Written so that NaN is refused as well; infinity is no time to wait for.
        if not minimum <= value < float("inf"):
            raise ValueError(wanted)
        return kind(value)

    return Described(read, {"type": JSON_TYPES[kind.__name__], "minimum": minimum})


def choice(*choices: str) -> Reader:
    """Read one of a few words, whatever their case."""

    def read(value: Any) -> str:
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        raise ValueError("one of " + ", ".join(choices))

    return Described(read, {"enum": list(choices)})


def switch(value: Any) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise ValueError("true or false")


def port(value: Any) -> int:
    """Read the number of a TCP port."""
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 65535:
        raise ValueError("a port, from 0 (any that is free) to 65535")
    return number


def memory(value: Any) -> int:
    """Read megabytes of memory for a process; 0 stands for no limit."""
    megabytes = number(int, 0)(value)
    if 0 < megabytes < LEAST_MEMORY_MB:
        raise ValueError(f"0, or a whole number of at least {LEAST_MEMORY_MB}")
    return cast(int, megabytes)


def text_of(wanted: str, pattern: str) -> Reader:
    """Read text that fits a pattern.

    :param wanted: what it is to be, for the error.
    """

    def read(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise ValueError(wanted)

    return Described(read, {"type": "string"})


def names(*choices: str) -> Reader:
    """Read a list of names, of a few when they are given."""

    wanted = "a list of " + (f"any of {', '.join(choices)}" if choices else "names")

    def read(value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, Sequence) or not all(isinstance(part, str) for part in value):
            raise ValueError(wanted)
        if choices and not set(value) <= set(choices):
            raise ValueError(wanted)
        return tuple(value)

    item = {"enum": list(choices)} if choices else {"type": "string"}
    return Described(read, {"type": "array", "items": item})
