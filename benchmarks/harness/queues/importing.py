"""How long a queue takes to be imported, in a process of its own.

    python -m harness.queues.importing mcpd

Prints the milliseconds of processor time. mcpd's plugin is imported after what ``mcpd serve`` has
imported anyway, as far as both need it; the others are what an application imports to submit tasks
and to run them.
"""

from __future__ import annotations

import importlib
import json
import sys
import time

#: For each queue, what was there before and what is then imported.
MODULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mcpd": (
        ("mcpd_core.server.serving", "mcpd_core.server.http.app", "mcpd_core.host", "trio"),
        ("mcpd_task_queue.plugin", "mcpd_task_queue.settings", "mcpd_task_queue.service"),
    ),
    "huey": ((), ("huey",)),
    "redis": ((), ("redis.asyncio",)),
    "taskiq": ((), ("taskiq.receiver", "taskiq_redis")),
    "procrastinate": ((), ("procrastinate",)),
    "dbos": ((), ("dbos",)),
}


def main() -> None:
    """Import what is named."""
    before, modules = MODULES[sys.argv[1]]
    for module in before:
        importlib.import_module(module)
    begun = time.process_time()
    for module in modules:
        importlib.import_module(module)
    print(json.dumps({"import": (time.process_time() - begun) * 1e3}))


if __name__ == "__main__":
    main()
