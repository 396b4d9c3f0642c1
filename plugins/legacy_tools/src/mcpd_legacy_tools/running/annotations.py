"""What a parameter's annotation means where JSON has no such type.

JSON has no paths, dates, sets, tuples or enumerations. A tool that is annotated with one of them
gets one. An annotation that says nothing of this kind is left alone: the schema has been checked
already, and the code of a tree is used to getting more, or less, than it is annotated with.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import logging
import pathlib
import types
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic

from .arguments import Converter

_log = logging.getLogger(__name__)

#: Python's types that JSON data can be read as.
_READABLE = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    enum.Enum,
    frozenset,
    pathlib.PurePath,
    pydantic.BaseModel,
    set,
    tuple,
    uuid.UUID,
)


def converters(function: Callable[..., Any]) -> dict[str, Converter]:
    """Return how the arguments of a function are converted, for those that need it.

    :param function: of which annotations that cannot be resolved are passed over.
    """
    found = {}
    for name, hint in _hints(function).items():
        if _means_more(hint) and (convert := _converter(hint)) is not None:
            found[name] = convert
    return found


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations of the parameters, each resolved by itself.

    Those of one parameter may be names that only type checkers know; the others are as good.
    """
    function = inspect.unwrap(getattr(function, "__func__", function))
    names = getattr(function, "__globals__", {})
    found = {}
    for name, hint in getattr(function, "__annotations__", {}).items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, names)
            except Exception as error:  # noqa: BLE001 - the boundary: anything may be written there
                _log.debug("The annotation of %s is no type here: %s.", name, type(error).__name__)
                continue
        if name != "return":
            found[name] = hint
    return found


def _means_more(hint: Any) -> bool:
    """Whether an annotation has a type in it that JSON has not."""
    if isinstance(hint, type) and get_origin(hint) is None:
        return issubclass(hint, _READABLE) or dataclasses.is_dataclass(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType) or origin is Annotated:
        parts = [part for part in get_args(hint) if part is not type(None)]
        # Text that may be text is text.
        return str not in parts and any(map(_means_more, parts))
    if isinstance(origin, type) and issubclass(origin, _READABLE):
        return True
    return any(map(_means_more, get_args(hint)))


def _adapter(hint: Any) -> pydantic.TypeAdapter[Any] | None:
    try:
        try:
            config = pydantic.ConfigDict(arbitrary_types_allowed=True)
            return pydantic.TypeAdapter(hint, config=config)
        except pydantic.PydanticUserError:
            # Of a type that brings its own configuration.
            return pydantic.TypeAdapter(hint)
    except Exception as error:  # noqa: BLE001 - the boundary: the types are code of the tree
        _log.debug("Of an annotation no values can be made: %s.", type(error).__name__)
        return None


def _converter(hint: Any) -> Converter | None:
    adapter = _adapter(hint)
    if adapter is None:
        return None
    members = _members(hint)

    def convert(value: Any) -> Any:
        if isinstance(value, str) and value in members:
            return members[value]
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "".join(f"{part}: " for part in first["loc"])
            text = first["msg"]
            raise ValueError(place + text[:1].lower() + text[1:]) from None

    return convert


def _members(hint: Any) -> Mapping[str, Any]:
    """Return the members of an enumeration by name, apart from those that are values as well."""
    for part in (hint, *get_args(hint)):
        if isinstance(part, type) and issubclass(part, enum.Enum):
            values = {member.value for member in part}
            return {name: m for name, m in part.__members__.items() if name not in values}
    return {}
