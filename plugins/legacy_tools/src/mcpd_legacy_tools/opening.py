"""Opening files of trees, in which anything may be called like a module."""

from __future__ import annotations

import os


def never_waiting(path: str, flags: int) -> int:
    """Open a file without waiting for whoever is to write it, should it be a pipe.

    To be given to `open` as its ``opener``. What is read of a pipe that nobody writes is empty.

    :raises OSError: as `os.open` does.
    """
    return os.open(path, flags | os.O_NONBLOCK)
