"""One file: from its bytes to what it holds. Nothing of it is executed, or even compiled."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from ..records import RuntimeName
from .annotations import Schema
from .classes import tool_class
from .found import FileScan, Found
from .markers import Marked, lists_of, marks_of
from .rules import file_reason, function_reason, impossible
from .scope import Function, Imported, Scope, scope_of
from .signatures import Signature, described, docstring_of, signature_of

if TYPE_CHECKING:
    from .reexports import Definition


class Unreadable(Exception):
    """A file that cannot be read as Python; its text is a sentence."""


class Finder(Protocol):
    """Finds the definitions of imported functions; see `reexports.Definitions`."""

    def find(
        self, imported: Imported, source: str, depends: list[list[object]]
    ) -> Definition | None:
        """Return where an imported function is defined."""
        ...


def scan_module(path: str, source: str, content: bytes, definitions: Finder) -> FileScan:
    """Return what a file holds.

    :param path: relative to the tree, with slashes.
    :param source: absolute.
    :param content: the file.
    """
    try:
        module, lines = parsed(content)
        return _Module(path, source, scope_of(module, lines), definitions).scan()
    except Unreadable as exc:
        return FileScan(problem=str(exc))
    except (RecursionError, MemoryError):
        return FileScan(problem="It is nested too deeply to be read.")


def parsed(content: bytes) -> tuple[ast.Module, list[bytes]]:
    """Parse a file.

    :returns: the module, and the lines in UTF-8 that its nodes' positions count.
    :raises Unreadable: when it is no Python, or not for the Python that runs.
    """
    if b"\0" in content:
        raise Unreadable("It holds null bytes: it is no Python source.")
    text = content.removeprefix(b"\xef\xbb\xbf")
    if b"coding" in b"".join(text.split(b"\n", 2)[:2]):
        text = _decoded(content).encode()
    else:
        _check_utf8(text)
    try:
        return ast.parse(text), text.splitlines()
    except SyntaxError as exc:
        running = ".".join(str(part) for part in sys.version_info[:2])
        where = f" (line {exc.lineno})" if exc.lineno else ""
        raise Unreadable(
            f"It is no valid Python {running}, which runs here: {exc.msg}{where}. If it is written "
            "for a newer Python, run mcpd with that one."
        ) from None
    except ValueError as exc:
        raise Unreadable(f"It cannot be parsed: {exc}.") from None


def _check_utf8(content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as exc:
        raise _miscoded(exc) from None


def _miscoded(exc: UnicodeDecodeError) -> Unreadable:
    line = exc.object.count(b"\n", 0, exc.start) + 1
    return Unreadable(
        f"It is not {exc.encoding.upper()} (line {line}). Save it as UTF-8, or name its encoding "
        "in the first line: # -*- coding: latin-1 -*-"
    )


def _decoded(content: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except (SyntaxError, LookupError) as exc:
        raise Unreadable(f"Its encoding cannot be told: {exc}.") from None
    except UnicodeDecodeError as exc:
        raise _miscoded(exc) from None
    # The text is encoded anew; a cookie for another encoding would be taken at its word.
    lines = text.split("\n", 2)
    for number, start in enumerate(lines[:2]):
        if start.lstrip().startswith("#"):
            lines[number] = "#"
    return "\n".join(lines)


class _Module:
    """A file whose names are known."""

    def __init__(self, path: str, source: str, scope: Scope, definitions: Finder) -> None:
        self._source = source
        self._scope = scope
        self._definitions = definitions
        self._depends: list[list[object]] = []
        self._listed = lists_of(scope)
        self._file_reason = file_reason(path)
        directories, _, name = path.rpartition("/")
        stem = name.removesuffix(".py")
        # The old server read the files directly in a category, and no others.
        nested = not directories or "/" in directories
        self._old_stem = None if nested or stem.startswith("_") else stem

    def scan(self) -> FileScan:
        """Return all that is public, by line."""
        found = [
            self._defined(name, node)
            for name, node in self._scope.functions.items()
            if not name.startswith("_") or name in self._listed
        ]
        found += self._passed_on()
        functions = {each.tool: each.function for each in found if not each.reason}
        for node in self._scope.classes.values():
            made = tool_class(node, self._scope)
            if made is None:
                continue
            if not made.reason and made.tool in functions:
                made.reason = f"it wraps the function {functions[made.tool]}, which is offered"
            found.append(made)
        return FileScan(sorted(found, key=lambda each: each.line), depends=self._depends)

    def _defined(self, name: str, node: Function) -> Found:
        imported = self._scope.imports.get(name)
        if imported is not None and node.col_offset:
            # What is written for the case that the import fails says less than what is imported.
            definition = self._find(imported)
            if definition is not None:
                return self._function(name, definition.node, definition.scope, imported.line)
        return self._function(name, node, self._scope, node.lineno)

    def _find(self, imported: Imported) -> Definition | None:
        return self._definitions.find(imported, self._source, self._depends)

    def _passed_on(self) -> Iterator[Found]:
        """Functions that are public here and defined elsewhere, or under another name."""
        scope = self._scope
        public = _names(scope.constants.get("__all__"))
        for name, imported in scope.imports.items():
            if name.startswith("_") or name in scope.functions or not imported.name:
                continue
            old = self._is_old(name)
            if not old or not name.islower():
                if name in public and name.islower():
                    reason = f"it is defined elsewhere ({_origin(imported)})"
                    yield Found(name, name, imported.line, reason)
                continue
            definition = self._find(imported)
            if definition is None:
                reason = f"it comes from {_origin(imported)}, where no such function was found"
                yield Found(name, name, imported.line, reason)
            else:
                yield self._function(name, definition.node, definition.scope, imported.line)
        for name, value in scope.constants.items():
            if isinstance(value, ast.Name) and not name.startswith("_"):
                node = scope.functions.get(value.id)
                if node is not None and name != value.id:
                    found = self._function(name, node, scope, value.lineno)
                    found.reason = found.reason or f"it is another name of {value.id}"
                    yield found

    def _is_old(self, name: str) -> bool:
        return self._old_stem is not None and self._old_stem in name

    def _function(self, name: str, node: Function, scope: Scope, line: int) -> Found:
        marked = marks_of(name, node, self._scope, self._listed)
        doc = described(docstring_of(node))
        signature = signature_of(node, scope, doc)
        reason = "" if marked.explicit else self._file_reason or function_reason(node, scope)
        is_async = isinstance(node, ast.AsyncFunctionDef)
        return Found(
            function=name,
            tool=marked.name or name,
            line=line,
            reason=reason or impossible(node, signature, scope),
            old_rule=self._is_old(name),
            kind="listed" if marked.listed else "function",
            is_async=is_async,
            runtime=_runtime(marked, is_async),
            description=marked.description or doc.description,
            schema=_schema(marked, signature),
            parameters=signature.parameters,
            returns="" if node.returns is None else scope.source(node.returns),
            timeout=marked.timeout,
        )


def _names(node: ast.expr | None) -> frozenset[str]:
    if not isinstance(node, (ast.List, ast.Tuple)):
        return frozenset()
    values = [each.value for each in node.elts if isinstance(each, ast.Constant)]
    return frozenset(value for value in values if isinstance(value, str))


def _origin(imported: Imported) -> str:
    return "." * imported.level + imported.module


def _schema(marked: Marked, signature: Signature) -> Schema:
    """Return the schema that the code states, with what it leaves to the docstring to describe."""
    if marked.schema is None:
        return signature.schema
    for name, stated in marked.schema["properties"].items():
        known = signature.schema["properties"].get(name, {})
        if "description" in known and isinstance(stated, dict):
            stated.setdefault("description", known["description"])
    return marked.schema


def _runtime(marked: Marked, is_async: bool) -> RuntimeName:
    # A plain function runs in a thread, wherever it was marked to belong.
    return (marked.runtime or "asyncio") if is_async else "asyncio"
