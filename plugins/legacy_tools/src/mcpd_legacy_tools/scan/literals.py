"""The values that a file states: constants, and what is made of nothing but constants.

Only data that JSON has is a value here. Nothing is executed.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any

#: Longer values are of no use to a client that reads a list of tools.
MOST_CHARACTERS = 2_000
MOST_ITEMS = 200
_DEEPEST = 20
#: JSON has no limit for numbers, but most of its readers have this one.
_LARGEST = 2**63


class NotLiteral(Exception):
    """An expression whose value only running the code would tell, or that JSON has no form for."""


def value_of(node: ast.expr, constants: Mapping[str, ast.expr] | None = None) -> Any:
    """Return the value of an expression as JSON data.

    :param constants: what the names of the module stand for.
    :raises NotLiteral: when it cannot be told, or JSON cannot carry it.
    """
    return _value(node, constants or {}, 0)


def _value(node: ast.expr, constants: Mapping[str, ast.expr], depth: int) -> Any:
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    reader = _READERS.get(type(node))
    if reader is None or depth > _DEEPEST:
        raise NotLiteral
    return reader(node, constants, depth + 1)


def _constant(value: object) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if len(value) > MOST_CHARACTERS or not _encodable(value):
            raise NotLiteral
        return value
    if isinstance(value, int) and -_LARGEST <= value < _LARGEST:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise NotLiteral


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _array(node: Any, constants: Mapping[str, ast.expr], depth: int) -> list[Any]:
    if len(node.elts) > MOST_ITEMS:
        raise NotLiteral
    return [_value(item, constants, depth) for item in node.elts]


def _object(node: Any, constants: Mapping[str, ast.expr], depth: int) -> dict[str, Any]:
    if len(node.keys) > MOST_ITEMS:
        raise NotLiteral
    made: dict[str, Any] = {}
    for key, item in zip(node.keys, node.values, strict=True):
        value = _value(item, constants, depth)
        if key is None:  # **other
            if not isinstance(value, dict):
                raise NotLiteral
            made.update(value)
            continue
        name = _value(key, constants, depth)
        if not isinstance(name, str):
            raise NotLiteral
        made[name] = value
    return made


def _name(node: Any, constants: Mapping[str, ast.expr], depth: int) -> Any:
    if node.id not in constants:
        raise NotLiteral
    return _value(constants[node.id], constants, depth)


def _unary(node: Any, constants: Mapping[str, ast.expr], depth: int) -> Any:
    value = _value(node.operand, constants, depth)
    if isinstance(node.op, ast.Not):
        return not value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotLiteral
    if isinstance(node.op, ast.USub):
        return -value
    if isinstance(node.op, ast.UAdd):
        return value
    raise NotLiteral


def _binary(node: Any, constants: Mapping[str, ast.expr], depth: int) -> Any:
    left = _value(node.left, constants, depth)
    right = _value(node.right, constants, depth)
    texts = isinstance(left, str) and isinstance(right, str)
    arrays = isinstance(left, list) and isinstance(right, list)
    if isinstance(node.op, ast.Add) and (texts or arrays):
        return _constant(left + right) if texts else left + right
    numbers = all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in (left, right)
    )
    operate = _ARITHMETIC.get(type(node.op))
    if not numbers or operate is None:
        raise NotLiteral
    try:
        return _constant(operate(left, right))
    except (ArithmeticError, ValueError):
        raise NotLiteral from None


def _power(left: Any, right: Any) -> Any:
    if abs(left) > 1_024 or not 0 <= right <= 63:
        raise NotLiteral
    return left**right


def _call(node: Any, constants: Mapping[str, ast.expr], depth: int) -> Any:
    # The empty collections that a default is often written as.
    if isinstance(node.func, ast.Name) and not node.args and not node.keywords:
        if node.func.id in ("list", "tuple", "set", "frozenset"):
            return []
        if node.func.id in ("dict", "OrderedDict"):
            return {}
        if node.func.id == "str":
            return ""
    raise NotLiteral


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
    ast.FloorDiv: lambda left, right: left // right,
    ast.Pow: _power,
}
_READERS: dict[type[ast.expr], Callable[[Any, Mapping[str, ast.expr], int], Any]] = {
    ast.List: _array,
    ast.Tuple: _array,
    ast.Set: _array,
    ast.Dict: _object,
    ast.Name: _name,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.Call: _call,
}
