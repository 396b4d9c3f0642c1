"""What the exceptions of old code come to.

The clients of the old server were told the text of an exception, and its tools rely on that: it is
how they say which argument was wrong. So it is the answer here, too; the traceback goes to the log
alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mcpd_core import McpdError, ToolError, WrongLibrary

_log = logging.getLogger(__name__)

#: Characters of an exception's text that a client is told.
_LONGEST = 2_000
_TO_TRIO = (
    "It uses trio and runs in asyncio: mark it as written for trio, by "
    '@tool_metadata(runtime="trio") or by setting its _mcp_runtime to "trio".'
)
_TO_ASYNCIO = (
    "It uses asyncio where asyncio does not run: in a thread, because it is a `def`, or in trio, "
    "because it is marked so."
)
_NO_NESTING = "Await what it runs, or write the tool as a `def`, which runs in a thread of its own."
#: How asyncio and trio complain of each other, and what to do about it.
_OF_LIBRARIES = {
    "must be called from async context": _TO_TRIO,
    "Task got bad yield": _TO_TRIO,
    "no running event loop": _TO_ASYNCIO,
    "Timeout should be used inside a task": _TO_ASYNCIO,
    "unrecognized yield message": _TO_ASYNCIO,
    "call run() from inside a run()": _NO_NESTING,
    "cannot be called from a running event loop": _NO_NESTING,
    "while another loop is running": _NO_NESTING,
    "event loop is already running": _NO_NESTING,
}


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
        message = f"The tool {tool!r} raised {type(error).__name__}{': ' * bool(text)}{text}"
        _log.warning("The tool %s raised.", tool, exc_info=True)
        if isinstance(error, (RuntimeError, TypeError)) and (hint := _mixed_up(text)):
            raise WrongLibrary(message, hint=hint, retryable=False) from raised
        raise ToolError(message, hint=hint_for(text) or _hint(error)) from raised


def _single(error: Exception) -> Exception:
    """Return what a group holds that has been made by a nursery with one failure."""
    inner = getattr(error, "exceptions", ())
    while isinstance(inner, tuple) and len(inner) == 1 and isinstance(inner[0], Exception):
        error = inner[0]
        inner = getattr(error, "exceptions", ())
    return error


def _mixed_up(text: str) -> str:
    return next((hint for said, hint in _OF_LIBRARIES.items() if said in text), "")


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
