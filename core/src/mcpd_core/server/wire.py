"""How messages look on the wire: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pydantic_core
from mcp_types import ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCResponse, RequestId
from pydantic_core import PydanticSerializationError

_HEAD = b'{"jsonrpc":"2.0","id":'
_RESULT = b',"result":'


class RawList(list[Any]):
    """A list that carries its own JSON, so that a large one is serialised once and not per answer.

    Any other serialiser sees an ordinary list, which is why a result that holds one may pass
    through the SDK and through transports that know nothing of it.

    :param items: what the list holds.
    :ivar raw: the list as JSON; it must not be changed after construction.
    """

    __slots__ = ("raw",)

    def __init__(self, items: list[Any]) -> None:
        super().__init__(items)
        self.raw = dump(items)

    @classmethod
    def joined(cls, parts: Iterable[bytes]) -> RawList:
        """Return a list that has its JSON and nothing else, for `encode_result` alone.

        :param parts: lists as JSON, whose items follow each other.
        """
        made = cls([])
        made.raw = b"[" + b",".join(part[1:-1] for part in parts if part != b"[]") + b"]"
        return made


def dump(value: Any) -> bytes:
    """Serialise a JSON-compatible value.

    Values that JSON has no word for (``NaN``, infinities) become ``null``, and lone surrogates,
    which UTF-8 cannot carry, become escapes: an answer that cannot be encoded would leave its
    client waiting.
    """
    try:
        return pydantic_core.to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        return json.dumps(value, separators=(",", ":")).encode()


def encode_result(request_id: RequestId, result: dict[str, Any]) -> bytes:
    """Encode the answer to a request; a `RawList` under ``tools`` is spliced in as it is."""
    tools = result.get("tools")
    if type(tools) is RawList:
        rest = dump({key: value for key, value in result.items() if key != "tools"})
        joint = b"," + rest[1:] if len(rest) > 2 else rest[1:]
        body = b'{"tools":' + tools.raw + joint
    else:
        body = dump(result)
    return b"".join((_HEAD, dump(request_id), _RESULT, body, b"}\n"))


def encode_error(request_id: RequestId | None, error: ErrorData) -> bytes:
    """Encode the refusal of a request; ``None`` when its id could not be read."""
    body = {
        "jsonrpc": "2.0",
        "id": request_id,
        "error": error.model_dump(mode="json", exclude_none=True),
    }
    return dump(body) + b"\n"


def encode_notification(method: str, params: dict[str, Any] | None) -> bytes:
    """Encode a notification."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        body["params"] = params
    return dump(body) + b"\n"


def encode(message: JSONRPCMessage) -> bytes:
    """Encode any message of the SDK."""
    if isinstance(message, JSONRPCResponse):
        return encode_result(message.id, message.result)
    if isinstance(message, JSONRPCError):
        return encode_error(message.id, message.error)
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
