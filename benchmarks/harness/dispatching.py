"""Calls of a legacy tool, direct and through ``tools_dispatch``; in a process of its own.

    python -m harness.dispatching mcpd.toml note_000 admin_tools 2000

The settings mount the tree. Both kinds of calls take turns. Prints one JSON object: the medians in
milliseconds, and what the second adds to the first.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mcpd_core import Principal
from mcpd_core.discovery import scan
from mcpd_core.host import Host
from mcpd_core.selection import select
from mcpd_core.settings import load_settings
from mcpd_core.spec import CallResult

from .figures import quantile

#: The plugin that serves trees.
PLUGIN = "legacy_tools"
ARGUMENTS = {"text": "hello world"}


async def compared(settings_file: str, tool: str, category: str, calls: int) -> dict[str, float]:
    """Measure both kinds of calls.

    :param tool: of the tree, which takes `ARGUMENTS`.
    :param calls: of each kind.
    :raises RuntimeError: when a call fails.
    """
    settings = load_settings(settings_file, env={})
    inventory = select(scan(), wanted=[PLUGIN], section=settings.section)
    params = {"category": category, "tool": tool, "params": ARGUMENTS}
    with TemporaryDirectory(prefix="mcpd-bench-") as folder:
        async with Host(inventory, settings, data_dir=Path(folder)) as host:
            call = partial(
                host.call, principal=Principal("local", str(os.getuid())), client="benchmark"
            )
            direct = partial(call, f"{category}__{tool}", ARGUMENTS)
            dispatched = partial(call, "tools_dispatch", params)
            for _ in range(calls // 10 + 1):
                await _seconds(direct)
                await _seconds(dispatched)
            pairs = [(await _seconds(direct), await _seconds(dispatched)) for _ in range(calls)]
    own, through = ([pair[which] * 1e3 for pair in pairs] for which in (0, 1))
    added = [after - before for before, after in zip(own, through, strict=True)]
    return {
        "direct": quantile(own, 0.5),
        "dispatched": quantile(through, 0.5),
        "added": quantile(added, 0.5),
    }


async def _seconds(call: Callable[[], Awaitable[CallResult]]) -> float:
    begun = time.perf_counter()
    result: Any = await call()
    took = time.perf_counter() - begun
    if result.is_error:
        raise RuntimeError(f"a call failed: {result.text}")
    return took


def main() -> None:
    """Measure what the command line names."""
    settings_file, tool, category, calls = sys.argv[1:]
    print(json.dumps(asyncio.run(compared(settings_file, tool, category, int(calls)))))


if __name__ == "__main__":
    main()
