"""The tools of the enabled plugins: looked up, listed by category, and searched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .spec import ToolSpec

_WORD = re.compile(r"[a-z0-9]+")
_BETWEEN = re.compile(r"[-_.]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

#: Weight of a whole word and of the start of a word: in the name, in the title, the tags and the
#: category, and in the description. One match in a better field outweighs any in a lesser one.
_NAME = (100.0, 60.0)
_LABELS = (20.0, 12.0)
_DESCRIPTION = (4.0, 2.0)


#: How many names a misspelt one is compared with letter by letter.
_LIKELY = 40


class _Indexed(NamedTuple):
    spec: ToolSpec
    name: frozenset[str]
    labels: frozenset[str]
    description: frozenset[str]


class Catalog:
    """Tool specs by name, alias and category.

    :param specs: the tools; names and aliases are unique among them.
    :raises ValueError: when two tools claim one name, which selection does not let happen.
    """

    def __init__(self, specs: Iterable[ToolSpec]) -> None:
        #: The tools, sorted by name.
        self.specs: tuple[ToolSpec, ...] = tuple(sorted(specs, key=lambda spec: spec.name))
        self._by_name: dict[str, ToolSpec] = {}
        for spec in self.specs:
            for name in (spec.name, *spec.aliases):
                other = self._by_name.setdefault(name, spec)
                if other is not spec:
                    raise ValueError(
                        f"{name!r} is claimed by {other.name!r} of {other.plugin!r} and by "
                        f"{spec.name!r} of {spec.plugin!r}"
                    )
        self._index: tuple[_Indexed, ...] | None = None

    def __len__(self) -> int:
        return len(self.specs)

    def __iter__(self) -> Iterator[ToolSpec]:
        return iter(self.specs)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str) -> ToolSpec | None:
        """Return the tool of that name or alias, or ``None``."""
        return self._by_name.get(name)

    def categories(self) -> dict[str, tuple[ToolSpec, ...]]:
        """Return the listed tools by category, both sorted; those without one are under ``""``."""
        found: dict[str, list[ToolSpec]] = {}
        for spec in filter(_is_listed, self.specs):
            found.setdefault(spec.category, []).append(spec)
        return {category: tuple(found[category]) for category in sorted(found)}

    def search(self, query: str, limit: int = 20) -> list[ToolSpec]:
        """Find tools by words.

        Ranked by how many of the words are found, then by where: in the name, then in title, tags
        and category, then in the description; a whole word before the start of one. Equal ranks
        are sorted by name.

        Tools that are not listed are not found either.

        :param query: words in any order and case.
        :param limit: the most that are returned.
        """
        exact = self.get(query.strip())
        words = list(dict.fromkeys(_words(query)))
        ranked = []
        for indexed in self._indexed():
            scores = [_score(word, indexed) for word in words]
            found = sum(1 for score in scores if score)
            if found or indexed.spec is exact:
                first = indexed.spec is not exact
                ranked.append((first, -found, -sum(scores), indexed.spec.name, indexed.spec))
        ranked.sort(key=lambda item: item[:4])
        return [item[4] for item in ranked[: max(0, limit)]]

    def close_matches(self, name: str, n: int = 3) -> list[str]:
        """Return the names and aliases that a misspelt name comes closest to, best first.

        :param n: the most that are returned.
        """
        import difflib  # only needed for error messages
        import heapq

        by_folded: dict[str, str] = {}
        listed = [spec for spec in self.specs if spec.listed]
        # A name comes before the aliases that differ from it in what nobody gets right.
        for known in sorted(spec.name for spec in listed):
            by_folded.setdefault(_folded(known), known)
        for known in sorted(alias for spec in listed for alias in spec.aliases):
            by_folded.setdefault(_folded(known), known)
        wanted = _folded(name)
        pairs = {wanted[i : i + 2] for i in range(len(wanted) - 1)}
        # To compare as precisely with hundreds of names would hold the host's loop up.
        likely = heapq.nlargest(_LIKELY, by_folded, lambda known: sum(p in known for p in pairs))
        matches = difflib.get_close_matches(wanted, likely, n=n)
        return [by_folded[match] for match in matches]

    def _indexed(self) -> tuple[_Indexed, ...]:
        # Made on the first search: most processes never search.
        if self._index is None:
            self._index = tuple(
                _Indexed(
                    spec,
                    frozenset(_words(" ".join((spec.name, *spec.aliases)))),
                    frozenset(_words(" ".join((spec.title, spec.category, *spec.tags)))),
                    frozenset(_words(spec.description)),
                )
                for spec in self.specs
                if spec.listed
            )
        return self._index


def _is_listed(spec: ToolSpec) -> bool:
    return spec.listed


def _words(text: str) -> list[str]:
    return _WORD.findall(_HUMP.sub(" ", text).lower())


def _folded(name: str) -> str:
    """Return a name without what people get wrong about it: case, and what stands between words."""
    return _BETWEEN.sub("_", name.lower())


def _score(word: str, indexed: _Indexed) -> float:
    for words, (whole, start) in (
        (indexed.name, _NAME),
        (indexed.labels, _LABELS),
        (indexed.description, _DESCRIPTION),
    ):
        if word in words:
            return whole
        if any(candidate.startswith(word) for candidate in words):
            return start
    return 0.0
