"""One tool call in this process, for ``mcpd tools call --local``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from ..errors import UnknownTool
from ..host import Host
from ..spec import Principal, Progress
from .calling import Answer, ProgressLine, Request

if TYPE_CHECKING:
    from ..inventory import Inventory
    from ..settings import Settings


def call_here(request: Request, inventory: Inventory, settings: Settings) -> Answer:
    """Call a tool in this process, without a data directory.

    :raises CallRefused: when the tool did not start.
    """
    # What a plugin prints must not get into the result.
    with redirect_stdout(sys.stderr):
        try:
            return asyncio.run(_call_here(request, inventory, settings))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


def _cancel_on_interrupt() -> None:
    # Python 3.10 would raise KeyboardInterrupt wherever it happens to be, in the tool's code even.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)


async def _call_here(request: Request, inventory: Inventory, settings: Settings) -> Answer:
    _cancel_on_interrupt()
    progress = ProgressLine()

    def on_progress(report: Progress) -> None:
        progress.show(report.done, report.total, report.message)

    async with Host(inventory, settings, data_dir=None) as host:
        spec = host.catalog.get(request.tool)
        try:
            result = await host.call(
                request.tool,
                request.arguments(None if spec is None else spec.input_schema),
                principal=Principal("local", str(os.getuid())),
                client="cli",
                on_progress=on_progress,
            )
        except UnknownTool as error:
            if not host.inventory.enabled:
                error.hint = error.hint or "No plugin is enabled; see `mcpd plugins list`."
            raise
        finally:
            progress.close()
    return Answer(result.text, result.structured, result.error, result.content)
