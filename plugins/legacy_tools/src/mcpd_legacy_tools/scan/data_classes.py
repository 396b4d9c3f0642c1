"""Classes of a file whose instances JSON can describe: enumerations and records."""

from __future__ import annotations

import ast
from typing import Any

from .annotations import _MOST_FIELDS, Schema, _schema, enumeration
from .literals import NotLiteral, value_of
from .scope import Scope

_ENUMS = frozenset(("Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"))
_RECORDS = frozenset(("TypedDict", "NamedTuple", "BaseModel"))


def is_data(node: ast.ClassDef, scope: Scope, seen: frozenset[str] = frozenset()) -> bool:
    """Whether JSON can describe the instances of a class of the file."""
    return bool(_kind(node, scope, seen))


def schema_of_class(node: ast.ClassDef, scope: Scope, within: tuple[str, ...]) -> Schema:
    """Return the schema of a class of the file; no constraint when it is no data.

    :param within: the classes that are being described, this one included.
    """
    kind = _kind(node, scope, frozenset())
    if kind == "enum":
        return enumeration(_members(node, scope))
    return _record(node, scope, within, kind) if kind else {}


def _kind(node: ast.ClassDef, scope: Scope, seen: frozenset[str]) -> str:
    if node.name in seen:
        return ""
    for decorator in node.decorator_list:
        made = decorator.func if isinstance(decorator, ast.Call) else decorator
        if scope.dotted(made).rpartition(".")[2] in ("dataclass", "define", "frozen", "attrs"):
            return "record"
    for base in node.bases:
        bare = base.value if isinstance(base, ast.Subscript) else base
        name = scope.dotted(bare).rpartition(".")[2]
        if name in _ENUMS:
            return "enum"
        if name in _RECORDS:
            return "typed dict" if name == "TypedDict" else "record"
        if isinstance(bare, ast.Name) and bare.id in scope.classes:
            kind = _kind(scope.classes[bare.id], scope, seen | {node.name})
            if kind:
                return kind
    return ""


def _members(node: ast.ClassDef, scope: Scope) -> list[Any]:
    values: list[Any] = []
    for statement in node.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        name = statement.targets[0].id
        if name.startswith("_"):
            continue
        try:
            value = value_of(statement.value, scope.constants)
        except NotLiteral:
            if not isinstance(statement.value, ast.Call):
                return []
            value = name.lower()  # auto() of a StrEnum; for another kind a name is no worse
        if value not in values:
            values.append(value)
    return values


def _record(node: ast.ClassDef, scope: Scope, within: tuple[str, ...], kind: str) -> Schema:
    properties: dict[str, Schema] = {}
    required: list[str] = []
    total = not any(
        word.arg == "total" and isinstance(word.value, ast.Constant) and not word.value.value
        for word in node.keywords
    )
    for owner in _lineage(node, scope, ()):
        for statement in owner.body:
            if not isinstance(statement, ast.AnnAssign) or not isinstance(
                statement.target, ast.Name
            ):
                continue
            name = statement.target.id
            marker = ""
            if isinstance(statement.annotation, ast.Subscript):
                marker = scope.dotted(statement.annotation.value)
            if name.startswith("_") or marker == "ClassVar" or len(properties) >= _MOST_FIELDS:
                continue
            schema = dict(_schema(statement.annotation, scope, within))
            properties[name] = _with_default(schema, statement.value, scope)
            needed = total if kind == "typed dict" else _needed(statement.value)
            if marker == "Required" or (needed and marker != "NotRequired"):
                required.append(name)
            elif name in required:
                required.remove(name)
    made: Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = list(dict.fromkeys(required))
    return made


def _lineage(node: ast.ClassDef, scope: Scope, seen: tuple[str, ...]) -> list[ast.ClassDef]:
    """Return a class and those of the file that it is made from, the farthest first."""
    if node.name in seen:
        return []
    found: list[ast.ClassDef] = []
    for base in reversed(node.bases):
        if isinstance(base, ast.Name) and base.id in scope.classes:
            found += _lineage(scope.classes[base.id], scope, (*seen, node.name))
    return [*found, node]


def _needed(value: ast.expr | None) -> bool:
    if value is None:
        return True
    if not isinstance(value, ast.Call):
        return False
    # field(...) and Field(...) state a default, or none.
    if any(word.arg in ("default", "default_factory", "init") for word in value.keywords):
        return False
    return not value.args or (
        isinstance(value.args[0], ast.Constant) and value.args[0].value is ...
    )


def _with_default(schema: Schema, value: ast.expr | None, scope: Scope) -> Schema:
    if isinstance(value, ast.Call):
        stated = [word.value for word in value.keywords if word.arg == "default"]
        value = stated[0] if stated else None
    if value is None:
        return schema
    try:
        return {**schema, "default": value_of(value, scope.constants)}
    except NotLiteral:
        return schema
