"""The garbage collector, kept from looking through what is only growing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def young_heap() -> Iterator[None]:
    """Import, or read at length, without the garbage collector.

    It would find nothing and look at everything, which is an eighth of a server's start-up. What
    there is in the end is exempt from later collections, also what the rest of the process has
    made; so this is for processes that are about to serve.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
