"""Protecting the wire of a server that speaks over standard input and output.

Apart from `stdio`, because the wire must be claimed before the SDK is imported, which that needs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DaemonError


@contextmanager
def claimed() -> Iterator[tuple[int, int]]:
    """Take the wire away from descriptors 0 and 1 while the block runs.

    Descriptor 0 is the null device meanwhile and descriptor 1 is standard error, in this process
    and in the children it starts, so that a stray ``print`` of a plugin or the chatter of a child
    process lands in the log and not between two messages.

    :returns: the private descriptors of the wire, for reading and for writing.
    :raises DaemonError: when standard input or output is closed.
    """
    try:
        # Above 2, so that nothing that opens a file can be given the number of a standard stream.
        reading = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
        writing = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError as exc:
        raise DaemonError(
            f"Standard input and output cannot be used: {exc.strerror}.",
            hint="Start the server with both open, or serve a socket instead of stdio.",
        ) from None
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, 0)
        try:
            os.dup2(2, 1)
        except OSError:  # standard error is closed
            os.dup2(null, 1)
    finally:
        os.close(null)
    try:
        yield reading, writing
    finally:
        os.dup2(reading, 0)
        os.dup2(writing, 1)
        os.close(reading)
        os.close(writing)
