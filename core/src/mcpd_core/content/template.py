"""URI templates of RFC 6570, level 1: ``notes://{folder}/{name}``.

Level 1 has one kind of placeholder, which stands for one part of a URI: everything in its value but
letters, digits and ``-._~`` is percent-encoded, ``/`` included. The RFC only says how a template is
expanded. Matching is the way back; it takes time in proportion to the URI's length, whatever the
template.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote

#: Characters of the longest URI that is looked at.
LONGEST_URI = 8192

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
#: What RFC 3986 lets stand in a URI.
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*\Z")
#: What ends a value: the parts of a URI's structure, which a value has only percent-encoded.
_STOPS = "/?#"

#: One step of a match: the character itself, or `None` for any character of a value.
_Symbol = str | None


class UriTemplate:
    """A URI template, or a URI, which is one without placeholders.

    :param text: the template.
    :ivar names: the placeholders in their order.
    :raises ValueError: when it is no template of level 1 that can be matched.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        parts = _PLACEHOLDER.split(text)
        self._literals = tuple(parts[::2])
        self.names = tuple(parts[1::2])
        problem = _problem(text, self._literals, self.names)
        if problem:
            raise ValueError(f"{text!r} is not a URI or a URI template: {problem}")

    def match(self, uri: str) -> dict[str, str] | None:
        """Return the decoded values of the placeholders, or ``None`` when the URI does not match.

        A value has at least one character. Where the text between two placeholders could itself be
        part of a value, the first value is as short as possible.
        """
        first, last = self._literals[0], self._literals[-1]
        if not self.names:
            return {} if uri == first else None
        end = len(uri) - len(last)
        if len(uri) > LONGEST_URI or not uri.startswith(first) or not uri.endswith(last):
            return None
        values = {}
        start = len(first)
        for name, literal in zip(self.names, self._literals[1:], strict=True):
            # Looking for the first occurrence misses nothing: whatever is left for the values that
            # follow only becomes longer.
            is_last = name is self.names[-1]
            stop = end if is_last else uri.find(literal, start + 1, end)
            value = uri[start:stop] if stop > start else ""
            if not value or any(character in _STOPS for character in value):
                return None
            try:
                values[name] = unquote(value, errors="strict")
            except UnicodeDecodeError:
                return None
            start = stop + len(literal)
        return values

    def expand(self, values: Mapping[str, str]) -> str:
        """Return the URI with these values.

        :raises KeyError: when a placeholder has no value.
        """
        text = self._literals[0]
        for name, literal in zip(self.names, self._literals[1:], strict=True):
            text += quote(values[name], safe="") + literal
        return text

    def overlaps(self, other: UriTemplate) -> bool:
        """Whether some URI matches both."""
        mine, theirs = self._literals[0], other._literals[0]
        if not (mine.startswith(theirs) or theirs.startswith(mine)):
            return False
        ours = (tuple(self._symbols()), tuple(other._symbols()))
        seen = {(0, 0)}
        todo = [(0, 0)]
        while todo:
            here = todo.pop()
            if here == (len(ours[0]), len(ours[1])):
                return True
            for one, after_one in _steps(ours[0], here[0]):
                for two, after_two in _steps(ours[1], here[1]):
                    after = (after_one, after_two)
                    if after not in seen and _agree(one, two):
                        seen.add(after)
                        todo.append(after)
        return False

    def _symbols(self) -> Iterator[_Symbol]:
        yield from self._literals[0]
        for literal in self._literals[1:]:
            yield None
            yield from literal


def _steps(symbols: tuple[_Symbol, ...], at: int) -> Iterator[tuple[_Symbol, int]]:
    """Yield what may come next in a text that has matched ``at`` symbols, and how many then."""
    if at < len(symbols):
        yield symbols[at], at + 1
    if at and symbols[at - 1] is None:
        yield None, at  # the value goes on


def _agree(one: _Symbol, two: _Symbol) -> bool:
    if one is not None and two is not None:
        return one == two
    character = one if one is not None else two
    return character is None or character not in _STOPS


def _problem(text: str, literals: tuple[str, ...], names: tuple[str, ...]) -> str:
    if not _SCHEME.match(literals[0]):
        return "it does not begin with a scheme, such as `notes:`"
    if len(text) > LONGEST_URI:
        return f"it has more than {LONGEST_URI} characters"
    for name in names:
        if not _NAME.match(name) or keyword.iskeyword(name):
            return f"{{{name}}} is no placeholder of level 1, which is a parameter's name in braces"
    if len(set(names)) < len(names):
        return "a placeholder occurs twice"
    if "" in literals[1:-1]:
        return "two placeholders follow each other, so nobody could tell where the first ends"
    for literal in literals:
        if not _LITERAL.match(literal):
            return f"{literal!r} holds what a URI may only hold percent-encoded"
    return ""
