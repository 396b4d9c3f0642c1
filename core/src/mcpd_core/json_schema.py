"""Whether a JSON Schema is one, as far as clients depend on it.

All tools travel in one list. A client that meets a schema it cannot compile may refuse the whole
list, and so may the library that sends it; so a schema that is none must not get that far. What is
checked is the shape of every keyword of JSON Schema 2020-12, that local references lead somewhere,
and that JSON can carry all of it. Listing does this for hundreds of tools: a place is put into
words only when something is wrong there.
"""

from __future__ import annotations

import copy
import marshal
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from .text import clean, one_line

#: How deep a schema may be nested, arrays and objects counted alike. Libraries give up at 128 or
#: more; no person could read half of it.
MAX_DEPTH = 99

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


class SchemaProblem(Exception):
    """What is wrong with a schema.

    :ivar path: the place, as keys from the outside in.
    :ivar problem: a clause without full stop.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.path: list[str] = []
        self.problem = problem

    @property
    def place(self) -> str:
        """The place as it follows the name of the schema: ``.properties.a``, or nothing."""
        return "".join(f".{key}" for key in self.path)


#: Sound schemas of single values, by what they were made of.
Known = dict[bytes, Any]


def check(schema: object, known: Known | None = None) -> dict[str, Any]:
    """Refuse what is no schema of an object, and clean the texts in what is one.

    :param schema: JSON data that belongs to the caller; its texts are cleaned in place.
    :param known: what has been found in other schemas. Arguments like theirs are not looked at
        again, and share their schema: hundreds of tools have a few kinds of arguments.
    :returns: the schema.
    :raises SchemaProblem: naming the place.
    """
    if not isinstance(schema, dict):
        raise SchemaProblem(f"must be an object, not {brief(schema)}")
    if schema.get("type") != "object":
        raise _at("type", SchemaProblem(f'must be "object", not {brief(schema.get("type"))}'))
    document = _Document(known)
    document.schema(schema, 1)
    document.check_references(schema)
    return schema


def cleaned(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema with its texts cleaned as `check` does, sound or not."""
    own = copy.deepcopy(dict(schema))
    try:
        check(own)
    except SchemaProblem:
        return own
    return own


