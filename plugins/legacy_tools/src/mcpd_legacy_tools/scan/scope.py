"""The names of one module, as far as they can be known without running it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"

#: Modules whose names mean the same as without the module's name before them.
_TYPING = frozenset(("typing", "typing_extensions", "collections.abc", "collections", "builtins"))


@dataclass(frozen=True, slots=True)
class Imported:
    """A name that comes from elsewhere.

    :ivar module: as it is written, with ``level`` dots before it left out.
    :ivar name: the name there; empty for a module itself.
    """

    module: str
    name: str
    level: int
    line: int


@dataclass
class Scope:
    """What the names of a module stand for; of several meanings, the last one.

    :ivar lines: the source, in UTF-8, as the positions of nodes count it.
    :ivar schemas: what annotations were found to mean; see `annotations`.
    """

    lines: list[bytes]
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, Imported] = field(default_factory=dict)
    #: ``function.attribute = value``, by function and attribute.
    attributes: dict[tuple[str, str], ast.expr] = field(default_factory=dict)
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Fields of classes that the annotation at hand has described so far.
    described: int = 0
    #: ``from ... import *``, the last one first.
    stars: list[Imported] = field(default_factory=list)

    def dotted(self, node: ast.expr) -> str:
        """Return the full name of what a name or an attribute stands for; empty for all else.

        What comes from ``typing`` and its like, and builtins, are named without their module.
        """
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        imported = self.imports.get(node.id)
        if imported is None or imported.level:
            first = node.id
        else:
            first = ".".join(filter(None, (imported.module, imported.name)))
        module, _, last = ".".join((first, *reversed(parts))).rpartition(".")
        return last if not module or module in _TYPING else f"{module}.{last}"

    def source(self, node: ast.expr) -> str:
        """Return how an expression is written, on one line."""
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        if first == last:
            return self.lines[first][node.col_offset : node.end_col_offset].decode(errors="replace")
        parts = [
            self.lines[first][node.col_offset :],
            *self.lines[first + 1 : last],
            self.lines[last][: node.end_col_offset],
        ]
        return " ".join(b" ".join(parts).decode(errors="replace").split())


def scope_of(module: ast.Module, lines: list[bytes]) -> Scope:
    """Return the names that a module defines and imports at its top level.

    What a top-level ``if``, ``try`` or ``with`` holds counts as well, whatever its condition.
    """
    scope = Scope(lines)
    for node in _statements(module.body):
        reader = _READERS.get(type(node))
        if reader is not None:
            reader(scope, node)
    return scope


#: ``except*`` is newer than the oldest Python that runs this.
_BLOCKS = tuple(
    kind
    for name in ("If", "Try", "TryStar", "With")
    if (kind := getattr(ast, name, None)) is not None
)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, _BLOCKS):
            if isinstance(node, ast.If) and _is_main_guard(node.test):
                continue
            yield from _statements(node.body)
            for handler in getattr(node, "handlers", ()):
                yield from _statements(handler.body)
            yield from _statements(getattr(node, "orelse", []))
            yield from _statements(getattr(node, "finalbody", []))
        else:
            yield node


def _is_main_guard(test: ast.expr) -> bool:
    """Whether it is ``__name__ == "__main__"``: what follows is not there when it is imported."""
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
    )


def _function(scope: Scope, node: Any) -> None:
    scope.functions[node.name] = node


def _class(scope: Scope, node: Any) -> None:
    scope.classes[node.name] = node


def _assign(scope: Scope, node: Any) -> None:
    for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
        if node.value is None:
            continue
        if isinstance(target, ast.Name):
            scope.constants[target.id] = node.value
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            scope.attributes[target.value.id, target.attr] = node.value


def _type_alias(scope: Scope, node: Any) -> None:
    scope.constants[node.name.id] = node.value


def _import(scope: Scope, node: Any) -> None:
    for alias in node.names:
        name = alias.asname or alias.name.partition(".")[0]
        module = alias.name if alias.asname else name
        scope.imports[name] = Imported(module, "", 0, node.lineno)


def _import_from(scope: Scope, node: Any) -> None:
    for alias in node.names:
        imported = Imported(node.module or "", alias.name, node.level, node.lineno)
        if alias.name == "*":
            scope.stars.insert(0, imported)
        else:
            scope.imports[alias.asname or alias.name] = imported


_READERS: dict[type[ast.stmt], Any] = {
    ast.FunctionDef: _function,
    ast.AsyncFunctionDef: _function,
    ast.ClassDef: _class,
    ast.Assign: _assign,
    ast.AnnAssign: _assign,
    ast.Import: _import,
    ast.ImportFrom: _import_from,
}
if sys.version_info >= (3, 12):
    _READERS[ast.TypeAlias] = _type_alias
