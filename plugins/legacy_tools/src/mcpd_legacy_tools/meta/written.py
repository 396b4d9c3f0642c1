"""How the code of a tool is written: its signature as the old server showed it, without importing.

That server imported the module and printed what `inspect` found. An annotation was an object there,
or, under ``from __future__ import annotations``, the text itself; both are told from the source
here. A class that is neither built in nor of `typing` is shown as it is written.
"""

from __future__ import annotations

import ast
import builtins
import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass

from ..opening import never_waiting

#: Bytes of a file that is worth reading for this.
_LARGEST = 2 * 1024 * 1024

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Written:
    """One function.

    :ivar parameters: each as the old server described it, by name.
    :ivar marks: what ``@tool_metadata(...)`` says of it in plain values.
    """

    signature: str
    parameters: dict[str, dict[str, typing.Any]]
    returns: str
    marks: dict[str, typing.Any]


def read(source: str, function: str) -> Written | None:
    """Read a function from its file; ``None`` when it cannot be, or is not there.

    :param function: its name, or ``Class.method``.
    """
    try:
        if os.path.getsize(source) > _LARGEST:
            return None
        with open(source, "rb", opener=never_waiting) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    node = _find(tree.body, function.split("."))
    return None if node is None else _written(node, _postponed(tree), "." in function)


def _find(body: list[ast.stmt], path: list[str]) -> Function | None:
    found: Function | None = None
    for node in _statements(body):
        if isinstance(node, ast.ClassDef) and len(path) > 1 and node.name == path[0]:
            found = _find(node.body, path[1:]) or found
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and path == [node.name]:
            found = node
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Return the statements of a body, those in ``if`` and ``try`` among them."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for name in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)


def _postponed(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in tree.body
    )


def _written(node: Function, postponed: bool, is_method: bool) -> Written:
    parts: list[str] = []
    parameters: dict[str, dict[str, typing.Any]] = {}
    for sign, arg, default in _arguments(node.args, is_method):
        if arg is None:
            parts.append(sign)
            continue
        parts.append(sign + _part(arg, default, postponed))
        parameters[arg.arg] = _described(arg, default, postponed)
    signature = f"({', '.join(parts)})"
    if node.returns is not None:
        signature += f" -> {_in_signature(node.returns, postponed)}"
    returns = "Any" if node.returns is None else _type(node.returns, postponed)
    return Written(signature, parameters, returns, _marks(node))


def _arguments(
    args: ast.arguments, is_method: bool
) -> Iterator[tuple[str, ast.arg | None, ast.expr | None]]:
    """Return ``*`` or ``**`` or nothing, the parameter, and its default; a sign alone has none."""
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults))
    defaults += args.defaults
    for index, (arg, default) in enumerate(zip(plain, defaults, strict=True)):
        if index or not is_method:
            yield "", arg, default
        if index + 1 == len(args.posonlyargs) and (index or not is_method):
            yield "/", None, None
    if args.vararg is not None:
        yield "*", args.vararg, None
    elif args.kwonlyargs:
        yield "*", None, None
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield "", arg, default
    if args.kwarg is not None:
        yield "**", args.kwarg, None


def _part(arg: ast.arg, default: ast.expr | None, postponed: bool) -> str:
    text, equals = arg.arg, "="
    if arg.annotation is not None:
        text, equals = f"{text}: {_in_signature(arg.annotation, postponed)}", " = "
    return text if default is None else f"{text}{equals}{ast.unparse(default)}"


def _described(arg: ast.arg, default: ast.expr | None, postponed: bool) -> dict[str, typing.Any]:
    described: dict[str, typing.Any] = {"name": arg.arg, "required": default is None}
    if arg.annotation is not None:
        described["type"] = _type(arg.annotation, postponed)
    if default is not None:
        described["default"] = _value(default)
    return described


def _value(default: ast.expr) -> str:
    try:
        return str(ast.literal_eval(default))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ast.unparse(default)


def _in_signature(annotation: ast.expr, postponed: bool) -> str:
    text = ast.unparse(annotation)
    return repr(text) if postponed else text.replace("typing.", "")


def _type(annotation: ast.expr, postponed: bool) -> str:
    """Return ``str()`` of what the annotation was at run time."""
    if postponed:
        return ast.unparse(annotation)
    if isinstance(annotation, ast.Constant):
        return str(annotation.value)
    if isinstance(annotation, ast.Name) and isinstance(getattr(builtins, annotation.id, 0), type):
        return f"<class '{annotation.id}'>"
    return ast.unparse(_Qualified().visit(annotation))


class _Qualified(ast.NodeTransformer):
    """Writes the names of `typing` as the objects show themselves."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in typing.__all__:
            return ast.Attribute(ast.Name("typing", ast.Load()), node.id, ast.Load())
        return node


def _marks(node: Function) -> dict[str, typing.Any]:
    marks: dict[str, typing.Any] = {}
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(
            "tool_metadata"
        ):
            for keyword in decorator.keywords:
                if keyword.arg and isinstance(keyword.value, ast.Constant):
                    marks[keyword.arg] = keyword.value.value
    return marks
