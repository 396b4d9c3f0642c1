"""``/health/live`` and ``/health/ready``: for supervisors, who need nobody's leave.

They say nothing about what is installed or what is done: a probe comes without credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ...services import Health
from ..wire import dump
from .exchange import JSON, Send, respond

LIVE = "/health/live"
READY = "/health/ready"


class Watched(Protocol):
    """What is asked of `mcpd_core.host.Host`."""

    @property
    def closing(self) -> bool:
        """Whether further calls are refused."""
        ...

    def health(self) -> Mapping[str, Health]:
        """How each service that was started is."""
        ...


class HealthPages:
    """Answers the probes.

    :param host: whose readiness is meant.
    """

    def __init__(self, host: Watched) -> None:
        self._host = host
        self._started = False

    def start(self, *_: object) -> None:
        """Note that the services which start with the server have been started."""
        self._started = True

    async def get(self, path: str, method: str, send: Send) -> None:
        """Answer a probe: 200, or 503 with the reasons for being unavailable."""
        headers = [JSON, (b"cache-control", b"no-store")]
        if method not in ("GET", "HEAD"):
            await respond(send, 405, b"", [(b"allow", b"GET, HEAD")])
            return
        reasons = self.reasons() if path == READY else []
        status = {"status": "unavailable", "reasons": reasons} if reasons else {"status": "ok"}
        await respond(send, 503 if reasons else 200, dump(status), headers)

    def reasons(self) -> list[str]:
        """Say why calls should go elsewhere; nothing when they should not."""
        reasons = []
        if self._host.closing:
            reasons.append("stopping")
        elif not self._started:
            reasons.append("starting")
        services = self._host.health().values()
        if bad := sum(not health.ok for health in services):
            reasons.append(f"{bad} of {len(services)} services not working")
        return reasons
