"""What leaves the host: answers without control characters and within bounds, errors without
internals."""

from __future__ import annotations

import re
from typing import Any

from ..errors import InvalidOutput, McpdError
from ..spec import CallResult

#: C0 and C1 control characters except tab, line feed and carriage return: terminal escapes, mostly.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: The same as JSON text has them: C0 is escaped there, DEL and C1 stand as they are.
_CONTROL_IN_JSON = re.compile(r"\\u00[01]|\\[bf]|[\x7f-\x9f]")


def shaped(result: CallResult, *, tool: str, limit: int) -> CallResult:
    """Return an answer fit to be sent.

    :param limit: bytes of text.
    :raises InvalidOutput: when the answer is larger than the limit.
    """
    text, structured = result.text, result.structured
    size = len(text) if len(text) > limit else len(text.encode(errors="replace"))
    if size > limit:
        raise InvalidOutput(
            f"The tool {tool!r} answered with more than {limit} bytes.",
            hint="Ask for less, for example a page of it.",
            retryable=False,
            data={"limit_bytes": limit},
        )
    if structured is None:
        return CallResult(_CONTROL.sub("", text)) if _CONTROL.search(text) else result
    if _CONTROL_IN_JSON.search(text):
        from ..schema import to_json

        structured = _clean(structured)
        return CallResult(to_json(structured), structured)
    return result


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _CONTROL.sub("", value)
    if isinstance(value, dict):
        return {_CONTROL.sub("", key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def failure(error: McpdError) -> CallResult:
    """Return the answer that tells a client how a tool failed."""
    details: dict[str, Any] = {**error.data, "code": error.code, "message": error.message}
    if error.hint:
        details["hint"] = error.hint
    details["retryable"] = getattr(error, "retryable", True)
    return CallResult(_CONTROL.sub("", str(error)), error=details)
