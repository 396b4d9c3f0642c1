"""How results and refusals of the host look to an MCP client.

A tool's failure is a result with ``isError``, so that the model reads it and can act; so are
arguments that do not fit, because a model can mend them. What the host refuses for another reason
is a JSON-RPC error. Either carries the machine-readable details: results under `ERROR_META` in
``_meta`` (``structuredContent`` is bound to the tool's output schema, which they do not fit),
errors in ``data``. Data that a tool gave with its failure is ``structuredContent`` as ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from ..errors import Busy, CallRefused, InvalidArguments, UnknownTool
from ..spec import CallResult

#: The key in a result's ``_meta`` under which a failure's code, hint and data are found.
ERROR_META = "mcpd/error"
#: JSON-RPC leaves -32000 to -32099 to servers; ``data.code`` says which refusal it is.
REFUSED = -32000


def result_of(result: CallResult) -> dict[str, Any]:
    """Shape what a call answered as the result of ``tools/call``, for both protocol eras."""
    shaped: dict[str, Any] = {
        "content": list(result.content) or [{"type": "text", "text": result.text}],
        "resultType": "complete",
    }
    if result.error is not None:
        shaped["isError"] = True
        shaped["_meta"] = {ERROR_META: plain(result.error)}
    if result.structured is not None:
        shaped["structuredContent"] = result.structured
    return shaped


def result_of_misfit(refused: InvalidArguments) -> dict[str, Any]:
    """Shape a refusal of arguments as a result that the model can correct itself by."""
    return result_of(CallResult(text=str(refused), error=_details(refused)))


def error_of(refused: CallRefused) -> MCPError:
    """Translate a refusal into the JSON-RPC error that says so."""
    data = _details(refused)
    del data["message"]
    if isinstance(refused, Busy):
        data["retryAfter"] = refused.retry_after
    code = INVALID_PARAMS if isinstance(refused, UnknownTool) else REFUSED
    return MCPError(code, str(refused), data)


def _details(refused: CallRefused) -> dict[str, Any]:
    details: dict[str, Any] = {"code": refused.code, "message": refused.message}
    if refused.hint:
        details["hint"] = refused.hint
    if refused.data:
        details["data"] = plain(refused.data)
    return details


def plain(details: Mapping[str, Any]) -> dict[str, Any]:
    """Copy details, spelling out whatever JSON has no type for."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(details), default=str))
    return plain
