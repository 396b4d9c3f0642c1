"""Which public functions are no tools, and why.

The rules are stated, few, and in the order of this page; the first that applies is the reason. What
the code itself marks as a tool (a decorator, an item of a list ``TOOLS``) is one whatever its name
and its file; only what no client could call is left out even then.
"""

from __future__ import annotations

import ast
import re

from .scope import Function, Scope
from .signatures import UNCARRIABLE, Signature

_MAINS = frozenset(("main", "amain", "async_main", "cli", "run_cli", "cli_main", "main_cli"))
#: Decorators that make something else of a function, by the last part of their names.
_DECORATORS = {
    "fixture": "it is a fixture of a test",
    "contextmanager": "it is a context manager",
    "asynccontextmanager": "it is a context manager",
    "overload": "it is an overload, which only type checkers read",
    "singledispatch": "it is a generic function",
}
_COMMANDS = frozenset(("command", "group", "argument", "option"))
_ROUTES = frozenset(
    [
        "get",
        "post",
        "put",
        "delete",
        "patch",
        "head",
        "options",
        "route",
        "websocket",
        "middleware",
        "on_event",
        "exception_handler",
    ]
)
_HELPERS = re.compile(
    r"(?:(?:\w+_)?(?:helpers?|utils?|utilities|constants|exceptions|wrapper)"
    r"|base|common|errors|types|compat|conftest)\Z"
)
#: Results that are collected into an array when the tool runs.
_COLLECTED = frozenset(("Generator", "AsyncGenerator", "AsyncIterator", "AsyncIterable"))
_REGISTERS = re.compile(r"register_\w*tools?\w*\Z|setup_\w*tools?\Z|initialize_\w*registry\Z")
_PARSERS = re.compile(
    r"(?:build|create|make|get|setup)?_?(?:arg|argument|args)?_?parser\Z|parse_arg"
)


def file_reason(path: str) -> str:
    """Return why the functions of a file are no tools unless they are marked as such.

    :param path: relative to the tree, with slashes.
    """
    *directories, name = path.split("/")
    stem = name.removesuffix(".py")
    if stem == "__init__":
        return "its file is a package's __init__.py, which only gathers what others define"
    if stem.startswith("_"):
        return "its file is private: the name begins with an underscore"
    if stem == "conftest" or {"test", "tests"}.intersection(directories[1:]):
        return "its file belongs to tests"
    if _HELPERS.match(stem):
        return f"its file holds helpers: the name is {stem!r}"
    return ""


def function_reason(node: Function, scope: Scope) -> str:
    """Return why a function is no tool unless it is marked as one."""
    name = node.name
    if name in _MAINS:
        return "it is the entry of a command line"
    for decorator in node.decorator_list:
        made = decorator.func if isinstance(decorator, ast.Call) else decorator
        dotted = scope.dotted(made)
        owner, _, last = dotted.rpartition(".")
        if last in _DECORATORS:
            return _DECORATORS[last]
        if last in _COMMANDS and owner:
            return f"it is a command of a command line (@{dotted})"
        if last in _ROUTES and owner:
            return f"it is a route of a web application (@{dotted})"
    if _REGISTERS.match(name):
        return "it registers tools with a server"
    if _PARSERS.match(name):
        return "it is a part of a command line"
    return ""


def impossible(node: Function, signature: Signature, scope: Scope) -> str:
    """Return why no client could call a function, or be given its result."""
    if signature.uncarriable:
        return f"it needs what JSON cannot carry: {signature.uncarriable}"
    returns = node.returns
    if returns is not None:
        bare = returns.value if isinstance(returns, ast.Subscript) else returns
        name = scope.dotted(bare)
        if isinstance(bare, ast.Constant) and isinstance(bare.value, str):
            name = bare.value
        last = name.rpartition(".")[2]
        if (last in UNCARRIABLE and last not in _COLLECTED) or _is_object(name, scope):
            return f"it returns what JSON cannot carry ({name})"
    return ""


def _is_object(name: str, scope: Scope) -> bool:
    if name not in scope.classes:
        return False
    from .data_classes import is_data

    return not is_data(scope.classes[name], scope)
