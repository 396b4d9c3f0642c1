"""The two ways to run a server: a daemon that owns a data directory, and standalone on stdio."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from ..heap import young_heap
from .claim import claimed
from .directory import DataDirectory

if TYPE_CHECKING:
    from ..host import Host

T = TypeVar("T")

#: Seconds a daemon that was started on demand waits for an owner that is about to leave, which may
#: be finishing its calls. Less than `mcpd attach` waits for a daemon to listen.
TAKEOVER = 15.0


def run_daemon(
    make_host: Callable[[], Host],
    *,
    data_dir: Path,
    ready: Callable[[list[str]], None],
    plugins: str = "",
    argv: Sequence[str] | None = None,
    linger: float | None = None,
    grace: float = 10.0,
    http: bool = False,
) -> int:
    """Serve a data directory's Unix socket until a signal, or until nobody needs the server.

    On SIGINT and SIGTERM no client and no call is accepted any more, calls in flight have `grace`
    seconds to finish and are cancelled then, their answers are sent, the services are closed, the
    socket is unlinked. A second signal ends the process at once.

    :param make_host: makes the host; called after the directory was claimed and the SDK imported.
    :param ready: called with what is listened on, as soon as clients are answered.
    :param plugins: the ``--plugins`` argument as it was given, for the daemon's description.
    :param argv: the command line, for the daemon's description; this process's when ``None``.
    :param linger: seconds after which a daemon without clients and without pending work leaves;
        ``None`` for one that stays.
    :param grace: seconds.
    :param http: whether to serve HTTP beside the socket, as the host's settings say.
    :returns: the exit status, 0.
    :raises DirectoryOwned: when another daemon owns the directory.
    :raises DaemonError: when HTTP cannot be served where the settings say.
    :raises DependencyBroken: when the MCP SDK cannot be imported.
    """
    directory = DataDirectory(data_dir)
    directory.claim(wait=0.0 if linger is None else TAKEOVER)
    try:
        with young_heap():
            serving = _import_serving()
            host = make_host()
        directory.describe(plugins=plugins, argv=sys.argv if argv is None else argv)
        _run(
            serving.serve_socket(
                host, directory, ready=ready, linger=linger, grace=grace, http=http
            )
        )
    finally:
        directory.release()
    return 0


def run_standalone(
    make_host: Callable[[], Host],
    *,
    data_dir: Path,
    ready: Callable[[list[str]], None],
    plugins: str = "",
    argv: Sequence[str] | None = None,
    grace: float = 10.0,
    eof_grace: float = 5.0,
) -> int:
    """Serve this process's standard input and output, until they end or a signal comes.

    The data directory is claimed like a daemon's, since the plugins' services live in it.

    :param make_host: makes the host; called after the directory was claimed and the SDK imported.
    :param ready: called with what is listened on, as soon as the client is answered.
    :param plugins: the ``--plugins`` argument as it was given, for the description.
    :param argv: the command line, for the description; this process's when ``None``.
    :param grace: seconds that calls in flight have to finish after a signal.
    :param eof_grace: seconds that they have to finish after the end of the input.
    :returns: the exit status, 0.
    :raises DirectoryOwned: when another process owns the directory.
    :raises DependencyBroken: when the MCP SDK cannot be imported.
    """
    directory = DataDirectory(data_dir)
    directory.claim()
    try:
        # Before anything that may print is imported.
        with claimed() as (reading, writing):
            with young_heap():
                serving = _import_serving()
                host = make_host()
            directory.describe(plugins=plugins, argv=sys.argv if argv is None else argv)
            _run(
                serving.serve_stdio(
                    host, reading, writing, ready=ready, grace=grace, eof_grace=eof_grace
                )
            )
    finally:
        directory.release()
    return 0


def _import_serving() -> ModuleType:
    """Import what serves, and with it the SDK (half a second), explaining a failure."""
    try:
        from . import serving
    except Exception as exc:
        from ..faults import explain_import_failure

        explanation = explain_import_failure(exc)
        if explanation is None:
            raise
        raise explanation from exc
    return serving


def _run(main: Coroutine[Any, Any, T]) -> T:
    """Run a server's main coroutine on the fastest loop there is."""
    loop: asyncio.AbstractEventLoop
    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    # As `asyncio.run`, which takes no loop factory before Python 3.12.
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        with suppress(RuntimeError):
            _cancel_leftovers(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


def _cancel_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    leftovers = asyncio.all_tasks(loop)
    for task in leftovers:
        task.cancel()
    if leftovers:
        loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
