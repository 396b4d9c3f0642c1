"""JSON-RPC methods for the owner of the server; its command line uses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mcpd_core import InvalidArguments, Principal, RpcHandler, ServiceFinder

from .errors import BackupFailed
from .export import ExportRequest


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

    async def export(params: Mapping[str, Any], principal: Principal) -> Mapping[str, Any]:
        try:
            request = ExportRequest.model_validate(params)
        except ValidationError as error:
            raise InvalidArguments(
                "The tasks were not exported: "
                + "; ".join(
                    f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
                )
                + "."
            ) from error
        lines, cursor = await (await services.get("task_queue")).export(
            None if request.everybody else principal,
            request.wanted,
            cursor=request.cursor,
            max_bytes=request.max_bytes,
        )
        return {"lines": lines, "next_cursor": cursor}

    async def check(_: Mapping[str, Any], __: Principal) -> Mapping[str, Any]:
        found = await (await services.get("task_queue")).examine()
        return {"findings": [finding.to_json() for finding in found]}

    return {
        "task_queue/backup": backup,
        "task_queue/check": check,
        "task_queue/export": export,
    }
