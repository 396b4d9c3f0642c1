"""What the queue serves over HTTP beside MCP: its metrics, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcpd_core import HttpRoute, ServiceFinder, ServiceUnavailable

from .metrics import CONTENT_TYPE, render

PATH = "/metrics/task_queue"


def routes(services: ServiceFinder) -> Sequence[HttpRoute]:
    """Return the routes.

    :param services: finds the service ``task_queue``.
    """

    async def metrics(scope: Any, receive: Any, send: Any) -> None:
        """Serve one request (ASGI)."""
        status, kind = 200, CONTENT_TYPE
        try:
            text = render(await (await services.get("task_queue")).metrics())
        except ServiceUnavailable as error:
            status, kind, text = 503, "text/plain; charset=utf-8", f"{error}\n"
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", kind.encode()), (b"cache-control", b"no-store")],
            }
        )
        body = b"" if scope["method"] == "HEAD" else text.encode()
        await send({"type": "http.response.body", "body": body})

    return [HttpRoute(PATH, ("GET", "HEAD"), metrics)]
