"""Which plugins are in use: what has to end before one of them can be put away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Usage:
    """Counts the calls of each plugin's tools, from the look-up to the answer, nested ones too.

    Used on the host's thread, by code of either library.
    """

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def __getitem__(self, plugin: str) -> int:
        """How many calls there are at the moment."""
        return self._calls[plugin]

    @contextmanager
    def of(self, plugin: str) -> Iterator[None]:
        """Count a call for as long as the block runs."""
        self._calls[plugin] += 1
        try:
            yield
        finally:
            self._calls[plugin] -= 1
            if not self._calls[plugin]:
                del self._calls[plugin]
                for waiting in self._waiting.pop(plugin, ()):
                    if not waiting.done():
                        waiting.set_result(None)

    async def none_of(self, plugin: str) -> None:
        """Wait until a plugin is not in use; each call has a deadline, so the wait has as well."""
        while self._calls[plugin]:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(plugin, []).append(waiting)
            await waiting
