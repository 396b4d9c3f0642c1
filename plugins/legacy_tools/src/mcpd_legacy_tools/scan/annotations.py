"""What an annotation says in JSON Schema (2020-12), read from its source.

A type that JSON has no form for, or whose meaning is not known here, puts no constraint on the
value: the code itself is the judge of it then.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, TypeAlias

from .literals import NotLiteral, value_of
from .scope import Scope

Schema: TypeAlias = "dict[str, Any]"

#: Types within types; nobody writes more, but anybody may have generated some.
_DEEPEST = 12
#: Types that one annotation is made of, in all of its classes together; a description of more would
#: bury the list of tools.
_MOST_PARTS = 400
NULL: Schema = {"type": "null"}


def schema_of(node: ast.expr | None, scope: Scope) -> Schema:
    """Return the schema of an annotation; nothing when there is none.

    :returns: a fresh one, which the caller may add to.
    """
    if node is None:
        return {}
    text = scope.source(node)
    if text not in scope.schemas:
        scope.described = 0
        scope.schemas[text] = schema_within(node, scope, ())
    return dict(scope.schemas[text])


def schema_of_text(text: str, scope: Scope) -> Schema:
    """Return the schema of an annotation that is written as text; nothing when it is none."""
    node = _parsed(text)
    scope.described = 0
    return {} if node is None else schema_within(node, scope, ())


def allows_null(schema: Schema) -> bool:
    """Whether ``null`` is among the values."""
    return (
        not schema.keys() - {"description", "default"}
        or schema.get("type") == "null"
        or any(allows_null(each) for each in schema.get("anyOf", ()))
        or None in schema.get("enum", ())
    )


def or_null(schema: Schema) -> Schema:
    """Return a schema that allows ``null`` as well."""
    return schema if allows_null(schema) else _any_of([schema, NULL])


def _parsed(text: str) -> ast.expr | None:
    if len(text) > 500:
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


#: The classes on the way to a type: one that holds itself is described once.
_Within: TypeAlias = "tuple[str, ...]"


def schema_within(node: ast.expr, scope: Scope, within: _Within) -> Schema:
    """Return the schema of an annotation that is a part of another one.

    :param within: the classes and types that it is a part of.
    """
    scope.described += 1
    if len(within) > _DEEPEST or scope.described > _MOST_PARTS:
        return {}
    if isinstance(node, ast.Constant):
        if node.value is None:
            return dict(NULL)
        inner = _parsed(node.value) if isinstance(node.value, str) else None
        return {} if inner is None else schema_within(inner, scope, (*within, ""))
    if isinstance(node, (ast.Name, ast.Attribute)):
        return _named(node, scope, within)
    if isinstance(node, ast.Subscript):
        return _subscript(node, scope, within)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _any_of([schema_within(each, scope, (*within, "")) for each in _alternatives(node)])
    return {}


def _alternatives(node: ast.expr) -> list[ast.expr]:
    found: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        found.append(node.right)
        node = node.left
    return [node, *reversed(found)]


def _any_of(schemas: list[Schema]) -> Schema:
    flat: list[Schema] = []
    for schema in schemas:
        for each in schema["anyOf"] if schema.keys() == {"anyOf"} else (schema,):
            if not each:
                return {}
            if each not in flat:
                flat.append(each)
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


# --- names ---------------------------------------------------------------------------------------


def _named(node: ast.expr, scope: Scope, within: _Within) -> Schema:
    name = scope.dotted(node)
    if isinstance(node, ast.Name) and node.id not in within:
        inner = (*within, node.id)
        if node.id in scope.classes:
            from .data_classes import schema_of_class  # they need each other

            return schema_of_class(scope.classes[node.id], scope, inner)
        if node.id in scope.constants and name not in PLAIN:
            return _alias(scope.constants[node.id], scope, inner)
    if isinstance(node, ast.Name) and (node.id in scope.classes):
        return {"type": "object"}
    return dict(PLAIN.get(name, {}))


def _alias(node: ast.expr, scope: Scope, within: _Within) -> Schema:
    """What a name of the module stands for: another type, a NewType, or a type variable."""
    if not isinstance(node, ast.Call):
        return schema_within(node, scope, within)
    made = scope.dotted(node.func)
    if made == "NewType" and len(node.args) == 2:
        return schema_within(node.args[1], scope, within)
    if made == "TypeVar":
        bound = [each.value for each in node.keywords if each.arg == "bound"]
        choices = bound or node.args[1:]
        return _any_of([schema_within(each, scope, within) for each in choices]) if choices else {}
    if made in ("TypedDict", "Enum", "IntEnum", "StrEnum", "NamedTuple", "namedtuple"):
        return {"type": "object"} if made == "TypedDict" else {}
    return {}


#: What the plain types are, by their full names; see `Scope.dotted`.
PLAIN: dict[str, Schema] = {
    "str": {"type": "string"},
    "AnyStr": {"type": "string"},
    "Text": {"type": "string"},
    "LiteralString": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "None": NULL,
    "NoneType": NULL,
    "list": {"type": "array"},
    "List": {"type": "array"},
    "tuple": {"type": "array"},
    "Tuple": {"type": "array"},
    "Sequence": {"type": "array"},
    "MutableSequence": {"type": "array"},
    "Iterable": {"type": "array"},
    "Collection": {"type": "array"},
    "Deque": {"type": "array"},
    "deque": {"type": "array"},
    "set": {"type": "array", "uniqueItems": True},
    "Set": {"type": "array", "uniqueItems": True},
    "frozenset": {"type": "array", "uniqueItems": True},
    "FrozenSet": {"type": "array", "uniqueItems": True},
    "AbstractSet": {"type": "array", "uniqueItems": True},
    "MutableSet": {"type": "array", "uniqueItems": True},
    "dict": {"type": "object"},
    "Dict": {"type": "object"},
    "Mapping": {"type": "object"},
    "MutableMapping": {"type": "object"},
    "DefaultDict": {"type": "object"},
    "defaultdict": {"type": "object"},
    "OrderedDict": {"type": "object"},
    "Counter": {"type": "object"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "bytearray": {"type": "string", "contentEncoding": "base64"},
    "Path": {"type": "string", "format": "path"},
    "pathlib.Path": {"type": "string", "format": "path"},
    "pathlib.PurePath": {"type": "string", "format": "path"},
    "os.PathLike": {"type": "string", "format": "path"},
    "PathLike": {"type": "string", "format": "path"},
    "datetime": {"type": "string", "format": "date-time"},
    "datetime.datetime": {"type": "string", "format": "date-time"},
    "datetime.date": {"type": "string", "format": "date"},
    "datetime.time": {"type": "string", "format": "time"},
    "datetime.timedelta": {"type": "number"},
    "uuid.UUID": {"type": "string", "format": "uuid"},
    "UUID": {"type": "string", "format": "uuid"},
    "decimal.Decimal": {"type": "number"},
    "fractions.Fraction": {"type": "number"},
}


# --- what is in brackets -------------------------------------------------------------------------


def _subscript(node: ast.Subscript, scope: Scope, within: _Within) -> Schema:
    name = scope.dotted(node.value)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    reader = _GENERICS.get(name)
    if reader is not None:
        return reader(items, scope, (*within, ""))
    if isinstance(node.value, ast.Name):
        return _named(node.value, scope, (*within, ""))  # a generic class or alias of the module
    return {}


def _optional(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    return _any_of([*(schema_within(item, scope, within) for item in items), NULL])


def _union(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    return _any_of([schema_within(item, scope, within) for item in items])


def _first(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    return schema_within(items[0], scope, within)


def _annotated(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    schema = schema_within(items[0], scope, within)
    for item in items[1:]:
        for node in _texts(item, scope):
            try:
                text = value_of(node, scope.constants)
            except NotLiteral:
                continue
            if isinstance(text, str):
                return {**schema, "description": text}
    return schema


def _texts(item: ast.expr, scope: Scope) -> list[ast.expr]:
    """Where ``Annotated`` says in words what a value is: a text, ``Doc(...)``, ``Field(...)``."""
    if not isinstance(item, ast.Call):
        return [item]
    if scope.dotted(item.func).rpartition(".")[2] == "Doc":
        return item.args[:1]
    return [each.value for each in item.keywords if each.arg == "description"]


def _literal(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    values: list[Any] = []
    for item in items:
        try:
            value = value_of(item)
        except NotLiteral:
            return {}
        if not any(value == other and type(value) is type(other) for other in values):
            values.append(value)
    return enumeration(values)


def enumeration(values: list[Any]) -> Schema:
    """Return the schema of a value that is one of some; of nothing known, when there are none."""
    if not values:
        return {}
    kinds = {_KINDS.get(type(value), "") for value in values}
    kind = kinds.pop() if len(kinds) == 1 else ""
    return {"type": kind, "enum": values} if kind else {"enum": values}


_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number"}


def _array(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    return _array_of({"type": "array"}, items, scope, within)


def _set(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    return _array_of({"type": "array", "uniqueItems": True}, items, scope, within)


def _array_of(plain: Schema, items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    item = schema_within(items[0], scope, within)
    return {**plain, "items": item} if item else plain


def _tuple(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    if len(items) == 2 and isinstance(items[1], ast.Constant) and items[1].value is ...:
        return _array(items, scope, within)
    if not items:  # Tuple[()]
        return {"type": "array", "maxItems": 0}
    return {
        "type": "array",
        "prefixItems": [schema_within(item, scope, within) for item in items],
        "minItems": len(items),
        "maxItems": len(items),
    }


def _object(items: list[ast.expr], scope: Scope, within: _Within) -> Schema:
    value = schema_within(items[1], scope, within) if len(items) == 2 else {}
    return {"type": "object", "additionalProperties": value} if value else {"type": "object"}


_Reader: TypeAlias = Callable[["list[ast.expr]", Scope, _Within], Schema]
_GENERICS: dict[str, _Reader] = {
    name: reader
    for reader, names in (
        (_optional, "Optional"),
        (_union, "Union"),
        (_literal, "Literal"),
        (_annotated, "Annotated"),
        (_first, "Required NotRequired ReadOnly Final ClassVar"),
        (
            _array,
            "list List Sequence MutableSequence Iterable Collection Deque deque Iterator",
        ),
        (_set, "set Set frozenset FrozenSet AbstractSet MutableSet"),
        (_tuple, "tuple Tuple"),
        (_object, "dict Dict Mapping MutableMapping DefaultDict defaultdict OrderedDict"),
    )
    for name in names.split()
}
