"""Says what went wrong when a tool uses another library than the one it runs in."""

from __future__ import annotations

from types import TracebackType

from ..errors import WrongLibrary

#: How the libraries complain of each other, by the library that the tool runs in.
_COMPLAINTS = {
    "trio": (
        "trio.run received unrecognized yield message",
        "Timeout should be used inside a task",
        "no running event loop",
    ),
    "asyncio": ("Task got bad yield", "must be called from async context"),
}
_NESTED = {
    "Attempted to call run() from inside a run()": "trio.run",
    "asyncio.run() cannot be called from a running event loop": "asyncio.run",
    "Cannot run the event loop while another loop is running": "run_until_complete",
    "This event loop is already running": "run_until_complete",
}


def explain(error: BaseException, library: str) -> BaseException:
    """Return an error that names the mistake when a tool mixed up the libraries, else the error.

    :param error: what the tool raised.
    :param library: the library it runs in.
    """
    if type(error) not in (TypeError, RuntimeError):
        return error
    text = str(error)
    nested = next((call for complaint, call in _NESTED.items() if complaint in text), None)
    if nested is not None:
        problem = f"The tool called {nested} in the server's thread, where a loop runs already."
        hint = "Await the function, or write the tool as `def`, which runs in a thread of its own."
    elif any(complaint in text for complaint in _COMPLAINTS.get(library, ())):
        other = "asyncio" if library == "trio" else "trio"
        problem = f"The tool runs in {library} and used {other}{_place(error.__traceback__)}."
        hint = (
            f"Declare it as @tool(runtime={other!r}), or use anyio, which knows both; "
            f"what it calls of {other} it may also reach with ctx.call."
        )
    else:
        return error
    explained = WrongLibrary(problem, hint=hint, retryable=False)
    explained.__cause__ = error
    return explained.with_traceback(error.__traceback__)


def _place(traceback: TracebackType | None) -> str:
    """Name the tool's own function: that of the last frame outside of the libraries."""
    name = ""
    while traceback is not None:
        frame = traceback.tb_frame
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("anyio", "asyncio", "mcpd_core", "outcome", "trio"):
            name = frame.f_code.co_name
        traceback = traceback.tb_next
    return f" in {name}" if name else ""
