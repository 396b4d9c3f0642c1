"""The helpers with which old tools make their answers."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any


def mcp_text_response(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload as an object whose content is one text, the payload's JSON."""
    return {"content": [{"type": "text", "text": json.dumps(payload)}]}


def mcp_error_response(message: str, *, error_type: str = "error", **extra: Any) -> dict[str, Any]:
    """Return a failure in that form; mcpd marks it as one."""
    return mcp_text_response(
        {"status": "error", "error": message, "error_type": error_type, **extra}
    )


def parse_json_object(
    request_json: Any,
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Read an object from JSON.

    :returns: the object and nothing, or nothing and the answer that tells what is wrong.
    """
    if not isinstance(request_json, str):
        return None, mcp_error_response("Input must be a JSON string")
    if not request_json.strip():
        return None, mcp_error_response("Input JSON is empty", error_type="validation")
    try:
        data = json.loads(request_json)
    except json.JSONDecodeError as error:
        return None, mcp_error_response(f"Invalid JSON: {error.msg}", error_type="validation")
    if not isinstance(data, dict):
        return None, mcp_error_response("Input JSON must be an object", error_type="validation")
    return data, None


def return_text_content(input: Any, result_str: str) -> Any:
    """Return a ``TextContent`` of the MCP SDK: a label, a colon, and a value as Python shows it."""
    types: Any = import_module("mcp.types")
    return types.TextContent(type="text", text=f"{result_str}: {input!r}")


def return_tool_call_results(content: Any, error: bool = False) -> Any:
    """Return a ``CallToolResult`` of the MCP SDK with one block of content."""
    types: Any = import_module("mcp.types")
    return types.CallToolResult(content=[content], isError=error)
