"""JSON-RPC methods for the owner of the server; its command line uses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcpd_core import Principal, RpcHandler, ServiceFinder

from .errors import BackupFailed


def methods(services: ServiceFinder) -> Mapping[str, RpcHandler]:
    """Return the methods by name.

    :param services: finds the service ``task_queue``.
    """

    async def backup(params: Mapping[str, Any], _: Principal) -> Mapping[str, Any]:
        path = params.get("path")
        if not isinstance(path, str) or not Path(path).is_absolute():
            raise BackupFailed(
                f"No backup was made: {path!r} is no absolute path.",
                hint="Give the path of a folder to be made, from the root on.",
            )
        made = await (await services.get("task_queue")).backup(Path(path))
        return {
            "path": str(made.path),
            "bytes": made.bytes,
            "tasks": made.tasks,
            "blobs": made.blobs,
            "seconds": round(made.seconds, 3),
        }

    return {"task_queue/backup": backup}
