"""What one source file imports: at once and in any case, or only perhaps.

A closure of imports runs through hundreds of files, and nearly all of their text is the bodies of
functions. So a file is reduced to what runs at its import before it is parsed: strings become short
ones, and a top-level function or class becomes a stub. Where the reduced text does not parse, the
whole is parsed instead.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: Exceptions whose handlers are for what is not installed.
_FORGIVING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_ENDING_CALLS = frozenset({"sys.exit", "exit", "quit", "os._exit"})

# A string or a comment, whichever begins first. A prefix such as r or f stays where it is.
_TEXT = re.compile(
    r'"""(?:[^"\\]+|\\.|"(?!""))*"""'
    r"|'''(?:[^'\\]+|\\.|'(?!''))*'''"
    r'|"(?:[^"\\\n]+|\\.)*"'
    r"|'(?:[^'\\\n]+|\\.)*'"
    r"|\#[^\n]*",
    re.DOTALL,
)
# A definition that begins a line, and what belongs to it: lines that are indented or empty, and
# those that close a bracket or a string of it.
_DEFINITION = re.compile(
    r"^(?:async[ \t]+def|def|class)[ \t]+(\w+)[^\n]*(?:\n(?:[ \t\f)\]}\"'\\][^\n]*)?(?=\n|\Z))*",
    re.MULTILINE,
)
_INNER_IMPORT = re.compile(
    r"^[ \t]+(?:import[ \t]+(?P<modules>[^\n;]*)"
    r"|from[ \t]+(?P<base>[.\w]+)[ \t]+import[ \t]+(?:\((?P<several>[^)]*)|(?P<one>[^\n;]*)))",
    re.MULTILINE,
)
_ALTERED_PATH = re.compile(r"\bsys\.(?:path|meta_path)\b[ ]*[.\[+=]")
_STOOD_IN = re.compile(r"""\bsys\.modules(?:\[|\.setdefault\()\s*["'](\w+)""")
_STOOD_IN_BY_NAME = re.compile(
    r"\bsys\.modules(?:\.update\(|(?:\[|\.setdefault\()\s*(?!__name__)[a-z_]\w*\s*[\],])"
)
# What makes names that are not written down.
_DYNAMIC = ("globals(", "vars(", "locals(", "exec(", "setattr(", "__path__", "sys.modules")
# An item of a table of names: {"Name": (".module", "Name")} or {"Name": ".module"}.
_LAZY = re.compile(r"""["'](\w+)["']\s*:\s*\(?\s*["'](\.+\w[\w.]*)["']""")
_GLOBAL = re.compile(r"^[ \t]+global[ \t]+([^\n;]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Import:
    """A module that is imported, or from which names are.

    :ivar module: dotted; empty in ``from . import x``.
    :ivar level: how many dots stand before it: 0 is absolute, 1 the package of the file.
    :ivar names: what is taken from it, each of which may be a module of its own.
    :ivar certain: whether the file cannot be imported without it. Otherwise it is imported inside
        of a function or a condition, or its absence is put up with.
    """

    module: str
    level: int
    names: tuple[str, ...]
    line: int
    certain: bool


@dataclass(frozen=True, slots=True)
class Imports:
    """What a file imports.

    :ivar binds: the names of its top level: a package is not searched for a module of a name that
        it has.
    :ivar makes_names: whether it may have further names, because it imports ``*`` or makes them.
    :ivar lazy: names that it makes by importing a module when they are asked for, and that module,
        relative to it.
    :ivar alters_path: whether it changes where modules are found.
    :ivar stands_in: modules that it puts something in the place of; ``*`` for whichever.
    """

    found: tuple[Import, ...] = ()
    binds: frozenset[str] = frozenset()
    makes_names: bool = False
    lazy: Mapping[str, str] = field(default_factory=dict)
    alters_path: bool = False
    stands_in: frozenset[str] = frozenset()


def read_imports(text: str) -> Imports:
    """Find the imports of a source text.

    :raises SyntaxError: when it is no Python of this version, a `ValueError` when it holds null
        bytes, and a `RecursionError` when it is nested too deeply.
    """
    reduced = _TEXT.sub(_shortened, text)
    inner: list[Import] = []

    def stub(found: re.Match[str]) -> str:
        body = found.group()
        if "import" in body:
            inner.extend(_inner_imports(body, reduced.count("\n", 0, found.start()) + 1))
        return f"def {found[1]}(): pass" + "\n" * body.count("\n")

    skeleton = reduced
    try:
        skeleton = _DEFINITION.sub(stub, reduced)
        module = ast.parse(skeleton)
    except SyntaxError:
        inner.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its strings, which are the authors' affair
            module = ast.parse(text)
    found = (*_imports(module.body, certain=True), *inner)
    binds = _bound(module.body)
    if "global" in reduced:
        binds |= {name for line in _GLOBAL.findall(reduced) for name in _words(line)}
    return Imports(
        found,
        frozenset(binds),
        makes_names=not binds.isdisjoint(("*", "__getattr__"))
        or any(each in reduced for each in _DYNAMIC),
        lazy=_lazy(text, reduced) if "__getattr__" in binds else {},
        # Searching for a pattern costs more than all the rest, and most files hold no such word.
        alters_path=any(each in reduced for each in ("sys.path", "sys.meta_path"))
        and _ALTERED_PATH.search(reduced) is not None,
        stands_in=_stood_in(text, skeleton) if "sys.modules" in reduced else frozenset(),
    )


def _stood_in(text: str, skeleton: str) -> frozenset[str]:
    if _STOOD_IN_BY_NAME.search(skeleton):
        return frozenset("*")
    return frozenset(_STOOD_IN.findall(text))


def _lazy(text: str, reduced: str) -> dict[str, str]:
    """Return the table of names and modules that ``__getattr__`` goes by, if it has one.

    One that puts up with a module that is missing is as good as none.
    """
    made = [found for found in _DEFINITION.finditer(reduced) if found[1] == "__getattr__"]
    if any("except" in found.group() for found in made):
        return {}
    return dict(_LAZY.findall(text))


def _shortened(found: re.Match[str]) -> str:
    text = found.group()
    if text[0] == "#":
        return ""
    lines = text.count("\n")
    # Neither is empty: two empty strings side by side would begin one with three quotes.
    return '"""' + "\n" * lines + '"""' if lines else '"s"'


def _inner_imports(body: str, first: int) -> Iterator[Import]:
    for found in _INNER_IMPORT.finditer(body):
        line = first + body.count("\n", 0, found.start())
        base = found["base"]
        if base is None:
            for module in _words(found["modules"]):
                yield Import(module, 0, (), line, certain=False)
        else:
            module = base.lstrip(".")
            names = _words(found["several"] or found["one"] or "")
            yield Import(module, len(base) - len(module), tuple(names), line, certain=False)


def _words(text: str) -> Iterator[str]:
    """Yield the first word of each item of a list, which is what ``import`` imports."""
    for item in text.split(","):
        words = item.split()
        if words and words[0].replace(".", "").isidentifier():
            yield words[0]


def _imports(body: Sequence[ast.stmt], *, certain: bool) -> Iterator[Import]:
    """Yield the imports of statements that run one after the other."""
    for node in body:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, 0, (), node.lineno, certain)
            case ast.ImportFrom(module=module, names=names, level=level):
                taken = tuple(alias.name for alias in names)
                yield Import(module or "", level, taken, node.lineno, certain)
            case ast.Try():
                sure = certain and not any(map(_forgives, node.handlers))
                yield from _imports((*node.body, *node.orelse), certain=sure)
                for handler in node.handlers:
                    yield from _imports(handler.body, certain=False)
                yield from _imports(node.finalbody, certain=certain)
            case ast.If(test=test) if _never_true(test):
                yield from _imports(node.orelse, certain=certain)
            case ast.With(items=items):
                sure = certain and not any(map(_suppresses, items))
                yield from _imports(node.body, certain=sure)
            case ast.Expr() | ast.Assign() | ast.AnnAssign():
                pass
            case _:
                for inner in ast.walk(node):
                    if isinstance(inner, (ast.Import, ast.ImportFrom)):
                        yield from _imports((inner,), certain=False)


def _forgives(handler: ast.ExceptHandler) -> bool:
    """Whether the file is still imported when something in the ``try`` was not there."""
    caught = handler.type
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    if caught is not None and not any(_last_name(kind) in _FORGIVING for kind in kinds):
        return False
    last = handler.body[-1]
    ends = isinstance(last, ast.Raise) or (
        isinstance(last, ast.Expr)
        and isinstance(last.value, ast.Call)
        and ast.unparse(last.value.func) in _ENDING_CALLS
    )
    return not ends


def _suppresses(item: ast.withitem) -> bool:
    # Whatever manages the context may swallow the exception; only `suppress` is known to be one.
    return isinstance(item.context_expr, ast.Call)


def _never_true(test: ast.expr) -> bool:
    """Whether a condition does not hold when a file is imported to be used."""
    if isinstance(test, ast.Compare):
        return _last_name(test.left) == "__name__" and isinstance(test.ops[0], ast.Eq)
    return _last_name(test) == "TYPE_CHECKING"


def _last_name(node: ast.expr | None) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _bound(body: Sequence[ast.stmt]) -> set[str]:
    """Return the names that statements bind, ``*`` included."""
    names: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names.update(each.asname or each.name.partition(".")[0] for each in node.names)
            case ast.Assign():
                names.update(name for target in node.targets for name in _stored(target))
            case ast.AnnAssign():
                names.update(_stored(node.target))
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                for inner in ast.iter_child_nodes(node):
                    names.update(_stored(inner))
                for block in _blocks(node):
                    names |= _bound(block)
    return names


def _stored(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.id


def _blocks(node: ast.stmt) -> Iterator[Sequence[ast.stmt]]:
    """Yield the statements within a statement."""
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, ())
    for handler in getattr(node, "handlers", ()):
        yield handler.body
    for case in getattr(node, "cases", ()):
        yield case.body
