"""What the exceptions of old code come to.

The clients of the old server were told the text of an exception, and its tools rely on that: it is
how they say which argument was wrong. So it is the answer here, too; the traceback goes to the log
alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mcpd_core import McpdError, ToolError

_log = logging.getLogger(__name__)

#: Characters of an exception's text that a client is told.
_LONGEST = 2_000
#: Complaints of asyncio and trio about each other, which the host explains better.
_OF_LIBRARIES = (
    "async context",
    "bad yield",
    "inside a run()",
    "inside a task",
    "running event loop",
    "event loop is already running",
    "while another loop is running",
    "unrecognized yield",
)


@contextmanager
def told(tool: str, hint_for: Callable[[str], str] = lambda text: "") -> Iterator[None]:
    """Raise the exceptions of a tool's code as failures that its callers are told of.

    :param tool: its name.
    :param hint_for: knows what to do about some texts.
    :raises ToolError: in place of an exception.
    """
    try:
        yield
    except (McpdError, MemoryError):
        raise
    except Exception as raised:  # the boundary: it is code of the tree
        error = _single(raised)
        text = _text(error)
        if isinstance(error, (RuntimeError, TypeError)) and any(c in text for c in _OF_LIBRARIES):
            raise
        _log.warning("The tool %s raised.", tool, exc_info=True)
        raise ToolError(
            f"The tool {tool!r} raised {type(error).__name__}{': ' * bool(text)}{text}",
            hint=hint_for(text) or _hint(error),
        ) from raised


def _single(error: Exception) -> Exception:
    """Return what a group holds that has been made by a nursery with one failure."""
    inner = getattr(error, "exceptions", ())
    while isinstance(inner, tuple) and len(inner) == 1 and isinstance(inner[0], Exception):
        error = inner[0]
        inner = getattr(error, "exceptions", ())
    return error


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - to describe a failure must not be another one
        return "an exception that cannot be put into words"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _hint(error: BaseException) -> str:
    if isinstance(error, (KeyError, TypeError, ValueError)):
        return "Perhaps an argument is not what the code expects; the server's log has the details."
    return "The server's log has the details."
