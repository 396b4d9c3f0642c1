"""mcpd's whole host in one process: tasks call a tool that does nothing, through `Host.call`."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.loops import runner
from mcpd_core.host import Host
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.schema import describe, tools_of
from mcpd_core.settings import load_settings

from .contestant import PATIENCE, Queue, Starts, main
from .mcpd_store import McpdStore

MODULE = "benchmark_nothing"
TOOL = '''
from mcpd_core import tool

started = print


@tool(runtime="asyncio", read_only=True)
async def nothing(text: str, repeat: int, upper: bool) -> None:
    """Do nothing."""
    started()
'''


class McpdHost(Queue):
    """The plugin's service as a host starts it."""

    def submit(self, count: int, callers: int) -> float:
        raise NotImplementedError("a submit through the host is one over HTTP without HTTP")

    def fill(self, count: int) -> float:
        """Where the service looks for its tasks."""
        folder = Path(self.where) / "task_queue"
        folder.mkdir()
        store = McpdStore(str(folder), self.variant)
        store.name = "tasks.db"
        return store.fill(count)

    def drain(self, count: int, workers: int) -> float:
        Path(self.where, f"{MODULE}.py").write_text(TOOL)
        sys.path.insert(0, self.where)

        async def measured() -> float:
            everything = asyncio.Event()
            starts = Starts(count, everything.set)
            vars(importlib.import_module(MODULE))["started"] = starts.one
            rows = (
                _row("task_queue", "mcpd_task_queue.plugin", (), "trio"),
                _row("nothing", MODULE, [MODULE], "asyncio"),
            )
            settings = load_settings(
                None,
                env={},
                overrides={"task_queue": {"workers": workers}, "executor": {"workers": workers}},
            )
            async with Host(Inventory(rows), settings, data_dir=Path(self.where)) as host:
                await host.start_services()
                await asyncio.wait_for(everything.wait(), PATIENCE)
                return starts.seconds

        return runner("uvloop")(measured())

    def start(self, count: int, workers: int) -> list[float]:
        raise NotImplementedError("see submit")


def _row(name: str, entry: str, modules: Sequence[str], runtime: Any) -> PluginRow:
    return PluginRow(
        name=name,
        distribution=f"mcpd-{name}",
        version="1",
        runtime=runtime,
        state="enabled",
        entry=entry,
        hooks=() if modules else ("mcpd_services", "mcpd_settings"),
        tools=tuple(
            describe(function, plugin=name, runtime=runtime)
            for module in modules
            for function in tools_of(importlib.import_module(module))
        ),
    )


if __name__ == "__main__":
    main(McpdHost)
