"""Which tools cannot run here, as the plugins that offer them say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..hooks import Hooks
from ..hookspecs import ReadinessCheck
from ..spec import ToolSpec

#: Seconds for which an answer is kept, and for which a plugin is waited for.
_KEPT, _PATIENCE = 60.0, 20.0


@dataclass
class _Asked:
    """What one plugin was asked, and says.

    :ivar names: the tools that it was asked about.
    :ivar at: when it answered; on `time.monotonic`.
    """

    names: frozenset[str]
    task: asyncio.Task[dict[str, str]]
    at: float = 0.0

    @property
    def stale(self) -> bool:
        """Whether the plugin is to be asked again."""
        return self.task.done() and time.monotonic() - self.at >= _KEPT


class Readiness:
    """Asks plugins why their tools cannot run. Used on the host's loop.

    However many ask, a plugin is asked once at a time, because looking may read thousands of files.
    One that takes longer than its time goes on in its thread; its tools count as ready meanwhile.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._asked: dict[str, _Asked] = {}

    async def of(self, specs: Sequence[ToolSpec]) -> dict[str, str]:
        """Return the reasons of those tools that cannot run, by name."""
        by_plugin: dict[str, list[ToolSpec]] = {}
        for spec in specs:
            by_plugin.setdefault(spec.plugin, []).append(spec)
        asked = [
            asking.task
            for plugin, own in by_plugin.items()
            if (asking := self._ask(plugin, own)) is not None
        ]
        if asked:
            await asyncio.wait(asked, timeout=_PATIENCE)
        found: dict[str, str] = {}
        for task in asked:
            if task.done() and not task.cancelled():
                found.update(task.result())
        return {spec.name: found[spec.name] for spec in specs if spec.name in found}

    async def aclose(self) -> None:
        """Stop waiting for answers; a thread that still looks is left to itself."""
        tasks = [asking.task for asking in self._asked.values() if not asking.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ask(self, plugin: str, specs: Sequence[ToolSpec]) -> _Asked | None:
        asking = self._asked.get(plugin)
        names = frozenset(spec.name for spec in specs)
        if asking is not None and names <= asking.names and not asking.stale:
            return asking
        check = self._hooks.tool_readiness(plugin)
        if check is None:
            self._asked.pop(plugin, None)
            return None
        asking = self._asked[plugin] = _Asked(
            names, asyncio.ensure_future(self._answer(plugin, check, tuple(specs)))
        )
        return asking

    async def _answer(
        self, plugin: str, check: ReadinessCheck, specs: Sequence[ToolSpec]
    ) -> dict[str, str]:
        outcome = await asyncio.gather(asyncio.to_thread(check, specs), return_exceptions=True)

        def answer() -> object:
            if isinstance(outcome[0], BaseException):
                raise outcome[0]
            return outcome[0]

        names = frozenset(spec.name for spec in specs)
        found = self._hooks.reasons(plugin, answer, names)
        asking = self._asked.get(plugin)
        if asking is not None:
            asking.at = time.monotonic()
        return found
