"""What a running tool says to its client: progress and log lines, in order, before the answer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp_types import (
    LOG_LEVEL_META_KEY,
    LoggingLevel,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from ..spec import Progress
from .session import Session

#: Notifications that may wait for a client that reads slowly.
LIMIT = 256

_LEVELS: tuple[LoggingLevel, ...] = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
_ALIASES: dict[str, LoggingLevel] = {"warn": "warning", "fatal": "critical", "exception": "error"}


class Notifier:
    """Sends one call's progress and log lines without ever making the tool wait.

    What is reported is queued and sent by a task of its own that exists only while something is
    queued. When a client reads more slowly than a tool reports, progress is thinned (each report
    replaces the one before it) and the oldest log lines are dropped.

    :param ctx: the request that the call answers.
    :param session: the client's connection.
    :param source: the ``logger`` that log lines carry, here the tool's name.
    """

    def __init__(
        self, ctx: ServerRequestContext[Any, Any], session: Session, *, source: str
    ) -> None:
        self._ctx = ctx
        self._source = source
        self._queue: deque[Progress | tuple[LoggingLevel, str]] = deque()
        self._sender: asyncio.Task[None] | None = None
        meta = ctx.meta or {}
        #: Whether the client asked for progress.
        self.wants_progress = meta.get("progress_token") is not None
        wanted = session.log_level
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            # Each request asks for log lines or gets none (SEP-2577).
            wanted = str(meta.get(LOG_LEVEL_META_KEY, ""))
        self._levels = _LEVELS[_LEVELS.index(wanted) :] if wanted in _LEVELS else ()
        #: Whether the client takes log lines at all.
        self.wants_log = bool(self._levels)

    def progress(self, report: Progress) -> None:
        """Queue a progress report."""
        if len(self._queue) >= LIMIT and isinstance(self._queue[-1], Progress):
            self._queue.pop()
        self._put(report)

    def log(self, level: str, message: str) -> None:
        """Queue a log line, if the client asked for lines of this level."""
        name = level.lower()
        known = _ALIASES.get(name) or next((each for each in _LEVELS if each == name), "info")
        if known in self._levels:
            self._put((known, message))

    async def flush(self) -> None:
        """Wait until everything queued has been sent, so that the answer comes after it."""
        if self._sender is not None:
            await self._sender

    def abandon(self) -> None:
        """Drop what is queued: the client has stopped waiting for the call."""
        self._queue.clear()
        if self._sender is not None:
            self._sender.cancel()

    def _put(self, item: Progress | tuple[LoggingLevel, str]) -> None:
        if len(self._queue) >= LIMIT:
            self._queue.popleft()
        self._queue.append(item)
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        session = self._ctx.session
        try:
            while self._queue:
                item = self._queue.popleft()
                if isinstance(item, Progress):
                    await session.report_progress(item.done, item.total, item.message or None)
                else:
                    level, message = item
                    await session.send_notification(
                        LoggingMessageNotification(
                            params=LoggingMessageNotificationParams(
                                level=level, logger=self._source, data=message
                            )
                        ),
                        related_request_id=self._ctx.request_id,
                    )
        finally:
            self._sender = None
