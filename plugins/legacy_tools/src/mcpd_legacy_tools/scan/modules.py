"""One file: from its bytes to what it holds. Nothing of it is executed, or even compiled."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import PurePosixPath

from ..records import RuntimeName
from .classes import tool_class
from .found import FileScan, Found
from .markers import Marked, lists_of, marks_of
from .rules import file_reason, function_reason, impossible
from .scope import Function, Scope, scope_of
from .signatures import described, docstring_of, signature_of


class Unreadable(Exception):
    """A file that cannot be read as Python; its text is a sentence."""


def scan_module(path: str, content: bytes) -> FileScan:
    """Return what a file holds.

    :param path: relative to the tree, with slashes.
    :param content: the file.
    """
    try:
        module, lines = parsed(content)
        return FileScan(_Module(path, scope_of(module, lines)).found())
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
    if b"coding" in b"".join(text.split(b"\n", 2)[:2]) or not _is_utf8(text):
        text = _decoded(content).encode()
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


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(content: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except (SyntaxError, LookupError) as exc:
        raise Unreadable(f"Its encoding cannot be told: {exc}.") from None
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise Unreadable(
            f"It is not {exc.encoding.upper()} (line {line}). Save it as UTF-8, or name its "
            "encoding in the first line: # -*- coding: latin-1 -*-"
        ) from None
    # The text is encoded anew; a cookie for another encoding would be taken at its word.
    lines = text.split("\n", 2)
    for number, start in enumerate(lines[:2]):
        if start.lstrip().startswith("#"):
            lines[number] = "#"
    return "\n".join(lines)


class _Module:
    """A file whose names are known."""

    def __init__(self, path: str, scope: Scope) -> None:
        self._scope = scope
        self._listed = lists_of(scope)
        self._file_reason = file_reason(path)
        parts = PurePosixPath(path)
        # The old server read the files directly in a category, and no others.
        self._old_stem = parts.stem if len(parts.parts) == 2 and parts.stem[0] != "_" else None

    def found(self) -> list[Found]:
        """Return all that is public, by line."""
        found = [
            self._function(node)
            for name, node in self._scope.functions.items()
            if not name.startswith("_") or name in self._listed
        ]
        functions = {each.tool: each.function for each in found if not each.reason}
        for node in self._scope.classes.values():
            made = tool_class(node, self._scope)
            if made is None:
                continue
            if not made.reason and made.tool in functions:
                made.reason = f"it wraps the function {functions[made.tool]}, which is offered"
            found.append(made)
        return sorted(found, key=lambda each: each.line)

    def _function(self, node: Function) -> Found:
        scope = self._scope
        marked = marks_of(node.name, node, scope, self._listed)
        doc = described(docstring_of(node))
        signature = signature_of(node, scope, doc)
        reason = "" if marked.explicit else self._file_reason or function_reason(node, scope)
        is_async = isinstance(node, ast.AsyncFunctionDef)
        return Found(
            function=node.name,
            tool=marked.name or node.name,
            line=node.lineno,
            end=node.end_lineno or node.lineno,
            reason=reason or impossible(node, signature, scope),
            old_rule=self._old_stem is not None and self._old_stem in node.name,
            kind="listed" if marked.listed else "function",
            is_async=is_async,
            runtime=_runtime(marked, is_async),
            description=marked.description or doc.description,
            schema=signature.schema if marked.schema is None else marked.schema,
            parameters=signature.parameters,
            returns="" if node.returns is None else scope.source(node.returns),
            timeout=marked.timeout,
        )


def _runtime(marked: Marked, is_async: bool) -> RuntimeName:
    # A plain function runs in a thread, wherever it was marked to belong.
    return (marked.runtime or "asyncio") if is_async else "asyncio"
