"""The command line: thin commands over the layers below, each imported when it is run."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import CallRefused, McpdError, SelectionError, SettingsError

if TYPE_CHECKING:
    from click import ClickException, Context

#: Exit statuses. What a shell expects for an interrupt and for a closed pipe is 128 + the signal.
OK, FAILED, NOT_CALLED = 0, 1, 2
INTERRUPTED, BROKEN_PIPE = 130, 141

#: The variable by which a shell's completion script asks what could come next.
COMPLETION = "_MCPD_COMPLETE"

#: What the system says when an output takes no more, whatever is written.
_LOST = (errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC)

#: Nothing was done, because what was asked for makes no sense here.
_USAGE = (CallRefused, SelectionError, SettingsError)


def main(argv: Sequence[str]) -> int:
    """Run a command line and return its exit status.

    Whatever goes wrong as foreseen ends in one line on stderr, never in a traceback.

    :param argv: the arguments without the program's name.
    """
    _open_outputs()
    try:
        status = _run(list(argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left, as `head` does.
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _LOST or error.filename is not None:
            raise
        _drop_output()
        sys.stderr.write(f"error: The output cannot be written: {error.strerror}.\n")
        return FAILED
    return status


class _Closed(io.TextIOBase):
    """Stands for an output that was closed before the program began."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "it is closed")


def _open_outputs() -> None:
    """Make sure that the outputs exist, and that stdout takes any text."""
    # Python has nothing there when the descriptor was closed. It is told of once something is to
    # be written, because some commands write nothing.
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # Names of files and texts of others have characters that an output's encoding may lack.
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Let go of what is still buffered for stdout, which must not fail again at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:
        return  # nothing of the system's
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _run(argv: list[str]) -> int:
    import click

    from .app import mcpd

    if COMPLETION in os.environ:
        from .completion import answer

        return answer(mcpd)
    # Not `mcpd.main`, which prints errors in its own way and exits by itself when a pipe is closed.
    try:
        with mcpd.make_context("mcpd", argv) as ctx:
            status = mcpd.invoke(ctx)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        _say_usage(error)
        return error.exit_code
    except McpdError as error:
        complain(error)
        return NOT_CALLED if isinstance(error, _USAGE) else FAILED
    return status if isinstance(status, int) else OK


def _say_usage(error: ClickException) -> None:
    from .output import clean

    ctx: Context | None = getattr(error, "ctx", None)
    if error.format_message() and ctx is not None and error.format_message() == ctx.get_help():
        # No subcommand was named (click 8.2 and later report it so); the message is the help.
        sys.stderr.write(error.format_message() + "\n")
        return
    sys.stderr.write(f"error: {clean(error.format_message())}\n")
    if ctx is not None:
        sys.stderr.write(f"  {ctx.get_usage()}\n  {ctx.command_path} --help says more.\n")


def complain(error: McpdError) -> None:
    """Print an error and what can be done about it to stderr."""
    from .output import clean

    sys.stderr.write(f"error: {clean(error.message)}\n")
    if error.hint:
        sys.stderr.write(f"  {clean(error.hint)}\n")
