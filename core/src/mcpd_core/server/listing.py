"""``tools/list``: deterministic, paged, and serialised once instead of once per client."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, PaginatedRequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from ..spec import TOOL_NAME, ToolSpec
from .wire import RawList, dump

#: Tools per page. Several clients never ask for a second page, so that one page must hold more
#: tools than an ordinary installation has.
PAGE = 1000
#: Serialised pages that are kept, least recently used first out. A page of 370 tools is 150 KB.
KEPT = 16

#: Tools that pass through the SDK at a time. What it makes of a tool takes several times the memory
#: of the tool, which would stay with the process.
AT_A_TIME = 50

_CURSOR = "after:"


class _Part:
    """What of a page is asked for.

    :ivar specs: the tools, as they were when the page was begun.
    :ivar start: index of its first tool in the page.
    :ivar of: how many tools the page has, once that is known.
    """

    def __init__(self, specs: Sequence[ToolSpec]) -> None:
        self.specs = specs
        self.start = 0
        self.of = 0


_part: ContextVar[_Part | None] = ContextVar("part of a page of tools", default=None)


def tool_of(spec: ToolSpec) -> dict[str, Any]:
    """Render one tool as clients see it."""
    hints = spec.annotations
    tool: dict[str, Any] = {"name": spec.name}
    if spec.title:
        tool["title"] = spec.title
    tool["description"] = spec.description
    tool["inputSchema"] = dict(spec.input_schema)
    if spec.output_schema is not None:
        tool["outputSchema"] = dict(spec.output_schema)
    annotations: dict[str, Any] = {
        "readOnlyHint": hints.read_only,
        "destructiveHint": hints.destructive,
        "idempotentHint": hints.idempotent,
        "openWorldHint": hints.open_world,
    }
    if spec.title:
        annotations["title"] = spec.title
    tool["annotations"] = annotations
    return tool


class ToolListing:
    """The handler of ``tools/list`` and the middleware that remembers its answers.

    An answer that has passed through the SDK once (validated, shaped for the protocol version,
    stamped) is kept with its tools as ready bytes, and given again for as long as the same client
    era asks for the same page of the same tools.

    :param tools_for: the tools that the client of a request may see, sorted by name.
    :param page: tools per page.
    :param raw: whether answers are encoded by `wire.encode_result` and nothing else, so that the
        list itself need not be kept beside its bytes.
    """

    def __init__(
        self,
        tools_for: Callable[[ServerRequestContext[Any, Any]], Sequence[ToolSpec]],
        *,
        page: int = PAGE,
        raw: bool = False,
    ) -> None:
        self._tools_for = tools_for
        self._page = page
        self._raw = raw
        self._kept: OrderedDict[
            tuple[str, str | None], tuple[tuple[ToolSpec, ...], dict[str, Any]]
        ] = OrderedDict()

    async def answer(
        self, ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams | None
    ) -> Any:
        """Answer one page (the SDK's ``on_list_tools``).

        :raises MCPError: when the cursor is none of ours.
        """
        part = _part.get()
        specs = self._tools_for(ctx) if part is None else part.specs
        start = 0
        cursor = params.cursor if params is not None else None
        if cursor is not None:
            # A cursor names the last tool of the page before, so that it holds its place when
            # tools come and go between two pages.
            last = cursor[len(_CURSOR) :]
            if not cursor.startswith(_CURSOR) or not TOOL_NAME.match(last):
                raise MCPError(INVALID_PARAMS, "Unknown cursor; start again without one.")
            start = bisect_right([spec.name for spec in specs], last)
        page = specs[start : start + self._page]
        shown = page
        if part is not None:
            part.of = len(page)
            shown = page[part.start : part.start + AT_A_TIME]
        answer: dict[str, Any] = {
            "tools": [tool_of(spec) for spec in shown],
            "resultType": "complete",
        }
        if start + self._page < len(specs):
            answer["nextCursor"] = _CURSOR + page[-1].name
        return answer

    async def remember(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Give a kept answer again (a middleware of the SDK's server)."""
        if ctx.method != "tools/list" or not _is_plain(ctx):
            return await call_next(ctx)
        specs = tuple(self._tools_for(ctx))
        key = (ctx.protocol_version, (ctx.params or {}).get("cursor"))
        kept = self._kept.get(key)
        # Comparing tuples compares their items by identity first, which makes this cheap.
        if kept is not None and kept[0] == specs:
            self._kept.move_to_end(key)
            return kept[1]
        result = await (self._in_parts(specs, ctx, call_next) if self._raw else call_next(ctx))
        if isinstance(result, dict) and isinstance(result.get("tools"), list):
            if not isinstance(result["tools"], RawList):
                result = {**result, "tools": RawList(result["tools"])}
            self._kept[key] = (specs, result)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return result

    async def _in_parts(
        self,
        specs: Sequence[ToolSpec],
        ctx: ServerRequestContext[Any, Any],
        call_next: CallNext,
    ) -> HandlerResult:
        """Have one page made by the SDK in parts, of which only the bytes are kept."""
        part = _Part(specs)
        token = _part.set(part)
        try:
            done: list[bytes] = []
            while True:
                result = await call_next(ctx)
                if not isinstance(result, dict) or not isinstance(result.get("tools"), list):
                    return result
                done.append(dump(result["tools"]))
                part.start += AT_A_TIME
                if part.start >= part.of:
                    return {**result, "tools": RawList.joined(done)}
        finally:
            _part.reset(token)


def _is_plain(ctx: ServerRequestContext[Any, Any]) -> bool:
    """Whether the request is one that the SDK is sure to accept.

    A kept answer bypasses the SDK's checks, so whatever it might refuse must reach it: a client
    that has not introduced itself yet, and parameters of the wrong shape.
    """
    modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    if not modern and ctx.session.client_params is None:
        return False
    params = ctx.params or {}
    cursor = params.get("cursor")
    well_formed = "_meta" not in params or ctx.meta is not None
    return (
        well_formed
        and set(params) <= {"_meta", "cursor"}
        and (cursor is None or isinstance(cursor, str))
    )
