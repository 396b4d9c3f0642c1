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
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

_STREAMS = ("stdin", "stdout", "stderr")
_HOOKS = ("excepthook", "displayhook", "unraisablehook")

#: Seconds for which an import that has not ended is reckoned with. One that hangs never ends.
_LONGEST = 120.0

#: Streams that modules have put in the place of others. Most are wrapped round the very buffer of
#: those, and would close it if they were let go.
_wrappers: list[Any] = []


@contextmanager
def put_back() -> Iterator[None]:
    """Put back, when the block ends, what an import has no business to change.

    What it has added to `sys.path` stays, because functions may import from there when they are
    called, but moves to the end: it hides nobody's module.
    """
    with _lock:
        before = _before()
        _running.append(before)
    try:
        yield
    finally:
        with _lock:
            _running.remove(before)
            before.put_back()


class _Surroundings:
    """How things are before an import."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self.taken = time.monotonic()
        self._named = {name: getattr(sys, name) for name in (*_STREAMS, *_HOOKS)}
        self._folder = _working_directory()
        self._path = list(sys.path)
        self._filters = list(warnings.filters)
        self._handlers, self._level = list(root.handlers), root.level
        self._disabled = root.manager.disable

    def put_back(self) -> None:
        """Have things as they were."""
        for name, value in self._named.items():
            _put_back_named(name, value)
        if self._folder is not None and _working_directory() != self._folder:
            with suppress(OSError):  # it was removed meanwhile, by somebody else
                os.chdir(self._folder)
        sys.path[:] = [*self._path, *(entry for entry in sys.path if entry not in self._path)]
        if list(warnings.filters) != self._filters:
            _put_back_filters(self._filters)
        root = logging.getLogger()
        root.handlers[:] = self._handlers
        root.setLevel(self._level)
        logging.disable(self._disabled)


_lock = threading.Lock()
#: Of each import that runs.
_running: list[_Surroundings] = []


def _before() -> _Surroundings:
    """Return how things are, or were before an import beside which this one is started: what that
    has changed by now must not be put back as if it had been so."""
    for before in _running:
        if time.monotonic() - before.taken < _LONGEST:
            return before
    return _Surroundings()


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
