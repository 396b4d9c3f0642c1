"""Classes of a file whose instances JSON can describe: enumerations and records."""

from __future__ import annotations

import ast
from typing import Any

from .annotations import Schema, enumeration, schema_within
from .literals import NotLiteral, value_of
from .scope import Scope

_ENUMS = frozenset(("Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"))
_DECORATORS = frozenset(("dataclass", "define", "frozen", "attrs"))
_RECORDS = frozenset(("TypedDict", "NamedTuple", "BaseModel"))


def is_data(node: ast.ClassDef, scope: Scope) -> bool:
    """Whether JSON can describe the instances of a class of the file."""
    return bool(_kind(node, scope))


def schema_of_class(node: ast.ClassDef, scope: Scope, within: tuple[str, ...]) -> Schema:
    """Return the schema of a class of the file; no constraint when it is no data.

    :param within: the classes that are being described, this one included.
    """
    kind = _kind(node, scope)
    if kind == "enum":
        return enumeration(_members(node, scope))
    return _record(node, scope, within, kind) if kind else {}


def _kind(node: ast.ClassDef, scope: Scope) -> str:
    for each in reversed(lineage(node, scope)):
        for decorator in each.decorator_list:
            made = decorator.func if isinstance(decorator, ast.Call) else decorator
            if scope.dotted(made).rpartition(".")[2] in _DECORATORS:
                return "record"
        for base in each.bases:
            bare = base.value if isinstance(base, ast.Subscript) else base
            name = scope.dotted(bare).rpartition(".")[2]
            if name in _ENUMS:
                return "enum"
            if name in _RECORDS:
                return "typed dict" if name == "TypedDict" else "record"
    return ""


def lineage(node: ast.ClassDef, scope: Scope) -> list[ast.ClassDef]:
    """Return a class and those of the file that it is made from, the nearest last."""
    found: list[ast.ClassDef] = []
    seen: set[str] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop(0)
        if each.name not in seen:
            seen.add(each.name)
            found.insert(0, each)
            bases = (base.id for base in each.bases if isinstance(base, ast.Name))
            waiting += [scope.classes[base] for base in bases if base in scope.classes]
    return found


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
    for owner in lineage(node, scope):
        for statement in owner.body:
            if not isinstance(statement, ast.AnnAssign) or not isinstance(
                statement.target, ast.Name
            ):
                continue
            name = statement.target.id
            marker = ""
            if isinstance(statement.annotation, ast.Subscript):
                marker = scope.dotted(statement.annotation.value)
            if name.startswith("_") or marker == "ClassVar":
                continue
            schema = dict(schema_within(statement.annotation, scope, within))
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
