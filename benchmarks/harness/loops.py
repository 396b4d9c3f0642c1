"""The event loops that the benchmarks run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def runner(name: str) -> Callable[[Coroutine[Any, Any, T]], T]:
    """Return what runs a coroutine on a loop: ``asyncio`` or ``uvloop``."""
    if name == "uvloop":
        import uvloop

        return uvloop.run
    return asyncio.run
