"""Which plugins are in use: what has to end before one of them can be put away."""

from __future__ import annotations

import asyncio


class PluginUsage:
    """The calls of one plugin's tools.

    As a context manager it counts one for as long as the block runs. It keeps nothing of the single
    call, so that any number of calls may be inside.

    :ivar calls: how many there are at the moment.
    """

    __slots__ = ("_waiting", "calls")

    def __init__(self) -> None:
        self.calls = 0
        self._waiting: list[asyncio.Future[None]] = []

    def __enter__(self) -> None:
        self.calls += 1

    def __exit__(self, *exc_info: object) -> None:
        self.calls -= 1
        if self._waiting and not self.calls:
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)
            self._waiting.clear()

    async def none(self) -> None:
        """Wait until there is none; each call has a deadline, so the wait has as well."""
        while self.calls:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting


class Usage:
    """Counts the calls of each plugin's tools, from the look-up to the answer, nested ones too.

    Used on the host's thread, by code of either library.
    """

    def __init__(self) -> None:
        self._plugins: dict[str, PluginUsage] = {}

    def __getitem__(self, plugin: str) -> int:
        """How many calls there are at the moment."""
        usage = self._plugins.get(plugin)
        return 0 if usage is None else usage.calls

    def of(self, plugin: str) -> PluginUsage:
        """Return what counts the calls of a plugin."""
        usage = self._plugins.get(plugin)
        if usage is None:
            usage = self._plugins[plugin] = PluginUsage()
        return usage

    async def none_of(self, plugin: str) -> None:
        """Wait until a plugin is not in use."""
        await self.of(plugin).none()
