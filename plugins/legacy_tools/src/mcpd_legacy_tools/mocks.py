"""Where the code of a tool shows that its answers are made up.

Old trees grew from sketches, and many a tool still answers with a sketch: a ``MockService``, a list
of invented results, a comment that says ``in a real implementation``. Such code says so itself, in
the names that it uses, in comments, strings and docstrings. So each definition of a file is read
line by line, together with those that it leads to: in the same file, and in the modules called
``*_engine``, where newer trees keep what their tools do. Nothing is parsed; most files hold none of
the words that matter and cost one search.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .opening import never_waiting
from .records import Mark

#: Marks that are kept of one tool, engines that one file is followed into, and the bytes that one
#: of those may have.
MOST_MARKS, MOST_ENGINES, LARGEST_ENGINE = 20, 8, 512 * 1024

#: Without one of these words, in any case, a line shows nothing.
_HINTS = (
    *("mock", "fake", "faking", "dummy", "placeholder", "simulat", "made-up", "stub"),
    *("hard-coded", "hardcoded", "demonstration", "in a real", "in an actual", "in production"),
)
_NOUNS = (
    "answers?|archives?|articles?|backends?|behaviou?r|cids?|clients?|content|conversions?|counts?"
    "|data|datasets?|documents?|embeddings?|entries|entry|files?|functions?|hashe?s?|"
    "implementations?|indexe?s?|indices|info|information|items?|logic|managers?|metadata|metrics?"
    "|models?|numbers?|objects?|output|peers?|progress|proofs?|quotes?|responses?|results?|scores?"
    "|servers?|services?|statistics|stats|status|stores?|times?|tokens?|transactions?|values?"
    "|vectors?"
)
_SIGNS = re.compile(
    # Names: MockService, _mock_results, generate_fake_data, PlaceholderClient.
    r"\b_*(?:Mock|Fake|Dummy|Placeholder|Simulated)[A-Z]\w*"
    r"|\b_*(?:(?:generate|create|make|build|get|load|return|default|the)_)?"
    r"(?:mock|mocked|fake|simulated)_(?!useragent|annealing|mode|dict|factory)\w+"
    rf"|\b_*(?:dummy|placeholder)_(?:{_NOUNS})\b"
    # Comments that begin with what the code does not do.
    r"|\#[ \t]*(?:(?:this|it)[ \t]is[ \t])?(?:an?[ \t])?"
    r"(?i:mock|mocked|mocking|simulate|simulates|simulated|simulating|fake|dummy|placeholder)\b"
    # Prose, in comments, docstrings and messages.
    r"|(?i:\b(?:mock|mocked|fake|faked|dummy|simulated|placeholder|made-up)"
    rf"(?:[ \t-](?:\w+[ \t-]){{0,2}}(?:{_NOUNS})\b))"
    r"|(?i:\bhard-?coded[ \t](?:data|answers?|responses?|results?)\b)"
    r"|(?i:\b(?:is|as|returns?|returning)[ \t](?:only[ \t]|just[ \t])?an?[ \t]"
    r"(?:mock|placeholder|stub|simulation|dummy)\b)"
    r"|(?i:\bstub[ \t]implementation\b)"
    r"|(?i:\bin[ \t]an?[ \t](?:real|actual)(?:[ -]world)?[ \t]"
    r"(?:implementation|system|scenario|deployment|application|setup|environment)\b)"
    r"|(?i:\bin[ \t]production,?[ \t](?:you|this|we|it|use|replace|analy[sz]e|implement|would)\b)"
    r"|(?i:\bfor[ \t]demonstration\b)"
    # Values: "Mock content for ...", f"mock_{...}", data_source="mock".
    r"|[\"'](?:Mock[ \t]|mock_|mock-|fake_|simulated_)\w*"
    r"|=[ \t]*[\"'](?:mock|fake|simulated|placeholder)[\"'](?![ \t]*[:\]])"
    r"|[\"']Placeholder\b"
)
#: Lines about such data, rather than with it.
_OTHERWISE = re.compile(
    r"(?i:\b(?:no|not|non|never|neither|without|avoids?|instead[ \t]of|rather[ \t]than|isn't|aren't"
    r"|replac\w+|remov\w+|reject\w*|refus\w+|detect\w*|forbid\w*|unlike|longer|only[ \t]if)\b"
    r"[^.,;#]{0,40}?(?:mock|fake|placeholder|simulat|dummy|stub))"
    r"|unittest\.mock|\bpatch\(|\bpytest\b|fake_useragent"
    r"|placeholders\b|placeholder[ \t]*=[ \t]*[\"']"
    r"|[!=]=[ \t]*[\"'](?:mock|fake|simulated|placeholder)"
    r"|^[ \t]*(?:from|import)[ \t]"
)
# What begins a line begins a definition, a variable, or something else.
_START = re.compile(
    r"^(?:(?:async[ \t]+def|def|class)[ \t]+(?P<code>\w+)"
    r"|(?P<variable>[A-Za-z_]\w*)[ \t]*(?::[^=\n]*)?=(?!=)|[A-Za-z_@#])",
    re.MULTILINE,
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_ENGINE = re.compile(
    r"^[ \t]*from[ \t]+(?P<module>[.\w]*\w_engine)[ \t]+import[ \t]+"
    r"(?:\((?P<several>[^)]*)\)|(?P<one>[^\n#(]*))",
    re.MULTILINE,
)
_COMMENT = re.compile(r"#[^\n]*")


@dataclass
class Marks:
    """What one file shows.

    :ivar of: for each definition of its top level that shows something, where: in the file itself
        first, and then in engines.
    :ivar engines: the other files that this depends on; they need not exist.
    """

    of: dict[str, tuple[Mark, ...]] = field(default_factory=dict)
    engines: tuple[str, ...] = ()


class MarkFinder:
    """Finds the marks of files. Those that lead to the same engines share the reading of them, so
    one is made for a scan, and put away after it.

    :param root: the directory that the tree's own imports start from.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._engines: dict[str, _Text] = {}

    def find(self, text: str, source: str, file: str) -> Marks:
        """Find where the definitions of a file show that their data is made up.

        :param text: the file's text.
        :param source: its absolute path.
        :param file: what the marks shall call it: its path relative to the tree.
        """
        own = _Text(text, source, file, self._root)
        engines = self._followed(own)
        if not own.marks and not any(self._engines[path].marks for path in engines):
            return Marks(engines=engines)
        marks = Marks(engines=engines)
        # What is imported from an engine may be offered as if it were defined here.
        imported = [ours for _, called in own.engines for ours in called.values()]
        for name in dict.fromkeys((*own.blocks, *imported)):
            found = dict.fromkeys(self._reached(own, [name], set()))
            if found:
                marks.of[name] = tuple(found)[:MOST_MARKS]
        return marks

    def _followed(self, text: _Text) -> tuple[str, ...]:
        """Read the engines that a text leads to, and those that they lead to."""
        followed: dict[str, None] = {}
        waiting = [path for path, _ in text.engines]
        while waiting and len(followed) < MOST_ENGINES:
            path = waiting.pop(0)
            if path not in followed:
                followed[path] = None
                waiting += [each for each, _ in self._engine(path).engines]
        return tuple(followed)

    def _engine(self, path: str) -> _Text:
        engine = self._engines.get(path)
        if engine is None:
            shown = os.path.relpath(path, self._root).replace(os.sep, "/")
            engine = self._engines[path] = _Text(_content(path), path, shown, self._root)
        return engine

    def _reached(
        self, text: _Text, names: Iterable[str], seen: set[tuple[str, str]]
    ) -> Iterator[Mark]:
        """Yield the marks of some definitions of a text, and of all that they lead to.

        :param seen: files and names that have been asked for already.
        """
        new = [name for name in names if (text.source, name) not in seen]
        seen.update((text.source, name) for name in new)
        if not new:
            return
        reached = text.reached(new)
        for each in reached:
            yield from text.marks_in(each)
        words = {word for each in reached for word in text.words(each)}.union(new)
        for path, called in text.engines:
            engine = self._engines.get(path)
            if engine is not None:
                wanted = [theirs for theirs, ours in called.items() if ours in words]
                yield from self._reached(engine, sorted(words) if "*" in called else wanted, seen)


