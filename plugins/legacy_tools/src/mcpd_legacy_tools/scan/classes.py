"""The old tool classes: a ``name``, a ``description``, an ``input_schema`` and ``execute``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from .annotations import Schema
from .data_classes import lineage as lineage_of
from .found import Found
from .literals import NotLiteral, value_of
from .markers import runtime_named
from .schemas import sound_object
from .scope import Function, Scope
from .signatures import Signature, described, docstring_of, signature_of

_STATED = ("name", "description", "input_schema")
_MAPPINGS = re.compile(r"(?:Optional\[)?(?:typing\.)?(?:dict|Dict|Mapping|MutableMapping)\b")


def tool_class(node: ast.ClassDef, scope: Scope) -> Found | None:
    """Read a class.

    :returns: ``None`` when it has nothing of a tool.
    """
    lineage = lineage_of(node, scope)[::-1]
    execute = _method("execute", lineage)
    if execute is None or node.name.startswith("_"):
        return None
    stated = _stated(lineage, scope)
    doc = described(docstring_of(node))
    own = described(docstring_of(execute))
    own.parameters = {**doc.parameters, **own.parameters}
    signature = signature_of(execute, scope, own, method=True)
    given = sound_object(stated.get("input_schema")) if stated.get("input_schema") else None
    mapping = _takes_mapping(signature, execute)
    name = stated.get("name")
    named = isinstance(name, str) and bool(name.strip())
    description = stated.get("description")
    return Found(
        function=f"{node.name}.execute",
        tool=str(name).strip() if named else node.name,
        line=node.lineno,
        reason=_reason(node, lineage, scope, named, signature, given),
        kind="class",
        is_async=isinstance(execute, ast.AsyncFunctionDef),
        runtime=runtime_named(stated.get("_mcp_runtime")) or "asyncio",
        description=_worded(description) or doc.description or own.description,
        schema=given or _from_signature(signature, mapping),
        parameters=signature.parameters,
        returns="" if execute.returns is None else scope.source(execute.returns),
        calling="mapping" if mapping else "keywords",
    )


def _worded(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _method(name: str, lineage: list[ast.ClassDef]) -> Function | None:
    for each in lineage:
        for statement in each.body:
            if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if statement.name == name:
                return statement
    return None


def _stated(lineage: list[ast.ClassDef], scope: Scope) -> dict[str, Any]:
    """Return the attributes of an instance, as far as they are constants."""
    found: dict[str, Any] = {}
    for each in lineage:
        own: dict[str, ast.expr] = {}
        for statement in each.body:
            own.update(_assigned(statement, owner=""))
            if isinstance(statement, ast.FunctionDef):
                if statement.name == "__init__":
                    for inner in statement.body:
                        own.update(_assigned(inner, owner="self"))
                        own.update(_passed_on(inner))
                elif _is_property(statement):
                    own.update(_returned(statement))
        for name, node in own.items():
            if name not in found:
                try:
                    found[name] = value_of(node, scope.constants)
                except NotLiteral:
                    found[name] = None
    return found


def _assigned(statement: ast.stmt, *, owner: str) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return
    for target in targets:
        if statement.value is None:
            continue
        if not owner and isinstance(target, ast.Name):
            yield target.id, statement.value
        elif (
            owner
            and isinstance(target, ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id == owner
        ):
            yield target.attr, statement.value


def _passed_on(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """What ``super().__init__(name=..., ...)`` is told."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return
    call = statement.value
    if isinstance(call.func, ast.Attribute) and call.func.attr == "__init__":
        for word in call.keywords:
            if word.arg in _STATED:
                yield word.arg, word.value


def _is_property(node: ast.FunctionDef) -> bool:
    return node.name in _STATED and any(
        isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list
    )


def _returned(node: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    last = node.body[-1]
    if isinstance(last, ast.Return) and last.value is not None:
        yield node.name, last.value


def _takes_mapping(signature: Signature, execute: Function) -> bool:
    """Whether ``execute`` wants all arguments as one mapping."""
    plain = [row for row in signature.parameters if row[1] in ("positional", "either")]
    if len(plain) != 1 or any(row[1] == "keyword" for row in signature.parameters):
        return False
    name, _, annotation, _ = plain[0]
    return bool(_MAPPINGS.match(annotation)) or name in ("parameters", "params", "arguments")


def _from_signature(signature: Signature, mapping: bool) -> Schema:
    if mapping:
        # What it reads from the mapping is not stated anywhere.
        return {"type": "object", "properties": {}, "additionalProperties": True}
    return signature.schema


def _reason(
    node: ast.ClassDef,
    lineage: list[ast.ClassDef],
    scope: Scope,
    named: bool,
    signature: Signature,
    given: Schema | None,
) -> str:
    if _is_abstract(node, scope):
        return "it is a base of other classes"
    if not named:
        return "its class states no name, by which the old registry would have listed it"
    init = _method("__init__", lineage)
    if init is not None:
        made = signature_of(init, scope, described(""), method=True)
        needed = [row[0] for row in made.parameters if row[3] is None and _must(row[1])]
        if needed:
            return f"its class needs {', '.join(needed)} to be made"
    if signature.uncarriable and given is None:
        return f"it needs what JSON cannot carry: {signature.uncarriable}"
    return ""


def _must(kind: str) -> bool:
    return kind in ("positional", "either", "keyword")


def _is_abstract(node: ast.ClassDef, scope: Scope) -> bool:
    if any(scope.dotted(base).rpartition(".")[2] in ("ABC", "Protocol") for base in node.bases):
        return True
    return any(
        scope.dotted(decorator).rpartition(".")[2] == "abstractmethod"
        for statement in node.body
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
        for decorator in statement.decorator_list
    )
