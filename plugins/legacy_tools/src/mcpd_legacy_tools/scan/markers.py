"""What old code says about its tools besides their heads: decorators, attributes, lists."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..records import RuntimeName
from .annotations import Schema
from .literals import NotLiteral, value_of
from .schemas import sound_object
from .scope import Function, Scope

#: Decorators that state a tool's contract.
_METADATA = frozenset(("tool_metadata", "wrap_function_as_tool", "mcp_tool", "register_tool"))
_LONGEST_TIMEOUT = 31_536_000


@dataclass
class Marked:
    """What is stated of a tool; what is not is empty.

    :ivar explicit: whether anything says that it is one.
    :ivar listed: whether a list of the module names it.
    """

    explicit: bool = False
    listed: bool = False
    name: str = ""
    description: str = ""
    schema: Schema | None = None
    runtime: RuntimeName | None = None
    timeout: float | None = None

    def add(self, stated: Mapping[str, Any]) -> None:
        """Take over what a decorator or an item of a list states; the first word counts."""
        for key in ("name", "tool_name"):
            self.name = self.name or _text(stated.get(key))
        for key in ("description", "mcp_description"):
            self.description = self.description or _text(stated.get(key))
        for key in ("input_schema", "inputSchema", "mcp_schema", "schema", "parameters"):
            if self.schema is None and stated.get(key):
                self.schema = sound_object(_wrapped(stated[key]))
        for key in ("runtime", "_mcp_runtime"):
            self.runtime = self.runtime or runtime_named(stated.get(key))
        for key in ("timeout_seconds", "timeout"):
            self.timeout = self.timeout or _seconds(stated.get(key))


def runtime_named(name: object) -> RuntimeName | None:
    """Return the runtime that an old name of one means; nothing for ``auto`` and the unknown."""
    if name == "trio":
        return "trio"
    return "asyncio" if name in ("fastapi", "asyncio") else None


def _wrapped(stated: Any) -> Any:
    # Some give the whole contract where the schema of the arguments belongs.
    if isinstance(stated, Mapping):
        for key in ("inputSchema", "input_schema", "parameters"):
            inner = stated.get(key)
            if isinstance(inner, Mapping) and "type" not in stated and "properties" not in stated:
                return inner
    return stated


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 < value <= _LONGEST_TIMEOUT else None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def marks_of(
    name: str, node: Function | None, scope: Scope, listed: Mapping[str, Marked]
) -> Marked:
    """Return what is stated of a function, by whatever means.

    :param listed: what the lists of the module state; see `lists_of`.
    """
    marked = listed.get(name) or Marked()
    for decorator in node.decorator_list if node is not None else ():
        if not isinstance(decorator, ast.Call):
            continue
        if scope.dotted(decorator.func).rpartition(".")[2] in _METADATA:
            marked.explicit = True
            marked.add(_keywords(decorator, scope))
    for attribute in ("_mcp_runtime", "__mcp_runtime__"):
        value = scope.attributes.get((name, attribute))
        if value is not None:
            stated = _value(value, scope)
            marked.explicit = True
            marked.runtime = runtime_named(stated) or marked.runtime
    return marked


def _keywords(call: ast.Call, scope: Scope) -> dict[str, Any]:
    return {word.arg: _value(word.value, scope) for word in call.keywords if word.arg is not None}


def _value(node: ast.expr, scope: Scope) -> Any:
    """Return what is stated, of a dictionary as much as can be told; ``None`` for the rest."""
    try:
        return value_of(node, scope.constants)
    except NotLiteral:
        pass
    # The constants that the old package has for its runtimes, which tools import.
    name = scope.dotted(node).rpartition(".")[2]
    if name.startswith("RUNTIME_"):
        return name.removeprefix("RUNTIME_").lower()
    if isinstance(node, ast.Dict):
        return {
            key.value: _value(value, scope)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and isinstance(key.value, str)
        }
    return None


def lists_of(scope: Scope) -> dict[str, Marked]:
    """Return what the lists and dictionaries ``TOOLS`` and ``..._TOOLS`` state, by function."""
    found: dict[str, Marked] = {}
    for name, node in scope.constants.items():
        if name == "TOOLS" or name.endswith("_TOOLS"):
            for function, stated in _items(node, scope):
                marked = found.setdefault(function, Marked(explicit=True, listed=True))
                marked.add(stated)
    return found


def _items(node: ast.expr, scope: Scope) -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = []
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                found += [
                    (function, {"name": key.value, **stated})
                    for function, stated in _item(value, scope)
                ]
    elif isinstance(node, (ast.List, ast.Tuple)):
        for each in node.elts:
            found += _item(each, scope)
    return found


def _item(node: ast.expr, scope: Scope) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, ast.Name):
        return [(node.id, {})]
    if not isinstance(node, ast.Dict):
        return []
    parts = {
        key.value: value
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }
    for key in ("function", "func", "handler", "callable"):
        function = parts.pop(key, None)
        if isinstance(function, ast.Name):
            return [(function.id, {name: _value(value, scope) for name, value in parts.items()})]
    return []