class _Text:
    """A file as its definitions, and what stands in each."""

    def __init__(self, text: str, source: str, file: str, root: str) -> None:
        self.source = source
        self._text = text
        self._file = file
        self._root = root
        self._words: dict[str, set[str]] = {}

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """The lines that show something."""
        return tuple(
            Mark(self._file, number, line.strip())
            for number, line in self._hinted()
            if _SIGNS.search(line) and not _OTHERWISE.search(line)
        )

    def _hinted(self) -> Iterator[tuple[int, str]]:
        """Yield the lines with a word that matters, and their numbers."""
        folded = self._text.lower()
        numbers = set()
        for hint in _HINTS:
            found = folded.find(hint)
            while found >= 0:
                numbers.add(folded.count("\n", 0, found))
                found = folded.find(hint, found + 1)
        if numbers:
            lines = self._text.split("\n")
            yield from ((number + 1, lines[number]) for number in sorted(numbers))

    @cached_property
    def engines(self) -> tuple[tuple[str, dict[str, str]], ...]:
        """The files of the engines that it imports from, and what it calls their names."""
        return tuple(self._imported()) if "_engine" in self._text else ()

    def _imported(self) -> Iterator[tuple[str, dict[str, str]]]:
        for found in _ENGINE.finditer(self._text):
            module = found["module"].lstrip(".")
            base = self._root
            for i in range(len(found["module"]) - len(module)):
                base = os.path.dirname(base if i else self.source)
            items = _COMMENT.sub("", found["several"] or found["one"] or "").split(",")
            names = {words[0]: words[-1] for item in items if (words := item.split())}
            yield os.path.join(base, *module.split(".")) + ".py", names

    @cached_property
    def blocks(self) -> Mapping[str, list[tuple[int, int]]]:
        """Where each definition and variable of the top level stands: start and end."""
        blocks: dict[str, list[tuple[int, int]]] = {}
        starts = list(_START.finditer(self._text))
        ends = [*(found.start() for found in starts), len(self._text)][1:]
        for found, end in zip(starts, ends, strict=False):
            name = found["code"] or found["variable"]
            if name:
                blocks.setdefault(name, []).append((found.start(), end))
        return blocks

    def words(self, name: str) -> set[str]:
        """Return the words that stand in a definition."""
        words = self._words.get(name)
        if words is None:
            words = self._words[name] = {
                word
                for start, end in self.blocks.get(name, ())
                for word in _WORD.findall(self._text, start, end)
            }
        return words

    def reached(self, names: Iterable[str]) -> list[str]:
        """Return the definitions of some names and those that they lead to."""
        reached = dict.fromkeys(name for name in names if name in self.blocks)
        waiting = list(reached)
        while waiting:
            new = sorted((self.words(waiting.pop(0)) & self.blocks.keys()) - reached.keys())
            reached.update(dict.fromkeys(new))
            waiting += new
        return list(reached)

    def marks_in(self, name: str) -> Iterator[Mark]:
        """Yield the lines of a definition that show something."""
        if self.marks:
            for start, end in self.blocks[name]:
                first = self._text.count("\n", 0, start) + 1
                last = first + self._text.count("\n", start, end - 1)
                yield from (mark for mark in self.marks if first <= mark.line <= last)


def _content(path: str) -> str:
    """Return the text of an engine; nothing when it cannot be read, which is told elsewhere."""
    try:
        if os.path.getsize(path) > LARGEST_ENGINE:
            return ""
        with open(path, encoding="utf-8", errors="replace", opener=never_waiting) as file:
            return file.read()
    except OSError:
        return ""
