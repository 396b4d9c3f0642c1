"""What the server knows of one connected client."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import Principal


@dataclass
class Session:
    """One client's connection; handlers find it as the SDK's lifespan context.

    :ivar principal: on whose behalf its calls are made.
    :ivar client: unique among the connections of this process; calls queue under this name.
    :ivar log_level: the least severe level of log lines it asked for (handshake era only; in the
        later one each request asks for itself).
    """

    principal: Principal
    client: str
    log_level: str = "info"
