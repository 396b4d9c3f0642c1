"""Plants a tree of 400 tools in 60 categories, of every shape and with every kind of breakage.

The tree lies in a package, as the one that this plugin is for does::

    <root>/<package>/mcp_server/tools/<category>/<file>.py

The same call writes the same bytes, wherever it writes them. Nothing in it is ever imported by
planting it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from . import answering, broken, declared, envelopes, signatures, structure
from .expected import Expected, ExpectedExclusion, ExpectedProblem, ExpectedTool
from .templates import BOMB, File, Shape, Told

#: Tools of a tree.
TOOLS = 400
_TOPICS = """
    admin alert analysis audit auth background bespoke cache cluster conversion dashboard dataset
    deontic detection development discord email embedding export federation file finance function
    geospatial graph import index investigation inventory ipfs key legal licence logic media medical
    monitoring network notebook patent pdf pipeline provenance quality query rate report retrieval
    schedule search security session software sparse storage vector wallet weather web workflow
"""
#: The 60 categories of a tree.
CATEGORIES = tuple(f"{topic}_tools" for topic in _TOPICS.split())
#: Every shape there is.
SHAPES: tuple[Shape, ...] = (
    *envelopes.SHAPES,
    *answering.SHAPES,
    *signatures.SHAPES,
    *declared.SHAPES,
    *structure.SHAPES,
    *broken.SHAPES,
)

_SHAPES_PER_CATEGORY = 3
#: One in so many categories imports, from its ``__init__.py``, a tool of its first file.
_REEXPORTS = 3
#: One in so many has no ``__init__.py``.
_BARE = 10
_NOTE = '''

def note_{number:03d}(text: str, pinned: bool = False) -> dict:
    """Take note number {number}.

    Args:
        text: What is noted.
    """
    return {{"success": True, "note": text, "number": {number}, "pinned": pinned}}
'''


def plant(
    root: Path,
    *,
    package: str = "legacy_server",
    record: Path | None = None,
    raising: bool = True,
) -> Expected:
    """Plant the tree.

    :param root: a directory, which is made; the package goes into it.
    :param package: the name of the top-level package.
    :param record: when given, every file has an import bomb: a statement that writes the path of
        the file into this one when it is imported.
    :param raising: whether an import bomb also raises `ImportError`. Where it does not, tools can
        be called, and the record shows what that imports.
    :returns: what there is to find.
    """
    planting = _Planting(root, package, record, raising)
    planting.support()
    slots = _slots()
    for number, category in enumerate(CATEGORIES):
        planting.category(category, slots[number], number)
    for shape in SHAPES:
        if shape.at_root:
            planting.files("", shape.files)
    for category, file in _notes(TOOLS - len(planting.tools)):
        planting.files(category, (file,))
    return planting.expected()


def _slots() -> list[list[Shape]]:
    """Return the shapes of each category, in the order of the categories."""
    rare = [shape for shape in SHAPES if shape.once and not shape.at_root]
    cycle = itertools.cycle(shape for shape in SHAPES if not shape.once)
    slots = [list(itertools.islice(cycle, _SHAPES_PER_CATEGORY)) for _ in CATEGORIES]
    apart = len(CATEGORIES) // len(rare)
    for number, shape in enumerate(rare):
        slots[number * apart].append(shape)
    return slots


def _notes(count: int) -> Iterator[tuple[str, File]]:
    """Return files of plain tools that make up what is lacking, for some categories."""
    shares = [range(first, count, len(CATEGORIES)) for first in range(len(CATEGORIES))]
    for category, share in zip(CATEGORIES, shares, strict=True):
        if share:
            text = f'"""Notes that are taken."""\n{BOMB}' + "".join(
                _NOTE.format(number=number) for number in share
            )
            yield category, File("notes.py", text, tools=tuple(map(_note, share)))


def _note(number: int) -> Told:
    return Told(
        f"note_{number:03d}",
        {"text": "n"},
        {"success": True, "note": "n", "number": number, "pinned": False},
        required=("text",),
        optional=("pinned",),
        described={"text": "What is noted."},
        summary=f"Take note number {number}.",
    )


class _Planting:
    """Writes files and keeps account of what is in them.

    :ivar tools: of the files written so far.
    """

    def __init__(self, root: Path, package: str, record: Path | None, raising: bool) -> None:
        self._root = root
        self._server = PurePosixPath(package, "mcp_server")
        self._tree = self._server / "tools"
        self._record = record
        self._bomb = "" if record is None else _bomb(record, raising)
        self._brought: dict[str, tuple[str, ...]] = {}
        self._twins: dict[str, frozenset[str]] = {}
        self._excluded: list[ExpectedExclusion] = []
        self._problems: list[ExpectedProblem] = []
        self.tools: list[ExpectedTool] = []

    def support(self) -> None:
        """Write the packages above the categories, and what their tools import from there."""
        for folder in (self._server.parent, self._server, self._tree):
            self._write(folder / "__init__.py", f'"""A package of the old server."""\n{BOMB}')
        for name, text in declared.SUPPORT.items():
            self._write(self._server / name, text)

    def category(self, name: str, shapes: Sequence[Shape], number: int) -> None:
        """Write one category.

        :param number: its place among the categories, from 0.
        """
        files = [file for shape in shapes if not shape.at_root for file in shape.files]
        text = f'"""Tools about {name.removesuffix("_tools")}."""\n{BOMB}'
        if number % _BARE != _BARE - 1:
            if number % _REEXPORTS == 0 and (line := _reexport(files)):
                file, statement = line
                text += f"{statement}\n"
                self._brought[name] = (file.path, *file.imports)
            self._write(self._tree / name / "__init__.py", text)
        self.files(name, files)
        for shape in shapes:
            for twin in shape.twins:
                self._twins[f"{name}__{twin}"] = frozenset(
                    f"{name}/{file.path}" for file in shape.files
                )

    def files(self, category: str, files: Sequence[File]) -> None:
        """Write files of a category, or beside the categories.

        :param category: empty for the latter.
        """
        for file in files:
            folder = self._tree / category
            above = [p for p in PurePosixPath(file.path).parents if p != PurePosixPath(".")]
            for package in above:
                self._write(folder / package / "__init__.py", f'"""A package."""\n{BOMB}')
            self._write(folder / file.path, file.text, file)
            path = (PurePosixPath(category) / file.path).as_posix()
            self._excluded += [ExpectedExclusion(path, name, kind) for name, kind in file.excluded]
            if file.problem is not None:
                self._problems.append(ExpectedProblem(path, file.problem))
        for file in files:
            self.tools += [self._expected_tool(category, file, told) for told in file.tools]

    def expected(self) -> Expected:
        """Return what there is to find in what was written."""
        tools = [self._named(tool) for tool in self.tools]
        return Expected(
            root=self._root,
            package=".".join(self._tree.parts),
            path=self._root / self._tree,
            tools=tuple(sorted(tools, key=lambda tool: tool.file)),
            excluded=tuple(self._excluded),
            problems=tuple(self._problems),
            twins=self._twins,
            record=self._record,
        )

    def _expected_tool(self, category: str, file: File, told: Told) -> ExpectedTool:
        own = told.calls_itself or told.function
        name = f"{category}__{own}"
        plain = own.isascii() and len(name) <= 64 and category
        return ExpectedTool(
            name=name if plain else "",
            category=category,
            file=(PurePosixPath(category) / file.path).as_posix(),
            function=told.function,
            kind=told.kind,
            is_async=told.is_async,
            runtime=told.runtime,
            arguments=told.arguments,
            answer=told.answer,
            fails=told.fails,
            says=told.says,
            runs=told.runs,
            missing=told.missing,
            required=frozenset(told.required),
            optional=frozenset(told.optional),
            described=told.described,
            summary=told.summary,
            mocked=told.mocked,
            imports=self._imports(category, file),
        )

    def _named(self, tool: ExpectedTool) -> ExpectedTool:
        if tool.name not in self._twins:
            return tool
        stem = PurePosixPath(tool.file).stem
        return ExpectedTool(
            **{**vars(tool), "name": f"{tool.category}__{stem}__{tool.function}"},
        )

    def _imports(self, category: str, file: File) -> frozenset[str]:
        folder = self._tree / category
        brought = [file.path, *file.imports, *self._brought.get(category, ())]
        paths = {self._resolved(folder, path) for path in brought}
        packages = {
            parent / "__init__.py"
            for path in paths
            for parent in path.parents
            if parent != PurePosixPath(".")
        }
        present = {package for package in packages if (self._root / package).exists()}
        return frozenset(path.as_posix() for path in paths | present)

    def _resolved(self, folder: PurePosixPath, path: str) -> PurePosixPath:
        if path.startswith("/"):
            return PurePosixPath(path.replace("@SERVER_PATH@", str(self._server)).lstrip("/"))
        return folder / path

    def _write(self, path: PurePosixPath, text: str | bytes, file: File | None = None) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        data = data.replace(BOMB.encode(), self._bomb.encode())
        data = data.replace(b"@SERVER@", ".".join(self._server.parts).encode())
        if file is not None and file.size > len(data):
            line = file.repeated.encode()
            data += line * -(-(file.size - len(data)) // len(line))
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _reexport(files: Sequence[File]) -> tuple[File, str] | None:
    """Return the first file that has a tool which runs, and what imports that tool."""
    for file in files:
        if file.tools and file.tools[0].runs:
            module = ".".join(PurePosixPath(file.path).with_suffix("").parts)
            return file, f"from .{module} import {file.tools[0].function.partition('.')[0]}"
    return None


def _bomb(record: Path, raising: bool) -> str:
    """Return the statement that records an import, on one line of ASCII."""
    write = f'open({str(record)!a}, "a", encoding="utf-8")'
    lines = f'with {write} as _record: _record.write(__file__ + "\\n")\n'
    if raising:
        lines += 'raise ImportError("an import bomb went off in " + __file__)\n'
    return lines
