"""One request that becomes one call of the host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from ..errors import CallRefused, ContentFailed
from .notifier import Notifier
from .session import Session

T = TypeVar("T")

log = logging.getLogger(__name__)

_TRACE_KEYS = ("traceparent", "tracestate", "baggage")


async def lead(
    ctx: ServerRequestContext[Any, Any],
    source: str,
    call: Callable[..., Awaitable[T]],
    *,
    shelter: bool,
) -> T:
    """Make a call for the client of a request, which is told of its progress meanwhile.

    :param source: what runs, for log lines.
    :param call: takes what the host wants to know of a call, by keyword.
    :param shelter: whether the SDK's own loop runs the request; see `_sheltered`.
    :raises CallRefused: as the host does.
    :raises ContentFailed: as the host does.
    :raises MCPError: when the host itself failed.
    """
    session: Session = ctx.lifespan_context
    notifier = Notifier(ctx, session, source=source)
    calling = call(
        principal=session.principal,
        client=session.client,
        on_progress=notifier.progress if notifier.wants_progress else None,
        on_log=notifier.log if notifier.wants_log else None,
        trace=_trace_context(ctx.params),
    )
    try:
        result = await (_sheltered(calling) if shelter else calling)
        await notifier.flush()
    except (CallRefused, ContentFailed):
        raise
    except asyncio.CancelledError:
        notifier.abandon()
        raise
    except Exception:
        # The boundary: what went wrong inside the host is for the log, not for the client.
        log.exception("a call of %r failed inside the host", source)
        raise MCPError(INTERNAL_ERROR, "Internal server error") from None
    return result


def _trace_context(params: Mapping[str, Any] | None) -> dict[str, str]:
    meta = params.get("_meta") if params else None
    if not isinstance(meta, Mapping):
        return {}
    return {key: meta[key] for key in _TRACE_KEYS if isinstance(meta.get(key), str)}


async def _sheltered(call: Awaitable[T]) -> T:
    """Await a host call from within an anyio cancel scope, as the SDK's own loop has it.

    A cancelled scope cancels its task again on every turn of the loop for as long as the task
    waits, which would interrupt the tool's clean-up; the call therefore runs in a task of its own
    that is cancelled once.
    """
    task: asyncio.Future[T] = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            # No deadline: the host bounds a tool's clean-up.
            await asyncio.wait([task])
        raise
