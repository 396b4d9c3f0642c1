"""The answers of tools that say by themselves whether they succeeded.

Four ways of saying so are in use, all of them keys of the object that is returned: ``success`` and
``ok`` are true or false, ``status`` is a word, and ``content`` holds blocks of text of which one is
the JSON of such an object, beside ``isError`` at times. An old client reads them as they are, so
they are handed on as they are; a failure is marked as one besides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pydantic_core

from mcpd_core import CallResult

from .payloads import as_json

#: Returns what to do about a failure, or nothing, given its message.
HintFor: TypeAlias = Callable[[str], str]

#: What ``status`` says of a failure.
FAILURES = frozenset({"error", "failed", "failure"})

#: What failures have their message under, and perhaps what to do about it.
_MESSAGES = ("error", "message", "error_message", "detail", "details", "reason", "errors")
_HINTS = ("hint", "suggestion", "suggestions", "help", "resolution")
_LONGEST = 2_000


def answer(value: Any, *, of: str, hint_for: HintFor = lambda text: "") -> CallResult:
    """Turn what a tool returned into the answer that a client gets.

    :param of: the tool's name.
    :param hint_for: knows what to do about some failures, given their message.
    :raises InvalidOutput: when JSON cannot carry it.
    """
    if isinstance(value, CallResult):
        return value
    data = as_json(value, of=of)
    failed = failure_in(data)
    error = None if failed is None else described(failed, of=of, hint_for=hint_for)
    if data is None:
        return CallResult("")
    if isinstance(data, str):
        return CallResult(data, error=error)
    text = pydantic_core.to_json(data).decode()
    return CallResult(text, data if isinstance(data, dict) else None, error)


def failure_in(data: Any) -> Mapping[str, Any] | None:
    """Return the object that says that a tool has failed, or ``None`` when nothing says so.

    Where flag and word disagree, the flag is about the call and the word about its subject: a tool
    that tells how a workflow ended has succeeded when the workflow has not.
    """
    if isinstance(data, str):
        data = _read(data)
    if not isinstance(data, dict):
        return None
    flags = [data[name] for name in ("success", "ok") if isinstance(data.get(name), bool)]
    if data.get("isError") is True or False in flags:
        return data
    if flags:
        return None
    status = data.get("status")
    if isinstance(status, str) and status.strip().lower() in FAILURES:
        return data
    return _failure_in_content(data.get("content"))


def _failure_in_content(content: Any) -> Mapping[str, Any] | None:
    if not isinstance(content, list):
        return None
    for block in content:
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            data = _read(block["text"])
            if isinstance(data, dict) and "content" not in data and (found := failure_in(data)):
                return found
    return None


def _read(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def described(failed: Mapping[str, Any], *, of: str, hint_for: HintFor) -> dict[str, Any]:
    """Return what a failure comes to for programs: code, message, hint.

    :param of: the tool's name.
    :param hint_for: knows what to do about some failures, given their message.
    """
    message = _said(failed, (*_MESSAGES, "content"))
    message = message or f"The tool {of!r} reported a failure and no reason."
    hint = hint_for(message) or _said(failed, _HINTS)
    hint = hint or "The answer is the tool's own; correct what it names."
    return {"code": "tool_failed", "message": message, "hint": hint, "retryable": True}


def _said(data: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first of some keys that says anything, as text."""
    for name in names:
        found = data.get(name)
        if isinstance(found, dict):
            found = _said(found, _MESSAGES) or json.dumps(found, ensure_ascii=False)
        elif isinstance(found, list):
            found = "; ".join(filter(None, map(_words, found)))
        if isinstance(found, str) and found.strip():
            text = found.strip()
            return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return ""


def _words(item: Any) -> str:
    if isinstance(item, dict):
        return _said(item, (*_MESSAGES, "text"))
    return item if isinstance(item, str) else json.dumps(item)
