"""What a tool of a tree returned, as JSON data.

JSON data stays as it is. Beyond that, what has one obvious form is given it:

* dates, times and durations become ISO 8601 text; paths, UUIDs and decimals become text;
* a member of an enumeration becomes its value, a set or a tuple an array;
* dataclasses and pydantic models become objects;
* bytes become text when they are UTF-8, and base64 otherwise;
* whatever has ``tolist()``, as arrays and numbers of numpy do, becomes what that returns, and a
  table of pandas an array of its rows;
* an exception becomes its type and text;
* what is not a number, and infinity, become null, which is all that JSON has for them.

Anything else is an error that names its place: a guess would end up in somebody's data.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import pydantic
import pydantic_core

from mcpd_core import InvalidOutput

#: Levels of a value that are read; further down it may well contain itself.
_DEEPEST = 200


def as_json(value: Any, *, of: str) -> Any:
    """Return what a tool returned as JSON data.

    :param of: the tool's name, for messages.
    :raises InvalidOutput: naming the place of what JSON cannot carry.
    """
    try:
        return _converted(value)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a boundary: anybody's objects are read
        # Perhaps because of bytes or of half a character, which nobody is asked about. They are
        # rare, and everything else is read much faster without looking for them.
        try:
            return _converted(_spelt_out(value, 0))
        except MemoryError:
            raise
        except Exception as error:
            raise _unfit(value, of) from error


def _converted(value: Any) -> Any:
    text = pydantic_core.to_json(value, inf_nan_mode="null", fallback=_form_of)
    return pydantic_core.from_json(text)


def _form_of(value: Any) -> Any:
    """Return a form of a value that pydantic knows none for."""
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if hasattr(value, "columns") and callable(to_dict := getattr(value, "to_dict", None)):
        return to_dict(orient="records")
    if callable(to_list := getattr(value, "tolist", None)):
        return to_list()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _spelt_out(value: Any, depth: int) -> Any:
    """Return a copy in which bytes are text, and text is what UTF-8 can carry."""
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _text_of(bytes(value))
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_spelt_out(k, depth): _spelt_out(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, Set)):
        return [_spelt_out(item, depth + 1) for item in value]
    return value


def _text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


def _unfit(value: Any, of: str) -> InvalidOutput:
    place, part = _culprit(value)
    what = f"a {type(part).__name__}" + (f" at {place}" if place else "")
    return InvalidOutput(
        f"The tool {of!r} returned something that JSON cannot carry: {what}.",
        hint="This is a defect of the tool, which has done its work: have it return plain data.",
        retryable=False,
    )


def _culprit(value: Any) -> tuple[str, Any]:
    """Return the place and the value of what JSON cannot carry, as far as it can be told."""
    place = ""
    above: list[Any] = []
    while not any(value is one for one in above):
        above.append(value)
        for step, part in _parts(value):
            try:
                _converted(_spelt_out(part, 0))
            except Exception:  # noqa: BLE001 - the boundary of `as_json`
                place, value = place + step, part
                break
        else:
            break
    return place.removeprefix("."), value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f".{key}", item
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for i, item in enumerate(value):
            yield f"[{i}]", item
