"""From a function's head and docstring to the schema of its arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import docstrings
from .annotations import PLAIN, Schema, allows_null, or_null, schema_of, schema_of_text
from .docstrings import Docstring, Documented
from .found import ParameterRow
from .literals import NotLiteral, value_of
from .scope import Function, Scope

#: Types that JSON has no form for: code that needs one cannot be called by a client.
UNCARRIABLE = frozenset(
    [
        "Callable",
        "Awaitable",
        "Coroutine",
        "Generator",
        "AsyncGenerator",
        "AsyncIterator",
        "AsyncIterable",
        "Type",
        "type",
        "Logger",
        "ArgumentParser",
        "Namespace",
        "FastAPI",
        "Flask",
        "Blueprint",
        "APIRouter",
        "FastMCP",
        "MCPServer",
        "IO",
        "TextIO",
        "BinaryIO",
        "StringIO",
        "BytesIO",
        "Lock",
        "AbstractEventLoop",
        "ThreadPoolExecutor",
        "ProcessPoolExecutor",
        "Executor",
        "ModuleType",
        "FunctionType",
        "MethodType",
        "BaseException",
        "Exception",
        "socket",
    ]
)


@dataclass
class Signature:
    """What a client has to know about a function.

    :ivar parameters: as `mcpd_legacy_tools.records.Parameter` has them.
    :ivar uncarriable: a required parameter that no client can give, with its type; empty when
        there is none.
    """

    schema: Schema
    parameters: list[ParameterRow]
    uncarriable: str = ""


def docstring_of(node: Function | ast.ClassDef) -> str:
    """Return the docstring as it is in the source; empty when there is none."""
    if node.body and isinstance(node.body[0], ast.Expr):
        value = node.body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            text = value.value
            return text if text.isascii() else text.encode(errors="replace").decode()
    return ""


def signature_of(
    node: Function, scope: Scope, doc: Docstring, *, method: bool = False
) -> Signature:
    """Read a function's head.

    :param doc: its docstring, taken apart.
    :param method: whether the first parameter is the instance.
    """
    rows: list[ParameterRow] = []
    properties: dict[str, Schema] = {}
    required: list[str] = []
    others: bool | Schema = False
    uncarriable = ""
    for kind, arg, default in _parameters(node.args, skip=int(method)):
        annotation = "" if arg.annotation is None else _annotation(arg.annotation, scope)
        rows.append([arg.arg, kind, annotation, None if default is None else scope.source(default)])
        documented = doc.parameters.get(arg.arg, Documented())
        if kind == "args":
            continue  # values without a name: a client has no way to give them
        if kind == "kwargs":
            others = schema_of(arg.annotation, scope) or True
        elif (foreign := _foreign(arg.annotation, scope)) and default is not None:
            continue  # no client could give it, and the code has one of its own
        else:
            if foreign:
                uncarriable = uncarriable or f"{arg.arg} ({foreign})"
            properties[arg.arg] = _property(arg, default, scope, documented)
            if default is None:
                required.append(arg.arg)
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    schema["additionalProperties"] = others
    return Signature(schema, rows, uncarriable)


def _parameters(
    args: ast.arguments, *, skip: int
) -> Iterator[tuple[str, ast.arg, ast.expr | None]]:
    places = [*(("positional", arg) for arg in args.posonlyargs)]
    places += [("either", arg) for arg in args.args]
    defaults = [None] * (len(places) - len(args.defaults)) + list(args.defaults)
    both = list(zip(places, defaults, strict=True))
    for (kind, arg), default in both[skip:]:
        yield kind, arg, default
    if args.vararg is not None:
        yield "args", args.vararg, None
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield "keyword", arg, default
    if args.kwarg is not None:
        yield "kwargs", args.kwarg, None


def _annotation(node: ast.expr, scope: Scope) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return scope.source(node)


def _foreign(annotation: ast.expr | None, scope: Scope) -> str:
    """Return the type that JSON has no form for, if that is all that a parameter takes."""
    if annotation is None:
        return ""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        text = annotation.value.strip()
        return text if text.rpartition(".")[2] in UNCARRIABLE else ""
    if isinstance(annotation, ast.BinOp):
        sides = [_foreign(side, scope) for side in (annotation.left, annotation.right)]
        null = [_is_none(side) for side in (annotation.left, annotation.right)]
        both = all(side or none for side, none in zip(sides, null, strict=True))
        return (sides[0] or sides[1]) if both else ""
    if isinstance(annotation, ast.Subscript):
        name = scope.dotted(annotation.value)
        if name == "Optional":
            return _foreign(annotation.slice, scope)
        return name if name.rpartition(".")[2] in UNCARRIABLE else ""
    if isinstance(annotation, ast.Name) and annotation.id in scope.classes:
        from .data_classes import is_data

        return "" if is_data(scope.classes[annotation.id], scope) else annotation.id
    name = scope.dotted(annotation)
    return name if name.rpartition(".")[2] in UNCARRIABLE and name not in PLAIN else ""


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _property(
    arg: ast.arg, default: ast.expr | None, scope: Scope, documented: Documented
) -> Schema:
    schema = schema_of(arg.annotation, scope)
    value, stated = None, False
    if default is not None:
        try:
            value, stated = value_of(_default_of(default, scope), scope.constants), True
        except NotLiteral:
            pass
    if arg.annotation is None:
        schema = _guessed(value, stated, documented, scope)
    if stated and value is None:
        schema = or_null(schema)
    description = documented.description or schema.get("description", "")
    if default is not None and not stated:
        # The code makes it when it is called; a client can at least be told how.
        source = scope.source(default)
        if len(source) <= 80 and source.isprintable():
            description = f"{description} Default: {source}.".lstrip()
    if description:
        schema["description"] = description
    if stated:
        schema["default"] = value
    return schema


def _default_of(node: ast.expr, scope: Scope) -> ast.expr:
    """See through ``Field(default, ...)`` and its like, as pydantic and FastAPI have them."""
    if not isinstance(node, ast.Call):
        return node
    name = scope.dotted(node.func).rpartition(".")[2]
    if name not in ("Field", "Query", "Body", "Form", "Header", "field"):
        return node
    for word in node.keywords:
        if word.arg == "default":
            return word.value
        if word.arg == "default_factory" and isinstance(word.value, ast.Name):
            return ast.Call(func=word.value, args=[], keywords=[])
    return node.args[0] if node.args else node


def _guessed(value: Any, stated: bool, documented: Documented, scope: Scope) -> Schema:
    """What a parameter without annotation takes: by its docstring, or by its default."""
    if documented.type:
        schema = documented_schema(documented.type, scope)
        if schema:
            return schema
    if not stated or value is None:
        return {}
    # A whole number is a fine default for a parameter that takes any number.
    kinds = {bool: "boolean", int: "number", float: "number", str: "string"}
    kinds.update({list: "array", dict: "object"})
    return {"type": kinds[type(value)]}


_NOISE = re.compile(
    r"""\s*[,;]?\s*(?:optional|required|default(?:s)?(?:\s*(?:to|is|=|:))?\s*\S+.*)\s*\Z""",
    re.IGNORECASE,
)
_CHOICES = re.compile(r"\{(.+)\}\Z")
_WORDS = {
    "string": "str",
    "text": "str",
    "integer": "int",
    "boolean": "bool",
    "number": "float",
    "numeric": "float",
    "dictionary": "dict",
    "mapping": "dict",
    "object": "dict",
    "array": "list",
    "sequence": "list",
    "iterable": "list",
    "path": "Path",
    "none": "None",
}
_OF = re.compile(r"(list|array|sequence|set|tuple|iterable)s?\s+of\s+(.+)\Z", re.IGNORECASE)


def documented_schema(text: str, scope: Scope, depth: int = 0) -> Schema:
    """Return the schema of a type as a docstring words it; no constraint when it is not known."""
    previous, text = None, text.strip().strip("`")
    while text != previous and len(text) < 500:
        previous, text = text, _NOISE.sub("", text).strip().strip("`,;")
    if not text or len(text) >= 500 or depth > 4:
        return {}
    if choices := _CHOICES.match(text):
        return schema_of_text(f"Literal[{choices[1]}]", scope)
    if of := _OF.match(text):
        item = documented_schema(_singular(of[2]), scope, depth + 1)
        return {"type": "array", "items": item} if item else {"type": "array"}
    parts = re.split(r"\s+or\s+", text)
    if len(parts) > 1:
        schemas = [documented_schema(part, scope, depth + 1) for part in parts]
        if not all(schemas):
            return {}
        return or_null_of(schemas)
    return schema_of_text(_WORDS.get(text.lower(), text), scope)


def or_null_of(schemas: list[Schema]) -> Schema:
    """Return the schema of what one of several allows."""
    unique = [each for i, each in enumerate(schemas) if each not in schemas[:i]]
    plain = [each for each in unique if each != {"type": "null"}]
    made: Schema = plain[0] if len(plain) == 1 else {"anyOf": plain}
    if len(plain) < len(unique):
        return or_null(made) if plain else {"type": "null"}
    return made


def _singular(word: str) -> str:
    word = word.strip()
    one = word.removesuffix("s")
    return one if one.lower() in {*_WORDS, "int", "dict", "list", "float"} else word


def described(text: str) -> Docstring:
    """Take a docstring apart; see `docstrings.read`."""
    return docstrings.read(text) if text else Docstring()


__all__ = [
    "Signature",
    "allows_null",
    "described",
    "docstring_of",
    "documented_schema",
    "signature_of",
]
