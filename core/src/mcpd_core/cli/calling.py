"""One tool call for the command line: what was asked for, what came of it, and the daemon's way."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CallRefused, InvalidArguments
from .arguments import parse_arguments
from .output import clean

#: Where the daemon puts the details of a failure in a result's ``_meta``.
_ERROR_META = "mcpd/error"


@dataclass(frozen=True)
class Request:
    """What a person asked for: a tool and its arguments as they were typed."""

    tool: str
    pairs: tuple[str, ...] = ()
    whole: str | None = None

    def arguments(self, schema: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the arguments, read by the tool's input schema if there is one."""
        return parse_arguments(self.pairs, self.whole, schema)


@dataclass(frozen=True)
class Answer:
    """What came of it.

    :ivar error: the tool's failure (``code``, ``message``, ``hint``), or ``None``.
    :ivar content: content blocks, where the answer is more than text.
    """

    text: str
    structured: dict[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    content: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the answer as ``--json`` prints it: the structured result where there is one."""
        if self.error is not None:
            return {"error": dict(self.error)}
        if self.structured is not None:
            return self.structured
        return {"text": self.text, **({"content": list(self.content)} if self.content else {})}


@dataclass
class ProgressLine:
    """Shows progress on stderr: in place on a terminal, a line per report elsewhere."""

    shown: bool = field(default=False, init=False)

    def show(self, done: float, total: float | None, message: str) -> None:
        """Show one report."""
        text = f"{done:g}" + (f"/{total:g}" if total is not None else "")
        text = clean(f"{text} {message}".strip()).replace("\n", " ")
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self.shown = True
        else:
            sys.stderr.write(text + "\n")

    def close(self) -> None:
        """End the line, so that what follows starts a new one."""
        if self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def call_daemon(request: Request, socket: Path) -> Answer:
    """Call a tool through the daemon that listens on a socket.

    :raises NoDaemon: when nobody listens there.
    :raises CallRefused: when the tool did not start.
    """
    from ..blocks import in_words
    from .daemon_client import DaemonClient, RemoteError

    progress = ProgressLine()

    def notified(method: str, params: Mapping[str, Any]) -> None:
        if method == "notifications/progress":
            progress.show(params["progress"], params.get("total"), params.get("message") or "")

    with DaemonClient(socket) as daemon:
        schema = None
        if request.pairs:
            # An alias is not listed; its arguments are read without a schema then.
            listed = {tool["name"]: tool for tool in daemon.tools()}
            schema = listed.get(request.tool, {}).get("inputSchema")
        try:
            result = daemon.call(request.tool, request.arguments(schema), notified=notified)
        except RemoteError as error:
            raise CallRefused(error.message, data=error.data) from error
        finally:
            progress.close()
    blocks = tuple(result.get("content", ()))
    only_text = all(block["type"] == "text" for block in blocks)
    text = in_words(blocks)
    if not result.get("isError"):
        return Answer(text, result.get("structuredContent"), content=() if only_text else blocks)
    details = result.get("_meta", {}).get(_ERROR_META) or {"code": "tool_failed", "message": text}
    if details.get("code") == InvalidArguments.code:
        raise InvalidArguments(details["message"], hint=details.get("hint", ""))
    return Answer(text, error=details)
