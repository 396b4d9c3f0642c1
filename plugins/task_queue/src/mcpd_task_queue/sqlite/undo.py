"""What is kept in memory beside the tables, and must come to nothing when a change to them does."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Any = object()


class UndoLog:
    """Remembers what was in dicts before they were changed, until the changes are durable."""

    def __init__(self) -> None:
        self._before: list[tuple[MutableMapping[Any, Any], Any, Any]] = []

    def put(self, mapping: MutableMapping[K, V], key: K, value: V) -> None:
        """Set an item."""
        self._before.append((mapping, key, mapping.get(key, _ABSENT)))
        mapping[key] = value

    def drop(self, mapping: MutableMapping[K, V], key: K) -> None:
        """Delete an item."""
        self._before.append((mapping, key, mapping.pop(key)))

    def mark(self) -> int:
        """Return the present point in time, for `back_to`."""
        return len(self._before)

    def back_to(self, mark: int) -> None:
        """Restore what there was at that point."""
        while len(self._before) > mark:
            mapping, key, value = self._before.pop()
            if value is _ABSENT:
                mapping.pop(key, None)
            else:
                mapping[key] = value