def brief(value: object) -> str:
    """Return JSON data as it is shown in a message: on one line, and not at any length."""
    import json  # only needed for messages

    try:
        text = one_line(json.dumps(value, ensure_ascii=False, default=_type_name))
    except (ValueError, TypeError, RecursionError):
        text = _type_name(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _at(key: str, problem: SchemaProblem) -> SchemaProblem:
    problem.path.insert(0, one_line(key))
    return problem


def _type_name(value: object) -> str:
    return type(value).__name__


class _Document:
    """One schema with all that is in it."""

    def __init__(self, known: Known | None = None) -> None:
        self._known = known
        self._references: list[str] = []
        self._anchors: set[str] = set()
        self._has_ids = False

    def schema(self, value: Any, depth: int) -> None:
        if value is True or value is False:
            return
        if not isinstance(value, dict):
            raise SchemaProblem(f"must be a schema, not {brief(value)}")
        _check_depth(depth)
        for key, item in value.items():
            try:
                reader = _READERS.get(key)
                if reader is not None:
                    reader(self, item, depth + 1)
                elif key == "title":
                    value[key] = one_line(_text(item))
                elif key in ("description", "$comment"):
                    value[key] = clean(_text(item))
                else:
                    _check_name(key)
                    self.data(item, depth + 1)
            except SchemaProblem as problem:
                raise _at(str(key), problem) from None

    def data(self, value: Any, depth: int) -> None:
        """Check that JSON can carry a value; what it means is nobody's business here."""
        if isinstance(value, str):
            _text(value)
        elif isinstance(value, float):
            if not isfinite(value):
                raise SchemaProblem(f"must be a finite number, not {value}")
        elif isinstance(value, dict):
            _check_depth(depth)
            for key, item in value.items():
                _text(key)
                self.data(item, depth + 1)
        elif isinstance(value, list):
            _check_depth(depth)
            for item in value:
                self.data(item, depth + 1)
        elif value is not None and not isinstance(value, int):
            raise SchemaProblem(f"cannot be JSON: it is a {_type_name(value)}")

    # --- keywords --------------------------------------------------------------------------------

    def schemas(self, value: Any, depth: int) -> None:
        if not isinstance(value, list) or not value:
            raise SchemaProblem(f"must be an array of schemas, not {brief(value)}")
        _check_depth(depth)
        for i, item in enumerate(value):
            try:
                self.schema(item, depth + 1)
            except SchemaProblem as problem:
                raise _at(str(i), problem) from None

    def one_or_more(self, value: Any, depth: int) -> None:
        # Before 2020-12 `items` could be an array, and clients still read it.
        (self.schemas if isinstance(value, list) else self.schema)(value, depth)

    def named(self, value: Any, depth: int) -> None:
        if not isinstance(value, dict):
            raise SchemaProblem(f"must be an object of schemas, not {brief(value)}")
        _check_depth(depth)
        # How deep a known schema may be nested depends on where it is.
        read = self.schema if self._known is None or depth != 2 else self.known_schema
        for name, item in value.items():
            try:
                _check_name(name)
                same = read(item, depth + 1)
            except SchemaProblem as problem:
                raise _at(str(name), problem) from None
            if same is not None:
                value[name] = same

    def known_schema(self, value: Any, depth: int) -> Any:
        """Read a schema unless one like it is known.

        :returns: the known one, or ``None``.
        """
        assert self._known is not None
        try:
            key = marshal.dumps(value, 2)
        except ValueError:
            key = b"$"  # it is not JSON data, which the reader says better
        if (same := self._known.get(key)) is not None:
            return same
        self.schema(value, depth)
        if b"$" not in key:  # references are for each document to follow
            self._known[key] = value
        return None

    def text(self, value: Any, depth: int) -> None:
        _text(value)

    def reference(self, value: Any, depth: int) -> None:
        self._references.append(_text(value))

    def anchor(self, value: Any, depth: int) -> None:
        self._anchors.add(_text(value))

    def identity(self, value: Any, depth: int) -> None:
        _text(value)
        self._has_ids = True

    def number(self, value: Any, depth: int) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SchemaProblem(f"must be a number, not {brief(value)}")
        if isinstance(value, float) and not isfinite(value):
            raise SchemaProblem(f"must be a finite number, not {value}")

    def factor(self, value: Any, depth: int) -> None:
        self.number(value, depth)
        if not value > 0:
            raise SchemaProblem(f"must be a positive number, not {brief(value)}")

    def count(self, value: Any, depth: int) -> None:
        self.number(value, depth)
        if value < 0 or value != int(value):
            raise SchemaProblem(f"must be a whole number from 0 on, not {brief(value)}")

    def flag(self, value: Any, depth: int) -> None:
        if not isinstance(value, bool):
            raise SchemaProblem(f"must be true or false, not {brief(value)}")

    def values(self, value: Any, depth: int) -> None:
        if not isinstance(value, list):
            raise SchemaProblem(f"must be an array, not {brief(value)}")
        self.data(value, depth)

    def choice(self, value: Any, depth: int) -> None:
        self.values(value, depth)
        if not value:
            raise SchemaProblem("allows nothing")

    def names(self, value: Any, depth: int) -> None:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise SchemaProblem(f"must be an array of strings, not {brief(value)}")
        for name in value:
            _check_name(name)
        if len(set(value)) < len(value):
            raise SchemaProblem("names the same twice")

    def names_by_name(self, value: Any, depth: int) -> None:
        if not isinstance(value, dict):
            raise SchemaProblem(f"must be an object, not {brief(value)}")
        for name, item in value.items():
            _check_name(name)
            self.names(item, depth + 1)

    def types(self, value: Any, depth: int) -> None:
        if isinstance(value, str) and value in _TYPES:
            return
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
            raise SchemaProblem(f"must be one of {', '.join(sorted(_TYPES))}, not {brief(value)}")
        if len(set(names)) < len(names):
            raise SchemaProblem("names the same twice")

    # --- references ------------------------------------------------------------------------------

    def check_references(self, root: dict[str, Any]) -> None:
        if self._has_ids:
            return  # an $id gives references another base, which is for a full validator to follow
        for reference in self._references:
            if not reference.startswith("#"):
                raise SchemaProblem(
                    f"the $ref {brief(reference)} leads out of the schema, where nobody follows it"
                )
            if not self._leads_somewhere(reference[1:], root):
                raise SchemaProblem(f"the $ref {brief(reference)} leads nowhere")

    def _leads_somewhere(self, pointer: str, root: Any) -> bool:
        if "%" in pointer:
            from urllib.parse import unquote  # only few are written so

            pointer = unquote(pointer)
        if not pointer.startswith("/"):
            return not pointer or pointer in self._anchors
        found = root
        for part in pointer[1:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                return False
        return isinstance(found, (dict, bool))


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise SchemaProblem(f"is nested more than {MAX_DEPTH} levels deep")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise SchemaProblem(f"must be a string, not {brief(value)}")
    if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
        raise SchemaProblem("is a text that no encoding can carry: it has half a character in it")
    return value


def _check_name(name: Any) -> None:
    """A name cannot be cleaned: whoever uses it would use another one."""
    if not isinstance(name, str):
        raise SchemaProblem(f"has a name that is no string: {brief(name)}")
    if not name.isprintable() and clean(name, keep="") != name:
        raise SchemaProblem(f"the name {name!r} has characters in it that nobody can see")


_Reader = Callable[[_Document, Any, int], None]
#: How each keyword is read. The others hold any data: ``default``, ``const``, extensions.
_READERS: dict[str, _Reader] = {
    keyword: reader
    for reader, keywords in (
        (
            _Document.schema,
            """additionalProperties contains contentSchema else if not propertyNames then
            unevaluatedItems unevaluatedProperties""",
        ),
        (_Document.schemas, "allOf anyOf oneOf prefixItems"),
        (_Document.one_or_more, "items"),
        (_Document.named, "$defs definitions dependentSchemas patternProperties properties"),
        (_Document.text, "$schema contentEncoding contentMediaType format pattern"),
        (_Document.reference, "$dynamicRef $ref"),
        (_Document.anchor, "$anchor $dynamicAnchor"),
        (_Document.identity, "$id"),
        (_Document.number, "exclusiveMaximum exclusiveMinimum maximum minimum"),
        (_Document.factor, "multipleOf"),
        (
            _Document.count,
            """maxContains maxItems maxLength maxProperties minContains minItems minLength
            minProperties""",
        ),
        (_Document.flag, "deprecated readOnly uniqueItems writeOnly"),
        (_Document.values, "examples"),
        (_Document.choice, "enum"),
        (_Document.names, "required"),
        (_Document.names_by_name, "dependentRequired"),
        (_Document.types, "type"),
    )
    for keyword in keywords.split()
}
