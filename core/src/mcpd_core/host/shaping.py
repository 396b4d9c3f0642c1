"""What leaves the host: answers without control characters and within bounds, errors without
internals."""

from __future__ import annotations

import re
from typing import Any

import pydantic_core

from ..errors import InvalidOutput, McpdError
from ..schema import to_json
from ..spec import CallResult

#: C0 and C1 control characters except tab, line feed and carriage return: terminal escapes, mostly.
#: Lone surrogates, which UTF-8 cannot carry, go with them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
#: The same as JSON text has them: C0 is escaped there, DEL and C1 stand as they are.
_CONTROL_IN_JSON = re.compile(r"\\u00[01]|\\[bf]|[\x7f-\x9f]")

#: Characters of a failure's message that reach the client.
_LONGEST_MESSAGE = 10_000


def shaped(result: CallResult, *, of: str, limit: int) -> CallResult:
    """Return an answer fit to be sent.

    :param of: whose it is, such as ``tool 'add'``.
    :param limit: bytes of text, of structured data as JSON, and of content blocks as JSON.
    :raises InvalidOutput: when the answer is larger than the limit.
    """
    text, structured, content = result.text, result.structured, result.content
    if not _within(text, limit) or (content and len(to_json(content)) > limit):
        raise InvalidOutput(
            f"The {of} answered with {_size(text, content):,} bytes; at most "
            f"{limit:,} are allowed.",
            hint="Ask for less, for example a page of it.",
            retryable=False,
            data={"limit_bytes": limit},
        )
    if structured is None:
        clean = _CONTROL.sub("", text) if _CONTROL.search(text) else text
    elif _CONTROL_IN_JSON.search(text):
        structured = _clean(structured)
        clean = to_json(structured)
    elif not content:
        return result
    else:
        clean = text
    return CallResult(clean, structured, result.error, tuple(map(_clean_block, content)))


def _size(text: str, content: tuple[Any, ...]) -> int:
    return max(len(text.encode(errors="replace")), len(to_json(content)) if content else 0)


def _within(text: str, limit: int) -> bool:
    return len(text) <= limit and len(text.encode(errors="replace")) <= limit


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _CONTROL.sub("", value)
    if isinstance(value, dict):
        return {_CONTROL.sub("", key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _clean_block(block: dict[str, Any]) -> dict[str, Any]:
    # Base64 has nothing to be cleaned of, and may be long.
    read = {key: value for key, value in block.items() if key not in ("data", "blob")}
    if isinstance(read.get("resource"), dict):
        read["resource"] = _clean_block(read["resource"])
    return {**block, **_clean(read)}


def failure(error: McpdError) -> CallResult:
    """Return the answer that tells a client how a tool failed."""
    try:
        details = pydantic_core.to_jsonable_python(error.data, fallback=repr, inf_nan_mode="null")
    except ValueError:
        details = {"data": repr(error.data)[:_LONGEST_MESSAGE]}
    details.update(code=error.code, message=_short(error.message))
    if error.hint:
        details["hint"] = _short(error.hint)
    details["retryable"] = getattr(error, "retryable", True)
    details = _clean(details)
    if len(to_json(details)) > 4 * _LONGEST_MESSAGE:
        details = {key: details[key] for key in ("code", "message", "retryable")}
    return CallResult(_CONTROL.sub("", _short(str(error))), error=details)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}... (cut off)"


def one_line(text: str) -> str:
    """Return text that cannot pretend to be several lines of a log, nor steer a terminal."""
    return _CONTROL.sub("", text.replace("\r", "\\r").replace("\n", "\\n"))
