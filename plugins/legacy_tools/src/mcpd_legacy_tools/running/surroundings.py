"""What a module must not change for everybody else by being imported.

Modules that were written to be the whole program replace standard output, change the working
directory, turn warnings into errors and set up logging while they are imported. In a server they
share the process with others, so all of this is put back afterwards.

What cannot be put back: threads that the module starts, `os.environ`, patches to other modules, the
event loop policy, default timeouts of sockets, and whatever the functions do when they are called.
A tree that depends on such things belongs in a process of its own.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

_STREAMS = ("stdin", "stdout", "stderr")
_HOOKS = ("excepthook", "displayhook", "unraisablehook")

#: Streams that modules have put in the place of others. Most are wrapped round the very buffer of
#: those, and would close it if they were let go.
_wrappers: list[Any] = []


@contextmanager
def put_back() -> Iterator[None]:
    """Put back, when the block ends, what an import has no business to change.

    What it has added to `sys.path` stays, because functions may import from there when they are
    called, but moves to the end: it hides nobody's module.
    """
    named = {name: getattr(sys, name) for name in (*_STREAMS, *_HOOKS)}
    folder = _working_directory()
    path = list(sys.path)
    filters = list(warnings.filters)
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, logging.root.manager.disable
    try:
        yield
    finally:
        for name, value in named.items():
            _put_back_named(name, value)
        if folder is not None and _working_directory() != folder:
            with suppress(OSError):  # it was removed meanwhile, by somebody else
                os.chdir(folder)
        sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
        if list(warnings.filters) != filters:
            _put_back_filters(filters)
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)


def _put_back_named(name: str, value: Any) -> None:
    new = getattr(sys, name, None)
    if new is value:
        return
    if name in _STREAMS:
        _wrappers.append(new)
        if _is_closed(value):
            return  # the new one has taken over what was behind it
    setattr(sys, name, value)


def _is_closed(stream: Any) -> bool:
    try:
        return bool(getattr(stream, "closed", False))
    except ValueError:  # what was behind it is detached
        return True


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _put_back_filters(filters: Sequence[Any]) -> None:
    # The list itself is changed: the interpreter's own code holds it, too. Resetting it tells the
    # caches of all modules that it has changed.
    warnings.resetwarnings()
    warnings.filters[:] = filters  # type: ignore[index]
