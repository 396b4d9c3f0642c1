"""What every transport of ours tells the SDK about one message: its `DispatchContext`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import anyio
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.transport_context import TransportContext
from mcp_types import JSONRPCRequest, RequestId


class OneWay(ABC):
    """A message in hand whose sender can be told things and asked nothing: no tool of ours asks.

    :param request_id: of the request; ``None`` for a notification.
    :param token: the progress token of the request.
    """

    __slots__ = ("_cancel_requested", "_token", "closed", "request_id")

    #: How the message came.
    transport: ClassVar[TransportContext]

    def __init__(self, request_id: RequestId | None, token: str | int | None) -> None:
        self._token = token
        self._cancel_requested: anyio.Event | None = None
        self.request_id = request_id
        #: Whether nothing more is said about the message.
        self.closed = False

    @property
    def can_send_request(self) -> bool:
        return False

    @property
    def message_metadata(self) -> None:
        return None

    @property
    def cancel_requested(self) -> anyio.Event:
        if self._cancel_requested is None:
            self._cancel_requested = anyio.Event()
        return self._cancel_requested

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    @abstractmethod
    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        """Tell the sender something, unless nothing more is said."""

    async def progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        if self._token is None:
            return
        params: dict[str, Any] = {"progressToken": self._token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        await self.notify("notifications/progress", params)


def plain_request(raw: Mapping[str, Any]) -> JSONRPCRequest | None:
    """Recognise the common shape of a request without a model's validation, which costs several
    times as much as parsing; ``None`` leaves the judgement to the SDK."""
    if (
        len(raw) == 4
        and raw.get("jsonrpc") == "2.0"
        and type(raw.get("id")) in (int, str)
        and type(raw.get("method")) is str
        and type(raw.get("params")) is dict
    ):
        return JSONRPCRequest.model_construct(**raw)
    return None
