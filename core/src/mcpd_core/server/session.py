"""What the server knows of one connected client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..spec import Principal

if TYPE_CHECKING:
    from mcp.server.session import ServerSession

    from .updates import Subscriber


@dataclass
class Session:
    """One client's connection; handlers find it as the SDK's lifespan context.

    :ivar principal: on whose behalf its calls are made.
    :ivar client: unique among the connections of this process; calls queue under this name.
    :ivar log_level: the least severe level of log lines it asked for (handshake era only; in the
        later one each request asks for itself).
    :ivar standing: what reaches the client apart from any request, once it has finished its
        handshake (handshake era only).
    :ivar subscriber: what it follows, once it has subscribed to a resource (handshake era only).
    """

    principal: Principal
    client: str
    log_level: str = "info"
    standing: ServerSession | None = field(default=None, repr=False, compare=False)
    subscriber: Subscriber | None = field(default=None, repr=False, compare=False)
